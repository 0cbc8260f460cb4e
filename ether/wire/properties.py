"""The property section of an MQTT 5 PUBLISH: the few properties that Ether uses, packed and unpacked by hand.

A section is bytes without its own length in front. Promises: `unpack_properties()` knows the size of every
property that MQTT 5 defines, so it steps over those that it does not use; bytes that break the standard's
rules are a `DecodeError`, never anything else, in time proportional to their number.

The trap: this runs twice for each message. It stays flat and free of objects on purpose; measure before
tidying.
"""

from __future__ import annotations

from dataclasses import dataclass

from ether.errors import DecodeError, EncodeError
from ether.wire.mqtt_text import is_mqtt_text

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
    """What Ether reads of a property section. `message_expiry_s` is in whole seconds; `user` keeps order and
    repeats."""

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
    """What a property section says; `DecodeError` where it breaks MQTT's rules."""
    known: dict[int, bytes] = {}
    user: list[tuple[str, str]] = []
    at, end = 0, len(section)
    try:
        while at < end:
            identifier = section[at]
            at += 1
            if identifier == USER_PROPERTY:
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


def _value(section: bytes, identifier: int, at: int) -> tuple[int, int]:
    """Where the value of a property begins and ends."""
    if identifier in _LENGTH_PREFIXED:
        return at + 2, at + 2 + (section[at] << 8 | section[at + 1])
    size = _FIXED_SIZES.get(identifier)
    if size is not None:
        return at, at + size
    if identifier != _SUBSCRIPTION_ID:
        raise DecodeError(f"MQTT has no property 0x{identifier:02x}")
    end = at
    while section[end] & 0x80:
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
