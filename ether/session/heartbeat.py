"""Sends a process's heartbeats, from a thread of its own, so that user code that waits cannot delay them.

The trap: a heartbeat that waited in the send queue behind the user's messages would make a busy sender look hung. So
heartbeats bypass the queue, and are dropped while the connection takes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ether.connection.link import Link
from ether.errors import EtherError
from ether.protocol.failure_detector import INTERVAL_S, Heartbeat


class HeartbeatSender:
    """Sends heartbeats from `start()` to `stop()`."""

    def __init__(
        self, link: Link, topic: str, heartbeat: Callable[[int], Heartbeat], interval_s: float = INTERVAL_S
    ) -> None:
        """`heartbeat` makes the heartbeat with a given number; it must not block."""
        self._link = link
        self._topic = topic
        self._heartbeat = heartbeat
        self._interval_s = interval_s
        self._stopped = False
        self._due = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"ether-heart-{link.source}", daemon=True)

    def start(self) -> None:
        """Begin; the first heartbeat is sent at once."""
        self._thread.start()

    def hurry(self) -> None:
        """Send the next heartbeat now."""
        self._due.set()

    def stop(self) -> None:
        """Send no more. May be called twice."""
        self._stopped = True
        self._due.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stopped:
            number += 1
            self._due.clear()
            try:
                self._link.beat(self._topic, self._heartbeat(number).to_value())
            except EtherError:
                pass  # no connection, or no room: the next heartbeat serves as well
            if not self._stopped:
                self._due.wait(self._interval_s)
