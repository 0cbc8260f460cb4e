"""Which broker carries a session: one that the session starts itself, or one that runs already.

The two are sibling models, told apart by `kind`. The short spellings of the YAML (`embedded`, or a URL) become the
same models. A URL may hold a password: it is kept verbatim, and no `repr` or message shows it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from ether.config.part import Part
from ether.config.problems import nearest_of, shown, without_password
from ether.errors import ConfigError

DEFAULT_MQTT_PORT = 1883
DEFAULT_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
# MQTT's "remaining length" has 28 bits: no broker can take a larger packet.
LARGEST_MQTT_PACKET_BYTES = 268_435_455
BROKER_RULE = (
    "expected embedded, mqtt://[user:password@]host[:port], unix:///path/to/broker.sock,"
    " or a mapping such as {engine: auto, port: 0}."
)

_SHORT_SPELLINGS = {
    "embedded": "embedded",
    "amqtt": "{engine: amqtt}",
    "mosquitto": "{engine: mosquitto}",
}


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker listens, and as whom to go there. `host` and `port` for TCP, `path` for a Unix socket."""

    host: str | None = None
    port: int | None = None
    path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)


def broker_address(url: str) -> BrokerAddress:
    """Take a broker's URL apart; raises `ConfigError` with the valid forms."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _bad_url(url, str(error)) from error
    if parts.scheme == "mqtt":
        return _tcp_address(url, parts, port)
    if parts.scheme == "unix":
        return _unix_address(url, parts)
    raise _bad_url(url, f"there is no {parts.scheme}:// here yet" if "://" in url else "it is not a URL")


def _tcp_address(url: str, parts: SplitResult, port: int | None) -> BrokerAddress:
    if not parts.hostname:
        raise _bad_url(url, "the host is missing")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise _bad_url(url, "nothing may follow the port")
    if port == 0:
        raise _bad_url(url, "0 is not a port that somebody listens on")
    username, password = (None if part is None else unquote(part) for part in (parts.username, parts.password))
    return BrokerAddress(parts.hostname, port or DEFAULT_MQTT_PORT, None, username, password)


def _unix_address(url: str, parts: SplitResult) -> BrokerAddress:
    if parts.hostname or not parts.path.strip("/") or parts.query or parts.fragment:
        raise _bad_url(url, "a Unix socket is named by its absolute path, with three slashes")
    username, password = (None if part is None else unquote(part) for part in (parts.username, parts.password))
    return BrokerAddress(path=unquote(parts.path), username=username, password=password)


def _bad_url(url: str, why: str) -> ConfigError:
    nearest = None if ":" in url else _SHORT_SPELLINGS.get(nearest_of(url, _SHORT_SPELLINGS) or "")
    if re.fullmatch(r"[\w.-]+:\d{1,5}", url):
        nearest = f"mqtt://{url}"
    return ConfigError(f"found {without_password(url)!r:.200}: {why}; {BROKER_RULE}", nearest=nearest)


def _check_url(url: str) -> str:
    broker_address(url)
    return url


class EmbeddedBroker(Part):
    """A broker that the session starts, owns and stops."""

    kind: Literal["embedded"] = Field("embedded", description="a broker that the session starts itself")
    engine: Literal["auto", "amqtt", "mosquitto"] = Field(
        "auto", description="the broker program; auto takes mosquitto where it is installed, else amqtt"
    )
    port: int = Field(0, strict=True, ge=0, le=65535, description="TCP port on loopback; 0 takes a free one")
    max_message_bytes: int = Field(
        DEFAULT_MAX_MESSAGE_BYTES,
        strict=True,
        ge=1024,
        le=LARGEST_MQTT_PACKET_BYTES,
        description="the largest message in bytes; a larger one is refused where it is sent",
    )


class ExternalBroker(Part):
    """A broker that runs already; `url` as it was written."""

    kind: Literal["external"] = Field("external", description="a broker that runs already")
    url: Annotated[str, AfterValidator(_check_url)] = Field(
        description="mqtt://[user:password@]host[:port] or unix:///path/to/broker.sock", repr=False
    )

    @property
    def address(self) -> BrokerAddress:
        """The URL, taken apart."""
        return broker_address(self.url)

    @property
    def shown_url(self) -> str:
        """The URL for log lines: without the password."""
        return without_password(self.url)


BrokerConfig: TypeAlias = EmbeddedBroker | ExternalBroker


def _spelled_out(value: Any) -> Any:
    """Turn the short spellings into the mapping that they stand for."""
    if value is None or value == "embedded":
        return EmbeddedBroker()
    if isinstance(value, str):
        return {"kind": "external", "url": value}
    if isinstance(value, dict):
        return _with_kind(value)
    if isinstance(value, (EmbeddedBroker, ExternalBroker)):
        return value
    raise ConfigError(f"found {shown(value)}; {BROKER_RULE}")


def _with_kind(settings: dict[Any, Any]) -> dict[Any, Any]:
    kind = settings.get("kind", "external" if "url" in settings else "embedded")
    if kind not in ("embedded", "external"):
        raise ConfigError(f"found {shown(kind)}; expected one of: embedded, external.", path="kind")
    return {**settings, "kind": kind}


BrokerField = Annotated[
    BrokerConfig,
    Field(discriminator="kind"),
    BeforeValidator(_spelled_out, json_schema_input_type=str | EmbeddedBroker | ExternalBroker | None),
]
