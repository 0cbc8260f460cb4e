"""A connection to a broker that keeps none of the transport's promises, and shows each answer as it came.

It is for finding out what a broker does (`ether doctor --broker`): `NetworkTransport` reconnects, repeats and holds
back, and so hides what is asked for here: the limits in the CONNACK, the code of each SUBACK and PUBACK, that the
connection was cut, and at what.

There is no thread. Bytes move only while `serve()` runs, on the connections that it was given: one that is left out
does not read, as a receiver that is slow. The trap: a connection that was lost says so in `lost`, and every later call
on it is without effect; nothing is raised.
"""

from __future__ import annotations

import selectors
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from ether.errors.reason_codes import reason_text
from ether.transport.base import Delivery, ProtocolVersion, Will
from ether.transport.endpoint import Endpoint
from ether.transport.mqtt_versions import SIBLINGS
from ether.transport.names import packed_topic
from ether.transport.opening import open_socket
from ether.transport.packets import (
    MalformedFrame,
    PacketReader,
    find_property,
    packed_length,
    pubacks,
    publish_head,
    read_length,
)
from ether.transport.sockets import ByteStream, Waker

READ_BYTES = 65_536
GIVE_UP_S = 10.0  # bytes that stay unacknowledged for so long end the connection, where the system can do that
_IDLE_S = 0.05  # the longest wait of `serve()` before it looks again at its condition and at the time
_CONNACK, _SUBACK, _PINGRESP, _DISCONNECT = 0x20, 0x90, 0xD0, 0xE0
_LEVELS = {ProtocolVersion.V311: 4, ProtocolVersion.V5: 5}
_FIRST_FAILURE = 0x80

_REFUSALS_V311 = {
    1: "unacceptable protocol version",
    2: "identifier rejected",
    3: "server unavailable",
    4: "bad user name or password",
    5: "not authorized",
}


class EntryRefused(Exception):
    """The broker answered a CONNECT with a refusal, or by closing the connection. `other_version`: another version of
    MQTT may be accepted; `credentials`: it is the user or the password that it refuses."""

    def __init__(self, words: str, *, other_version: bool = False, credentials: bool = False) -> None:
        super().__init__(words)
        self.words, self.other_version, self.credentials = words, other_version, credentials


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    """The limits that a broker names in its CONNACK. None: it names none, as always over MQTT 3.1.1."""

    receive_maximum: int | None = None
    max_packet_bytes: int | None = None
    max_qos: int | None = None
    retain: bool | None = None
    wildcards: bool | None = None
    shared: bool | None = None
    topic_alias_maximum: int | None = None
    session_expiry_s: int | None = None
    keepalive_s: int | None = None


class BareConnection:
    """One connection. `open()` it, ask, `serve()` until the answers are there, `cut()` it.

    What has arrived stands in plain attributes: `deliveries` (take them out with `take()`), `granted` (the codes of
    each SUBACK by packet id), `acknowledged` (the code of each PUBACK by packet id), `pongs`, and `moved_bytes` in both
    directions."""

    def __init__(
        self, endpoint: Endpoint, version: ProtocolVersion, client_id: str, *, will: Will | None = None,
        receive_maximum: int = 256, keepalive_s: int = 60,
    ) -> None:  # fmt: skip
        self.version = version
        self.announced = BrokerLimits()
        self.deliveries: deque[Delivery] = deque()
        self.granted: dict[int, tuple[int, ...]] = {}
        self.acknowledged: dict[int, int] = {}
        self.pongs = self.moved_bytes = 0
        self.lost: str | None = None
        """Why the connection is over, in words; None while it is not."""
        self.acknowledges_at_once: bool | None = None
        """Whether this side's system acknowledges what it reads at once (True), as late as it may (False), or as it
        likes (None). Only Linux can be told."""
        self._endpoint = endpoint
        self._hello = _connect_packet(endpoint, version, client_id, will, receive_maximum, keepalive_s)
        self._stream: ByteStream | None = None
        self._reader = PacketReader(SIBLINGS[version].split_properties)
        self._unsent: deque[memoryview] = deque()
        self._connack: bytes | None = None
        self._heard = False
        self._last_id = 0

    def open(self, deadline: float) -> None:
        """Connect, and wait for the CONNACK. Raises `EntryRefused`, `OSError` where nobody answers at the address, and
        `TimeoutError` (an `OSError`, too) where the broker says nothing until `deadline` (monotonic seconds)."""
        waker = Waker()
        waker.open()
        try:
            left = max(deadline - monotonic(), 0.01)
            self._stream = open_socket(self._endpoint, left, waker, lambda: False, give_up_s=GIVE_UP_S)
        finally:
            waker.close()
        try:
            self._send(self._hello)
            serve([self], lambda: self._connack is not None, deadline)
            self._judge()
        except BaseException:
            self.cut()
            raise

    def _judge(self) -> None:
        if self._connack is None:
            if self.lost is None:
                raise TimeoutError("it accepts connections, and does not answer a CONNECT")
            closed = "it closed the connection without an answer"
            raise EntryRefused(self.lost if self._heard else closed, other_version=not self._heard)
        code = self._connack[1] if len(self._connack) > 1 else 0x80
        if code == 0:
            if self.version is ProtocolVersion.V5:
                self.announced = _limits(self._connack)
        elif code < _FIRST_FAILURE:
            words = _REFUSALS_V311.get(code, f"return code {code}")
            raise EntryRefused(words, other_version=code == 1, credentials=code in (4, 5))
        else:
            raise EntryRefused(
                reason_text(code), other_version=code == 0x84, credentials=code in (0x86, 0x87, 0x8A, 0x8C)
            )

    # asking

    def publish(
        self, topic: str, payload: bytes = b"", *, qos: int = 1, retain: bool = False, properties: bytes = b""
    ) -> int:
        """Send a message; its packet id (0 at QoS 0)."""
        section = SIBLINGS[self.version].section(properties)
        packet_id = self._next_id() if qos else 0
        number = packet_id.to_bytes(2, "big") if qos else b""
        tail_bytes = len(section) + len(payload)
        head = publish_head(packed_topic(topic), qos=qos, retain=retain, tail_bytes=tail_bytes) + number + section
        if len(payload) < READ_BYTES:
            self._send(head + payload)
        else:
            self._send(head, payload)
        return packet_id

    def subscribe(self, filters: Sequence[str], *, qos: int = 1) -> int:
        """Ask for subscriptions; the packet id of the request."""
        packet_id = self._next_id()
        wanted = b"".join(_text(each) + bytes((qos,)) for each in filters)
        self._send(_packet(0x82, packet_id.to_bytes(2, "big") + self._no_properties + wanted))
        return packet_id

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._send(b"\xc0\x00")

    def take(self) -> list[Delivery]:
        """What has been delivered since the last call."""
        taken = list(self.deliveries)
        self.deliveries.clear()
        return taken

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the socket has not taken yet."""
        return sum(map(len, self._unsent))

    @property
    def _no_properties(self) -> bytes:
        return b"\0" if self.version is ProtocolVersion.V5 else b""

    def _next_id(self) -> int:
        self._last_id = self._last_id % 65_535 + 1
        return self._last_id

    def _send(self, *pieces: bytes) -> None:
        if self.lost is None:
            self._unsent.extend(memoryview(piece) for piece in pieces if piece)
            self._flush()

    # moving bytes, for `serve()`

    def move(self) -> bool:
        """Write what the socket takes and read once; whether any byte moved."""
        if self._stream is None or self.lost is not None:
            return False
        return self._flush() | self._read()

    def _flush(self) -> bool:
        moved = False
        while self._unsent and self._stream is not None:
            try:
                written = self._stream.send(self._unsent[0])
            except BlockingIOError:
                break
            except OSError as error:
                self._lose(error.strerror or str(error))
                break
            moved = True
            self.moved_bytes += written
            if written < len(self._unsent[0]):
                self._unsent[0] = self._unsent[0][written:]
                break
            self._unsent.popleft()
        return moved

    def _read(self) -> bool:
        stream = self._stream
        if stream is None:
            return False
        try:
            space = self._reader.space()
            if space is None:
                data = stream.recv(READ_BYTES)
                count, batch = len(data), self._reader.feed(data)
            else:
                count = stream.recv_into(space)
                batch = self._reader.filled(count)
        except BlockingIOError:
            return False
        except MalformedFrame as error:
            self._lose(f"the broker sent {error}")
            return True
        except OSError as error:
            self._lose(error.strerror or str(error))
            return True
        if not count:
            self._lose("the broker closed the connection")
            return True
        self._heard = True
        self.moved_bytes += count
        self._set_acknowledging(stream)
        self.deliveries.extend(batch.deliveries)
        self.acknowledged.update(batch.acknowledged)
        for first, body in batch.others:
            self._note(first & 0xF0, body)
        self._send(pubacks(batch.to_acknowledge))
        return True

    def _note(self, kind: int, body: bytes) -> None:
        if kind == _CONNACK:
            self._connack = body
        elif kind == _SUBACK:
            start = 2
            if self.version is ProtocolVersion.V5:
                length, start = read_length(body, 2)
                start += length
            self.granted[int.from_bytes(body[:2], "big")] = tuple(body[start:])
        elif kind == _PINGRESP:
            self.pongs += 1
        elif kind == _DISCONNECT:
            self._lose(f"the broker said: {reason_text(body[0]) if body else 'normal disconnection'}")

    def _set_acknowledging(self, stream: ByteStream) -> None:
        """Tell the system when to acknowledge; it forgets this by itself, so it is told after each read."""
        if self.acknowledges_at_once is not None and sys.platform == "linux":
            with suppress(OSError):  # a Unix socket has no such option, and needs none
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, int(self.acknowledges_at_once))

    def _lose(self, why: str) -> None:
        """The connection is over. The first reason counts: behind a DISCONNECT the broker closes the connection."""
        if self.lost is None:
            self.lost = why
        self._unsent.clear()

    @property
    def waits_for(self) -> tuple[int, int] | None:
        """The file descriptor and the events (of `selectors`) for which it waits; None where it is over."""
        if self._stream is None or self.lost is not None:
            return None
        writing = self._unsent or getattr(self._stream, "unsent", False)  # a WebSocket keeps begun frames itself
        return self._stream.fileno(), selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)

    # the end

    def say_goodbye(self) -> None:
        """Send a DISCONNECT, behind which the broker publishes no will."""
        self._send(b"\xe0\x00")

    def cut(self) -> None:
        """Close without a word, as a program that dies does."""
        stream, self._stream = self._stream, None
        self._lose("closed")
        if stream is not None:
            stream.close()


def serve(connections: Sequence[BareConnection], until: Callable[[], bool], deadline: float) -> bool:
    """Move bytes on these connections until `until()` holds. False where that is not so at `deadline` (monotonic
    seconds), or where every connection was lost."""
    while True:
        moved = False
        for connection in connections:
            moved |= connection.move()
        if until():
            return True
        left = deadline - monotonic()
        if left <= 0 or all(connection.lost is not None for connection in connections):
            return False
        if not moved:
            _wait(connections, min(left, _IDLE_S))


def _wait(connections: Sequence[BareConnection], timeout_s: float) -> None:
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            if (wanted := connection.waits_for) is not None:
                selector.register(*wanted)
        selector.select(timeout_s)


def _connect_packet(
    endpoint: Endpoint,
    version: ProtocolVersion,
    client_id: str,
    will: Will | None,
    receive_maximum: int,
    keepalive_s: int,
) -> bytes:
    v5 = version is ProtocolVersion.V5
    flags, rest = 0x02, _text(client_id)  # a clean start
    if will is not None:
        flags |= 0x04 | 1 << 3 | (0x20 if will.retain else 0)
        section = packed_length(len(will.properties)) + will.properties if v5 else b""
        rest += section + _text(will.topic) + _text(will.payload)
    if endpoint.username is not None:
        flags |= 0x80
        rest += _text(endpoint.username)
        if endpoint.password is not None:
            flags |= 0x40
            rest += _text(endpoint.password)
    properties = b"\x03\x21" + receive_maximum.to_bytes(2, "big") if v5 else b""
    head = _text("MQTT") + bytes((_LEVELS[version], flags)) + keepalive_s.to_bytes(2, "big")
    return _packet(0x10, head + properties + rest)


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + packed_length(len(body)) + body


def _text(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return len(data).to_bytes(2, "big") + data


def _limits(connack: bytes) -> BrokerLimits:
    length, start = read_length(connack, 2) if len(connack) > 2 else (0, -1)

    def number(identifier: int, size: int) -> int | None:
        at = find_property(connack, start, start + length, identifier) if start > 0 else -1
        return None if at < 0 else int.from_bytes(connack[at : at + size], "big")

    def available(identifier: int) -> bool | None:
        value = number(identifier, 1)
        return None if value is None else bool(value)

    return BrokerLimits(
        receive_maximum=number(0x21, 2),
        max_packet_bytes=number(0x27, 4),
        max_qos=number(0x24, 1),
        retain=available(0x25),
        wildcards=available(0x28),
        shared=available(0x2A),
        topic_alias_maximum=number(0x22, 2),
        session_expiry_s=number(0x11, 4),
        keepalive_s=number(0x13, 2),
    )
