"""Why a port does not open: it does not exist, is not allowed, or has another holder. Names the group and the holder.

They are looked up where the operating system tells them: the group on POSIX; other programs on Linux, and there only
those of the same user, or all for root.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from hardware_adapters.errors import AdapterError, PermissionDenied, PortBusy, PortNotFound

try:
    import termios

    PORT_FAULTS: tuple[type[Exception], ...] = (OSError, termios.error)
    """The exceptions of reading, writing and configuring a port."""
except ImportError:  # Windows
    PORT_FAULTS = (OSError,)

_GONE = {errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EIO, errno.ENOTDIR, errno.ENOTTY}
_BUSY = {errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK}
_DENIED = {errno.EACCES, errno.EPERM}


def opening_error(port: str, error: Exception) -> AdapterError:
    """The typed error for an exception that opening this port raised."""
    number = _number(error)
    if number in _BUSY or (os.name == "nt" and number in _DENIED):  # Windows calls a port in use "access denied"
        return PortBusy(port, holder=holder_of(port))
    if number in _DENIED:
        return PermissionDenied(port, group=group_of(port), user=_user())
    if number in _GONE:
        return PortNotFound(port, "there is no such port, or nothing is plugged in there")
    return PortNotFound(port, f"it does not open: {error}")


_held: dict[str, str] = {}
"""The holders in this program, by the device's real path."""


def hold(port: str, holder: str) -> str:
    """Remember the holder of a port that this program has opened; pass the result to `release`."""
    real = port if "://" in port else os.path.realpath(port)
    _held[real] = holder
    return real


def release(held: str) -> None:
    """Forget the holder of this port."""
    _held.pop(held, None)


def _number(error: Exception) -> int | None:
    """The operating system's error number: pyserial keeps it as errno, or only in the cause, or only in the text."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno:
            return cause.errno
        if cause.args and isinstance(cause.args[0], int):
            return cause.args[0]
        cause = cause.__cause__ or cause.__context__
    found = re.search(r"(?:Error|port: )\((\d+),", str(error))
    return int(found[1]) if found else None


def group_of(port: str) -> str | None:
    """The group that may open this device; None where joining one would not help."""
    try:
        import grp

        state = os.stat(port)
        return grp.getgrgid(state.st_gid).gr_name if state.st_mode & 0o060 == 0o060 and state.st_gid else None
    except (ImportError, OSError, KeyError):
        return None


def _user() -> str:
    return os.environ.get("USER", "")


def holder_of(port: str) -> str | None:
    """The program that has this device open, as `name (pid 123)`; None where it cannot be seen."""
    real = os.path.realpath(port)
    if real in _held:
        return f"{_held[real]!r} of this program"
    found = {}
    # Not by psutil: its `open_files()` lists regular files only, and a port is a device.
    for listed in Path("/proc").glob("[0-9]*/fd/*"):
        process = listed.parent.parent
        try:
            if os.readlink(listed) == real:
                found[int(process.name)] = (process / "comm").read_text().strip()
        except OSError:
            continue  # the process has ended, or belongs to another user
    found.pop(os.getpid(), None)  # ports that this program holds through an adapter were found in _held
    return ", ".join(f"{name} (pid {pid})" for pid, name in sorted(found.items())) or None
