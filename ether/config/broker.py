"""The broker of a session: one that the session starts itself, or one that runs already.

The two are sibling models, distinguished by `kind`. The short spellings of the YAML (`embedded`, or a URL) become the
same models. A URL may contain a password: it is stored as written, and no `repr` or message shows it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ether.config.broker_url import DEFAULT_MQTT_PORT, BrokerAddress, broker_address, complete_url
from ether.config.part import ConfigPart
from ether.config.problems import nearest_of, shown, without_password
from ether.errors import ConfigError

__all__ = [
    "DEFAULT_MQTT_PORT",
    "BrokerAddress",
    "BrokerConfig",
    "BrokerField",
    "EmbeddedBroker",
    "ExternalBroker",
    "broker_address",
]

LOOPBACK = "loopback"
LAN = "lan"
EVERYWHERE = "0.0.0.0"
SECURITY_RULE = (
    "expected on (encrypted, and every machine known by its certificate), or off (plain text, one password for all)."
)
LISTEN_RULE = "expected loopback, lan, or an address of this machine such as 192.168.1.5."
PASSWORDS_NEED_TLS = (
    "found it without an encrypted listener on the network; expected listen: lan (or an address) beside it, and no"
    " security: off: a password crosses a network over TLS alone."
)
WEBSOCKET_NEEDS_LAN = (
    "this port is for other machines, and the broker listens on loopback only: add listen: lan, or an address of this"
    " machine."
)
DEFAULT_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
# MQTT's "remaining length" has 28 bits: no packet can be larger.
LARGEST_MQTT_PACKET_BYTES = 268_435_455
BROKER_RULE = (
    "expected embedded, mqtt://[user:password@]host[:port], mqtts://host[:port], ws://host[:port][/path],"
    " wss://host[:port][/path], unix:///path/to/broker.sock,"
    " or a mapping such as {engine: auto, port: 0}."
)

_SHORT_SPELLINGS = {
    "embedded": "embedded",
    "amqtt": "{engine: amqtt}",
    "mosquitto": "{engine: mosquitto}",
}


_NO_HOSTS = (*_SHORT_SPELLINGS, "auto", LOOPBACK, LAN)
"""Words that a person means otherwise than as the name of a machine."""
_TYPED = re.compile(r"\[?[\w.:-]+\]?(:\d+)?")


def _typed(text: str) -> str:
    """The URL for an address as people type it: `192.168.1.5`, `bench-pc:1884`, `::1`. Everything else as it is: URLs,
    and what looks like a misspelt engine."""
    if "://" in text or not _TYPED.fullmatch(text):
        return text
    is_word = not any(mark in text for mark in ".:")
    return text if is_word and nearest_of(text, _NO_HOSTS) is not None else complete_url(text)


def _parsed(url: str) -> BrokerAddress:
    try:
        return broker_address(url, BROKER_RULE)
    except ConfigError as error:
        if error.nearest is None and ":" not in url:
            nearest = _SHORT_SPELLINGS.get(nearest_of(url, _SHORT_SPELLINGS) or "")
            raise ConfigError(error.problem, nearest=nearest) from None
        raise


def _check_url(text: str) -> str:
    url = _typed(text)
    _parsed(url)
    return url


def _check_listen(where: object) -> object:
    """`loopback`, `lan`, or an address of this machine."""
    if where in (LOOPBACK, LAN):
        return where
    try:
        if not isinstance(where, str) or "%" in where:
            raise ValueError
        return str(ipaddress.ip_address(where))
    except ValueError:
        nearest = nearest_of(where, (LOOPBACK, LAN)) if isinstance(where, str) else None
        raise ConfigError(f"found {shown(where)}; {LISTEN_RULE}", nearest=nearest) from None


def _check_security(wish: object) -> object:
    """`on` and `off`, which YAML reads as true and false."""
    if isinstance(wish, bool):
        return "on" if wish else "off"
    if wish in ("on", "off"):
        return wish
    raise ConfigError(f"found {shown(wish)}; {SECURITY_RULE}")


class EmbeddedBroker(ConfigPart):
    """A broker that the session starts, owns and stops."""

    kind: Literal["embedded"] = Field("embedded", description="a broker that the session starts itself")
    engine: Literal["auto", "amqtt", "mosquitto"] = Field(
        "auto", description="the broker program; auto takes mosquitto where it is installed, else amqtt"
    )
    port: int = Field(
        0,
        strict=True,
        ge=0,
        le=65535,
        description="TCP port for other programs; 0 takes a free one, and on the network 1883 where that is free",
    )
    listen: Annotated[str, BeforeValidator(_check_listen)] = Field(
        LOOPBACK,
        description="loopback: for this machine alone; lan: on every network of this machine; or one of its addresses."
        " Other machines join by `ether pair` here and `ether join` there",
    )
    security: Annotated[Literal["on", "off"], BeforeValidator(_check_security)] = Field(
        "on",
        description="on: what other machines send and receive is encrypted, and each of them is known by its"
        " certificate; off: plain text on the network, and one password for all. Loopback is plain in either case",
    )
    max_message_bytes: int = Field(
        DEFAULT_MAX_MESSAGE_BYTES,
        strict=True,
        ge=1024,
        le=LARGEST_MQTT_PACKET_BYTES,
        description="the largest message in bytes; a larger one is refused where it is sent",
    )

    websocket_port: int | None = Field(
        None,
        strict=True,
        ge=1,
        le=65535,
        description="a second port on the network, for programs behind a firewall that come by wss://host:port; null"
        " for none. Only beside listen: lan, or an address",
    )

    password_port: int | None = Field(
        None,
        strict=True,
        ge=1,
        le=65535,
        description="a further port on the network, for devices that cannot hold a certificate: over TLS, each with the"
        " password that `ether pair --password NAME` gives it; null for none. Only beside listen: lan, or an address",
    )

    @model_validator(mode="after")
    def _may_ask_for_passwords(self) -> EmbeddedBroker:
        if self.password_port is not None and not self.encrypted:
            raise ConfigError(PASSWORDS_NEED_TLS, path="password_port")
        if self.password_port is not None and self.password_port in (self.port, self.websocket_port):
            raise ConfigError(
                "found the number of another port; each of them needs a port of its own.", path="password_port"
            )
        return self

    @model_validator(mode="after")
    def _may_listen_there(self) -> EmbeddedBroker:
        if self.websocket_port is not None and self.listen == LOOPBACK:
            raise ConfigError(WEBSOCKET_NEEDS_LAN, path="websocket_port")
        if self.websocket_port is not None and self.websocket_port == self.port:
            raise ConfigError(
                "found the number of port; each of the two needs a port of its own.", path="websocket_port"
            )
        return self

    @property
    def encrypted(self) -> bool:
        """Whether other machines reach it, and by TLS alone."""
        return self.lan_host is not None and self.security == "on"

    @property
    def lan_host(self) -> str | None:
        """The address at which other machines reach the broker; None where it listens on loopback alone."""
        return {LOOPBACK: None, LAN: EVERYWHERE}.get(self.listen, self.listen)


class ExternalBroker(ConfigPart):
    """A broker that runs already; `url` as it was written, or the URL of an address."""

    kind: Literal["external"] = Field("external", description="a broker that runs already")
    url: Annotated[str, AfterValidator(_check_url)] = Field(
        description="mqtt://[user:password@]host[:port], mqtts://… with TLS, ws://[user:password@]host[:port][/path]"
        " through a WebSocket, wss://… through one with TLS, or unix:///path/to/broker.sock",
        repr=False,
    )

    @property
    def address(self) -> BrokerAddress:
        """The URL, taken apart."""
        return _parsed(self.url)

    @property
    def shown_url(self) -> str:
        """The URL for log lines: without the password."""
        return without_password(self.url)


BrokerConfig: TypeAlias = EmbeddedBroker | ExternalBroker


def _spelled_out(value: Any) -> Any:
    """The mapping, or the model, that a short spelling stands for."""
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
