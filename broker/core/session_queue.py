"""The messages of QoS 1 and 2 that one session has yet to receive: in order, within a window, kept while it is away.

    put() ──> waiting ──> in flight ──> Outlet ──> socket
              no room     until PUBACK,
              in the      or PUBREC (then PUBREL is
              window      repeated) and PUBCOMP

Promise: nothing is dropped but what has expired while it waited. At most as many messages are in flight as the client
allows (receive maximum) and `WINDOW`. What the queue costs is counted in `bytes`.
"""

from collections import deque
from typing import NamedTuple

from broker.core.outlet import Outlet
from broker.wire.message import ApplicationMessage

WINDOW = 100  # unacknowledged messages; the same as mosquitto is given (broker/engines/mosquitto_config.py)

_PUBREL = 0x62


class Outgoing(NamedTuple):
    """One message on its way. `message` is None once the client has it and only PUBCOMP is missing (QoS 2)."""

    message: ApplicationMessage | None
    qos: int
    retain: bool
    more: bytes
    size: int


_new = tuple.__new__
"""What a named tuple's constructor calls, without the call."""


class SessionQueue:
    """The queue of one session."""

    __slots__ = ("_inflight", "_last_id", "_outlet", "_waiting", "_window", "bytes")

    def __init__(self) -> None:
        self.bytes = 0
        self._inflight: dict[int, Outgoing] = {}
        self._waiting: deque[Outgoing] = deque()
        self._last_id = 0
        self._outlet: Outlet | None = None
        self._window = WINDOW

    def __len__(self) -> int:
        return len(self._inflight) + len(self._waiting)

    def put(self, message: ApplicationMessage, qos: int, retain: bool, more: bytes, now: float) -> None:
        """Queue a message; it is sent at once where the window has room."""
        entry = _new(Outgoing, (message, qos, retain, more, message.size))
        self.bytes += entry.size
        if self._outlet is None or self._waiting or len(self._inflight) >= self._window:
            self._waiting.append(entry)
        else:
            self._send(entry, now)

    def connect(self, outlet: Outlet, receive_maximum: int, now: float) -> None:
        """A connection begins: what is unacknowledged goes first, with its old packet id and DUP."""
        self._outlet = outlet
        self._window = min(WINDOW, receive_maximum)
        for packet_id, entry in list(self._inflight.items()):
            self._repeat(packet_id, entry, now)
        self._fill(now)

    def disconnect(self) -> None:
        """The connection is over; everything stays."""
        self._outlet = None

    def acknowledged(self, packet_id: int, now: float) -> bool:
        """PUBACK: the message is delivered, the next one may go. False where no message has this id."""
        entry = self._inflight.get(packet_id)
        if entry is None or entry.qos != 1:
            return False
        self._settle(packet_id, entry, now)
        return True

    def received(self, packet_id: int, failed: bool, now: float) -> bool:
        """PUBREC: the client has the message; PUBREL is due. With `failed` it has refused it. False where no message
        has this id."""
        entry = self._inflight.get(packet_id)
        if entry is None or entry.qos != 2:
            return False
        if failed:
            self._settle(packet_id, entry, now)
        elif entry.message is not None:
            self._inflight[packet_id] = entry._replace(message=None, size=0)
            self.bytes -= entry.size
        return True

    def completed(self, packet_id: int, now: float) -> bool:
        """PUBCOMP. False where nothing waits for one of this id."""
        entry = self._inflight.get(packet_id)
        if entry is None or entry.qos != 2 or entry.message is not None:
            return False
        self._settle(packet_id, entry, now)
        return True

    def _settle(self, packet_id: int, entry: Outgoing, now: float) -> None:
        del self._inflight[packet_id]
        self.bytes -= entry.size
        if self._waiting:
            self._fill(now)

    def _fill(self, now: float) -> None:
        while self._waiting and len(self._inflight) < self._window:
            entry = self._waiting.popleft()
            assert entry.message is not None
            if entry.message.is_expired(now):
                self.bytes -= entry.size
            else:
                self._send(entry, now)

    def _send(self, entry: Outgoing, now: float) -> None:
        number = self._last_id % 65_535 + 1
        while number in self._inflight:
            number = number % 65_535 + 1
        assert self._outlet is not None
        assert entry.message is not None
        if self._outlet.send_numbered(entry.message, entry.qos, number, entry.retain, entry.more, now):
            self._last_id = number
            self._inflight[number] = entry
        else:  # larger than its client takes: it counts as delivered (MQTT 5, section 3.1.2.11.4)
            self.bytes -= entry.size

    def _repeat(self, packet_id: int, entry: Outgoing, now: float) -> None:
        assert self._outlet is not None
        if entry.message is None:
            self._outlet.send_frame(self._outlet.codec.answer(_PUBREL, packet_id))
        elif not self._outlet.send_numbered(entry.message, entry.qos | 4, packet_id, entry.retain, entry.more, now):
            del self._inflight[packet_id]
            self.bytes -= entry.size
