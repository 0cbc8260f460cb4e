"""Tells user code who joins, leaves, dies, hangs and comes back: on a thread of its own, in order.

The trap: presence is kept on the dispatch thread, where user code must never run: a callback that calls an instance
would wait there for an answer that nobody can take in.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from ether.log import get_ether_logger
from ether.protocol.presence import Announcement
from ether.session.session import Session

logger = get_ether_logger("Ether")

Callback = Callable[[dict[str, Any]], object]


class Changes:
    """The changes of one session, for any number of callbacks."""

    def __init__(self, session: Session) -> None:
        self._callbacks: list[Callback] = []
        self._changes: queue.SimpleQueue[Announcement | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ether-changes", daemon=True)
        self._thread.start()
        session.watch(self._changes.put)

    def add(self, callback: Callback) -> None:
        """From now on it is told."""
        self._callbacks.append(callback)

    def close(self) -> None:
        """Tell no more; returns when the callback that runs has returned. Twice is fine."""
        self._changes.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while (announcement := self._changes.get()) is not None:
            if announcement.kind != "instance":
                continue
            told = {
                "name": announcement.name,
                "state": announcement.state.value,
                "error": announcement.error,
                **announcement.about,
            }
            for callback in tuple(self._callbacks):
                try:
                    callback(dict(told))
                except Exception:  # user code: its failure must not keep the next from being told
                    logger.exception("a callback of ether.on_change() failed")
