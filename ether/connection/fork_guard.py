"""Whether this process was forked off the one in which something began, told without a system call each time: asking
for the process's id takes as long as packing a message where the kernel is a virtual machine's.

The trap: a fork that is made without Python's own functions is not noticed.
"""

from __future__ import annotations

import os

times = 0
"""How often this process and its forebears were forked, since the first `watch`; compare it with what `watch` gave."""

_watched = False


def watch() -> int:
    """Count forks from now on; what `times` is at present."""
    global _watched
    if not _watched and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_count)
        _watched = True
    return times


def _count() -> None:
    global times
    times += 1
