"""A lock for starting a session: one program of a user at a time starts a session of a given name on this machine.

Two programs of the same session that are started together would both find no session and both start one. With the lock,
the second one waits until the first one's session is there, and then finds it.

Promise: the lock ends with its holder's process, however that ends. The traps: only Linux has it; elsewhere the block
begins at once. And it does not reach other machines: which of two sessions goes on there is settled when they meet
(`ether.session.leadership`).
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ether.connection.deadline import Deadline
from ether.log import get_ether_logger

logger = get_ether_logger("Ether")


@contextmanager
def starting_alone(session: str | None, timeout_s: float) -> Iterator[None]:
    """Inside of the block, no other program of this user on this machine starts a session of this name. Where one does
    so already, the block begins when that is over, or after `timeout_s` seconds without the lock. None: no lock at
    all."""
    lock = None if session is None or sys.platform != "linux" else _lock(_address(session), Deadline(timeout_s))
    try:
        yield
    finally:
        if lock is not None:
            lock.close()


def _address(session: str) -> bytes:
    """An abstract Unix socket address. It needs no file, and Linux frees it with the process that has bound it."""
    return b"\0ether-start-%d-" % os.getuid() + session.encode("utf-8", "surrogatepass")[:80]


def _lock(address: bytes, deadline: Deadline) -> socket.socket | None:
    """Bind the address, which one process can do at a time; None where the time is over."""
    while True:
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            lock.bind(address)
            lock.listen(128)
            return lock
        except OSError as error:
            lock.close()
            logger.debug("another program starts this session: %s", error)
        if deadline.passed:
            return None
        _wait_for_release(address, deadline)


def _wait_for_release(address: bytes, deadline: Deadline) -> None:
    """Wait until the holder closes its socket. It never accepts the connection; the kernel queues it, and closes it
    with the listening socket, which ends `recv`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waiting:
        waiting.settimeout(max(deadline.left(), 0.01))
        try:
            waiting.connect(address)
            waiting.recv(1)
        except OSError:
            return  # closed, or the time is over
