"""Retransmission: no message that was published at QoS 1 is lost between a sender and a receiver that both live. A
receiver that missed messages asks their source, and the source sends them again, to that receiver alone.

`ether.protocol.retransmit_buffer` decides what a source can send again, `ether.protocol.audience` which receivers have
to be told what exists, `ether.protocol.reorder_buffer` what a receiver misses. This module moves what they say, on the
topics `control/missed/all` (to every process) and `control/missed/<node>` (to one process). A message that is sent
again keeps its bytes, headers included. Its topic is the receiver's own topic, followed by the original one:
`control/missed/<node>/<topic>`. The answer that says what was sent again follows on the same topic, because a broker
keeps the order of one topic only.

A slow receiver. While its receivers are many messages behind, it ends its subscriptions (it pauses them), and asks the
sources for what exists, a portion at a time. Nothing then waits for it at the broker, which would drop it, or hold back
the answers to calls of the same process; it waits at its source, which knows by the reports how far each reader is.

The trap: questions, answers and repeated messages arrive on the transport's thread, where code may only enqueue.
Whatever publishes, waits or reads a file is a task for a thread of this module.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

from ether.connection.inbound import Done, Inbound
from ether.connection.spill import FileSpill
from ether.errors import PayloadTooLarge, TransportClosed, TransportError
from ether.log import get_ether_logger
from ether.protocol.audience import REPORT_S, Audience
from ether.protocol.reorder_buffer import Gap, ReorderBuffer, Sorted, Verdict
from ether.protocol.retransmit_buffer import BACKLOG_BYTES, YOUNG_S, Ask, Resent, RetransmitBuffer, seconds_on_the_way
from ether.protocol.sent_log import Load, SentMessage
from ether.system.clock import wall_time
from ether.transport.base import Delivery, Transport
from ether.wire.head import Headers, node_of
from ether.wire.topics import MQTT_MAX_BYTES, MQTT_MAX_LEVELS, SessionTopics, is_data, matches

logger = get_ether_logger("Ether")

Note = Callable[[str, int, bytes, bytes, float], Load]
"""Notes a message that has left: its topic, number, payload, properties, and the time in seconds of a steady clock.
Tells whether there is work for this module's thread, or too much."""


Taken = Callable[[str, str, int, bool], int]
"""Given a topic, a node, the last number that was handed on, and whether messages of the topic are in this process:
returns the number up to which a source needs to keep nothing for it."""


class Tell(Protocol):
    """Publishes a value of this module's own on a full MQTT topic; raises `TransportError`."""

    def __call__(self, topic: str, value: object, *, timeout_s: float, schema: str | None = None) -> object: ...


class HandOver(Protocol):
    """Gives a message to the receivers of its topic. `done` is called when they have finished; without it the
    transport is told."""

    def __call__(self, delivery: Delivery, done: Done | None = None) -> object: ...


class Listen(Protocol):
    """Routes a topic filter to a receiver, which takes each message on the transport's thread (`now`)."""

    def __call__(
        self, topic_filter: str, receiver: Callable[[Inbound], bool], /, *, now: Callable[[Inbound], bool]
    ) -> object: ...


_ANSWER = "ether/missed"
"""The schema of an answer that stands behind the messages that were sent again."""

_EVERYBODY = "all"
_LOOK_S = 0.25
"""How often holes are looked at while there are any."""

_SEND_TIMEOUT_S = 10.0
_SUBSCRIBE_TIMEOUT_S = 5.0

_PORTION_COUNT, _PORTION_BYTES = 500, 8 << 20
"""Up to so much the receivers are given to do; a source is asked for more when they have done half of it. As much as a
source sends for one question."""

_CROWDED_COUNT, _CROWDED_BYTES = 500, 8 << 20
_PAUSE_AFTER_S = 1.0
"""Where receivers have been so much behind for so long, they are slow; less is a burst."""

_FLOOD_COUNT, _FLOOD_BYTES = 8000, 24 << 20
"""So much at once is no burst either. What comes beyond that is acknowledged and left at its source: less than what the
transport takes in (`receive_queue.WIDE_COUNT`), so that nothing waits at the broker, in the way of calls."""

_FLOOD_LOOK_S = 0.1
"""How often the crowd is looked at while it is not decided."""

_SHALLOW_WINDOW = 100
"""A broker that has fewer messages under way to a client at a time may queue few for it as well, and drop the rest,
requests and answers included: Mosquitto as everybody has it has 20 under way, and queues 1,000. There, receivers are
paused as soon as they are behind."""

_FEW = _PORTION_COUNT // 10
"""With no more than this to do, a receiver that was slow has caught up."""

_DROPPED_EVERY_S = 10.0
"""How often it is said that readers will miss messages, at most."""

_REMEMBERED_TOPICS = 4096
_HEADS_MAX = 1000
"""The last numbers of so many topics are told with an answer, at most."""
_ASIDE_MAX = 20_000
"""The most messages that the transport does not count as unread although receivers have not finished with them: those
that wait behind a hole, and those that did and are now in the receivers' queues."""


class _OpenAsks:
    """The questions that wait for an answer and name only holes: one for each reader."""

    def __init__(self) -> None:
        self._asks: dict[str, Ask] = {}
        self._lock = threading.Lock()

    def add(self, ask: Ask) -> bool:
        """Whether none of the same reader was waiting; one that was becomes one with this."""
        with self._lock:
            earlier = self._asks.get(ask.by)
            self._asks[ask.by] = ask if earlier is None else ask.with_earlier(earlier)
        return earlier is None

    def pop(self, node: str) -> Ask:
        with self._lock:
            return self._asks.pop(node)


class Retransmitter:
    """What one link sent lately, and what it misses."""

    def __init__(
        self,
        source: str,
        node: str,
        topics: SessionTopics,
        transport: Transport,
        *,
        tell: Tell,
        hand_over: HandOver,
        is_fenced: Callable[[Headers], bool],
    ) -> None:
        """`source` is the link's name for people, `node` the end of its message ids. `is_fenced` tells from a message's
        id whether its sender is refused."""
        self.missed = 0
        """Sequence numbers that were given up, each of them reported."""
        self.on_gap: Callable[[Gap], object] = lambda gap: None
        """Called with each gap that is reported, on this module's own thread."""
        self.taken: Taken = lambda topic, node, last, present: last
        """How far the receivers have come on a topic, of what a node sends there."""
        self._source, self._node = source, node
        self._transport = transport
        self._tell, self._hand_over, self._is_fenced = tell, hand_over, is_fenced
        self._own = topics.missed(node)
        self._all = topics.missed(_EVERYBODY)
        self._topics = topics
        self._spill = FileSpill()
        self._tending = threading.Lock()
        """Guards what tends the buffer, and `_untold`: this module's thread, and a publisher that is faster than it.
        Held while files are written and read, never while anything waits for the network."""
        self._retransmit_buffer = RetransmitBuffer(young_s=YOUNG_S, spill=self._spill, began=time.monotonic())
        self._audience = Audience()
        self._audience_lock = threading.Lock()
        self._open_asks = _OpenAsks()
        self._untold: dict[str, tuple[int, int]] = {}
        """Of each topic what readers will miss and nobody has logged yet: the count, and the highest number."""
        self._untold_at = float("-inf")
        self._notes: dict[str, Note] = {}
        self._reorder_buffer: ReorderBuffer[Delivery] = ReorderBuffer()
        self._tracked: dict[str, bool] = {}
        self._lock = threading.Lock()
        """Guards `_reorder_buffer` and `_tracked`. Held while messages are handed over, to keep their order."""
        self._tasks: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._echo = ""
        self._loose = 0
        """Messages that were held here, and that receivers have not finished with."""
        self._loose_topics: dict[str, int] = {}
        self._loose_bytes = 0
        self._foreign: set[str] = set()
        """Topics with messages that have no number: these cannot be asked for, so the topics are never paused."""
        self._active = False
        """Whether anything was sent or heard, so that there is something to report or to tell."""
        self._crowded_since: float | None = None
        self._periodic_at = 0.0
        self._loose_lock = threading.Lock()
        self._ends: dict[str, Any] = {}
        """What the sources are told of the process whose place this one takes."""
        self._leaving = self._ending = self._wide = False
        self._pulled_first: frozenset[str] = frozenset()
        self._closed = False

    def open(self, listen: Listen) -> None:
        """Listen to questions, answers and repeated messages."""
        listen(self._own + "/#", self._hear, now=self._hear)
        listen(self._all, self._hear, now=self._hear)
        self._transport.when_long(self._on_long)
        self._start()

    def say_goodbye(self) -> None:
        """Tell the receivers not to ask this process any more, and the sources to keep nothing for it; before the
        connection is closed."""
        if (self._retransmit_buffer.heads() or self._reorder_buffer.heard) and self._transport.connected:
            left: dict[str, Any] = {"node": self._node, "left": True}
            if self._leaving:
                self._report_progress()
                left["returns"] = True
            try:
                self._tell(self._all, left, timeout_s=0.0)
            except TransportError:
                return  # a receiver that asks in vain reports it

    def close(self) -> None:
        """Stop answering and holding; after the connection was closed. May be called twice."""
        with self._loose_lock:
            closed, self._closed = self._closed, True
            thread = self._thread
        if thread is not None and not closed:
            self._tasks.put(None)
            thread.join()
        with self._tending:
            self._spill.close()

    @property
    def paused(self) -> bool:
        """Whether this process takes messages from their sources at its own pace."""
        return self._reorder_buffer.is_paused

    def outstanding(self) -> dict[str, int]:
        """For each topic how many messages its receivers here have not finished with: those in this process, and those
        that are known to exist at their sources."""
        found = self._present()[0]
        for topic, count in self.missing().items():
            found[topic] = found.get(topic, 0) + count
        return found

    def missing(self) -> dict[str, int]:
        """For each topic how many messages are known to exist at their sources and are not in this process."""
        with self._lock:
            return self._reorder_buffer.missing()

    # -- the sender's side

    def sent(self, topic: str, sequence: int, payload: bytes, properties: bytes) -> None:
        """Note a message that has left at QoS 1. Called for each one, in the order of the numbers of its topic."""
        note = self._notes.get(topic) or self._note_of(topic)
        if growth := note(topic, sequence, payload, properties, now := time.monotonic()):
            if growth is Load.FAR:
                self._tend_buffer(now)
            self._tasks.put(_only_wake)

    def refused(self, topic: str, sequence: int) -> None:
        """The broker will never take this message: it is not sent again, and receivers do not wait for its number."""
        if is_data(topic):
            self._retransmit_buffer.refuse(topic, sequence)

    def _note_of(self, topic: str) -> Note:
        """What is done with the messages of a topic, decided once for each topic. A topic that is too long for a
        receiver's own topic before it cannot be sent again."""
        whole = f"{self._own}/{topic}"
        note: Note = _ignore
        if is_data(topic):
            self._active = True
            fits = len(whole.encode()) <= MQTT_MAX_BYTES and whole.count("/") < MQTT_MAX_LEVELS
            note = self._retransmit_buffer.note if fits else self._retransmit_buffer.pass_over
        if len(self._notes) < _REMEMBERED_TOPICS:
            self._notes[topic] = note
        self._tasks.put(_only_wake)  # from now on there is something to tell
        return note

    def _to_answer(self, ask: Ask) -> None:
        """Have a question answered. One that came before from the same reader, and waits still, is answered with it:
        who is asked twice because it is slow would otherwise send everything twice."""
        if ask.filters or ask.last:
            self._do(partial(self._answer, ask))
        elif self._open_asks.add(ask):
            self._do(lambda: self._answer(self._open_asks.pop(ask.by)))

    def _answer(self, ask: Ask) -> None:
        self._tend_buffer(now := time.monotonic())
        with self._tending:
            answers = self._retransmit_buffer.answer(ask, self._node, matches, now)
        to = self._topics.missed(ask.by)
        for answer in answers:
            for message in answer.messages:
                self._send_again(to, message)
            if answer.messages:
                said = {"answer": {answer.topic: answer.to_value()}, "node": self._node}
                self._tell(f"{to}/{answer.topic}", said, timeout_s=_SEND_TIMEOUT_S, schema=_ANSWER)
        if others := {answer.topic: answer.to_value() for answer in answers if not answer.messages}:
            self._tell(to, {"answer": others, "node": self._node}, timeout_s=_SEND_TIMEOUT_S)

    def _send_again(self, to: str, message: SentMessage) -> None:
        topic = f"{to}/{message.topic}"
        try:
            self._transport.publish(topic, message.payload, properties=message.properties, timeout_s=_SEND_TIMEOUT_S)
        except PayloadTooLarge as error:  # the topic is longer than the original; the receiver reports the gap
            logger.warning("%s cannot send a message again: %s", self._source, error)

    def _tend(self, now: float) -> None:
        """Let go of what every reader has got, and tell readers what they may not know of."""
        heads = self._retransmit_buffer.heads()
        if not heads:
            return
        self._tend_buffer(now)
        with self._audience_lock:
            behind = self._audience.behind(heads, now)
            everybody = self._audience.unannounced(heads)
            self._audience.looked(heads)
        if self._untold and now - self._untold_at >= _DROPPED_EVERY_S:
            self._untold_at = now
            self._say_dropped()
        for node, missing in behind.items():
            self._tell_heads(self._topics.missed(node), missing)
        if everybody:
            self._tell_heads(self._all, everybody)

    def _tend_buffer(self, now: float) -> None:
        with self._tending:
            with self._audience_lock:
                floors = self._audience.floors()
            dropped = self._retransmit_buffer.tend(floors, now)
            for topic, (count, last) in dropped.topics.items():
                self._untold[topic] = self._untold.get(topic, (0, 0))[0] + count, last

    def _tell_heads(self, topic: str, heads: Mapping[str, int]) -> None:
        self._guarded(partial(self._tell, topic, {"node": self._node, "heads": heads}, timeout_s=_SEND_TIMEOUT_S))

    def _say_dropped(self) -> None:
        with self._tending:
            untold, self._untold = self._untold, {}
        for topic, (count, last) in untold.items():
            name = self._topics.user_topic(topic)
            logger.warning(
                "%s keeps no more than %d MB for slow readers: %d messages on %r, up to number %d, will be missed by a "
                "reader. Its subscription can ask for less: keep='latest', or max_age",
                self._source, BACKLOG_BYTES >> 20, count, name, last,
                extra={"ether": {"topic": name, "count": count, "last": last}},
            )  # fmt: skip

    def _on_report(self, node: str, got: Mapping[str, int], pulls: Iterable[str]) -> None:
        """A reader says how far it is. Of the topics that it pulls, no message reveals to it what exists.

        Taken note of at once, on the transport's thread: while this module's own thread sends messages again, the
        buffer must not let go of what this reader lacks."""
        with self._audience_lock:
            self._audience.report(node, got, time.monotonic())
        heads = self._retransmit_buffer.heads()
        ahead = {topic: heads[topic] for topic in pulls if heads.get(topic, 0) > got.get(topic, 0)}
        if ahead:
            self._do(partial(self._tell_heads, self._topics.missed(node), ahead))

    def _on_end(self, node: str, topics: Iterable[str] | None = None) -> None:
        """A reader has left, or has ended its subscriptions to these topics."""
        with self._audience_lock:
            self._audience.ends(node, topics)

    # -- the receiver's side

    def resume_from(
        self, numbers: Mapping[tuple[str, str], tuple[str, int]], listened_s: float, predecessor: str
    ) -> None:
        """Go on in the place of a process that has ended, the node `predecessor`, which had listened for `listened_s`
        seconds. `numbers`: for each topic and node the source's name, and the last number that was handled. To be
        called before listening; then `ask_for_missed`."""
        now = time.monotonic()
        self._ends = {"by": predecessor, "ends": sorted({topic for topic, _ in numbers})}
        with self._lock:
            self._reorder_buffer.take_over(numbers, now - listened_s, now)

    def ask_for_missed(self) -> None:
        """Ask every source for what came since; all subscriptions are confirmed. The sources keep it for this process
        from now on, and not for its predecessor: they are told in this order."""
        with self._lock:
            self._reorder_buffer.taken_over()
        self._do(self._report_progress)
        self.came_up()
        self._do(partial(self._tell, self._all, self._ends, timeout_s=_SEND_TIMEOUT_S))

    def expect(self, sources: Iterable[str], since: float) -> None:
        """Get everything that these sources publish, also before this process listens: they are started together with
        it, since that time of the steady clock. To be called before listening; then `all_subscribed`."""
        with self._lock:
            self._reorder_buffer.expect(sources, since)

    def all_subscribed(self) -> None:
        """What is listened to from now on is wanted from now on."""
        with self._lock:
            self._reorder_buffer.taken_over()

    def have_heads_told(self, sources: Iterable[str]) -> None:
        """Ask these sources to tell everybody their last numbers: those that have just become ready may lack what a
        source has published, and published nothing since."""
        said = {"tell": sorted(sources)}
        self._do(partial(self._tell, self._all, said, timeout_s=_SEND_TIMEOUT_S))

    def leave_to_successor(self) -> None:
        """This process is about to be started again: ask for nothing more. At the end the sources are not told to keep
        nothing more for it, but how far it has come."""
        self._leaving = True

    def ask_no_more(self) -> None:
        """This process ends, and handles no more messages: leave what has not come where it is."""
        self._ending = True

    def listening(self, topic_filter: str, qos: int) -> None:
        """Track the topics that match from now on."""
        if qos and is_data(topic_filter):
            with self._lock:
                self._reorder_buffer.listen(topic_filter, time.monotonic())
                self._tracked = {}

    def unlistening(self, topic_filter: str) -> None:
        """Stop tracking the topics that no other filter matches."""
        with self._lock:
            if topic_filter in self._reorder_buffer.filters:
                left = [name for name in self._reorder_buffer.filters if name != topic_filter]
                still = [(topic, any(matches(name, topic) for name in left)) for topic in self._reorder_buffer.topics]
                ends = self._reorder_buffer.unlisten(topic_filter, still)
                self._tracked = {}
                for node, topics in ends.items():
                    said = {"by": self._node, "ends": topics}
                    self._do(partial(self._tell, self._topics.missed(node), said, timeout_s=0.0))

    def takes(self, inbound: Inbound) -> bool:
        """True where a message must not go to its receivers now: it is a duplicate, or one before it is missing. Called
        for each message, on the thread that gives it to its receivers."""
        delivery = inbound.delivery
        tracked = self._tracked.get(delivery.topic)
        if tracked is False:
            return False
        headers = inbound.headers()
        if headers is None or delivery.retained or (tracked is None and not self._tracks(delivery.topic)):
            if headers is None and len(self._foreign) < _REMEMBERED_TOPICS:
                self._foreign.add(delivery.topic)
            return False
        node = node_of(headers.id)
        # The common case, the message that is next in order, takes no lock. Other threads change only rows that are
        # waiting, and `passes` refuses those.
        full = self._wide and self._is_full()
        if not full and self._reorder_buffer.passes(delivery.topic, node, headers.seq):
            return False
        with self._lock:
            self._arrived(delivery, delivery, node, headers.source, headers.seq, full=full)
        return True

    def _is_full(self) -> bool:
        """Whether so much waits for the receivers that a message is better left at its source."""
        count, size = self._transport.unread_total()
        held = self._reorder_buffer
        return count + self._loose + held.held >= _FLOOD_COUNT or (
            size + self._loose_bytes + held.held_bytes >= _FLOOD_BYTES
        )

    def _tracks(self, topic: str) -> bool:
        with self._lock:
            tracked = is_data(topic) and any(matches(name, topic) for name in self._reorder_buffer.filters)
            if len(self._tracked) < _REMEMBERED_TOPICS:
                self._tracked[topic] = tracked
        return tracked

    def _arrived(
        self, delivery: Delivery, came_as: Delivery, node: str, source: str, number: int, *, full: bool = False
    ) -> None:
        """Sort one message in; under the lock. `came_as` is what the transport delivered: another object than
        `delivery` where a message was sent again.

        A message that is held counts as read (`consumed`): otherwise the held ones could fill the receive queue, and
        the broker would not send the missing ones."""
        size = len(delivery.payload) + len(delivery.properties)
        self._reorder_buffer.room = _ASIDE_MAX - self._loose
        sources = self._reorder_buffer.sources
        result = self._reorder_buffer.arrived(
            delivery.topic, node, source, number, delivery, size, time.monotonic(), full=full
        )
        at_once = delivery is came_as and result is not None and bool(result.ready) and result.ready[0] is delivery
        if not at_once:
            self._transport.consumed(came_as)
        if result is not None:
            self._hand_on(result, at_once)
        if self._reorder_buffer.sources > sources:  # a source that has not heard of this reader: it is told at once
            self._active, self._periodic_at = True, 0.0
            self._do(_only_wake)
        self._look_after()

    def _hand_on(self, result: Sorted[Delivery], at_once: bool = False) -> None:
        """Give messages to their receivers; under the lock, so that none overtakes another. `at_once`: the first one
        has just arrived and still counts as unread at the transport. The others do not, and count in `_loose`."""
        for delivery in result.ready:
            if at_once:
                self._hand_over(delivery)
            else:
                with self._loose_lock:
                    self._loose += 1
                    self._loose_bytes += len(delivery.payload)
                    self._loose_topics[delivery.topic] = self._loose_topics.get(delivery.topic, 0) + 1
                self._hand_over(delivery, done=self._done)
            at_once = False
        if result.gaps:
            self._do(partial(self._report, result.gaps))

    def _done(self, delivery: Delivery) -> None:
        topic, size = delivery.topic, len(delivery.payload)
        with self._loose_lock:
            self._loose -= 1
            self._loose_bytes -= size
            left = self._loose_topics[topic] - 1
            if left:
                self._loose_topics[topic] = left
            else:
                del self._loose_topics[topic]
            bytes_left = self._loose_bytes
        # There is room for another portion from now on.
        if left in (_PORTION_COUNT // 2, 0) or bytes_left <= _PORTION_BYTES // 2 < bytes_left + size:
            self._tasks.put(_only_wake)

    def _present(self) -> tuple[dict[str, int], int]:
        """The messages of each topic in this process that receivers have not finished with, and the bytes of all."""
        found, size = self._transport.unread()
        found = {topic: count for topic, count in found.items() if is_data(topic)}
        with self._loose_lock:
            loose, size = dict(self._loose_topics), size + self._loose_bytes
        for topic, count in loose.items():
            found[topic] = found.get(topic, 0) + count
        return found, size

    def _report_progress(self) -> None:
        """Tell each source how far this reader is."""
        present = self._present()[0]
        with self._lock:
            news = self._reorder_buffer.news(lambda topic, node, last: self.taken(topic, node, last, topic in present))
            pulled = self._reorder_buffer.pulled
        for node, got in news.items():
            said = {"by": self._node, "got": got, "pulls": [topic for topic in got if topic in pulled]}
            try:
                self._tell(self._topics.missed(node), said, timeout_s=0.0)
            except TransportError:
                return  # the sources tell how far they are, and are answered

    def _on_long(self) -> None:
        """The queue of unread messages has become long. On the network thread."""
        self._do(self._hear_all if self._transport.window >= _SHALLOW_WINDOW else self._watch_now)

    def _hear_all(self) -> None:
        """Leave nothing at the broker while it is not decided yet whether this is a burst or a slow reader: what waits
        there is in the way of calls to this process."""
        self._wide = True
        self._transport.widen(True)

    def _watch_now(self) -> None:
        self._watch_crowd(time.monotonic())

    def _watch_crowd(self, now: float) -> None:
        """Pause what comes faster than the receivers take it, and resume what they have caught up with."""
        if self._leaving or self._ending:
            return
        present, size = self._present()
        if sum(present.values()) < _CROWDED_COUNT and size < _CROWDED_BYTES:
            self._crowded_since = None
            self._resume(present)
            if self._wide and not self.paused:
                self._wide = False
                self._transport.widen(False)
        elif self._transport.window < _SHALLOW_WINDOW:
            self._pause(present)
        elif self._crowded_since is None:
            self._crowded_since = now
        elif now - self._crowded_since >= _PAUSE_AFTER_S or self._is_full():
            self._pause(present)

    def _pause(self, present: Mapping[str, int]) -> None:
        most = max(present.values(), default=0)
        crowded = [topic for topic, count in present.items() if count > most // 4 and self._tracked.get(topic)]
        if any(topic in self._foreign for topic in crowded):
            return
        with self._lock:
            names = self._reorder_buffer.pause(crowded)
        if names:
            topics = ", ".join(repr(self._topics.user_topic(topic)) for topic in crowded)
            logger.info("%s is behind on %s: it takes what waits at its sources at its own pace", self._source, topics)
            self._transport.unsubscribe(names, timeout_s=_SUBSCRIBE_TIMEOUT_S)
            # What the broker still has for these topics would stay in the way of requests and answers.
            self._hear_all()

    def _resume(self, present: Mapping[str, int]) -> None:
        with self._lock:
            names = self._reorder_buffer.caught_up()
        names = [name for name in names if _count_of(name, present) <= _FEW]
        if not names or not self._transport.connected:
            return
        self._wide = False
        self._transport.widen(False)
        self._transport.subscribe(names, timeout_s=_SUBSCRIBE_TIMEOUT_S)
        with self._lock:
            ask = self._reorder_buffer.resume(names, self._node, time.monotonic())
        if ask is not None:
            self._tell(self._all, {"node": self._node, "ask": _asked_now(ask)}, timeout_s=_SEND_TIMEOUT_S)

    def _report(self, gaps: Iterable[Gap]) -> None:
        for gap in gaps:
            self.missed += gap.last - gap.first + 1
            numbers = f"{gap.first} to {gap.last}" if gap.last > gap.first else str(gap.first)
            topic = self._topics.user_topic(gap.topic)
            logger.warning(
                "%s missed messages of %s on %r, number %s: %s",
                self._source, gap.source or "an instance", topic, numbers, gap.why,
                extra={"ether": {"source": gap.source, "topic": topic, "first": gap.first, "last": gap.last}},
            )  # fmt: skip
            self._guarded(partial(self.on_gap, gap._replace(topic=topic)))

    # -- outages

    def went_down(self) -> None:
        """The connection was lost."""
        with self._lock:
            self._reorder_buffer.went_deaf(time.monotonic())
            self._echo = ""

    def came_up(self) -> None:
        """The connection is back: ask every process for what was missed, and announce the own last numbers."""
        with self._lock:
            ask = self._reorder_buffer.came_back(self._node, time.monotonic())
        heads = self._retransmit_buffer.heads()
        said: dict[str, Any] = {"node": self._node}
        if ask.filters:
            said["ask"] = _asked_now(ask)
        if heads:
            said["heads"] = heads
        self._do(partial(self._tell, self._all, said, timeout_s=_SEND_TIMEOUT_S))

    # -- what other processes say, on the transport's thread

    def _hear(self, inbound: Inbound) -> bool:
        topic = inbound.delivery.topic
        if topic not in (self._own, self._all):
            return self._hear_again(inbound, topic[len(self._own) + 1 :])
        headers = inbound.headers()
        value = inbound.take()
        if isinstance(value, dict):
            self._understand(value, headers.source if headers is not None else "")
        return True

    def _hear_again(self, inbound: Inbound, topic: str) -> bool:
        """Sort in a message that was sent again, as if it had come on its own topic."""
        came_as, headers = inbound.delivery, inbound.headers()
        if headers is not None and headers.schema == _ANSWER:
            value = inbound.take()
            if isinstance(value, dict):
                self._understand(value)
            return True
        if headers is None or self._is_fenced(headers) or not self._tracks(topic):
            inbound.done()
            return True
        delivery = Delivery(topic, came_as.payload, came_as.qos, False, came_as.properties)
        with self._lock:
            self._arrived(delivery, came_as, node_of(headers.id), headers.source, headers.seq)
        return True

    def _understand(self, value: Mapping[str, Any], source: str = "") -> None:
        ask = Ask.from_value(value.get("ask"))
        if ask is not None:
            took_s = seconds_on_the_way(value["ask"].get("at"), wall_time())
            self._to_answer(ask.older(took_s))
        match value:
            case {"node": str(node), "heads": dict(heads)} if node != self._node:
                self._on_heads(node, _numbers(heads), source)
            case {"node": str(node), "answer": dict(answers)}:
                self._on_answer(node, answers)
            case {"node": str(node), "left": True}:
                with self._lock:
                    self._reorder_buffer.left(node)
                if value.get("returns") is not True:
                    self._on_end(node)
            case {"by": str(node), "got": dict(got), "pulls": list(pulls)}:
                self._on_report(node, _numbers(got), [name for name in pulls if name in got])
            case {"tell": list(sources)} if self._source in sources and (told := self._retransmit_buffer.heads()):
                self._do(partial(self._tell_heads, self._all, told))
            case {"by": str(node), "ends": list(topics)}:
                self._on_end(node, [name for name in topics if isinstance(name, str)])
            case {"echo": str(token), "said": float(said_at)} if token == self._echo:
                self._on_echo(said_at)

    def heads(self) -> dict[str, dict[str, int]]:
        """This process's last number on each topic that it has published on, by its node."""
        heads = list(self._retransmit_buffer.heads().items())[-_HEADS_MAX:]
        return {self._node: dict(heads)} if heads else {}

    def last_numbers(self) -> dict[str, int]:
        """The same of all topics, without the node."""
        return self._retransmit_buffer.heads()

    def lacking(self, node: str, heads: Mapping[str, int], *, ask: bool) -> tuple[int, int]:
        """How many messages of a node up to these numbers have not come to the receivers, and on how many topics it is
        not known. A node is asked for what does not come by itself; with `ask` for all of it. May be called on the
        transport's thread."""
        wanted = {topic: number for topic, number in heads.items() if self._tracks(topic)}
        with self._lock:
            missing, unknown, untold = self._reorder_buffer.lacking(node, wanted, ask=ask)
        if untold:
            self._on_heads(node, {topic: wanted[topic] for topic in untold})
            self._do(_only_wake)
        return missing, unknown

    def pull_first(self, nodes: frozenset[str]) -> None:
        """Of what waits at its sources, get that of these nodes first: calls wait for it."""
        self._pulled_first = nodes

    def lacks(self, heads: Mapping[str, Mapping[str, int]], *, ask: bool = True) -> int:
        """On how many topics not everything has arrived up to the last numbers of other processes, as `heads()` gave
        them. With `ask` they are asked for the rest. May be called on the transport's thread."""
        count = 0
        for node, numbers in heads.items():
            wanted = {topic: number for topic, number in numbers.items() if self._tracks(topic)}
            with self._lock:
                behind = {} if node == self._node else self._reorder_buffer.behind(node, wanted)
            count += len(behind)
            if ask and (fresh := {topic: wanted[topic] for topic, asked in behind.items() if not asked}):
                self._on_heads(node, fresh)
        return count

    def _on_heads(self, node: str, heads: Mapping[str, int], source: str = "") -> None:
        wanted = [topic for topic in heads if self._tracks(topic)]
        with self._lock:
            ask = self._reorder_buffer.heard_heads(node, heads, wanted, self._node, time.monotonic(), source)
            self._look_after()
        if ask is not None:
            self._do(partial(self._ask, node, ask))

    def _on_answer(self, node: str, said: Mapping[str, Any]) -> None:
        read = [Resent.from_value(topic, value) for topic, value in said.items() if self._tracks(topic)]
        answers = [answer for answer in read if answer is not None]
        with self._lock:
            self._hand_on(self._reorder_buffer.answered(node, answers, time.monotonic()))
            self._look_after()

    def _on_echo(self, said_at: float) -> None:
        """The process's own message to itself is back: the connection brings what other processes say."""
        with self._lock:
            self._conclude(self._reorder_buffer.echoed(said_at, time.monotonic()))
            self._look_after()

    def _conclude(self, verdict: Verdict[Delivery]) -> None:
        """Act on what follows from sources that have not answered; under the lock."""
        self._hand_on(verdict.sorted)
        if verdict.doubtful:
            names = ", ".join(name or "an instance" for name in verdict.doubtful)
            why = "%s does not know whether it missed messages of %s, which does not answer since the outage"
            self._do(partial(logger.warning, why, self._source, names))

    # -- on the own thread

    def _ask(self, node: str, ask: Ask) -> None:
        self._tell(self._topics.missed(node), {"ask": _asked_now(ask)}, timeout_s=_SEND_TIMEOUT_S)

    def _do(self, task: Callable[[], object]) -> None:
        self._tasks.put(task)

    def _look_after(self) -> None:
        """Wake the own thread where something waits; under the lock."""
        if self._reorder_buffer.busy:
            self._do(_only_wake)

    def _start(self) -> None:
        with self._loose_lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name=f"ether-resend-{self._source}", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                task = self._tasks.get(timeout=self._look_again_s())
            except queue.Empty:
                task = _only_wake
            if task is None or self._closed:
                return
            self._guarded(task)
            self._guarded(self._look)

    def _look_again_s(self) -> float | None:
        """None where nothing was sent or heard: the first message wakes the thread."""
        if self._wide and not self.paused:
            return _FLOOD_LOOK_S
        if self._reorder_buffer.busy:
            return _LOOK_S
        return REPORT_S if self._active else None

    def _guarded(self, task: Callable[[], object]) -> None:
        try:
            task()
        except TransportClosed:
            return
        except (TransportError, PayloadTooLarge) as error:
            logger.warning("%s could not ask for what it missed, or answer: %s", self._source, error)
        except Exception:  # this thread must outlive everything: nobody else asks, answers or gives up a hole
            logger.exception("%s could not ask for what it missed, or answer", self._source)

    def _look(self) -> None:
        now = time.monotonic()
        if now >= self._periodic_at:
            self._periodic_at = now + REPORT_S
            for work in (self._report_progress, partial(self._tend, now), partial(self._watch_crowd, now)):
                self._guarded(work)
        elif self._wide and not self.paused:
            self._guarded(self._watch_now)
        present, size = self._present() if self._reorder_buffer.busy else ({}, 0)

        def room(topic: str) -> int:
            here = present.get(topic, 0)
            return (
                0
                if self._leaving or self._ending or here > _PORTION_COUNT // 2 or size > _PORTION_BYTES // 2
                else _PORTION_COUNT - here
            )

        with self._lock:
            first = dict.fromkeys(self._pulled_first, 0 if self._leaving or self._ending else _ahead(present, size))
            questions = self._reorder_buffer.questions(self._node, now, room, first)
            says = self._reorder_buffer.says(now)
            self._echo = self._echo or os.urandom(8).hex()
            echo = {"echo": self._echo, "said": now}
            self._conclude(self._reorder_buffer.expired(now))
        for node, ask in questions.items():
            self._guarded(partial(self._ask, _EVERYBODY if node is None else node, ask))
        if says:
            self._tell(self._own, echo, timeout_s=_SEND_TIMEOUT_S)


def _ahead(present: Mapping[str, int], size: int) -> int:
    """How many messages are asked for of a source that calls wait for, whatever is here already, as long as memory is
    bounded."""
    if size < 2 * _PORTION_BYTES and sum(present.values()) < _FLOOD_COUNT:
        return _PORTION_COUNT
    return _FEW if size < 4 * _PORTION_BYTES else 0


def _ignore(topic: str, sequence: int, payload: bytes, properties: bytes, now: float) -> Load:
    """For calls, answers and states, which are repeated in other ways, or not at all."""
    return Load.WITHIN


def _numbers(said: Mapping[object, object]) -> dict[str, int]:
    """The topics and numbers in what another process said."""
    return {name: number for name, number in said.items() if isinstance(name, str) and type(number) is int}


def _only_wake() -> None:
    """A task that wakes the thread and does nothing."""


def _count_of(topic_filter: str, counts: Mapping[str, int]) -> int:
    return sum(count for topic, count in counts.items() if matches(topic_filter, topic))


def _asked_now(ask: Ask) -> dict[str, Any]:
    """A question as it is published; `at` in unix seconds."""
    return {**ask.to_value(), "at": wall_time()}
