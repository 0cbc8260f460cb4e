"""The binary body: JSON with parts beside it, for values that JSON alone cannot carry.

    offset 0   4 bytes   93 45 54 48    ("\\x93ETH"; 0x93 begins neither JSON nor any UTF-8 text)
           4   1 byte    01             version of this layout
           5   3 bytes   00 00 00
           8   4 bytes   length of the head, unsigned, little-endian
          12             the head: a JSON object in UTF-8
          …              the parts' bytes, in the head's order, each beginning at a multiple of 8

The head is {"_ether": headers (3.1.1 only), "body": the value with null where parts belong, "parts":
[{"path": …, "kind": …, "length": bytes, …}]}. Offsets follow from the lengths, so parts cannot overlap.

Promises: parts are placed by path, so no value of a user can be mistaken for a place-holder. A body that does not fit
this layout to the last byte is a `DecodeError`.

The trap: every number in a body comes from another process. Check it before using it.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any

from ether.errors import DecodeError
from ether.wire import arrays
from ether.wire.json_text import dumps, loads
from ether.wire.values import BodyPart

CONTENT_TYPE = "application/vnd.ether.binary"
MAGIC = b"\x93ETH"
_START = Struct("<4sB3sI")
_VERSION, _RESERVED = 1, b"\0\0\0"
_ALIGNMENT = 8


def join(body: bytes, parts: Sequence[BodyPart], headers: bytes = b"") -> bytes:
    """The bytes of a binary body. `body` is the value's JSON text; `headers` is the JSON text of Ether's headers, empty
    where they travel as properties."""
    listed = dumps([{"path": p.path, "kind": p.kind, "length": len(p.data), **p.facts} for p in parts])
    own = b'"_ether":' + headers + b"," if headers else b""
    head = b"{" + own + b'"body":' + body + b',"parts":' + listed + b"}"
    pieces: list[bytes | memoryview] = [_START.pack(MAGIC, _VERSION, _RESERVED, len(head)), head]
    end = _START.size + len(head)
    for part in parts:
        padding = -end % _ALIGNMENT
        pieces += (bytes(padding), part.data)
        end += padding + len(part.data)
    return b"".join(pieces)


def split(payload: bytes) -> tuple[object, object]:
    """The value of a binary body, and the headers in its head under `_ether` (None where it has none); raises
    `DecodeError`."""
    head, at = _read_head(payload)
    parts = head.get("parts")
    if "body" not in head or type(parts) is not list:
        raise DecodeError("a binary body needs 'body' and 'parts' in its head")
    value, view = [head["body"]], memoryview(payload)
    for part in parts:
        at += -at % _ALIGNMENT
        end = at + _length(part)
        if end > len(payload):
            raise DecodeError(f"a binary body breaks off: {end - len(payload):,} bytes are missing")
        _place(value, part.get("path"), _read(part, view[at:end]))
        at = end
    if at != len(payload):
        raise DecodeError(f"a binary body has {len(payload) - at:,} bytes too many at its end")
    return value[0], head.get("_ether")


def read_headers(payload: bytes) -> object:
    """The headers in the head under `_ether`, also where the parts are damaged."""
    return _read_head(payload)[0].get("_ether")


def _read_head(payload: bytes) -> tuple[dict[str, Any], int]:
    if len(payload) < _START.size:
        raise DecodeError("a binary body breaks off in its first bytes")
    magic, version, reserved, length = _START.unpack_from(payload)
    if magic != MAGIC or version != _VERSION or reserved != _RESERVED:
        raise DecodeError(f"a binary body begins with {payload[:8].hex(' ')}, which this version cannot read")
    end = _START.size + length
    if end > len(payload):
        raise DecodeError(f"a binary body breaks off: its head has {length:,} bytes, {len(payload):,} came in all")
    try:
        head = loads(payload[_START.size : end].decode(), strict=True)
    except UnicodeDecodeError as error:
        raise DecodeError(f"the head of a binary body is not UTF-8: {error.reason}") from error
    if type(head) is not dict:
        raise DecodeError("the head of a binary body is not a JSON object")
    return head, end


def _length(part: object) -> int:
    length = part.get("length") if type(part) is dict else None
    if type(length) is not int or length < 0:
        raise DecodeError("a part of a binary body has no valid length")
    return length


def _read(part: dict[str, Any], data: memoryview) -> object:
    kind = part.get("kind")
    if kind == "bytes":
        return bytes(data)
    if kind == "float" and len(data) == 8:
        number: float = _DOUBLE.unpack(data)[0]
        return number
    if kind == "complex" and len(data) == 16:
        return complex(*_DOUBLES.unpack(data))
    if kind in ("array", "scalar"):
        return arrays.unpack_array(part, data, scalar=kind == "scalar")
    raise DecodeError(f"a part of a binary body is of kind {kind!r:.40} with {len(data):,} bytes, which nothing is")


_DOUBLE, _DOUBLES = Struct("<d"), Struct("<dd")


def _place(value: list[object], path: object, part: object) -> None:
    """Put a part at the end of `path`, where the value must hold a null."""
    if type(path) is not list:
        raise DecodeError("a part of a binary body has no path")
    container: Any = value
    key: Any = 0
    for step in path:
        container, key = _enter(container, key), step
    if _enter(container, key) is not None:
        raise DecodeError(f"a part of a binary body belongs to {path!r:.80}, where something stands already")
    container[key] = part


def _enter(container: Any, key: object) -> Any:
    if type(container) is dict and type(key) is str and key in container:
        return container[key]
    if type(container) is list and type(key) is int and 0 <= key < len(container):
        return container[key]
    raise DecodeError(f"a part of a binary body has a path that leads nowhere, at {key!r:.60}")
