"""Tells whether this process was forked from the one in which something began, without a system call for each check.
Asking for the process's id takes as long as packing a message where the kernel is a virtual machine's.

The trap: a fork that is not made by Python's own functions is not noticed.
"""

from __future__ import annotations

import os

times = 0
"""How many forks lie between this process and the first `watch()`. Compare it with the value that `watch()`
returned."""

_watched = False


def watch() -> int:
    """Count forks from now on; returns the present value of `times`."""
    global _watched
    if not _watched and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_count)
        _watched = True
    return times


def _count() -> None:
    global times
    times += 1
