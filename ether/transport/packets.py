"""PUBLISH and PUBACK, the two packets that every message needs, as bytes. No I/O, no engine.

`PacketReader` takes the bytes of one read and returns every packet that is complete, so that one wake-up handles all of
them. Other packets are passed on unread, because the engine handles them. The trap: after a packet that contradicts its
own lengths it is unknown where the next one begins. Such a packet raises `MalformedFrame`, and the connection must be
dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from ether.transport.base import Delivery

MAX_PACKET_BYTES = 268_435_455  # what four bytes of "remaining length" can say
LARGE_BYTES = 65_536  # from here on a payload is written by itself, without being joined to its head
_OWN_BUFFER_BYTES = 16_384  # an incomplete packet of more is read into a buffer of its own

_PUBLISH, _PUBACK = 0x30, 0x40
_USER_PROPERTY = 0x26
_FIXED_SIZES = {0x24: 1, 0x25: 1, 0x28: 1, 0x29: 1, 0x2A: 1, 0x13: 2, 0x21: 2, 0x22: 2, 0x11: 4, 0x27: 4}  # of CONNACK

logger = logging.getLogger("Ether.transport")


class MalformedFrame(Exception):
    """Bytes that are not MQTT."""


def packed_length(length: int) -> bytes:
    """MQTT's variable byte integer."""
    if length < 128:
        return bytes((length,))
    if length < 16_384:  # nearly every message
        return bytes((length & 127 | 128, length >> 7))
    if length > MAX_PACKET_BYTES:
        raise ValueError(f"{length} does not fit into a variable byte integer")
    packed = bytearray()
    while length > 127:
        packed.append(length & 127 | 128)
        length >>= 7
    packed.append(length)
    return bytes(packed)


def read_length(packet: bytes | bytearray | memoryview, at: int) -> tuple[int, int]:
    """A variable byte integer and the position after it; position -1 where bytes are missing."""
    value = shift = 0
    for position in range(at, min(at + 4, len(packet))):
        byte = packet[position]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position + 1
        shift += 7
    if len(packet) >= at + 4:
        raise MalformedFrame("a length of more than four bytes")
    return 0, -1


def find_property(packet: bytes, at: int, stop: int, wanted: int) -> int:
    """Where the value of a property of a CONNACK starts; -1 where it is not there."""
    while at < min(stop, len(packet)):
        identifier = packet[at]
        at += 1
        if identifier == wanted:
            return at
        if identifier in _FIXED_SIZES:
            at += _FIXED_SIZES[identifier]
        else:  # text, bytes or (0x26) a pair of texts
            for _ in range(2 if identifier == _USER_PROPERTY else 1):
                at += 2 + int.from_bytes(packet[at : at + 2], "big")
    return -1


def publish_head(topic: bytes, *, qos: int, retain: bool, tail_bytes: int) -> bytes:
    """The start of a PUBLISH up to the packet id. `tail_bytes`: property section and payload together."""
    remaining = len(topic) + 2 * qos + tail_bytes
    return bytes((_PUBLISH | qos << 1 | retain,)) + packed_length(remaining) + topic


def marked_duplicate(head: bytes) -> bytes:
    """The same head with the flag that the message was sent before."""
    return bytes((head[0] | 8,)) + head[1:]


def pubacks(packet_ids: list[bytes]) -> bytes:
    """One PUBACK for each packed id, in one piece."""
    return b"".join([b"\x40\x02" + packet_id for packet_id in packet_ids])


@dataclass(slots=True)
class PacketBatch:
    """The content of one read: messages, the packet ids to acknowledge, acknowledgements of this side's messages, and
    other packets."""

    deliveries: list[Delivery] = field(default_factory=list)
    to_acknowledge: list[bytes] = field(default_factory=list)
    acknowledged: list[tuple[int, int]] = field(default_factory=list)  # packet id, reason code
    others: list[tuple[int, bytes]] = field(default_factory=list)  # first byte, body


class PacketReader:
    """Cuts a stream of bytes into packets. `split_properties(body, at, stop)` returns (properties, start of the
    payload)."""

    def __init__(self, split_properties: Callable[[bytes | bytearray, int, int], tuple[bytes, int]]) -> None:
        self._split_properties = split_properties
        self._rest = b""
        self._large = bytearray()
        self._large_first = self._large_filled = 0

    def space(self) -> memoryview | None:
        """The buffer for the next bytes, while a large packet is under way; else None."""
        return memoryview(self._large)[self._large_filled :] if self._large else None

    def filled(self, count: int) -> PacketBatch:
        """`count` bytes were read into `space()`."""
        batch = PacketBatch()
        self._large_filled += count
        if self._large_filled == len(self._large):
            body, self._large = self._large, bytearray()
            self._handle(batch, self._large_first, body, 0, len(body))
        return batch

    def feed(self, data: bytes) -> PacketBatch:
        """Every packet that is complete with `data`. The rest is kept for the next call; of a large packet, it goes
        into a buffer of the packet's size, so that its bytes are copied once (`space`, `filled`)."""
        batch = PacketBatch()
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= 2:
            length = data[at + 1]
            start = at + 2
            if length > 127:
                if end - start > 0 and data[start] < 128:  # two bytes say it, as for nearly every message
                    length += (data[start] - 1) << 7
                    start += 1
                else:
                    length, start = read_length(data, at + 1)
                    if start < 0:
                        break
            stop = start + length
            if stop > end:
                if length > _OWN_BUFFER_BYTES:
                    self._begin_large(data[at], length, data[start:])
                    at = end
                break
            first = data[at]
            if first & 0xF0 == _PUBLISH:
                self._publish(batch, first, data, start, stop)
            else:
                self._handle(batch, first, data, start, stop)
            at = stop
        self._rest = data[at:]
        return batch

    def _begin_large(self, first: int, length: int, begun: bytes) -> None:
        if first & 0xF0 != _PUBLISH:  # no other packet is large: no memory for a length that cannot be right
            raise MalformedFrame(f"a packet of type {first >> 4} that declares {length:,} bytes")
        self._large = bytearray(length)
        self._large[: len(begun)] = begun
        self._large_first, self._large_filled = first, len(begun)

    def _handle(self, batch: PacketBatch, first: int, data: bytes | bytearray, start: int, stop: int) -> None:
        kind = first & 0xF0
        if kind == _PUBLISH:
            self._publish(batch, first, data, start, stop)
        elif kind == _PUBACK:
            if stop - start < 2:
                raise MalformedFrame("a PUBACK without packet id")
            reason = data[start + 2] if stop - start > 2 else 0
            batch.acknowledged.append((data[start] << 8 | data[start + 1], reason))
        else:
            batch.others.append((first, bytes(data[start:stop])))

    def _publish(self, batch: PacketBatch, first: int, data: bytes | bytearray, start: int, stop: int) -> None:
        qos = first >> 1 & 3
        at = start + 2
        topic_end = at + (data[start] << 8 | data[start + 1]) if at <= stop else stop + 1
        payload_start = topic_end + 2 if qos else topic_end
        if payload_start > stop or qos > 1:
            raise MalformedFrame("a PUBLISH that contradicts its own lengths, or of QoS 2")
        properties, payload_start = self._split_properties(data, payload_start, stop)
        if qos:
            batch.to_acknowledge.append(bytes(data[topic_end : topic_end + 2]))
        try:
            topic = str(data[at:topic_end], "utf-8")
        except UnicodeDecodeError:
            logger.warning("skipped a message whose topic is not UTF-8 (%d bytes)", topic_end - at)
            return
        payload = (
            bytes(memoryview(data)[payload_start:stop])
            if stop - start > _OWN_BUFFER_BYTES
            else bytes(data[payload_start:stop])
        )
        batch.deliveries.append(Delivery(topic, payload, qos, bool(first & 1), properties))
