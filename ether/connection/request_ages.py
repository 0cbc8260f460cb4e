"""How much time a request still has: its deadline travels with it, also where the broker's own expiry is lost.

A request may wait in a bridge, in a broker's queue or behind a busy worker until its caller has given up. It must not
be run then. The trap: sender and receiver have two clocks, and both may be set (`ether.protocol.one_way_delay`).
"""

from __future__ import annotations

import threading
from typing import Protocol

from ether.protocol.one_way_delay import OneWayDelay
from ether.system.clock import uptime, wall_time
from ether.system.machine_mark import is_of_this_machine


class Dated(Protocol):
    """The headers that a deadline needs."""

    @property
    def source(self) -> str: ...
    @property
    def time(self) -> float | None: ...
    @property
    def reply_to(self) -> str | None: ...
    @property
    def expiry_s(self) -> float | None: ...


class RequestAges:
    """The delays of requests, by source. May be used by several threads."""

    def __init__(self) -> None:
        self._delays = OneWayDelay(wall_time(), uptime())
        self._lock = threading.Lock()

    def left_s(self, head: Dated) -> float | None:
        """Seconds until the deadline, without the time that the request has spent on its way and in queues; None where
        it has no deadline."""
        if head.expiry_s is None or head.time is None:
            return head.expiry_s
        same_clock = is_of_this_machine(head.reply_to)
        with self._lock:
            now, steady = wall_time(), uptime()
            spent = self._delays.seconds(head.source, head.time, now, steady, same_clock=same_clock)
        return head.expiry_s - spent
