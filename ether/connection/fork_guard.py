"""Tells whether this process was forked from the one in which something began, without a system call for each check.
Asking for the process's id takes as long as packing a message where the kernel is a virtual machine's.

A process that user code forks has copies of everything and owns none of it: not the connection, not the queue of jobs,
not the answers that are due. So it ends where the handler ends that forked it (`end_forked`), as a process of
`multiprocessing` does: without the `atexit` functions of its parent, which would close the parent's devices.

The trap: a fork that is not made by Python's own functions is not noticed.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

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


def end_forked(error: BaseException | None) -> NoReturn:
    """End this forked process: its code has returned, or has raised `error`. The exit code is that of Python."""
    code: object = 0
    if isinstance(error, SystemExit):
        code = 0 if error.code is None else error.code
    elif error is not None:
        code = 1
        with suppress(BaseException):  # a user's own __str__ runs here, and nothing may keep this process alive
            traceback.print_exception(error)
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code & 0xFF)
