"""Where a broker is, as a value: written as a URL by people, passed as JSON between processes.

An `Endpoint` may carry a password. It shows it nowhere: not in `repr`, not in `address`; only `to_dict()`
holds it, because a child process needs it. The trap: a dict from `to_dict()` belongs in a pipe or a private
file, not in a log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ether.errors import ConfigError

DEFAULT_PORT = 1883
_VALID = "valid are mqtt://host[:port], mqtts://host[:port] and unix:///path/of/the/socket"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a broker: `host` and `port` for kinds "tcp" and "tls", `path` for kind "unix"."""

    kind: Literal["tcp", "tls", "unix"]
    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in ("tcp", "tls", "unix"):
            raise ConfigError(f"a broker of kind {self.kind!r} is unknown; {_VALID}.")
        if not (self.path if self.kind == "unix" else self.host):
            raise ConfigError(f"a broker's address without {'path' if self.kind == 'unix' else 'host'}; {_VALID}.")
        if self.kind != "unix" and not 0 < self.port < 65536:
            raise ConfigError(f"{self.port} is not a port; valid are 1 to 65535.")

    @classmethod
    def from_url(cls, url: str) -> Endpoint:
        """Read `mqtt://…`, `mqtts://…` or `unix://…`, percent-encoded where needed; raises `ConfigError` for anything
        else."""
        from ether.config.broker_url import broker_address  # children get their endpoint as a dict and need none of it

        to = broker_address(url)
        if to.path is not None:
            return cls("unix", path=to.path, username=to.username, password=to.password)
        kind: Literal["tcp", "tls"] = "tls" if to.tls else "tcp"
        return cls(kind, to.host or "", to.port or DEFAULT_PORT, username=to.username, password=to.password)

    @property
    def address(self) -> str:
        """For people: a URL without user and password."""
        if self.kind == "unix":
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.kind == 'tls' else 'mqtt'}://{host}:{self.port}"

    def to_dict(self) -> dict[str, str | int | None]:
        """Everything, the password included, as JSON can carry it."""
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
        """The reverse of `to_dict()`; raises `ConfigError` for keys or values that cannot be."""
        try:
            return cls(**values)  # type: ignore[arg-type]
        except TypeError:
            raise ConfigError(f"an endpoint has the keys {', '.join(cls.__slots__)}, not {sorted(values)}.") from None
