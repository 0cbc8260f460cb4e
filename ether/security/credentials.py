"""A user name and a password for the broker. `repr` leaves the password out, so no log line or traceback shows it."""

from __future__ import annotations

from dataclasses import dataclass, field

_PASSWORD_BYTES = 32


@dataclass(frozen=True, slots=True)
class Credentials:
    """The user with whom a program connects to a broker."""

    username: str
    password: str = field(repr=False)

    @classmethod
    def random(cls) -> Credentials:
        """New credentials with 256 random bits of password, in characters that are safe in URLs and files."""
        import secrets  # takes 6 ms (hashlib, hmac), and only one process of a session makes credentials

        return cls(f"ether-{secrets.token_hex(4)}", secrets.token_urlsafe(_PASSWORD_BYTES))
