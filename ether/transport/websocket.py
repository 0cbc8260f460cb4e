"""A WebSocket as a stream of bytes: MQTT's packets in binary frames (RFC 6455), over TCP or TLS.

To its users a `WebSocket` is a non-blocking socket: a call that would have to wait raises `BlockingIOError`. The
network thread reads while others write. Everything is written under the socket's own lock, answers to pings included.
Payload is handed on as it arrives, not frame by frame: a large message on a slow line shows from its first bytes on
that the connection lives, and a length that a server claims takes no memory.

The traps. A frame of which a part was written must be finished before another begins, so a write that had to wait must
be repeated with the same bytes (as with TLS). And the rest of an answer to a ping waits for room without any caller,
hence `WebSocketWait`.
"""

from __future__ import annotations

import logging
from threading import Lock
from typing import Any

from websockets.frames import OP_BINARY, OP_CLOSE, OP_CONT, OP_PING, OP_PONG, OP_TEXT, Frame, Opcode

from ether.transport.packets import MalformedFrame
from ether.transport.sockets import ByteStream, Waker, wait_on

_FRAME_BYTES = 65_536  # the largest frame that is sent: a broker collects no more, and a pong waits for no more
_LARGEST_CONTROL = 125
# mosquitto 2.0 writes 4 KiB of a message over a WebSocket, and the next 4 KiB when anything wakes it, or after 100 ms
# (its issue 1390, open). Measured: 64 KiB in 1.5 s without a nudge, in 1.4 ms with one; 32 MiB in 0.8 s.
_PART_OF_MORE_BYTES = 2_048
_FIN, _RESERVED, _MASKED = 0x80, 0x70, 0x80
_NORMAL_CLOSURE = b"\x03\xe8"

logger = logging.getLogger("Ether.transport")


class FrameReader:
    """Takes the payload out of a stream of a server's frames, however the stream is cut into reads.

    `controls` collects pings and Close. `left` is the number of payload bytes of the begun frame that are still to
    come.
    """

    def __init__(self) -> None:
        self.controls: list[tuple[int, bytes]] = []
        self.left = 0
        self._rest = b""  # the begun head of a frame, or a begun control frame: at most 14 + 125 bytes
        self._fragmented = False

    def feed(self, data: bytes) -> bytes:
        """The payload in `data`, never longer than `data`. Bytes behind a Close are ignored."""
        if self._rest:
            data = self._rest + data
        pieces: list[bytes] = []
        at = 0
        while at < len(data):
            if self.left:
                pieces.append(data[at : at + self.left])
                at += len(pieces[-1])
                self.left -= len(pieces[-1])
                continue
            after = self._frame(data, at)
            if after < 0:
                break
            at = after
        self._rest = data[at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _frame(self, data: bytes, at: int) -> int:
        """Read the frame at `at`. Returns the position behind the head of a data frame, or behind a whole control
        frame; -1 where bytes are missing."""
        if len(data) - at < 2:
            return -1
        first, length = data[at], data[at + 1]
        self._check(first, length)
        start = at + 2
        if length > _LARGEST_CONTROL:
            start += 2 if length == 126 else 8
            length = int.from_bytes(data[at + 2 : start], "big")
        if len(data) < start:
            return -1
        if first & 0x8:
            return self._control(data, first & 0xF, start, start + length)
        self._fragmented = not first & _FIN
        self.left = length
        return start

    def _control(self, data: bytes, opcode: int, start: int, stop: int) -> int:
        if len(data) < stop:
            return -1
        self.controls.append((opcode, data[start:stop]))
        return len(data) if opcode == OP_CLOSE else stop

    def _check(self, first: int, second: int) -> None:
        opcode = first & 0xF
        if first & _RESERVED or opcode not in (OP_CONT, OP_TEXT, OP_BINARY, OP_CLOSE, OP_PING, OP_PONG):
            raise MalformedFrame("a WebSocket frame of an unknown kind")
        if second & _MASKED:
            raise MalformedFrame("a masked WebSocket frame, as only clients do")
        if opcode & 0x8 and (not first & _FIN or second > _LARGEST_CONTROL):
            raise MalformedFrame("a WebSocket control frame that is too large or in pieces")
        if opcode == OP_TEXT:
            raise MalformedFrame("text over the WebSocket, where MQTT is binary")
        if not opcode & 0x8 and (opcode == OP_CONT) != self._fragmented:
            raise MalformedFrame("the pieces of a WebSocket message out of order")


class WebSocket:
    """A connection whose handshake is over, made by `ether.transport.upgrade`; `early` is what came with it."""

    def __init__(self, stream: ByteStream, early: bytes = b"") -> None:
        self._stream, self._early = stream, early
        self._reader = FrameReader()
        self._guard = Lock()  # held for everything that is written
        self._unsent = memoryview(b"")  # the rest of a frame that has begun
        self._unsent_payload = 0  # the number of the caller's bytes in that frame
        self._answer = b""  # the frame that follows it: a pong, or Close
        self._ended = self._said_close = False

    # reading, by the network thread

    def recv(self, count: int) -> bytes:
        """MQTT's bytes that have arrived, at most `count`; empty where the connection is over."""
        if self._ended:
            return b""
        data, self._early = self._early[:count], self._early[count:]
        payload = self._received(data or self._stream.recv(count))
        self._nudge(len(payload))
        if payload or self._ended:
            return payload
        raise BlockingIOError

    def recv_into(self, buffer: Any) -> int:
        """The same, into a buffer; without a copy while a frame has more payload to come."""
        view, left = memoryview(buffer), self._reader.left
        if self._early or self._ended or not left:
            payload = self.recv(len(view))
            view[: len(payload)] = payload
            return len(payload)
        count = self._stream.recv_into(view[:left])
        self._reader.left -= count
        self._ended = not count
        self._nudge(count)
        return count

    def _nudge(self, count: int) -> None:
        """Make mosquitto go on with a large message, by a pong that no ping asked for and that gets no answer."""
        if count >= _PART_OF_MORE_BYTES:
            self._reply(OP_PONG, b"")

    def _received(self, data: bytes) -> bytes:
        self._ended = not data
        payload = self._reader.feed(data)
        if self._reader.controls:
            for opcode, body in self._reader.controls:
                self._obey(opcode, body)
            self._reader.controls.clear()
        return payload

    def _obey(self, opcode: int, body: bytes) -> None:
        if opcode == OP_PING:
            self._reply(OP_PONG, body)
        elif opcode == OP_CLOSE:
            logger.debug("the broker closed the WebSocket: %r", body)
            self._ended = True
            self._reply(OP_CLOSE, body[:2])

    def _reply(self, opcode: Opcode, body: bytes) -> None:
        with self._guard:  # one that could not be sent yet is replaced: only the newest ping needs an answer
            if self._said_close:
                return
            self._said_close = opcode == OP_CLOSE
            self._answer = Frame(opcode, body).serialize(mask=True)
            self._flush_locked()

    # writing, by any thread

    def send(self, data: Any) -> int:
        """Write as much as can be written now; returns how many bytes of `data` that were."""
        view = memoryview(data)
        with self._guard:
            written = self._finish_frame_locked()
            while written < len(view):
                piece = view[written : written + _FRAME_BYTES]
                self._unsent = memoryview(Frame(OP_BINARY, piece).serialize(mask=True))
                self._flush_locked()
                if self._unsent:
                    self._unsent_payload = len(piece)
                    break
                written += len(piece)
        if not written and len(view):
            raise BlockingIOError
        return written

    def _finish_frame_locked(self) -> int:
        """Finish the frame that has begun. Returns how many of the caller's bytes it carries: they come again at the
        beginning of `data`, because an unfinished write is repeated."""
        self._flush_locked()
        if self._unsent:
            raise BlockingIOError
        finished, self._unsent_payload = self._unsent_payload, 0
        return finished

    def _flush_locked(self) -> None:
        while self._unsent or self._answer:
            if not self._unsent:
                self._unsent, self._answer = memoryview(self._answer), b""
            try:
                written = self._stream.send(self._unsent)
            except BlockingIOError:
                return
            self._unsent = self._unsent[written:]

    # waiting and ending

    def fileno(self) -> int:
        """The file descriptor of the connection."""
        return self._stream.fileno()

    def setsockopt(self, level: int, name: int, value: int) -> None:
        """Set an option of the socket below."""
        self._stream.setsockopt(level, name, value)

    def setblocking(self, _flag: bool) -> None:
        """Ignored: a WebSocket never blocks."""

    def waiting_with(self, waker: Waker) -> WebSocketWait:
        """The wait for this socket."""
        return WebSocketWait(self, self._stream, waker)

    @property
    def readable(self) -> bool:
        """Whether `recv` has bytes, or the end, that the system does not see."""
        return bool(self._early) or self._ended

    @property
    def unsent(self) -> bool:
        """Whether begun frames wait for room."""
        return bool(self._unsent or self._answer)

    def flush(self) -> None:
        """Write the frames that wait for room."""
        with self._guard:
            self._flush_locked()

    def shutdown(self, _how: int) -> None:
        """Tell the other side that nothing more follows. Reading goes on until it has closed. TCP stays open: some
        proxies take the end of one direction for the end of both, and drop what is under way."""
        self._reply(OP_CLOSE, _NORMAL_CLOSURE)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()


class WebSocketWait:
    """Like `SocketWait`; also finishes frames that wait for room."""

    def __init__(self, sock: WebSocket, stream: ByteStream, waker: Waker) -> None:
        self._sock, self._wait = sock, wait_on(stream, waker)

    def wait(self, timeout_s: float, *, writing: bool) -> tuple[bool, bool]:
        """Wait up to `timeout_s` seconds. Returns whether the socket can be read, and (only if `writing`) written."""
        unsent, known = self._sock.unsent, self._sock.readable
        readable, writable = self._wait.wait(0 if known else timeout_s, writing=writing or unsent)
        if writable and unsent:
            self._sock.flush()
        return readable or known, writable and writing
