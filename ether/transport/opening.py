"""Opening a connection to a broker: TCP or a Unix socket, with TLS, a WebSocket, both or neither over it.

Promises: connecting does not block a thread beyond its deadline, and `close()` on another thread can end it, even
towards a host that swallows packets. TLS and WebSockets are loaded by the first connection that uses them.

With TLS this machine may come as a device of a lab (`ether.system.lab_folders`): it tries the labs that it is a member
of, the last one joined first, and as nobody's device at last. A user and a password in the address are for a broker
that Ether did not start, and go with the system's authorities.

The trap: resolving a name blocks in the system's resolver, which nothing can interrupt.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from time import monotonic

from ether.errors import NotAMember
from ether.system.lab_folders import Membership, memberships
from ether.transport.endpoint import OVER_TLS, OVER_WEBSOCKET, Endpoint
from ether.transport.sockets import ByteStream, SocketWait, Waker, keep_from_forks

_IN_PROGRESS = {errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", errno.EWOULDBLOCK)}


def open_socket(
    endpoint: Endpoint, timeout_s: float, waker: Waker, stopped: Callable[[], bool], *, give_up_s: float
) -> ByteStream:
    """A connected, non-blocking socket that can be used at once. The system gives the connection up when bytes stay
    unacknowledged for `give_up_s` seconds. Raises `OSError` (that of the last address; also `NotAuthorized`, which is
    one), or `InterruptedError` when woken and `stopped()`."""
    deadline = monotonic() + timeout_s
    ways = [partial(_layered, endpoint=endpoint, deadline=deadline, waker=waker, stopped=stopped)]
    other: type[OSError] | tuple[()] = ()
    if endpoint.kind in OVER_TLS:
        from ether.transport.tls import OtherAuthority  # late: OpenSSL costs 4 MB, and few need it

        other, devices = OtherAuthority, [] if endpoint.username is not None else memberships(os.environ)
        ways = [partial(ways[0], device=device) for device in (*devices, None)]
    for way in ways:
        try:
            return _connected(endpoint, deadline, waker, stopped, give_up_s, way, other)
        except other:
            if endpoint.username is not None:
                raise
    raise NotAMember(endpoint.address)


def _connected(
    endpoint: Endpoint,
    deadline: float,
    waker: Waker,
    stopped: Callable[[], bool],
    give_up_s: float,
    layered: Callable[[socket.socket], ByteStream],
    other: type[OSError] | tuple[()],
) -> ByteStream:
    """A connection to the first address that works. Raises as `open_socket`; an error of the kind `other` counts more
    than that of a later address, since it says that there is another way."""
    failure: OSError = OSError("the name has no address")
    for family, address in _addresses(endpoint):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            _tune(sock, endpoint)
            _connect(sock, address, deadline, waker, stopped)
            _notice_silence(sock, give_up_s)
            stream = layered(sock)
            keep_from_forks(stream)
            return stream
        except InterruptedError:
            sock.close()
            raise
        except OSError as error:
            sock.close()
            failure = failure if isinstance(failure, other) else error
        except BaseException:
            sock.close()
            raise
    raise failure


def _layered(
    sock: socket.socket,
    endpoint: Endpoint,
    deadline: float,
    waker: Waker,
    stopped: Callable[[], bool],
    device: Membership | None = None,
) -> ByteStream:
    """The connection with TLS, a WebSocket, both or neither over it, as the kind of endpoint demands."""
    stream: ByteStream = sock
    if endpoint.kind in OVER_TLS:
        from ether.transport.tls import secured  # late, as above

        stream = secured(sock, endpoint.host, deadline, waker, stopped, device, endpoint.address)
    if endpoint.kind in OVER_WEBSOCKET:
        from ether.transport.upgrade import upgraded  # late: it takes 22 ms to load

        stream = upgraded(stream, endpoint, deadline, waker, stopped)
    return stream


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
        # Without it, a small write after another waits for the peer's delayed acknowledgement: 44 ms in each direction.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _notice_silence(sock: socket.socket, timeout_s: float) -> None:
    """Let the system give the connection up when the other machine has acknowledged nothing for `timeout_s` seconds,
    where it can (Linux). On an idle connection it probes by itself. The other machine's system answers the probes, not
    the broker: a broker that is busy, or stopped by a signal, keeps its connections."""
    if sock.family == getattr(socket, "AF_UNIX", None):
        return
    wanted = {"TCP_USER_TIMEOUT": int(timeout_s * 1000), "TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1}
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in wanted.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _connect(sock: socket.socket, address: object, deadline: float, waker: Waker, stopped: Callable[[], bool]) -> None:
    if sock.family == getattr(
        socket, "AF_UNIX", None
    ):  # waits only while the backlog is full, which poll does not show
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
