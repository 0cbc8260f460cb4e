"""Which port a listener gets.

Promise: a port that was free a moment ago. For other machines it is MQTT's standard port where that is free, so that
the address stays the same from start to start. The trap: another program may take the port before the listener opens
it, so the caller must be ready to ask again.
"""

import errno
import os
import socket

from broker.failures import AddressInUse, EngineFailed

STANDARD, STANDARD_TLS = 1883, 8883


def free(host: str) -> int:
    """A port on which no program listens at this address."""
    return _bound(host, 0)


def for_lan(host: str, wanted: int, *, tls: bool = False) -> int:
    """The port for other machines: `wanted`; for 0 the standard one (with TLS another one), or a free one where that is
    taken. Raises `AddressInUse`, or `EngineFailed` for an address that this machine does not have."""
    return _tried(host, wanted or (STANDARD_TLS if tls else STANDARD), wanted) or free(host)


def for_websocket(host: str | None, wanted: int | None) -> int | None:
    """The port for WebSockets at that address: `wanted`, or a free one for 0; None for None. Raises like `for_lan`."""
    if host is None or wanted is None:
        return None
    return _tried(host, wanted, wanted)


def _tried(host: str, port: int, wanted: int) -> int | None:
    """The port; None where another program has it and the settings did not ask for it (`wanted` is 0)."""
    try:
        return _bound(host, port)
    except PermissionError as error:
        raise EngineFailed(f"Cannot listen on {host}:{wanted}: {error.strerror}; take a port above 1023.") from error
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, getattr(errno, "WSAEADDRINUSE", errno.EADDRINUSE)):
            raise EngineFailed(
                f"Cannot listen on {host}: {error.strerror}. Is it an address of this machine?"
            ) from error
        if wanted:
            raise AddressInUse(host, wanted) from error
    return None


def _bound(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as taken:
        if os.name == "posix" and port:  # as mosquitto does: connections in TIME_WAIT are no listener
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
        return int(taken.getsockname()[1])
