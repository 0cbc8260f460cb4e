"""The connections of one probing, its time, its topics, and what has to be cleared at the end.

Promises: no wait outlives the probing's deadline; whatever was retained is cleared by `close()`, also after Ctrl-C, and
on a connection of its own where the main one is lost. Should this process be killed, the broker itself forgets what was
retained after a minute (MQTT 5). The trap: a probe may cost the connection that it was tried on. Asking for `main`
makes a new one then, without the old subscriptions.
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


class ConnectionCut(Exception):
    """A probe lost its connection; the text says how."""


class OutOfTime(Exception):
    """The time of a probe was over before anything was clear. `taken` had arrived until then."""

    def __init__(self, taken: Sequence[Delivery] = ()) -> None:
        super().__init__("the time was over before it was clear")
        self.taken = tuple(taken)


class ProbeBench:
    """What the probes share. `topics` are those of a session of our own, whose name nobody guesses."""

    def __init__(self, endpoint: Endpoint, budget_s: float) -> None:
        self.endpoint = endpoint
        self.name = f"doctor-{os.urandom(6).hex()}"
        self.topics = SessionTopics(self.name)
        self.version = ProtocolVersion.V311
        self.round_trip_s = 0.0
        self.end = monotonic() + max(budget_s - _CLEAR_S - _LEAVE_S, 0.0)
        self.deadline = self.end
        self.accepted: list[ProtocolVersion] = []
        self._opened: list[BareConnection] = []
        self._retained: set[str] = set()
        self._main: BareConnection | None = None
        self._heard: set[str] = set()  # what the main connection has subscribed to

    # time

    def begin_probe(self, at_most_s: float) -> bool:
        """A probe may take so long, but not beyond the end of the probing. False where no time is left for it."""
        now = monotonic()
        self.deadline = min(now + at_most_s, self.end)
        return self.deadline - now > min(0.1 + 2 * self.round_trip_s, at_most_s / 2)

    @property
    def quiet_s(self) -> float:
        """Nothing that was expected arrives any more, once nothing has arrived for so long."""
        return _QUIET_S + 4 * self.round_trip_s

    def soon(self, timeout_s: float) -> float:
        """The end of a wait within the probe, as monotonic seconds."""
        return min(self.deadline, monotonic() + timeout_s)

    # connections

    def connect(
        self, version: ProtocolVersion | None = None, *, will: Will | None = None, receive_maximum: int = 256
    ) -> BareConnection:
        """Another connection, in the version that was agreed on unless another one is named. Raises `EntryRefused`
        and `OSError`."""
        client_id = f"ether-doctor-{os.urandom(CLIENT_ID_LENGTH).hex()}"[:CLIENT_ID_LENGTH]
        made = BareConnection(
            self.endpoint, version or self.version, client_id, will=will, receive_maximum=receive_maximum
        )
        made.open(self.soon(_CONNECT_S))
        self._opened.append(made)
        return made

    @property
    def main(self) -> BareConnection:
        """The connection for whatever needs no own one; a new one where the last was lost."""
        if self._main is None or self._main.lost is not None:
            self._main = self.connect()
            self._heard.clear()
        return self._main

    def leave_others(self) -> None:
        """End every connection but the main one. A probe's subscriptions must not outlive it: what the next probe sends
        would wait for a connection that nobody serves, and some brokers let everybody wait for that."""
        others = [each for each in self._opened if each is not self._main]
        self._opened = [each for each in self._opened if each is self._main]
        for connection in others:
            connection.say_goodbye()
            connection.cut()

    def adopt(self, connection: BareConnection) -> None:
        """Use this connection as the main one, and its version for those that follow."""
        self._main, self.version = connection, connection.version
        self._heard.clear()

    def hearing(self, topic: str) -> BareConnection:
        """The main connection, subscribed to this topic. What was delivered before is forgotten."""
        connection = self.main
        connection.take()
        if topic not in self._heard:
            self.subscribe(connection, topic)
            self._heard.add(topic)
        return connection

    # asking and waiting

    def wait(
        self, connections: Sequence[BareConnection], until: Callable[[], bool], timeout_s: float | None = None
    ) -> bool:
        """Whether it becomes so within the time; raises `ConnectionCut` where one of the connections is lost before."""
        reached = False

        def over() -> bool:
            nonlocal reached
            reached = until()
            return reached or any(each.lost is not None for each in connections)

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

    def collect(self, connections: Sequence[BareConnection], count: int) -> list[Delivery]:
        """What arrives until there are `count` messages, or nothing more comes: for `quiet_s` no message, and a ping
        that was sent at its beginning is answered. A broker that merely gets no processor time answers none. Raises
        `OutOfTime` where the probe's time is over before one or the other."""
        taken: list[Delivery] = []
        while len(taken) < count:
            before, quiet_at = len(taken), self.soon(self.quiet_s)
            pongs = [connection.pongs for connection in connections]
            for connection in connections:
                connection.ping()

            def settled() -> bool:
                for connection in connections:
                    taken.extend(connection.take())
                answered = all(each.pongs > was for each, was in zip(connections, pongs, strict=True))  # noqa: B023
                return len(taken) > before or (answered and monotonic() >= quiet_at)  # noqa: B023

            if not self.wait(connections, settled):
                raise OutOfTime(taken)
            if len(taken) == before:
                break
        return taken

    def retain(
        self, connection: BareConnection, topic: str, payload: bytes, *, expiry_s: int = RETAINED_S
    ) -> int | None:
        """Publish a retained message that is cleared at the end; the broker's code, None without one."""
        self._retained.add(topic)
        properties = pack_expiry(expiry_s) if connection.version is ProtocolVersion.V5 else b""
        packet_id = connection.publish(topic, payload, retain=True, properties=properties)
        self.wait([connection], lambda: packet_id in connection.acknowledged)
        return connection.acknowledged.get(packet_id)

    # the end

    def close(self) -> None:
        """Clear what was retained, and leave."""
        try:
            self._clear()
        finally:
            self._leave()

    def _clear(self) -> None:
        if not self._retained:
            return
        deadline = monotonic() + _CLEAR_S
        self.end = self.deadline = deadline
        connection = self._main
        # Where something is unwritten, perhaps megabytes, that would leave first.
        if connection is None or connection.lost is not None or connection.unsent_bytes:
            try:
                connection = self.connect()
            except (OSError, EntryRefused):
                return
        waiting = {connection.publish(topic, b"", retain=True) for topic in self._retained}
        if serve([connection], lambda: waiting <= connection.acknowledged.keys(), deadline):
            self._retained.clear()

    @property
    def left_behind(self) -> frozenset[str]:
        """The topics whose retained messages could not be cleared."""
        return frozenset(self._retained)

    def _leave(self) -> None:
        living = [each for each in self._opened if each.lost is None and not each.unsent_bytes]
        for connection in living:
            connection.say_goodbye()
        serve(living, lambda: all(each.lost is not None for each in living), monotonic() + _LEAVE_S)
        for connection in self._opened:
            connection.cut()
