"""Receives the heartbeats of one program's instances, and the echo of the program's own, for the failure detector.

Promise: nothing is judged here; the supervisor's thread asks the detector. A file of its own, because this is the one
part of the supervision that runs on the network thread. The trap: that thread must not wait, so a heartbeat is only
noted, under the supervisor's lock, which nobody holds while waiting for the network.
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

_BEATS_REMEMBERED = 20
_BACK_S = 2.4
"""So long after the broker's return every living instance has reconnected, too."""


class HeartbeatListener:
    """Listens from `start()` to `stop()`. `supervised` are the names whose heartbeats count; `changed` is the
    supervisor's condition: it guards the detector, and is notified of each echo."""

    def __init__(
        self, session: Session, detector: FailureDetector, changed: threading.Condition, supervised: Container[str]
    ) -> None:
        self._session = session
        self._detector = detector
        self._changed = changed
        self._supervised = supervised
        self._sent_at: dict[int, float] = {}
        self._sender = HeartbeatSender(session.link, session.topics.heartbeat(session.link.source), self._own_heartbeat)

    def start(self) -> None:
        """Listen, and send heartbeats of our own."""
        self._session.link.on_connection.append(self._note_connection)
        self._session.link.listen(self._session.topics.heartbeat("+"), self._take, now=self._take, qos=0)
        self._sender.start()

    def stop(self) -> None:
        """Send no more. Twice is fine."""
        self._sender.stop()

    def hurry(self) -> None:
        """Send the next heartbeat of our own now: its echo is waited for."""
        self._sender.hurry()

    def _own_heartbeat(self, number: int) -> Heartbeat:
        """On the sender's thread. The new dict replaces the old one, which the network thread may be reading."""
        self._sent_at = {number: time.monotonic(), **dict(list(self._sent_at.items())[:_BEATS_REMEMBERED])}
        return Heartbeat(self._session.link.node, number)

    def _note_connection(self, up: bool) -> None:
        """On the dispatch thread."""
        with self._changed:
            if up:
                self._detector.hear_again(time.monotonic() + _BACK_S)
            else:
                self._detector.deafen()

    def _take(self, inbound: Inbound) -> bool:
        """On the network thread."""
        name = self._session.topics.instance_of_heartbeat(inbound.delivery.topic)
        own = name == self._session.link.source
        if not own and name not in self._supervised:
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
                # An unknown number (an old beat, or a forged one) proves nothing about the present.
                sent = self._sent_at.pop(heartbeat.number, None)
                if sent is not None:
                    self._detector.echo(sent, time.monotonic())
                    self._changed.notify_all()
            elif heartbeat is not None:
                self._detector.hear(name, heartbeat, time.monotonic())
        return True
