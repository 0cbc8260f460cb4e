"""Does a process still run, and is it the one that was meant? A process id alone does not say: ids are used again.

`birth_of()` says when a process began, where the system tells (Linux); elsewhere it is None and only the id counts. The
trap: an id means something only where it was given out. `ProcessPlace` says where: another machine, another boot or
another container count their processes by themselves.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import NamedTuple


class ProcessPlace(NamedTuple):
    """Where a process id is valid: machine, boot, and process namespace; the last two empty where unknown."""

    host: str
    boot: str
    namespace: str


def this_place() -> ProcessPlace:
    """Where this process runs."""
    return ProcessPlace(
        socket.gethostname(), _first_line("/proc/sys/kernel/random/boot_id"), _link("/proc/self/ns/pid")
    )


def running_script() -> str | None:
    """The absolute path of the script that this program runs; None in an interactive interpreter."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    return os.path.abspath(file) if file and os.path.exists(file) else None


def birth_of(pid: int) -> str | None:
    """When the process began, as the system counts it; None where the system does not tell."""
    fields = _stat_fields(pid)
    return fields[19] if len(fields) > 19 else None


def is_running(pid: int, incarnation: str | None) -> bool:
    """Whether that process runs: same id and, where known, same birth. One that has ended but was not waited for does
    not."""
    if sys.platform == "win32":
        return _runs_on_windows(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return False  # somebody else's now: ours may be signalled
    fields = _stat_fields(pid)
    return not fields or (fields[0] != "Z" and incarnation in (None, fields[19]))


def _stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third (state) on; the 22nd of proc(5) is the start in clock ticks."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


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


if sys.platform == "win32":

    def _runs_on_windows(pid: int) -> bool:
        """`os.kill(pid, 0)` would end it there. After the Win32 reference; the automatic tests run on Linux only."""
        import ctypes

        query_limited, still_active = 0x1000, 259
        kernel = ctypes.windll.kernel32
        kernel.OpenProcess.restype = ctypes.c_void_p
        handle = ctypes.c_void_p(kernel.OpenProcess(query_limited, False, pid))
        if not handle:
            return False
        code = ctypes.c_ulong()
        known = kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return bool(known) and code.value == still_active
