"""The address of a broker as a value: written as a URL by people, passed as JSON between processes.

An `Endpoint` may hold a password. Neither `repr` nor `address` shows it; only `to_dict()` contains it, because a child
process needs it. The trap: a dict from `to_dict()` belongs in a pipe or a private file, not in a log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ether.errors import ConfigError

DEFAULT_PORT = 1883
Kind = Literal["tcp", "tls", "ws", "wss", "unix"]
OVER_TLS: frozenset[Kind] = frozenset({"tls", "wss"})
OVER_WEBSOCKET: frozenset[Kind] = frozenset({"ws", "wss"})
_SCHEMES: dict[Kind, str] = {"tcp": "mqtt", "tls": "mqtts", "ws": "ws", "wss": "wss", "unix": "unix"}
_VALID = (
    "valid are mqtt://host[:port], mqtts://host[:port], ws://host[:port][/path], wss://host[:port][/path] and"
    " unix:///path/of/the/socket"
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a broker: `host` and `port` for kinds "tcp" and "tls", with a `path` for "ws" and "wss"; only
    `path` for kind "unix"."""

    kind: Kind
    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in _SCHEMES:
            raise ConfigError(f"a broker of kind {self.kind!r} is unknown; {_VALID}.")
        if not (self.path if self.kind == "unix" else self.host):
            raise ConfigError(f"a broker's address without {'path' if self.kind == 'unix' else 'host'}; {_VALID}.")
        if self.kind != "unix" and not 0 < self.port < 65536:
            raise ConfigError(f"{self.port} is not a port; valid are 1 to 65535.")

    @classmethod
    def from_url(cls, url: str) -> Endpoint:
        """Read `mqtt://…`, `mqtts://…`, `ws://…`, `wss://…` or `unix://…`, percent-encoded where needed; raises
        `ConfigError` for anything else."""
        from ether.config.broker_url import broker_address  # children get their endpoint as a dict and need none of it

        to = broker_address(url)
        if to.host is None or to.port is None:
            return cls("unix", path=to.path or "", username=to.username, password=to.password)
        kinds: tuple[Kind, Kind] = ("ws", "wss") if to.websocket else ("tcp", "tls")
        return cls(kinds[to.tls], to.host, to.port, to.path or "", to.username, to.password)

    @property
    def address(self) -> str:
        """A URL without user and password, for people."""
        if self.kind == "unix":
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{_SCHEMES[self.kind]}://{host}:{self.port}{self.path}"

    def to_dict(self) -> dict[str, str | int | None]:
        """All fields, the password included, in a form that JSON can carry."""
        return {
            "kind": self.kind,
            "host": self.host,
            "port": self.port,
            "path": self.path,
            "username": self.username,
            "password": self.password,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Endpoint:
        """The inverse of `to_dict()`; raises `ConfigError` for keys or values that are not valid."""
        try:
            return cls(**values)  # type: ignore[arg-type]
        except TypeError:
            raise ConfigError(f"an endpoint has the keys {', '.join(cls.__slots__)}, not {sorted(values)}.") from None
