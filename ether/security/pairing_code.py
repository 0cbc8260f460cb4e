"""What proves, once, that two machines are in one person's hands: a token that is pasted, or a short code to type.

A token is `ether1:<lab>-<secret>`, with the addresses of the machine that waits behind an `@`. It names the lab by the
hash of its certificate, so the machine that joins knows whom it may tell the secret before it tells it. A code is eight
signs; from it both sides make a key by SPAKE2, which gives whoever listens, or answers in another's place, one guess
and nothing to try at home. The group arithmetic is that of the package `spake2`.

The trap: whoever has got the answer of a code's exchange has had a guess. So the exchange counts as one, whether or not
anything follows.
"""

from __future__ import annotations

import hmac
import re
import secrets
from base64 import b32encode
from dataclasses import dataclass, field

from spake2 import SPAKE2_A, SPAKE2_B, SPAKEError

from ether.errors import ConfigError

VALID_S = 600.0
"""How long token and code are good for."""

_SIGNS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""No sign that is read, or heard, as another one."""
_CODE_SIGNS = 8
_SECRET_BYTES = 16
_TOKEN = re.compile(r"ether1:([a-z2-7]{26})-([a-z2-7]{26})(?:@(\S+))?")
_VALID = (
    "expected what `ether pair NAME` shows on the machine that runs the session: a token (ether1:…), or a code such as"
    " 4K7M-QX9P."
)


class WrongProof(ValueError):
    """The other side does not know the code."""


@dataclass(frozen=True, slots=True)
class Token:
    """What is pasted: the lab, the secret, and addresses as `host:port`."""

    lab: str
    secret: str = field(repr=False)
    addresses: tuple[str, ...] = ()

    @classmethod
    def new(cls, lab: str, addresses: tuple[str, ...]) -> Token:
        """A token with a new secret."""
        secret = b32encode(secrets.token_bytes(_SECRET_BYTES)).decode().rstrip("=").lower()
        return cls(lab, secret, addresses)

    @property
    def text(self) -> str:
        """The token as it is pasted."""
        where = f"@{','.join(self.addresses)}" if self.addresses else ""
        return f"ether1:{self.lab}-{self.secret}{where}"


def new_code() -> str:
    """A new code, 39 bits."""
    signs = "".join(secrets.choice(_SIGNS) for _ in range(_CODE_SIGNS))
    return f"{signs[:4]}-{signs[4:]}"


def read_token_or_code(text: str) -> Token | str:
    """The token, or the code in its own spelling. Raises `ConfigError`; the text may be a real secret with a slip, and
    is not shown."""
    text = text.strip()
    if found := _TOKEN.fullmatch(text):
        return Token(found[1], found[2], tuple(part for part in (found[3] or "").split(",") if part))
    signs = re.sub(r"[\s-]", "", text).upper()
    if len(signs) == _CODE_SIGNS and all(sign in _SIGNS for sign in signs):
        return f"{signs[:4]}-{signs[4:]}"
    what = "a token that is not whole" if text.startswith("ether") else "no token and no code"
    raise ConfigError(f"found {what} ({len(text)} characters); {_VALID}")


def same_secret(one: str, other: object) -> bool:
    """Whether two secrets are equal, in a time that tells nothing."""
    return isinstance(other, str) and hmac.compare_digest(one.encode(), other.encode())


class CodeExchange:
    """One side of SPAKE2. Send `message`; `key` gives what both sides have in common if both know the code."""

    def __init__(self, code: str, *, joins: bool) -> None:
        side = SPAKE2_A if joins else SPAKE2_B
        self._side = side(code.replace("-", "").encode(), idA=b"ether device", idB=b"ether lab")
        self.message: bytes = self._side.start()

    def key(self, message: bytes) -> bytes:
        """The key, after the other side's message. Raises `WrongProof` for one that cannot be."""
        try:
            return bytes(self._side.finish(message))
        except (SPAKEError, ValueError, AssertionError) as error:
            raise WrongProof("it did not send a message of SPAKE2") from error


def proof(key: bytes, *facts: bytes) -> bytes:
    """What only a holder of the key can say of these facts."""
    told = b"".join(len(fact).to_bytes(4, "big") + fact for fact in facts)
    return hmac.new(key, told, "sha256").digest()


def check_proof(given: bytes, key: bytes, *facts: bytes) -> None:
    """Raises `WrongProof` where this is not what a holder of the key says of these facts."""
    if not hmac.compare_digest(given, proof(key, *facts)):
        raise WrongProof("it does not know the code")
