"""Multicast on the loopback interface is one network for the whole machine: tests that announce or search there take
turns, also those of other workers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def multicast_alone() -> Iterator[None]:
    """Wait until no other test is on that network, and keep others off it."""
    if os.name != "posix":
        yield
        return
    import fcntl

    # A file of each user's own, as another's could not be opened.
    with (Path(tempfile.gettempdir()) / f"ether-tests-multicast-{os.getuid()}").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # ends with the file, so also with a process that dies
        yield
