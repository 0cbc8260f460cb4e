"""Whether a TCP connection stands: somebody answers at the other end, and has not hung up.

`connection_fault` looks; `HangUpWatch` is a thread that waits for the end, and leaves the bytes that come to others.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable

PROBE_S = 0.05
"""A new connection is watched so long: servers that serve one client accept a second one, and hang up at once."""


def connection_fault(connection: socket.socket, within_s: float = 0.0) -> str | None:
    """Why this connection does not stand, found now or within this time; None where it does. Bytes stay unread."""
    deadline = time.monotonic() + within_s
    while True:
        if number := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return os.strerror(number)
        try:
            connection.getpeername()
        except OSError as error:
            return error.strerror or str(error)
        readable, _, _ = select.select([connection], [], [], max(deadline - time.monotonic(), 0))
        if not readable:
            return None
        try:
            if connection.recv(1, socket.MSG_PEEK):
                return None  # it speaks, so it is there
            return "the other side has hung up"
        except (BlockingIOError, InterruptedError):
            continue
        except OSError as error:
            return error.strerror or str(error)


def send_at_once(connection: socket.socket) -> None:
    """Let a question that follows a command not wait for the acknowledgement of that packet (Nagle's algorithm: 40 ms
    on Linux)."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


_LOOK_EVERY_S = 0.25
_JOIN_S = 2.0


class HangUpWatch:
    """Calls back, once, when the other side hangs up or the connection breaks, from its own thread."""

    def __init__(self, connection: socket.socket, on_fault: Callable[[str], None]) -> None:
        self._connection, self._on_fault = connection, on_fault
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="watch for a hang-up", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; harmless twice, and from its own callback."""
        self._stop.close()
        if self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        fault = self._wait()
        self._stopped.close()
        if fault is not None:
            self._on_fault(fault)

    def _wait(self) -> str | None:
        """The fault; None where the watch is ended. Where the system cannot wait for a hang-up alone, look now and
        then: bytes that nobody has read make the connection readable all the time."""
        if not hasattr(select, "POLLRDHUP"):
            while not select.select([self._stopped], [], [], _LOOK_EVERY_S)[0]:
                if fault := connection_fault(self._connection):
                    return fault
            return None
        poll = select.poll()
        poll.register(self._connection, select.POLLRDHUP)
        poll.register(self._stopped, select.POLLIN)
        events = dict(poll.poll())
        if self._stopped.fileno() in events:
            return None
        return connection_fault(self._connection) or "the other side has hung up"
