"""Lines as journald likes them: the level in front as `<4>`, the time left to the journal.

    2025-01-16 11:28:42.765 - cam:51475 - WARNING - no light        becomes        <4>cam:51475: no light

so that `journalctl -p warning` finds it, and no line carries two times. It works on the finished lines of this
process's standard output and error, hence for what instances print, too: their lines pass through here.

Promise: nothing changes where the streams do not lead to the journal. Lines that follow a record (a traceback) have
its level. The trap: `JOURNAL_STREAM` is inherited by children whose output goes elsewhere, so the stream itself is
compared.
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

_PRINTED, _SAID = 6, 5
"""The level of lines that are no records: of standard output, of standard error."""


class JournalLines:
    """Turns one line after another. Remembers the level of the last record for the lines that follow it."""

    def __init__(self, level: int) -> None:
        self._level = level

    def turned(self, line: str) -> str:
        """The line for the journal; `line` has no newline."""
        found = _RECORD.match(line)
        if found is None or found["level"] not in _LEVELS:
            return f"<{self._level}>{line}"
        self._level = _LEVELS[found["level"]]
        return f"<{self._level}>{found['who']}: {line[found.end() :]}"


class JournalStream(io.TextIOBase):
    """Stands in for a text stream that leads to the journal; writes whole lines."""

    def __init__(self, stream: TextIO, level: int) -> None:
        super().__init__()
        self._stream, self._lines = stream, JournalLines(level)
        self._begun = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Pass on what is complete."""
        with self._lock:
            *whole, self._begun = (self._begun + text).split("\n")
            if whole:
                self._stream.write("".join(f"{self._lines.turned(line)}\n" for line in whole))
                self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Nothing waits but a line that is not complete."""

    def finish(self) -> None:
        """Pass on a last line without an end."""
        if self._begun:
            self.write("\n")

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def buffer(self) -> BinaryIO:
        """For those who write bytes: past us, as they are."""
        return self._stream.buffer


def write_for_journal(environ: Mapping[str, str]) -> bool:
    """Let `sys.stdout` and `sys.stderr` write journal lines where they lead to the journal; True where one does.

    To be called early in the main of a service. Twice is fine.
    """
    sys.stdout, out = _adopted(sys.stdout, _PRINTED, environ)
    sys.stderr, err = _adopted(sys.stderr, _SAID, environ)
    return out or err


def _adopted(stream: TextIO, level: int, environ: Mapping[str, str]) -> tuple[TextIO, bool]:
    if isinstance(stream, JournalStream):
        return stream, True
    if not _leads_to_journal(stream, environ.get("JOURNAL_STREAM", "")):
        return stream, False
    turned = JournalStream(stream, level)
    atexit.register(turned.finish)
    return turned, True  # type: ignore[return-value]  # a TextIO in all that is used of it


def _leads_to_journal(stream: TextIO | None, said: str) -> bool:
    if stream is None or not said:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False  # replaced by something without a descriptor, or closed
    return said == f"{status.st_dev}:{status.st_ino}"
