"""MQTT 3.1.1 packets as bytes, encoded and decoded by ourselves on the hot path.

For: PUBLISH and the acknowledgements, SUBSCRIBE and UNSUBSCRIBE. A CONNECT is decoded by amqtt's own codec.
Promise: pure functions; a malformed packet raises `MalformedPacket` and nothing else, whatever its bytes are.
The trap: the lengths in a packet come from a client that is not trusted. Every length is compared with the end of the
packet before anything is sliced.
"""

from dataclasses import dataclass

CONNECT, PUBLISH, PUBACK, PUBREC, PUBREL = 1, 3, 4, 5, 6
SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT = 8, 10, 12, 14

PINGRESP = b"\xd0\x00"
UNSUPPORTED_PROTOCOL = b"\x20\x02\x00\x01"  # in 3.1.1 format, which clients of MQTT 5 understand, too
REFUSED_FILTER = 0x80
LONGEST_CONNECT = 10 + 5 * 65_537  # a variable header and five fields of at most 65,535 bytes each

Filters = list[tuple[str, int]]


class MalformedPacket(ValueError):
    """The bytes are no MQTT 3.1.1 packet; the connection must be closed."""


@dataclass(frozen=True, slots=True, eq=False)
class PublishPacket:
    """One message to be delivered; `qos` is the publisher's, 0 or 1 (2 is delivered as 1)."""

    topic: bytes
    payload: bytes
    qos: int

    @property
    def size(self) -> int:
        """Bytes of memory that a queued message costs: topic, payload and the Python objects around them."""
        return len(self.topic) + len(self.payload) + OVERHEAD_BYTES

    def frame(self, retain: bool = False) -> bytes:
        """This message as a PUBLISH packet of QoS 0."""
        length = 2 + len(self.topic) + len(self.payload)
        head = bytes((0x30 | retain,)) + remaining_length(length) + _short(len(self.topic))
        return b"".join((head, self.topic, self.payload))

    def numbered_frame(self, packet_id: int, retain: bool, duplicate: bool) -> bytes:
        """This message as a PUBLISH packet of QoS 1; `duplicate` (DUP) says that the client may have it already."""
        length = 4 + len(self.topic) + len(self.payload)
        head = bytes((0x32 | retain | duplicate << 3,)) + remaining_length(length) + _short(len(self.topic))
        return b"".join((head, self.topic, _short(packet_id), self.payload))


OVERHEAD_BYTES = 100
"""What the Python objects of one queued message cost, roughly."""


def remaining_length(number: int) -> bytes:
    """The one to four length bytes of a packet: seven bits each, the lowest first, bit 7 where another one follows."""
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def acknowledgement(kind: int, packet_id: int) -> bytes:
    """PUBACK, PUBREC, PUBCOMP (0x70) or UNSUBACK (0xb0): the first byte `kind` and the packet id."""
    return bytes((kind, 2, packet_id >> 8, packet_id & 255))


def suback(packet_id: int, codes: list[int]) -> bytes:
    """The SUBACK: the granted QoS of each filter, or `REFUSED_FILTER`."""
    return b"\x90" + remaining_length(2 + len(codes)) + _short(packet_id) + bytes(codes)


def connack(session_present: bool, code: int) -> bytes:
    """The answer to a CONNECT; code 0 lets the client in."""
    return bytes((0x20, 2, session_present, code))


def packet_id(body: bytes) -> int:
    """The packet id at the beginning of a body; 0 is not allowed."""
    number = int.from_bytes(body[:2], "big")
    if len(body) < 2 or number == 0:
        raise MalformedPacket("a packet number is missing")
    return number


def subscribe(body: bytes) -> tuple[int, Filters]:
    """Packet id, and filters with the QoS asked for."""
    at, filters = 2, []
    while at < len(body):
        text, at = _text(body, at)
        if at >= len(body) or body[at] > 2:
            raise MalformedPacket("a filter without a valid QoS")
        filters.append((text, body[at]))
        at += 1
    return packet_id(body), _not_empty(filters)


def unsubscribe(body: bytes) -> tuple[int, list[str]]:
    """Packet id, and filters."""
    at, filters = 2, []
    while at < len(body):
        text, at = _text(body, at)
        filters.append(text)
    return packet_id(body), [text for text, _ in _not_empty([(text, 0) for text in filters])]


def level_of(body: bytes) -> int:
    """The protocol level of a CONNECT: 4 is 3.1.1, 5 is 5, 3 is 3.1."""
    name, at = _text(body, 0)
    if name not in ("MQTT", "MQIsdp") or at >= len(body):
        raise MalformedPacket(f"the protocol {name!r}")
    return body[at]


def decoded_topic(topic: bytes) -> str:
    """The text of a topic that a message is published to."""
    if not topic or b"+" in topic or b"#" in topic or b"\x00" in topic:
        raise MalformedPacket("a topic that is empty or holds a wildcard or NUL")
    try:
        return topic.decode()
    except UnicodeDecodeError as error:
        raise MalformedPacket("a topic that is not UTF-8") from error


def _not_empty(filters: Filters) -> Filters:
    if not filters:
        raise MalformedPacket("no filter")
    return filters


def _text(body: bytes, at: int) -> tuple[str, int]:
    end = at + 2 + int.from_bytes(body[at : at + 2], "big")
    if at + 2 > len(body) or end > len(body):
        raise MalformedPacket("a text that is longer than its packet")
    try:
        return body[at + 2 : end].decode(), end
    except UnicodeDecodeError as error:
        raise MalformedPacket("a text that is not UTF-8") from error


def _short(number: int) -> bytes:
    return number.to_bytes(2, "big")
