"""The recording side of a process: numbers what is to be saved, queues it, and answers whether it is saved.

A thread that publishes or records pays for a place in a queue (`ether.recording.entry_queue`). The sender's thread
(`ether.recording.sender`) packs what is queued, writes it to the outbox file, sends it in batches, and takes the
receipts. The file and the thread are made with the first entry.

Promises: entries reach a recorder in order, each once; an entry that is given up is named by a gap in its place, and
its `Saved` says so. While no recorder answers, entries wait: on disk, bounded, with the policy that the user chose.

The trap: a message is queued under the link's publishing lock (the callback `keep`), so that its number in the outbox
and its number on the topic rise together. Nothing may wait there; waiting for room is therefore done before
(`_prepare`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ether.connection import fork_guard as forks
from ether.connection.deadline import Deadline
from ether.connection.inputs import Lineage, Parents, lineage_from
from ether.connection.link import ExtraHeaders, Inbound, Link
from ether.errors import NotAllowedHere, NotSaved, OutboxFull, TransportClosed
from ether.ledger.places import folder_name
from ether.log import get_ether_logger
from ether.protocol.clock_steps import ClockSteps
from ether.protocol.presence import ECHO, is_notice
from ether.protocol.record_notes import CLOCK, MISSED, ClockNote, MissedNote
from ether.protocol.reorder_buffer import Gap
from ether.protocol.topic_cache import TopicCache
from ether.recording.entry_queue import EntryQueue, Orphan
from ether.recording.inputs import RecordInputs
from ether.recording.options import SavingOptions as SavingOptions
from ether.recording.options import WhenFull as WhenFull
from ether.recording.receipt_rules import RECORDER, RecorderAbout, wanted
from ether.recording.saved import Saved
from ether.recording.tags import RecordTags
from ether.system.clock import wall_and_uptime
from ether.system.processes import this_place
from ether.wire.codec import Body
from ether.wire.entries import Entry, Kind
from ether.wire.head import Headers
from ether.wire.topics import SessionTopics, matches

if TYPE_CHECKING:
    from ether.recording.sender import Sender

logger = get_ether_logger("Ether")

ROOM_S = 10.0
"""How long a call waits for room in a full outbox, before it raises `OutboxFull`."""

_ECHO_PATIENCE_S = 0.5
_ASKED: Mapping[str, object] = {"asked": True}


class RecordWriter:
    """Saves for one process. Every method may be called from any thread."""

    def __init__(self, link: Link, topics: SessionTopics, options: SavingOptions) -> None:
        """`link` is open when `open` is called."""
        self.options = options
        self.explain: Callable[[], Iterable[Entry]] = tuple
        """Gives the entries that explain this process (its artifacts, then its context, which comes last). Called once,
        with the first thing to save."""
        self.ask_for_recorder: Callable[[], object] = lambda: None
        """Called when something is to be saved and no recorder is there."""
        self._link = link
        self._topics = topics
        self._queue = EntryQueue(options)
        self._inputs = RecordInputs(link.inputs, topics, self._keep_list)
        self._turn = threading.Lock()
        self._beginning: threading.Event | None = None
        """Set when the thread that explains has finished; None while none does. Guarded by `_turn`."""
        self._context: str | None = None
        """The id of the context entry; None until `begin`."""
        self._wants: TopicCache[bool] = TopicCache()
        self._echoes: dict[str, threading.Event] = {}
        self._sender: Sender | None = None
        self._head_seen = 0
        """The highest number at the last look at the clock."""
        self._forks = forks.watch()

    @property
    def tagging(self) -> RecordTags:
        """The run and trial that are noted beside every entry."""
        return self._queue.tags

    @property
    def refused(self) -> int:
        """Entries that the policy did not take."""
        return self._queue.refused

    def open(self) -> None:
        """Listen for recorders, and for the run that goes on."""
        self._receive = self._on_recorder
        self._link.listen(self._topics.recorder("+"), self._receive, now=self._on_recorder)
        if self._link.wildcards_show_retained is False:
            # The session's own recorder is found by its name, any other one when it announces itself again: the leader
            # asks for that when somebody misses a recorder (`ask_for_recorder`).
            self._link.listen(self._topics.recorder(RECORDER), self._receive, now=self._on_recorder)
        self.tagging.listen(self._link, self._topics.run)
        if self._link.retransmitter is not None:
            self._link.retransmitter.on_gap = self._keep_gap

    def hear_recorders(self, timeout_s: float) -> bool:
        """Return when every recorder is known that has described itself before now; False after `timeout_s` seconds.
        An echo to oneself comes through the subscription of the descriptions, behind them. Raises `TransportError`."""
        deadline, echo = Deadline(timeout_s), os.urandom(8).hex()
        came_back = self._echoes[echo] = threading.Event()
        try:
            while not came_back.is_set() and not deadline.passed:  # sent again, in case the broker died with the first
                topic = self._topics.recorder(f"$echo-{self._link.source}")
                self._link.publish(topic, {ECHO: echo}, timeout_s=deadline.left())
                came_back.wait(min(_ECHO_PATIENCE_S, deadline.left()))
            return came_back.is_set()
        finally:
            del self._echoes[echo]

    # -- what is to be saved

    def wants(self, topic: str) -> bool:
        """Whether the session records a user's topic."""
        remembered = self._wants  # replaced when a recorder comes or goes: a late answer is written to the former one
        known = remembered.get(topic)
        if known is None:
            known = wanted(self.options.topics, topic, matches) or any(
                about.wants(topic, matches) for about in self.recorders()
            )
            remembered.remember(topic, known)
        return known

    def publish(
        self, topic: str, mqtt_topic: str, value: object, qos: int, parents: Parents,
        more: Mapping[str, object], extra: ExtraHeaders | None = None,
    ) -> Saved:  # fmt: skip
        """Publish a message and save it. Raises as publishing does, and `OutboxFull`."""
        message_id, number = self.publish_only(topic, mqtt_topic, value, qos, parents, more, extra)
        return Saved(self, number, None if more.get("asked") else topic, message_id)

    def publish_only(
        self, topic: str, mqtt_topic: str, value: object, qos: int, parents: Parents,
        more: Mapping[str, object], extra: ExtraHeaders | None = None,
    ) -> tuple[str, int]:  # fmt: skip
        """As `publish`, without a `Saved`; returns the message id and the number of the entry."""
        kept: list[tuple[str, int]] = []

        def keep(headers: Headers, body: Body) -> None:
            kept.append((headers.id, self._queue.put("data", topic, headers, body, self._context or "", more)))

        self._prepare()
        lineage = lineage_from(parents)
        if facts := self._inputs.describe(topic, lineage):
            more = {**facts, **more}
        self._link.publish(mqtt_topic, value, qos=qos, parents=lineage.parents, extra=extra, keep=keep)
        if lineage.described:
            self._link.inputs.made(topic, lineage.upto, lineage.in_work)
        return kept[0]

    def record(
        self, kind: Kind, topic: str, value: object, parents: Parents, more: Mapping[str, object],
        origin: str | None = None,
    ) -> Saved:  # fmt: skip
        """Save a value that is published on no topic. Raises `EncodeError`, `PayloadTooLarge`, `OutboxFull`."""
        self._prepare()
        lineage = lineage_from(parents)
        sequence = f"{kind} {topic}"
        if lineage.described:
            more = {**self._inputs.describe(f"\0{sequence}", lineage), **more}
        headers, body = self._link.stamp(sequence, value, lineage.parents, origin)
        number = self._queue.put(
            kind, topic, headers, body, self._context or "", {"asked": True, **more} if more else _ASKED
        )
        if lineage.described:
            self._link.inputs.made(f"\0{sequence}", lineage.upto, lineage.in_work)
        return Saved(self, number, None, headers.id)

    def keep_call(
        self, call: str, message_id: str | None, value: object, lineage: Lineage, caller: str,
        origin: str | None = None,
    ) -> None:  # fmt: skip
        """Save a call that was served: `call` is `instance.method`, `message_id` that of its request, `value` its
        arguments and outcome. Raises as `record`."""
        self._prepare()
        output = f"\0call {call}"
        facts = self._inputs.describe(output, lineage, message_id or "")
        headers, body = self._link.stamp(f"call {call}", value, lineage.parents, origin)
        headers = headers._replace(id=message_id or headers.id)
        self._queue.put("call", call, headers, body, self._context or "", {"caller": caller, **facts})
        if lineage.described:
            self._link.inputs.made(output, lineage.upto, lineage.in_work)

    def keep_run(self, run: str, event: str, facts: Mapping[str, object]) -> Saved:
        """Save that a run began or ended."""
        return self.record("run", run, {"event": event, **facts}, (), {})

    def _keep_gap(self, gap: Gap) -> None:
        """Note, where the session records, that this process will not get some messages. On the retransmitter's
        thread."""
        if self.options.topics or self.recorders():
            note = MissedNote(self._link.source, *gap)
            self.record("state", MISSED, note.to_value(), (), {})

    def _keep_list(self, entry: Entry) -> None:
        """Queue a list of inputs, before the entry that refers to it."""
        self._queue.put_all([entry])

    def _prepare(self) -> None:
        """Do before an entry is made whatever may wait or raise, and so cannot be done under the link's lock."""
        if self._forks != forks.times:
            raise NotAllowedHere("saving", "this process was forked from one that has the session; let that one save")
        if self._queue.closing:
            raise TransportClosed(f"{self._link.source} has left the session: nothing can be saved any more")
        if self._context is None:
            self.begin()
        if self._queue.is_full and self.options.when_full is WhenFull.BLOCK:
            self.await_room(ROOM_S)

    def await_room(self, timeout_s: float) -> None:
        """Return when there is room in the outbox; raises `OutboxFull`."""
        if not self._queue.await_room(timeout_s):
            raise OutboxFull(self._link.source, self.options.max_bytes, timeout_s)

    # -- what became of it

    def is_saved(self, number: int, topic: str | None) -> bool:
        """Whether an entry is on disk at a recorder that keeps it; `topic` is None for what all of them keep."""
        return self._queue.is_saved(number, topic)

    def wait(self, number: int, topic: str | None, message_id: str, deadline: Deadline) -> None:
        """Return when an entry is on disk at a recorder that keeps it; raises `NotSaved`."""
        queue = self._queue

        def is_settled() -> bool:
            return queue.is_saved(number, topic) or bool(queue.why_lost(number) or queue.problem(topic))

        with queue.changed:  # one look at all three: between two of them a receipt could arrive
            queue.wait_for(is_settled, deadline.left())
            if why := queue.why_lost(number):
                raise NotSaved(message_id, why, lost=True)
            if not queue.is_saved(number, topic):
                raise NotSaved(message_id, queue.problem(topic) or self._why_not(deadline.timeout_s))

    def settle(self, number: int, deadline: Deadline) -> int:
        """Wait until every entry up to this one is on disk at a recorder, or given up; returns how many are not. Ends
        early where no recorder can write."""
        return self._settled(number, deadline, lambda: bool(self._queue.problem()))

    def unsettled(self, origin: str) -> int:
        """How many entries are neither on disk at a recorder nor given up, of those up to the last one with this
        origin; they are sent at once."""
        return self._queue.hurry(self.tagging.last_of(origin))

    def flush(self, deadline: Deadline) -> int:
        """Wait until every entry so far is on disk at a recorder, or given up; returns how many are not."""
        return self._settled(self._queue.head, deadline, lambda: False)

    def _settled(self, upto: int, deadline: Deadline, in_vain: Callable[[], bool]) -> int:
        queue = self._queue
        with queue.changed:
            queue.wait_for(lambda: queue.unsettled(upto) == 0 or in_vain(), deadline.left())
            return queue.unsettled(upto)

    def _comes_forward(self, left: Callable[[], list[Orphan]], before: list[Orphan]) -> bool:
        """Whether less is left than before, or nothing more will be taken."""
        return left() != before or self._waiting_is_in_vain()

    def _waiting_is_in_vain(self) -> bool:
        """No recorder takes anything at present, and none is expected."""
        return not self._link.transport.connected or not self.recorders() or bool(self._queue.problem())

    def why_not(self) -> str:
        """Why nothing is brought to disk at present."""
        return self._queue.problem() or self._why_not(0.0)

    def _why_not(self, waited_s: float) -> str:
        if not self._link.transport.connected:
            return "the broker is not connected"
        if not self.recorders():
            return "nobody records in this session"
        ledger = self.options.ledger
        if ledger is not None and all((about.host, about.folder) != ledger for about in self.recorders()):
            return f"nobody records to {ledger[1]}, which the configuration names"
        within = f" within {waited_s:g} s" if waited_s else ""
        return f"no recorder has acknowledged it{within}"

    # -- recorders

    def _on_recorder(self, inbound: Inbound) -> bool:
        """A recorder's retained description; runs on the transport's thread."""
        name = self._topics.recorder_of(inbound.delivery.topic)
        value = inbound.take()
        if is_notice(value) and isinstance(value, dict):
            if (came_back := self._echoes.get(str(value.get(ECHO)))) is not None:
                came_back.set()
            return True
        if name.startswith("$"):  # the topic of echoes, on which each device may publish: no recorder
            return True
        about = RecorderAbout.from_value(name, value)
        if about is None and inbound.delivery.payload:
            logger.warning("%s: no recorder describes itself like this, ignored", inbound.delivery.topic)
            return True
        with self._queue.changed:  # nobody who waits for the recorder goes on before the answers are forgotten
            self._queue.set_recorder(name, about)
            self._wants = TopicCache()
        return True

    def recorders(self) -> Sequence[RecorderAbout]:
        """The recorders of the session."""
        return self._queue.recorders()

    def await_named(self, name: str, timeout_s: float) -> None:
        """Return when this recorder is known here, so that values are sent to it from now on."""
        with self._queue.changed:
            self._queue.wait_for(lambda: any(about.name == name for about in self.recorders()), timeout_s)

    def await_recorder(self, deadline: Deadline) -> list[str]:
        """The names of the recorders; where there is none, one is asked for. Empty where none came in time."""
        if not self.recorders():
            self.ask_for_recorder()
        return self._queue.await_recorder(deadline.left())

    # -- beginning and end

    def adopt(self, source: str | None = None) -> None:
        """Begin, if a dead process may have left an outbox in the folder: any one, or an earlier one of `source`."""
        prefix = "" if source is None else f"{folder_name(source)}~"
        if any(path.name.startswith(prefix) for path in self.options.folder.glob("*.outbox")):
            self.begin()

    def begin(self) -> None:
        """Make the outbox and its sender, unless that is done. From now on outboxes of dead processes are sent, too."""
        if self._context is None:
            self._explain_and_start()

    def _explain_and_start(self) -> None:
        """One thread explains; the others wait until it has done so, or try themselves where it has failed. No lock is
        held meanwhile: explaining runs what it was given, and starting the sender waits for the broker."""
        while self._context is None:
            with self._turn:
                others, own = self._beginning, threading.Event()
                self._beginning = others or own
            if others is not None:
                others.wait(ROOM_S)
                continue
            try:
                if self._context is None:
                    self._explain()
            finally:
                with self._turn:
                    self._beginning = None
                own.set()

    def _explain(self) -> None:
        explaining = list(self.explain())
        if self._sender is None:
            self._start_sender()
        self._queue.put_all(explaining)
        self._note_clock(ClockNote(*self._machine, self._clock.uptime, self._clock.ahead_s))
        # Set last: an entry of another thread passes `_prepare` only when its explanation is queued before it.
        self._context = explaining[-1].id if explaining else ""

    def _start_sender(self) -> None:
        # SQLite is loaded only by a process that saves something.
        from ether.recording.sender import Sender

        place = this_place()
        self._machine = place.host, place.boot
        self._clock = ClockSteps(*wall_and_uptime())
        self._sender = Sender(
            self._link, self._topics, self._queue, lambda: self.ask_for_recorder(), self._look_at_clock
        )
        self._sender.start()

    def _look_at_clock(self) -> None:
        """On the sender's thread, twice a second: note where the machine's clock was set."""
        upto, self._head_seen = self._head_seen, self._queue.head
        step = self._clock.look(*wall_and_uptime())
        if step is not None:
            self._note_clock(
                ClockNote(*self._machine, step.uptime, step.ahead_s, step.set_by_s, step.after_uptime, upto)
            )

    def _note_clock(self, note: ClockNote) -> None:
        headers, body = self._link.stamp(CLOCK, note.to_value(), ())
        self._queue.put("state", CLOCK, headers, body, "", {"asked": True})

    def has_unsaved(self) -> bool:
        """Whether this process, or a dead one of the session on this machine, may have left something to be sent."""
        return self._sender is not None or any(self.options.folder.glob("*.outbox"))

    def bring_home(self, timeout_s: float) -> list[Orphan]:
        """At the end of a program: bring to the recorders what it has saved, and what processes of the session that are
        dead have left on this machine. Goes on for as long as it comes forward, and gives up after `timeout_s` seconds
        without; returns what is left."""
        if not self.has_unsaved():
            return []
        timeout_s += 2 * self.options.hold_s  # a recorder that gathers answers later
        if self._sender is None:
            self._start_sender()
        assert self._sender is not None
        queue, source, path = self._queue, self._link.source, str(self._sender.path)
        queue.orphans = None
        self._sender.hurry()
        if self._link.transport.connected:
            self.await_recorder(Deadline(timeout_s))

        def left() -> list[Orphan]:
            own = queue.unsettled(queue.head)
            return [*([(source, own, path)] if own else []), *(queue.orphans or ())]

        with queue.changed:
            queue.wait_for(lambda: queue.orphans is not None, timeout_s)
            before: list[Orphan] = []
            while (now := left()) and now != before:
                before = now
                queue.wait_for(partial(self._comes_forward, left, before), timeout_s)
            return now

    def close(self, timeout_s: float) -> int:
        """Bring what waits to the recorders, for `timeout_s` seconds, or until that is in vain. What is left stays in
        the outbox file, and is sent by the program of this process when it ends, or by the next process of this session
        on this machine; returns how many entries that are. Twice is fine."""
        sender, self._sender = self._sender, None
        if sender is None:
            self._queue.close(at_once=True)
            return 0
        left = self._settled(self._queue.head, Deadline(timeout_s), self._waiting_is_in_vain)
        self._queue.close()
        sender.end()
        if left:
            logger.info("%d entries of %s are not saved yet; they wait in %s", left, self._link.source, sender.path)
        return left
