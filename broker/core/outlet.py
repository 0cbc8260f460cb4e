"""The packets that wait to be written to one connection, and how a message becomes a packet for its client.

How it works. `send` and `send_frame` append; `batch` gives the bytes for the next write, many small packets at once and
large payloads as views of the packet that they came in. A message with an expiry stays a message until the socket takes
it, so that its remaining time is counted down while it waits, and nothing is sent that has expired.

Promise: the packets keep their order; nothing larger than the client's maximum packet size is sent; a topic gets an
alias on its first use while the client has room for more, and only then.
"""

from collections import deque

from broker.wire import properties
from broker.wire.codec import COPIED_BYTES, Codec
from broker.wire.message import ApplicationMessage
from broker.wire.packets import short
from broker.wire.requests import NO_LIMIT

BATCH_BYTES = 131_072
PIECE_BYTES = 1_114_112
"""A larger piece goes to the socket alone, and in parts: what does not fit must not be copied again each time."""
ENTRY_BYTES = 80
"""What an entry costs beside its bytes."""

_Later = tuple[ApplicationMessage, bool, bytes]  # of QoS 0, with an expiry: retain flag, further properties


class Outlet:
    """One connection's packets; `bytes` is what waits."""

    __slots__ = ("_alias_maximum", "_aliases", "_entries", "_later", "bytes", "codec", "max_packet_bytes")

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.bytes = 0
        self._entries: deque[bytes | memoryview | _Later] = deque()
        self._later = 0
        self.max_packet_bytes = NO_LIMIT  # what the client takes
        self._alias_maximum = 0
        self._aliases: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        """How many packets, or pieces of large ones, wait."""
        return len(self._entries)

    def limit(self, max_packet_bytes: int, alias_maximum: int) -> None:
        """What the client said in its CONNECT."""
        self.max_packet_bytes, self._alias_maximum = max_packet_bytes, alias_maximum

    def send_frame(self, frame: bytes | memoryview) -> None:
        """Append a packet."""
        self._entries.append(frame)
        self.bytes += len(frame) + ENTRY_BYTES

    def send(self, message: ApplicationMessage, retain: bool, more: bytes, now: float) -> None:
        """Append a message at QoS 0; `more` are encoded properties of this delivery."""
        if message.expires_at is not None:
            self._entries.append((message, retain, more))
            self._later += 1
            self.bytes += message.size
        else:
            self.send_numbered(message, 0, 0, retain, more, now)

    def send_numbered(
        self, message: ApplicationMessage, flags: int, packet_id: int, retain: bool, more: bytes, now: float
    ) -> bool:
        """Append a message; False where the client does not take packets of that size. `flags` are the QoS, and 4 where
        it is sent again (DUP)."""
        if (
            message.forwardable != self.codec.level or flags != message.qos or retain or more or self._alias_maximum
            or now >= message.unchanged_until
        ):  # fmt: skip
            return self._append(message, flags, packet_id, retain, more, now)
        frame: bytes | memoryview = message.packet
        size = len(frame)
        if size > self.max_packet_bytes:
            return False
        if flags:
            at = message.id_at
            if size > COPIED_BYTES:
                self.send_frame(b"".join((frame[:at], packet_id.to_bytes(2, "big"))))
                frame = memoryview(frame)[at + 2 :]
            else:
                frame = b"".join((frame[:at], packet_id.to_bytes(2, "big"), frame[at + 2 :]))
        self._entries.append(frame)
        self.bytes += len(frame) + ENTRY_BYTES
        return True

    def _append(
        self, message: ApplicationMessage, flags: int, packet_id: int, retain: bool, more: bytes, now: float
    ) -> bool:
        codec, qos, topic = self.codec, flags & 3, b""
        if self._alias_maximum and (known := self._alias(message.topic)):
            topic, alias = known
            head, middle, payload = codec.pieces_of_topic(message, topic, qos, retain, alias + more, now)
        else:
            head, middle, payload = codec.pieces(message, qos, retain, more, now)
        if len(head) + len(middle) + len(payload) + (2 if qos else 0) > self.max_packet_bytes:
            if topic:
                del self._aliases[topic]  # its client never learns this alias
            return False
        if flags & 4:
            head = bytes((head[0] | 8,)) + head[1:]
        frame = head + short(packet_id) + middle if qos else head + middle
        self._entries.append(frame)
        self.bytes += len(frame) + ENTRY_BYTES
        if payload:
            self.send_frame(payload)
        return True

    def _alias(self, topic: bytes) -> tuple[bytes, bytes] | None:
        """Topic and alias property to send; None where this topic gets no alias."""
        known = self._aliases.get(topic)
        if known is not None:
            return b"", known
        if len(self._aliases) >= self._alias_maximum:
            return None
        alias = self._aliases[topic] = properties.one(properties.TOPIC_ALIAS, len(self._aliases) + 1)
        return topic, alias

    def batch(self, now: float) -> bytes | memoryview:
        """The bytes for the next write; empty where nothing waits."""
        if self._later:
            self._encode(now)
        entries = self._entries
        if self.bytes <= BATCH_BYTES:
            if len(entries) == 1 and self.bytes > COPIED_BYTES:
                self.bytes = 0
                return entries.popleft()  # type: ignore[return-value]  # no message is left among them
            data = b"".join(entries)  # type: ignore[arg-type]
            entries.clear()
            self.bytes = 0
            return data
        joined: list[bytes | memoryview] = []
        size = 0
        while entries and size < BATCH_BYTES:
            entry = entries[0]
            assert not isinstance(entry, tuple)
            if len(entry) > BATCH_BYTES:
                if not joined:
                    return self._part(entry)
                break
            entries.popleft()
            joined.append(entry)
            size += len(entry)
            self.bytes -= len(entry) + ENTRY_BYTES
        return b"".join(joined)

    def put_back(self, rest: memoryview) -> None:
        """What the socket did not take of the last batch."""
        self._entries.appendleft(rest)
        self.bytes += len(rest) + ENTRY_BYTES

    def drop_all(self) -> None:
        """Forget what waits: the connection is gone."""
        self._entries.clear()
        self.bytes = self._later = 0

    def cut_short(self) -> None:
        """Forget what waits, except for the rest of a packet of which the client has got the beginning.

        Such a rest is always a view, and a packet whose beginning has not left begins with bytes.
        """
        entries = list(self._entries)
        self.drop_all()
        for entry in entries:
            if not isinstance(entry, memoryview):
                break
            self.send_frame(entry)

    def _part(self, entry: bytes | memoryview) -> memoryview:
        """The first part of the entry in front, which stays there without it."""
        view = memoryview(entry)
        part, rest = view[:PIECE_BYTES], view[PIECE_BYTES:]
        self.bytes -= len(part)
        if rest:
            self._entries[0] = rest
        else:
            self._entries.popleft()
            self.bytes -= ENTRY_BYTES
        return part

    def _encode(self, now: float) -> None:
        """Make packets of the messages that were kept because their time runs."""
        entries, self._entries = self._entries, deque()
        self._later = 0
        for entry in entries:
            if not isinstance(entry, tuple):
                self._entries.append(entry)
                continue
            message, retain, more = entry
            self.bytes -= message.size
            if not message.is_expired(now):
                self.send_numbered(message, 0, 0, retain, more, now)
