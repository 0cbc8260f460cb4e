"""A page: a small file of fixed size in which a living process says how it stands, for whoever looks from outside.

It is written in place, many times a second if need be, and never synced: it means something only while its process
lives, so a power cut may take it. All of its bytes are written once, when it is made; later writes need no room on a
full disk, and a card gets one block whenever the system writes back what has changed, not one for each write.

Promise: a reader sees one whole value or None. The trap: a page outlives a process that was killed; the reader has to
know by other means whether the process lives.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from zlib import crc32

PAGE_BYTES = 4096
_LOOKS = 5


class StatusPage:
    """One page, open for writing. For one thread."""

    def __init__(self, path: Path) -> None:
        """Make the page, mode 0600; raises `OSError`."""
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
        self._written = b""
        try:
            self._put(b" " * PAGE_BYTES)
        except BaseException:
            self.close()
            raise

    def write(self, value: Mapping[str, object]) -> bool:
        """Put a value in the place of the one before; False where it is too long for a page. Raises `OSError`."""
        text = json.dumps(value, separators=(",", ":")).encode()
        page = b"%08x " % crc32(text) + text
        if len(page) > PAGE_BYTES:
            return False
        if page != self._written:
            self._put(page.ljust(PAGE_BYTES))
            self._written = page
        return True

    def _put(self, page: bytes) -> None:
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, page)

    def close(self) -> None:
        """Close the page, and leave it where it is. Twice is fine."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read_page(path: Path) -> dict[str, object] | None:
    """The value of a page; None where there is none, or it is no page."""
    for _ in range(_LOOKS):  # a look may fall into the middle of a write
        try:
            with path.open("rb") as file:
                page = file.read(PAGE_BYTES + 1)
        except OSError:
            return None
        checksum, _, text = page.rstrip(b" ").partition(b" ")
        if checksum == b"%08x" % crc32(text):
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                return None
            return value if isinstance(value, dict) else None
    return None
