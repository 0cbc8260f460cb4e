"""Opens the sockets that a broker listens at.

Promise: what is returned listens already. An address that another program has is `AddressInUse`; one that this machine
does not have, or a port that this user may not take, is `EngineFailed`.
"""

import errno
import os
import socket

from broker.failures import AddressInUse, EngineFailed
from broker.listeners import ports

BACKLOG = 1_024
EVERYWHERE = "0.0.0.0"
_IN_USE = (errno.EADDRINUSE, getattr(errno, "WSAEADDRINUSE", errno.EADDRINUSE))


def tcp(host: str, port: int) -> socket.socket:
    """A listener at host and port; port 0 is a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        if os.name == "posix":  # connections in TIME_WAIT are no listener; on Windows two brokers could share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _translated(error, host, port) from error
    return listener


def lan(host: str, wanted: int, *, tls: bool = False) -> list[socket.socket]:
    """Listeners for other machines: at the port `wanted`; for 0 at MQTT's standard one (with TLS another one), or a
    free one where that is taken. For `0.0.0.0` also at every IPv6 address, where this machine has IPv6."""
    try:
        first = tcp(host, wanted or (ports.STANDARD_TLS if tls else ports.STANDARD))
    except AddressInUse:
        if wanted:
            raise
        first = tcp(host, 0)
    return [first, *_beside(host, first)]


def websocket(host: str, wanted: int) -> list[socket.socket]:
    """Listeners for WebSockets on that address; the port 0 is a free one."""
    first = tcp(host, wanted)
    return [first, *_beside(host, first)]


def _beside(host: str, first: socket.socket) -> list[socket.socket]:
    """The same port over IPv6, where `host` means every address. Where it cannot be had IPv4 alone has to do."""
    if host != EVERYWHERE or not socket.has_ipv6:
        return []
    try:
        return [tcp("::", int(first.getsockname()[1]))]
    except (AddressInUse, EngineFailed):
        return []


def unix(path: str) -> socket.socket:
    """A listener at a Unix socket that only this user can reach; what a killed broker left there is replaced."""
    if os.path.lexists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise EngineFailed(f"Cannot listen at {path}: {error.strerror}.") from error
    return listener


def _translated(error: OSError, host: str, port: int) -> Exception:
    if error.errno in _IN_USE:
        return AddressInUse(host, port)
    if isinstance(error, PermissionError):
        return EngineFailed(f"Cannot listen on {host}:{port}: {error.strerror}; take a port above 1023.")
    return EngineFailed(f"Cannot listen on {host}: {error.strerror}. Is it an address of this machine?")
