"""TLS over a connected socket, for two threads that use it at the same time.

The network thread reads while others write. Two threads must not use one OpenSSL connection at once, so each call takes
the socket's own lock, and none of them blocks. To its users a `TlsSocket` is a non-blocking TCP socket: a call that
would have to wait raises `BlockingIOError`.

The traps. OpenSSL may hold decrypted bytes that no poll sees, hence `PendingWait`. And a write that had to wait must be
repeated with the same bytes; a user that keeps the unwritten rest in order does that anyway.

Certificates are checked against the system's authorities; `SSL_CERT_FILE` names another one.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from time import monotonic
from typing import Any

from ether.transport.sockets import SocketWait, Waker

_AT_ONCE = 65_536
"""Bytes per write of OpenSSL: one of 32 MiB would keep the reader from the lock for long, and with it keep-alive."""
_WAITS = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class TlsSocket(ssl.SSLSocket):
    """A non-blocking TLS connection, made by `secured()`."""

    guard: Lock

    def send(self, data: Any, flags: int = 0) -> int:
        """Write as much as can be written now; returns how many bytes that were."""
        view, written = memoryview(data), 0
        with self.guard:
            while written < len(view):
                try:
                    written += super().send(view[written : written + _AT_ONCE], flags)
                except _WAITS:
                    break
        if not written and len(view):
            raise BlockingIOError
        return written

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """What has arrived, at most one TLS record."""
        with self.guard:
            try:
                return super().recv(buflen, flags)
            except _WAITS:
                raise BlockingIOError from None

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """The same, into a buffer."""
        with self.guard:
            try:
                return super().recv_into(buffer, nbytes, flags)
            except _WAITS:
                raise BlockingIOError from None

    def pending(self) -> int:
        """The number of decrypted bytes that wait to be read."""
        with self.guard:
            return super().pending()

    def waiting_with(self, waker: Waker) -> PendingWait:
        """The wait for this socket."""
        return PendingWait(self, waker)

    def shutdown(self, how: int) -> None:
        """Tell the other side that nothing more follows. Reading goes on until it has closed."""
        with self.guard, suppress(OSError, ValueError):
            self.unwrap()


class PendingWait:
    """Like `SocketWait`; bytes that are decrypted already count as readable."""

    def __init__(self, sock: TlsSocket, waker: Waker) -> None:
        self._sock, self._wait = sock, SocketWait(sock, waker)

    def wait(self, timeout_s: float, *, writing: bool) -> tuple[bool, bool]:
        """Wait up to `timeout_s` seconds. Returns whether the socket can be read, and (only if `writing`) written."""
        if not self._sock.pending():
            return self._wait.wait(timeout_s, writing=writing)
        return True, self._wait.wait(0, writing=writing)[1]


def secured(sock: socket.socket, host: str, deadline: float, waker: Waker, stopped: Callable[[], bool]) -> TlsSocket:
    """A TLS connection over `sock`, which belongs to it from now on; the certificate is checked. Raises `OSError`, or
    `InterruptedError` when woken and `stopped()`."""
    context = ssl.create_default_context()
    context.sslsocket_class = TlsSocket
    wrapped = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    assert isinstance(wrapped, TlsSocket)
    wrapped.guard = Lock()
    try:
        _shake_hands(wrapped, deadline, waker, stopped)
    except ssl.SSLCertVerificationError as error:
        wrapped.close()
        raise OSError(f"its TLS certificate is not accepted ({error.verify_message})") from error
    except ssl.SSLError as error:
        wrapped.close()
        raise OSError(f"TLS failed, perhaps it speaks none on this port ({error.reason or error})") from error
    except BaseException:
        wrapped.close()
        raise
    return wrapped


def _shake_hands(sock: TlsSocket, deadline: float, waker: Waker, stopped: Callable[[], bool]) -> None:
    wait = SocketWait(sock, waker)
    while not stopped():
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            writing = False
        except ssl.SSLWantWriteError:
            writing = True
        else:
            return
        remaining = deadline - monotonic()
        if remaining <= 0:
            raise TimeoutError("no answer in time")
        wait.wait(remaining, writing=writing)
    raise InterruptedError("closed while connecting")
