"""Lets no process of a session outlive its launcher, whatever kills the launcher and whatever the processes are doing.

Each child notices its launcher's death by itself: its standard input ends. But a child that is stuck in C code cannot
act on that. On POSIX there is therefore a guard, a shell that only waits for the same event; after a grace it removes
the session's private folder and kills its own process group, in which the broker is, and the groups of the instances.
Each instance leads a group of its own, so that what its code has started can be ended with it (`ProcessFamily`). On
Linux the guard also kills what has left these groups, by the mark in its environment. On other systems there is only
the first line of defence. The trap: a lifeline ends only when every process that holds it has closed it, so processes
that the user's code forks have to close theirs.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

from ether.system.descendants import MARK

GRACE_S = 0.6
"""Longer than the children's own last steps, and short enough that everything is gone within a second."""

_GUARD = f"""
trap '' INT TERM HUP
all=
while read -r sign one; do
    left=
    for each in $all; do [ "$each" = "$one" ] || left="$left $each"; done
    all=$left
    [ "$sign" = + ] && all="$all $one"
done
sleep {GRACE_S}
[ -n "$1" ] && rm -rf -- "$1"
for each in $all; do kill -KILL -- "$each" 2>/dev/null; done
for round in 1 2 3; do
    found=$(grep -lsz "^{MARK}=$2[.]" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3)
    [ -n "$found" ] || break
    kill -KILL $found 2>/dev/null
done
kill -KILL 0
"""
"""Reads which instances there are, `+ -123` for one that leads the group 123 and `- -123` when it has ended, until the
launcher is dead."""


class ProcessGroup:
    """For systems without process groups: children are only kept clear of the terminal's Ctrl-C."""

    def options(self) -> dict[str, Any]:
        """Options for `subprocess.Popen`."""
        return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}

    def options_of_leader(self) -> dict[str, Any]:
        """The same for a child that leads a group of its own."""
        return self.options()

    def next_mark(self) -> str:
        """What marks the next child, and what descends from it; empty where nobody could see it."""
        return ""

    def admit(self, pid: int, *, alone: bool) -> None:
        """A child leads a group, with which it is to end; `alone`: without it."""

    def dismiss(self, pid: int) -> None:
        """This child has ended, and its group with it."""

    def close(self) -> None:
        """Every child has ended: give up what the group holds. Twice is fine."""


class GuardedGroup(ProcessGroup):
    """A POSIX process group led by its guard."""

    def __init__(self, shell: str, folder: str) -> None:
        self._token = os.urandom(8).hex()
        self._numbers = itertools.count(1)
        self._guarded: dict[int, str] = {}
        self._guard = subprocess.Popen(
            [shell, "-c", _GUARD, "ether-guard", folder, self._token],
            # The guard outlives the instance in whose code this program may run: it is nobody's to end.
            env={name: value for name, value in os.environ.items() if name != MARK},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        assert self._guard.stdin is not None
        close_in_forked_children(self._guard.stdin.fileno())

    def options(self) -> dict[str, Any]:
        return {"process_group": self._guard.pid}

    def options_of_leader(self) -> dict[str, Any]:
        return {"process_group": 0}

    def next_mark(self) -> str:
        return f"{self._token}.{next(self._numbers)}"

    def admit(self, pid: int, *, alone: bool) -> None:
        self._guarded[pid] = str(pid) if alone else f"-{pid}"
        self._tell(f"+ {self._guarded[pid]}\n")

    def dismiss(self, pid: int) -> None:
        if (told := self._guarded.pop(pid, None)) is not None:
            self._tell(f"- {told}\n")

    def _tell(self, line: str) -> None:
        assert self._guard.stdin is not None
        with suppress(OSError, ValueError):  # it was dismissed
            self._guard.stdin.write(line.encode())
            self._guard.stdin.flush()

    def close(self) -> None:
        """Dismiss the guard. Twice is fine."""
        if self._guard.poll() is None:
            os.kill(self._guard.pid, signal.SIGKILL)
        self._guard.wait()
        if self._guard.stdin is not None:
            with suppress(OSError):
                self._guard.stdin.close()


def make_group(folder: str) -> ProcessGroup:
    """The best group that this platform has. `folder` is removed by the guard where the launcher has died. Call this
    before the folder is made: then there is no moment at which the folder exists and nobody would remove it."""
    shell = shutil.which("sh", path="/bin:/usr/bin") if sys.platform != "win32" else None
    return GuardedGroup(shell, folder) if shell else ProcessGroup()


_lifelines: set[int] = set()
_registered = False


def close_in_forked_children(descriptor: int) -> None:
    """Register a lifeline, such as a process's standard input, to be closed in every process that this one forks (such
    as the user's `multiprocessing`): a fork that kept it open would keep the process alive after this one's death."""
    global _registered
    _lifelines.add(descriptor)
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
