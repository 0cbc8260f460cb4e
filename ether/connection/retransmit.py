"""Nothing that was published at QoS 1 gets lost between a sender and a receiver that both live: who missed a message
asks its source for it, and the source sends it again, to the one who asked alone.

What was sent and what is missing is decided in `ether.protocol.retransmit_buffer` and
`ether.protocol.reorder_buffer`. Here are the questions and answers, on the topics `control/missed/all` (to
everybody) and `control/missed/<node>` (to one process).
A message that is sent again keeps its bytes, headers included, and stands below the receiver's own topic:
`control/missed/<node>/<the topic that it was published on>`.

The trap: the transport's thread hears all of this, and may only enqueue. Whatever publishes or waits is done on a
thread of this module's, which begins with the first outage or hole.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ether.errors import PayloadTooLarge, TransportClosed, TransportError
from ether.log import get_ether_logger
from ether.protocol.reorder_buffer import Gap, ReorderBuffer, Sorted, Verdict
from ether.protocol.retransmit_buffer import Ask, Resent, RetransmitBuffer, SentMessage, seconds_on_the_way
from ether.transport.base import Delivery
from ether.wire.head import node_of
from ether.wire.topics import MQTT_MAX_BYTES, MQTT_MAX_LEVELS, SessionTopics, is_data, matches

if TYPE_CHECKING:
    from ether.connection.inbound import Inbound
    from ether.connection.link import Link

logger = get_ether_logger("Ether")

Note = Callable[[str, int, bytes, bytes, float], object]
"""What becomes of a message that has left: its topic, number, payload, properties, and the time."""

_EVERYBODY = "all"
_LOOK_S = 0.25
"""How often holes are looked at while there are any."""

_SEND_TIMEOUT_S = 10.0
_REMEMBERED_TOPICS = 4096
_ASIDE_MAX = 20_000
"""Messages that wait behind a hole, or have and are now in the receivers' queues: they do not count as unread there."""


class Retransmitter:
    """One link's memory of what it sent, and its ear for what it missed."""

    def __init__(self, link: Link, topics: SessionTopics) -> None:
        self.missed = 0
        """Numbers that were given up, each of them reported."""
        self._link = link
        self._own = topics.missed(link.node)
        self._all = topics.missed(_EVERYBODY)
        self._topics = topics
        self._history = RetransmitBuffer()
        self._notes: dict[str, Note] = {}
        self._order: ReorderBuffer[Delivery] = ReorderBuffer()
        self._tracked: dict[str, bool] = {}
        self._lock = threading.Lock()
        self._tasks: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._echo = ""
        self._loose = 0
        self._loose_lock = threading.Lock()
        self._closed = False

    def open(self) -> None:
        """Listen to questions and answers."""
        self._link.listen(self._own + "/#", self._hear, now=self._hear)
        self._link.listen(self._all, self._hear, now=self._hear)

    def say_goodbye(self) -> None:
        """Nobody is to ask us again; before the connection is closed."""
        if self._history.heads() and self._link.transport.connected:
            try:
                self._link.tell(self._all, {"node": self._link.node, "left": True}, timeout_s=0.0)
            except TransportError:
                return  # whoever asks us in vain says so

    def close(self) -> None:
        """Answer and hold no more; when the connection is closed. Twice is fine."""
        with self._loose_lock:
            closed, self._closed = self._closed, True
            thread = self._thread
        if thread is not None and not closed:
            self._tasks.put(None)
            thread.join()

    # -- the sender's side

    def sent(self, topic: str, sequence: int, payload: bytes, properties: bytes) -> None:
        """A message has left at QoS 1; in the order of the numbers of its topic. Runs for each one."""
        (self._notes.get(topic) or self._note_of(topic))(topic, sequence, payload, properties, time.monotonic())

    def _note_of(self, topic: str) -> Note:
        """Decided once for each topic. One that leaves no room for a receiver's name before it cannot be sent again."""
        whole = f"{self._own}/{topic}"
        note: Note = _not_kept
        if is_data(topic):
            fits = len(whole.encode()) <= MQTT_MAX_BYTES and whole.count("/") < MQTT_MAX_LEVELS
            note = self._history.note if fits else self._history.pass_over
        if len(self._notes) < _REMEMBERED_TOPICS:
            self._notes[topic] = note
        return note

    def _answer(self, ask: Ask) -> None:
        answers = self._history.answer(ask, self._link.node, matches, time.monotonic())
        to = self._topics.missed(ask.by)
        for answer in answers:
            for message in answer.messages:
                self._send_again(to, message)
        if answers:
            said = {answer.topic: answer.to_value() for answer in answers}
            self._link.tell(to, {"answer": said, "node": self._link.node}, timeout_s=_SEND_TIMEOUT_S)

    def _send_again(self, to: str, message: SentMessage) -> None:
        topic = f"{to}/{message.topic}"
        try:
            self._link.transport.publish(
                topic, message.payload, properties=message.properties, timeout_s=_SEND_TIMEOUT_S
            )
        except PayloadTooLarge as error:  # the topic is longer than it was; who asked reports the gap
            logger.warning("%s cannot send a message again: %s", self._link.source, error)

    # -- the receiver's side

    def listening(self, topic_filter: str, qos: int) -> None:
        """From now on nothing is to be missed that matches."""
        if qos and is_data(topic_filter):
            with self._lock:
                self._order.listen(topic_filter, time.monotonic())
                self._tracked = {}

    def unlistening(self, topic_filter: str) -> None:
        """It is listened to no more."""
        with self._lock:
            if topic_filter in self._order.filters:
                left = [name for name in self._order.filters if name != topic_filter]
                still = [(topic, any(matches(name, topic) for name in left)) for topic in self._order.topics]
                self._order.unlisten(topic_filter, still)
                self._tracked = {}

    def takes(self, inbound: Inbound) -> bool:
        """True where a message is not to be handed to its receivers now: it came before, or one before it is missing.
        Runs for each message, on the thread that hands them on."""
        delivery = inbound.delivery
        tracked = self._tracked.get(delivery.topic)
        if tracked is False:
            return False
        headers = inbound.headers()
        if headers is None or delivery.retained or (tracked is None and not self._tracks(delivery.topic)):
            return False
        node = node_of(headers.id)
        # Without the lock: what others change at the same time are sources that wait, which this leaves to them.
        if self._order.passes(delivery.topic, node, headers.seq):
            return False
        with self._lock:
            self._arrived(delivery, delivery, node, headers.source, headers.seq)
        return True

    def _tracks(self, topic: str) -> bool:
        with self._lock:
            tracked = is_data(topic) and any(matches(name, topic) for name in self._order.filters)
            if len(self._tracked) < _REMEMBERED_TOPICS:
                self._tracked[topic] = tracked
        return tracked

    def _arrived(self, delivery: Delivery, came_as: Delivery, node: str, source: str, number: int) -> None:
        """Sort one in; under the lock. What is held counts as read: it must not keep the missing ones from coming."""
        size = len(delivery.payload) + len(delivery.properties)
        self._order.room = _ASIDE_MAX - self._loose
        result = self._order.arrived(delivery.topic, node, source, number, delivery, size, time.monotonic())
        at_once = result is not None and bool(result.ready) and result.ready[0] is delivery
        if not at_once:
            self._link.transport.consumed(came_as)
        if result is not None:
            self._hand_on(result, at_once)
        self._look_after()

    def _hand_on(self, result: Sorted[Delivery], at_once: bool = False) -> None:
        """Under the lock, so that nothing overtakes; receivers only enqueue. `at_once`: the first has just come."""
        for delivery in result.ready:
            if at_once:
                self._link.hand_over(delivery)
            else:
                with self._loose_lock:
                    self._loose += 1
                self._link.hand_over(delivery, done=self._done)
            at_once = False
        if result.gaps:
            self._do(partial(self._report, result.gaps))

    def _done(self, _: Delivery) -> None:
        with self._loose_lock:
            self._loose -= 1

    def _report(self, gaps: Iterable[Gap]) -> None:
        for gap in gaps:
            self.missed += gap.last - gap.first + 1
            numbers = f"{gap.first} to {gap.last}" if gap.last > gap.first else str(gap.first)
            topic = self._topics.user_topic(gap.topic)
            logger.warning(
                "%s missed messages of %s on %r, number %s: %s",
                self._link.source, gap.source or "an instance", topic, numbers, gap.why,
                extra={"ether": {"source": gap.source, "topic": topic, "first": gap.first, "last": gap.last}},
            )  # fmt: skip

    # -- outages

    def went_down(self) -> None:
        """The connection is lost."""
        with self._lock:
            self._order.went_deaf(time.monotonic())
            self._echo = ""

    def came_up(self) -> None:
        """It is there again: ask everybody, and say how far we got."""
        with self._lock:
            ask = self._order.came_back(self._link.node, time.monotonic())
        heads = self._history.heads()
        said: dict[str, Any] = {"node": self._link.node}
        if ask.filters:
            said["ask"] = _asked_now(ask)
        if heads:
            said["heads"] = heads
        self._do(partial(self._link.tell, self._all, said, timeout_s=_SEND_TIMEOUT_S))

    # -- what others say, on the transport's thread

    def _hear(self, inbound: Inbound) -> bool:
        topic = inbound.delivery.topic
        if topic not in (self._own, self._all):
            return self._hear_again(inbound, topic[len(self._own) + 1 :])
        value = inbound.take()
        if isinstance(value, dict):
            self._understand(value)
        return True

    def _hear_again(self, inbound: Inbound, topic: str) -> bool:
        """A message that is sent again, as if it had come on its own topic."""
        came_as, headers = inbound.delivery, inbound.headers()
        if headers is None or self._link.is_fenced(headers.id) or not self._tracks(topic):
            inbound.done()
            return True
        delivery = Delivery(topic, came_as.payload, came_as.qos, False, came_as.properties)
        with self._lock:
            self._arrived(delivery, came_as, node_of(headers.id), headers.source, headers.seq)
        return True

    def _understand(self, value: Mapping[str, Any]) -> None:
        ask = Ask.from_value(value.get("ask"))
        if ask is not None:
            took_s = seconds_on_the_way(value["ask"].get("at"), time.time())
            self._do(partial(self._answer, ask.older(took_s)))
        match value:
            case {"node": str(node), "heads": dict(heads)} if node != self._link.node:
                self._on_heads(node, {name: number for name, number in heads.items() if type(number) is int})
            case {"node": str(node), "answer": dict(answers)}:
                self._on_answer(node, answers)
            case {"node": str(node), "left": True}:
                with self._lock:
                    self._order.left(node)
            case {"echo": str(token), "said": float(said_at)} if token == self._echo:
                self._on_echo(said_at)

    def _on_heads(self, node: str, heads: Mapping[str, int]) -> None:
        wanted = [topic for topic in heads if self._tracks(topic)]
        with self._lock:
            ask = self._order.heard_heads(node, heads, wanted, self._link.node, time.monotonic())
        if ask is not None:
            self._do(partial(self._ask, node, ask))

    def _on_answer(self, node: str, said: Mapping[str, Any]) -> None:
        read = [Resent.from_value(topic, value) for topic, value in said.items() if self._tracks(topic)]
        answers = [answer for answer in read if answer is not None]
        with self._lock:
            self._hand_on(self._order.answered(node, answers, time.monotonic()))
            self._look_after()

    def _on_echo(self, said_at: float) -> None:
        """What we said to ourselves over this connection is back."""
        with self._lock:
            self._conclude(self._order.echoed(said_at, time.monotonic()))
            self._look_after()

    def _conclude(self, verdict: Verdict[Delivery]) -> None:
        """Under the lock: some have not answered."""
        self._hand_on(verdict.sorted)
        if verdict.doubtful:
            names = ", ".join(name or "an instance" for name in verdict.doubtful)
            why = "%s does not know whether it missed messages of %s, which does not answer since the outage"
            self._do(partial(logger.warning, why, self._link.source, names))

    # -- on our own thread

    def _ask(self, node: str, ask: Ask) -> None:
        self._link.tell(self._topics.missed(node), {"ask": _asked_now(ask)}, timeout_s=_SEND_TIMEOUT_S)

    def _do(self, task: Callable[[], object]) -> None:
        self._tasks.put(task)
        if self._thread is None:
            self._start()

    def _look_after(self) -> None:
        """Something waits: ask for it; under the lock."""
        if self._order.busy:
            self._do(_nothing)

    def _start(self) -> None:
        with self._loose_lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name=f"ether-resend-{self._link.source}", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                task = self._tasks.get(timeout=_LOOK_S if self._order.busy else None)
            except queue.Empty:
                task = _nothing
            if task is None or self._closed:
                return
            self._guarded(task)
            self._guarded(self._look)

    def _guarded(self, task: Callable[[], object]) -> None:
        try:
            task()
        except TransportClosed:
            return
        except (TransportError, PayloadTooLarge) as error:
            logger.warning("%s could not ask for what it missed, or answer: %s", self._link.source, error)

    def _look(self) -> None:
        now = time.monotonic()
        with self._lock:
            questions = self._order.questions(self._link.node, now)
            says = self._order.says(now)
            self._echo = self._echo or os.urandom(8).hex()
            echo = {"echo": self._echo, "said": now}
            self._conclude(self._order.expired(now))
        for node, ask in questions.items():
            self._guarded(partial(self._ask, _EVERYBODY if node is None else node, ask))
        if says:
            self._link.tell(self._own, echo, timeout_s=_SEND_TIMEOUT_S)


def _not_kept(topic: str, sequence: int, payload: bytes, properties: bytes, now: float) -> None:
    """Calls, answers, states: they have other ways to be repeated, or none."""


def _nothing() -> None:
    """A task that only wakes the thread."""


def _asked_now(ask: Ask) -> dict[str, Any]:
    """A question as it leaves; `at` in unix seconds."""
    return {**ask.to_value(), "at": time.time()}
