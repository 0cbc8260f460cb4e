"""The queue between the threads that record and the thread that sends, with what became of each entry.

`ether.recording.writer` puts entries in, `ether.recording.sender` takes them out and reports receipts; the two share
this object and nothing else. Everything in it is guarded by one condition, `changed`.

An entry gets its number in `put`, in the same critical section in which it enters the list: numbers leave in order and
without a hole. An entry that the policy refuses keeps its number; the numbers of neighbouring refused entries become
one gap entry, which is queued before the next entry that is accepted.

Promise: `put` never waits for anything but the lock, which no thread holds while it publishes or does I/O. The trap:
`put` runs under the link's publishing lock, so room in the outbox has to be awaited before it (`await_room`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from ether.recording.options import SavingOptions, WhenFull
from ether.recording.outbox_queue import FULL, gap_of
from ether.recording.receipt_rules import Filters, ReceiptTable, RecorderAbout
from ether.recording.tags import RecordTags
from ether.wire.codec import Body
from ether.wire.entries import Entry, Kind
from ether.wire.head import Headers
from ether.wire.topics import matches

_ENTRY_BYTES = 150
"""About what an entry takes beside its payload; counts towards the limit until the entry is packed."""

_REFUSED_MOST = 1000
"""So many refused entries are merged into one gap entry at a time, which bounds their memory."""


Orphan = tuple[str, int, str]
"""The outbox of a dead process: its source, how many of its entries no recorder has acknowledged, and its file."""


class EntryQueue:
    """Entries of one process that its sender has not taken yet, and the receipts of those that it has."""

    def __init__(self, options: SavingOptions) -> None:
        self.options = options
        self.changed = threading.Condition(threading.RLock())
        """Notified when the sender has work, and when a receipt, a recorder, a problem or room has come."""
        self.tags = RecordTags(options.run, self.changed, lambda: self.head)
        self.head = 0
        """The highest number that was given out."""
        self.waiting_bytes = 0
        """Bytes of entries that no recorder has acknowledged: in this queue, and as the sender last reported them."""
        self.refused = 0
        """Entries that the policy `drop-new` refused."""
        self.orphans: Sequence[Orphan] | None = None
        """The outboxes of dead processes that the sender has taken over and not emptied; None until somebody has asked
        for them (`Sender.hurry`)."""
        self.closing = False
        """No thread will put entries in any more; the sender takes what is left, and ends."""
        self._closed = False
        self._fresh: list[Entry] = []
        self._fresh_bytes = 0
        self._refused_entries: list[Entry] = []
        self._receipts = ReceiptTable(matches, options.ledger, options.topics)
        self._recorders: dict[str, RecorderAbout] = {}
        self._waiters = 0
        self._hurried = False
        self._last_taken = 0.0

    # -- for threads that record

    def put(
        self, kind: Kind, topic: str, headers: Headers, body: Body, context: str, more: Mapping[str, object]
    ) -> int:
        """Number an entry and queue it; returns its number. After the end the entry counts as lost."""
        message_id, _, seq, time_, parents, *_ = headers
        origin = headers.origin
        with self.changed:
            self.head = number = self.head + 1
            beside = self.tags.beside if origin is None else self.tags.beside_caused(origin, number)
            entry = Entry(
                number, kind, topic, message_id, seq, time_, parents, context,
                body.content_type, body.payload, {**beside, **more} if more else beside,
            )  # fmt: skip
            if self._closed:
                self._receipts.lost(number, number, "this process has left the session")
            else:
                self._accept_or_refuse(entry)
        return number

    def put_all(self, entries: Iterable[Entry]) -> None:
        """Number ready-made entries, and queue them."""
        with self.changed:
            for entry in entries:
                self.head += 1
                self._accept_or_refuse(entry._replace(number=self.head))

    @property
    def is_full(self) -> bool:
        """Whether the limit in bytes is reached."""
        return self.waiting_bytes >= self.options.max_bytes

    def await_room(self, timeout_s: float) -> bool:
        """Wait until the limit is not reached any more; False where that takes longer."""
        with self.changed:
            return self.changed.wait_for(lambda: not self.is_full, timeout_s)

    def close(self, *, at_once: bool = False) -> None:
        """Let the sender take what is left and end. `at_once`: there is no sender, the queue is closed from now on."""
        with self.changed:
            self.closing = True
            self._closed = self._closed or at_once
            self.changed.notify_all()

    def _accept_or_refuse(self, entry: Entry) -> None:
        # Only `drop-new` refuses. `block` has waited for room before, and a few entries above the limit do no harm;
        # with `drop-oldest` the sender gives up the oldest entries of the outbox file.
        if self.waiting_bytes >= self.options.max_bytes and self.options.when_full is WhenFull.DROP_NEW:
            self._refuse(entry)
        else:
            if self._refused_entries:
                self._queue_gap()
            self._queue(entry)

    def _queue(self, entry: Entry) -> None:
        size = len(entry.payload) + _ENTRY_BYTES
        self.waiting_bytes += size
        self._fresh_bytes += size
        self._fresh.append(entry)
        if len(self._fresh) == 1:  # the sender may be asleep; later entries find it awake
            self.changed.notify_all()

    def _refuse(self, entry: Entry) -> None:
        self._refused_entries.append(entry)
        self.refused += 1
        self._receipts.lost(entry.number, entry.number, FULL)
        if len(self._refused_entries) > _REFUSED_MOST:
            self._refused_entries = [gap_of(self._refused_entries, FULL)]

    def _queue_gap(self) -> None:
        """Queue one gap entry for the entries refused so far, so that the numbers of the queue have no hole."""
        if self._refused_entries:
            gap = gap_of(self._refused_entries, FULL)
            self._refused_entries = []
            self._queue(gap)

    # -- for the sender's thread

    def take_fresh(self, patience_s: float, has_news: Callable[[], bool]) -> list[Entry] | None:
        """All queued entries, in order. Waits up to `patience_s` seconds for one, or until `has_news()` says that the
        sender has other work; the list may be empty then. None once the queue is closing and empty."""
        with self.changed:
            if not (self._fresh or self.closing or has_news()):
                self.changed.wait(patience_s)
            self._gather()
            self._hurried = False
            # A gap is queued before the next accepted entry. Where no entry follows, it is queued here: when there is
            # room again, and at the end.
            if not self.is_full or self.closing:
                self._queue_gap()
            fresh, self._fresh, self._fresh_bytes = self._fresh, [], 0
            if fresh:
                self._last_taken = time.monotonic()
            # Decided under the lock: an entry that is put later than this is counted as lost, never forgotten.
            self._closed = self.closing and not fresh
            return None if self._closed else fresh

    def _gather(self) -> None:
        """Let more entries come, up to `gather_s` after the last batch. A first entry after a pause leaves at once; a
        thread that waits for a receipt, and the end, cut this short."""
        left_s = self._last_taken + self.options.gather_s - time.monotonic()
        if self._fresh and left_s > 0:
            self.changed.wait_for(lambda: self._waiters or self._hurried or self.closing, left_s)

    def wake(self) -> None:
        """The sender has work other than entries: its `has_news()` has become true."""
        with self.changed:
            self.changed.notify_all()

    def report(
        self, levels: Mapping[Filters, int], outbox_bytes: int, problems: Mapping[str, str], lost: Sequence[Entry],
        in_named: int = 0,
    ) -> None:  # fmt: skip
        """Take over what the sender knows: the highest acknowledged number for each set of filters, the bytes in its
        outboxes, why recorders cannot write (by name), the gap entries of what was given up, and the highest number
        that is in the ledger that the configuration names."""
        with self.changed:
            was_full = self.is_full
            self.waiting_bytes = outbox_bytes + self._fresh_bytes
            for gap in lost:
                first, last = gap.more["first"], gap.more["last"]
                assert isinstance(first, int)
                assert isinstance(last, int)
                self._receipts.lost(first, last, str(gap.more["why"]))
            there_is_room = was_full and not self.is_full
            # `|`, not `or`: both tables must be updated. Threads are woken only by news: this runs for every batch.
            if self._receipts.saved(levels, in_named) | self._receipts.troubled(problems) or lost or there_is_room:
                self.changed.notify_all()

    def report_orphans(self, orphans: Sequence[Orphan]) -> None:
        """Take over which outboxes of dead processes still wait."""
        with self.changed:
            if orphans != self.orphans:
                self.orphans = orphans
                self.changed.notify_all()

    # -- recorders

    def set_recorder(self, name: str, about: RecorderAbout | None) -> None:
        """A recorder has described itself; None: it has left."""
        with self.changed:
            others = {known: other for known, other in self._recorders.items() if known != name}
            self._recorders = others if about is None else {**others, name: about}
            self.changed.notify_all()

    def recorders(self) -> Sequence[RecorderAbout]:
        """The recorders of the session."""
        return list(self._recorders.values())  # without the lock: the dictionary is replaced, never changed

    def await_recorder(self, timeout_s: float) -> list[str]:
        """Wait for a recorder; the sorted names of all. Empty where none came in time."""
        with self.changed:
            self.changed.wait_for(lambda: bool(self._recorders), timeout_s)
            return sorted(self._recorders)

    # -- what became of entries, for threads that wait

    def wait_for(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Wait until `condition()` holds, which is asked under the lock. Meanwhile the sender does not gather."""
        with self.changed:
            if condition():
                return
            self._waiters += 1
            try:
                self.changed.notify_all()
                self.changed.wait_for(condition, timeout_s)
            finally:
                self._waiters -= 1

    def hurry(self, upto: int) -> int:
        """How many of the entries up to this number are neither on disk at a recorder nor given up. Where there are
        some, the sender does not gather any longer."""
        with self.changed:
            left = self.unsettled(upto)
            if left and not self._hurried:
                self._hurried = True
                self.changed.notify_all()
            return left

    def is_saved(self, number: int, topic: str | None) -> bool:
        """Whether an entry is on disk at a recorder that keeps it; `topic` is None for what every recorder keeps."""
        with self.changed:
            return self._receipts.is_saved(number, topic)

    def why_lost(self, number: int) -> str:
        """Why an entry was given up; "" where it was not."""
        with self.changed:
            return self._receipts.why_lost(number)

    def unsettled(self, upto: int) -> int:
        """How many of the entries up to this number are neither on disk at a recorder nor given up."""
        with self.changed:
            return max(0, upto - self._receipts.settled_to(self.recorders())) if upto else 0

    def problem(self, topic: str | None = None) -> str:
        """Why none of the recorders that would keep an entry can write at present; "" where one can, or none is
        there."""
        with self.changed:
            return self._receipts.problem(topic, self.recorders())
