"""The owner of `fsync`: files whose content is on the disk when a call returns, and how much room there is for more.

Promises: after `write_whole` or `replace_file`, also after a power loss, the path holds the old content or the whole
new content. Only `OSError` is raised.

The traps: the name of a new file is part of its folder, which has to be synced, too (`sync_folder`). And a sync that
failed says nothing about what is on the disk; the system may forget what it could not write, so a second sync that
succeeds proves nothing about the bytes from before the first.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

LOW_BYTES = 256 * 1024 * 1024
"""Less free space than this deserves a warning."""

PART = ".part"
"""Suffix of a file that is not finished."""


def sync_descriptor(descriptor: int) -> None:
    """Return when the content and the length of the open file are on the disk."""
    if sys.platform == "darwin":  # there fsync only hands over to the drive, which may keep it in its own memory
        import fcntl

        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
        except OSError:
            pass  # a file system without it (network, FAT)
    os.fsync(descriptor)


def sync_file(path: Path) -> None:
    """Return when everything that any process has written to the file is on the disk. Never for an open SQLite
    database: closing the file here would give up this process's locks on it."""
    with open(path, "rb+") as file:
        sync_descriptor(file.fileno())


def sync_folder(folder: Path) -> None:
    """Return when the names in the folder are on the disk. Windows has no such call: the journal of NTFS keeps names in
    order."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync_descriptor(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file (mode 0600) under a temporary name, sync it, and give it its name. The caller syncs the folder, once
    for all files that it writes there."""
    part = path.with_name(f"{path.name}.{os.urandom(4).hex()}{PART}")
    try:
        with open(
            os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), "wb"
        ) as file:
            file.writelines(pieces)
            file.flush()
            sync_descriptor(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file (mode 0600), in one write, and sync it. It begins with a line break, so that it stands
    alone where what was there is a torn line. The caller syncs the folder."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags, 0o600), "ab", buffering=0) as file:
        content = f"{'' if os.fstat(file.fileno()).st_size == 0 else chr(10)}{line}\n".encode()
        if file.write(content) != len(content):
            raise OSError(None, "only a part of a line could be written", str(path))
        sync_descriptor(file.fileno())


def replace_file(part: Path, path: Path) -> None:
    """Sync a finished file that another library has written, and give it the name `path`."""
    sync_file(part)
    os.replace(part, path)


def make_folder(folder: Path) -> None:
    """Make the folder and its parents where they are missing. New ones are private, and their names are on the disk."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)


def free_bytes(folder: Path) -> int:
    """How many bytes may still be written to the disk that the folder is on."""
    return shutil.disk_usage(folder).free


def low_space(folder: Path, low_bytes: int = LOW_BYTES) -> str | None:
    """A sentence of warning where less than `low_bytes` are free, else None."""
    free = free_bytes(folder)
    return None if free >= low_bytes else f"only {free:,} bytes are free on the disk of {folder}; make room in time"
