"""Which port a listener gets.

Promise: a free one, tried a moment ago. For other machines it is the same from start to start where that can be: MQTT's
own, so that its address can be written down. The trap: another program may take it in the moment between; who listens
must be ready to ask again.
"""

import errno
import os
import socket

from broker.failures import AddressInUse, EngineFailed

USUAL = 1883


def free(host: str) -> int:
    """A port on which nobody listens at this address."""
    return _bound(host, 0)


def for_lan(host: str, wanted: int) -> int:
    """The port for other machines: the one wanted, or for 0 the usual one, or a free one where that is taken. Raises
    `AddressInUse`, or `EngineFailed` for an address that this machine does not have."""
    return _tried(host, wanted or USUAL, wanted) or free(host)


def for_websocket(host: str | None, wanted: int | None) -> int | None:
    """The port for WebSockets on that address: the one wanted, a free one for 0; None where none is wanted. Raises as
    `for_lan` does."""
    if host is None or wanted is None:
        return None
    return _tried(host, wanted, wanted)


def _tried(host: str, port: int, wanted: int) -> int | None:
    """The port, None where it is taken and was not asked for."""
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
        if os.name == "posix" and port:  # as mosquitto does: connections of before that linger are no listener
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
        return int(taken.getsockname()[1])
