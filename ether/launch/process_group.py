"""Keeps every process of a session from outliving its launcher, whatever kills that and whatever they are doing.

Each child notices its launcher's death by itself: its standard input ends. But one that is stuck in C code cannot
act on it. On POSIX all children therefore share a process group whose leader, the guard, is a shell that does nothing
but wait for the same event and then, after a grace, remove the session's private folder and kill the group. Elsewhere
there is only the first line of defence.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from typing import Any

GRACE_S = 0.6
"""Longer than the children's own last steps, and short enough that all is gone within a second."""

_GUARD = f'trap \'\' INT TERM HUP; read -r line; sleep {GRACE_S}; [ -n "$1" ] && rm -rf -- "$1"; kill -KILL 0'


class ProcessGroup:
    """Where there are no process groups: children only keep clear of the terminal's Ctrl-C."""

    def options(self) -> dict[str, Any]:
        """Options for `subprocess.Popen`."""
        return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}

    def close(self) -> None:
        """Every child has ended."""


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
    """The best this platform has. `folder` is removed with the last process, where the launcher cannot do it any more;
    it need not exist yet, and had better not: then there is no moment at which nobody is in charge of it."""
    shell = shutil.which("sh", path="/bin:/usr/bin") if sys.platform != "win32" else None
    return GuardedGroup(shell, folder) if shell else ProcessGroup()


_lifelines: set[int] = set()
_registered = False


def close_in_forked_children(process: subprocess.Popen[bytes]) -> None:
    """A lifeline ends when its last holder is gone. A user's `multiprocessing` fork must not be one."""
    global _registered
    if process.stdin is not None:
        _lifelines.add(process.stdin.fileno())
    if not _registered and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_close_lifelines)
        _registered = True


def forget_lifeline(descriptor: int) -> None:
    """It is about to be closed, and its number may be used for something else."""
    _lifelines.discard(descriptor)


def _close_lifelines() -> None:
    for descriptor in _lifelines:
        try:
            os.close(descriptor)
        except OSError:
            continue  # closed before the fork
    _lifelines.clear()
