"""Small JSON files that only their owner may read: records of sessions, known brokers.

Promise: a reader sees the old content or the new one, never half of it; a file that another user owns or may write to
is not read. The trap: the opened file is checked, not its path, which may be replaced between the two.
"""

from __future__ import annotations

import json
import os
import stat

LONGEST_BYTES = 262_144


class NotPrivate(OSError):
    """The file belongs to another user, or other users may write to it."""


def write_private(path: str, value: object) -> None:
    """Replace the file atomically by `value` as JSON, mode 0600. Raises `OSError`."""
    temporary = f"{path}.{os.urandom(4).hex()}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(value, file)
        os.replace(temporary, path)
    except BaseException:
        _remove(temporary)
        raise


def read_private(path: str, longest_bytes: int = LONGEST_BYTES) -> object:
    """The value in the file. Raises `OSError` (`NotPrivate` is one), and `ValueError` where it is not JSON or too
    long."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as file:
        _refuse_foreign(os.fstat(descriptor), path)
        text = file.read(longest_bytes + 1)
    if len(text) > longest_bytes:
        raise ValueError(f"longer than {longest_bytes} bytes")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested without end") from error


def is_own(status: os.stat_result) -> bool:
    """Whether only this user can have written there. Always true on Windows, where files have no such owner."""
    if not hasattr(os, "geteuid"):
        return True
    return status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o022


def _refuse_foreign(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode) or not is_own(status):
        raise NotPrivate(f"{path} is not a file of this user alone (uid {status.st_uid}, mode {status.st_mode:o})")


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # it was not created
