"""Sessions, subscriptions and retained messages of one broker: what amqtt's own core is replaced by.

Promise: a message reaches every matching subscriber once, with the lower of the two QoS, in the order in which it came;
retained messages go to whoever subscribes, when it subscribes, and to nobody else; every connection that ends without
a DISCONNECT leaves its will. Everything happens in one call on one thread: no task's state can be overtaken.
The trap: ending a connection publishes its will, which can fill and end another one. Callers of `publish` therefore
flush at the end, and a connection that is over ignores what still comes for it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from broker.core.client_queue import LIMIT_BYTES, ClientQueue
from broker.wire.packets import REFUSED_FILTER, Filters, PublishPacket
from broker.wire.topics import SubscriptionTable, is_valid_filter, matches

HIGHEST_QOS = 1  # of a delivery: 2 is granted as 1
_TOO_MUCH = f"more than {LIMIT_BYTES >> 20} MiB of messages"


class Line(Protocol):
    """What the exchange needs of a connection."""

    def flush(self) -> None:
        """Write what the outbox holds, as far as the socket takes it."""

    def end(self, why: str) -> None:
        """Cut the connection; its will is published."""


@dataclass(frozen=True, slots=True)
class LastWill:
    """What is published when a client vanishes."""

    message: PublishPacket
    retain: bool


@dataclass(slots=True, eq=False)
class ClientSession:
    """One client id: its subscriptions, what it must still get, and its connection while there is one."""

    client_id: str
    clean: bool
    will: LastWill | None = None
    line: Line | None = None
    filters: dict[str, int] = field(default_factory=dict)
    outbox: ClientQueue = field(default_factory=ClientQueue)
    received: set[int] = field(default_factory=set)  # numbers of QoS 2 messages that were delivered already


class Exchange:
    """The broker's memory, and the rules by which messages move."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._sessions: dict[str, ClientSession] = {}
        self._subscriptions: SubscriptionTable[ClientSession] = SubscriptionTable()
        self._retained: dict[bytes, PublishPacket] = {}
        self._unflushed: dict[Line, None] = {}

    def open(self, client_id: str, clean: bool, will: LastWill | None, line: Line) -> tuple[ClientSession, bool]:
        """The session of an admitted client, and whether it continues an earlier one.

        An older connection of the same client id is ended first, as the standard wants it.
        """
        before = self._sessions.get(client_id)
        if before is not None and before.line is not None:
            before.line.end(f"client {client_id!r} connected again: its older connection was closed")
        before = self._sessions.get(client_id)  # gone by now if it was a clean one
        if before is not None and clean:
            self._forget(before)
        if before is None or clean:
            session = self._sessions[client_id] = ClientSession(client_id, clean, will, line)
            return session, False
        before.will, before.line = will, line
        before.outbox.resume()
        return before, True

    def close(self, session: ClientSession, with_will: bool) -> None:
        """The session's connection is over."""
        will, session.will, session.line = session.will, None, None
        if session.clean:
            self._forget(session)
        else:
            session.outbox.suspend()
        if will is not None and with_will:
            self.publish(will.message, will.retain)
            self.flush()

    def subscribe(self, session: ClientSession, filters: Filters) -> list[int]:
        """Enter the filters and give back what each is granted; 0x80 is a refusal."""
        return [self._subscribe(session, text, min(qos, HIGHEST_QOS)) for text, qos in filters]

    def send_retained(self, session: ClientSession, filters: Filters) -> None:
        """What is retained under each of the filters; after its SUBACK, so that a client can tell it from news."""
        for text, qos in filters:
            for message in self._retained_under(text) if text in session.filters else ():
                self._deliver(session, message, min(qos, HIGHEST_QOS), retained=True)

    def unsubscribe(self, session: ClientSession, filters: list[str]) -> None:
        """Take the filters out; unknown ones are nobody's harm."""
        for text in filters:
            if session.filters.pop(text, None) is not None:
                self._subscriptions.remove(text, session)

    def publish(self, message: PublishPacket, retain: bool) -> None:
        """Deliver a message; `Malformed` if its topic is none. An empty retained one clears what was retained."""
        heard_by = self._subscriptions.heard_by(message.topic)
        if retain:
            self._retain(message)
        frame = b""
        for session, qos in heard_by:
            if message.qos and qos:
                self._deliver(session, message, 1)
            else:
                frame = frame or message.frame()
                self._deliver_frame(session, frame)

    def publish_frame(self, topic: bytes, frame: bytes) -> None:
        """Deliver a packet of QoS 0 as it came: the shortest way through this broker."""
        for session, _ in self._subscriptions.heard_by(topic):
            self._deliver_frame(session, frame)

    def answer(self, session: ClientSession, packet: bytes) -> None:
        """An acknowledgement, in its place among the messages."""
        self._deliver_frame(session, packet)

    def flush(self) -> None:
        """Write what the calls since the last flush have put out."""
        while self._unflushed:
            lines, self._unflushed = self._unflushed, {}
            for line in lines:
                line.flush()

    def warn(self, text: str) -> None:
        """Say something that must not stay silent."""
        self._warn(text)

    def lines(self) -> list[Line]:
        """The connections of all sessions."""
        return [session.line for session in self._sessions.values() if session.line is not None]

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
        return [kept for topic, kept in self._retained.items() if matches(levels, topic.decode().split("/"))]

    def _retain(self, message: PublishPacket) -> None:
        if message.payload:
            self._retained[message.topic] = message
        else:
            self._retained.pop(message.topic, None)

    def _deliver(self, session: ClientSession, message: PublishPacket, qos: int, retained: bool = False) -> None:
        if not (qos and message.qos):
            self._deliver_frame(session, message.frame(retained))
        elif session.line is not None:
            self._unflushed[session.line] = None
            if not session.outbox.put(message, retained):
                self._end_slow(session)
        elif not session.clean and not session.outbox.hold(message):
            self._end_away(session)

    def _deliver_frame(self, session: ClientSession, frame: bytes) -> None:
        if session.line is not None:
            self._unflushed[session.line] = None
            if not session.outbox.put_frame(frame):
                self._end_slow(session)

    def _end_slow(self, session: ClientSession) -> None:
        assert session.line is not None
        session.line.end(f"{_TOO_MUCH} waited for client {session.client_id!r}: it is too slow and was disconnected")

    def _end_away(self, session: ClientSession) -> None:
        self._warn(f"{_TOO_MUCH} waited for client {session.client_id!r}: it is away and its session was ended")
        self._forget(session)

    def _forget(self, session: ClientSession) -> None:
        for text in session.filters:
            self._subscriptions.remove(text, session)
        session.filters.clear()
        if self._sessions.get(session.client_id) is session:
            del self._sessions[session.client_id]
