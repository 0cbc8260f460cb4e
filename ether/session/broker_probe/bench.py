"""What the probes of one broker share, and what each of them has for itself: its connections and its time.

Promises: no wait outlives the probing's deadline; whatever was retained is cleared by `Probing.close()`, also after
Ctrl-C. Should this process be killed, the broker itself forgets what was retained after a minute (MQTT 5). Several
probes may run at the same time, each on a thread of its own: nothing of a `ProbeBench` is touched by another thread.
The trap: a probe may cost the connection that it was tried on. Asking for `main` makes a new one then, without the old
subscriptions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from time import monotonic

from ether.transport.bare import BareConnection, EntryRefused, serve
from ether.transport.base import Delivery, ProtocolVersion, Will
from ether.transport.endpoint import Endpoint
from ether.wire.head import pack_expiry
from ether.wire.topics import SessionTopics

CLIENT_ID_LENGTH = 64
"""As long as Ether's own ids may be, so that a broker that takes only short ones is noticed here."""
RETAINED_S = 60
_CONNECT_S = 3.0
_CLEAR_S, _LEAVE_S = 1.0, 0.2
_QUIET_S = 0.4
_DELIVERIES = 10


class ConnectionCut(Exception):
    """A probe lost its connection; the text says how."""


class OutOfTime(Exception):
    """The time of a probe was over before anything was clear. `taken` had arrived until then."""

    def __init__(self, taken: Sequence[Delivery] = (), why: str = "the time was over before it was clear") -> None:
        super().__init__(why)
        self.taken = tuple(taken)


class Probing:
    """One probing of one broker. `topics` are those of a session of our own, whose name nobody guesses. `stopped` ends
    every wait of every probe."""

    def __init__(self, endpoint: Endpoint, budget_s: float) -> None:
        self.endpoint = endpoint
        self.name = f"doctor-{os.urandom(6).hex()}"
        self.topics = SessionTopics(self.name)
        self.accepted: dict[ProtocolVersion, BareConnection] = {}
        """The first connection of each version that was let in, in the order of the attempts."""
        self.round_trip_s = 0.0
        self.delivery_s = 0.0
        """The longest that a message to ourselves took, of a few."""
        self.end = monotonic() + max(budget_s - _CLEAR_S - _LEAVE_S, 0.0)
        self.stopped = False
        self.retained: set[str] = set()
        """Topics on which something is retained."""

    @property
    def version(self) -> ProtocolVersion:
        """The version that was agreed on: the first that was accepted."""
        return next(iter(self.accepted), ProtocolVersion.V311)

    def bench(self, at_most_s: float) -> ProbeBench:
        """For a probe that may take so long, but not beyond the end of the probing. Raises `OutOfTime` where no time is
        left to begin with it."""
        now = monotonic()
        deadline = min(now + at_most_s, self.end)
        if deadline - now < min(0.1 + 4 * self.round_trip_s, at_most_s):
            raise OutOfTime(why="no time was left for it")
        return ProbeBench(self, deadline)

    def open(self, connection: BareConnection, deadline: float) -> None:
        """Open it, and remember it as the first of its version."""
        connection.open(deadline)
        self.accepted[connection.version] = connection

    def connection(
        self, version: ProtocolVersion, *, will: Will | None = None, receive_maximum: int = 256
    ) -> BareConnection:
        """A connection that is not open yet, with an id of its own."""
        client_id = f"ether-doctor-{os.urandom(CLIENT_ID_LENGTH).hex()}"[:CLIENT_ID_LENGTH]
        return BareConnection(self.endpoint, version, client_id, will=will, receive_maximum=receive_maximum)

    def close(self) -> None:
        """Clear what was retained, and leave."""
        try:
            self._clear()
        finally:
            _leave(list(self.accepted.values()))

    def _clear(self) -> None:
        if not self.retained:
            return
        deadline = monotonic() + _CLEAR_S
        first = self.accepted[self.version]
        if self._cleared_by(first, deadline):
            return
        first.cut()  # it was lost, perhaps long ago, as nobody has served it
        connection = self.connection(self.version)
        try:
            self.open(connection, deadline)
        except (OSError, EntryRefused):
            return
        self._cleared_by(connection, deadline)

    def _cleared_by(self, connection: BareConnection, deadline: float) -> bool:
        waiting = {connection.publish(topic, b"", retain=True) for topic in self.retained}
        if not serve([connection], lambda: waiting <= connection.acknowledged.keys(), deadline):
            return False
        self.retained.clear()
        return True


class ProbeBench:
    """What one probe works with."""

    def __init__(self, shared: Probing, deadline: float) -> None:
        self.shared, self.deadline = shared, deadline
        self.name, self.topics, self.version = shared.name, shared.topics, shared.version
        self._opened: list[BareConnection] = []
        self._main: BareConnection | None = None
        self._heard: set[str] = set()  # what the main connection has subscribed to

    # time

    @property
    def quiet_s(self) -> float:
        """Nothing that was expected arrives any more, once nothing has arrived for so long: many times as long as a
        message took in the beginning."""
        return max(_QUIET_S + 4 * self.shared.round_trip_s, _DELIVERIES * self.shared.delivery_s)

    def soon(self, timeout_s: float) -> float:
        """The end of a wait within the probe, as monotonic seconds."""
        return min(self.deadline, monotonic() + timeout_s)

    # connections

    def connect(
        self, version: ProtocolVersion | None = None, *, will: Will | None = None, receive_maximum: int = 256
    ) -> BareConnection:
        """Another connection, in the version that was agreed on unless another one is named. Raises `EntryRefused`
        and `OSError`."""
        made = self.shared.connection(version or self.version, will=will, receive_maximum=receive_maximum)
        self._opened.append(made)
        made.open(self.soon(_CONNECT_S))
        return made

    @property
    def main(self) -> BareConnection:
        """The probe's connection for whatever needs no other; a new one where the last was lost."""
        if self._main is None or self._main.lost is not None:
            self._main = self.connect()
            self._heard.clear()
        return self._main

    def hearing(self, topic: str) -> BareConnection:
        """The main connection, subscribed to this topic. What was delivered before is forgotten."""
        connection = self.main
        connection.take()
        if topic not in self._heard:
            self.subscribe(connection, topic)
            self._heard.add(topic)
        return connection

    def close(self) -> None:
        """End the probe's connections. Its subscriptions must not outlive it: what the next probe sends would wait for
        a connection that nobody serves, and some brokers let everybody wait for that."""
        for connection in self._opened:
            connection.say_goodbye()
            connection.cut()

    # asking and waiting

    def wait(
        self, connections: Sequence[BareConnection], until: Callable[[], bool], timeout_s: float | None = None
    ) -> bool:
        """Whether it becomes so within the time; raises `ConnectionCut` where one of the connections is lost before."""
        reached = False

        def over() -> bool:
            nonlocal reached
            reached = until()
            return reached or self.shared.stopped or any(each.lost is not None for each in connections)

        serve(connections, over, self.deadline if timeout_s is None else self.soon(timeout_s))
        for connection in connections:
            if connection.lost is not None and not reached:
                raise ConnectionCut(connection.lost)
        return reached

    def wait_while_moving(self, connection: BareConnection, until: Callable[[], bool]) -> bool:
        """As `wait`, and over when no byte has moved for `quiet_s`."""
        before = -1
        while connection.moved_bytes > before and monotonic() < self.deadline and not until():
            before = connection.moved_bytes
            self.wait([connection], lambda: until() or connection.moved_bytes > before, self.quiet_s)  # noqa: B023
        return until()

    def subscribe(self, connection: BareConnection, *filters: str) -> tuple[int, ...]:
        """Subscribe and wait; the broker's codes, empty where it gives none in time."""
        request = connection.subscribe(filters)
        self.wait([connection], lambda: request in connection.granted)
        return connection.granted.get(request, ())

    def code_of(self, connection: BareConnection, packet_id: int) -> int | None:
        """The broker's code for a message; None where it gives none in time."""
        self.wait([connection], lambda: packet_id in connection.acknowledged)
        return connection.acknowledged.get(packet_id)

    def collect(self, connections: Sequence[BareConnection], count: int) -> list[Delivery]:
        """What arrives until there are `count` messages, or nothing more comes: for `quiet_s` no message, and a ping
        that was sent at its beginning is answered. A broker that merely gets no processor time answers none. The trap:
        brokers that deliver on other paths than they answer on may still be about to deliver. Raises `OutOfTime` where
        the probe's time is over before one or the other."""
        taken: list[Delivery] = []
        while len(taken) < count:
            more = self._next(connections)
            if more is None:
                raise OutOfTime(taken)
            if not more:
                break
            taken += more
        return taken

    def await_topic(self, connection: BareConnection, topic: str) -> Delivery | None:
        """The first message on this topic; None where nothing more comes. Other messages are passed over."""
        while True:
            more = self._next([connection])
            if more is None:
                raise OutOfTime
            for delivery in more:
                if delivery.topic == topic:
                    return delivery
            if not more:
                return None

    def _next(self, connections: Sequence[BareConnection]) -> list[Delivery] | None:
        """What arrives next; empty where nothing more comes, None where the time is over before that is clear."""
        taken: list[Delivery] = []
        quiet_at = self.soon(self.quiet_s)
        pongs = [connection.pongs for connection in connections]
        for connection in connections:
            connection.ping()

        def settled() -> bool:
            for connection in connections:
                taken.extend(connection.take())
            answered = all(each.pongs > was for each, was in zip(connections, pongs, strict=True))
            return bool(taken) or (answered and monotonic() >= quiet_at)

        return taken if self.wait(connections, settled) else None

    def retain(self, connection: BareConnection, topic: str, payload: bytes, expiry_s: int = RETAINED_S) -> int | None:
        """Publish a retained message that is cleared at the end; the broker's code, None without one."""
        self.shared.retained.add(topic)
        properties = pack_expiry(expiry_s) if connection.version is ProtocolVersion.V5 else b""
        return self.code_of(connection, connection.publish(topic, payload, retain=True, properties=properties))


def _leave(connections: Sequence[BareConnection]) -> None:
    living = [each for each in connections if each.lost is None]
    for connection in living:
        connection.say_goodbye()
    serve(living, lambda: all(each.lost is not None for each in living), monotonic() + _LEAVE_S)
    for connection in connections:
        connection.cut()
