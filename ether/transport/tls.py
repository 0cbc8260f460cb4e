"""TLS over a connected socket, for two threads that use it at the same time.

The network thread reads while others write. Two threads must not use one OpenSSL connection at once, so each call takes
the socket's own lock, and none of them blocks. To its users a `TlsSocket` is a non-blocking TCP socket: a call that
would have to wait raises `BlockingIOError`.

The traps. OpenSSL may hold decrypted bytes that no poll sees, hence `PendingWait`. And a write that had to wait must be
repeated with the same bytes; a user that keeps the unwritten rest in order does that anyway.

Whom it trusts. As a device of a lab it trusts that lab's authority alone, and shows its own certificate, only after the
broker's was found to be a server's of this lab. The host name is not compared, because addresses of a bench change and
only the authority makes servers; and neither is the time, which is the broker's to judge: this machine may be in 1970.
Without a lab certificates are checked against the system's authorities; `SSL_CERT_FILE` names another one.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from time import monotonic
from typing import Any

from ether.errors import CertificateRefused
from ether.system.lab_folders import Membership
from ether.transport.sockets import SocketWait, Waker

_AT_ONCE = 65_536
"""Bytes per write of OpenSSL: one of 32 MiB would keep the reader from the lock for long, and with it keep-alive."""
_WAITS = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME, for which Python has no name."""
_ALERTS = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
"""The words of TLS alerts by which a server refuses what a client has shown."""


_OF_NO_AUTHORITY = frozenset({2, 18, 19, 20, 21, 26, 79})
"""How OpenSSL says that the chain leads to nobody who is trusted, or to one who may not be a server."""


class OtherAuthority(OSError):
    """The server's certificate was not signed by an authority that counts here; nothing was sent to it."""


class TlsSocket(ssl.SSLSocket):
    """A non-blocking TLS connection, made by `secured()`."""

    guard: Lock
    peer_address: str = ""
    device: str | None = None
    """The name under which this machine shows its certificate; None where it shows none."""

    def _judged(self, error: ssl.SSLError) -> OSError:
        """With TLS 1.3 a client learns behind its handshake that its certificate was refused."""
        if self.device is not None and any(word in (error.reason or "") for word in _ALERTS):
            return CertificateRefused(self.peer_address, _words(error), self.device)
        return error

    def send(self, data: Any, flags: int = 0) -> int:
        """Write as much as can be written now; returns how many bytes that were."""
        view, written = memoryview(data), 0
        with self.guard:
            while written < len(view):
                try:
                    written += super().send(view[written : written + _AT_ONCE], flags)
                except _WAITS:
                    break
                except OSError as error:
                    raise self._why_closed(error) from error
        if not written and len(view):
            raise BlockingIOError
        return written

    def _why_closed(self, error: OSError) -> OSError:
        """What stood in front of the end that this write has met: the server's alert, where it has sent one."""
        try:
            super().recv(1)
        except ssl.SSLError as alert:
            judged = self._judged(alert)
            return error if judged is alert else judged  # nothing to read is an error here, too
        except OSError:
            pass
        return error

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """What has arrived, at most one TLS record."""
        with self.guard:
            try:
                return super().recv(buflen, flags)
            except _WAITS:
                raise BlockingIOError from None
            except ssl.SSLError as error:
                raise self._judged(error) from error

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """The same, into a buffer."""
        with self.guard:
            try:
                return super().recv_into(buffer, nbytes, flags)
            except _WAITS:
                raise BlockingIOError from None
            except ssl.SSLError as error:
                raise self._judged(error) from error

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


def context_of(device: Membership | None) -> ssl.SSLContext:
    """Whom a connection trusts, and what it shows: as a device of a lab, or (None) as anybody. Raises `OSError` for
    files that cannot be used."""
    if device is None:
        return ssl.create_default_context()
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.verify_flags = ssl.VerifyFlags(made.verify_flags | _NO_CHECK_TIME)
    try:
        made.load_verify_locations(device.authority)
        made.load_cert_chain(device.certificate, device.key)
    except (OSError, ssl.SSLError) as error:
        raise OSError(f"this device's certificate in {device.folder} cannot be used ({error})") from error
    return made


def secured(
    sock: socket.socket,
    host: str,
    deadline: float,
    waker: Waker,
    stopped: Callable[[], bool],
    device: Membership | None = None,
    address: str = "",
) -> TlsSocket:
    """A TLS connection over `sock`, which belongs to it from now on; the certificate is checked. Raises `OSError`, of
    which `OtherAuthority` is one, or `InterruptedError` when woken and `stopped()`."""
    context = context_of(device)
    context.sslsocket_class = TlsSocket
    wrapped = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    assert isinstance(wrapped, TlsSocket)
    wrapped.guard, wrapped.peer_address = Lock(), address
    wrapped.device = None if device is None else device.name
    try:
        _shake_hands(wrapped, deadline, waker, stopped)
    except ssl.SSLCertVerificationError as error:
        wrapped.close()
        text = f"its TLS certificate is not accepted ({error.verify_message})"
        raise (OtherAuthority if error.verify_code in _OF_NO_AUTHORITY else OSError)(text) from error
    except ssl.SSLError as error:
        wrapped.close()
        if (judged := wrapped._judged(error)) is not error:
            raise judged from error
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


def _words(error: ssl.SSLError) -> str:
    """The alert for people: `certificate revoked`."""
    return (error.reason or str(error)).rpartition("ALERT_")[2].replace("_", " ").lower()
