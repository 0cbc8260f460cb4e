"""Whether the files of a ledger are still where they were opened.

A database that is unlinked, moved or replaced while its writer has it open goes on taking commits, which nobody will
ever find. So the writer compares, after each commit and before anything is acknowledged, what stands at the path with
what it has opened. A look costs about a microsecond for each file.

A copy that is written over a file (`cp`, a sync tool) leaves the file where it is, and changes what is in it. So before
a commit the sizes and times of change are compared with those after the last one; nobody but the writer changes them.

The trap: the write-ahead log is made by the first write, so a file counts from the moment at which it is first seen.
"""

from __future__ import annotations

import os
from pathlib import Path


class WrittenOver(OSError):
    """Somebody else has changed the content of a file."""


class FilesInPlace:
    """The identities of some files; `own`: those that nobody but this process changes."""

    def __init__(self, *paths: Path, own: tuple[Path, ...] = ()) -> None:
        self._known: dict[Path, tuple[int, int]] = {}
        self._paths = paths
        self._own = own
        self.trusts_times = os.name != "nt"
        """Whether the time of a file's last change counts. NTFS notes that of an open file late, and so do some disks
        of the network."""
        self._left: dict[Path, tuple[int, int] | None] = {}

    def note(self) -> None:
        """Take in the files that are there now, and have not been seen."""
        for path in self._paths:
            if path not in self._known:
                try:
                    self._known[path] = _identity(path)
                except FileNotFoundError:
                    continue

    def check(self) -> None:
        """Raises `OSError` where a file that was seen is not at its path any more."""
        for path, identity in self._known.items():
            try:
                found = _identity(path)
            except FileNotFoundError:
                raise OSError(None, "it was removed while it was written to", str(path)) from None
            if found != identity:
                raise OSError(None, "another file was put in its place while it was written to", str(path))

    def leave(self) -> None:
        """Take in how this process leaves its own files after it has written to them."""
        self._left = {path: self._state(path) for path in self._own}

    def check_untouched(self) -> None:
        """Raises `WrittenOver` where one of them is not as it was left."""
        for path, state in self._left.items():
            if self._state(path) != state:
                raise WrittenOver(None, "somebody else has written to it while it was written to", str(path))

    def _state(self, path: Path) -> tuple[int, int] | None:
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return None
        return found.st_size, found.st_mtime_ns if self.trusts_times else 0

    def forget(self) -> None:
        """The files are closed."""
        self._known.clear()
        self._left.clear()


def _identity(path: Path) -> tuple[int, int]:
    found = os.lstat(path)  # through a link SQLite looks for the write-ahead log elsewhere
    return found.st_dev, found.st_ino
