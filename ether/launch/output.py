"""Brings what children print to the launcher's own output, in whole lines.

The stream is looked up for each line, so that notebooks and tests which replace `sys.stdout` see it, too.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import IO

_TAIL_LINES = 30
_one_line_at_a_time = threading.Lock()


class Pump:
    """A thread that reads a child's stream to its end and passes on every line."""

    def __init__(self, stream: IO[bytes], write: Callable[[str], None], name: str) -> None:
        self._stream = stream
        self._write = write
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._thread = threading.Thread(target=self._run, name=f"ether-output-{name}", daemon=True)
        self._thread.start()

    def tail(self) -> str:
        """The last lines."""
        return "".join(self._tail)

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the stream: a grandchild may hold it open for longer than its parent lives."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        with self._stream:
            for raw in self._stream:
                line = raw.decode("utf-8", "replace")
                line = line if line.endswith("\n") else line + "\n"
                self._tail.append(line)
                self._write(line)


def to_stdout(line: str) -> None:
    """Write a line to this program's standard output."""
    _write(sys.stdout, line)


def to_stderr(line: str) -> None:
    """Write a line to this program's standard error."""
    _write(sys.stderr, line)


def _write(stream: IO[str] | None, line: str) -> None:
    if stream is None:  # a program without a console
        return
    with _one_line_at_a_time:
        try:
            stream.write(line)
            stream.flush()
        except (OSError, ValueError):
            pass  # the reader of our output has gone, or the stream is closed: the session goes on
