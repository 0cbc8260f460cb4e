"""The properties of MQTT 5 (section 2.2.2): reading, checking, writing.

Promise: a property that does not exist, stands in the wrong packet, comes twice or has an impossible value raises
`MalformedPacket` with the reason code that the standard names. Texts are checked, user properties included.
"""

from collections.abc import Mapping
from typing import NamedTuple

from broker.wire.packets import (
    MALFORMED,
    PROTOCOL_ERROR,
    MalformedPacket,
    checked_text,
    field,
    read_field,
    read_short,
    read_text,
    read_variable_integer,
    short,
    variable_integer,
)

PAYLOAD_FORMAT, MESSAGE_EXPIRY, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA = 0x01, 0x02, 0x03, 0x08, 0x09
SUBSCRIPTION_ID, SESSION_EXPIRY, ASSIGNED_CLIENT_ID, SERVER_KEEP_ALIVE = 0x0B, 0x11, 0x12, 0x13
AUTHENTICATION_METHOD, AUTHENTICATION_DATA, PROBLEM_INFORMATION, WILL_DELAY = 0x15, 0x16, 0x17, 0x18
RESPONSE_REQUESTED, RESPONSE_INFORMATION, REASON_STRING, RECEIVE_MAXIMUM = 0x19, 0x1A, 0x1F, 0x21
TOPIC_ALIAS_MAXIMUM, TOPIC_ALIAS, USER_PROPERTY, MAXIMUM_PACKET_SIZE = 0x22, 0x23, 0x26, 0x27

_BYTE, _SHORT, _LONG, _VARIABLE, _TEXT, _BINARY, _PAIR = range(7)
_KINDS = {
    PAYLOAD_FORMAT: _BYTE, MESSAGE_EXPIRY: _LONG, CONTENT_TYPE: _TEXT, RESPONSE_TOPIC: _TEXT, CORRELATION_DATA: _BINARY,
    SUBSCRIPTION_ID: _VARIABLE, SESSION_EXPIRY: _LONG, ASSIGNED_CLIENT_ID: _TEXT, SERVER_KEEP_ALIVE: _SHORT,
    AUTHENTICATION_METHOD: _TEXT, AUTHENTICATION_DATA: _BINARY, PROBLEM_INFORMATION: _BYTE, WILL_DELAY: _LONG,
    RESPONSE_REQUESTED: _BYTE, RESPONSE_INFORMATION: _TEXT, 0x1C: _TEXT, REASON_STRING: _TEXT, RECEIVE_MAXIMUM: _SHORT,
    TOPIC_ALIAS_MAXIMUM: _SHORT, TOPIC_ALIAS: _SHORT, 0x24: _BYTE, 0x25: _BYTE, USER_PROPERTY: _PAIR,
    MAXIMUM_PACKET_SIZE: _LONG, 0x28: _BYTE, 0x29: _BYTE, 0x2A: _BYTE,
}  # fmt: skip
_BOOLEAN = (PAYLOAD_FORMAT, PROBLEM_INFORMATION, RESPONSE_REQUESTED)
_NEVER_ZERO = (RECEIVE_MAXIMUM, MAXIMUM_PACKET_SIZE, SUBSCRIPTION_ID)

IN_CONNECT = frozenset({
    SESSION_EXPIRY, RECEIVE_MAXIMUM, MAXIMUM_PACKET_SIZE, TOPIC_ALIAS_MAXIMUM, RESPONSE_REQUESTED, PROBLEM_INFORMATION,
    USER_PROPERTY, AUTHENTICATION_METHOD, AUTHENTICATION_DATA,
})  # fmt: skip
IN_WILL = frozenset({
    WILL_DELAY, PAYLOAD_FORMAT, MESSAGE_EXPIRY, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA, USER_PROPERTY,
})  # fmt: skip
IN_PUBLISH = frozenset({
    PAYLOAD_FORMAT, MESSAGE_EXPIRY, TOPIC_ALIAS, RESPONSE_TOPIC, CORRELATION_DATA, USER_PROPERTY, CONTENT_TYPE,
})  # fmt: skip
IN_ACKNOWLEDGEMENT = frozenset({REASON_STRING, USER_PROPERTY})
IN_SUBSCRIBE = frozenset({SUBSCRIPTION_ID, USER_PROPERTY})
IN_UNSUBSCRIBE = frozenset({USER_PROPERTY})
IN_DISCONNECT = frozenset({SESSION_EXPIRY, REASON_STRING, USER_PROPERTY})

_TEXTS_OF_PUBLISH = frozenset({USER_PROPERTY, CONTENT_TYPE, RESPONSE_TOPIC})
_ALIAS_BYTES = 3

Values = dict[int, "int | bytes"]
Spans = dict[int, tuple[int, int]]


def read(data: bytes, at: int, end: int, allowed: frozenset[int], spans: Spans | None = None) -> tuple[Values, int]:
    """The properties that begin with their length at `at`, and where they end. User properties are checked and left
    out. With `spans`, where each of the others lies is entered there."""
    length, at = read_variable_integer(data, at, end)
    stop = at + length
    if stop > end:
        raise MalformedPacket("properties that are longer than their packet")
    values: Values = {}
    while at < stop:
        start, number = at, data[at]
        kind = _KINDS.get(number)
        if kind is None:
            raise MalformedPacket(f"the property {number:#04x}, which does not exist")
        if number not in allowed or number in values:
            raise MalformedPacket(f"the property {number:#04x} where it is not allowed, or twice", PROTOCOL_ERROR)
        if kind == _PAIR:
            _, at = read_text(data, at + 1, stop)
            _, at = read_text(data, at, stop)
            continue
        values[number], at = _read_value(data, at + 1, stop, kind)
        _check(number, values[number])
        if spans is not None:
            spans[number] = start, at
    return values, stop


def without(data: bytes, start: int, end: int, spans: Spans, numbers: tuple[int, ...]) -> bytes:
    """The properties from `start` to `end`, without those of these numbers."""
    kept, at = b"", start
    for first, last in sorted(spans[number] for number in numbers if number in spans):
        kept += data[at:first]
        at = last
    return kept + data[at:end]


def written(values: Mapping[int, int | str | bytes]) -> bytes:
    """The properties with their length before them."""
    body = b"".join(one(number, value) for number, value in values.items())
    return variable_integer(len(body)) + body


def one(number: int, value: int | str | bytes) -> bytes:
    """One property."""
    kind, head = _KINDS[number], bytes((number,))
    if not isinstance(value, int):
        return head + field(value.encode() if isinstance(value, str) else value)
    if kind == _VARIABLE:
        return head + variable_integer(value)
    if kind == _SHORT:
        return head + short(value)
    return head + value.to_bytes(1 if kind == _BYTE else 4, "big")


def _read_value(data: bytes, at: int, end: int, kind: int) -> tuple[int | bytes, int]:
    if kind == _TEXT:
        return read_text(data, at, end)
    if kind == _BINARY:
        return read_field(data, at, end)
    if kind == _VARIABLE:
        return read_variable_integer(data, at, end)
    if kind == _SHORT:
        return read_short(data, at, end), at + 2
    stop = at + (1 if kind == _BYTE else 4)
    if stop > end:
        raise MalformedPacket("a property that is longer than its packet")
    return int.from_bytes(data[at:stop], "big"), stop


def _check(number: int, value: int | bytes) -> None:
    if number in _BOOLEAN and value not in (0, 1):
        raise MalformedPacket(f"the property {number:#04x} with the value {value!r}", PROTOCOL_ERROR)
    if number in _NEVER_ZERO and value == 0:
        raise MalformedPacket(f"the property {number:#04x} with the value 0", PROTOCOL_ERROR)
    if number == RESPONSE_TOPIC and isinstance(value, bytes) and (not value or b"+" in value or b"#" in value):
        raise MalformedPacket("a response topic that is empty or holds a wildcard", PROTOCOL_ERROR)


class PublishProperties(NamedTuple):
    """What a PUBLISH says of itself, and its properties as they are passed on: without the topic alias."""

    expiry_s: int | None
    alias: int | None
    section: bytes
    expiry_at: int  # where the four bytes of the expiry lie in the section; -1 where there is none


def read_of_publish(data: bytes, at: int, end: int) -> PublishProperties:
    """The properties of a PUBLISH, which begin with their first at `at`.

    This is the hot path, so the common ones are read here, and most texts are checked together: where all bytes are
    ASCII, a text can only be wrong by a NUL, and there are as many of them as lengths and numbers account for.
    """
    section = bytes(data[at:end])
    plain, zeros = section.isascii(), section.count(0)
    seen, position, alias_at = 0, at, -1
    expiry_s = alias = None
    expiry_at = -1
    while position < end:
        number, begin = data[position], position
        if plain and number == USER_PROPERTY:  # most properties are: in line, without calls
            high, low = data[position + 1], data[position + 2]
            middle = position + 3 + (high << 8 | low)
            higher, lower = data[middle], data[middle + 1]
            position = middle + 2 + (higher << 8 | lower)
            if position > end:  # so it is, too, where `middle` is
                raise MalformedPacket("a property that is longer than its packet")
            zeros -= (not high) + (not low) + (not higher) + (not lower) if high or higher or not (low and lower) else 2
            continue
        if number in _TEXTS_OF_PUBLISH:
            high, low = data[position + 1], data[position + 2]
            position = _end_of(begin + 3, high, low, end)
            if plain:
                zeros -= (not high) + (not low)
            else:
                checked_text(bytes(data[begin + 3 : position]))
            if number == USER_PROPERTY:
                begin = position
                position = _end_of(begin + 2, data[begin], data[begin + 1], end)
                checked_text(bytes(data[begin + 2 : position]))
                continue
            if number == RESPONSE_TOPIC:
                _check(number, bytes(data[begin + 3 : position]))
        else:
            kind = _KINDS.get(number)
            if kind is None or number not in IN_PUBLISH:
                reason = MALFORMED if kind is None else PROTOCOL_ERROR
                raise MalformedPacket(f"the property {number:#04x} in a PUBLISH", reason)
            value, position = _read_value(data, position + 1, end, kind)
            _check(number, value)
            zeros -= data.count(0, begin, position)
            if number == MESSAGE_EXPIRY:
                expiry_s, expiry_at = value, begin + 1 - at
            elif number == TOPIC_ALIAS:
                alias, alias_at = value, begin - at
        if seen >> number & 1:
            raise MalformedPacket(f"the property {number:#04x} twice", PROTOCOL_ERROR)
        seen |= 1 << number
    if plain and zeros:
        raise MalformedPacket("a text with a NUL")
    if alias_at >= 0:
        section = section[:alias_at] + section[alias_at + _ALIAS_BYTES :]
        expiry_at -= _ALIAS_BYTES if expiry_at > alias_at else 0
    return PublishProperties(expiry_s, alias, section, expiry_at)  # type: ignore[arg-type]  # these two are numbers


def _end_of(start: int, high: int, low: int, end: int) -> int:
    stop = start + (high << 8 | low)
    if stop > end:
        raise MalformedPacket("a property that is longer than its packet")
    return stop
