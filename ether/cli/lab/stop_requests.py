"""Ctrl-C, SIGTERM and SIGHUP while a session runs in the foreground.

The first asks for the end; from then on one more raises `KeyboardInterrupt` in the main thread, and further ones are
ignored while everything is being killed. The trap: a signal handler runs between two instructions of the main thread,
which may hold any lock; so it puts into a `SimpleQueue`, which is made for that, and touches nothing else.
"""

from __future__ import annotations

import queue
import signal
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class StopRequests:
    """A context manager, for the main thread."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._raises = True
        self._before: dict[Any, Any] = {}

    def collect(self) -> None:
        """From now on the next signal is kept for `wait`."""
        self._raises = False

    def interrupt(self) -> None:
        """From now on the next signal raises `KeyboardInterrupt`."""
        self._raises = True

    def ask(self) -> None:
        """The same as a first signal, from any thread: somebody else wants the end."""
        self._asked.put(0)

    def wait(self, timeout_s: float) -> bool:
        """True where the end was asked for; waits for it for `timeout_s` seconds."""
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
