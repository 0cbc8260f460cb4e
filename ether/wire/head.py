"""The head of a message: what Ether says about it beside its value (sender, time, number, causes).

From top to bottom: message ids; which text MQTT carries; `Headers`, the fields as a value; the MQTT 5 property section
as bytes; and the two forms that headers have on the wire. Over MQTT 5 they are properties, over 3.1.1 a JSON object
under the key `_ether`. Promises: both forms carry the same fields, and headers that were read from one form can be
written in the other. Whatever arrives is checked; what breaks MQTT's rules or Ether's is a `DecodeError`.

The traps. Anybody may publish user properties named `id` or `time`: only a message with all four fields that Ether
always writes (id, source, seq, time), each well formed, is Ether's own. Any other one is foreign. And these functions
run for each message: they are written for speed where that costs a reader little.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import count
from math import ceil, isfinite
from typing import NamedTuple, NoReturn

from ether.errors import DecodeError, EncodeError

# -- message ids: UUIDs of version 7, made of the time, a running number, and the process that made them

_NODE_BITS = 48
_COUNTER_BITS = 26
"""The bits between time and node: the 12 of `rand_a` and the first 14 of `rand_b` (RFC 9562)."""


class MessageIds:
    """Makes the message ids of one process. `seed`: any int, of which the lowest 48 bits, the node, end each id."""

    __slots__ = ("_latest_ms", "_node", "_numbers")

    def __init__(self, seed: int) -> None:
        self._node = f"{seed & ((1 << _NODE_BITS) - 1):012x}"
        self._numbers = count()
        self._latest_ms = 0

    @property
    def node(self) -> str:
        """The end of all of these ids, which tells this process from all others: see `node_of`."""
        return self._node

    def next(self, unix_ms: int) -> str:
        """The next id, at `unix_ms` milliseconds since 1970."""
        if unix_ms > self._latest_ms:
            self._latest_ms = unix_ms
        # The running number is added to the time, shifted by the number's width, not written beside it. After 2**26
        # ids the sum carries into the time, which then runs one millisecond ahead. So ids can only grow.
        n = (self._latest_ms << _COUNTER_BITS) + next(self._numbers)
        return "%08x-%04x-7%03x-%04x-%s" % (  # noqa: UP031 (the fastest way to write it)
            n >> 42 & 0xFFFFFFFF,
            n >> 26 & 0xFFFF,
            n >> 14 & 0xFFF,
            0x8000 | n & 0x3FFF,
            self._node,
        )


def node_of(message_id: str) -> str:
    """The node of the process that made an id; only of ids that `MessageIds` made."""
    return message_id[-12:]


def unix_ms_of(message_id: str) -> int:
    """When an id was made, in milliseconds since 1970; `DecodeError` where it is not a UUID of version 7."""
    digits = message_id.replace("-", "")
    try:
        if len(message_id) != 36 or len(digits) != 32 or message_id[14] != "7" or not digits.isalnum():
            raise ValueError("wrong form")
        return int(digits, 16) >> 80
    except ValueError as error:
        raise DecodeError(f"{message_id[:80]!r} is not a message id: it must be a UUID of version 7") from error


# -- text that MQTT carries

# Compiled when first needed, because most text is printable: control characters, surrogates and non-characters.
_HARMFUL = (
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
    + "]"
)


def is_mqtt_text(text: str) -> bool:
    """True if every broker takes this text in a topic or a property."""
    return text.isprintable() or re.search(_HARMFUL, text) is None


TEXT_MAX_CHARS = 16_000
"""The longest text in a header: as UTF-8 it fits into an MQTT property, whatever the characters."""

# -- the fields

REPLAY = "ether/replay"
"""The schema of a message that repeats a recorded one, whose id is its first parent."""


class Headers(NamedTuple):
    """The headers of one message. (A tuple, because one is made for each message, and a frozen dataclass takes three
    times as long to make.)"""

    id: str
    """UUID of version 7, see `MessageIds`."""
    source: str
    """The sender: an instance, or a program that joined."""
    seq: int
    """Number of this message among those of its source on its topic, from 1."""
    time: float
    """When the source sent it, in seconds since 1970 by the source's clock, to the microsecond."""
    parents: tuple[str, ...] = ()
    """Ids of the messages that led to this one."""
    schema: str | None = None
    """Which schema the value follows."""
    traceparent: str | None = None
    """W3C trace context."""
    reply_to: str | None = None
    """A request, or an answer that asks back: the full MQTT topic for the answer (MQTT 5 Response Topic)."""
    correlation: bytes | None = None
    """Which request an answer belongs to (MQTT 5 Correlation Data)."""
    expiry_s: float | None = None
    """Seconds that were left when it was sent. MQTT 5 Message Expiry carries it rounded up, for the broker."""
    error: str | None = None
    """An answer that is an error: its kind."""
    origin: str | None = None
    """The trial that caused it, and whether it descends from a replay (`ether.wire.origin`)."""
    after: str | None = None
    """A request: what its sender has published before it, the last number on each topic as a JSON object."""

    @property
    def replay_of(self) -> str | None:
        """The id of the recorded message that this one repeats; None for a message that is no replay."""
        return self.parents[0] if self.schema == REPLAY and self.parents else None

    @property
    def trace(self) -> str | None:
        """The trace id of `traceparent`: the chain of calls that this message belongs to."""
        parts = self.traceparent.split("-") if self.traceparent else []
        return parts[1] if len(parts) == 4 else None


_OPTIONAL_FROM = Headers._fields.index("schema")
_NO_OPTIONAL = (None, None, None, None, None, None, None, None)


# -- the property section of MQTT 5

CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA = 0x03, 0x08, 0x09
MESSAGE_EXPIRY, USER_PROPERTY = 0x02, 0x26
MAX_EXPIRY_S = 0xFFFF_FFFF

# MQTT 5, table 2-4, by the form of the value.
_FIXED_SIZES = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1),
    **dict.fromkeys((0x13, 0x21, 0x22, 0x23), 2),
    **dict.fromkeys((0x02, 0x11, 0x18, 0x27), 4),
}
_LENGTH_PREFIXED = frozenset((0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F))
_NUL = "text in MQTT properties has a NUL, which MQTT forbids"
_SUBSCRIPTION_ID = 0x0B  # a variable byte integer, the only property that may repeat besides the user's


@dataclass(frozen=True, slots=True)
class Properties:
    """The part of a property section that Ether reads. `message_expiry_s` is in whole seconds. `user` holds the user
    properties in their order, with names that repeat."""

    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    message_expiry_s: int | None = None
    user: tuple[tuple[str, str], ...] = ()


def pack_properties(properties: Properties) -> bytes:
    """The section's bytes; `EncodeError` where a value does not fit what MQTT allows."""
    packed = []
    if properties.content_type is not None:
        packed.append(b"\x03" + _text(properties.content_type))
    if properties.message_expiry_s is not None:
        packed.append(pack_expiry(properties.message_expiry_s))
    if properties.response_topic is not None:
        packed.append(b"\x08" + _text(properties.response_topic))
    if properties.correlation_data is not None:
        packed.append(pack_correlation(properties.correlation_data))
    for name, value in properties.user:
        packed.append(b"\x26" + _text(name) + _text(value))
    return b"".join(packed)


def pack_expiry(seconds: int) -> bytes:
    """The Message Expiry Interval."""
    if not 0 <= seconds <= MAX_EXPIRY_S:
        raise EncodeError("message expiry", f"{seconds} s is not between 0 and {MAX_EXPIRY_S:,} s")
    return b"\x02" + seconds.to_bytes(4, "big")


def pack_correlation(data: bytes) -> bytes:
    """Correlation Data."""
    if len(data) > 0xFFFF:
        raise EncodeError("correlation data", f"{len(data):,} bytes are more than MQTT's 65,535")
    return b"\x09" + len(data).to_bytes(2, "big") + data


def _text(text: str) -> bytes:
    return pack_text(b"", text)


def pack_text(prefix: bytes, text: str) -> bytes:
    """`prefix`, then the text as MQTT writes it: two bytes of length, then UTF-8."""
    if not is_mqtt_text(text):
        raise EncodeError("message properties", f"{text[:80]!r} has control characters, which MQTT does not carry")
    data = text.encode()
    if len(data) > 0xFFFF:
        raise EncodeError("message properties", f"{text[:80]!r}… has more than MQTT's 65,535 bytes")
    return prefix + len(data).to_bytes(2, "big") + data


def unpack_properties(section: bytes) -> Properties:
    """The content of a property section; `DecodeError` where it breaks MQTT's rules."""
    known: dict[int, bytes] = {}
    user: list[tuple[str, str]] = []
    at, end = 0, len(section)
    # A value that claims more bytes than there are ends in an IndexError where its length is read, or behind `end`.
    try:
        while at < end:
            identifier = section[at]
            at += 1
            if identifier == USER_PROPERTY:  # in line, without calls: each message of Ether's has four or more
                middle = at + 2 + (section[at] << 8 | section[at + 1])
                name = section[at + 2 : middle].decode()
                at = middle + 2 + (section[middle] << 8 | section[middle + 1])
                value = section[middle + 2 : at].decode()
                if "\0" in name or "\0" in value:
                    raise DecodeError(_NUL)
                user.append((name, value))
            else:
                start, at = _value(section, identifier, at)
                if identifier in known and identifier != _SUBSCRIPTION_ID:
                    raise DecodeError(f"MQTT property 0x{identifier:02x} stands there twice")
                known[identifier] = section[start:at]
        if at > end:
            raise DecodeError("MQTT properties break off in the middle of a value")
        return _properties(known, tuple(user))
    except IndexError as error:
        raise DecodeError("MQTT properties break off in the middle of a value") from error
    except UnicodeDecodeError as error:
        raise DecodeError(f"text in MQTT properties is not UTF-8: {error.reason}") from error


def subscription_numbers(section: bytes) -> frozenset[int]:
    """The numbers of the subscriptions for which a message was delivered, in a property section without its length;
    none where it cannot be read."""
    found: list[int] = []
    at, end = 0, len(section)
    try:
        while at < end:
            identifier = section[at]
            if identifier == USER_PROPERTY:
                middle = at + 3 + (section[at + 1] << 8 | section[at + 2])
                at = middle + 2 + (section[middle] << 8 | section[middle + 1])
                continue
            start, at = _value(section, identifier, at + 1)
            if identifier == _SUBSCRIPTION_ID:
                found.append(sum((byte & 127) << 7 * place for place, byte in enumerate(section[start:at])))
    except (IndexError, DecodeError):
        return frozenset()
    return frozenset(found)


def _value(section: bytes, identifier: int, at: int) -> tuple[int, int]:
    """Where the value of a property other than a user property begins and ends."""
    if identifier in _LENGTH_PREFIXED:
        return at + 2, at + 2 + (section[at] << 8 | section[at + 1])
    size = _FIXED_SIZES.get(identifier)
    if size is not None:
        return at, at + size
    if identifier != _SUBSCRIPTION_ID:
        raise DecodeError(f"MQTT has no property 0x{identifier:02x}")
    end = at
    while section[end] & 0x80:  # the top bit of each byte of such a number says that another byte follows
        end += 1
    if end - at > 3:
        raise DecodeError("a number in MQTT properties is longer than 4 bytes")
    return at, end + 1


def _read_text(data: bytes | None) -> str | None:
    if data is None:
        return None
    if 0 in data:
        raise DecodeError(_NUL)
    return data.decode()


def _properties(known: dict[int, bytes], user: tuple[tuple[str, str], ...]) -> Properties:
    expiry = known.get(MESSAGE_EXPIRY)
    return Properties(
        _read_text(known.get(CONTENT_TYPE)),
        _read_text(known.get(RESPONSE_TOPIC)),
        known.get(CORRELATION_DATA),
        None if expiry is None else int.from_bytes(expiry, "big"),
        user,
    )


# -- headers as MQTT 5 properties

_ALWAYS = frozenset(("id", "source", "seq", "time"))
"""The fields of every message of Ether's, in both forms."""


def pack_headers(headers: Headers, content_type: bytes) -> bytes:
    """The MQTT 5 property section: `content_type` (packed already) and the headers; `EncodeError` where one does not
    fit. The constant prefixes are the property's identifier and, for user properties, the packed name. What is the same
    in many messages, as the source, is packed once."""
    number, moment, parents = b"%d" % headers.seq, repr(float(headers.time)).encode(), headers.parents
    always = b"%b%b%b&\x00\x03seq\x00%c%b&\x00\x04time\x00%c%b" % (
        content_type, _pack_short(b"&\x00\x02id", headers.id), _pack_known(b"&\x00\x06source", headers.source),
        len(number), number, len(moment), moment,
    )  # fmt: skip
    optional = headers[_OPTIONAL_FROM:] != _NO_OPTIONAL
    if not (parents or optional):
        return always
    packed = [always, *[_pack_short(b"&\x00\x06parent", parent) for parent in parents]]
    if optional:
        _pack_optional(headers, packed)
    return b"".join(packed)


def _pack_optional(headers: Headers, packed: list[bytes]) -> None:
    """The fields that a message may lack."""
    if headers.schema is not None:
        packed.append(_pack_known(b"&\x00\x06schema", headers.schema))
    if headers.traceparent is not None:
        packed.append(_pack_short(b"&\x00\x0btraceparent", headers.traceparent))
    if headers.error is not None:
        packed.append(pack_text(b"&\x00\x05error", _fit(headers.error)))
    if headers.origin is not None:
        packed.append(_pack_known(b"&\x00\x06origin", headers.origin))
    if headers.after is not None:
        packed.append(pack_text(b"&\x00\x05after", _fit(headers.after)))
    if headers.reply_to is not None:
        packed.append(_pack_known(b"\x08", headers.reply_to))
    if headers.correlation is not None:
        packed.append(pack_correlation(headers.correlation))
    if headers.expiry_s is not None:
        packed.append(_pack_deadline(headers.expiry_s))


def _pack_short(prefix: bytes, text: str) -> bytes:
    """A text that differs from message to message, nearly always a short one of ASCII."""
    if 0 < len(text) < 128 and text.isascii() and text.isprintable():
        return b"%b\x00%c%b" % (prefix, len(text), text.encode())
    return pack_text(prefix, _fit(text))


_KNOWN_CHARS, _KNOWN = 127, 1024
"""Texts of so many characters are remembered, so many of them: at most 1 MB."""
_packed: dict[tuple[bytes, str], bytes] = {}


def _pack_known(prefix: bytes, text: str) -> bytes:
    """A text that stands in many messages."""
    known = _packed.get((prefix, text))
    if known is not None:
        return known
    packed = pack_text(prefix, _fit(text))
    if len(text) <= _KNOWN_CHARS:
        if len(_packed) >= _KNOWN:
            _packed.clear()
        _packed[prefix, text] = packed
    return packed


def _pack_deadline(expiry_s: float) -> bytes:
    # At least one second, as a broker may drop a message that has none left. The exact value beside it is for the
    # receiver.
    whole = min(max(1, ceil(_fit_expiry(expiry_s))), MAX_EXPIRY_S)
    left = repr(float(expiry_s)).encode()
    return b"\x02%b&\x00\x06expiry\x00%c%b" % (whole.to_bytes(4, "big"), len(left), left)


def headers_from_properties(properties: Properties) -> Headers | None:
    """The headers that a property section carries; None where the message is foreign."""
    user = dict(properties.user)
    if not user.keys() >= _ALWAYS:
        return None
    try:
        return _checked(
            Headers(
                user["id"],
                user["source"],
                int(user["seq"]),
                float(user["time"]),
                tuple([value for name, value in properties.user if name == "parent"]),
                *_optional(properties, user),
            )
        )
    except ValueError:
        return None


def _optional(properties: Properties, user: dict[str, str]) -> _Optional:
    """The fields that a message may lack; raises `ValueError`."""
    expiry_s = user.get("expiry", properties.message_expiry_s)
    return (
        user.get("schema"),
        user.get("traceparent"),
        properties.response_topic,
        properties.correlation_data,
        None if expiry_s is None else float(expiry_s),
        user.get("error"),
        user.get("origin"),
        user.get("after"),
    )


_OURS = re.compile(
    rb"(?:\x0b(?:[\x00-\x7f]|[\x80-\xff][\x00-\x7f]))?"  # the number of a subscription
    rb"(?:\x03\x00[\x10-\x18](application/(?:json|octet-stream)))?"
    rb"&\x00\x02id\x00\$([0-9a-f-]{36})"
    rb"&\x00\x06source\x00([\x01-\x7f])(.{1,127}?)"
    rb"&\x00\x03seq\x00([\x01-\x12])([0-9]{1,18})"
    rb"&\x00\x04time\x00([\x01-\x18])([0-9.]{1,24})"
    rb"(?:&\x00\x06parent\x00\$([0-9a-f-]{36}))?",
    re.DOTALL,
).match
"""The beginning of a section, as `pack_headers` writes it: one look in place of one for each property. Lengths are
compared afterwards. Whatever looks different is read property by property."""
_OF_A_CALL = re.compile(
    rb"(?:&\x00\x0btraceparent\x00([\x01-\x7f])([0-9a-f-]{1,127}))?"
    rb"(?:&\x00\x05after\x00([\x01-\x7f])(.{1,127}?))?"
    rb"(?:\x08\x00([\x01-\x7f])(.{1,127}?))?"
    rb"(?:\x09\x00\x10(.{16}))?"
    rb"(\x02.{4})?(?:&\x00\x06expiry\x00([\x01-\x18])([0-9.]{1,24}))?(\x02.{4})?",
    re.DOTALL,
).fullmatch
"""The rest of a request or an answer. Some brokers write the Message Expiry anew, behind everything else."""
_CONTENT_LENGTHS = {b"application/json": 16, b"application/octet-stream": 24}
_read_texts: dict[bytes, str] = {}
_read_topics: dict[bytes, str] = {}
_Optional = tuple[str | None, str | None, str | None, bytes | None, float | None, str | None, str | None, str | None]


def read_headers(section: bytes) -> tuple[str | None, Headers | None]:
    """The content type and the headers in a property section; None where the message is foreign. The same as
    `headers_from_properties` of `unpack_properties`, and raises as that does."""
    ours = _OURS(section)
    if ours is not None:
        kind, message_id, source_size, source, seq_size, seq, time_size, time, parent = ours.groups()
        known = _read_texts.get(source) or _read_known(source)
        lengths = source_size[0] == len(source) and seq_size[0] == len(seq) and time_size[0] == len(time)
        content_type = None if kind is None else kind.decode()
        if lengths and known and (kind is None or section[ours.start(1) - 1] == _CONTENT_LENGTHS[kind]):
            at = ours.end()
            more = _NO_OPTIONAL if at == len(section) else _read_rest(section, at)
            if more is not None and time.count(b".") < 2 and time != b".":
                parents = () if parent is None else (parent.decode(),)
                return content_type, Headers(message_id.decode(), known, int(seq), float(time), parents, *more)
    properties = unpack_properties(section)
    return properties.content_type, headers_from_properties(properties) if properties.user else None


def _read_rest(section: bytes, at: int) -> _Optional | None:
    """The optional fields of a request or an answer; None where something else stands there."""
    ours = _OF_A_CALL(section, at)
    if ours is None:
        return None
    trace_size, trace, after_size, after, reply_size, reply, correlation, early, expiry_size, expiry, late = (
        ours.groups()
    )
    traceparent = said = reply_to = left_s = None
    if trace is not None:
        if trace_size[0] != len(trace):
            return None
        traceparent = trace.decode()
    if after is not None:
        said = after.decode("ascii", "replace")  # what stands for another byte is not printable in ASCII
        if after_size[0] != len(after) or not (said.isascii() and said.isprintable()):
            return None
    if reply is not None:
        reply_to = _read_topics.get(reply) or _read_topic(reply)
        if reply_size[0] != len(reply) or reply_to is None:
            return None
    if expiry is not None:
        if expiry_size[0] != len(expiry) or expiry.count(b".") > 1 or expiry == b"." or (early and late):
            return None
        left_s = float(expiry)
    elif early or late:
        return None
    return None, traceparent, reply_to, correlation, left_s, None, None, said


def _read_known(data: bytes) -> str | None:
    """A text that stands in many messages, so that it is decoded and checked once; None where it is not a header's."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    if not _is_text(text):
        return None
    if len(_read_texts) >= _KNOWN:
        _read_texts.clear()
    _read_texts[data] = text
    return text


def _read_topic(data: bytes) -> str | None:
    """The same for the topic of answers."""
    topic = _read_known(data)
    if topic is None or not _is_topic(topic):
        return None
    if len(_read_topics) >= _KNOWN:
        _read_topics.clear()
    _read_topics[data] = topic
    return topic


# -- headers as JSON, for MQTT 3.1.1


def fields_of(headers: Headers) -> dict[str, object]:
    """The headers as the JSON object that 3.1.1 carries, without those that are not set; `EncodeError` where one does
    not fit."""
    fields: dict[str, object] = {
        "id": _fit(headers.id),
        "source": _fit(headers.source),
        "seq": headers.seq,
        "time": headers.time,
    }
    if headers.parents:
        fields["parents"] = [_fit(parent) for parent in headers.parents]
    if headers.schema is not None:
        fields["schema"] = _fit(headers.schema)
    if headers.traceparent is not None:
        fields["traceparent"] = _fit(headers.traceparent)
    if headers.error is not None:
        fields["error"] = _fit(headers.error)
    if headers.origin is not None:
        fields["origin"] = _fit(headers.origin)
    if headers.after is not None:
        fields["after"] = _fit(headers.after)
    if headers.reply_to is not None:
        fields["reply_to"] = _fit(headers.reply_to)
    if headers.correlation is not None:
        fields["correlation"] = headers.correlation.hex()
    if headers.expiry_s is not None:
        fields["expiry_s"] = _fit_expiry(headers.expiry_s)
    return fields


def headers_from_fields(fields: object) -> Headers:
    """The headers in a JSON object that stood under `_ether`; `DecodeError` where they are not well formed. Unknown
    fields are ignored, so that later versions may add some."""
    if not isinstance(fields, dict) or not fields.keys() >= _ALWAYS:
        raise DecodeError("the key '_ether' is reserved for Ether's headers, and here it holds something else")
    correlation, parents = fields.get("correlation"), fields.get("parents", [])
    expiry_s = fields.get("expiry_s")
    try:
        return _checked(
            Headers(
                fields["id"],
                fields["source"],
                fields["seq"],
                _number(fields["time"]),
                tuple(parents) if type(parents) is list else _wrong("parents"),
                fields.get("schema"),
                fields.get("traceparent"),
                fields.get("reply_to"),
                None if correlation is None else bytes.fromhex(correlation),
                None if expiry_s is None else _number(expiry_s),
                fields.get("error"),
                fields.get("origin"),
                fields.get("after"),
            )
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise DecodeError(f"Ether's headers under '_ether' are damaged: {error}") from error


def _number(value: object) -> float:
    return float(value) if type(value) is float or type(value) is int else _wrong("number")


# -- checks

_SEQ_MAX = (1 << 63) - 1


def _fit(text: str) -> str:
    """The text of a header, if both forms can carry it; else `EncodeError`."""
    if not _is_text(text):
        problem = f"{text[:80]!r} is not 1 to {TEXT_MAX_CHARS:,} characters, none of them a control character"
        raise EncodeError("the message's headers", problem)
    return text


def _fit_expiry(expiry_s: float) -> float:
    if not (isfinite(expiry_s) and expiry_s >= 0):
        raise EncodeError("the message's headers", f"{expiry_s!r} s cannot be the time that is left")
    return expiry_s


def _checked(headers: Headers) -> Headers:
    """The same headers, if each field is what it should be; raises `ValueError`. Runs for each message that arrives,
    therefore the optional fields, which most messages lack, are compared as one slice first."""
    if not (_is_text(headers.id) and _is_text(headers.source)):
        _wrong("id or source")
    seq = headers.seq
    if type(seq) is not int or not 0 <= seq <= _SEQ_MAX or not isfinite(headers.time):
        _wrong("seq or time")
    if headers.parents and not all(map(_is_text, headers.parents)):
        _wrong("parents")
    if headers[_OPTIONAL_FROM:] != _NO_OPTIONAL:
        _check_optional(headers)
    return headers


def _check_optional(headers: Headers) -> None:
    """Check the fields that a message may lack; raises `ValueError`."""
    for text in (headers.schema, headers.traceparent, headers.error, headers.origin, headers.after):
        if text is not None and not _is_text(text):
            _wrong("schema, traceparent, error, origin or after")
    if headers.reply_to is not None and not _is_topic(headers.reply_to):
        _wrong("reply_to")
    if headers.correlation is not None and len(headers.correlation) > 0xFFFF:
        _wrong("correlation")
    if headers.expiry_s is not None and not (isfinite(headers.expiry_s) and headers.expiry_s >= 0):
        _wrong("expiry")


def _is_text(text: object) -> bool:
    return type(text) is str and 0 < len(text) <= TEXT_MAX_CHARS and (text.isprintable() or is_mqtt_text(text))


def _is_topic(text: str) -> bool:
    return _is_text(text) and text[0] != "$" and "+" not in text and "#" not in text


def _wrong(field: str) -> NoReturn:
    raise ValueError(f"{field} cannot be what it says")
