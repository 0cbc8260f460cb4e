"""Lines of JSON over the TLS connection of a pairing, with a limit for their length and for the time that they take."""

from __future__ import annotations

import json
import socket
import ssl
import time
from base64 import b64decode, b64encode
from typing import Any

LONGEST_BYTES = 65_536


class BadMessage(ValueError):
    """What came is no message of a pairing, or none came in time."""


MESSAGE_S = 10.0
"""A whole message takes no longer, however slowly its bytes come."""


class Messages:
    """One connection. Each call takes at most the socket's time-out, and a message `MESSAGE_S`."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.socket = sock
        self._rest = b""

    @property
    def server_certificate(self) -> bytes:
        """The certificate that the server has shown, as DER. Raises `BadMessage`."""
        shown = self.socket.getpeercert(True)
        if shown is None:
            raise BadMessage("it showed no certificate")
        return shown

    def send(self, **facts: str) -> None:
        """Send one message. Raises `OSError`."""
        self.socket.sendall(json.dumps(facts).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        """The next message. Raises `BadMessage`, `OSError`."""
        deadline = time.monotonic() + MESSAGE_S
        while b"\n" not in self._rest:
            if time.monotonic() > deadline:
                raise BadMessage(f"its message took more than {MESSAGE_S:g} s")
            if len(self._rest) > LONGEST_BYTES:
                raise BadMessage(f"it sent a line of more than {LONGEST_BYTES} bytes")
            try:
                more = self.socket.recv(4_096)
            except TimeoutError as error:
                raise BadMessage("it said nothing in time") from error
            if not more:
                raise BadMessage("it closed the connection")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadMessage("what it sent is not JSON") from error
        if not isinstance(value, dict):
            raise BadMessage("what it sent is no message")
        return value

    def close(self) -> None:
        """End the connection."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other side was first
        self.socket.close()


def text_of(message: dict[str, Any], key: str) -> str:
    """A text in a message. Raises `BadMessage`, also for half a character: JSON can hold one, and bytes cannot."""
    value = message.get(key)
    if not isinstance(value, str):
        raise BadMessage(f"it did not send its {key}")
    if not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value):
        raise BadMessage(f"its {key} is no text")
    return value


def bytes_of(message: dict[str, Any], key: str) -> bytes:
    """Bytes in a message. Raises `BadMessage`."""
    try:
        return b64decode(text_of(message, key), validate=True)
    except ValueError as error:
        raise BadMessage(f"its {key} cannot be read") from error


def as_text(data: bytes) -> str:
    """Bytes for a message."""
    return b64encode(data).decode()
