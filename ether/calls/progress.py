"""Progress and log records of a call: drawn on the caller's console, and collected where the call is answered.

In a terminal the progress bar is one line that is drawn again and again; elsewhere each step is a line of its own.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from ether.calls.server import tell_log
from ether.connection.causes import current

_WIDTH = 30


class ProgressBar:
    """Draws on `stream` (default: what `sys.stderr` is now)."""

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self._title = title
        self._stream = stream if stream is not None else sys.stderr
        self._overwrites = self._stream.isatty()
        self._drawn = ""
        self._closed = False

    def draw(self, fraction: float | None, text: str) -> None:
        """Show how far the call is: `fraction` from 0 to 1, None where the whole is not known."""
        line = f"{self._title} {text}".rstrip()
        if fraction is not None:
            done = round(_WIDTH * min(1.0, max(0.0, fraction)))
            line = f"{self._title} [{'#' * done}{'.' * (_WIDTH - done)}] {100 * fraction:3.0f} % {text}".rstrip()
        if line == self._drawn or self._closed:
            return
        if self._overwrites:
            self._stream.write("\r" + line.ljust(len(self._drawn)))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()
        self._drawn = line

    def close(self) -> None:
        """Keep the line as it is, and go to the next line; nothing is drawn any more, although the call may go on."""
        self._closed = True
        if self._overwrites and self._drawn:
            self._stream.write("\n")
            self._stream.flush()


class CallLog(logging.Handler):
    """Sends each record from INFO up to the caller, while a call is answered whose caller watches."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        call = current().call
        if call is None or call.tell is None:
            return
        tell_log(call, {"time": record.created, "level": record.levelname, "message": record.getMessage()})
