"""Users' callbacks, called from a thread of their own, so that a slow callback does not stop the reading of a port.

A bound method is looked up by its name at each call. An object that passes its own `@ether_pub` method does so in its
constructor, before a session has replaced the method by one that publishes; a reference taken then would never publish.
An exception of a callback is logged with its traceback and counted, and the next callback is called. The queue is
bounded: the oldest call is dropped and counted.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("Ether.hardware")

WAITING_LIMIT = 10_000
"""The longest queue: at 1,000 frames per second, a callback may hang for ten seconds."""

_JOIN_S = 2.0


def late_bound(callback: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """The callback; a bound method is looked up by its name in its object at each call."""
    if callback is None:
        return None
    owner, name = getattr(callback, "__self__", None), getattr(callback, "__name__", "")
    if owner is None or getattr(owner, name, None) != callback:
        return callback
    return lambda *arguments: getattr(owner, name)(*arguments)


class CallbackThread:
    """A queue of calls and the thread that makes them, from the first call to `close()`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiting: deque[tuple[Callable[..., Any], tuple[object, ...]]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self.dropped, self.failed = 0, 0

    def put(self, callback: Callable[..., Any], *arguments: object) -> None:
        """Queue a call; calls are made in this order."""
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
        """Make the queued calls, then end the thread; waits two seconds at most."""
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
