"""Hears the signs of life of one program's instances, and the echo of its own, for the vigil that judges them.

The trap: signs come in on the transport's thread. They are only noted there, under the supervisor's lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Container

from ether.connection.link import Inbound
from ether.errors import EtherError
from ether.protocol.failure_detector import FailureDetector, Heartbeat
from ether.session.heartbeat import HeartbeatSender
from ether.session.session import Session

_BEATS_KEPT = 20
_BACK_S = 2.4
"""By then whoever lives is back, once the broker is."""


class HeartbeatListener:
    """From `start()` to `stop()`. `kept` are the names that matter; `changed` guards the vigil, and is told of each
    echo."""

    def __init__(
        self, session: Session, detector: FailureDetector, changed: threading.Condition, kept: Container[str]
    ) -> None:
        self._session = session
        self._detector = detector
        self._changed = changed
        self._kept = kept
        self._beats: dict[int, float] = {}
        self._sender = HeartbeatSender(session.link, session.topics.heartbeat(session.link.source), self._own_heartbeat)

    def start(self) -> None:
        """Listen, and send signs of our own."""
        self._session.link.on_connection.append(self._note_connection)
        self._session.link.listen(self._session.topics.heartbeat("+"), self._take, now=self._take, qos=0)
        self._sender.start()

    def stop(self) -> None:
        """Send no more. Twice is fine."""
        self._sender.stop()

    def hurry(self) -> None:
        """Send the next sign of our own now: its echo is waited for."""
        self._sender.hurry()

    def _own_heartbeat(self, number: int) -> Heartbeat:
        self._beats = {number: time.monotonic(), **dict(list(self._beats.items())[:_BEATS_KEPT])}
        return Heartbeat(self._session.link.node, number)

    def _note_connection(self, up: bool) -> None:
        """On the dispatch thread."""
        with self._changed:
            if up:
                self._detector.hear_again(time.monotonic() + _BACK_S)
            else:
                self._detector.deafen()

    def _take(self, inbound: Inbound) -> bool:
        name = self._session.topics.instance_of_heartbeat(inbound.delivery.topic)
        own = name == self._session.link.source
        if not own and name not in self._kept:
            inbound.done()
            return True
        try:
            heartbeat = Heartbeat.from_value(inbound.unpack().value)
        except EtherError:
            heartbeat = None
        finally:
            inbound.done()
        with self._changed:
            if own and heartbeat is not None:
                self._detector.echo(self._beats.pop(heartbeat.number, float("-inf")))
                self._changed.notify_all()
            elif heartbeat is not None:
                self._detector.hear(name, heartbeat, time.monotonic())
        return True
