"""Log lines in the form of journald: the level in front as `<4>`, without the time, which the journal adds.

    2025-01-16 11:28:42.765 - cam:51475 - WARNING - no light        becomes        <4>cam:51475: no light

so that `journalctl -p warning` finds it, and no line carries two times. The finished lines of this process's standard
output and error are converted, including the output of instances, which passes through these streams.

Promise: nothing changes where the streams do not lead to the journal. Lines that follow a record (a traceback) get its
level. The trap: children inherit `JOURNAL_STREAM` although their output may go elsewhere, so the stream itself is
compared with it.
"""

from __future__ import annotations

import atexit
import io
import os
import re
import sys
import threading
from collections.abc import Mapping
from typing import BinaryIO, TextIO

_RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[.,]\d{3} - (?P<who>.{1,200}?) - (?P<level>[A-Z]{4,8}) - ")
_LEVELS = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}
"""syslog's numbers (sd-daemon(3))."""

_OUT_LEVEL, _ERR_LEVEL = 6, 5
"""The level of lines that are no log records, on standard output and on standard error."""


class JournalLines:
    """Converts one line after another. Remembers the level of the last record for the lines that follow it."""

    def __init__(self, level: int) -> None:
        self._level = level

    def converted(self, line: str) -> str:
        """The line for the journal; `line` has no newline."""
        found = _RECORD.match(line)
        if found is None or found["level"] not in _LEVELS:
            return f"<{self._level}>{line}"
        self._level = _LEVELS[found["level"]]
        return f"<{self._level}>{found['who']}: {line[found.end() :]}"


class JournalStream(io.TextIOBase):
    """Replaces a text stream that leads to the journal; writes whole lines."""

    def __init__(self, stream: TextIO, level: int) -> None:
        super().__init__()
        self._stream, self._lines = stream, JournalLines(level)
        self._incomplete = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Pass on the complete lines."""
        with self._lock:
            *whole, self._incomplete = (self._incomplete + text).split("\n")
            if whole:
                self._stream.write("".join(f"{self._lines.converted(line)}\n" for line in whole))
                self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Does nothing: only an incomplete line is ever held back."""

    def finish(self) -> None:
        """Pass on an incomplete last line."""
        if self._incomplete:
            self.write("\n")

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def buffer(self) -> BinaryIO:
        """The underlying binary stream: bytes are written unchanged."""
        return self._stream.buffer


def write_for_journal(environ: Mapping[str, str]) -> bool:
    """Let `sys.stdout` and `sys.stderr` write journal lines where they lead to the journal; True where one does.

    To be called early in the main of a service. Twice is fine.
    """
    sys.stdout, out = _wrapped(sys.stdout, _OUT_LEVEL, environ)
    sys.stderr, err = _wrapped(sys.stderr, _ERR_LEVEL, environ)
    return out or err


def _wrapped(stream: TextIO, level: int, environ: Mapping[str, str]) -> tuple[TextIO, bool]:
    if isinstance(stream, JournalStream):
        return stream, True
    if not _leads_to_journal(stream, environ.get("JOURNAL_STREAM", "")):
        return stream, False
    wrapped = JournalStream(stream, level)
    atexit.register(wrapped.finish)
    return wrapped, True  # type: ignore[return-value]  # it has every part of TextIO that is used


def _leads_to_journal(stream: TextIO | None, said: str) -> bool:
    if stream is None or not said:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False  # replaced by something without a descriptor, or closed
    return said == f"{status.st_dev}:{status.st_ino}"
