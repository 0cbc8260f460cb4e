"""The broker's messages to its parent: lines of JSON on stdout, each one object with the key "event".

Promise: the ready line is written once, at once, by the calling thread. All other events are written by a thread of
their own, so that a parent which never reads them cannot stop the broker. Beyond `BACKLOG` unread events the newest
are dropped, and the next event says how many. The trap: a full pipe blocks the thread that writes to it, so the
thread that serves clients writes only the ready line.
"""

import json
import os
import queue
import threading
from typing import Any

BACKLOG = 1_000
FLUSH_S = 0.2  # how long `close` waits for a parent that reads slowly


class EventWriter:
    """Writes events to a file descriptor."""

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._dropped = 0

    def ready(self, **facts: Any) -> None:
        """Write the ready line. Raises `BrokenPipeError` where the parent has died."""
        _write_all(self._descriptor, _line("ready", facts))

    def warning(self, text: str) -> None:
        """Report an event that a user must see. Never blocks; callable from any thread."""
        self._put("warning", {"text": text})

    def answered(self, event: str, error: str | None) -> None:
        """Say what came of a command of the lifeline; `error` is one sentence, or None. Callable from any thread."""
        self._put(event, {"error": error})

    def failed(self, text: str) -> None:
        """Report that the broker ends by itself, and why."""
        self._put("failed", {"text": text})

    def close(self) -> None:
        """Give unread events a short time to be written."""
        if self._writer is not None:
            self._waiting.put(None)
            self._writer.join(FLUSH_S)

    def _put(self, event: str, facts: dict[str, Any]) -> None:
        if self._waiting.qsize() >= BACKLOG:
            self._dropped += 1
            return
        if self._dropped:
            facts = {**facts, "dropped_events": self._dropped}
            self._dropped = 0
        self._waiting.put(_line(event, facts))
        if self._writer is None:
            self._writer = threading.Thread(target=self._write, name="events", daemon=True)
            self._writer.start()

    def _write(self) -> None:
        while (line := self._waiting.get()) is not None:
            try:
                _write_all(self._descriptor, line)
            except OSError:  # the parent closed its end of the pipe; its death is noticed at stdin (lifeline.py)
                return


def _line(event: str, facts: dict[str, Any]) -> bytes:
    return json.dumps({"event": event, **facts}).encode() + b"\n"


def _write_all(descriptor: int, line: bytes) -> None:
    while line:
        line = line[os.write(descriptor, line) :]
