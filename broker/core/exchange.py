"""Sessions, subscriptions and retained messages of one broker. This replaces amqtt's own core.

How it works. A connection decodes a packet and calls a method here, on the event loop's thread. The method puts
frames into the queues (`ClientQueue`) of the sessions concerned and enters their connections in `_unflushed`. The
connection calls `flush` when it has handled all packets that it had read, and only then the sockets are written: a
burst of messages for one subscriber costs one write.

Promise: a message reaches every matching subscriber once, with the lower of the two QoS, in the order of arrival. A
retained message goes to a client at the moment at which it subscribes. Every connection that ends without a
DISCONNECT publishes its will. No method awaits anything, so no other task sees a half-changed state.

The trap: ending a connection publishes its will, and that can overflow the queue of another client, whose connection
is then ended from inside the same call. So every method must leave the tables in order before it ends a connection, a
caller of `publish` must flush at the end, and a connection that is over must ignore further calls.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from broker.core.client_queue import LIMIT_BYTES, ClientQueue
from broker.wire.packets import REFUSED_FILTER, Filters, PublishPacket
from broker.wire.topics import SubscriptionTable, is_valid_filter, matches

HIGHEST_QOS = 1  # of a delivery: a subscription that asks for 2 is granted 1
_TOO_MUCH = f"more than {LIMIT_BYTES >> 20} MiB of messages"


class Connection(Protocol):
    """What the exchange needs of a client's connection."""

    def flush(self) -> None:
        """Write the session's queue, as far as the socket takes it."""

    def end(self, why: str) -> None:
        """Abort the connection; its will is published."""


@dataclass(frozen=True, slots=True)
class LastWill:
    """The message that is published where a client's connection ends without a DISCONNECT."""

    message: PublishPacket
    retain: bool


@dataclass(slots=True, eq=False)
class ClientSession:
    """One client id: its subscriptions, its queue, and its connection while there is one."""

    client_id: str
    clean: bool
    will: LastWill | None = None
    connection: Connection | None = None
    filters: dict[str, int] = field(default_factory=dict)
    queue: ClientQueue = field(default_factory=ClientQueue)
    received: set[int] = field(default_factory=set)  # ids of QoS 2 packets that were delivered, until their PUBREL


class Exchange:
    """All sessions and retained messages, and the rules by which messages are delivered."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._sessions: dict[str, ClientSession] = {}
        self._subscriptions: SubscriptionTable[ClientSession] = SubscriptionTable()
        self._retained: dict[bytes, PublishPacket] = {}
        self._unflushed: dict[Connection, None] = {}  # a set that keeps its order

    def open(
        self, client_id: str, clean: bool, will: LastWill | None, connection: Connection
    ) -> tuple[ClientSession, bool]:
        """The session of an admitted client, and whether it continues an earlier one (session present).

        An older connection of the same client id is ended first, as MQTT demands.
        """
        before = self._sessions.get(client_id)
        if before is not None and before.connection is not None:
            before.connection.end(f"client {client_id!r} connected again: its older connection was closed")
        before = self._sessions.get(client_id)  # again: a clean session was forgotten when its connection ended
        if before is not None and clean:
            self._forget(before)
        if before is None or clean:
            session = self._sessions[client_id] = ClientSession(client_id, clean, will, connection)
            return session, False
        before.will, before.connection = will, connection
        before.queue.resume()
        return before, True

    def close(self, session: ClientSession, with_will: bool) -> None:
        """The session's connection is over. The tables are put in order first, then the will is published."""
        will, session.will, session.connection = session.will, None, None
        if session.clean:
            self._forget(session)
        else:
            session.queue.suspend()
        if will is not None and with_will:
            self.publish(will.message, will.retain)
            self.flush()

    def subscribe(self, session: ClientSession, filters: Filters) -> list[int]:
        """Enter the filters; returns the granted QoS of each, or 0x80 for a refused one."""
        return [self._subscribe(session, text, min(qos, HIGHEST_QOS)) for text, qos in filters]

    def send_retained(self, session: ClientSession, filters: Filters) -> None:
        """Send the retained messages of each granted filter; call it after the SUBACK was queued."""
        for text, qos in filters:
            for message in self._retained_under(text) if text in session.filters else ():
                self._deliver(session, message, min(qos, HIGHEST_QOS), retained=True)

    def unsubscribe(self, session: ClientSession, filters: list[str]) -> None:
        """Remove the filters; unknown ones are ignored."""
        for text in filters:
            if session.filters.pop(text, None) is not None:
                self._subscriptions.remove(text, session)

    def publish(self, message: PublishPacket, retain: bool) -> None:
        """Deliver a message, and retain it if asked; an empty payload clears. Raises `MalformedPacket` for a bad
        topic."""
        subscribers = self._subscriptions.subscribers_of(message.topic)
        if retain:
            self._retain(message)
        frame = b""  # of QoS 0: the same for all subscribers, so encoded once, and only where one needs it
        for session, qos in subscribers:
            if message.qos and qos:
                self._deliver(session, message, 1)
            else:
                frame = frame or message.frame()
                self._deliver_frame(session, frame)

    def publish_frame(self, topic: bytes, frame: bytes) -> None:
        """Deliver a packet of QoS 0 that is not retained, without decoding or encoding it: the fastest path."""
        for session, _ in self._subscriptions.subscribers_of(topic):
            self._deliver_frame(session, frame)

    def answer(self, session: ClientSession, packet: bytes) -> None:
        """Queue an acknowledgement, behind the messages that were queued before."""
        self._deliver_frame(session, packet)

    def flush(self) -> None:
        """Write what the calls since the last flush have queued.

        Repeated, because a flush can end a connection, whose will is one more message.
        """
        while self._unflushed:
            connections, self._unflushed = self._unflushed, {}
            for connection in connections:
                connection.flush()

    def warn(self, text: str) -> None:
        """Report an event that a user must see."""
        self._warn(text)

    def _subscribe(self, session: ClientSession, text: str, qos: int) -> int:
        if not is_valid_filter(text):
            return REFUSED_FILTER
        session.filters[text] = qos
        self._subscriptions.add(text, session, qos)
        return qos

    def _retained_under(self, text: str) -> list[PublishPacket]:
        if "+" not in text and "#" not in text:
            exact = self._retained.get(text.encode())
            return [exact] if exact else []
        levels = text.split("/")
        return [message for topic, message in self._retained.items() if matches(levels, topic.decode().split("/"))]

    def _retain(self, message: PublishPacket) -> None:
        if message.payload:
            self._retained[message.topic] = message
        else:
            self._retained.pop(message.topic, None)

    def _deliver(self, session: ClientSession, message: PublishPacket, qos: int, retained: bool = False) -> None:
        """Queue a message for one session. A client that is away gets QoS 1 later, where its session is not clean."""
        if not (qos and message.qos):
            self._deliver_frame(session, message.frame(retained))
        elif session.connection is not None:
            self._unflushed[session.connection] = None
            if not session.queue.put(message, retained):
                self._end_slow(session)
        elif not session.clean and not session.queue.hold(message):
            self._end_away(session)

    def _deliver_frame(self, session: ClientSession, frame: bytes) -> None:
        if session.connection is not None:
            self._unflushed[session.connection] = None
            if not session.queue.put_frame(frame):
                self._end_slow(session)

    def _end_slow(self, session: ClientSession) -> None:
        assert session.connection is not None
        session.connection.end(
            f"{_TOO_MUCH} waited for client {session.client_id!r}: it is too slow and was disconnected"
        )

    def _end_away(self, session: ClientSession) -> None:
        self._warn(f"{_TOO_MUCH} waited for client {session.client_id!r}: it is away and its session was ended")
        self._forget(session)

    def _forget(self, session: ClientSession) -> None:
        for text in session.filters:
            self._subscriptions.remove(text, session)
        session.filters.clear()
        if self._sessions.get(session.client_id) is session:
            del self._sessions[session.client_id]
