"""A long way to a broker: a TCP proxy on loopback that delivers every byte some time later, in order.

Unlike `lossy_proxy` it knows nothing of MQTT, and loses nothing. One thread does all of it; `close()` leaves no thread
and no socket. It acknowledges at once what it reads, so that the only delay is its own.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from types import TracebackType

from patience import patience

_READ_BYTES = 65_536
_CONNECT_S = patience(5.0)
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


@dataclass(eq=False, slots=True)
class _Pipe:
    """One direction of one connection."""

    source: socket.socket
    target: socket.socket
    under_way: deque[tuple[float, bytes]] = field(default_factory=deque)
    """What was read, and when it is due; empty bytes are the end."""
    other: _Pipe | None = None


class Distance:
    """A broker at `host`:`port` that is `one_way_s` seconds away. A context manager."""

    def __init__(self, host: str, port: int, one_way_s: float) -> None:
        self._broker, self.one_way_s = (host, port), one_way_s
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setblocking(False)
        self.port = int(self._server.getsockname()[1])
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ, None)
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._pipes: list[_Pipe] = []
        self._thread = threading.Thread(target=self._run, name="distance", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """`mqtt://…` of its near end."""
        return f"mqtt://127.0.0.1:{self.port}"

    def __enter__(self) -> Distance:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End it, and every connection. Twice is fine."""
        self._wake.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._serve():
                pass
        finally:
            sockets = {sock for pipe in self._pipes for sock in (pipe.source, pipe.target)}
            for sock in (*sockets, self._server, self._woken):
                sock.close()
            self._selector.close()

    def _serve(self) -> bool:
        due = [pipe.under_way[0][0] for pipe in self._pipes if pipe.under_way]
        for key, _ in self._selector.select(max(min(due) - monotonic(), 0.0) if due else None):
            if key.fileobj is self._woken:
                return False
            if key.fileobj is self._server:
                self._accept()
            elif isinstance(key.data, _Pipe):
                self._read(key.data)
        for pipe in list(self._pipes):
            self._deliver(pipe)
        return True

    def _accept(self) -> None:
        near, _ = self._server.accept()
        try:
            far = socket.create_connection(self._broker, _CONNECT_S)
        except OSError:
            near.close()
            return
        there, back = _Pipe(near, far), _Pipe(far, near)
        there.other, back.other = back, there
        for pipe in (there, back):
            pipe.source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(pipe.source, selectors.EVENT_READ, pipe)
            self._pipes.append(pipe)

    def _read(self, pipe: _Pipe) -> None:
        try:
            data = pipe.source.recv(_READ_BYTES)
            if _QUICKACK is not None:
                pipe.source.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        except OSError:
            data = b""
        pipe.under_way.append((monotonic() + self.one_way_s, data))
        if not data:
            with suppress(KeyError, ValueError):
                self._selector.unregister(pipe.source)

    def _deliver(self, pipe: _Pipe) -> None:
        while pipe.under_way and pipe.under_way[0][0] <= monotonic():
            _, data = pipe.under_way.popleft()
            try:
                if data:
                    pipe.target.sendall(data)  # blocks where the other side reads nothing: these tests' sides read
                    continue
                pipe.target.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            self._end(pipe)
            return

    def _end(self, pipe: _Pipe) -> None:
        """One direction is over; the connection is, when the other one is, too."""
        if pipe in self._pipes:
            self._pipes.remove(pipe)
        if pipe.other is not None and pipe.other not in self._pipes:
            for sock in (pipe.source, pipe.target):
                with suppress(KeyError, ValueError):
                    self._selector.unregister(sock)
                sock.close()
