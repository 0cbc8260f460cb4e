"""How messages reach the methods of one instance: each is a job of the method's worker, or waits in a mailbox.

A subscription that keeps all messages makes a job of each. One that says `keep` or `max_age` has a mailbox, whose jobs
take what is to be handled when their turn comes. Each subscription of a method has its own.

An instance that is started again goes on where the one before has stopped (`keep_positions`): it asks the sources for
what was not handled, and what is new waits behind that.

The trap: receivers run on the transport's thread, for each message. They may only enqueue.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ether.config.keep import KEEP_ALL, Keep
from ether.connection.caused_work import CausedWork
from ether.connection.causes import origin_of
from ether.connection.keep_rules import Skipped, SkippedLog
from ether.connection.link import Inbound, Link
from ether.connection.mailbox import Mailbox
from ether.connection.worker import ANYBODY, FOREIGN, Job
from ether.errors import TransportError
from ether.instance.host import JobHost
from ether.instance.jobs import MessageJob, NextMessageJob
from ether.instance.position_file import NO_ROW, Positions, Row, read_positions
from ether.instance.resume_rules import EarlierPositions, RowKey, SavedRow, resumption
from ether.protocol.message_age import MessageAges
from ether.protocol.routes import Routes
from ether.protocol.topic_cache import TopicCache
from ether.spec.methods import MethodSpec
from ether.transport.base import Receipt
from ether.wire.head import Headers, node_of
from ether.wire.topics import matches

Receive = Callable[[Inbound], bool]
Submit = Callable[[Job], object]

_FLUSH_TIMEOUT_S = 2.0

NOTED_S = 1.0
"""A message that was later than this when its turn came leaves that as a fact in the records that are made of it."""

InWork = tuple[str, float, tuple[str, Headers] | None]
"""What one thread does: a method, since when by the monotonic clock, and the message that it handles, as its topic and
headers; None for a call, a tick, or a foreign message. (A bare tuple, because one is made for each message.)"""


class Lateness(NamedTuple):
    """How late an instance is, by its oldest message in work, in seconds."""

    age_s: float
    """The age of the message now."""
    behind_s: float
    """Its age when its turn came: the time that it spent on the way and in queues."""


class MethodSubscriptions:
    """The subscriptions of one instance."""

    def __init__(self, host: JobHost, tables: Mapping[str, Sequence[tuple[str, int, Keep]]]) -> None:
        """`tables`: for each method its topic filters, their QoS, and what is kept of each."""
        self._host = host
        self._tables = tables
        self._mailboxes: dict[str, list[Mailbox]] = {}
        self._logs: dict[str, SkippedLog] = {}
        self._recorded: dict[str, int] = {}
        """For each method how many messages it had skipped when its last record was made."""
        self.ages = MessageAges()
        """The ages of all messages that arrive here."""
        self.passing_on = False
        """Whether the instance is about to be started again: what was not begun is left to the next incarnation."""
        self.closed = False
        """Whether the instance ends: no message is begun any more."""
        self._unhandled: Counter[str] = Counter()
        """The messages that were not begun because of that, by their topics as users write them."""
        self._unhandled_lock = threading.Lock()
        self._positions: Positions | None = None
        self._earlier: EarlierPositions | None = None
        self._numbers: dict[tuple[str, str], tuple[str, int]] = {}
        self._caused = CausedWork()
        self._listening: TopicCache[list[str]] = TopicCache()
        """For each topic the methods that it goes to at QoS 1."""

    def listen(self, link: Link, methods: Sequence[MethodSpec], submit_of: Callable[[str], Submit]) -> None:
        """Subscribe; returns when the broker has confirmed all of it. `submit_of` gives what takes a method's jobs."""
        self._caused = link.caused
        if link.retransmitter is not None:
            link.retransmitter.taken = self._taken
        if (earlier := self._earlier) is not None:
            link.resume_from(self._numbers, time.monotonic() - earlier.since, earlier.node)
        routes: list[tuple[str, Receive, int]] = []
        for method in methods:
            receive = self.receiver(method, submit_of(method.name))
            routes += [(topic_filter, receive, qos) for topic_filter, qos, _ in self._tables[method.name]]
        link.listen_all(routes)
        if earlier is not None:
            link.ask_for_missed()

    # -- up to where messages were handled

    def keep_positions(self, path: Path, node: str, threads: Mapping[str, int]) -> None:
        """Note in a file what is handled, and go on where an earlier incarnation has stopped that has left such a file.
        `node`: the end of the ids of this process's own messages; `threads`: the methods that subscribe, and how many
        messages each handles at a time. To be called before `listen`. Raises `OSError`."""
        earlier = read_positions(path)
        rows: list[SavedRow] = []
        if earlier is not None:
            found = resumption(earlier, self._filters, matches)
            self._earlier, self._numbers, rows = earlier, found.numbers, found.rows
            for row in rows:
                if row.zero:
                    self.ages.inherit(row.key.topic, row.key.source, row.key.node, row.finished, row.zero)
            for key, first, last in found.left_out:
                self._tell_left_out(key, first, last)
        # What a mailbox skips is noted on another thread than what the method handles.
        shared = {
            name: number > 1 or any(keep != KEEP_ALL for *_, keep in self._tables[name])
            for name, number in threads.items()
        }
        self._positions = Positions(path, shared, node, earlier, rows)

    @property
    def _filters(self) -> dict[str, list[str]]:
        """The topic filters at QoS 1 of each method: what is missed there can be sent again."""
        return {name: [topic_filter for topic_filter, qos, _ in table if qos] for name, table in self._tables.items()}

    def _tell_left_out(self, key: RowKey, first: int, last: int) -> None:
        topic = self._host.topics.user_topic(key.topic)
        numbers = f"{first} to {last}" if last > first else str(first)
        self._host.logger.error(
            "%s: the messages of %s on %r, number %s, were in work in %s when the process died. They are not handled"
            " again: nobody knows how far they came",
            self._host.name, key.source, topic, numbers, key.method,
            extra={"ether": {"source": key.source, "topic": topic, "first": first, "last": last}},
        )  # fmt: skip

    def _taken(self, topic: str, node: str, last: int, present: bool) -> int:
        """Up to which number the source need not keep its messages for this instance, of those up to `last` that have
        arrived here: what is `present` may not be finished, and would be missed where this process dies."""
        positions = self._positions
        if positions is None or not (present or self.passing_on):
            return last
        return min([last, *(positions.finished(method, topic, node) for method in self._listeners(topic))])

    def _listeners(self, topic: str) -> list[str]:
        known = self._listening.get(topic)
        if known is None:
            known = [name for name, filters in self._filters.items() if any(matches(each, topic) for each in filters)]
            self._listening.remember(topic, known)
        return known

    def _note_skipped(self, method: str, inbound: Inbound) -> None:
        """A mailbox has skipped a message: that counts as handled."""
        headers = inbound.headers()
        if self._positions is not None and headers is not None:
            row = self.row_of(method, inbound, headers)
            row.begin(headers.seq)
            row.end(headers.seq)
            row.finish(headers.seq)
        if self._caused:
            self.finished(inbound, method)

    def _came(self, method: str, inbound: Inbound, origin: str) -> None:
        """A message of a trial is in work from now on."""
        what = f"{self._host.spec.name}.{method} of {self._host.topics.user_topic(inbound.delivery.topic)!r}"
        self._caused.begin(origin, (method, id(inbound)), what)

    def finished(self, inbound: Inbound, method: str) -> None:
        """A method is done with a message, or has skipped it."""
        headers = inbound.headers()
        if headers is not None and (origin := origin_of(headers)) is not None:
            self._caused.end(origin, (method, id(inbound)))

    def row_of(self, method: str, inbound: Inbound, headers: Headers) -> Row:
        """Where to note that a method handles a message; `NO_ROW` for one that its source cannot send again."""
        positions, delivery = self._positions, inbound.delivery
        if positions is None or not delivery.qos or delivery.retained:
            return NO_ROW
        node = node_of(headers.id)
        row = positions.rows.get((method, delivery.topic, node))
        return positions.add(RowKey(method, delivery.topic, node, headers.source)) if row is None else row

    def pass_on(self, link: Link) -> None:
        """The instance is about to be started again: begin no message that its next incarnation can get."""
        if self._positions is not None and link.retransmitter is not None:
            self.passing_on = True
            link.retransmitter.leave_to_successor()

    def stop(self, link: Link) -> None:
        """The instance ends: begin no message, and ask for none."""
        self.closed = True
        if link.retransmitter is not None:
            link.retransmitter.ask_no_more()

    def leave(self, inbound: Inbound) -> None:
        """Count a message that is not begun, because the instance ends."""
        with self._unhandled_lock:
            self._unhandled[self._host.topics.user_topic(inbound.delivery.topic)] += 1

    def unhandled(self, link: Link) -> dict[str, int]:
        """For each topic how many messages this end leaves: those that have come, and those that wait at their sources.
        Without those that are left to the next incarnation."""
        if not self.closed:
            return {}
        with self._unhandled_lock:
            left = self._unhandled.copy()
        if not self.passing_on:
            for topic, count in self._missing(link).items():
                left[self._host.topics.user_topic(topic)] += count
        return dict(left)

    def ended(self, row: Row, number: int, published: Receipt | None) -> None:
        """A method has handled a message of that row; `published` as in `Positions.ended`."""
        if self._positions is not None:
            self._positions.ended(row, number, published)

    def note_zeros(self) -> None:
        """Note how the clocks of the sources differ, for the next incarnation."""
        if self._positions is not None:
            self._positions.note_zeros(self.ages.zeros())

    def close(self, link: Link) -> None:
        """Leave the positions to the next incarnation, when nothing is handled any more. What was published last has to
        be acknowledged before; that is waited for briefly."""
        if self._positions is None:
            return
        acknowledged = False
        if link.transport.connected:
            with suppress(TransportError):
                link.flush(_FLUSH_TIMEOUT_S)
                acknowledged = True
        self.note_zeros()
        self._positions.leave(acknowledged=acknowledged)

    # -- on the transport's thread

    def receiver(self, method: MethodSpec, submit: Submit) -> Receive:
        """The one receiver of a method: the link calls it once for each message, even where several of the method's
        filters match. `submit` gives a job to the method's worker."""
        receivers: list[tuple[str, Receive]] = []
        for topic_filter, _, keep in self._tables[method.name]:
            receive = self._receive_all(method, submit) if keep == KEEP_ALL else self._to_mailbox(method, submit, keep)
            receivers.append((topic_filter, receive))
        if method.name in self._mailboxes:
            wishes = dict.fromkeys(str(mailbox.keep) for mailbox in self._mailboxes[method.name])
            self._logs[method.name] = SkippedLog("; ".join(wishes))
        if len(receivers) == 1 or method.name not in self._mailboxes:
            return receivers[0][1]
        routes: Routes[Receive] = Routes(matches)
        for topic_filter, receive in receivers:
            routes.add(topic_filter, receive)
        return lambda inbound: routes.match(inbound.delivery.topic)[0](inbound)

    def _receive_all(self, method: MethodSpec, submit: Submit) -> Receive:
        host, note, name = self._host, self.ages.note, method.name

        def receive(inbound: Inbound) -> bool:
            headers = inbound.headers()
            if headers is not None:
                note(inbound.delivery.topic, headers, time.monotonic())
                if (origin := origin_of(headers)) is not None:
                    self._came(name, inbound, origin)
            submit(MessageJob(host, inbound, method))
            return True

        return receive

    def _to_mailbox(self, method: MethodSpec, submit: Submit, keep: Keep) -> Receive:
        mailbox = Mailbox(keep, self.ages, partial(self._note_skipped, method.name))
        self._mailboxes.setdefault(method.name, []).append(mailbox)
        make_job = partial(NextMessageJob, self._host, mailbox, method)

        def receive(inbound: Inbound) -> bool:
            headers = inbound.headers()
            if headers is not None and (origin := origin_of(headers)) is not None:
                self._came(method.name, inbound, origin)
            if (turn := mailbox.put(inbound)) is not None:
                # A row of one source has the messages of that source alone; any other row those of all.
                sender = FOREIGN if headers is None else node_of(headers.id)
                submit(make_job(ANYBODY if turn[0] is None else sender, *turn))
            return True

        return receive

    # -- how late the instance is

    def lateness(self, works: Sequence[InWork], now: float) -> Lateness | None:
        """By the oldest of the messages in work; None where no message of a known age is in work."""
        known = [(late_s, now - work[1]) for work in works if (late_s := self._behind_s(work)) is not None]
        return Lateness(max(map(sum, known)), max(late_s for late_s, _ in known)) if known else None

    def _behind_s(self, work: InWork) -> float | None:
        """How old a message was when its turn came."""
        _, since, message = work
        return None if message is None else self.ages.age_s(*message, since)

    def facts(self, work: InWork, waiting: Callable[[], int]) -> dict[str, object]:
        """The facts of a record that is made while a message is in work: where the message was late when its turn came,
        by how much, and how many are `waiting`; how many messages its method has skipped since its last record."""
        facts: dict[str, object] = {}
        behind_s = self._behind_s(work)
        if behind_s is not None and behind_s >= NOTED_S:
            facts |= {"behind_s": round(behind_s, 3), "waiting": waiting()}
        if work[0] in self._mailboxes:
            total = self.skipped_by(work[0]).total
            if more := total - self._recorded.get(work[0], 0):
                facts["skipped"], self._recorded[work[0]] = more, total
        return facts

    def to_come(self, link: Link) -> int:
        """How many messages to this instance exist at their sources and are not here yet. While it is about to be
        started again these are its successor's."""
        return 0 if self.passing_on else sum(self._missing(link).values())

    def _missing(self, link: Link) -> dict[str, int]:
        filters = [topic_filter for table in self._tables.values() for topic_filter, _, _ in table]
        missing = link.missing()
        return {topic: count for topic, count in missing.items() if any(matches(name, topic) for name in filters)}

    # -- what was skipped

    def skipped(self) -> dict[str, Skipped]:
        """How many messages each method has skipped so far; without those that have skipped none."""
        counts = {method: self.skipped_by(method) for method in self._mailboxes}
        return {method: skipped for method, skipped in counts.items() if skipped.total}

    def skipped_by(self, method: str) -> Skipped:
        """How many messages one method has skipped so far."""
        counts = [mailbox.skipped for mailbox in self._mailboxes.get(method, ())]
        return Skipped(sum(count.by_keep for count in counts), sum(count.by_age for count in counts))

    @property
    def idle_turns(self) -> int:
        """Jobs in the workers' queues that will find nothing to do."""
        return sum(mailbox.idle_turns for mailboxes in self._mailboxes.values() for mailbox in mailboxes)

    def tell_skipped(self, *, last: bool = False) -> None:
        """Log what was skipped, where it is time to. `last`: the instance ends."""
        now = time.monotonic()
        for method, skipped in self.skipped().items():
            if line := self._logs[method].line(skipped, now, last=last):
                self._host.logger.info(
                    "%s: %s has %s",
                    self._host.name,
                    method,
                    line,
                    extra={"ether": {"instance": self._host.name, "method": method, "skipped": skipped.total}},
                )
