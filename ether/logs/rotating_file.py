"""A rotating log file: it is only appended to, and renamed when it is full: `x.log`, `x.log.1`, `x.log.2`, …

Promises: never more than `files` files of about `max_bytes` each; if the file is removed or renamed from outside, the
next write makes a new one. The trap: a full disk may take half a line. The rest of that line is never written, but a
newline is, before the next line.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import accumulate, takewhile
from pathlib import Path


class RotatingFile:
    """Opened by the first write. For one thread."""

    def __init__(self, path: Path, max_bytes: int, files: int) -> None:
        self.path = path
        self._max_bytes, self._files = max_bytes, files
        self._descriptor: int | None = None
        self._size = 0
        self._torn = False
        """The file ends in the middle of a line."""
        self._partly = 0
        """Bytes of the data of the present `_append` that are in the file."""

    def write(self, lines: Sequence[bytes]) -> None:
        """Append whole lines. Raises `Unwritten`, which says how many of them are not in the file."""
        done = self._partly = 0
        try:
            self._be_open()
            while done < len(lines):
                count = self._fitting(lines, done)
                if not count:
                    self._rotate()
                    continue
                self._append(b"".join(lines[done : done + count]))
                done += count
        except OSError as error:
            self.close()
            raise Unwritten(len(lines) - done - _whole_lines(lines[done:], self._partly), error) from error

    def close(self) -> None:
        """Close it; the next write opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _fitting(self, lines: Sequence[bytes], start: int) -> int:
        """How many lines fit into the present file. A line longer than `max_bytes` fits into an empty one."""
        size, count = self._size, 0
        for line in lines[start:]:
            size += len(line)
            if size > self._max_bytes and (self._size or count):
                break
            count += 1
        return count

    def _be_open(self) -> None:
        if self._descriptor is not None and not self._is_still_there():
            self.close()
        if self._descriptor is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
            self._descriptor = os.open(self.path, flags, 0o600)
            self._size = os.fstat(self._descriptor).st_size

    def _is_still_there(self) -> bool:
        assert self._descriptor is not None
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def _append(self, data: bytes) -> None:
        assert self._descriptor is not None
        if self._torn:
            self._size += os.write(self._descriptor, b"\n")
            self._torn = False
        """The file ends in the middle of a line."""
        self._partly = 0
        """Bytes of the data of the present `_append` that are in the file."""
        view = memoryview(data)
        try:
            while self._partly < len(data):
                self._partly += os.write(self._descriptor, view[self._partly :])
        finally:
            self._size += self._partly
            self._torn = 0 < self._partly < len(data)
        self._partly = 0

    def _rotate(self) -> None:
        self.close()
        try:
            for number in range(self._files - 1, 0, -1):
                older = _numbered(self.path, number - 1)
                if older.exists():
                    older.replace(_numbered(self.path, number))
        except PermissionError:  # Windows, while another program reads it: it grows for another `max_bytes`
            self._be_open()
            self._size = 0
            return
        self._be_open()


class Unwritten(OSError):
    """Lines that could not be written; `lines` is how many."""

    def __init__(self, lines: int, why: OSError) -> None:
        super().__init__(why.errno, why.strerror or str(why))
        self.lines = lines


def _whole_lines(lines: Sequence[bytes], size: int) -> int:
    """How many of the lines lie completely in the first `size` bytes of their text."""
    ends = accumulate(map(len, lines))
    return sum(1 for _ in takewhile(lambda end: end <= size, ends))


def parts_of(path: Path, files: int) -> list[Path]:
    """The paths that a rotating file may have, newest first."""
    return [_numbered(path, number) for number in range(files)]


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path
