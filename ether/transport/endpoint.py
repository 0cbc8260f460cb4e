"""Where a broker is, as a value: written as a URL by people, passed as JSON between processes.

An `Endpoint` may carry a password. It shows it nowhere: not in `repr`, not in `address`; only `to_dict()`
holds it, because a child process needs it. The trap: a dict from `to_dict()` belongs in a pipe or a private
file, not in a log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ether.errors import ConfigError

if TYPE_CHECKING:
    from urllib.parse import SplitResult

DEFAULT_PORT = 1883
_VALID = "valid are mqtt://[user:password@]host[:port] and unix://[user:password@]/path/of/the/socket"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a broker: `host` and `port` for kind "tcp", `path` for kind "unix"."""

    kind: Literal["tcp", "unix"]
    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in ("tcp", "unix"):
            raise ConfigError(f"a broker of kind {self.kind!r} is unknown; {_VALID}.")
        if not (self.host if self.kind == "tcp" else self.path):
            raise ConfigError(f"a broker's address without {'host' if self.kind == 'tcp' else 'path'}; {_VALID}.")
        if self.kind == "tcp" and not 0 < self.port < 65536:
            raise ConfigError(f"{self.port} is not a port; valid are 1 to 65535.")

    @classmethod
    def from_url(cls, url: str) -> Endpoint:
        """Read `mqtt://…` or `unix://…`, percent-encoded where needed; raises `ConfigError` for anything
        else."""
        from urllib.parse import unquote, urlsplit  # children get their endpoint as a dict and need none of it

        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"the broker's address cannot be read ({error}); {_VALID}.") from None
        user = None if parts.username is None else unquote(parts.username)
        password = None if parts.password is None else unquote(parts.password)
        if parts.query or parts.fragment:
            raise ConfigError(f"a broker's address has no '?' or '#' part; {_VALID}.")
        if parts.scheme == "mqtt" and parts.path in ("", "/"):
            host = unquote(parts.hostname or "")
            return cls(
                "tcp",
                host=host,
                port=DEFAULT_PORT if port is None else port,
                username=user,
                password=password,
            )
        if parts.scheme == "unix" and not parts.hostname:
            return cls("unix", path=unquote(parts.path), username=user, password=password)
        raise ConfigError(f"{_shown(parts)!r} is not the address of a broker; {_VALID}.")

    @property
    def address(self) -> str:
        """For people: a URL without user and password."""
        if self.kind == "unix":
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt://{host}:{self.port}"

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


def _shown(parts: SplitResult) -> str:
    """The URL without user and password, for an error message."""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
