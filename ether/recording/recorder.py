"""The recorder: an ordinary instance that writes what the session saves to the ledger on disk.

    instances:
      recorder2: {class_path: ether.recorder.Recorder, kwargs: {folder: /mnt/lab/bench, topics: ["camera/#"]}}

A session that records starts one, named `recorder`; more may run, also on other machines. Batches arrive on the
network thread, which only queues them. One thread writes (group commit): all batches that have arrived while it wrote
the last ones go into one transaction, which is synced; then each outbox gets a receipt.

Promises: nothing is acknowledged that is not on disk. Where the disk takes nothing, each receipt says so, at once, to
the sources; they send again when there is room. The trap: a receipt covers every number before it. So a batch that does
not follow the last stored number is not stored, and its receipt repeats that number, from which its sender goes on.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from ether.connection.extension import Extension
from ether.connection.link import Inbound, Link, await_taken
from ether.decorators import ether_get
from ether.errors import DecodeError, EtherError, LedgerError, PayloadError
from ether.ledger.places import default_folder, leave_pointer
from ether.ledger.reader import LedgerReader
from ether.ledger.writer import LedgerWriter
from ether.log import get_ether_logger
from ether.reading.run_facts import runs_in
from ether.recording.completeness_rules import prove
from ether.recording.passive_capture import PassiveCapture
from ether.recording.receipt_rules import ALL, RecorderAbout
from ether.system.clock import wall_time
from ether.wire.entries import NOT_HERE, Batch, Entry, unpack_batch
from ether.wire.parts import PartsTable, is_part
from ether.wire.topics import SessionTopics

logger = get_ether_logger("Ether")

_AT_ONCE_BYTES = 32 << 20
_AT_ONCE_COUNT = 256
_NICE = 5
"""About a third of the processor time of another process, when both want it."""

_LOOK_S = 1.0
_ACK_S = 2.0
_CLOSE_S = 10.0
_CAPTURED_MOST = 20_000
"""So many captured entries (foreign messages, log records, states) wait while the disk takes nothing. They are in no
outbox, so the ones above that are lost."""


class _Work(NamedTuple):
    """What one transaction writes: batches of outboxes, and captured entries (`loose`), which have no numbers."""

    batches: list[Batch]
    loose: list[tuple[str, Entry]]
    inbound: list[Inbound]
    ends: bool


class Recorder(Extension):
    """Records a session. `topics` are filters of users' topics, or "all"; `folder` is that of the ledger, by default
    one in the user's data folder. `logs` says whether log records and changes of state are recorded, too; `strangers`
    whether foreign messages on the session's own topics are, those of programs that are not Ether's."""

    def __init__(
        self,
        topics: str | Sequence[str] = ALL,
        folder: str | None = None,
        logs: bool = True,
        strangers: bool = True,
    ) -> None:
        self._filters = None if topics == ALL else tuple([topics] if isinstance(topics, str) else topics)
        self._place = folder
        self._logs = logs
        self._strangers = strangers
        self._queue: queue.SimpleQueue[Inbound | tuple[str, Entry] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._turn = threading.Lock()
        self._is_over = False
        """The thread writes no more."""
        self._is_left = False
        """`detach` has waited for the thread in vain, and the thread closes the ledger."""
        self._problem = ""
        self._warned = False
        self._parts = PartsTable()
        self._loose: list[tuple[str, Entry]] = []
        self._not_queued = 0
        self._overflowed = self._lost_noted = 0

    # -- coming and going

    def attach(self, link: Link, topics: SessionTopics, name: str) -> None:
        """Begin to record; raises `LedgerError`, and `PublishRefused` where the broker does not let it describe itself:
        nobody would send it anything."""
        self._link, self._topics, self._name = link, topics, name
        self._incarnation = os.urandom(8).hex()
        self._folder = Path(self._place).absolute() if self._place else default_folder(topics.session, os.environ)
        self._writer = LedgerWriter.open(self._folder, topics.session)
        if self._place:
            leave_pointer(topics.session, self._folder, os.environ)
        self._thread = threading.Thread(target=self._run, name="ether-recorder", daemon=True)
        self._thread.start()
        self._receive = self._take
        link.listen(topics.record(name), self._receive, now=self._take)
        self._passive_capture = PassiveCapture(
            link, topics, self._filters, self._capture, logs=self._logs, strangers=self._strangers
        )
        self._defend = self._on_about
        link.listen(topics.recorder(name), self._defend)
        about = RecorderAbout(name, self._incarnation, self._filters)
        await_taken(link.announce(topics.recorder(name), about.to_value()))
        logger.info("%s records to %s", name, self._folder)

    def detach(self) -> None:
        """Write what has arrived, and close the ledger. Twice is fine."""
        if self._closing or self._thread is None:
            return
        self._closing = True
        if self._link.transport.connected:
            try:
                self._link.withdraw(self._topics.recorder(self._name))
            except EtherError as error:
                logger.debug("%s could not take its description back: %s", self._name, error)
        self._passive_capture.close()
        self._queue.put(None)
        self._thread.join(_CLOSE_S)
        with self._turn:  # the writer is for one thread at a time: the one that writes closes it, where it goes on
            left = self._is_left = not self._is_over
        if not left:
            self._writer.close()
        else:
            logger.warning(
                "%s still writes to %s, and closes it when the disk has taken that", self._name, self._folder
            )

    def orphaned(self) -> None:
        """The program that would start this recorder again has died, so its description goes, too: otherwise every
        program of a later session would keep its values for it. While that program lives the description stays, also
        when the recorder dies: then values wait in outboxes until it is started again."""
        topic = self._topics.recorder(self._name)
        self._link.leave_to_others(topic)
        try:
            self._link.transport.publish(topic, b"", retain=True, timeout_s=0.0)
        except EtherError as error:
            logger.debug("%s could not take its description back: %s", self._name, error)

    def _on_about(self, inbound: Inbound) -> None:
        """On the dispatch thread. Whoever clears the description of a recorder took it for dead."""
        if not inbound.delivery.payload and not self._closing:
            self._link.repeat(self._topics.recorder(self._name))
        inbound.done()

    def _take(self, inbound: Inbound) -> bool:
        """On the transport's thread."""
        self._queue.put(inbound)
        return True

    def _capture(self, item: tuple[str, Entry]) -> None:
        """On the transport's thread."""
        if self._queue.qsize() < _CAPTURED_MOST:
            self._queue.put(item)
        else:
            self._not_queued += 1

    # -- writing

    def _run(self) -> None:
        _give_way()
        ends = False
        while not ends:
            try:
                work = self._gather()
                ends = work.ends
                self._keep(work)
            except Exception:  # this loop must outlive every batch: a source without a receipt sends again
                logger.exception("%s could not keep what came", self._name)
        with self._turn:
            self._is_over, left = True, self._is_left
        if left:
            try:
                self._writer.close()
            except EtherError as error:
                logger.error("%s could not close its ledger: %s", self._name, error)

    def _gather(self) -> _Work:
        """All that has arrived, within the limits of one transaction; nothing after a silence of `_LOOK_S`."""
        work = _Work([], [], [], False)
        size = 0
        try:
            item = self._queue.get(timeout=_LOOK_S)
        except queue.Empty:
            return work
        while item is not None:
            if isinstance(item, Inbound):
                size += self._note_batch(item, work)
            else:
                work.loose.append(item)
                size += len(item[1].payload)
            if size > _AT_ONCE_BYTES or len(work.batches) >= _AT_ONCE_COUNT:
                return work
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return work
        return work._replace(ends=True)

    def _note_batch(self, inbound: Inbound, work: _Work) -> int:
        work.inbound.append(inbound)
        try:
            value = inbound.unpack().value
            if not isinstance(value, bytes):
                raise DecodeError("it is no batch of entries")
            whole = self._parts.add(value) if is_part(value) else value
            if whole is None:  # the other parts are on their way
                return len(value)
            batch = unpack_batch(whole)
        except PayloadError as error:
            logger.error("%s was sent what it cannot keep, on %s: %s", self._name, inbound.delivery.topic, error)
            return 0
        work.batches.append(self._joined_to_ledger(batch))
        return len(whole)

    def _joined_to_ledger(self, batch: Batch) -> Batch:
        """A batch that follows the last number in the ledger. An outbox drops entries that every recorder of that time
        had; a recorder that came later gets a gap in their place, or it could never accept a batch of that outbox."""
        known = self._writer.highest(batch.outbox)
        if known >= batch.base:
            return batch
        more = {"first": known + 1, "last": batch.base, "why": NOT_HERE}
        gap = Entry(batch.base, "gap", "", "", 0, wall_time(), (), "", None, b"", more)
        return batch._replace(entries=(gap, *batch.entries))

    def _keep(self, work: _Work) -> None:
        """Write, then acknowledge. Where the ledger takes nothing, the receipts repeat the numbers that it has, with
        the problem, so that threads that wait for their values are told."""
        something = bool(work.batches or work.loose or self._loose)
        try:
            upto = self._written(work)
            if something:
                self._all_is_well()
        except LedgerError as error:
            upto = {batch.outbox: self._writer.highest(batch.outbox) for batch in work.batches}
            self._is_in_trouble(error)
        finally:
            for inbound in work.inbound:
                inbound.done()
        for outbox, number in upto.items():
            self._acknowledge(outbox, number)

    def _written(self, work: _Work) -> dict[str, int]:
        now = wall_time()
        self._hold(work.loose)
        upto = self._writer.append(work.batches, now) if work.batches else {}
        lost = self._not_queued + self._overflowed
        if self._loose or lost > self._lost_noted:
            self._writer.append_loose([*self._loose, *self._gap(lost - self._lost_noted, now)], now)
            self._loose, self._lost_noted = [], lost
        return upto

    def _hold(self, loose: list[tuple[str, Entry]]) -> None:
        """Hold captured entries until they are on disk."""
        room = max(0, _CAPTURED_MOST - len(self._loose))
        self._loose += loose[:room]
        self._overflowed += len(loose[room:])

    def _gap(self, count: int, now: float) -> list[tuple[str, Entry]]:
        """A gap entry for captured entries that are lost: foreign messages, log records, changes of state."""
        if not count:
            return []
        logger.error("%s could not keep %d messages of strangers, log records and states", self._name, count)
        why = "overheard while the disk took nothing or too little"
        more = {"first": self._lost_noted + 1, "last": self._lost_noted + count, "why": why}
        return [(self._name, Entry(0, "gap", "", "", 0, now, (), "", None, b"", more))]

    def _acknowledge(self, outbox: str, upto: int) -> None:
        receipt: dict[str, Any] = {"outbox": outbox, "recorder": self._name, "birth": self._incarnation, "upto": upto}
        if self._problem:
            receipt["problem"] = self._problem
        try:
            self._link.publish(self._topics.ack(outbox), receipt, timeout_s=_ACK_S)
        except EtherError as error:
            logger.debug("a receipt could not be sent; it is asked for again: %s", error)

    def _is_in_trouble(self, error: LedgerError) -> None:
        if not self._problem:
            logger.error("%s cannot record: %s. What comes waits at its source.", self._name, error)
        self._problem = f"{self._name} cannot record: {error}"

    def _all_is_well(self) -> None:
        if self._problem:
            logger.warning("%s records again", self._name)
        self._problem = ""
        warning = self._writer.warning()
        if warning is not None and not self._warned:
            logger.warning("%s: %s", self._name, warning)
        self._warned = warning is not None

    # -- questions

    @ether_get
    def runs(self, run: str | None = None) -> list[dict[str, Any]]:
        """What the ledger says of each named run, or of that one (see `ether.protocol.run_record.RunState`)."""
        with LedgerReader.open(self._folder) as reader:
            return [state.to_value() for state in runs_in(reader, run).values()]

    @ether_get
    def proof(self) -> dict[str, Any]:
        """What is on disk and what is missing: `summary`, `durable`, `total`, `duplicates`, `gaps`, `folder`."""
        with LedgerReader.open(self._folder) as reader:
            proof = prove(reader.outboxes(), reader.duplicates())
        return {**asdict(proof), "summary": str(proof), "folder": str(self._folder), "problem": self._problem}


def _give_way() -> None:
    """Lower the priority of this thread: where the processor is short, the processes that are recorded go first, and
    recording catches up later, from their outboxes on disk. Only Linux has priorities of threads. Elsewhere the
    priority stays: a process would pass a lower one on to its children, and could not raise it again."""
    if sys.platform == "linux":
        me = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, me, max(_NICE, os.getpriority(os.PRIO_PROCESS, me)))
