"""The packets that one client has yet to receive: in order, within bounds.

How it works. Three containers hold what is on its way to the client:

    put() ──> _backlog ──> _inflight ──> batch() ──> socket
              QoS 1 that    QoS 1 with a packet id,
              has to wait   until its PUBACK

`_ready` is the order of sending. It holds frames of QoS 0 and acknowledgements as bytes, and for a message of QoS 1
only its packet id, which is looked up in `_inflight` at the moment of sending. So a PUBACK can take a message out of
`_inflight` without a search in `_ready`, and a message is encoded only when the socket takes it: a large payload for
many slow clients exists once.

Promise: nothing is dropped. A message of QoS 1 stays until its PUBACK; at most `WINDOW` messages are unacknowledged,
and the others wait in the backlog. The memory that the queue costs is counted. Beyond `LIMIT_BYTES` the methods
`put`, `put_frame` and `hold` return False, and the exchange ends the connection with a warning.
"""

from collections import deque
from collections.abc import Iterator

from broker.wire.packets import OVERHEAD_BYTES, PublishPacket

WINDOW = 100  # unacknowledged messages; the same as mosquitto is given (broker/engines/mosquitto_config.py)
LIMIT_BYTES = 268_435_456
BATCH_BYTES = 131_072
PIECE_BYTES = 262_144
"""A larger frame is handed to asyncio in pieces, because asyncio copies what the socket does not take."""


class ClientQueue:
    """The queue of one session. A session that is not clean keeps its queue when its connection ends."""

    __slots__ = ("_backlog", "_inflight", "_last_id", "_ready", "bytes")

    def __init__(self) -> None:
        self._ready: deque[bytes | memoryview | int] = deque()  # an int is a packet id, a key of _inflight
        self._inflight: dict[int, tuple[PublishPacket, bool, bool]] = {}  # message, retained flag, sent before
        self._backlog: deque[tuple[PublishPacket, bool]] = deque()
        self._last_id = 0
        self.bytes = 0

    def put_frame(self, frame: bytes) -> bool:
        """Queue a packet that the client does not acknowledge; False where the queue is beyond its limit."""
        self._ready.append(frame)
        return self._charge(len(frame) + OVERHEAD_BYTES)

    def put(self, message: PublishPacket, retained: bool = False) -> bool:
        """Queue a message of QoS 1; False where the queue is beyond its limit."""
        if len(self._inflight) < WINDOW and not self._backlog:
            self._number(message, retained)
        else:
            self._backlog.append((message, retained))
        return self._charge(message.size)

    def hold(self, message: PublishPacket) -> bool:
        """Queue a message of QoS 1 for a client that is not connected; False where the queue is beyond its limit."""
        self._backlog.append((message, False))
        return self._charge(message.size)

    def acknowledged(self, packet_id: int) -> None:
        """Take a message out after its PUBACK; the next one of the backlog may go. An unknown id is ignored."""
        done = self._inflight.pop(packet_id, None)
        if done is not None:
            self.bytes -= done[0].size
            self._fill_window()

    def resume(self) -> None:
        """Start on a new connection: unacknowledged messages go first, with their old packet ids and the DUP flag."""
        self._inflight = {
            number: (message, retained, True) for number, (message, retained, _) in self._inflight.items()
        }
        self._ready = deque(self._inflight)  # a dict keeps its order, so this is the order of the first sending
        self._fill_window()

    def suspend(self) -> None:
        """Forget the frames that were meant for a connection which has ended; messages of QoS 1 stay."""
        self._ready.clear()
        backlog = (message for message, _ in self._backlog)
        inflight = (entry[0] for entry in self._inflight.values())
        self.bytes = sum(message.size for messages in (backlog, inflight) for message in messages)

    def batch(self) -> bytes | memoryview:
        """The next bytes for the socket, empty when there are none.

        Small frames are joined up to `BATCH_BYTES`, so that a burst costs one system call. A frame above
        `PIECE_BYTES` is cut into memoryviews that go back to the front of `_ready`; each of them is a batch of its
        own.
        """
        frames: list[bytes] = []
        size, ready = 0, self._ready
        while ready and size < BATCH_BYTES:
            entry = ready.popleft()
            if isinstance(entry, memoryview):
                if not frames:
                    return entry
                ready.appendleft(entry)  # the frames before it go first; it is the next batch
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
        if entry not in self._inflight:  # the client acknowledged an id before it was sent: nothing is left to send
            return b""
        message, retained, duplicate = self._inflight[entry]
        return message.numbered_frame(entry, retained, duplicate)

    def _charge(self, size: int) -> bool:
        """Count the bytes; whether the queue is within its limit. One message alone always is, whatever its size."""
        self.bytes += size
        return self.bytes <= LIMIT_BYTES or self.bytes == size

    def _fill_window(self) -> None:
        while self._backlog and len(self._inflight) < WINDOW:
            self._number(*self._backlog.popleft())

    def _number(self, message: PublishPacket, retained: bool) -> None:
        """Give the message the next free packet id (1 to 65,535, then again from 1) and its place in the order."""
        number = self._last_id % 65_535 + 1
        while number in self._inflight:
            number = number % 65_535 + 1
        self._last_id = number
        self._inflight[number] = (message, retained, False)
        self._ready.append(number)


def _pieces(frame: bytes) -> Iterator[memoryview]:
    view = memoryview(frame)
    return (view[start : start + PIECE_BYTES] for start in range(0, len(frame), PIECE_BYTES))
