"""A place on disk for messages that readers have not got yet: temporary files without names.

The files are gone when this process ends, however it ends. They lie in the user's state folder, because the system's
folder for temporary files is often in memory. Each holds about `SEGMENT_BYTES`, and goes as soon as nothing in it is
needed, so that the disk is used again.

The trap: for one thread. Nothing is synced, because what is here is also of no use after this process.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ether.system.folders import state_folder

SEGMENT_BYTES = 16 << 20


@dataclass(slots=True)
class _Segment:
    file: IO[bytes]
    size: int = 0
    keys: set[int] = field(default_factory=set)


class FileSpill:
    """See the module. Every method may raise `OSError`, but `free` and `close`."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder`: None for the user's state folder. It is made with the first bytes."""
        self._folder = folder
        self._segments: list[_Segment] = []
        self._places: dict[int, tuple[_Segment, int, int]] = {}
        self._last = 0

    def put(self, data: bytes) -> int:
        """Keep these bytes; returns the key to them."""
        if not self._segments or self._segments[-1].size >= SEGMENT_BYTES:
            self._segments.append(_Segment(self._new_file()))
        segment = self._segments[-1]
        segment.file.seek(segment.size)
        segment.file.write(data)
        segment.file.flush()
        self._last += 1
        self._places[self._last] = segment, segment.size, len(data)
        segment.keys.add(self._last)
        segment.size += len(data)
        return self._last

    def get(self, key: int) -> bytes:
        """The bytes of a key."""
        segment, start, size = self._places[key]
        segment.file.seek(start)
        data = segment.file.read(size)
        if len(data) != size:
            raise OSError(f"a temporary file holds {len(data)} of {size} bytes")
        return data

    def free(self, key: int) -> None:
        """The bytes of a key are not needed any more."""
        segment, _, _ = self._places.pop(key)
        segment.keys.discard(key)
        if not segment.keys:
            self._segments.remove(segment)
            segment.file.close()

    def close(self) -> None:
        """Give everything back. Twice is fine."""
        for segment in self._segments:
            segment.file.close()
        self._segments, self._places = [], {}

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(segment.size for segment in self._segments)

    def _new_file(self) -> IO[bytes]:
        folder = self._folder or state_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=folder, prefix="spill-", buffering=0)
