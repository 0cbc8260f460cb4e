"""A message: a value and its headers, as the two versions of MQTT carry them.

Over MQTT 5 the body is the user's value, and the headers are properties. Over 3.1.1, which has no properties, the
headers stand in the body under the key `_ether`, or in the head of a binary body. The envelope that packs is chosen
once for a connection. `unpack()` reads both forms on any connection, because a broker passes messages between clients
of both versions.

Promises: both forms carry the same values and headers. A message without Ether's headers is foreign, and is accepted.

The traps: over MQTT 5 the body alone does not tell the sender. A program that stores bodies must store the properties
with them. And a bridge that speaks 3.1.1 passes a message on without its properties: what must not lose its headers
carries them twice (`EnvelopeTwice`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from ether.errors import DecodeError
from ether.wire import binary
from ether.wire.codec import JSON, OCTETS, Body, decode, encode, read
from ether.wire.head import (
    Headers,
    fields_of,
    headers_from_fields,
    pack_headers,
    pack_text,
    read_headers,
)
from ether.wire.json_text import dumps, read_object_at
from ether.wire.values import RESERVED_KEY, BodyPart, flatten

__all__ = [
    "Envelope",
    "EnvelopeTwice",
    "EnvelopeV5",
    "EnvelopeV311",
    "Headers",
    "Packed",
    "Unpacked",
    "has_property_headers",
    "unpack",
    "unpack_headers",
]

_ROOT = "root"
_MARK = b'"_ether":'
_SOURCE = b"\x26\x00\x06source"
_TAIL = 4096
"""Bytes that are searched for headers: at the end of a JSON body, at the beginning of a binary one."""
_HEADERS_BYTES = 300
"""About what headers take."""
_NOTHING: tuple[str | None, Headers | None] = (None, None)


class Packed(NamedTuple):
    """The bytes of a message. `properties` is an MQTT 5 property section without its length, empty over 3.1.1. `text`
    is the JSON of the value alone, over 3.1.1, and empty where the body is binary."""

    payload: bytes
    properties: bytes
    text: bytes = b""


class Unpacked(NamedTuple):
    """A message that arrived. `headers` is None for a foreign one."""

    value: object
    headers: Headers | None


class Envelope(ABC):
    """How one version of MQTT carries messages. A value may be a `Body`, one that was packed before: MQTT 5 sends its
    bytes unchanged, 3.1.1 packs its value again."""

    __slots__ = ()

    @abstractmethod
    def prepare(self, value: object) -> object:
        """What `pack` and `body` take in place of a value: all that is made of the value alone. Raises as `pack` does.
        It may run code of the user's (the serializers of a model); `pack` and `body` of the result run none. What was
        prepared before is returned as it is."""

    @abstractmethod
    def size(self, prepared: object) -> int:
        """About the bytes of a message with a prepared value."""

    @abstractmethod
    def pack(self, value: object, headers: Headers) -> Packed:
        """The bytes of a message; raises `EncodeError`."""

    @abstractmethod
    def body(self, packed: Packed, value: object) -> Body:
        """The body alone, as `ether.wire.codec.encode` makes it, of a message that has just been packed."""


class EnvelopeV5(Envelope):
    """MQTT 5: the headers are properties."""

    __slots__ = ()

    def prepare(self, value: object) -> object:
        """The body."""
        return value if type(value) is Body else encode(value)

    def size(self, prepared: object) -> int:
        """The bytes of the body, and some for the headers."""
        return _HEADERS_BYTES + (len(prepared.payload) if type(prepared) is Body else 0)

    def pack(self, value: object, headers: Headers) -> Packed:
        """The bytes of a message; raises `EncodeError`."""
        body = value if type(value) is Body else encode(value)
        content_type = _CONTENT_TYPES.get(body.content_type)
        if content_type is None:  # of a foreign message in a recording
            content_type = pack_text(b"\x03", body.content_type or "")
        return Packed(body.payload, pack_headers(headers, content_type))

    def body(self, packed: Packed, value: object) -> Body:
        """The payload itself, with its content type."""
        if value is None:
            return Body(b"", None)
        if isinstance(value, Body):
            return value
        if isinstance(value, bytes | bytearray | memoryview):
            return Body(packed.payload, OCTETS)
        return Body(packed.payload, binary.CONTENT_TYPE if packed.payload.startswith(binary.MAGIC) else JSON)


_CONTENT_TYPES: dict[str | None, bytes] = {
    None: b"",
    JSON: pack_text(b"\x03", JSON),
    OCTETS: pack_text(b"\x03", OCTETS),
    binary.CONTENT_TYPE: pack_text(b"\x03", binary.CONTENT_TYPE),
}


class _Flat(NamedTuple):
    """A value, as `flatten` made it."""

    text: bytes
    parts: list[BodyPart]
    value: object
    """The value itself, where its body alone is neither the text nor the text with the parts; else not used."""
    own: bool
    """True for such a value: nothing, bytes, or what was packed before."""


class EnvelopeV311(Envelope):
    """MQTT 3.1.1: the headers are in the body."""

    __slots__ = ()

    def prepare(self, value: object) -> object:
        """The flattened value."""
        if type(value) is _Flat:
            return value
        text, parts = flatten(decode(*value) if type(value) is Body else value)
        own = value is None or isinstance(value, Body | bytes | bytearray | memoryview)
        return _Flat(text, parts, value, own)

    def size(self, prepared: object) -> int:
        """The bytes of the text and its parts, and some for the headers."""
        own = len(prepared.text) + sum(len(part.data) for part in prepared.parts) if type(prepared) is _Flat else 0
        return _HEADERS_BYTES + own

    def pack(self, value: object, headers: Headers) -> Packed:
        """The bytes of a message; raises `EncodeError`, and `DecodeError` for a `Body` that is none."""
        if type(value) is _Flat:
            text, parts, _, _ = value
        else:
            text, parts = flatten(decode(*value) if type(value) is Body else value)
        fields = fields_of(headers)
        if parts:
            return Packed(binary.join(text, parts, dumps(fields)), b"")
        whole = text
        if text[:1] != b"{":
            # A value that is not an object is put into one, under `root`. The headers say so, because a user's object
            # may have that key, too.
            fields[_ROOT] = True
            whole = b'{"root":' + text + b"}"
        comma = b"," if len(whole) > 2 else b""
        return Packed(b"".join((whole[:-1], comma, _MARK, dumps(fields), b"}")), b"", text)

    def body(self, packed: Packed, value: object) -> Body:
        """The JSON text that `pack` made on the way; a binary value, or one that was packed before, is encoded anew."""
        if type(value) is _Flat:
            if value.own:
                return encode(value.value)  # only where it is recorded: it copies the bytes
            return (
                Body(binary.join(value.text, value.parts), binary.CONTENT_TYPE)
                if value.parts
                else Body(value.text, JSON)
            )
        if value is None or isinstance(value, Body) or not packed.text:
            return encode(value)
        return Body(packed.text, JSON)


class EnvelopeTwice(EnvelopeV311):
    """MQTT 5, for a message that a bridge or gateway may pass on without its properties: the headers are properties,
    and stand in the body, too."""

    __slots__ = ()

    def pack(self, value: object, headers: Headers) -> Packed:
        """The bytes of a message; raises as over 3.1.1."""
        packed = super().pack(value, headers)
        kind = binary.CONTENT_TYPE if packed.payload.startswith(binary.MAGIC) else JSON
        return packed._replace(properties=pack_headers(headers, _CONTENT_TYPES[kind]))


def has_property_headers(properties: bytes) -> bool:
    """Whether a message most likely has its headers among the properties. Where a message of Ether's has none there,
    they were lost on its way, or its sender speaks 3.1.1."""
    return _SOURCE in properties


def unpack(payload: bytes, properties: bytes) -> Unpacked:
    """The message in an MQTT publish, whichever version its sender speaks; raises `DecodeError`.

    Headers among the properties outrank headers in the body. A body whose `_ether` is not what Ether writes is refused,
    because the key is reserved.
    """
    content_type, headers = read_headers(properties) if properties else _NOTHING
    value, fields = read(payload, content_type)
    if type(value) is dict and RESERVED_KEY in value:
        if fields is not None:
            raise DecodeError("'_ether' stands in the head of a binary body and in its value, too")
        fields = value.pop(RESERVED_KEY)
        inner = headers_from_fields(fields)
        return Unpacked(_unwrap(value, fields), headers or inner)
    if fields is not None:
        return Unpacked(value, headers or headers_from_fields(fields))
    return Unpacked(value, headers)


def _unwrap(value: dict[str, object], fields: object) -> object:
    assert isinstance(fields, dict)
    if fields.get(_ROOT) is not True:
        return value
    if _ROOT not in value or len(value) != 1:
        raise DecodeError("'_ether' says that the value stands under 'root', and there it does not stand alone")
    return value[_ROOT]


def looks_like_ethers(payload: bytes, properties: bytes) -> bool:
    """Whether a message most likely carries Ether's headers, without decoding it. For passive capture, which records
    foreign messages only."""
    if has_property_headers(properties):
        return True
    if payload.startswith(binary.MAGIC):
        return b'"source":' in payload[:_TAIL]
    # The headers are the last of the body; those of a value that was made of hundreds begin before the tail.
    return _MARK in payload[-_TAIL:] or (payload.endswith(b"}}") and _MARK in payload)


def unpack_headers(payload: bytes, properties: bytes) -> Headers | None:
    """The headers of a message, without its value; None where it has none. Never raises. For large messages, and for
    reports of messages that `unpack()` refused."""
    try:
        _, headers = read_headers(properties)
    except DecodeError:
        headers = None
    try:
        return headers or _headers_in(payload)
    except DecodeError:
        return None


def _headers_in(payload: bytes) -> Headers | None:
    if payload.startswith(binary.MAGIC):
        return headers_from_fields(binary.read_headers(payload))
    text = payload.decode("utf-8", "replace")
    # The last occurrence, because Ether writes its key at the end, and the user's text may contain the same characters.
    mark = text.rfind(_MARK.decode())
    return None if mark < 0 else headers_from_fields(read_object_at(text, mark + len(_MARK)))
