"""A process's link to its session: values go out with headers, messages come in and are routed by topic.

Publishing stamps each message (id, source, sequence number per topic, time, parents) and hands the bytes to the
transport. Receiving takes what the transport has queued and gives it to the receivers of its topic. A receiver decodes
on its own thread, so that one large message delays no other receiver.

A command counts when it is sent. One that a broker has retained would run at every start and after every reconnect, so
what comes with the retain flag on such a topic reaches no receiver (`ether.wire.topics.is_event`).

The trap: receivers are called on the dispatch thread, or on the transport's thread, and must only enqueue. A receiver
that works or waits there stops every other receiver, including the one for the answer that it may be waiting for.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from ether.connection import fork_guard as forks
from ether.connection.caused_work import CausedWork
from ether.connection.deadline import Deadline
from ether.connection.inbound import Done
from ether.connection.inbound import Inbound as Inbound
from ether.connection.inputs import InputLog
from ether.connection.refusals import Refusals
from ether.connection.retained_rules import RetainedOnce
from ether.connection.retransmit import Retransmitter
from ether.errors import NotAllowedHere, PayloadTooLarge, PublishRefused, PublishTimeout, TransportError
from ether.log import get_ether_logger
from ether.protocol.routes import Routes
from ether.protocol.topic_cache import TopicCache
from ether.system.clock import wall_time
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
)
from ether.transport.send_queue import Settled
from ether.wire.codec import Body, encode
from ether.wire.envelope import (
    Envelope,
    EnvelopeTwice,
    EnvelopeV5,
    EnvelopeV311,
    Headers,
    has_property_headers,
    unpack_headers,
)
from ether.wire.head import MessageIds, node_of
from ether.wire.topics import SessionTopics, answer_topic, is_data, is_event, is_urgent, matches, may_be_answered

logger = get_ether_logger("Ether")

BATCH_OVERHEAD = 65_536
"""Bytes that are reserved, in a message to a recorder, for everything beside the body of an entry."""

_NUMBERED_PASSING = 4096
"""So many topics that are not of the data plane are numbered at a time."""

_ANNOUNCE_TIMEOUT_S = 2.0
"""How long the dispatch thread may wait for room when it repeats announcements after a reconnect."""

TAKEN_S = 2.0
"""How long the broker may take for the first announcement of a process."""
_NAMED_RETAINED = 1000
"""So many topics of retained commands are named in the log."""


Receiver = Callable[[Inbound], object]
Keep = Callable[[Headers, Body], object]
"""Records a message that has just been published, given its headers and body. Called in the order of the numbers."""
TakeRefusal = Callable[[Refusal, Headers], bool]
"""Answers for a message of this process that the broker refused; False where that is not for this receiver to do. On
the dispatch thread."""
TakeNow = Callable[[Inbound], bool]
"""Takes a message on the transport's own thread, by only enqueueing it; False to have it routed to the receiver."""


class ExtraHeaders(NamedTuple):
    """The headers that only some messages have: requests, answers, replays, recorded values. (A tuple, which is made
    three times as fast as a frozen dataclass; one is made for each call.)"""

    schema: str | None = None
    """Which schema the value follows."""
    reply_to: str | None = None
    """The full MQTT topic for the answer; makes the message a request."""
    correlation: bytes | None = None
    """Which request an answer belongs to."""
    expiry_s: float | None = None
    """Seconds after which the message is of no use."""
    error: str | None = None
    """The kind of an error, in an answer that is one."""
    trace: str | None = None
    """The chain of calls that a request belongs to; None begins a new one. Ignored without `reply_to`."""
    twice: bool = False
    """The headers stand in the body, too, over MQTT 5: the message may pass a bridge that strips properties."""
    urgent: bool = False
    """The message goes before data, also where its topic does not say so (`ether.wire.topics.is_urgent`)."""
    origin: str | None = None
    """The trial that caused it, and whether it descends from a replay (`ether.wire.origin`)."""
    after: str | None = None
    """As `Headers.after`."""

    def complete(self, message_id: str, source: str, sequence: int, time: float, parents: tuple[str, ...]) -> Headers:
        """All headers of one message."""
        schema, reply_to, correlation, expiry_s, error, trace, _, _, origin, after = self
        traceparent = None
        if reply_to:  # a new chain of calls is named after its first message, as `trace_of` does
            own = message_id.replace("-", "")
            traceparent = f"00-{trace or own}-{own[16:]}-01"
        return Headers(
            message_id, source, sequence, time, parents, schema, traceparent, reply_to, correlation, expiry_s, error,
            origin, after,
        )  # fmt: skip


_Message = tuple[str, object, float, int, bool, tuple[str, ...], ExtraHeaders | None, Keep | None]
"""What `Link.publish` was given: the topic, the value as the envelope has prepared it, the time, `qos`, `retain`,
`parents`, `extra` and `keep`. (A bare tuple, because one is made for each message.)"""


class Link:
    """One process's connection to one session. Every method may be called from any thread."""

    back_at: float | None = None
    """When a lost connection was made again last, by `time.monotonic`; None where none was lost."""

    def __init__(self, transport: Transport, source: str, topics: SessionTopics | None = None) -> None:
        """`source` is the instance's or program's name, as it stands in every header. With `topics`, missed messages
        are asked for and sent again (`ether.connection.retransmit`)."""
        self.transport, self.source, self._forks = transport, source, forks.watch()
        self.refused = 0
        """Messages that were not handed to any receiver: of fenced processes, and retained commands."""
        self.unheard = 0
        """Messages that were recorded and not published, because there was no room or no connection."""
        self.wildcards_show_retained: bool | None = None
        """Whether the broker gives retained messages to subscriptions with wildcards; None where nobody has tried."""
        self.headers_twice = False
        """Whether every message carries its headers in the body, too, because the way to other members strips
        properties."""
        self.on_connection: list[Callable[[bool], object]] = []
        """Called on the dispatch thread when the connection is lost (False) and when it is back (True). A callback
        must return at once."""
        self.on_refusal: list[TakeRefusal] = []
        """Asked in turn, until one answers for the message, where no publisher watches its receipt."""
        self.refusals = Refusals(source)
        self.inputs = InputLog()  # what was handed to the user's code of this process
        self.offline_since: float | None = None  # unix seconds; None while connected
        self.caused = CausedWork()
        """What this process has sent because of trials, and what of theirs it has not finished."""
        self._fenced: Mapping[str, frozenset[str | None]] = {}  # by node the names that are refused; None: all
        self._side_sequence = 0
        self._envelope: Envelope = EnvelopeV5()
        self._envelope_twice: Envelope = EnvelopeTwice()
        self._ids = MessageIds(int.from_bytes(os.urandom(16), "big"))
        self._sequences: dict[str, int] = {}
        self._passing: deque[str] = deque()
        """The topics in `_sequences` that are not of the data plane, in the order of their first messages."""
        self._announcements: dict[str, object] = {}
        self._urgent: TopicCache[bool] = TopicCache()
        """For topics whether its messages go before data (`is_urgent`)."""
        self._last: dict[bool, Receipt] = {}  # the receipt of the last message that was urgent, and that was not
        self._publish_lock = threading.Lock()
        self._session_topics = topics
        self._consumed = transport.consumed
        self._claims_lock = threading.Lock()
        self._routes: Routes[Receiver] = Routes(matches)
        self._take_now_of: dict[Receiver, TakeNow] = {}
        self._not_taken: dict[int, tuple[Inbound, list[Receiver]]] = {}
        """What `now` has not taken, until the dispatch thread comes to it: the receivers, by the delivery's id()."""
        self._routes_lock = threading.Lock()
        self._retained_named: set[str] = set()
        self._retained_once = RetainedOnce()
        self._thread: threading.Thread | None = None
        self.retransmitter = (
            None
            if topics is None
            else Retransmitter(
                source, self.node, topics, transport, tell=self.tell, hand_over=self.hand_over, is_fenced=self.is_fenced
            )
        )

    def check_not_forked(self, call: str) -> None:
        """Raises `NotAllowedHere` in a process that was forked from the one that this link belongs to."""
        if forks.times != self._forks:
            raise NotAllowedHere(call, "this process was forked from one that has the session; let that one do it")

    def open(self, timeout_s: float, *, dispatch: bool = True) -> None:
        """Connect, and start the dispatch thread. Without `dispatch` the owner calls `step()` itself."""
        self.transport.connect(timeout_s)
        if self.transport.version is ProtocolVersion.V311:
            self._envelope = self._envelope_twice = EnvelopeV311()
        if dispatch:
            self.transport.offer_to(self._take_now)
            self._thread = threading.Thread(target=self._dispatch, name=f"ether-dispatch-{self.source}", daemon=True)
            self._thread.start()
        if self.retransmitter is not None:
            self.retransmitter.open(self.listen)

    def close(self, timeout_s: float = 1.0) -> None:
        """Disconnect cleanly and end the dispatch thread. May be called twice."""
        if self.retransmitter is not None:
            self.retransmitter.say_goodbye()
        self.transport.close(timeout_s)
        if self.retransmitter is not None:
            self.retransmitter.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self.refusals.sum_up()

    @property
    def last_published(self) -> Receipt | None:
        """The receipt of the last message at QoS 1 on the data plane; None before the first."""
        return self._last.get(False)

    @property
    def node(self) -> str:
        """The end of the id of every message of this link."""
        return self._ids.node

    def fence(self, nodes: Iterable[str], name: str | None = None) -> None:
        """Refuse and count every message of these nodes from now on: other processes have taken their places. With
        `name` only what they send under that name, so that a fence for one name silences nobody else."""
        for node in nodes:
            if node != self.node:
                names = self._fenced.get(node, frozenset())
                self._fenced = {**self._fenced, node: names | {name}}

    def put_headers_twice(self) -> None:
        """From now on, every message carries its headers in the body, too."""
        self._envelope, self.headers_twice = self._envelope_twice, True

    @property
    def traits(self) -> dict[str, object]:
        """What was found out about the broker and the way to other members, for other links of the same program."""
        return {"wildcards_show_retained": self.wildcards_show_retained, "headers_twice": self.headers_twice}

    def take_on(self, traits: Mapping[str, object]) -> None:
        """Take over what another link has found out; after `open`."""
        shown = traits.get("wildcards_show_retained")
        self.wildcards_show_retained = shown if isinstance(shown, bool) else None
        if traits.get("headers_twice") is True:
            self.put_headers_twice()

    # -- out

    def publish(
        self,
        topic: str,
        value: object,
        *,
        qos: int = 1,
        retain: bool = False,
        parents: tuple[str, ...] = (),
        extra: ExtraHeaders | None = None,
        timeout_s: float = 10.0,
        keep: Keep | None = None,
    ) -> Receipt:
        """Publish a value on a full MQTT topic. Raises `EncodeError`, `PayloadTooLarge`, `PublishTimeout`, and
        `NotAllowedHere` in a forked process.

        A message with `keep` waits for room like any other while there is a connection. Without a connection, or where
        no room comes in time, it is recorded although it is not published; `unheard` counts these.

        Sequence numbers are given in the order in which the messages leave; a value that cannot be sent uses none.
        """
        if forks.times != self._forks:
            self.check_not_forked("publishing")
        envelope = self._envelope if extra is None or not extra.twice else self._envelope_twice
        value = envelope.prepare(value)  # before the lock is taken, because it may run user code
        message = (topic, value, wall_time(), qos, retain, parents, extra, keep)
        try:
            return self._send(message)
        except PublishTimeout as full:
            return self._send_when_there_is_room(message, full, timeout_s)

    def prepare(self, value: object, *, twice: bool = False) -> object:
        """What stands for a value that is published more than once: it is encoded only now, and may be changed
        afterwards. `twice` as in `ExtraHeaders`. Raises `EncodeError`."""
        return (self._envelope_twice if twice else self._envelope).prepare(value)

    def _envelope_of(self, extra: ExtraHeaders | None) -> Envelope:
        return self._envelope_twice if extra is not None and extra.twice else self._envelope

    def _send(self, message: _Message, room: Room | None = None, unheard: PublishTimeout | None = None) -> Receipt:
        """Number a message and give it to the transport, which does not wait: it raises `PublishTimeout` where it has
        no room and the message has none reserved. With `unheard` the message is recorded and not published."""
        topic, value, now, qos, retain, parents, extra, keep = message
        envelope = self._envelope if extra is None or not extra.twice else self._envelope_twice
        # The lock is held until the transport has the message: numbers must leave in their order.
        with self._publish_lock:
            # The number counts as used before the message leaves. An exception of a signal handler may end this
            # function anywhere, and receivers would drop a second message with the same number as a duplicate.
            sequence = self._sequences[topic] = self._sequences.get(topic, 0) + 1
            if sequence == 1:
                self._bound_sequences(topic)
            urgent = self._urgent.get(topic)
            if urgent is None:
                urgent = self._is_urgent(topic)
            if extra is not None and extra.urgent:
                urgent = True
            try:
                message_id = self._ids.next(int(now * 1000))
                if extra is None:
                    headers = Headers(message_id, self.source, sequence, now, parents)
                else:
                    headers = extra.complete(message_id, self.source, sequence, now, parents)
                packed = envelope.pack(value, headers)
                if keep is not None:
                    self._check_fits_batch(topic, packed.payload)
                receipt = Settled(unheard) if unheard is not None else self.transport.publish(
                    topic, packed.payload, qos=qos, retain=retain, properties=packed.properties, timeout_s=0.0,
                    room=room, urgent=urgent,
                )  # fmt: skip
            except Exception:
                self._sequences[topic] = sequence - 1
                raise
            if qos:
                self._last[urgent] = receipt
                if self.retransmitter is not None:
                    self.retransmitter.sent(topic, sequence, packed.payload, packed.properties)
                if extra is not None and extra.origin is not None:
                    self.caused.sent(extra.origin, topic, sequence)
            if keep is not None:
                keep(headers, envelope.body(packed, value))
        return receipt

    def _is_urgent(self, topic: str) -> bool:
        """Whether messages on a topic go before data; remembered, as every message asks."""
        urgent = is_urgent(topic)
        self._urgent.remember(topic, urgent)
        return urgent

    def _bound_sequences(self, topic: str) -> None:
        """A topic has its first message. Of those that are not of the data plane (every program that ever called has a
        reply topic) the latest are numbered on; a forgotten one begins at 1 again, which no receiver looks at."""
        if not is_data(topic):
            self._passing.append(topic)
            if len(self._passing) > _NUMBERED_PASSING:
                self._sequences.pop(self._passing.popleft(), None)

    def _send_when_there_is_room(self, message: _Message, full: PublishTimeout, timeout_s: float) -> Receipt:
        """Send a message for which the transport just had no room. The wait is outside of the lock, so that other
        threads can go on to their own waits, and to what needs no room."""
        topic, value, *_, extra, keep = message
        urgent = is_urgent(topic) or (extra is not None and extra.urgent)
        room = self.transport.room(topic, self._envelope_of(extra).size(value), urgent=urgent)
        recorded = keep is not None
        try:
            if timeout_s > 0 and (self.transport.connected or not recorded):
                room.wait(timeout_s)
                return self._send(message, room)
        except PublishTimeout as late:
            full = late
        finally:
            room.release()
        if not recorded:
            raise PublishTimeout(topic, timeout_s, full.why)
        self.unheard += 1
        return self._send(message, unheard=full)

    def stamp(
        self, what: str, value: object, parents: tuple[str, ...], origin: str | None = None
    ) -> tuple[Headers, Body]:
        """Headers and body of a value that is recorded without being published. `what` names the sequence that the
        value is numbered in. Raises `EncodeError` and `PayloadTooLarge`."""
        body = encode(value)
        self._check_fits_batch(what, body.payload)
        now = wall_time()
        with self._publish_lock:
            sequence = self._sequences[what] = self._sequences.get(what, 0) + 1
            headers = Headers(self._ids.next(int(now * 1000)), self.source, sequence, now, parents)
        return (headers if origin is None else headers._replace(origin=origin)), body

    def _check_fits_batch(self, what: str, payload: bytes) -> None:
        """A recorded value travels to recorders in a message that holds more than the value, and must fit in there."""
        if len(payload) > (limit := self.transport.max_packet_bytes - BATCH_OVERHEAD):
            raise PayloadTooLarge(what, len(payload), limit)

    def beat(self, topic: str, value: object) -> None:
        """Publish a heartbeat: at QoS 0, and without waiting for room. Raises `TransportError`."""
        self.tell(topic, value, qos=0, timeout_s=0.0)

    def tell(self, topic: str, value: object, *, timeout_s: float, qos: int = 1, schema: str | None = None) -> None:
        """Publish a message of this room's own, outside of the numbers of its topic, so that the order of such messages
        is not guaranteed. Raises `TransportError`."""
        self._side_sequence += 1
        now = wall_time()
        headers = Headers(self._ids.next(int(now * 1000)), self.source, self._side_sequence, now, (), schema)
        packed = self._envelope.pack(value, headers)
        self.transport.publish(topic, packed.payload, qos=qos, properties=packed.properties, timeout_s=timeout_s)

    def announce(self, topic: str, value: object) -> Receipt:
        """Publish a retained message, and repeat it after every reconnect, because a restarted broker has lost its
        retained messages. Does not wait for the broker (`await_taken`)."""
        self._announcements[topic] = value
        return self.publish(topic, value, retain=True)

    def leave_to_others(self, topic: str) -> None:
        """Stop repeating an announcement, without clearing it: from now on another process makes it."""
        self._announcements.pop(topic, None)

    def repeat(self, topic: str, facts: dict[str, object] | None = None) -> None:
        """Publish an announcement of this process again, after another process has overwritten it; with `facts` in
        place of those of the same names."""
        value = self._announcements.get(topic)
        if topic not in self._announcements:
            return
        if facts and isinstance(value, dict):
            value = self._announcements[topic] = {**value, **facts}
        self.publish(topic, value, retain=True, timeout_s=_ANNOUNCE_TIMEOUT_S)

    def withdraw(self, topic: str, timeout_s: float = 2.0) -> None:
        """Stop repeating an announcement, and clear it at the broker."""
        self.withdraw_all([topic], timeout_s)

    def withdraw_all(self, topics: Iterable[str], timeout_s: float = 2.0) -> None:
        """The same for several, one behind the other, with one wait for all of them: a broker may take 40 ms for
        each."""
        receipts: list[Receipt] = []
        for topic in topics:
            self._announcements.pop(topic, None)
            receipts.append(self.transport.publish(topic, b"", retain=True, timeout_s=timeout_s))
        for receipt in receipts:
            receipt.wait(timeout_s)

    @property
    def heads(self) -> dict[str, dict[str, int]]:
        """The last numbers of what this process has published of late, by node and topic, for `lacks` of others."""
        return self.retransmitter.heads() if self.retransmitter is not None else {}

    def heads_here(self) -> dict[str, int]:
        """The last number of what this process has published at QoS 1 on each topic of the data plane."""
        return self.retransmitter.last_numbers() if self.retransmitter is not None else {}

    def lacking(self, node: str, heads: Mapping[str, int], *, ask: bool) -> tuple[int, int]:
        """See `Retransmitter.lacking`."""
        return (0, 0) if self.retransmitter is None else self.retransmitter.lacking(node, heads, ask=ask)

    def pull_first(self, nodes: frozenset[str]) -> None:
        """See `Retransmitter.pull_first`."""
        if self.retransmitter is not None:
            self.retransmitter.pull_first(nodes)

    def lacks(self, heads: object, *, ask: bool = True) -> int:
        """On how many topics something of other processes has not arrived yet, although they have published it. With
        `ask` they are asked for it; without, it is taken to be on its way."""
        if self.retransmitter is None or not isinstance(heads, dict):
            return 0
        return self.retransmitter.lacks({str(node): _numbers(last) for node, last in heads.items()}, ask=ask)

    def flush(self, timeout_s: float) -> None:
        """Return when the broker has answered everything that was published before; raises `PublishTimeout`. Where it
        has refused a message, its publisher is told."""
        deadline = Deadline(timeout_s)
        for receipt in list(self._last.values()):
            try:
                receipt.wait(deadline.left())
            except (PublishRefused, PayloadTooLarge):
                continue

    def finish(self, timeout_s: float) -> int:
        """At an end: wait until the broker has taken what was published, as long as it goes on taking. Drops what could
        not be sent by then, which is logged; returns how many messages that were."""
        dropped = self.transport.finish(timeout_s)
        if dropped:
            logger.warning("%s dropped %s messages: the broker did not take them in time", self.source, f"{dropped:,}")
        return dropped

    # -- in

    def outstanding(self) -> dict[str, int]:
        """For each topic of the data plane how many messages its receivers here have not finished with: those in this
        process, and those that are known to exist at their sources."""
        return {} if self.retransmitter is None else self.retransmitter.outstanding()

    def missing(self) -> dict[str, int]:
        """For each topic how many messages are known to exist at their sources and are not in this process."""
        return {} if self.retransmitter is None else self.retransmitter.missing()

    @property
    def paused(self) -> bool:
        """Whether subscriptions are paused, because receivers here are behind: messages wait at their sources."""
        return self.retransmitter is not None and self.retransmitter.paused

    def resume_from(
        self, numbers: Mapping[tuple[str, str], tuple[str, int]], listened_s: float, predecessor: str
    ) -> None:
        """Take the place of a process that has ended: see `Retransmitter.resume_from`."""
        if self.retransmitter is not None:
            self.retransmitter.resume_from(numbers, listened_s, predecessor)

    def expect(self, sources: Iterable[str], since: float) -> None:
        """Get everything from sources that are started together with this process: see `Retransmitter.expect`."""
        if self.retransmitter is not None:
            self.retransmitter.expect(sources, since)

    def all_subscribed(self) -> None:
        """The subscriptions of the start are made."""
        if self.retransmitter is not None:
            self.retransmitter.all_subscribed()

    def have_heads_told(self, sources: Iterable[str]) -> None:
        """All that are started together are ready: see `Retransmitter.have_heads_told`."""
        if self.retransmitter is not None:
            self.retransmitter.have_heads_told(sources)

    def ask_for_missed(self) -> None:
        """All subscriptions of the predecessor are made: get what was not handled."""
        if self.retransmitter is not None:
            self.retransmitter.ask_for_missed()

    def listen(
        self,
        topic_filter: str,
        receiver: Receiver,
        *,
        now: TakeNow | None = None,
        qos: int = 1,
        timeout_s: float = 5.0,
    ) -> None:
        """Route a full MQTT topic filter to a receiver; returns when the broker has confirmed the subscription.

        `now` takes a message on the transport's thread, by only enqueueing it, and saves a change of threads. Every
        receiver of the data plane has it, so that messages of several topics keep their order. Where it returns False,
        the receiver itself is called with the message, on the dispatch thread.
        """
        with self._routes_lock:
            if now is not None:
                self._take_now_of[receiver] = now
            self._routes.add(topic_filter, receiver)
        if self.retransmitter is not None:
            self.retransmitter.listening(topic_filter, qos)
        try:
            self._subscribe(topic_filter, qos, timeout_s)
        except BaseException:
            # Nobody reads what this receiver would get from now on, by another filter of the same text.
            self._stop_routing(topic_filter, receiver)
            raise

    def listen_to_each(
        self, topic_filters: Sequence[str], receiver: Receiver, *, now: TakeNow, timeout_s: float = 5.0
    ) -> None:
        """Route several filters to one receiver, as `listen` does with one, and with one question to the broker. Not
        for filters of data, of which each is numbered."""
        with self._routes_lock:
            self._take_now_of[receiver] = now
            for topic_filter in topic_filters:
                self._routes.add(topic_filter, receiver)
                self._retained_once.subscribes(topic_filter)
        try:
            events = all(is_event(topic_filter) for topic_filter in topic_filters)
            self.transport.subscribe(topic_filters, timeout_s=timeout_s, as_published=events)
        except BaseException:
            for topic_filter in topic_filters:
                self._stop_routing(topic_filter, receiver)
            raise

    def listens_to(self, mqtt_topic: str) -> bool:
        """Whether a receiver of this process gets the messages on a topic."""
        with self._routes_lock:
            return bool(self._routes.match(mqtt_topic))

    def listen_all(self, routes: Sequence[tuple[str, TakeNow, int]], *, timeout_s: float = 5.0) -> None:
        """Route several filters, each with its receiver and QoS. A filter of several receivers is subscribed to once,
        with the highest of their QoS, and when all of them are there: its retained messages come once."""
        highest: dict[str, int] = {}
        for topic_filter, receiver, qos in routes:
            highest[topic_filter] = max(qos, highest.get(topic_filter, 0))
            with self._routes_lock:
                self._take_now_of[receiver] = receiver
                self._routes.add(topic_filter, receiver)
            if self.retransmitter is not None:
                self.retransmitter.listening(topic_filter, qos)
        for topic_filter, qos in highest.items():
            self._subscribe(topic_filter, qos, timeout_s)

    def _subscribe(self, topic_filter: str, qos: int, timeout_s: float) -> None:
        with self._routes_lock:
            self._retained_once.subscribes(topic_filter)
        self.transport.subscribe(
            [topic_filter], qos=qos, timeout_s=timeout_s, as_published=is_event(topic_filter),
            counted=is_data(topic_filter),
        )  # fmt: skip

    def unlisten(self, topic_filter: str, receiver: Receiver) -> None:
        """Stop routing a topic filter to a receiver. The subscription ends with its last receiver."""
        if self._stop_routing(topic_filter, receiver) and self.transport.connected:
            self.transport.unsubscribe([topic_filter])

    def _stop_routing(self, topic_filter: str, receiver: Receiver) -> bool:
        """Returns whether that was the last receiver of this filter."""
        with self._routes_lock:
            last = self._routes.remove(topic_filter, receiver)
            self._take_now_of.pop(receiver, None)
            if last:
                self._retained_once.unsubscribes(topic_filter)
        if last and self.retransmitter is not None:
            self.retransmitter.unlistening(topic_filter)
        return last

    def step(self, item: Item) -> None:
        """Process one item that the transport received: route a message, tell of a refusal, or react to a change of the
        connection."""
        match item:
            case Delivery():
                self._route(item)
            case Refusal():
                self._on_refusal(item)
            case ConnectionDown(reason):
                logger.warning("%s lost its connection to the broker: %s. Trying again...", self.source, reason)
                self.offline_since = self.offline_since or wall_time()
                with self._routes_lock:
                    self._retained_once.went_down()
                if self.retransmitter is not None:
                    self.retransmitter.went_down()
                self._tell_connection(False)
            case ConnectionUp():
                logger.info("%s is connected to the broker again", self.source)
                self.offline_since, self.back_at = None, time.monotonic()
                if self.retransmitter is not None:
                    self.retransmitter.came_up()
                self.announce_again()
                self._tell_connection(True)

    def _on_refusal(self, refusal: Refusal) -> None:
        """The broker will never take a message of this process. Receivers do not wait for its number; who is told of it
        depends on what it was."""
        headers = unpack_headers(refusal.payload, refusal.properties)
        if headers is not None and self.retransmitter is not None:
            self.retransmitter.refused(refusal.topic, headers.seq)
        if refusal.receipt.watched:
            return
        if headers is not None and any(take(refusal, headers) for take in tuple(self.on_refusal)):
            return
        topics = self._session_topics
        is_users = topics is not None and is_data(refusal.topic)
        self.refusals.note(topics.user_topic(refusal.topic) if topics and is_users else refusal.topic, refusal.error)

    def _tell_connection(self, up: bool) -> None:
        for callback in tuple(self.on_connection):
            callback(up)

    def _route(self, delivery: Delivery) -> None:
        """Give a message to its receivers, on the dispatch thread."""
        if self._not_taken and (left := self._not_taken.pop(id(delivery), None)) is not None:
            inbound, refusing = left
            for receiver in refusing:
                self._give(receiver, inbound)
            return
        if delivery.retained and is_event(delivery.topic):
            self._refuse_retained(delivery)
            return
        with self._routes_lock:
            receivers = self._routes.match(delivery.topic)
            if delivery.retained and is_data(delivery.topic):
                receivers = self._retained_once.fresh(delivery.topic, delivery.payload, receivers)
        if not receivers or self.transport.is_surplus(delivery):
            self.transport.consumed(delivery)
            return
        inbound = Inbound(delivery, len(receivers), self._claims_lock, self._consumed)
        if self._fenced and self._is_fenced(inbound):
            self._refuse(inbound)
            return
        if self.retransmitter is not None and self.retransmitter.takes(inbound):
            return
        for receiver in receivers:
            self._give(receiver, inbound)

    def _give(self, receive: Receiver | TakeNow, inbound: Inbound) -> object:
        """Call a receiver. Where it raises, its part of the message counts as done, and the others get the message all
        the same: one receiver's defect must neither deafen the others nor leave the message unread for ever."""
        try:
            return receive(inbound)
        except Exception:
            logger.exception("%s could not route a message on %s", self.source, inbound.delivery.topic)
            inbound.done()
            return True

    def hand_over(self, delivery: Delivery, done: Done | None = None) -> None:
        """Give a message to its receivers, past the reorder buffer. May be called on any thread, as receivers only
        enqueue. `done` is called when they have finished; None: the transport is told."""
        with self._routes_lock:
            receivers = self._routes.match(delivery.topic)
            takers = [self._take_now_of.get(receiver) for receiver in receivers]
        inbound = Inbound(delivery, len(receivers), self._claims_lock, done or self._consumed)
        if not receivers or (self._fenced and self._is_fenced(inbound)):
            inbound.drop()
            return
        for receiver, take in zip(receivers, takers, strict=True):
            if take is None or not self._give(take, inbound):
                self._give(receiver, inbound)

    def _take_now(self, delivery: Delivery) -> bool:
        """Give a message to its receivers on the transport's thread. False: the transport puts it into its queue, and
        the dispatch thread routes it."""
        if delivery.retained and is_event(delivery.topic):
            return False
        with self._routes_lock:
            receivers = self._routes.match(delivery.topic)
            takers = [self._take_now_of.get(receiver) for receiver in receivers]
        # All receivers or none: a message that is split between two threads would be counted and sorted twice.
        if not takers or None in takers:
            return False
        if delivery.retained and is_data(delivery.topic):
            with self._routes_lock:
                receivers = self._retained_once.fresh(delivery.topic, delivery.payload, receivers)
                takers = [self._take_now_of.get(receiver) for receiver in receivers]
        if not takers or self.transport.is_surplus(delivery):
            self.transport.consumed(delivery)
            return True
        inbound = Inbound(delivery, len(takers), self._claims_lock, self._consumed)
        if self._fenced and self._is_fenced(inbound):
            self._refuse(inbound)
            return True
        try:
            # The reorder buffer comes first. It keeps a duplicate, and a message behind a hole, from the receivers.
            if self.retransmitter is not None and self.retransmitter.takes(inbound):
                return True
        except Exception:  # as in the dispatch loop: one receiver's defect must not break the connection
            logger.exception("%s could not route a message", self.source)
            inbound.drop()
            return True
        left: list[Receiver] = []
        for receiver, take in zip(receivers, takers, strict=True):
            try:
                if take is None or not take(inbound):
                    left.append(receiver)
            except Exception:  # as in `_give`
                logger.exception("%s could not route a message on %s", self.source, delivery.topic)
                inbound.done()
        if left:
            # The dispatch thread gives the message to these receivers alone. The others have it.
            self._not_taken[id(delivery)] = (inbound, left)
        return not left

    def is_fenced(self, headers: Headers) -> bool:
        """Whether the messages of this message's sender are refused."""
        names = self._fenced.get(node_of(headers.id))
        return names is not None and (headers.source in names or None in names)

    def _is_fenced(self, inbound: Inbound) -> bool:
        headers = inbound.headers()
        return headers is not None and self.is_fenced(headers)

    def _refuse(self, inbound: Inbound) -> None:
        self.refused += 1
        self.transport.consumed(inbound.delivery)

    def _refuse_retained(self, delivery: Delivery) -> None:
        self.refused += 1
        self.transport.consumed(delivery)
        topic = delivery.topic
        if topic in self._retained_named or len(self._retained_named) >= _NAMED_RETAINED or not delivery.payload:
            return
        self._retained_named.add(topic)
        logger.warning(
            "%s ignores the retained message on %r: what is sent there counts once, when it is sent, and this one would"
            " count again at every start and reconnect. Somebody published it with the retain flag (mosquitto_pub -r,"
            " the switch of a dashboard). Remove it from the broker: mosquitto_pub -r -n -t '%s'",
            self.source, topic, topic,
        )  # fmt: skip

    @property
    def announced(self) -> dict[str, object]:
        """What this process has announced and repeats, by topic."""
        return dict(self._announcements)

    def announce_again(self) -> None:
        """Publish everything that was announced again, for all."""
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


def await_taken(announcement: Receipt) -> None:
    """Return when the broker has taken a process's first announcement. Raises `PublishRefused` where it does not:
    nobody would hear of that process. Returns after `TAKEN_S` in any case, since the link repeats announcements."""
    announcement.when_done(_watched)
    try:
        announcement.wait(TAKEN_S)
    except PublishTimeout:
        return


def _watched() -> None:
    """For a receipt whose publisher waits for it, and so needs no other word of a refusal."""


def reply_headers(inbound: Inbound, by: str, error: str | None = None) -> tuple[str, ExtraHeaders] | None:
    """The topic on which `by` answers, and the headers of the answer; None where the request asks for none. An answer
    to a request whose properties were lost on the way carries its headers twice, because it goes the same way back."""
    headers = inbound.headers()
    if headers is None or not headers.reply_to:
        return None
    if not may_be_answered(inbound.delivery.topic, headers.reply_to, stranger=False):
        return None
    return answer_topic(headers.reply_to, by), ExtraHeaders(
        correlation=headers.correlation, error=error, twice=lost_properties(inbound)
    )


def lost_properties(inbound: Inbound) -> bool:
    """Whether a message of Ether's arrived without its MQTT 5 properties, or its sender speaks 3.1.1."""
    return not has_property_headers(inbound.delivery.properties)


def _numbers(value: object) -> dict[str, int]:
    return {key: number for key, number in value.items() if type(number) is int} if isinstance(value, dict) else {}


def trace_of(message_id: str) -> str:
    """The chain of calls that a message begins: 32 hexadecimal digits, as W3C trace context has them."""
    return message_id.replace("-", "")
