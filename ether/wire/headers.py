"""What Ether says about a message, beside its value: who sent it, when, the how-manieth, because of what.

`Headers` have two forms on the wire with the same fields: MQTT 5 properties, and over 3.1.1 a JSON object
under the key `_ether`. Promises: what one form carries the other carries too, and headers that were read from
one can be written to the other.

The trap: anybody may publish user properties named `id` or `time`. Only the four that Ether always writes
(id, source, seq, time), all present and all well formed, make a message Ether's own; otherwise it is a
stranger's.
"""

from __future__ import annotations

from math import ceil, isfinite
from typing import NamedTuple, NoReturn

from ether.errors import DecodeError, EncodeError
from ether.wire.mqtt_text import is_mqtt_text
from ether.wire.properties import (
    MAX_EXPIRY_S,
    Properties,
    pack_correlation,
    pack_expiry,
    pack_text,
)

TEXT_MAX_CHARS = 16_000
"""The longest text in a header: as UTF-8 it fits into an MQTT property, whatever the characters."""

REPLAY = "ether/replay"
"""The schema of a message that repeats a recorded one, whose id is its first parent."""

_ALWAYS = frozenset(("id", "source", "seq", "time"))
_SEQ_MAX = (1 << 63) - 1


class Headers(NamedTuple):
    """The headers of one message. (A tuple, as it is made for each message, and a frozen dataclass takes three times
    as long to make.)"""

    id: str
    """UUID of version 7, see `ether.wire.ids`."""
    source: str
    """Who sent it: an instance, or a program that joined."""
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
    """Seconds that were left when it was sent. MQTT 5 Message Expiry carries it rounded up, for the
    broker."""
    error: str | None = None
    """An answer that is an error: its kind."""

    @property
    def replay_of(self) -> str | None:
        """The id of the recorded message that this one repeats; None for a message that is no replay."""
        return self.parents[0] if self.schema == REPLAY and self.parents else None

    @property
    def trace(self) -> str | None:
        """The trace id of `traceparent`: the chain of calls that this message belongs to."""
        parts = self.traceparent.split("-") if self.traceparent else []
        return parts[1] if len(parts) == 4 else None


def pack_headers(headers: Headers, content_type: bytes) -> bytes:
    """The MQTT 5 property section: `content_type` (packed) and the headers; `EncodeError` where one does not
    fit."""
    packed = [
        content_type,
        pack_text(b"\x26\x00\x02id", _fit(headers.id)),
        pack_text(b"\x26\x00\x06source", _fit(headers.source)),
        pack_text(b"\x26\x00\x03seq", str(headers.seq)),
        pack_text(b"\x26\x00\x04time", repr(float(headers.time))),
    ]
    if headers.parents:
        packed.extend([pack_text(b"\x26\x00\x06parent", _fit(parent)) for parent in headers.parents])
    if headers.schema is not None:
        packed.append(pack_text(b"\x26\x00\x06schema", _fit(headers.schema)))
    if headers.traceparent is not None:
        packed.append(pack_text(b"\x26\x00\x0btraceparent", _fit(headers.traceparent)))
    if headers.error is not None:
        packed.append(pack_text(b"\x26\x00\x05error", _fit(headers.error)))
    if headers.reply_to is not None:
        packed.append(pack_text(b"\x08", _fit(headers.reply_to)))
    if headers.correlation is not None:
        packed.append(pack_correlation(headers.correlation))
    if headers.expiry_s is not None:
        packed.append(_pack_deadline(headers.expiry_s))
    return b"".join(packed)


def _pack_deadline(expiry_s: float) -> bytes:
    # At least one second: a broker may drop what has none left, and the exact value lets the receiver judge.
    whole = min(max(1, ceil(_fit_expiry(expiry_s))), MAX_EXPIRY_S)
    return pack_text(pack_expiry(whole) + b"\x26\x00\x06expiry", repr(float(expiry_s)))


def fields_of(headers: Headers) -> dict[str, object]:
    """The headers as the JSON object that 3.1.1 carries, without those that are not set; `EncodeError` as
    above."""
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
    if headers.reply_to is not None:
        fields["reply_to"] = _fit(headers.reply_to)
    if headers.correlation is not None:
        fields["correlation"] = headers.correlation.hex()
    if headers.expiry_s is not None:
        fields["expiry_s"] = _fit_expiry(headers.expiry_s)
    return fields


def _fit(text: str) -> str:
    if not _is_text(text):
        problem = f"{text[:80]!r} is not 1 to {TEXT_MAX_CHARS:,} characters, none of them a control character"
        raise EncodeError("the message's headers", problem)
    return text


def _fit_expiry(expiry_s: float) -> float:
    if not (isfinite(expiry_s) and expiry_s >= 0):
        raise EncodeError("the message's headers", f"{expiry_s!r} s cannot be the time that is left")
    return expiry_s


def headers_from_properties(properties: Properties) -> Headers | None:
    """The headers that a property section carries; None where it is not Ether's."""
    user = dict(properties.user)
    if not user.keys() >= _ALWAYS:
        return None
    expiry_s = user.get("expiry", properties.message_expiry_s)
    try:
        return _headers(
            user["id"],
            user["source"],
            int(user["seq"]),
            float(user["time"]),
            tuple([value for name, value in properties.user if name == "parent"]),
            user.get("schema"),
            user.get("traceparent"),
            properties.response_topic,
            properties.correlation_data,
            None if expiry_s is None else float(expiry_s),
            user.get("error"),
        )
    except ValueError:
        return None


def headers_from_fields(fields: object) -> Headers:
    """The headers of a JSON object that stood under `_ether`; `DecodeError` where they are not well formed.
    Fields that are not known are ignored, so that later versions may add some."""
    if not isinstance(fields, dict) or not fields.keys() >= _ALWAYS:
        raise DecodeError("the key '_ether' is reserved for Ether's headers, and here it holds something else")
    correlation, parents = fields.get("correlation"), fields.get("parents", [])
    expiry_s = fields.get("expiry_s")
    try:
        return _headers(
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
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise DecodeError(f"Ether's headers under '_ether' are damaged: {error}") from error


def _number(value: object) -> float:
    return float(value) if type(value) is float or type(value) is int else _wrong("number")


def _headers(
    message_id: str,
    source: str,
    seq: int,
    time: float,
    parents: tuple[str, ...],
    schema: str | None,
    traceparent: str | None,
    reply_to: str | None,
    correlation: bytes | None,
    expiry_s: float | None,
    error: str | None,
) -> Headers:
    """Headers whose every field is what it should be; raises `ValueError`. Positional: this runs per
    message."""
    if not (_is_text(message_id) and _is_text(source)):
        _wrong("id or source")
    if type(seq) is not int or not 0 <= seq <= _SEQ_MAX or not isfinite(time):
        _wrong("seq or time")
    if parents and not all(map(_is_text, parents)):
        _wrong("parents")
    for text in (schema, traceparent, error):
        if text is not None and not _is_text(text):
            _wrong("schema, traceparent or error")
    if reply_to is not None and not _is_topic(reply_to):
        _wrong("reply_to")
    if correlation is not None and len(correlation) > 0xFFFF:
        _wrong("correlation")
    if expiry_s is not None and not (isfinite(expiry_s) and expiry_s >= 0):
        _wrong("expiry")
    return Headers(message_id, source, seq, time, parents, schema, traceparent, reply_to, correlation, expiry_s, error)


def _is_text(text: object) -> bool:
    return type(text) is str and 0 < len(text) <= TEXT_MAX_CHARS and (text.isprintable() or is_mqtt_text(text))


def _is_topic(text: str) -> bool:
    return _is_text(text) and text[0] != "$" and "+" not in text and "#" not in text


def _wrong(field: str) -> NoReturn:
    raise ValueError(f"{field} cannot be what it says")
