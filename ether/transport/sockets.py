"""Waiting for a socket in a way that another thread can end.

`Waker` ends a wait from another thread; `SocketWait` waits for a socket and a waker together; `wait_on` finds the right
wait for a stream that is more than a socket. Connecting is the business of `ether.transport.opening`.
"""

from __future__ import annotations

import os
import select
import socket
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol


def was_closed(error: OSError) -> bool:
    """Whether an error says that the other side has closed the connection, and not that it has fallen silent or cannot
    be reached any more."""
    # An error of TLS is such an end, too. The library is not imported for its name.
    closed = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
    return isinstance(error, closed) or type(error).__module__ == "ssl"


class Waker:
    """Ends the wait of the network thread. Takes two sockets while it is open."""

    def __init__(self) -> None:
        self._pair: tuple[socket.socket, socket.socket] | None = None

    def open(self) -> None:
        """Open the sockets. Before that, and after `close()`, `wake()` does nothing."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        self._pair = reader, writer

    def fileno(self) -> int:
        """The file descriptor to wait for; -1 while closed."""
        return -1 if self._pair is None else self._pair[0].fileno()

    def wake(self) -> None:
        """End the wait that is going on, or the next one."""
        if self._pair is not None:
            with suppress(OSError):  # full: it is awake already; closed: no thread waits any more
                self._pair[1].send(b"\0")

    def clear(self) -> None:
        """Forget the wake-ups until now."""
        if self._pair is not None:
            with suppress(BlockingIOError):
                self._pair[0].recv(4096)

    def close(self) -> None:
        """Close the sockets."""
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
    def setsockopt(self, level: int, name: int, value: int, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


_own_streams: weakref.WeakSet[Any] = weakref.WeakSet()
_guarded = False


def keep_from_forks(stream: ByteStream) -> None:
    """Let no process that this one forks hold the connection open: the broker would not notice the end of this one.
    What a forked process has in its place reads nothing and sends nowhere."""
    global _guarded
    _own_streams.add(stream)
    if not _guarded and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_give_up_streams)
        _guarded = True


def _give_up_streams() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in list(_own_streams):
        with suppress(OSError, ValueError):  # closed before
            if (descriptor := stream.fileno()) >= 0:
                os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)


_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


def acknowledger_of(stream: ByteStream, *, over_tcp: bool) -> Callable[[], None] | None:
    """What makes the system acknowledge at once what was read from a stream, and not after 40 ms. It has to be called
    after each such read, because the system forgets it. None where the stream is not `over_tcp`, and where the system
    has no such option (all but Linux).

    A broker that does not set TCP_NODELAY holds a small packet back until the one before it was acknowledged. So do
    Mosquitto in its usual configuration, Aedes and rumqttd: each call takes 44 ms there."""
    if not over_tcp or _QUICKACK is None:
        return None
    return partial(stream.setsockopt, socket.IPPROTO_TCP, _QUICKACK, 1)


class Wait(Protocol):
    """Waits for a socket and a waker together."""

    def wait(self, timeout_s: float, *, writing: bool) -> tuple[bool, bool]: ...


class _PollWait:
    """A wait by poll(2), which has no limit of file descriptors and registers its sockets once."""

    def __init__(self, sock: ByteStream, waker: Waker) -> None:
        self._fd, self._waker = sock.fileno(), waker
        self._reading, self._writing = select.poll(), select.poll()
        self._reading.register(self._fd, select.POLLIN)
        self._writing.register(self._fd, select.POLLIN | select.POLLOUT)
        self._reading.register(waker.fileno(), select.POLLIN)
        self._writing.register(waker.fileno(), select.POLLIN)

    def wait(self, timeout_s: float, *, writing: bool) -> tuple[bool, bool]:
        """Wait up to `timeout_s` seconds. Returns whether the socket can be read, and (only if `writing`) written."""
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
    """A wait by select(2), for systems without poll."""

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


def wait_on(stream: ByteStream, waker: Waker) -> Wait:
    """The wait for this stream. TLS and WebSockets bring their own, as they may hold bytes that the system does not
    see."""
    own: Callable[[Waker], Wait] | None = getattr(stream, "waiting_with", None)
    return SocketWait(stream, waker) if own is None else own(waker)
