"""The saving side of a process: takes what is to be kept, keeps it in the outbox, brings it to every recorder.

Whoever publishes or records pays for packing the entry and for a place in a list; a thread (`ether.runtime.sending`)
writes it to the outbox's file, sends it in batches, and takes the receipts. It begins with the first entry.

Promises: entries reach a recorder in order, each once; one that is given up is named in its place, and its `Saved` says
so. While no recorder answers, entries wait: on disk, bounded, with the policy that the user chose.

The trap: keeping happens under the link's publishing lock and must not wait. Waiting for room is therefore a call of
its own, made before (`await_room`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ether.errors import NotSaved, OutboxFull, PayloadError
from ether.logs import get_ether_logger
from ether.protocol.recorders import RecorderAbout, wanted
from ether.runtime.deadline import Deadline
from ether.runtime.lane import FULL, gap_of
from ether.runtime.link import Inbound, Link
from ether.runtime.saved import Saved
from ether.wire.codec import Body
from ether.wire.entries import Entry, Kind, pack_entry
from ether.wire.headers import Headers
from ether.wire.topics import SessionTopics, matches

if TYPE_CHECKING:
    from ether.runtime.sending import Sender

logger = get_ether_logger("Ether")

ROOM_S = 10.0
_REMEMBERED_TOPICS = 4096
GATHER_S = 0.002
"""Entries that follow a batch so soon go with the next one: a batch costs what dozens of entries cost."""


class WhenFull(Enum):
    """What happens at the outbox's limit."""

    BLOCK = "block"
    DROP_OLDEST = "drop-oldest"
    DROP_NEW = "drop-new"


@dataclass(frozen=True, slots=True)
class SavingOptions:
    """How a process saves. `folder` is where outboxes of this session are; `topics` what the session records, None for
    all of its own; `run` is noted beside every entry."""

    folder: Path
    topics: tuple[str, ...] | None = ()
    run: str = ""
    max_bytes: int = 512 << 20
    max_age_s: float = 7 * 86_400.0
    when_full: WhenFull = WhenFull.BLOCK

    def to_value(self) -> dict[str, Any]:
        """As an instance's process is told."""
        topics = None if self.topics is None else list(self.topics)
        return {**asdict(self), "folder": str(self.folder), "topics": topics, "when_full": self.when_full.value}

    @classmethod
    def from_value(cls, value: Mapping[str, Any]) -> SavingOptions:
        """The inverse."""
        topics = None if value["topics"] is None else tuple(value["topics"])
        made = {"folder": Path(value["folder"]), "topics": topics, "when_full": WhenFull(value["when_full"])}
        return cls(**{**value, **made})


class Saver:
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
        self._changed = threading.Condition()
        self._explaining = threading.Lock()
        self._context: str | None = None
        self._head = 0
        self._waiting_bytes = 0
        self._fresh: list[tuple[int, bytes]] = []
        self._dropped: list[Entry] = []
        self._lost: list[tuple[int, int, str]] = []
        self._saved_to = 0
        self._taken = 0.0
        self._problem = ""
        self._wants: dict[str, bool] = {}
        self._sender: Sender | None = None
        self._common = {"run": options.run} if options.run else {}
        self._recorders: dict[str, RecorderAbout] = {}
        self._closing = False
        self.refused = 0
        """Entries that the policy did not take."""

    def open(self) -> None:
        """Listen for recorders."""
        self._receive = self._on_recorder
        self._link.listen(self._topics.recorder("+"), self._receive, now=self._on_recorder)

    # -- what is to be saved

    def wants(self, topic: str) -> bool:
        """Whether the session records a user's topic."""
        known = self._wants.get(topic)
        if known is None:
            known = wanted(self.options.topics, topic, matches) or any(
                about.wants(topic, matches) for about in self._recorders.values()
            )
            if len(self._wants) < _REMEMBERED_TOPICS:
                self._wants[topic] = known
        return known

    def publish(
        self, topic: str, mqtt_topic: str, value: object, qos: int, parents: tuple[str, ...],
        more: Mapping[str, object], *, schema: str | None = None,
    ) -> Saved:  # fmt: skip
        """Publish a message and keep it. Raises as publishing does, and `OutboxFull`."""
        self._prepare()
        kept: list[Saved] = []

        def keep(headers: Headers, body: Body) -> None:
            kept.append(self._keep("data", topic, headers, body, more))

        self._link.publish(mqtt_topic, value, qos=qos, parents=parents, keep=keep, schema=schema)
        return kept[0]

    def record(
        self, kind: Kind, topic: str, value: object, parents: tuple[str, ...], more: Mapping[str, object]
    ) -> Saved:
        """Keep a value that goes to no topic. Raises `EncodeError`, `PayloadTooLarge`, `OutboxFull`."""
        self._prepare()
        headers, body = self._link.stamp(f"{kind} {topic}", value, parents)
        return self._keep(kind, topic, headers, body, {"asked": True, **more})

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

    def _prepare(self) -> None:
        """What cannot be done under the link's lock."""
        if self._context is None:
            self._explain()
        if self.options.when_full is WhenFull.BLOCK:
            self.await_room(ROOM_S)

    def await_room(self, timeout_s: float) -> None:
        """Return when there is room in the outbox; raises `OutboxFull`."""
        if self._waiting_bytes < self.options.max_bytes:
            return
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting_bytes < self.options.max_bytes, timeout_s):
                raise OutboxFull(self._link.source, self.options.max_bytes, timeout_s)

    def _keep(self, kind: Kind, topic: str, headers: Headers, body: Body, more: Mapping[str, object]) -> Saved:
        with self._changed:
            self._head = number = self._head + 1
            entry = Entry(
                number, kind, topic, headers.id, headers.seq, headers.time, headers.parents, self._context or "",
                body.content_type, body.payload, {**self._common, **more},
            )  # fmt: skip
            self._add(entry)
        return Saved(self, number, headers.id)

    def _add(self, entry: Entry) -> None:
        """Under the lock."""
        full = self._waiting_bytes >= self.options.max_bytes
        if full and self.options.when_full is WhenFull.DROP_NEW:
            self._dropped.append(entry)
            self.refused += 1
            if len(self._dropped) > 1000:
                self._dropped = [gap_of(self._dropped, FULL)]
        else:
            self._close_gap()
            packed = pack_entry(entry)
            self._waiting_bytes += len(packed)
            self._fresh.append((entry.number, packed))
        if len(self._fresh) == 1:
            self._changed.notify_all()

    def _close_gap(self) -> None:
        """What was not taken becomes one gap, before the next entry is; under the lock."""
        if self._dropped:
            gap = gap_of(self._dropped, FULL)
            self._dropped = []
            self._note_lost(gap)
            packed = pack_entry(gap)
            self._waiting_bytes += len(packed)
            self._fresh.append((gap.number, packed))

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

    # -- fates

    def is_saved(self, number: int) -> bool:
        """Whether an entry is on disk at a recorder."""
        return number <= self._saved_to and not self._why_lost(number)

    def wait(self, number: int, message_id: str, deadline: Deadline) -> None:
        """Return when an entry is on disk at a recorder; raises `NotSaved`."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_settled(number), deadline.left())
            if why := self._why_lost(number):
                raise NotSaved(message_id, why, lost=True)
            if number <= self._saved_to:
                return
            raise NotSaved(message_id, self._why_not(deadline.timeout_s))

    def flush(self, deadline: Deadline) -> int:
        """Wait until all that was given to `keep` is on disk at a recorder; how many entries are not."""
        with self._changed:
            if self._head:
                self._changed.wait_for(lambda: self._saved_to >= self._head or bool(self._problem), deadline.left())
            return max(0, self._head - self._saved_to)

    def _is_settled(self, number: int) -> bool:
        return number <= self._saved_to or bool(self._problem) or bool(self._why_lost(number))

    def _why_lost(self, number: int) -> str:
        return next((why for first, last, why in self._lost if first <= number <= last), "")

    def _why_not(self, waited_s: float) -> str:
        if self._problem:
            return self._problem
        if not self._link.transport.connected:
            return "the broker is not connected"
        if not self._recorders:
            return "nobody records in this session"
        return f"no recorder has acknowledged it within {waited_s:g} s"

    def _note_lost(self, gap: Entry) -> None:
        """Under the lock."""
        first, last = gap.more["first"], gap.more["last"]
        assert isinstance(first, int)
        assert isinstance(last, int)
        kept = [span for span in self._lost if not first <= span[0] <= last]
        self._lost = [*kept[-1000:], (first, last, str(gap.more["why"]))]

    # -- what happens around

    def _on_recorder(self, inbound: Inbound) -> bool:
        """On the transport's thread."""
        try:
            value = inbound.unpack().value
        except PayloadError:
            value = None
        finally:
            inbound.done()
        name = self._topics.recorder_of(inbound.delivery.topic)
        about = RecorderAbout.from_value(name, value)
        with self._changed:
            if about is None:
                self._recorders.pop(name, None)
            else:
                self._recorders[name] = about
            self._wants = {}
            self._changed.notify_all()
        return True

    def recorders(self) -> Sequence[RecorderAbout]:
        """The recorders that there are."""
        with self._changed:
            return list(self._recorders.values())

    # -- the thread

    @property
    def drops_oldest(self) -> bool:
        """Whether the oldest entries make room for new ones."""
        return self.options.when_full is WhenFull.DROP_OLDEST

    def _begin(self) -> None:
        """Make the outbox, and the thread that empties it; what the dead have left is taken over."""
        from ether.runtime.sending import Sender  # SQLite is loaded by who saves something
        from ether.store.outbox import OutboxFile

        self._sender = Sender(self._link, self._topics, self, OutboxFile.create(self.options.folder, self._link.source))
        self._sender.start()

    def adopt(self) -> None:
        """Begin, if there is anything that the dead have left in our folder."""
        if any(self.options.folder.glob("*.outbox")):
            self._prepare()

    def take_fresh(self, patience_s: float) -> list[tuple[int, bytes]] | None:
        """For the sender: what has come, after a while nothing; None once it is time to end."""
        with self._changed:
            if not (self._fresh or self._closing or self._sender_is_due()):
                self._changed.wait(patience_s)
            gather_s = self._taken + GATHER_S - time.monotonic()
            if gather_s > 0 and not self._closing:
                self._changed.wait(gather_s)
            if self._waiting_bytes < self.options.max_bytes:
                self._close_gap()
            fresh, self._fresh = self._fresh, []
            if fresh:
                self._taken = time.monotonic()
            return None if self._closing and not fresh else fresh

    def _sender_is_due(self) -> bool:
        return self._sender is not None and self._sender.has_news

    def wake(self) -> None:
        """For the sender: something else has come for it."""
        with self._changed:
            self._changed.notify_all()

    def tell(self, saved_to: int, waiting_bytes: int, problem: str, lost: Sequence[Entry]) -> None:
        """By the sender: how far it is."""
        with self._changed:
            self._saved_to = max(self._saved_to, saved_to)
            self._waiting_bytes = waiting_bytes + sum(len(packed) for _, packed in self._fresh)
            self._problem = problem
            for gap in lost:
                self._note_lost(gap)
            self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Bring what waits to the recorders, for `timeout_s` seconds; what is left stays in its file, for whoever comes
        next. Twice is fine."""
        sender, self._sender = self._sender, None
        if sender is None:
            return
        left = self.flush(Deadline(timeout_s if self.recorders() else 0.0))
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        sender.end()
        if left:
            logger.warning("%d entries of %s are not saved yet; they wait in %s", left, self._link.source, sender.path)
