"""Callbacks of users, called from a thread of their own, so that a slow one does not stop the reading of a port.

A bound method is looked up again at each call: a method marked with `@ether_pub` that is given here by its own
object publishes, although the object was not yet part of a session when it gave it. What a callback raises is a log
entry with its traceback and counted; the next one is called all the same. What waits is bounded: the oldest is dropped
and counted.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("Ether.hardware")

WAITING_LIMIT = 10_000
"""So many calls may wait; at 1,000 lines a second that is a callback which hangs for ten seconds."""

_JOIN_S = 2.0


def late_bound(callback: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """The callback; one that is an object's method now is looked up by its name at each later call."""
    if callback is None:
        return None
    owner, name = getattr(callback, "__self__", None), getattr(callback, "__name__", "")
    if owner is None or getattr(owner, name, None) != callback:
        return callback
    return lambda *arguments: getattr(owner, name)(*arguments)


class Calls:
    """Calls that wait for a thread, which lives from the first of them to `close()`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: deque[tuple[Callable[..., Any], tuple[object, ...]]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self.dropped, self.failed = 0, 0

    def put(self, callback: Callable[..., Any], *arguments: object) -> None:
        """Call it soon, in the order of putting."""
        with self._changed:
            if self._closed:
                return
            if len(self._waiting) >= WAITING_LIMIT:
                self._waiting.popleft()
                self.dropped += 1
                if self.dropped == 1:
                    logger.warning("%s: callbacks are too slow; the oldest input is dropped and counted", self._name)
            self._waiting.append((callback, arguments))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"{self._name} callbacks", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Make the calls that wait, then end the thread; bounded by two seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                callback, arguments = self._waiting.popleft()
            self._call(callback, arguments)

    def _call(self, callback: Callable[..., Any], arguments: tuple[object, ...]) -> None:
        try:
            callback(*arguments)
        except Exception:
            self.failed += 1
            logger.exception("%s: a callback failed", self._name)
