"""Bytes that are on the disk when a call returns, and how much room there is for more.

Promises: `write_whole` leaves the old file or the whole new one, also after a power loss. Raises `OSError` alone.

The trap: the name of a new file is part of its folder, which has to be synced, too. After a sync that failed nothing is
known of what is on the disk; a second one that succeeds proves nothing about the bytes before it.
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
"""How the name of a file ends that is being written."""


def sync(descriptor: int) -> None:
    """Everything written to the file is on the disk, its length too."""
    if sys.platform == "darwin":  # there fsync only hands over to the drive, which may keep it in its own memory
        import fcntl

        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
        except OSError:
            pass  # a file system without it (network, FAT)
    os.fsync(descriptor)


def sync_file(path: Path) -> None:
    """Everything that anybody has written to the file is on the disk."""
    with open(path, "rb+") as file:
        sync(file.fileno())


def sync_folder(folder: Path) -> None:
    """The names in the folder are on the disk. Windows has no such call: there its journal keeps them in order."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, pieces: Iterable[bytes]) -> None:
    """Write the file, sync it and give it its name; the folder's sync is left to the caller."""
    part = path.with_name(f"{path.name}.{os.urandom(4).hex()}{PART}")
    try:
        with open(
            os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), "wb"
        ) as file:
            file.writelines(pieces)
            file.flush()
            sync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def make_folder(folder: Path) -> None:
    """Make the folder and those above it; new ones are private, and their names are on the disk."""
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
