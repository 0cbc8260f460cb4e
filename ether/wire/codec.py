"""Values to bodies and back, with the content type that says which form a body has.

A value is sent as JSON; as a binary body (see `ether.wire.binary`) only where JSON cannot carry it; bytes alone are
sent as they are.

Promises: `decode(*encode(value))` is the value, up to the documented conversions. Whatever a foreign client sends,
`decode` returns a value or raises `DecodeError`.

The trap: the form of a body without a content type is guessed, so a foreign `42` is a number and `ON` is text. A client
that sends raw bytes which might look like text must declare them by the content type `application/octet-stream`.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from ether.errors import DecodeError
from ether.wire import binary
from ether.wire.json_text import loads
from ether.wire.values import flatten

JSON = "application/json"
OCTETS = "application/octet-stream"

_BOM = b"\xef\xbb\xbf"


class Body(NamedTuple):
    """The bytes of a value; `content_type` is None for None, whose body is empty."""

    payload: bytes
    content_type: str | None


def encode(value: object) -> Body:
    """The body of a value; raises `EncodeError`. A value that is a `Body` is returned as it is."""
    if type(value) is not dict:  # what most values are is asked first
        if value is None:
            return Body(b"", None)
        if type(value) is Body:  # a recorded message, which is sent unchanged
            return value
        if isinstance(value, (bytes, bytearray, memoryview)):
            return Body(bytes(value), OCTETS)
    text, parts = flatten(value)
    if parts:
        return Body(binary.join(text, parts), binary.CONTENT_TYPE)
    return Body(text, JSON)


def decode(payload: bytes, content_type: str | None) -> object:
    """The value of a body; raises `DecodeError`. A body of unknown content type gives bytes."""
    return read(payload, content_type)[0]


def read(payload: bytes, content_type: str | None) -> tuple[object, object]:
    """The value of a body, and the headers that a binary body's head holds under `_ether` (None where it has none)."""
    if content_type is None:
        return binary.split(payload) if payload.startswith(binary.MAGIC) else (_guess(payload), None)
    if content_type == JSON:  # the common case, before any taking apart
        return loads(_text(payload), strict=True), None
    kind = content_type.partition(";")[0].strip().lower()
    if kind == binary.CONTENT_TYPE:
        return binary.split(payload)
    if kind == JSON or kind.endswith("+json"):
        return loads(_text(payload), strict=True), None
    return (_text(payload) if kind.startswith("text/") else payload), None


def _text(payload: bytes) -> str:
    try:
        return payload.removeprefix(_BOM).decode()
    except UnicodeDecodeError as error:
        raise DecodeError(f"the body is not UTF-8 text, at byte {error.start}: {error.reason}") from error


def _guess(payload: bytes) -> object:
    """The value of a body without a content type."""
    if not payload:
        return None
    try:
        text = payload.removeprefix(_BOM).decode()
    except UnicodeDecodeError:
        return payload
    try:
        return loads(text, strict=False)
    except DecodeError as error:
        # Text like `ON` is a value. A text that begins like JSON, or is a number too long to read, was meant as JSON
        # and is an error.
        if text.lstrip()[:1] in ("{", "[", '"') or not isinstance(error.__cause__, json.JSONDecodeError):
            raise
        return text
