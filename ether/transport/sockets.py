"""Sockets that never block a thread beyond its deadline, and waiting that another thread can end.

`open_socket` connects without blocking, so that `close()` can end even a connect to a host that swallows
packets. `Waker` ends a wait from another thread; `SocketWait` waits for a socket and a waker together. The
trap: a name that has to be resolved blocks in the system's resolver, which nothing can interrupt.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol

from ether.transport.endpoint import OVER_TLS, OVER_WEBSOCKET, Endpoint

_IN_PROGRESS = {errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", errno.EWOULDBLOCK)}


class Waker:
    """Ends the wait of the network thread. Costs two sockets while it is open."""

    def __init__(self) -> None:
        self._pair: tuple[socket.socket, socket.socket] | None = None

    def open(self) -> None:
        """Get ready; before that, and after `close()`, `wake()` does nothing."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        self._pair = reader, writer

    def fileno(self) -> int:
        """What to wait for."""
        return -1 if self._pair is None else self._pair[0].fileno()

    def wake(self) -> None:
        """End the wait that is going on, or the next one."""
        if self._pair is not None:
            with suppress(OSError):  # full: it is awake already; closed: nobody waits any more
                self._pair[1].send(b"\0")

    def clear(self) -> None:
        """Forget wake-ups so far."""
        if self._pair is not None:
            with suppress(BlockingIOError):
                self._pair[0].recv(4096)

    def close(self) -> None:
        """Give the sockets back."""
        pair, self._pair = self._pair, None
        if pair is not None:
            for sock in pair:
                sock.close()


class ByteStream(Protocol):
    """What a connection needs of a non-blocking socket: one of TCP, of TLS, or a WebSocket."""

    def fileno(self) -> int: ...
    def send(self, data: Any, /) -> int: ...
    def recv(self, count: int, /) -> bytes: ...
    def recv_into(self, buffer: Any, /) -> int: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


class Wait(Protocol):
    """Waits for a socket and a waker together."""

    def wait(self, timeout_s: float, *, writing: bool) -> tuple[bool, bool]: ...


class _PollWait:
    """With poll(2), which knows no limit of file descriptors and is registered once."""

    def __init__(self, sock: ByteStream, waker: Waker) -> None:
        self._fd, self._waker = sock.fileno(), waker
        self._reading, self._writing = select.poll(), select.poll()
        self._reading.register(self._fd, select.POLLIN)
        self._writing.register(self._fd, select.POLLIN | select.POLLOUT)
        self._reading.register(waker.fileno(), select.POLLIN)
        self._writing.register(waker.fileno(), select.POLLIN)

    def wait(self, timeout_s: float, *, writing: bool) -> tuple[bool, bool]:
        """Up to `timeout_s` seconds; whether the socket can be read, and (asked only if `writing`)
        written."""
        events = (self._writing if writing else self._reading).poll(timeout_s * 1000)
        if len(events) == 1 and events[0][0] == self._fd:
            event = events[0][1]
        else:
            ready = dict(events)
            if self._waker.fileno() in ready:
                self._waker.clear()
            event = ready.get(self._fd, 0)
        return bool(event & ~select.POLLOUT), bool(event & ~select.POLLIN)


class _SelectWait:
    """With select(2), for systems without poll."""

    def __init__(self, sock: ByteStream, waker: Waker) -> None:
        self._sock, self._waker = sock, waker

    def wait(self, timeout_s: float, *, writing: bool) -> tuple[bool, bool]:
        """As `_PollWait.wait`; a failed connect counts as writable."""
        sock, waker = self._sock.fileno(), self._waker.fileno()
        wanted = [sock] if writing else []
        readable, writable, failed = select.select([sock, waker], wanted, wanted, timeout_s)
        if waker in readable:
            self._waker.clear()
        return sock in readable, bool(writable or failed)


SocketWait: type[_PollWait] | type[_SelectWait] = _PollWait if hasattr(select, "poll") else _SelectWait


def open_socket(
    endpoint: Endpoint, timeout_s: float, waker: Waker, stopped: Callable[[], bool], *, give_up_s: float
) -> ByteStream:
    """A connected, non-blocking socket that can be used at once; the system gives up on unacknowledged bytes after
    `give_up_s` seconds. Raises `OSError` (the last address's; also `NotAuthorized`, which is one), or
    `InterruptedError` when woken and `stopped()`."""
    deadline = monotonic() + timeout_s
    failure: OSError = OSError("the name has no address")
    for family, address in _addresses(endpoint):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            _tune(sock, endpoint)
            _connect(sock, address, deadline, waker, stopped)
            _notice_silence(sock, give_up_s)
            return _dressed(sock, endpoint, deadline, waker, stopped)
        except InterruptedError:
            sock.close()
            raise
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure


def _dressed(
    sock: socket.socket, endpoint: Endpoint, deadline: float, waker: Waker, stopped: Callable[[], bool]
) -> ByteStream:
    """The connection with TLS, a WebSocket, both or neither."""
    stream: ByteStream = sock
    if endpoint.kind in OVER_TLS:
        from ether.transport.tls import secured  # OpenSSL costs 4 MB, and few need it

        stream = secured(sock, endpoint.host, deadline, waker, stopped)
    if endpoint.kind in OVER_WEBSOCKET:
        from ether.transport.upgrade import upgraded  # 22 ms

        stream = upgraded(stream, endpoint, deadline, waker, stopped)
    return stream


def wait_on(stream: ByteStream, waker: Waker) -> Wait:
    """What waits for this stream: one that is more than a socket may have bytes that the system knows nothing of."""
    own: Callable[[Waker], Wait] | None = getattr(stream, "waiting_with", None)
    return SocketWait(stream, waker) if own is None else own(waker)


def _addresses(endpoint: Endpoint) -> Iterator[tuple[int, object]]:
    if endpoint.kind == "unix":
        if not hasattr(socket, "AF_UNIX"):
            raise OSError("this system has no Unix sockets")
        yield socket.AF_UNIX, endpoint.path
        return
    for family, _, _, _, address in socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM):
        yield family, address


def _tune(sock: socket.socket, endpoint: Endpoint) -> None:
    if endpoint.kind != "unix":
        # Without it, small write after small write waits for the peer's delayed acknowledgement: 44 ms each
        # way.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _notice_silence(sock: socket.socket, timeout_s: float) -> None:
    """Let the system give the connection up when the other machine has acknowledged nothing for `timeout_s` seconds,
    where it can (Linux). It looks by itself on a connection on which nothing is said, and it is the machine that is
    asked: a broker that is busy, or stopped, keeps its connections."""
    if sock.family == getattr(socket, "AF_UNIX", None):
        return
    wanted = {"TCP_USER_TIMEOUT": int(timeout_s * 1000), "TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1}
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in wanted.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _connect(sock: socket.socket, address: object, deadline: float, waker: Waker, stopped: Callable[[], bool]) -> None:
    if sock.family == getattr(socket, "AF_UNIX", None):  # only a full backlog lets it wait, and cannot be polled for
        sock.settimeout(max(deadline - monotonic(), 0.001))
        sock.connect(address)  # type: ignore[arg-type]
        sock.setblocking(False)
        return
    code = sock.connect_ex(address)  # type: ignore[arg-type]
    if code in _IN_PROGRESS:
        _await_connected(sock, deadline, waker, stopped)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def _await_connected(sock: socket.socket, deadline: float, waker: Waker, stopped: Callable[[], bool]) -> None:
    wait = SocketWait(sock, waker)
    while not stopped():
        remaining = deadline - monotonic()
        if remaining <= 0:
            raise TimeoutError("no answer in time")
        if wait.wait(remaining, writing=True)[1]:
            return
    raise InterruptedError("closed while connecting")
