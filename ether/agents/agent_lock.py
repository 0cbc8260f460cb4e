"""One agent of a name for each user of a machine, whatever session it is in.

Promise: the lock ends with its process, however that ends. The trap: where there is no `flock` (Windows), there is no
lock, and only the session itself tells two agents of one name apart.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from ether.agents.wanted_file import NotKept
from ether.errors import NameTaken


@contextmanager
def only_agent(name: str, path: str) -> Iterator[None]:
    """Hold the lock in the file; raises `NameTaken` where another process holds it."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NotKept(f"agent {name!r} cannot keep its state: {error}. Is the folder writable?") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise NameTaken("agent", name, host=socket.gethostname(), pid=_pid_in(descriptor)) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def _pid_in(descriptor: int) -> int | None:
    told = os.read(descriptor, 20)
    return int(told) if told.isdigit() else None
