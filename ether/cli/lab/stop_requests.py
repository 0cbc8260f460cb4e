"""Ctrl-C, SIGTERM and SIGHUP while a session runs in the foreground.

The first signal asks for the end in order. The second raises `KeyboardInterrupt` in the main thread, which kills what
is left; further signals are ignored meanwhile. The trap: a signal handler runs between two instructions of the main
thread, which may hold any lock. So the handler only puts into a `SimpleQueue`, whose `put` is reentrant.
"""

from __future__ import annotations

import queue
import signal
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class StopRequests:
    """A context manager for the main thread: installs the handlers, and restores the former ones."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._raises = True
        self._before: dict[Any, Any] = {}

    def collect(self) -> None:
        """From now on a signal ends `wait`."""
        self._raises = False

    def interrupt(self) -> None:
        """From now on the next signal raises `KeyboardInterrupt`."""
        self._raises = True

    def ask(self) -> None:
        """The same as a first signal, from any thread: another program asked for the end."""
        self._asked.put(0)

    def wait(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s` seconds for the end to be asked for; True where it was."""
        try:
            self._asked.get(timeout=timeout_s)
        except queue.Empty:
            return False
        return True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._raises:
            self._asked.put(number)
            return
        for each in self._before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    def __enter__(self) -> StopRequests:
        self._before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
