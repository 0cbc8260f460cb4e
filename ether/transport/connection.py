"""A transport over a network: connects, reconnects, restores subscriptions, and keeps what `Transport` promises.

This module decides; a wire (`ether.transport.mqtt`) moves bytes and is one connection. One thread, the network thread,
lives from `connect()` to `close()` and serves one wire after the other. It only enqueues: no user code runs on it.

The trap: an exception on the network thread must not end the thread, and must not be swallowed while the connection
looks alive. Every exception is caught in one place, `_guarded`, which logs it and drops the connection; what can be
restored is restored by the reconnect.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from threading import Event, Lock, Thread
from time import monotonic

from ether.errors import (
    BrokerRefuses,
    NotAuthorized,
    PayloadTooLarge,
    SubscribeRefused,
    TransportClosed,
    TransportError,
)
from ether.system.backoff import Backoff
from ether.transport.base import (
    ConnectionDown,
    ConnectionUp,
    Delivery,
    Item,
    ProtocolVersion,
    Receipt,
    Room,
    Transport,
    Will,
)
from ether.transport.copies import Copies
from ether.transport.endpoint import Endpoint
from ether.transport.mqtt import ConnectionLost, MqttWire, VersionRefused
from ether.transport.mqtt_versions import SIBLINGS, Version
from ether.transport.names import check_filter, packed_topic
from ether.transport.packets import MAX_PACKET_BYTES, PacketBatch, pubacks, publish_head
from ether.transport.receive_queue import ReceiveQueue
from ether.transport.send_queue import QueueRoom, SendQueue
from ether.transport.sockets import Waker
from ether.transport.subscriptions import FilterOptions, Subscriptions
from ether.wire.head import subscription_numbers
from ether.wire.topics import matches

WillSource = Will | Callable[[ProtocolVersion], Will] | None

# 3 s after a network works again every process must be connected: a TCP connect that was begun before (its second SYN
# leaves after 1 s) may last 2 s, and is followed by one pause.
RECONNECT_FIRST_S, RECONNECT_CAP_S, RECONNECT_ATTEMPT_S = 0.1, 1.0, 2.0
STABLE_S = 1.0  # a connection that held for less does not reset the pauses
SUBACK_S = 4.0  # measured: 60 clients at once on two cores, 200 retained messages each, within 0.16 s
FAREWELL_S = 0.25  # how long a clean close waits for the broker to have read it
JOIN_S = 1.0
MAX_CLIENT_ID = 64
FIXED_HEADER_BYTES = 5  # of the largest packet

_SILENT = "it closes the connection at once, without a word"
_SILENT_ADVICE = (
    "Has it reached its limit of connections (mosquitto: max_connections)? Does it allow QoS 1 and retained messages"
    " (max_qos, retain_available)? Does it speak MQTT on this port, with TLS or without?"
)

logger = logging.getLogger("Ether.transport")


def unguessable(name: str) -> str:
    """A client id of a readable name and 64 random bits. Unguessable, because a client that connects with another
    client's id takes over its session."""
    readable = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)
    return f"{readable[: MAX_CLIENT_ID - 17]}-{secrets.token_hex(8)}"


def _acknowledge(wire: MqttWire, packet_ids: list[bytes]) -> None:
    wire.acknowledge(pubacks(packet_ids))


class NetworkTransport(Transport):
    """See `Transport`. Made by `ether.transport.open_transport`."""

    def __init__(
        self, endpoint: Endpoint, *, client_id: str, will: WillSource, protocol: ProtocolVersion | None,
        keepalive_s: int, max_packet_bytes: int | None,
    ) -> None:  # fmt: skip
        self._endpoint, self._will, self._keepalive_s = endpoint, will, keepalive_s
        self._client_id = unguessable(client_id)
        self._given_limit = max_packet_bytes
        self._max_packet_bytes = max_packet_bytes or MAX_PACKET_BYTES
        self._window = 1
        self._candidates = [SIBLINGS[protocol]] if protocol else list(SIBLINGS.values())
        self._version: Version | None = None
        self._copies = Copies(matches, subscription_numbers)
        self._receive_queue, self._subscriptions = ReceiveQueue(), Subscriptions(self._copies)
        self._send_queue = SendQueue(self._receive_queue.put)
        self._waker = Waker()
        self._wire: MqttWire | None = None
        self._thread: Thread | None = None
        self._up, self._up_since = False, 0.0
        self._backoff = Backoff(RECONNECT_FIRST_S, RECONNECT_CAP_S, jitter=0.5)
        self._closing = Event()
        self._closed = Event()
        self._lifecycle = Lock()  # held by connect() and by close()
        self._farewell_deadline = 0.0
        self._complained = ""

    # state

    @property
    def client_id(self) -> str:
        """The client id that the broker knows."""
        return self._client_id

    @property
    def version(self) -> ProtocolVersion:
        return self._chosen.version

    @property
    def _chosen(self) -> Version:
        if self._version is None:
            raise TransportError("not connected yet: call connect() first")
        return self._version

    @property
    def connected(self) -> bool:
        return self._up

    @property
    def max_packet_bytes(self) -> int:
        return self._max_packet_bytes

    @property
    def window(self) -> int:
        return self._window

    @property
    def passing_bytes(self) -> int:
        learned = self._send_queue.cut_bytes
        return min(self._max_packet_bytes, learned - 1) if learned else self._max_packet_bytes

    @property
    def tells_size(self) -> bool:
        return self._given_limit is not None or self.version is ProtocolVersion.V5

    @property
    def dropped(self) -> int:
        return self._send_queue.dropped + self._receive_queue.dropped

    @property
    def unsettled(self) -> int:
        return self._send_queue.unsettled

    # connecting

    def connect(self, timeout_s: float) -> None:
        with self._lifecycle:
            if self._closing.is_set():
                raise TransportClosed("connect() on a connection that was closed")
            if self._thread is not None:
                raise TransportError("connect() was called before")
            wire = self._first_wire(monotonic() + timeout_s)
            self._thread = Thread(target=self._run, args=(wire,), name=f"ether-net-{self._client_id}", daemon=True)
            self._bring_up(wire)
            self._thread.start()

    def _first_wire(self, deadline: float) -> MqttWire:
        self._waker.open()
        try:
            return self._open_any(deadline)
        except InterruptedError:
            self._waker.close()
            raise TransportClosed("closed while connecting") from None
        except BaseException:
            self._waker.close()
            raise

    def _open_any(self, deadline: float) -> MqttWire:
        """A connection in the first version that the broker accepts, which is remembered for reconnects."""
        refusals: list[VersionRefused] = []
        for version in self._candidates:
            # A broker that closes the connection without a word may have another reason than the version: once more.
            for _ in range(2):
                try:
                    wire = self._open(version, deadline)
                except VersionRefused as error:
                    refusals.append(error)
                    if not error.silent:
                        break
                    continue
                self._version, self._candidates = version, [version]
                return wire
        told = [str(refusal) for refusal in refusals if not refusal.silent]
        silent = any(refusal.silent for refusal in refusals)
        why = " and ".join([*told, *([_SILENT] if silent else [])])
        advice = _SILENT_ADVICE if silent else "Ether speaks MQTT 5 and 3.1.1."
        raise BrokerRefuses(self._endpoint.address, why, advice) from refusals[-1]

    def _open(self, version: Version, deadline: float) -> MqttWire:
        will = self._will(version.version) if callable(self._will) else self._will
        wire = MqttWire(
            self._endpoint, self._client_id, version, will, send_queue=self._send_queue, owner=self, waker=self._waker
        )
        self._receive_queue.begin_acks(partial(_acknowledge, wire))
        try:
            wire.open(deadline, self._keepalive_s, self._closing.is_set)
        except BaseException:
            self._receive_queue.end_acks()
            wire.shut()
            raise
        return wire

    def _restore(self, wire: MqttWire, deadline: float) -> None:
        """Subscribe to everything again and wait for the answer, which a deaf connection never gives."""
        self._subscriptions.numbered = wire.wire_numbers
        packet_ids = self._subscriptions.begin(wire)
        try:
            wire.pump(lambda: not self._subscriptions.outstanding(packet_ids) or self._closing.is_set(), deadline)
        except TimeoutError:
            raise ConnectionLost("deaf: it did not confirm the subscriptions") from None
        if self._closing.is_set():
            raise ConnectionLost("closed while reconnecting")

    def _bring_up(self, wire: MqttWire) -> None:
        self._wire = wire
        self._max_packet_bytes = min(self._given_limit or MAX_PACKET_BYTES, wire.wire_max_packet_bytes)
        self._window = wire.wire_window
        self._subscriptions.numbered = wire.wire_numbers
        refused = self._subscriptions.end_restore(wire)
        if refused:
            logger.error("%s no longer grants %s", self._endpoint.address, ", ".join(refused))
        self._send_queue.attach(wire, wire.wire_window, self._max_packet_bytes)
        self._complained = ""
        self._up_since = monotonic()
        self._up = True

    # the network thread

    def _run(self, wire: MqttWire | None) -> None:
        """The network thread: serve a connection until it is lost, then the next one, until `close()`."""
        while wire is not None:
            loss = self._guarded(partial(wire.pump, self._closing.is_set))
            if loss is None:
                self._guarded(partial(wire.farewell, min(self._farewell_deadline, monotonic() + FAREWELL_S)))
            self._take_down(wire, loss)
            if loss is None:
                return
            self._receive_queue.put(ConnectionDown(str(loss)))
            wire = self._reopen(loss)

    def _guarded(self, work: Callable[[], None]) -> ConnectionLost | None:
        """Run `work`; returns what ended the connection, None where it ended as it should."""
        try:
            work()
        except ConnectionLost as loss:
            if not self._up:
                self._complain(loss)
            return loss
        except (TransportError, VersionRefused, OSError) as error:
            self._complain(error)
            return ConnectionLost(str(error))
        except Exception:  # the only broad except of the network thread, see the module's docstring
            logger.exception("a fault in Ether's own network code; reconnecting")
            return ConnectionLost("a fault in Ether's own network code, see the log")
        return None

    def _take_down(self, wire: MqttWire, loss: ConnectionLost | None = None) -> None:
        self._up = False
        self._wire = None
        self._send_queue.detach(str(loss) if loss is not None and loss.cut else "")
        self._receive_queue.end_acks()
        self._subscriptions.end()
        wire.shut()

    def _reopen(self, loss: ConnectionLost) -> MqttWire | None:
        """Connect again, as often as it takes; None once the transport is closed."""
        if monotonic() - self._up_since > STABLE_S:
            self._backoff.reset()
        if loss.taken_over:
            self._backoff.skip_to_longest()  # two clients with one id would push each other out all the time
        while not self._closing.wait(self._backoff.next_s()):
            if self._guarded(self._reopen_once) is None and self._wire is not None:
                return self._wire
        return None

    def _reopen_once(self) -> None:
        wire = self._open(self._chosen, monotonic() + RECONNECT_ATTEMPT_S)
        try:
            self._restore(wire, monotonic() + SUBACK_S)
            self._bring_up(wire)
        except BaseException:
            self._take_down(wire)
            raise
        self._receive_queue.put(ConnectionUp())

    def _complain(self, error: Exception) -> None:
        """Log why reconnecting fails, the same kind of reason once in a row. A refusal is a warning; that a broker does
        not answer is expected."""
        if self._complained != type(error).__name__ and not self._closing.is_set():
            self._complained = type(error).__name__
            level = logging.WARNING if isinstance(error, NotAuthorized | VersionRefused) else logging.INFO
            logger.log(level, "still trying to reconnect: %s", error)

    def on_batch(self, batch: PacketBatch) -> None:
        """Called by the wire with what one read brought."""
        if batch.acknowledged:
            self._send_queue.acknowledged(batch.acknowledged)
        if batch.deliveries or batch.to_acknowledge:
            self._receive_queue.put_deliveries(batch.deliveries, batch.to_acknowledge)

    def on_suback(self, packet_id: int, reasons: Sequence[int]) -> None:
        """Called by the wire with the answer to a SUBSCRIBE."""
        self._subscriptions.on_suback(packet_id, reasons)

    def on_unsuback(self, packet_id: int) -> None:
        """Called by the wire with the answer to an UNSUBSCRIBE."""
        self._subscriptions.on_unsuback(packet_id)

    # using

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, properties: bytes = b"",
        timeout_s: float = 10.0, room: Room | None = None, urgent: bool = False,
    ) -> Receipt:  # fmt: skip
        if qos not in (0, 1):
            raise ValueError(f"qos is 0 or 1, not {qos!r}")
        chosen = self._version or self._chosen
        section = chosen.section(properties)
        name = packed_topic(topic)
        tail_bytes = len(section) + len(payload)
        size = FIXED_HEADER_BYTES + len(name) + 2 * qos + tail_bytes
        if size > self._max_packet_bytes:
            raise PayloadTooLarge(topic, size, self._max_packet_bytes)
        head = publish_head(name, qos=qos, retain=retain, tail_bytes=tail_bytes)
        own_room = None if room is None or not isinstance(room, QueueRoom) else room
        if qos:
            return self._send_queue.publish(topic, head, section, payload, timeout_s, own_room, urgent=urgent)
        return self._send_queue.publish_unconfirmed(topic, head, section, payload, timeout_s, own_room, urgent=urgent)

    def room(self, topic: str, size: int, *, urgent: bool = False) -> Room:
        return self._send_queue.room(topic, size, urgent=urgent)

    def subscribe(
        self, topic_filters: Sequence[str], *, qos: int = 1, timeout_s: float = 5.0, as_published: bool = False,
        counted: bool = False,
    ) -> None:  # fmt: skip
        self._check_usable(topic_filters, qos)
        deadline = monotonic() + timeout_s
        wire = self._wire
        request = self._subscriptions.ask(topic_filters, FilterOptions(qos, as_published, counted))
        if not request.answered.wait(min(SUBACK_S, timeout_s / 2)) and wire is not None and wire is self._wire:
            wire.fail("deaf: it did not confirm a subscription")
        answered = request.answered.wait(max(deadline - monotonic(), 0.0))
        failed = list(request.refused) if answered else list(topic_filters)
        self._subscriptions.withdraw(request, failed)
        if self._closing.is_set():
            raise TransportClosed("closed while subscribing")
        if failed:
            why = request.refused.get(failed[0], f"no answer within {timeout_s:g} s")
            raise SubscribeRefused(failed[0], why)

    def unsubscribe(self, topic_filters: Sequence[str], *, timeout_s: float = 5.0) -> None:
        self._check_usable(topic_filters, 0)
        request = self._subscriptions.ask_to_leave(topic_filters)
        if not request.answered.wait(timeout_s):
            wire = self._wire
            if wire is not None:
                wire.fail("deaf: it did not confirm the end of a subscription")

    def _check_usable(self, topic_filters: Sequence[str], qos: int) -> None:
        if isinstance(topic_filters, str) or not topic_filters:
            raise ValueError("topic filters are a list with at least one entry")
        if qos not in (0, 1):
            raise ValueError(f"qos is 0 or 1, not {qos!r}")
        for topic_filter in topic_filters:
            check_filter(topic_filter)
        if self._closing.is_set():
            raise TransportClosed("subscriptions on a connection that was closed")
        _ = self._chosen

    def is_surplus(self, delivery: Delivery) -> bool:
        copies = self._copies
        return copies.overlap and not delivery.retained and copies.surplus(delivery.topic, delivery.properties)

    def receive(self, timeout_s: float | None = None) -> Item | None:
        return self._receive_queue.get(timeout_s)

    def offer_to(self, sink: Callable[[Delivery], bool]) -> None:
        self._receive_queue.sink = sink

    def consumed(self, delivery: Delivery) -> None:
        self._receive_queue.consumed(delivery)

    def when_long(self, callback: Callable[[], object]) -> None:
        self._receive_queue.on_long = callback

    def widen(self, wide: bool) -> None:
        self._receive_queue.widen(wide)

    def unread_total(self) -> tuple[int, int]:
        return self._receive_queue.total

    def unread(self) -> tuple[dict[str, int], int]:
        return self._receive_queue.unread()

    # closing

    def finish(self, timeout_s: float) -> int:
        if not self._up or self._send_queue.drain(timeout_s):
            return 0
        return self._send_queue.drop_waiting()

    def close(self, timeout_s: float = 1.0) -> None:
        deadline = monotonic() + timeout_s
        self._send_queue.close()
        if self._up and not self._closing.is_set():
            self._send_queue.drain(timeout_s)
        self._farewell_deadline = max(self._farewell_deadline, deadline, monotonic() + 0.05)
        self._closing.set()
        self._subscriptions.close()
        self._waker.wake()
        with self._lifecycle:  # waits for a connect() that is going on; the waker has just ended its wait
            if not self._closed.is_set():
                self._finish()

    def _finish(self) -> None:
        thread = self._thread
        if thread is not None and thread.ident is not None:
            thread.join(JOIN_S)
            if thread.is_alive():
                logger.warning("the network thread has not ended yet (a name is being resolved)")
        unsettled = self._send_queue.give_up()
        if unsettled:
            logger.warning("closed with %d messages that the broker had not acknowledged", unsettled)
        self._receive_queue.close()
        if thread is None or not thread.is_alive():
            self._waker.close()
        self._closed.set()
