"""Lets no process of a session outlive its launcher, whatever kills the launcher and whatever the processes are doing.

Each child notices its launcher's death by itself: its standard input ends. But a child that is stuck in C code cannot
act on that. On POSIX all children therefore share a process group. Its leader, the guard, is a shell that only waits
for the same event; after a grace it removes the session's private folder and kills the group. On other systems there is
only the first line of defence. The trap: a lifeline ends only when every process that holds it has closed it, so
processes that the user's code forks have to close theirs.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from typing import Any

GRACE_S = 0.6
"""Longer than the children's own last steps, and short enough that everything is gone within a second."""

_GUARD = f'trap \'\' INT TERM HUP; read -r line; sleep {GRACE_S}; [ -n "$1" ] && rm -rf -- "$1"; kill -KILL 0'


class ProcessGroup:
    """For systems without process groups: children are only kept clear of the terminal's Ctrl-C."""

    def options(self) -> dict[str, Any]:
        """Options for `subprocess.Popen`."""
        return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}

    def close(self) -> None:
        """Every child has ended: give up what the group holds. Twice is fine."""


class GuardedGroup(ProcessGroup):
    """A POSIX process group led by its guard."""

    def __init__(self, shell: str, folder: str) -> None:
        self._guard = subprocess.Popen(
            [shell, "-c", _GUARD, "ether-guard", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        close_in_forked_children(self._guard)

    def options(self) -> dict[str, Any]:
        return {"process_group": self._guard.pid}

    def close(self) -> None:
        """Dismiss the guard. Twice is fine."""
        if self._guard.poll() is None:
            os.kill(self._guard.pid, signal.SIGKILL)
        self._guard.wait()
        if self._guard.stdin is not None:
            self._guard.stdin.close()


def make_group(folder: str) -> ProcessGroup:
    """The best group that this platform has. `folder` is removed by the guard where the launcher has died. Call this
    before the folder is made: then there is no moment at which the folder exists and nobody would remove it."""
    shell = shutil.which("sh", path="/bin:/usr/bin") if sys.platform != "win32" else None
    return GuardedGroup(shell, folder) if shell else ProcessGroup()


_lifelines: set[int] = set()
_registered = False


def close_in_forked_children(process: subprocess.Popen[bytes]) -> None:
    """Register a process's standard input as a lifeline, to be closed in every process that this one forks (such as
    the user's `multiprocessing`): a fork that kept it open would keep the process alive after this one's death."""
    global _registered
    if process.stdin is not None:
        _lifelines.add(process.stdin.fileno())
    if not _registered and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_close_lifelines)
        _registered = True


def forget_lifeline(descriptor: int) -> None:
    """The lifeline is about to be closed; the system may give its number to another file."""
    _lifelines.discard(descriptor)


def _close_lifelines() -> None:
    for descriptor in _lifelines:
        try:
            os.close(descriptor)
        except OSError:
            continue  # closed before the fork
    _lifelines.clear()
