"""A broker in memory, and the transport to it: the semantics of MQTT without sockets, processes or threads.

A publish is delivered into every receiver's queue before `publish()` returns, in publish order, so a test over loopback
is deterministic and takes microseconds. `LoopbackBroker.stop()` and `start()` simulate the outage of a broker that
stores nothing, as Ether's embedded brokers do; `LoopbackTransport.abandon()` simulates a client's sudden death. The
trap: restoring is orderly here (first all subscriptions, then all waiting messages); between real processes a message
can still precede another process's subscription.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, RLock
from time import monotonic

from ether.errors import (
    BrokerUnreachable,
    PayloadTooLarge,
    PublishTimeout,
    SubscribeRefused,
    TransportClosed,
    TransportError,
    UnsupportedFeature,
    publish_refused,
)
from ether.transport.base import (
    ConnectionDown,
    ConnectionUp,
    Delivery,
    Item,
    ProtocolVersion,
    Receipt,
    Refusal,
    Room,
    Transport,
    Will,
)
from ether.transport.names import check_filter, matches, packed_topic
from ether.transport.packets import MAX_PACKET_BYTES
from ether.transport.receive_queue import HARD_BYTES, HARD_COUNT
from ether.transport.send_queue import MAX_BYTES, MAX_COUNT, Settled


class LoopbackBroker:
    """The broker of loopback transports. One lock orders everything; it may be used from many threads."""

    def __init__(
        self, *, version: ProtocolVersion = ProtocolVersion.V5, max_packet_bytes: int = MAX_PACKET_BYTES
    ) -> None:
        self.version, self.max_packet_bytes = version, max_packet_bytes
        self.refuses: Callable[[Delivery], int] = lambda message: 0
        """Simulates a broker that will not take a message: returns the reason code, 0 for a message that it takes."""
        self.lock = RLock()
        self.running = True
        self._clients: dict[LoopbackTransport, None] = {}  # a set that keeps its order
        self._retained: dict[str, Delivery] = {}

    def stop(self) -> None:
        """Stop as by kill -9: no wills are published, and retained messages are lost."""
        with self.lock:
            if not self.running:
                return
            self.running = False
            self._retained.clear()
            for client in self._clients:
                client.on_outage()

    def start(self) -> None:
        """Start again: every client restores its subscriptions, then sends what waited, in order."""
        with self.lock:
            if self.running:
                return
            self.running = True
            clients = list(self._clients)
            for client in clients:
                client.on_return()
            for client in clients:
                client.on_restored()

    def join(self, client: LoopbackTransport) -> None:
        """A client connects."""
        with self.lock:
            if not self.running:
                raise BrokerUnreachable("loopback", "it is stopped")
            self._clients[client] = None

    def leave(self, client: LoopbackTransport, will: Will | None) -> None:
        """A client leaves; `will` is published where it died."""
        with self.lock:
            if self._clients.pop(client, 1) is None and will is not None and self.running:
                self.route(Delivery(will.topic, will.payload, 1, will.retain, will.properties))

    def route(self, message: Delivery) -> int:
        """Deliver to every subscriber; returns how many there were. `message.retained` means: to be retained."""
        with self.lock:
            if message.retained:
                self._retain(message)
            receivers = [(client, client.granted(message.topic)) for client in self._clients]
            return sum(
                client.take(message, qos, retained=message.retained and client.wants_flag(message.topic))
                for client, qos in receivers
                if qos is not None
            )

    def _retain(self, message: Delivery) -> None:
        self._retained.pop(message.topic, None)
        if message.payload:
            self._retained[message.topic] = message

    def replay(self, client: LoopbackTransport, topic_filter: str, qos: int) -> None:
        """Deliver the retained messages to a new subscription."""
        for message in self._retained.values():
            if matches(topic_filter, message.topic):
                client.take(message, qos, retained=True)


class _Receipt(Receipt):
    """A receipt that is settled when the broker takes the message, which waits while the broker is stopped."""

    error: Exception | None = None

    def __init__(self, topic: str, changed: Condition) -> None:
        self._topic, self._changed = topic, changed
        self.receivers: int | None = None
        self._callback: Callable[[], object] | None = None

    @property
    def done(self) -> bool:
        return self.receivers is not None

    @property
    def no_subscribers(self) -> bool:
        return self.receivers == 0

    @property
    def watched(self) -> bool:
        return self._callback is not None

    def when_done(self, callback: Callable[[], object]) -> None:
        with self._changed:
            if not self.done and self.error is None:
                self._callback = callback
                return
        callback()

    def settle(self, outcome: int | Exception) -> None:
        """Set the outcome: the number of receivers, or the error."""
        if isinstance(outcome, int):
            self.receivers = outcome
        else:
            self.error = outcome
        if self._callback is not None:
            self._callback()

    def wait(self, timeout_s: float) -> None:
        with self._changed:
            settled = self._changed.wait_for(lambda: self.done or self.error is not None, timeout_s)
        if self.error is not None:
            raise self.error
        if not settled:
            raise PublishTimeout(self._topic, timeout_s, "the broker has not acknowledged it")


class _Lane:
    """Messages that wait while the broker is stopped, with a bound of their own."""

    def __init__(self) -> None:
        self.messages: deque[tuple[Delivery, _Receipt]] = deque()
        self.bytes = 0

    def has_room(self, size: int) -> bool:
        return len(self.messages) < MAX_COUNT and (not self.messages or self.bytes + size <= MAX_BYTES)


class _LoopbackRoom(Room):
    """A message that has waited is accepted even where others have filled the queue since: it exceeds its bound by as
    many messages as there are waiting threads."""

    def __init__(self, transport: LoopbackTransport, lane: _Lane, topic: str, size: int) -> None:
        self._transport, self._lane, self._topic, self._size = transport, lane, topic, size
        self.reserved = False

    def wait(self, timeout_s: float) -> None:
        self._transport.await_room(self._lane, self._topic, self._size, timeout_s)
        self.reserved = True

    def release(self) -> None:
        self.reserved = False


class LoopbackTransport(Transport):
    """A client of a `LoopbackBroker`, as `Transport` promises."""

    def __init__(self, broker: LoopbackBroker, client_id: str, will: Will | None = None) -> None:
        self.client_id = client_id
        self._broker, self._will = broker, will
        self._changed = Condition(broker.lock)
        self._items: deque[Item] = deque()
        self._count = self._bytes = 0  # of messages that arrived and are not consumed
        self._unread: dict[str, int] = {}  # the same count for each topic
        self._filters: dict[str, int] = {}
        self._as_published: set[str] = set()
        self._urgent, self._ordinary = _Lane(), _Lane()
        self._lanes = self._urgent, self._ordinary
        self._state = "new"  # then connected, down, closed
        self._dropped = 0

    @property
    def version(self) -> ProtocolVersion:
        self._check_usable()
        return self._broker.version

    @property
    def connected(self) -> bool:
        return self._state == "connected"

    @property
    def max_packet_bytes(self) -> int:
        return self._broker.max_packet_bytes

    @property
    def window(self) -> int:
        return HARD_COUNT

    @property
    def dropped(self) -> int:
        return self._dropped

    @property
    def unsettled(self) -> int:
        return sum(len(lane.messages) for lane in self._lanes)

    def connect(self, timeout_s: float) -> None:
        with self._changed:
            if self._state == "closed":
                raise TransportClosed("connect() on a connection that was closed")
            if self._state != "new":
                raise TransportError("connect() was called before")
            if self._will is not None and self._will.properties and self._broker.version is ProtocolVersion.V311:
                raise UnsupportedFeature("a will with properties")
            self._broker.join(self)
            self._state = "connected"

    def close(self, timeout_s: float = 1.0) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self.unsettled or self._state == "down", timeout_s)
            self._end(will=None)

    def finish(self, timeout_s: float) -> int:
        return 0  # while it is connected, nothing waits

    def abandon(self) -> None:
        """Vanish without DISCONNECT, as a killed process does: the broker publishes the will."""
        self._end(will=self._will)

    def _end(self, will: Will | None) -> None:
        with self._changed:
            self._state = "closed"
            for lane in self._lanes:
                for message, receipt in lane.messages:
                    receipt.settle(
                        TransportClosed(f"closed before the broker acknowledged the message to {message.topic!r}")
                    )
                lane.messages.clear()
            self._broker.leave(self, will)
            self._changed.notify_all()

    # publishing

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, properties: bytes = b"",
        timeout_s: float = 10.0, room: Room | None = None, urgent: bool = False,
    ) -> Receipt:  # fmt: skip
        if qos not in (0, 1):
            raise ValueError(f"qos is 0 or 1, not {qos!r}")
        message = Delivery(topic, bytes(payload), qos, retain, properties)
        size = len(packed_topic(topic)) + len(payload) + len(properties) + 7
        self._check_sendable(message, size)
        lane = self._urgent if urgent else self._ordinary
        with self._changed:
            if not qos and self._state == "down":
                return self._drop(topic)
            if self._state == "down" and not (isinstance(room, _LoopbackRoom) and room.reserved):
                self.await_room(lane, topic, size, timeout_s)
            self._check_usable()
            receipt = _Receipt(topic, self._changed)
            if self._state == "connected":
                self._hand_over(message, receipt)
            else:
                lane.messages.append((message, receipt))
                lane.bytes += len(payload)
            return receipt

    def _hand_over(self, message: Delivery, receipt: _Receipt) -> None:
        code = self._broker.refuses(message)
        if not code:
            receipt.settle(self._broker.route(message))
            return
        error = publish_refused(message.topic, len(message.payload), code)
        receipt.settle(error)
        self._items.append(Refusal(message.topic, message.payload, message.properties, error, receipt))
        self._changed.notify_all()

    def room(self, topic: str, size: int, *, urgent: bool = False) -> Room:
        return _LoopbackRoom(self, self._urgent if urgent else self._ordinary, topic, size)

    def await_room(self, lane: _Lane, topic: str, size: int, timeout_s: float) -> None:
        """Return when the lane has room for a message, or is not needed."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._state != "down" or lane.has_room(size), timeout_s):
                raise PublishTimeout(topic, timeout_s, f"{len(lane.messages):,} messages wait for the broker")
            self._check_usable()

    def _check_sendable(self, message: Delivery, size: int) -> None:
        if message.properties and self.version is ProtocolVersion.V311:
            raise UnsupportedFeature("a message with properties")
        if size > self.max_packet_bytes:
            raise PayloadTooLarge(message.topic, size, self.max_packet_bytes)

    def _drop(self, topic: str) -> Receipt:
        self._dropped += 1
        return Settled(TransportError(f"the QoS 0 message to {topic!r} was dropped: no connection to the broker"))

    def _check_usable(self) -> None:
        if self._state == "closed":
            raise TransportClosed("used after close()")
        if self._state == "new":
            raise TransportError("not connected yet: call connect() first")

    # subscribing

    def subscribe(
        self, topic_filters: Sequence[str], *, qos: int = 1, timeout_s: float = 5.0, as_published: bool = False,
        counted: bool = False,
    ) -> None:  # fmt: skip
        self._check_filters(topic_filters, qos)
        with self._changed:
            self._check_usable()
            if not self._changed.wait_for(lambda: self._state != "down", timeout_s):
                raise SubscribeRefused(topic_filters[0], f"no answer within {timeout_s:g} s")
            self._check_usable()
            for topic_filter in topic_filters:
                self._filters[topic_filter] = qos
                (self._as_published.add if as_published else self._as_published.discard)(topic_filter)
                self._broker.replay(self, topic_filter, qos)

    def unsubscribe(self, topic_filters: Sequence[str], *, timeout_s: float = 5.0) -> None:
        self._check_filters(topic_filters, 0)
        with self._changed:
            self._check_usable()
            for topic_filter in topic_filters:
                self._filters.pop(topic_filter, None)
                self._as_published.discard(topic_filter)

    def _check_filters(self, topic_filters: Sequence[str], qos: int) -> None:
        if isinstance(topic_filters, str) or not topic_filters:
            raise ValueError("topic filters are a list with at least one entry")
        if qos not in (0, 1):
            raise ValueError(f"qos is 0 or 1, not {qos!r}")
        for topic_filter in topic_filters:
            check_filter(topic_filter)

    # receiving

    def receive(self, timeout_s: float | None = None) -> Item | None:
        deadline = None if timeout_s is None else monotonic() + timeout_s
        with self._changed:
            while not self._items and self._state != "closed":
                remaining = None if deadline is None else deadline - monotonic()
                if remaining is not None and remaining <= 0:
                    return None
                self._changed.wait(remaining)
            return self._items.popleft() if self._items else None

    def offer_to(self, sink: Callable[[Delivery], bool]) -> None:
        """Ignored, as there is no network thread: everything comes out of `receive()`."""

    def consumed(self, delivery: Delivery) -> None:
        with self._changed:
            self._count -= 1
            self._bytes -= len(delivery.payload)
            self._unread[delivery.topic] -= 1

    def when_long(self, callback: Callable[[], object]) -> None:
        """Ignored, as there is no network thread."""

    def widen(self, wide: bool) -> None:
        """Ignored: nothing is held back."""

    def unread_total(self) -> tuple[int, int]:
        return self._count, self._bytes

    def unread(self) -> tuple[dict[str, int], int]:
        with self._changed:
            return {topic: count for topic, count in self._unread.items() if count}, self._bytes

    # what the broker calls, with its lock held

    def granted(self, topic: str) -> int | None:
        """The QoS of this client's subscription to `topic`; None where it has none."""
        return max((qos for name, qos in self._filters.items() if matches(name, topic)), default=None)

    def wants_flag(self, topic: str) -> bool:
        """Whether a message that is published with the retain flag is delivered with it."""
        return any(matches(name, topic) for name in self._as_published)

    def take(self, message: Delivery, qos: int, *, retained: bool) -> bool:
        """Enqueue a message for this client. QoS 1 is held without bound; QoS 0 beyond a bound is dropped."""
        qos = min(message.qos, qos)
        if not qos and (self._count >= HARD_COUNT or self._bytes >= HARD_BYTES):
            self._dropped += 1
            return True
        self._items.append(Delivery(message.topic, message.payload, qos, retained, message.properties))
        self._count += 1
        self._bytes += len(message.payload)
        self._unread[message.topic] = self._unread.get(message.topic, 0) + 1
        self._changed.notify_all()
        return True

    def on_outage(self) -> None:
        """The broker was stopped."""
        self._state = "down"
        self._items.append(ConnectionDown("the loopback broker was stopped"))
        self._changed.notify_all()

    def on_return(self) -> None:
        """The broker was started again; it has lost everything."""
        self._state = "connected"

    def on_restored(self) -> None:
        """The subscriptions of all clients are restored."""
        self._items.append(ConnectionUp())
        for lane in self._lanes:
            while lane.messages:
                self._hand_over(*lane.messages.popleft())
            lane.bytes = 0
        self._changed.notify_all()
