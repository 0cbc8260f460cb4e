"""A user name and a password for the broker. The password is in no `repr`, hence in no log line or traceback."""

from __future__ import annotations

from dataclasses import dataclass, field

_PASSWORD_BYTES = 32


@dataclass(frozen=True, slots=True)
class Credentials:
    """As whom to connect. Two are equal where both parts are."""

    username: str
    password: str = field(repr=False)

    @classmethod
    def random(cls) -> Credentials:
        """Credentials that nobody can guess: 256 random bits of password, in characters safe for URLs and files."""
        import secrets  # takes 6 ms to import (hashlib, hmac), and only one process of a session makes credentials

        return cls(f"ether-{secrets.token_hex(4)}", secrets.token_urlsafe(_PASSWORD_BYTES))
