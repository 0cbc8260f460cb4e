"""A process's link to its session: values out, with headers; messages in, to whoever asked for their topic.

Publishing stamps each message (id, source, sequence per topic, time, parents) and hands the bytes to the transport.
Receiving takes whatever the transport has queued and routes it by topic. Decoding is left to the receiver's own
thread, so that one large message delays nobody else.

The trap: receivers are called on the dispatch thread and must only enqueue. A receiver that works or waits there
stops every other one, including the answer that it may be waiting for.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable

from ether.connection.inbound import Done
from ether.connection.inbound import Inbound as Inbound
from ether.connection.retransmit import Retransmitter
from ether.errors import PayloadTooLarge, PublishTimeout, TransportError
from ether.log import get_ether_logger
from ether.protocol.routes import Routes
from ether.transport.base import ConnectionDown, ConnectionUp, Delivery, ProtocolVersion, Receipt, Transport
from ether.transport.send_queue import Settled
from ether.wire.codec import Body, encode
from ether.wire.envelope import Envelope, EnvelopeV5, EnvelopeV311, Headers
from ether.wire.head import MessageIds, node_of
from ether.wire.topics import SessionTopics, matches

logger = get_ether_logger("Ether")

BATCH_OVERHEAD = 65_536
"""Bytes beside the body that an entry's way to a recorder takes."""

_ANNOUNCE_TIMEOUT_S = 2.0
"""How long the dispatch thread may wait for room when it repeats announcements after a reconnect."""


Receiver = Callable[[Inbound], object]
Keep = Callable[[Headers, Body], object]
"""Told of a message that has been published, to keep it: its headers and its body, in the order of their numbers."""
TakeNow = Callable[[Inbound], bool]
"""Takes a message on the transport's own thread, by only enqueueing it; False to have it routed to the receiver."""


class Link:
    """One process's connection to one session. Every method may be called from any thread."""

    def __init__(self, transport: Transport, source: str, topics: SessionTopics | None = None) -> None:
        """`source` is the instance's or program's name, as it stands in every header. With `topics` what is missed is
        sent again (`ether.connection.retransmit`)."""
        self.transport = transport
        self.source = source
        self.claims_lock = threading.Lock()
        self.refused = 0
        self.unheard = 0
        self.on_connection: list[Callable[[bool], object]] = []
        """Told of a lost connection (False) and of its return (True), on the dispatch thread: they only note it."""
        self.offline_since: float | None = None
        """Unix seconds; None while connected."""
        self._fenced: frozenset[str] = frozenset()
        self._beats = 0
        self._envelope: Envelope = EnvelopeV5()
        self._ids = MessageIds(int.from_bytes(os.urandom(16), "big"))
        self._sequences: dict[str, int] = {}
        self._announcements: dict[str, object] = {}
        self._last: Receipt | None = None
        self._publish_lock = threading.Lock()
        self._routes: Routes[Receiver] = Routes(matches)
        self._now: dict[Receiver, TakeNow] = {}
        self._routes_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.resending = None if topics is None else Retransmitter(self, topics)

    def open(self, timeout_s: float, *, dispatch: bool = True) -> None:
        """Connect, and start the dispatch thread. Without `dispatch` the owner feeds `step()` itself."""
        self.transport.connect(timeout_s)
        if self.transport.version is ProtocolVersion.V311:
            self._envelope = EnvelopeV311()
        if dispatch:
            self.transport.offer_to(self._take_now)
            self._thread = threading.Thread(target=self._dispatch, name=f"ether-dispatch-{self.source}", daemon=True)
            self._thread.start()
        if self.resending is not None:
            self.resending.open()

    def close(self, timeout_s: float = 1.0) -> None:
        """Disconnect cleanly and end the dispatch thread. Twice is fine."""
        if self.resending is not None:
            self.resending.say_goodbye()
        self.transport.close(timeout_s)
        if self.resending is not None:
            self.resending.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    @property
    def node(self) -> str:
        """What the ids of all our messages end with."""
        return self._ids.node

    def fence(self, nodes: Iterable[str]) -> None:
        """From now on refuse, and count, whatever these nodes send: others have taken their places."""
        self._fenced |= frozenset(nodes) - {self.node}

    # -- out

    def publish(
        self,
        topic: str,
        value: object,
        *,
        qos: int = 1,
        retain: bool = False,
        parents: tuple[str, ...] = (),
        reply_to: str | None = None,
        correlation: bytes | None = None,
        expiry_s: float | None = None,
        schema: str | None = None,
        error: str | None = None,
        trace: str | None = None,
        timeout_s: float = 10.0,
        keep: Keep | None = None,
    ) -> Receipt:
        """Publish a value on a full MQTT topic. Raises `EncodeError`, `PayloadTooLarge`, `PublishTimeout`.

        A message that is kept (`keep`) waits for room like any other while there is a connection. Without one, or where
        no room comes, it is kept all the same: who listens may miss it, and that is counted (`unheard`).

        Sequence numbers are given in the order in which the messages leave; a value that cannot be sent uses none.
        A request (one with `reply_to`) carries the chain of calls that it belongs to: `trace`, or a new one.
        """
        now = time.time()
        with self._publish_lock:
            sequence = self._sequences.get(topic, 0) + 1
            message_id = self._ids.next(int(now * 1000))
            headers = Headers(
                message_id,
                self.source,
                sequence,
                now,
                parents,
                schema=schema,
                traceparent=_traceparent(trace, message_id) if reply_to else None,
                reply_to=reply_to,
                correlation=correlation,
                expiry_s=expiry_s,
                error=error,
            )
            packed = self._envelope.pack(value, headers)
            if keep is not None:
                self._check_fits_batch(topic, packed.payload)
                timeout_s = timeout_s if self.transport.connected else 0.0
            try:
                receipt = self.transport.publish(
                    topic,
                    packed.payload,
                    qos=qos,
                    retain=retain,
                    properties=packed.properties,
                    timeout_s=timeout_s,
                )
            except PublishTimeout as full:
                if keep is None:
                    raise
                self.unheard += 1
                receipt = Settled(full)
            self._sequences[topic] = sequence
            if qos:
                self._last = receipt
                if self.resending is not None:
                    self.resending.sent(topic, sequence, packed.payload, packed.properties)
            if keep is not None:
                keep(headers, self._envelope.body(packed, value))
        return receipt

    def stamp(self, what: str, value: object, parents: tuple[str, ...]) -> tuple[Headers, Body]:
        """Headers and body of a value that is not published but kept; `what` is what its numbers count. Raises
        `EncodeError` and `PayloadTooLarge`."""
        body = encode(value)
        self._check_fits_batch(what, body.payload)
        now = time.time()
        with self._publish_lock:
            sequence = self._sequences[what] = self._sequences.get(what, 0) + 1
            return Headers(self._ids.next(int(now * 1000)), self.source, sequence, now, parents), body

    def _check_fits_batch(self, what: str, payload: bytes) -> None:
        """What is kept goes to recorders in messages that hold more than it."""
        if len(payload) > (limit := self.transport.max_packet_bytes - BATCH_OVERHEAD):
            raise PayloadTooLarge(what, len(payload), limit)

    def beat(self, topic: str, value: object) -> None:
        """Publish a sign of life: QoS 0, and never behind a publisher that waits for room. Raises `TransportError`."""
        self.tell(topic, value, qos=0, timeout_s=0.0)

    def tell(self, topic: str, value: object, *, timeout_s: float, qos: int = 1) -> None:
        """Publish beside the user's messages, whose publishers may be waiting for room. Raises `TransportError`."""
        self._beats += 1
        now = time.time()
        packed = self._envelope.pack(value, Headers(self._ids.next(int(now * 1000)), self.source, self._beats, now))
        self.transport.publish(topic, packed.payload, qos=qos, properties=packed.properties, timeout_s=timeout_s)

    def announce(self, topic: str, value: object) -> None:
        """Publish retained, and repeat it after every reconnect: a broker that was started anew has forgotten
        everything. Does not wait: whoever needs it has it when it arrives there."""
        self._announcements[topic] = value
        self.publish(topic, value, retain=True)

    def leave_to_others(self, topic: str) -> None:
        """Repeat an announcement no more: from now on it is another's to make."""
        self._announcements.pop(topic, None)

    def repeat(self, topic: str) -> None:
        """Announce again what we announced: somebody else has written over it."""
        if topic in self._announcements:
            self.publish(topic, self._announcements[topic], retain=True, timeout_s=_ANNOUNCE_TIMEOUT_S)

    def withdraw(self, topic: str, timeout_s: float = 2.0) -> None:
        """Clear a retained announcement."""
        self._announcements.pop(topic, None)
        self.transport.publish(topic, b"", retain=True, timeout_s=timeout_s).wait(timeout_s)

    def flush(self, timeout_s: float) -> None:
        """Return when the broker has acknowledged all that was published before; raises `PublishTimeout`."""
        last = self._last
        if last is not None:
            last.wait(timeout_s)

    # -- in

    def listen(
        self,
        topic_filter: str,
        receiver: Receiver,
        *,
        now: TakeNow | None = None,
        qos: int = 1,
        timeout_s: float = 5.0,
    ) -> None:
        """Route a full MQTT topic filter to a receiver; returns when the broker has confirmed.

        A receiver that can take a message by only enqueueing it says so by `now`, and saves a change of threads. All
        of the data plane does, so that messages of several topics keep their order.
        """
        with self._routes_lock:
            if now is not None:
                self._now[receiver] = now
            self._routes.add(topic_filter, receiver)
        if self.resending is not None:
            self.resending.listening(topic_filter, qos)
        self.transport.subscribe([topic_filter], qos=qos, timeout_s=timeout_s)

    def unlisten(self, topic_filter: str, receiver: Receiver) -> None:
        """The receiver wants no more of these; the subscription ends with its last receiver."""
        with self._routes_lock:
            last = self._routes.remove(topic_filter, receiver)
            self._now.pop(receiver, None)
        if last and self.resending is not None:
            self.resending.unlistening(topic_filter)
        if last and self.transport.connected:
            self.transport.unsubscribe([topic_filter])

    def step(self, item: Delivery | ConnectionUp | ConnectionDown) -> None:
        """Route one thing that the transport received."""
        match item:
            case Delivery():
                self._route(item)
            case ConnectionDown(reason):
                logger.warning("%s lost its connection to the broker: %s. Trying again...", self.source, reason)
                self.offline_since = self.offline_since or time.time()
                if self.resending is not None:
                    self.resending.went_down()
                self._tell_connection(False)
            case ConnectionUp():
                logger.info("%s is connected to the broker again", self.source)
                self.offline_since = None
                if self.resending is not None:
                    self.resending.came_up()
                self._announce_again()
                self._tell_connection(True)

    def _tell_connection(self, up: bool) -> None:
        for told in tuple(self.on_connection):
            told(up)

    def _route(self, delivery: Delivery) -> None:
        with self._routes_lock:
            receivers = self._routes.match(delivery.topic)
        if not receivers:
            self.transport.consumed(delivery)
            return
        inbound = Inbound(self, delivery, len(receivers))
        if self._fenced and self._is_fenced(inbound):
            self._refuse(inbound)
            return
        if self.resending is not None and self.resending.takes(inbound):
            return
        for receiver in receivers:
            receiver(inbound)

    def hand_over(self, delivery: Delivery, done: Done | None = None) -> None:
        """Give a message to its receivers; `done` as for `Inbound`. They only enqueue, whichever thread it is."""
        with self._routes_lock:
            receivers = self._routes.match(delivery.topic)
            takers = [self._now.get(receiver) for receiver in receivers]
        inbound = Inbound(self, delivery, len(receivers), done)
        if not receivers or (self._fenced and self._is_fenced(inbound)):
            inbound.drop()
            return
        for receiver, take in zip(receivers, takers, strict=True):
            if take is None or not take(inbound):
                receiver(inbound)

    def _take_now(self, delivery: Delivery) -> bool:
        """On the transport's thread: give it to its receivers, if all of them can take it at once."""
        with self._routes_lock:
            receivers = self._routes.match(delivery.topic)
            takers = [self._now.get(receiver) for receiver in receivers]
        if not takers or None in takers:
            return False
        inbound = Inbound(self, delivery, len(takers))
        if self._fenced and self._is_fenced(inbound):
            self._refuse(inbound)
            return True
        try:
            if self.resending is not None and self.resending.takes(inbound):
                return True
            taken = True
            for take in takers:
                taken = take is not None and take(inbound) and taken
            return taken
        except Exception:  # as in the dispatch loop: one receiver's defect must not break the connection
            logger.exception("%s could not route a message", self.source)
            return True

    def is_fenced(self, message_id: str) -> bool:
        """Whether what this message's sender sends is refused."""
        return node_of(message_id) in self._fenced

    def _is_fenced(self, inbound: Inbound) -> bool:
        headers = inbound.headers()
        return headers is not None and self.is_fenced(headers.id)

    def _refuse(self, inbound: Inbound) -> None:
        self.refused += 1
        self.transport.consumed(inbound.delivery)

    def _announce_again(self) -> None:
        for topic, value in list(self._announcements.items()):
            try:
                self.publish(topic, value, retain=True, timeout_s=_ANNOUNCE_TIMEOUT_S)
            except TransportError as error:
                logger.warning("%s could not repeat its announcement: %s", self.source, error)

    def _dispatch(self) -> None:
        while (item := self.transport.receive()) is not None:
            try:
                self.step(item)
            except Exception:  # the dispatch loop: one receiver's defect must not deafen the others
                logger.exception("%s could not route a message", self.source)


def trace_of(message_id: str) -> str:
    """The chain of calls that a message begins: 32 hexadecimal digits, as W3C trace context has them."""
    return message_id.replace("-", "")


def _traceparent(trace: str | None, message_id: str) -> str:
    own = trace_of(message_id)
    return f"00-{trace or own}-{own[16:]}-01"
