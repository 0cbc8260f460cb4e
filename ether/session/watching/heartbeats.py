"""The heartbeats of a session's instances, as `ether ps`, `ether top` and `ether doctor` use them.

Each instance sends two a second; rates are differences of its counters over the last `WINDOW_S`. The trap: the counters
start at zero in each incarnation, so a difference is taken only between heartbeats of the same one.
"""

from __future__ import annotations

import queue
import time
from collections import defaultdict, deque
from collections.abc import Collection
from typing import Any, NamedTuple

from ether.connection.link import Inbound
from ether.errors import PayloadError
from ether.protocol.failure_detector import Heartbeat
from ether.session.client import Client
from ether.system.clock import wall_time

WINDOW_S = 2.2
"""Four intervals, and a little for a heartbeat that comes late."""

BEHIND_S = 2.0
"""An instance whose message waited for longer than this before its turn is shown as behind."""

_GROWS = 0.1
"""An age that grows by more than this share of the time goes on growing; by less, it moves up and down."""


class ShownHeartbeat(NamedTuple):
    """A heartbeat, its arrival (`at`, seconds of the monotonic clock), and how long it was on its way (`lag_s`, by the
    clocks of the two machines; None where it carries no time)."""

    heartbeat: Heartbeat
    at: float
    lag_s: float | None


class Activity(NamedTuple):
    """What an instance does, over the window: messages a second in and out, and the share of one core (1.0 is all)."""

    handled_hz: float
    published_hz: float
    cpu: float


class Heartbeats:
    """The heartbeats in the window, of every instance. Not locked: for one thread. Closing it ends the subscription.

    The dispatch thread only puts messages into a queue; decoding happens in `collect`, on the thread that uses this.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._filter = client.topics.heartbeat("+")
        self._arrived: queue.SimpleQueue[tuple[Inbound, float, float]] = queue.SimpleQueue()
        self._beats: dict[str, deque[ShownHeartbeat]] = defaultdict(deque)
        client.link.listen(self._filter, self._enqueue, qos=0)

    def close(self) -> None:
        """End the subscription, and acknowledge the messages that are still queued."""
        self._client.link.unlisten(self._filter, self._enqueue)
        while self._take_one(0.0):
            pass

    def collect(self, timeout_s: float, enough: Collection[str] | None = None) -> None:
        """Take what arrives for `timeout_s` seconds; returns sooner when all of `enough` have sent a heartbeat."""
        until = time.monotonic() + timeout_s
        while (left := until - time.monotonic()) > 0:
            if enough is not None and self._beats.keys() >= set(enough):
                return
            self._take_one(left)

    def beat(self, name: str) -> ShownHeartbeat | None:
        """The newest heartbeat of an instance; None where there is none."""
        beats = self._beats.get(name)
        return beats[-1] if beats else None

    def least_lag_s(self, name: str) -> float | None:
        """The shortest time on the way of its heartbeats in the window, by the clocks of the two machines."""
        lags = [beat.lag_s for beat in self._beats.get(name, ()) if beat.lag_s is not None]
        return min(lags, default=None)

    def activity(self, name: str) -> Activity | None:
        """What it did within the window; None where it sent fewer than two heartbeats of one incarnation."""
        beats = self._beats.get(name)
        if not beats or beats[-1].at <= beats[0].at:
            return None
        first, last = beats[0], beats[-1]
        seconds = last.at - first.at
        return Activity(
            (last.heartbeat.handled - first.heartbeat.handled) / seconds,
            (last.heartbeat.published - first.heartbeat.published) / seconds,
            (last.heartbeat.cpu_s - first.heartbeat.cpu_s) / seconds,
        )

    def falls_behind(self, name: str) -> bool:
        """Whether its messages waited longer and longer for their turn, within the window."""
        late = [(beat.at, beat.heartbeat.behind_s) for beat in self._beats.get(name, ())]
        known = [(at, behind_s) for at, behind_s in late if behind_s is not None]
        if len(known) < 2:
            return False
        (first_at, first_s), (last_at, last_s) = known[0], known[-1]
        return last_s > BEHIND_S / 4 and last_s - first_s > _GROWS * (last_at - first_at)

    def _enqueue(self, inbound: Inbound) -> None:
        self._arrived.put((inbound, time.monotonic(), wall_time()))

    def _take_one(self, timeout_s: float) -> bool:
        try:
            inbound, at, wall = self._arrived.get(timeout=timeout_s) if timeout_s else self._arrived.get_nowait()
        except queue.Empty:
            return False
        self._note(inbound, at, wall)
        return True

    def _note(self, inbound: Inbound, at: float, wall: float) -> None:
        try:
            unpacked = inbound.unpack()
        except PayloadError:
            return  # any program can publish on this topic
        finally:
            inbound.done()
        heartbeat = Heartbeat.from_value(unpacked.value)
        if heartbeat is not None:
            name = self._client.topics.instance_of_heartbeat(inbound.delivery.topic)
            sent = unpacked.headers.time if unpacked.headers else None
            beats = self._beats[name]
            while beats and (beats[0].at < at - WINDOW_S or beats[0].heartbeat.incarnation != heartbeat.incarnation):
                beats.popleft()
            beats.append(ShownHeartbeat(heartbeat, at, None if sent is None else wall - sent))


def activity_value(beats: Heartbeats, name: str) -> dict[str, Any] | None:
    """What an instance does, as plain data; None where no heartbeat of it is known."""
    shown, active = beats.beat(name), beats.activity(name)
    if shown is None:
        return None
    beat = shown.heartbeat
    return {
        "busy": beat.busy, "busy_s": beat.busy_s, "queued": beat.queued, "memory_mb": beat.rss_mb,
        "handled_hz": active and active.handled_hz, "published_hz": active and active.published_hz,
        "cpu": active and active.cpu, "failures": dict(beat.failures),
    }  # fmt: skip
