"""What every MQTT packet is made of: kinds, lengths, texts, and the reason codes of MQTT 5.

Promise: pure functions; bytes that are no packet raise `MalformedPacket`, which carries the reason code that the
client is told, or `IndexError` where a packet ends too early and no other byte follows it in the buffer: callers treat
both alike. The trap: the lengths in a packet come from a client that is not trusted, and bytes of the next packet may
follow it in the buffer. Every position is compared with the end of the packet before a slice of it is believed.
"""

CONNECT, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 3, 4, 5, 6, 7
SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT, AUTH = 8, 10, 12, 14, 15

PINGRESP = b"\xd0\x00"

# Reason codes of MQTT 5 (section 2.4)
SUCCESS = 0x00
NO_SUBSCRIBERS = 0x10
NO_SUBSCRIPTION = 0x11
FAILURE = 0x80
MALFORMED = 0x81
PROTOCOL_ERROR = 0x82
UNSUPPORTED_VERSION = 0x84
INVALID_CLIENT_ID = 0x85
BAD_LOGIN = 0x86
NOT_AUTHORIZED = 0x87
UNAVAILABLE = 0x88
SHUTTING_DOWN = 0x8B
BAD_AUTHENTICATION_METHOD = 0x8C
SILENT = 0x8D
TAKEN_OVER = 0x8E
INVALID_FILTER = 0x8F
INVALID_TOPIC = 0x90
UNKNOWN_PACKET_ID = 0x92
TOO_MANY_UNACKNOWLEDGED = 0x93
INVALID_ALIAS = 0x94
PACKET_TOO_LARGE = 0x95
QUOTA_EXCEEDED = 0x97

LONGEST_CONNECT = 524_288
"""Before a client is admitted nothing larger is collected: five fields of 65,535 bytes each, and some of properties."""


class MalformedPacket(ValueError):
    """The bytes are no packet that the standard allows here; the connection must end. `reason` is an MQTT 5 code."""

    def __init__(self, text: str, reason: int = MALFORMED) -> None:
        super().__init__(text)
        self.reason = reason


def variable_integer(number: int) -> bytes:
    """One to four bytes of seven bits each, the lowest first, bit 7 where another one follows."""
    if number < 128:
        return bytes((number,))
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def read_variable_integer(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The number at `at`, and where it ends."""
    number = shift = 0
    while at < end:
        byte = data[at]
        number |= (byte & 127) << shift
        at += 1
        if byte < 128:
            if byte == 0 and shift:
                raise MalformedPacket("a number with more bytes than it needs")
            return number, at
        shift += 7
        if shift > 21:
            raise MalformedPacket("a number of more than four bytes")
    raise MalformedPacket("a number that is longer than its packet")


def packet(first: int, body: bytes) -> bytes:
    """A whole packet: first byte, length, body."""
    return bytes((first,)) + variable_integer(len(body)) + body


def short(number: int) -> bytes:
    """Two bytes, the higher one first."""
    return number.to_bytes(2, "big")


def field(data: bytes) -> bytes:
    """A text or binary field: two bytes of length, and the bytes."""
    return len(data).to_bytes(2, "big") + data


def read_short(data: bytes, at: int, end: int) -> int:
    """The two-byte number at `at`."""
    if at + 2 > end:
        raise MalformedPacket("a number that is longer than its packet")
    return data[at] << 8 | data[at + 1]


def read_field(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    """The binary field at `at`, and where it ends."""
    stop = at + 2 + read_short(data, at, end)
    if stop > end:
        raise MalformedPacket("a field that is longer than its packet")
    return data[at + 2 : stop], stop


def read_text(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    """The text at `at` as UTF-8 bytes, checked, and where it ends."""
    value, at = read_field(data, at, end)
    return checked_text(value), at


def checked_text(value: bytes) -> bytes:
    """The bytes, where they are a text of MQTT: UTF-8 without U+0000 and without surrogates."""
    if b"\x00" in value:
        raise MalformedPacket("a text with a NUL")
    try:
        value.decode()
    except UnicodeDecodeError as error:
        raise MalformedPacket("a text that is not UTF-8") from error
    return value


def read_packet_id(data: bytes, at: int, end: int) -> int:
    """The packet id at `at`; 0 is not allowed."""
    number = read_short(data, at, end)
    if number == 0:
        raise MalformedPacket("the packet id 0")
    return number
