"""The saving side of a process: takes what is to be kept, keeps it in the outbox, brings it to every recorder.

Whoever publishes or records pays for a place in a list; a thread (`ether.recording.sender`) packs what has come, writes
it to the outbox's file, sends it in batches, and takes the receipts. It begins with the first entry.

Promises: entries reach a recorder in order, each once; one that is given up is named in its place, and its `Saved` says
so. While no recorder answers, entries wait: on disk, bounded, with the policy that the user chose.

The trap: keeping happens under the link's publishing lock and must not wait. Waiting for room is therefore a call of
its own, made before (`await_room`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ether.connection import fork_guard as forks
from ether.connection.deadline import Deadline
from ether.connection.link import ExtraHeaders, Inbound, Link
from ether.errors import NotAllowedHere, NotSaved, OutboxFull, PayloadError, TransportClosed
from ether.ledger.places import folder_name
from ether.log import get_ether_logger
from ether.recording.options import SavingOptions as SavingOptions
from ether.recording.options import WhenFull as WhenFull
from ether.recording.outbox_queue import FULL, gap_of
from ether.recording.receipt import Saved
from ether.recording.receipt_rules import Filters, ReceiptTable, RecorderAbout, wanted
from ether.recording.tags import RecordTags
from ether.wire.codec import Body
from ether.wire.entries import Entry, Kind
from ether.wire.head import Headers
from ether.wire.topics import SessionTopics, matches

if TYPE_CHECKING:
    from ether.recording.sender import Sender

logger = get_ether_logger("Ether")

ROOM_S = 10.0
_REMEMBERED_TOPICS = 4096
_ENTRY_BYTES = 150
"""What an entry takes beside its payload, about; for the limit, before it is packed."""

GATHER_S = 0.05
"""Entries that follow a batch so soon go with the next one, as long as nobody waits for them: a batch costs what dozens
of entries cost."""


class RecordWriter:
    """Saves for one process. Every method may be called from any thread."""

    def __init__(self, link: Link, topics: SessionTopics, options: SavingOptions) -> None:
        """`link` is open when `open` is called."""
        self.options = options
        self.explain: Callable[[], Iterable[Entry]] = tuple
        """Gives what explains this process, its context last; called once, when there is something to save."""
        self.ask_for_recorder: Callable[[], object] = lambda: None
        """Called when something is to be saved and nobody records."""
        self._link = link
        self._topics = topics
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._explaining = threading.Lock()
        self._context: str | None = None
        self._head = 0
        self._waiting_bytes = 0
        self._fresh: list[Entry] = []
        self._fresh_bytes = 0
        self._dropped: list[Entry] = []
        self._receipts = ReceiptTable(matches)
        self._taken = 0.0
        self._waiters = 0
        self._wants: dict[str, bool] = {}
        self._sender: Sender | None = None
        self.tagging = RecordTags(options.run, self._changed, lambda: self._head)
        self._recorders: dict[str, RecorderAbout] = {}
        self._closing = self._closed = False
        self._forks = forks.watch()
        self.refused = 0
        """Entries that the policy did not take."""

    def open(self) -> None:
        """Listen for recorders."""
        self._receive = self._on_recorder
        self._link.listen(self._topics.recorder("+"), self._receive, now=self._on_recorder)
        self.tagging.listen(self._link, self._topics.run)

    # -- what is to be saved

    def wants(self, topic: str) -> bool:
        """Whether the session records a user's topic."""
        remembered = self._wants  # another one as soon as a recorder comes or goes
        known = remembered.get(topic)
        if known is None:
            known = wanted(self.options.topics, topic, matches) or any(
                about.wants(topic, matches) for about in self.recorders()
            )
            if len(remembered) < _REMEMBERED_TOPICS:
                remembered[topic] = known
        return known

    def publish(
        self, topic: str, mqtt_topic: str, value: object, qos: int, parents: tuple[str, ...],
        more: Mapping[str, object], *, schema: str | None = None,
    ) -> Saved:  # fmt: skip
        """Publish a message and keep it. Raises as publishing does, and `OutboxFull`."""
        message_id, number = self.publish_only(topic, mqtt_topic, value, qos, parents, more, schema=schema)
        return Saved(self, number, None if more.get("asked") else topic, message_id)

    def publish_only(
        self, topic: str, mqtt_topic: str, value: object, qos: int, parents: tuple[str, ...],
        more: Mapping[str, object], *, schema: str | None = None,
    ) -> tuple[str, int]:  # fmt: skip
        """The same, for who does not ask what becomes of it: its message id, and the number of its entry."""
        kept: list[tuple[str, int]] = []

        def keep(headers: Headers, body: Body) -> None:
            kept.append((headers.id, self._keep("data", topic, headers, body, more)))

        self._prepare()
        extra = None if schema is None else ExtraHeaders(schema=schema)
        self._link.publish(mqtt_topic, value, qos=qos, parents=parents, extra=extra, keep=keep)
        return kept[0]

    def record(
        self, kind: Kind, topic: str, value: object, parents: tuple[str, ...], more: Mapping[str, object]
    ) -> Saved:
        """Keep a value that goes to no topic. Raises `EncodeError`, `PayloadTooLarge`, `OutboxFull`."""
        self._prepare()
        headers, body = self._link.stamp(f"{kind} {topic}", value, parents)
        return Saved(self, self._keep(kind, topic, headers, body, {"asked": True, **more}), None, headers.id)

    def keep_call(
        self, call: str, message_id: str | None, value: object, parents: tuple[str, ...], caller: str
    ) -> None:
        """Note a call that was served: `instance.method`, the id of its request, what was asked and what came of it.
        Raises as `record`."""
        self._prepare()
        headers, body = self._link.stamp(f"call {call}", value, parents)
        self._keep("call", call, headers._replace(id=message_id or headers.id), body, {"caller": caller})

    def keep_run(self, run: str, event: str, facts: Mapping[str, object]) -> Saved:
        """Note that a run began or ended."""
        return self.record("run", run, {"event": event, **facts}, (), {})

    def _prepare(self) -> None:  # what cannot be done under the link's lock
        if self._forks != forks.times:
            raise NotAllowedHere("saving", "this process was forked from one that has the session; let that one save")
        if self._closing:
            raise TransportClosed(f"{self._link.source} has left the session: nothing can be saved any more")
        if self._context is None:
            self.begin()
        if self._waiting_bytes >= self.options.max_bytes and self.options.when_full is WhenFull.BLOCK:
            self.await_room(ROOM_S)

    def await_room(self, timeout_s: float) -> None:
        """Return when there is room in the outbox; raises `OutboxFull`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting_bytes < self.options.max_bytes, timeout_s):
                raise OutboxFull(self._link.source, self.options.max_bytes, timeout_s)

    def _keep(self, kind: Kind, topic: str, headers: Headers, body: Body, more: Mapping[str, object]) -> int:
        """The number of its entry."""
        message_id, _, seq, time, parents, *_ = headers
        with self._lock:
            self._head = number = self._head + 1
            beside = self.tagging.beside
            entry = Entry(
                number, kind, topic, message_id, seq, time, parents, self._context or "",
                body.content_type, body.payload, {**beside, **more} if more else beside,
            )  # fmt: skip
            if self._closed:
                self._receipts.lost(number, number, "this process has left the session")
            else:
                self._add(entry)
        return number

    def _add(self, entry: Entry) -> None:  # under the lock
        if self._waiting_bytes >= self.options.max_bytes and self.options.when_full is WhenFull.DROP_NEW:
            self._refuse(entry)
        else:
            if self._dropped:
                self._close_gap()
            self._append(entry)

    def _append(self, entry: Entry) -> None:
        size = len(entry.payload) + _ENTRY_BYTES
        self._waiting_bytes += size
        self._fresh_bytes += size
        self._fresh.append(entry)
        if len(self._fresh) == 1:
            self._changed.notify_all()

    def _refuse(self, entry: Entry) -> None:
        self._dropped.append(entry)
        self.refused += 1
        self._receipts.lost(entry.number, entry.number, FULL)
        if len(self._dropped) > 1000:
            self._dropped = [gap_of(self._dropped, FULL)]

    def _close_gap(self) -> None:
        """What was not taken becomes one gap, before the next entry is; under the lock."""
        if self._dropped:
            gap = gap_of(self._dropped, FULL)
            self._dropped = []
            self._append(gap)

    def _explain(self) -> None:
        """Make the context, begin to send, and keep what explains everything that follows before it."""
        with self._explaining:
            if self._context is not None:
                return
            explaining = list(self.explain())
            self._begin()
            with self._changed:
                for entry in explaining:
                    self._head += 1
                    self._add(entry._replace(number=self._head))
            self._context = explaining[-1].id if explaining else ""

    # -- which run, which trial

    def settle(self, number: int, deadline: Deadline) -> int:
        """Wait until the entries up to this one are on disk at a recorder, or given up; how many are not."""
        with self._changed:
            self._wait_for(lambda: self._left_of(number) == 0 or bool(self._problem(None)), deadline)
            return self._left_of(number)

    def await_recorder(self, deadline: Deadline) -> list[str]:
        """The names of those that record; where there is none, one is asked for. Empty where none came in time."""
        if not self._recorders:
            self.ask_for_recorder()
        with self._changed:
            self._changed.wait_for(lambda: bool(self._recorders), deadline.left())
            return sorted(self._recorders)

    # -- fates

    def is_saved(self, number: int, topic: str | None) -> bool:
        """Whether an entry is on disk at a recorder that keeps it; `topic` is None for what all of them keep."""
        with self._changed:
            return self._receipts.is_saved(number, topic)

    def wait(self, number: int, topic: str | None, message_id: str, deadline: Deadline) -> None:
        """Return when an entry is on disk at a recorder that keeps it; raises `NotSaved`."""
        receipts = self._receipts

        def is_settled() -> bool:
            return receipts.is_saved(number, topic) or bool(receipts.why_lost(number) or self._problem(topic))

        with self._changed:
            self._wait_for(is_settled, deadline)
            if why := receipts.why_lost(number):
                raise NotSaved(message_id, why, lost=True)
            if not receipts.is_saved(number, topic):
                raise NotSaved(message_id, self._problem(topic) or self._why_not(deadline.timeout_s))

    def flush(self, deadline: Deadline) -> int:
        """Wait until all that was given to be kept is on disk at a recorder, or given up; how many entries are not."""
        return self._flushed(deadline, lambda: False)

    def _flushed(self, deadline: Deadline, in_vain: Callable[[], bool]) -> int:
        with self._changed:
            head = self._head
            self._wait_for(lambda: self._left_of(head) == 0 or in_vain(), deadline)
            return self._left_of(head)

    def _wait_for(self, condition: Callable[[], bool], deadline: Deadline) -> None:
        """Under the lock. While somebody waits nothing is gathered."""
        if not condition():
            self._waiters += 1
            self._changed.notify_all()
            self._changed.wait_for(condition, deadline.left())
            self._waiters -= 1

    def _left_of(self, head: int) -> int:
        return max(0, head - self._receipts.settled_to(list(self._recorders.values()))) if head else 0

    def _problem(self, topic: str | None) -> str:
        return self._receipts.problem(topic, list(self._recorders.values()))

    def _waiting_is_in_vain(self) -> bool:
        """Nobody takes anything at present, and nobody is expected to."""
        return not self._link.transport.connected or not self._recorders or bool(self._problem(None))

    def _why_not(self, waited_s: float) -> str:
        if not self._link.transport.connected:
            return "the broker is not connected"
        if not self._recorders:
            return "nobody records in this session"
        return f"no recorder has acknowledged it within {waited_s:g} s"

    # -- what happens around

    def _on_recorder(self, inbound: Inbound) -> bool:
        """On the transport's thread."""
        name = self._topics.recorder_of(inbound.delivery.topic)
        try:
            about = RecorderAbout.from_value(name, inbound.unpack().value)
        except PayloadError:
            about = None
        finally:
            inbound.done()
        if about is None and inbound.delivery.payload:
            logger.warning("%s: no recorder describes itself like this, ignored", inbound.delivery.topic)
            return True
        with self._changed:
            others = {known: other for known, other in self._recorders.items() if known != name}
            self._recorders = others if about is None else {**others, name: about}
            self._wants = {}
            self._changed.notify_all()
        return True

    def recorders(self) -> Sequence[RecorderAbout]:
        """The recorders that there are."""
        return list(self._recorders.values())  # a dictionary that never changes: another one takes its place

    # -- the thread

    @property
    def drops_oldest(self) -> bool:
        """Whether the oldest entries make room for new ones."""
        return self.options.when_full is WhenFull.DROP_OLDEST

    def _begin(self) -> None:
        """Make the outbox, and the thread that empties it; what the dead have left is taken over."""
        from ether.recording.outbox_file import OutboxFile
        from ether.recording.sender import Sender  # SQLite is loaded by who saves something

        self._sender = Sender(self._link, self._topics, self, OutboxFile.create(self.options.folder, self._link.source))
        self._sender.start()

    def adopt(self, source: str | None = None) -> None:
        """Begin, if the dead may have left something in our folder: all of them, or an earlier `source`."""
        begin = "" if source is None else f"{folder_name(source)}~"
        if any(path.name.startswith(begin) for path in self.options.folder.glob("*.outbox")):
            self.begin()

    def begin(self) -> None:
        """Make the outbox and its thread, if that is not done; what the dead leave is taken over from now on."""
        if self._context is None:
            self._explain()

    def take_fresh(self, patience_s: float) -> list[Entry] | None:
        """For the sender: what has come, after a while nothing; None once it is time to end."""
        with self._changed:
            if not (self._fresh or self._closing or self._sender_is_due()):
                self._changed.wait(patience_s)
            gather_s = self._taken + GATHER_S - time.monotonic()
            if self._fresh and gather_s > 0:
                self._changed.wait_for(lambda: self._waiters or self._closing, gather_s)
            if self._waiting_bytes < self.options.max_bytes or self._closing:
                self._close_gap()
            fresh, self._fresh, self._fresh_bytes = self._fresh, [], 0
            if fresh:
                self._taken = time.monotonic()
            self._closed = self._closing and not fresh
            return None if self._closed else fresh

    def _sender_is_due(self) -> bool:
        return self._sender is not None and self._sender.has_news

    def wake(self) -> None:
        """For the sender: something else has come for it."""
        with self._changed:
            self._changed.notify_all()

    def tell(
        self, levels: Mapping[Filters, int], waiting_bytes: int, problems: Mapping[str, str], lost: Sequence[Entry]
    ) -> None:
        """By the sender: how far recorders are, by what they ask for; why some cannot write; what was given up."""
        with self._changed:
            before = self._waiting_bytes
            self._waiting_bytes = waiting_bytes + self._fresh_bytes
            for gap in lost:
                first, last = gap.more["first"], gap.more["last"]
                assert isinstance(first, int)
                assert isinstance(last, int)
                self._receipts.lost(first, last, str(gap.more["why"]))
            there_is_room = before >= self.options.max_bytes > self._waiting_bytes
            if self._receipts.saved(levels) | self._receipts.troubled(problems) or lost or there_is_room:
                self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Bring what waits to the recorders, for `timeout_s` seconds, or until that is in vain; what is left stays in
        its file, for whoever comes next. Twice is fine."""
        sender, self._sender = self._sender, None
        if sender is None:
            self._closing = self._closed = True
            return
        left = self._flushed(Deadline(timeout_s), self._waiting_is_in_vain)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        sender.end()
        if left:
            logger.warning("%d entries of %s are not saved yet; they wait in %s", left, self._link.source, sender.path)
