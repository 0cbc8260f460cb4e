"""Parses the URL of a broker: the only parser, for the configuration, the environment and the transport.

`mqtt://` is TCP, `mqtts://` is TCP with TLS, `ws://` and `wss://` are the same through a WebSocket, `unix://` is a
socket on this machine. A URL may contain a password: no message here shows it. The trap: importing this module must
stay cheap, so urllib and pydantic are imported only where a function needs them; a session's children get their broker
as a dict, and parse no URL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ether.errors import ConfigError

if TYPE_CHECKING:
    from urllib.parse import SplitResult

DEFAULT_MQTT_PORT = 1883
DEFAULT_MQTTS_PORT = 8883
DEFAULT_WS_PATH = "/mqtt"
"""The path of the WebSocket on most brokers; mosquitto accepts every path."""
URL_RULE = (
    "valid are mqtt://[user:password@]host[:port], mqtts://[user:password@]host[:port],"
    " ws://[user:password@]host[:port][/path], wss://[user:password@]host[:port][/path] and"
    " unix://[user:password@]/path/of/the/socket."
)

_DEFAULT_PORTS = {"mqtt": DEFAULT_MQTT_PORT, "mqtts": DEFAULT_MQTTS_PORT, "ws": 80, "wss": 443}
_OVER_TLS, _OVER_WEBSOCKET = {"mqtts", "wss"}, {"ws", "wss"}


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker listens, and the user with whom to log in. TCP has `host` and `port`, with or without `tls`; a
    Unix socket has `path`; a `websocket` has all three, the path as written in the URL."""

    host: str | None = None
    port: int | None = None
    path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    websocket: bool = False


def broker_address(url: str, rule: str = URL_RULE) -> BrokerAddress:
    """The parts of a broker's URL. Raises `ConfigError`, whose text ends in `rule`: what would be valid."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refusal(url, str(error), rule) from None
    why = _fault(url, parts, port)
    if why:
        raise _refusal(url, why, rule)
    return _address(parts, port)


def complete_url(text: str) -> str:
    """The URL for a URL, or for an address as people type it: `192.168.1.5`, `bench-pc:8884`, `::1`. An address alone
    is reached by TLS; plain text on a network has to be said (mqtt://). This machine itself needs none."""
    if "://" in text:
        return text
    bare = text.count(":") > 1 and not text.startswith("[")
    host = text if bare else text.rpartition("]")[0] or text.partition(":")[0]
    scheme = "mqtt" if is_loopback(host.lstrip("[")) else "mqtts"
    return f"{scheme}://[{text}]" if bare else f"{scheme}://{text}"


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own, which no other can reach."""
    import ipaddress

    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def url_with(url: str, username: str, password: str) -> str:
    """The URL with these credentials instead of its own."""
    from urllib.parse import quote, urlsplit

    parts = urlsplit(url)
    where = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{quote(username, safe='')}:{quote(password, safe='')}@{where}").geturl()


def url_without_credentials(url: str) -> str:
    """The URL without user and password."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return bare if parts.netloc.rpartition("@")[2] else f"{parts.scheme}://{parts.path}"  # unix:///path


def _fault(url: str, parts: SplitResult, port: int | None) -> str:
    """Why this is not the URL of a broker; empty where it is one.

    The scheme decides what is checked: for the network a host, what follows the port, and that the port is not 0 (which
    only a listener may ask for); for a Unix socket an absolute path and nothing else."""
    if parts.scheme in _DEFAULT_PORTS:
        if not parts.hostname:
            return "the host is missing"
        if why := _fault_after_port(parts):
            return why
        return "0 is not a port that somebody listens on" if port == 0 else ""
    if parts.scheme == "unix":
        odd = parts.hostname or not parts.path.strip("/") or parts.query or parts.fragment
        return "a Unix socket is named by its absolute path, with three slashes" if odd else ""
    return f"there is no {parts.scheme}:// here" if "://" in url else "it is not a URL"


def _fault_after_port(parts: SplitResult) -> str:
    if parts.scheme not in _OVER_WEBSOCKET:
        return "nothing may follow the port" if parts.path not in ("", "/") or parts.query or parts.fragment else ""
    if parts.query or parts.fragment:
        return "nothing may follow the path"
    odd = not re.fullmatch(r"[!-~]*", parts.path)
    return "the path is ASCII without spaces; write other characters as %20 and the like" if odd else ""


def _address(parts: SplitResult, port: int | None) -> BrokerAddress:
    from urllib.parse import unquote

    username, password = (None if part is None else unquote(part) for part in (parts.username, parts.password))
    if parts.scheme == "unix":
        return BrokerAddress(path=unquote(parts.path), username=username, password=password)
    port = _DEFAULT_PORTS[parts.scheme] if port is None else port
    path = (parts.path or DEFAULT_WS_PATH) if parts.scheme in _OVER_WEBSOCKET else None
    tls, websocket = parts.scheme in _OVER_TLS, path is not None
    return BrokerAddress(parts.hostname, port, path, username, password, tls=tls, websocket=websocket)


def _refusal(url: str, why: str, rule: str) -> ConfigError:
    from ether.config.problems import without_password  # loads pydantic: only where something is wrong

    nearest = f"mqtt://{url}" if re.fullmatch(r"[\w.-]+:\d{1,5}", url) else None
    return ConfigError(f"found {without_password(url)!r:.200}: {why}; {rule}", nearest=nearest)
