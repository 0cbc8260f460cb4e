"""Which process a process id means, whether that process still runs, and how much memory this one takes.

A process id alone names no process: ids are used again. Two things beside it do:

    the place   where the id was given out: machine, boot, and container (`this_place`)
    the birth   when the process began, as a text that only has to be equal (`birth_of`)

Both are stored in files and announcements, and compared by later versions; their form therefore stays. On Linux a birth
is the start in clock ticks since boot, on Windows the creation time in seconds of the epoch. Elsewhere it is None, and
only the id counts: these systems note the start by a clock that may be set, so a running process could seem to be
another one.

Promise: nothing here raises because a process has ended. psutil, which reads processes on every system, takes 15 ms to
import; it is imported by the first call that needs it (`prepare` does so ahead of time).
"""

from __future__ import annotations

import os
import socket
import sys
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import psutil


class ProcessPlace(NamedTuple):
    """Where a process id is valid: machine, boot, and process namespace; the last two are empty where unknown."""

    host: str
    boot: str
    namespace: str


def this_place() -> ProcessPlace:
    """Where this process runs. psutil tells neither the boot nor the namespace; the kernel's files do, on Linux."""
    return ProcessPlace(
        socket.gethostname(), _first_line("/proc/sys/kernel/random/boot_id"), _link("/proc/self/ns/pid")
    )


def prepare() -> None:
    """Load what the other functions need, at a moment when the caller waits for something else anyway."""
    import psutil  # noqa: F401


def running_script() -> str | None:
    """The absolute path of the script that this program runs; None in an interactive interpreter."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    return os.path.abspath(file) if file and os.path.exists(file) else None


def birth_of(pid: int) -> str | None:
    """When the process began; None where there is no such process, or the system does not tell for certain."""
    import psutil

    try:
        if sys.platform == "win32":
            return repr(psutil.Process(pid).create_time())
        return _start_ticks(pid) if sys.platform == "linux" else None
    except (psutil.Error, OSError, RuntimeError, ValueError):  # OSError: a service from which /proc/stat is hidden
        return None


def is_running(pid: int, incarnation: str | None) -> bool:
    """Whether that process runs: same id and, where known, same birth (`incarnation`). A process that has ended and was
    not waited for (a zombie) does not run."""
    import psutil

    if sys.platform != "win32" and not _may_be_signalled(pid):
        return False
    try:
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return False
    except psutil.ZombieProcess:  # macOS refuses to look at one
        return False
    except psutil.NoSuchProcess:
        # Ended since, or hidden: with /proc mounted by `hidepid` even some processes of the same user cannot be seen.
        return sys.platform != "win32" and _may_be_signalled(pid)
    except psutil.AccessDenied:
        return sys.platform != "win32"  # there, as a signal on POSIX: it belongs to another user
    except ValueError:
        return True  # not an id that a process can have: nothing is known about it
    birth = birth_of(pid)
    return birth is None or incarnation in (None, birth)


def is_stopped(pid: int) -> bool:
    """Whether a process stands still, stopped by a signal or a debugger, and may go on later."""
    import psutil

    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except (psutil.Error, ValueError):
        return False


def rss_mb() -> float | None:
    """This process's resident memory in MB; None where the system does not say. Takes about 50 µs."""
    import psutil

    try:
        return round(_own(os.getpid()).memory_info().rss / (1 << 20), 1)
    except (psutil.Error, OSError):
        return None


@cache
def _own(pid: int) -> psutil.Process:
    """psutil's handle of this process, made once: making it costs more than a reading. `pid` is the key, because a
    forked child inherits the cache."""
    import psutil

    return psutil.Process(pid)


def _start_ticks(pid: int) -> str:
    """The start in clock ticks since boot (field 22 of proc(5)). psutil adds the time of boot to it, which changes when
    the clock is set; subtracting that again gives the number of ticks."""
    import psutil

    while True:
        # In this order, and from a new handle: psutil before 7.1 adds the time of boot that was read last, when the
        # handle is made. The second look finds a clock that was set in between.
        boot_s = psutil.boot_time()
        began_s = psutil.Process(pid).create_time()
        if psutil.boot_time() == boot_s:
            return str(round((began_s - boot_s) * os.sysconf("SC_CLK_TCK")))


def _may_be_signalled(pid: int) -> bool:
    """Whether there is a process of this id that this user may signal. All processes that Ether asks about are of the
    same user, so a process that is not cannot be the one that was meant."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError, OverflowError):
        return False
    return True


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
