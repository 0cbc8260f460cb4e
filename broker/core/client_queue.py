"""What one client still has to get: in order, within bounds.

Promise: nothing is dropped. Messages of QoS 1 stay until their PUBACK, at most `WINDOW` of them unacknowledged, the
rest held back for as long as it takes. What all of it costs is counted; beyond `LIMIT_BYTES` the outbox says so, and
whoever owns the connection ends it, loudly.
The trap: a packet is encoded only when the socket takes it. A large payload that goes to many slow clients exists once.
"""

from collections import deque
from collections.abc import Iterator

from broker.wire.packets import OVERHEAD_BYTES, PublishPacket

WINDOW = 100  # unacknowledged messages; the same as mosquitto is given (broker/engines/mosquitto_config.py)
LIMIT_BYTES = 268_435_456
BATCH_BYTES = 131_072
PIECE_BYTES = 262_144  # larger frames are handed to the socket in pieces: what it cannot send, asyncio copies


class ClientQueue:
    """One session's way out. Survives its connection if the session does."""

    __slots__ = ("_held", "_inflight", "_last_id", "_ready", "bytes")

    def __init__(self) -> None:
        self._ready: deque[bytes | memoryview | int] = deque()  # an int is a number in _inflight
        self._inflight: dict[int, tuple[PublishPacket, bool, bool]] = {}  # message, retained, sent before
        self._held: deque[tuple[PublishPacket, bool]] = deque()
        self._last_id = 0
        self.bytes = 0

    def put_frame(self, frame: bytes) -> bool:
        """A packet that nobody acknowledges; False if the client now owes us too much."""
        self._ready.append(frame)
        return self._charge(len(frame) + OVERHEAD_BYTES)

    def put(self, message: PublishPacket, retained: bool = False) -> bool:
        """A message of QoS 1; False if the client now owes us too much."""
        if len(self._inflight) < WINDOW and not self._held:
            self._number(message, retained)
        else:
            self._held.append((message, retained))
        return self._charge(message.size)

    def hold(self, message: PublishPacket) -> bool:
        """A message of QoS 1 for a client that is away; False if that is too much."""
        self._held.append((message, False))
        return self._charge(message.size)

    def acknowledged(self, packet_id: int) -> None:
        """The client has it; the next one that was held back may go."""
        done = self._inflight.pop(packet_id, None)
        if done is not None:
            self.bytes -= done[0].size
            self._fill_window()

    def resume(self) -> None:
        """A new connection of the same session: what was not acknowledged goes first, marked as a repetition."""
        self._inflight = {number: (message, kept, True) for number, (message, kept, _) in self._inflight.items()}
        self._ready = deque(self._inflight)
        self._fill_window()

    def suspend(self) -> None:
        """The connection is gone, and with it what nobody would have acknowledged."""
        self._ready.clear()
        held = (message for message, _ in self._held)
        inflight = (entry[0] for entry in self._inflight.values())
        self.bytes = sum(message.size for messages in (held, inflight) for message in messages)

    def batch(self) -> bytes | memoryview:
        """The next bytes for the socket, empty when there are none."""
        frames: list[bytes] = []
        size, ready = 0, self._ready
        while ready and size < BATCH_BYTES:
            entry = ready.popleft()
            if isinstance(entry, memoryview):
                if not frames:
                    return entry
                ready.appendleft(entry)
                break
            frame = self._encoded(entry)
            if len(frame) > PIECE_BYTES:
                ready.extendleft(reversed(list(_pieces(frame))))
            else:
                frames.append(frame)
                size += len(frame)
        return b"".join(frames)

    def _encoded(self, entry: bytes | int) -> bytes:
        if isinstance(entry, bytes):
            self.bytes -= len(entry) + OVERHEAD_BYTES
            return entry
        if entry not in self._inflight:  # acknowledged before it was sent: a strange client, but no harm
            return b""
        message, retained, again = self._inflight[entry]
        return message.numbered_frame(entry, retained, again)

    def _charge(self, size: int) -> bool:
        """One message alone is never too much, however large."""
        self.bytes += size
        return self.bytes <= LIMIT_BYTES or self.bytes == size

    def _fill_window(self) -> None:
        while self._held and len(self._inflight) < WINDOW:
            self._number(*self._held.popleft())

    def _number(self, message: PublishPacket, retained: bool) -> None:
        number = self._last_id % 65_535 + 1
        while number in self._inflight:
            number = number % 65_535 + 1
        self._last_id = number
        self._inflight[number] = (message, retained, False)
        self._ready.append(number)


def _pieces(frame: bytes) -> Iterator[memoryview]:
    view = memoryview(frame)
    return (view[start : start + PIECE_BYTES] for start in range(0, len(frame), PIECE_BYTES))
