"""Calls the user's `ether.on_change` callbacks for instances that join, leave, die, hang or return: in order, on a
thread of its own.

The trap: the presence table changes on the dispatch thread, where user code must never run. A callback that calls an
instance would block the very thread that has to receive the answer.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from ether.log import get_ether_logger
from ether.protocol.presence import Announcement
from ether.session.members import Members

logger = get_ether_logger("Ether")

Callback = Callable[[dict[str, Any]], object]


class Changes:
    """Passes the changes of one presence table on to any number of callbacks."""

    def __init__(self, members: Members) -> None:
        self._callbacks: list[Callback] = []
        self._changes: queue.SimpleQueue[Announcement | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ether-changes", daemon=True)
        self._thread.start()
        members.watch(self._changes.put)

    def add(self, callback: Callback) -> None:
        """Call this callback with every change from now on."""
        self._callbacks.append(callback)

    def close(self) -> None:
        """Call no more callbacks; returns when the one that runs has returned. May be called twice."""
        self._changes.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while (announcement := self._changes.get()) is not None:
            if announcement.kind != "instance":
                continue
            change = {
                "name": announcement.name,
                "state": announcement.state.value,
                "error": announcement.error,
                **announcement.about,
            }
            for callback in tuple(self._callbacks):
                try:
                    callback(dict(change))
                except Exception:  # user code: its failure must not stop the other callbacks
                    logger.exception("a callback of ether.on_change() failed")
