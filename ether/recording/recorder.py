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
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from ether.config.volumes import Rotation, parse_keep, parse_rotation, said_of_life
from ether.connection.extension import Extension
from ether.connection.link import Inbound, Link, await_taken
from ether.decorators import ether_get
from ether.errors import DecodeError, EtherError, LedgerError, PayloadError
from ether.ledger.durable import free_bytes
from ether.ledger.places import default_folder, leave_pointer
from ether.ledger.reader import LedgerReader
from ether.ledger.rotation_rules import is_due
from ether.ledger.volumes import ROTATE_NOW
from ether.ledger.writer import LedgerWriter
from ether.log import get_ether_logger
from ether.reading.run_facts import runs_in
from ether.recording.completeness_rules import prove
from ether.recording.forecast_rules import VERY_SOON_S, Growth, forecast_text, seconds_left, warning_of
from ether.recording.housekeeping import Housekeeping
from ether.recording.passive_capture import PassiveCapture
from ether.recording.receipt_rules import ALL, RecorderAbout
from ether.recording.recorder_page import HeardSources, RecorderFacts, RecorderPage
from ether.recording.signatures import RecorderSignatures
from ether.recording.sources import facts_for, sources_of
from ether.system.clock import wall_time
from ether.system.processes import this_place
from ether.version import WIRE
from ether.wire.entries import NOT_HERE, NOT_HERE_ANY_MORE, Batch, Entry, unpack_batch
from ether.wire.parts import PartsTable, is_part
from ether.wire.topics import SessionTopics

logger = get_ether_logger("Ether")

_AT_ONCE_BYTES = 32 << 20
_AT_ONCE_COUNT = 256
_NICE = 5
"""About a third of the processor time of another process, when both want it."""

_LOOK_S = 1.0
_ACK_S = 2.0
_ALIVE_S = 1.0
_CLOSE_S = 10.0
_SAY_S = 0.25
"""How often at most the recorder says how it stands."""
_ROTATION_AGAIN_S = 5.0
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
    whether foreign messages on the session's own topics are, those of programs that are not Ether's. `rotate` says when
    a volume of the ledger is closed, `keep` how long what is in it is kept (see `ether.config.volumes`); raises
    `ConfigError` for other words. `sync_every_s` gathers what comes in so many seconds into one transaction, which
    saves SD cards; what waits is in the outboxes."""

    def __init__(
        self,
        topics: str | Sequence[str] = ALL,
        folder: str | None = None,
        logs: bool = True,
        strangers: bool = True,
        rotate: str | Sequence[str] | None = None,
        keep: str | Mapping[str, str] | None = None,
        until_backed_up: bool = False,
        sync_every_s: float = 0.0,
    ) -> None:
        self._filters = None if topics == ALL else tuple([topics] if isinstance(topics, str) else topics)
        self._place = folder
        self._logs = logs
        self._strangers = strangers
        self._retention = None if keep is None else parse_keep(keep, until_backed_up=until_backed_up)
        # What is kept for a time can be deleted where its volume is closed.
        said = parse_rotation(rotate) if rotate else None
        self._life = said_of_life(said, self._retention)
        self._rotation = Rotation(every="day") if said is None and keep else said
        self._rotation_again = 0.0
        self._why_not_rotated = ""
        self._housekeeping: Housekeeping | None = None
        self._sync_every_s = sync_every_s
        self._next_write = 0.0
        """Before that nothing is written, where transactions are gathered (`sync_every_s`)."""
        self._say_alive_at = 0.0
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
        self._heard = HeardSources()
        self._growth = Growth()
        self._full_in_s: float | None = None
        """Of the last warning that the disk will be full."""
        self._said, self._said_problem = -_SAY_S, ""
        self._parts = PartsTable()
        self._of_version_1: set[str] = set()
        """The outboxes of programs that speak version 1 of the wire: their receipts go where these expect them."""
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
        self._writer = LedgerWriter.open(self._folder, topics.session, lean=bool(self._sync_every_s))
        self._signatures = RecorderSignatures(self._writer.signers())
        self._page = RecorderPage(topics.session, name)
        self._growth.note(time.monotonic(), self._writer.grown_bytes)
        if self._place:
            leave_pointer(topics.session, self._folder, os.environ)
        if self._retention is not None:
            self._housekeeping = Housekeeping(self._folder, self._retention, f"the recorder {name!r}")
            self._housekeeping.start()
        self._thread = threading.Thread(target=self._run, name="ether-recorder", daemon=True)
        self._thread.start()
        self._receive = self._take
        for topic in (topics.record(name), topics.record_by(name, "+")):
            link.listen(topic, self._receive, now=self._take)
        self._passive_capture = PassiveCapture(
            link, topics, self._filters, self._capture, logs=self._logs, strangers=self._strangers
        )
        self._defend = self._on_about
        link.listen(topics.recorder(name), self._defend)
        place = (this_place().host, str(self._folder))
        about = RecorderAbout(
            name,
            self._incarnation,
            self._filters,
            *place,
            self._life,
            WIRE,
            self._signatures.devices,
            self._sync_every_s,
        )
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
        if self._housekeeping is not None:
            self._housekeeping.stop()
        self._queue.put(None)
        self._thread.join(_CLOSE_S)
        with self._turn:  # the writer is for one thread at a time: the one that writes closes it, where it goes on
            left = self._is_left = not self._is_over
        if not left:
            self._page.close()
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
        if inbound.delivery.topic == self._topics.recorder(self._name):  # its own description
            inbound.done()
        else:
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
                self._say()
                self._rotate_if_due()
            except Exception:  # this loop must outlive every batch: a source without a receipt sends again
                logger.exception("%s could not keep what came", self._name)
        with self._turn:
            self._is_over, left = True, self._is_left
        if left:
            self._page.close()
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
        self._say_alive_at = time.monotonic() + _ALIVE_S
        while item is not None:
            if isinstance(item, Inbound):
                size += self._note_batch(item, work)
            else:
                work.loose.append(item)
                size += len(item[1].payload)
            if size > _AT_ONCE_BYTES or len(work.batches) >= _AT_ONCE_COUNT:
                return work
            try:
                item = self._next(work)
            except queue.Empty:
                return work
        return work._replace(ends=True)

    def _next(self, work: _Work) -> Inbound | tuple[str, Entry] | None:
        """The next item in the queue, for which it waits until the next transaction is due. Raises `queue.Empty` where
        none has come. Sources whose batches wait meanwhile hear every `_ALIVE_S` that the recorder lives: after a
        silence they would send them again."""
        while (left_s := self._next_write - time.monotonic()) > 0 and not self._closing:
            if time.monotonic() >= self._say_alive_at:
                self._say_alive_at = time.monotonic() + _ALIVE_S
                for outbox in {batch.outbox for batch in work.batches}:
                    self._acknowledge(outbox, self._writer.highest(outbox))
            try:
                return self._queue.get(timeout=min(left_s, _ALIVE_S))
            except queue.Empty:
                continue
        return self._queue.get_nowait()

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
            named = self._topics.recorded_by(inbound.delivery.topic)
            if named is None and self._topics.record_by(self._name, batch.source) != inbound.delivery.topic:
                self._of_version_1.add(batch.outbox)
            elif named not in (None, batch.source):
                raise DecodeError(f"it says that it comes from {batch.source!r}")
            else:
                self._of_version_1.discard(batch.outbox)
            # Last: of an outbox the first one that signs is remembered, so nobody may do so in another's name.
            batch = self._signatures.checked(batch, self._writer.source(batch.outbox))
            self._heard.note(batch.outbox, batch.source, batch.head, batch.base, batch.given, time.monotonic())
        except PayloadError as error:
            logger.error("%s was sent what it cannot keep, on %s: %s", self._name, inbound.delivery.topic, error)
            return 0
        work.batches.append(self._joined_to_ledger(batch))
        return len(whole)

    def _joined_to_ledger(self, batch: Batch) -> Batch:
        """A batch that follows the last number in the ledger. An outbox drops entries that every recorder of that time
        had; a recorder that came later gets a gap in their place, or it could never accept a batch of that outbox. What
        this recorder has acknowledged itself, and its ledger does not have, is lost, and the gap says so: the folder
        was put back from a copy, or made anew."""
        known = self._writer.highest(batch.outbox)
        if known >= batch.base:
            return batch
        # An outbox that was taken over from a dead process does not know who has acknowledged what. A ledger that has
        # a part of it had the rest, too, unless another recorder took it meanwhile: better one gap too many.
        had = batch.given or (batch.base if known else 0)
        lost_to = max(known, min(had, batch.base))
        spans = ((known + 1, lost_to, NOT_HERE_ANY_MORE), (lost_to + 1, batch.base, NOT_HERE))
        gaps = [
            Entry(last, "gap", "", "", 0, wall_time(), (), "", None, b"", {"first": first, "last": last, "why": why})
            for first, last, why in spans
            if first <= last
        ]
        if lost_to > known:
            logger.error("%s has lost entries %d to %d of %s: they were acknowledged before, and are not in %s",
                         self._name, known + 1, lost_to, batch.source, self._folder)  # fmt: skip
        return batch._replace(entries=(*gaps, *batch.entries))

    def _keep(self, work: _Work) -> None:
        """Write, then acknowledge. Where the ledger takes nothing, the receipts repeat the numbers that it has, with
        the problem, so that threads that wait for their values are told."""
        before = self._writer.records
        try:
            upto = self._written(work)
            self._next_write = time.monotonic() + self._sync_every_s
            if self._writer.records > before:  # a batch behind a hole is no proof that the disk takes anything
                self._all_is_well()
        except LedgerError as error:
            upto = {batch.outbox: self._writer.highest(batch.outbox) for batch in work.batches}
            self._is_in_trouble(error)
        finally:
            for inbound in work.inbound:
                inbound.done()
        # What somebody else has sent in an outbox's numbers may be ahead of it, and a source believes no receipt above
        # what it has given out; so each batch is answered up to its own head.
        given = {batch.outbox: set[int]() for batch in work.batches}
        for batch in work.batches:
            given[batch.outbox].add(min(upto.get(batch.outbox, 0), batch.head))
        for outbox, numbers in given.items():
            for number in sorted(numbers):
                self._acknowledge(outbox, number)
        self._next_write += self._writer.copy_log() * min(1.0, self._sync_every_s)

    def _written(self, work: _Work) -> dict[str, int]:
        now = wall_time()
        self._hold(work.loose)
        lost = self._not_queued + self._overflowed
        loose = [*self._loose, *self._gap(lost - self._lost_noted, now)]
        if not work.batches and not loose:
            return {}
        upto = self._writer.append(work.batches, now, loose)
        self._loose, self._lost_noted = [], lost
        return upto

    def _rotate_if_due(self) -> None:
        """Close the volume whose time or size is reached, or that a command asks to be closed. What cannot be closed
        now is tried again later: an attempt costs half a second where a reader is in the way."""
        if time.monotonic() < self._rotation_again:
            return
        wanted = self._folder / ROTATE_NOW
        asked = wanted.exists()
        try:
            if not asked and not self._is_rotation_due():
                return
            why_not = self._writer.rotate(wall_time()) or ""
            if self._housekeeping is not None:
                self._housekeeping.look()
            if asked and not why_not:
                wanted.unlink(missing_ok=True)
        except (LedgerError, OSError) as error:
            why_not = str(error)
        if why_not:
            self._rotation_again = time.monotonic() + _ROTATION_AGAIN_S
        if why_not and why_not != self._why_not_rotated:
            logger.warning("%s cannot close the volume of %s now: %s", self._name, self._folder, why_not)
        self._why_not_rotated = why_not

    def _is_rotation_due(self) -> bool:
        if self._rotation is None:
            return False
        return is_due(self._rotation, self._writer.size_bytes, self._writer.begun, wall_time())

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
        self._signatures.sign_receipt(receipt, self._writer.link)
        try:
            topics, is_old = self._topics, outbox in self._of_version_1
            topic = topics.ack(outbox) if is_old else topics.ack_by(outbox, self._name)
            self._link.publish(topic, receipt, timeout_s=_ACK_S)
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

    def _say(self) -> None:
        """How the recorder stands, for those who look from outside; and a warning where the disk will soon be full."""
        now = time.monotonic()
        if now - self._said < _SAY_S and self._problem == self._said_problem:
            return
        self._said, self._said_problem = now, self._problem
        self._growth.note(now, self._writer.grown_bytes)
        self._warn_in_time()
        self._page.say(self._facts(now))

    def _facts(self, now: float) -> RecorderFacts:
        behind = [s for s in self._heard.facts(now, self._problem) if s.given > self._writer.highest(s.outbox)]
        rate = self._growth.bytes_per_s
        return RecorderFacts(
            self._name, self._topics.session, str(self._folder), self._problem, self._free(),
            None if rate is None else round(rate), tuple(behind),
        )  # fmt: skip

    def _free(self) -> int:
        try:
            return free_bytes(self._folder)
        except OSError:  # the folder is gone, which the next transaction says
            return 0

    def _warn_in_time(self) -> None:
        """Once where the disk is full within a day, and once more where that is within an hour."""
        free, rate = self._free(), self._growth.bytes_per_s
        left = seconds_left(free, rate)
        warning = None if self._problem else warning_of(free, rate)
        before, self._full_in_s = self._full_in_s, None if warning is None else left
        if warning is None or left is None:
            return
        if before is None or before > VERY_SOON_S >= left:
            say = logger.error if left <= VERY_SOON_S else logger.warning
            say("%s writes to %s: %s", self._name, self._folder, warning)

    # -- questions

    @ether_get
    def runs(self, run: str | None = None) -> list[dict[str, Any]]:
        """What the ledger says of each named run, without the trials' results, or of that one with them (see
        `ether.protocol.run_record.RunState`)."""
        with LedgerReader.open(self._folder) as reader:
            return [state.to_value(results=run is not None) for state in runs_in(reader, run).values()]

    @ether_get
    def proof(self) -> dict[str, Any]:
        """What is on disk, what waits and what is missing: `summary`, `durable`, `total`, `waiting`, `duplicates`,
        `gaps`, `folder`, `problem`; and `forecast`, how long the disk lasts."""
        problem = self._problem
        here, heard = sources_of(self._topics.session), self._heard.facts(time.monotonic(), problem)
        with LedgerReader.open(self._folder) as reader:
            outboxes = reader.outboxes()
            asked = facts_for(here, self._folder, [facts.outbox for facts in outboxes], problem)
            local = {said.outbox for said in asked}
            proof = prove(
                outboxes, reader.duplicates(), [*asked, *(said for said in heard if said.outbox not in local)],
                reader.conflicts(), reader.signed(),
            )  # fmt: skip
        forecast = forecast_text(self._free(), self._growth.bytes_per_s)
        said = {"folder": str(self._folder), "problem": problem, "forecast": forecast}
        return {**asdict(proof), "summary": str(proof), **said}


def _give_way() -> None:
    """Lower the priority of this thread: where the processor is short, the processes that are recorded go first, and
    recording catches up later, from their outboxes on disk. Only Linux has priorities of threads. Elsewhere the
    priority stays: a process would pass a lower one on to its children, and could not raise it again."""
    if sys.platform == "linux":
        me = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, me, max(_NICE, os.getpriority(os.PRIO_PROCESS, me)))
