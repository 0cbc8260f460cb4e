"""The thread that empties a process's outbox: to disk, to the recorders, and, where none takes it, up to the limit.

One round (`_step`) does everything, in this order: write new entries to the outbox file, take in the broker's answers,
receipts and changes of recorders and of the connection, look at ages and limits twice a second, send what each
recorder's window lets through, drop what every recorder has, and report to the queue, which wakes threads that wait for
a receipt.

Entries age by the steady clock of the process, so setting the machine's clock loses none; and time in which the machine
was asleep, when nothing could be sent, is no age. Outboxes of dead processes are sent whatever their age.

Promise: the thread goes on whatever the disk, the broker and the recorders do. The trap: receipts and changes of the
connection arrive on other threads, which only note them here and wake this one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ether.connection.link import Inbound, Link, TakeNow
from ether.errors import DecodeError, EtherError, OutboxFailed, PayloadError
from ether.log import get_ether_logger
from ether.recording.age_rules import WaitingTimes
from ether.recording.batch_publisher import BatchPublisher, RefusedValue
from ether.recording.entry_queue import EntryQueue
from ether.recording.options import WhenFull
from ether.recording.outbox_file import PAGE, OutboxFile, adopt
from ether.recording.outbox_queue import FULL, OutboxQueue
from ether.recording.signatures import SourceSignatures
from ether.recording.source_page import SourcePage
from ether.system.backoff import Backoff
from ether.system.processes import this_place
from ether.version import WIRE
from ether.wire.entries import Entry
from ether.wire.topics import SessionTopics

logger = get_ether_logger("Ether")

_LOOK_S = 0.5
"""How often ages, limits, a disk that was full and a recorder that has not been started are looked at."""
_DROP_S = 5.0
"""How often what every recorder has is dropped from the file of a lazy outbox."""
_HOLD_BYTES = 16 << 20
"""So much at most waits in memory alone, where the outbox is lazy."""
_SAY_S = 0.2
"""How often at most it is said how the outboxes stand; twice a second in any case."""
_ADOPT_S = 5.0
_ASK_AT_MOST_S = 30.0
_ROOM = 0.1
"""The share of the limit that is given up at a time, so that it does not happen for each entry."""


def _said(receipt: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in receipt.items()}


class Sender:
    """Empties the outbox of one process, and those that dead processes have left beside it."""

    def __init__(
        self, link: Link, topics: SessionTopics, queue: EntryQueue, ask_for_recorder: Callable[[], object],
        look_at_clock: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        """Makes the outbox file; raises `OutboxFailed`. `ask_for_recorder` is called while entries wait and the session
        has no recorder, `look_at_clock` twice a second."""
        self._link, self._topics, self._queue, self._ask = link, topics, queue, ask_for_recorder
        self._look_at_clock = look_at_clock
        ledger = queue.options.ledger
        file = OutboxFile.create(queue.options.folder, link.source, ledger and ledger[1])
        self._own = OutboxQueue(file)
        self._own.is_lazy = queue.options.saves_wear
        self._own.ledger = ledger
        self._signatures = SourceSignatures()
        self._publisher = BatchPublisher(link, topics, queue.wake, self._signatures.sign)
        self._outboxes = [self._own]
        self._pages = {self._own.outbox: SourcePage(self._own)}
        self._waiting_times = WaitingTimes(queue.options.max_age_s)
        self._acks: deque[Inbound] = deque()
        self._connection: deque[bool] = deque()
        self._next_drop = time.monotonic() + _DROP_S
        self._next_look = self._next_adoption = self._next_asking = self._said = 0.0
        self._hurried = False
        """Somebody waits for what dead processes have left: look for it now."""
        self._asking = Backoff(2 * _LOOK_S, _ASK_AT_MOST_S)
        self._problems: dict[str, str] = {}
        self._receivers: dict[str, TakeNow] = {}
        self._thread = threading.Thread(target=self._run, name=f"ether-outbox-{link.source}", daemon=True)

    @property
    def path(self) -> Path:
        """The file of this process's outbox."""
        return self._own.file.path

    def start(self) -> None:
        """Begin."""
        self._link.on_connection.append(self._on_connection)
        self._listen(self._own)
        self._thread.start()

    def end(self) -> None:
        """Wait until the thread has written what is left and closed the files; the queue is closing already."""
        self._thread.join()
        self._link.on_connection.remove(self._on_connection)
        self._publisher.close()

    def _listen(self, outbox: OutboxQueue) -> None:
        """A receiver of its own for each outbox: `unlisten` must end one of them only."""
        receive = self._receivers[outbox.outbox] = partial(Sender._on_ack, self)
        self._link.listen(self._topics.acks(outbox.outbox), receive, now=receive)

    # -- on other threads

    def hurry(self) -> None:
        """Look for what dead processes have left at once; `EntryQueue.orphans` says what is found."""
        self._hurried = True
        self._queue.wake()

    def _on_ack(self, inbound: Inbound) -> bool:
        self._acks.append(inbound)
        self._queue.wake()
        return True

    def _on_connection(self, up: bool) -> None:
        self._connection.append(up)
        self._queue.wake()

    def _has_news(self) -> bool:
        """Whether there is work beside new entries."""
        return bool(self._acks or self._connection or self._hurried or self._publisher.has_news)

    # -- on our own thread

    def _run(self) -> None:
        patience_s = 0.0
        while (fresh := self._queue.take_fresh(patience_s, self._has_news)) is not None:
            try:
                patience_s = self._step(fresh)
            except Exception:  # this loop must outlive everything: what waits in the outbox depends on it
                logger.exception("the outbox of %s could not be emptied; trying again", self._link.source)
                patience_s = _LOOK_S
        for outbox in self._outboxes:
            self._close(outbox)

    def _close(self, outbox: OutboxQueue) -> None:
        self._forget(outbox, at_once=True)
        if not outbox.write():
            logger.error("%s ends, and its disk takes nothing: %d entries are lost", outbox.source, outbox.unwritten)
        self._forget(outbox, at_once=True)
        self._say(outbox)
        self._pages.pop(outbox.outbox).close()
        outbox.file.close()

    def _say(self, outbox: OutboxQueue) -> None:
        """How an outbox stands, for `ether status` and the recorders of this machine."""
        now, transport = time.monotonic(), self._link.transport
        why = "" if transport.connected else "the broker is not connected"
        if not why and not outbox.windows:
            why = "nobody records in this session"
        problems = {**self._problems, **self._publisher.problems, **self._signatures.conflicts}
        own = outbox is self._own
        self._pages[outbox.outbox].say(outbox, now, why, problems, self._queue.head if own else outbox.head)

    def _step(self, fresh: list[Entry]) -> float:
        """One round; returns the seconds until the next one is due."""
        now = time.monotonic()
        lost: list[Entry] = []
        if fresh:
            self._own.add(fresh, now if self._may_hold() else None)
        for refused in self._publisher.take_answers(now):
            lost += self._give_up_refused(refused)
        batch_bytes = self._publisher.batch_bytes(now)
        for outbox in self._outboxes:
            outbox.batch_bytes = batch_bytes
        self._take_acks(now)
        self._update_windows(now)
        hurried, self._hurried = self._hurried, False
        is_look = hurried or now >= self._next_look
        if hurried:
            self._next_adoption = now
        if is_look:
            self._next_look = now + _LOOK_S
            self._look_around(now)
            lost += self._keep_within_limits(now)
        is_drop = now >= self._next_drop
        if is_drop:
            self._next_drop = now + _DROP_S
        for outbox in list(self._outboxes):
            self._send(outbox, now)
            self._forget(outbox, at_once=is_drop if outbox.is_lazy else is_look)
            if is_look or now - self._said >= _SAY_S:
                self._say(outbox)
            self._end_if_empty(outbox)
        if now - self._said >= _SAY_S:
            self._said = now
        if hurried or self._queue.orphans:
            self._queue.report_orphans(
                [
                    (outbox.source, outbox.waiting, str(outbox.file.path))
                    for outbox in self._outboxes
                    if outbox is not self._own and not self._belongs_elsewhere(outbox)
                ]
            )
        waiting_bytes = sum(outbox.stored_bytes for outbox in self._outboxes)
        problems = (
            {**self._problems, **self._publisher.problems, **self._signatures.conflicts} if self._own.waiting else {}
        )
        self._queue.report(self._own.levels, waiting_bytes, problems, lost, self._own.settled)
        due = [left for outbox in self._outboxes for w in outbox.windows.values() if (left := w.look(now)) is not None]
        return min([self._next_look - now, *due])

    def _take_acks(self, now: float) -> None:
        while self._acks:
            inbound = self._acks.popleft()
            try:
                value = inbound.unpack().value
            except PayloadError:
                continue
            finally:
                inbound.done()
            match value:
                case {
                    "outbox": str(outbox),
                    "recorder": str(name),
                    "birth": str(incarnation),
                    "upto": int(upto),
                    **more,
                }:
                    if not self._may_acknowledge(inbound.delivery.topic, name):
                        continue
                    if not self._is_genuine(
                        name, {"outbox": outbox, "recorder": name, "birth": incarnation, "upto": upto, **_said(more)}
                    ):
                        continue
                    ours = [each for each in self._outboxes if each.outbox == outbox]
                    if any(each.receive(name, incarnation, upto, now) for each in ours):
                        self._note_problem(name, str(more.get("problem") or ""))

    def _is_genuine(self, recorder: str, receipt: dict[str, object]) -> bool:
        about = next((each for each in self._queue.recorders() if each.name == recorder), None)
        return self._signatures.is_genuine(about, receipt)

    def _may_acknowledge(self, topic: str, recorder: str) -> bool:
        """Whether a receipt on this topic is that recorder's: the topic names it, unless it speaks version 1."""
        named = self._topics.acknowledged_by(topic)
        if named is None:
            wire = next((about.wire for about in self._queue.recorders() if about.name == recorder), 1)
            return wire < WIRE
        if named != recorder:
            logger.warning("a receipt of %r in the name of %r is refused", named, recorder)
        return named == recorder

    def _note_problem(self, recorder: str, problem: str) -> None:
        if problem:
            self._problems[recorder] = problem
        else:
            self._problems.pop(recorder, None)

    def _update_windows(self, now: float) -> None:
        """Tell the send windows about recorders and the connection. Every change of the connection counts, also when it
        is up again by now: messages under way during an outage may be lost."""
        recorders = {about.name: about for about in self._queue.recorders()}
        changes = [self._connection.popleft() for _ in range(len(self._connection))]
        changes.append(self._link.transport.connected)
        for outbox in self._outboxes:
            if outbox.windows.keys() - recorders.keys():
                # What one that leaves has acknowledged: without it nobody is there by whose word it could be dropped,
                # and it would be left behind as if it waited.
                self._forget(outbox, at_once=True)
            outbox.update_windows(recorders, changes, now)
        for problems in (self._problems, self._publisher.problems, self._signatures.conflicts):
            for name in problems.keys() - recorders.keys():
                del problems[name]

    def _may_hold(self) -> bool:
        """Whether new entries may wait in memory for their receipt, which spares the card a copy of them: only where a
        recorder takes what is sent."""
        if not self._own.is_lazy or not self._link.transport.connected or not self._queue.recorders():
            return False
        return not self._problems and not self._publisher.problems and self._own.held_bytes < _HOLD_BYTES

    def _write_held(self, now: float) -> None:
        """Write what the disk did not take, and what has waited long enough for its receipt."""
        if self._may_hold() and self._own.held_s(now) < self._queue.options.hold_s:
            return
        if self._own.is_lazy and self._own.held_bytes:
            self._forget(self._own, at_once=True)  # what is acknowledged need not be written any more
        self._own.write()

    def _look_around(self, now: float) -> None:
        """What is looked at twice a second: a disk that was full, recorders, orphaned outboxes."""
        self._look_at_clock()
        for outbox in self._outboxes:
            if not outbox.file.is_in_place():
                self._put_back(outbox)
        self._write_held(now)
        for outbox in self._outboxes:
            if outbox is not self._own:
                outbox.write()
        if not self._link.transport.connected:
            return
        self._ask_for_recorder(now)
        if now >= self._next_adoption:
            self._next_adoption = now + _ADOPT_S
            self._adopt()

    def _put_back(self, outbox: OutboxQueue) -> None:
        """The file of an outbox was removed or moved away: go on in a new one, with all that waits."""
        before = outbox.file.path
        try:
            outbox.file.put_back()
        except OutboxFailed as error:
            logger.debug("%s", error)  # tried again at the next look
            return
        logger.error("the outbox %s was removed or moved away; what waits in it is in %s now", before, outbox.file.path)
        self._pages[outbox.outbox].close()
        Path(f"{before}{PAGE}").unlink(missing_ok=True)
        self._pages[outbox.outbox] = SourcePage(outbox)

    def _ask_for_recorder(self, now: float) -> None:
        """Ask with growing pauses: a recorder that cannot start must not be started twice a second."""
        waiting = (outbox for outbox in self._outboxes if outbox.waiting and not self._belongs_elsewhere(outbox))
        if self._queue.recorders() or not any(waiting):
            self._asking.reset()
            self._next_asking = 0.0
        elif now >= self._next_asking:
            self._next_asking = now + self._asking.next_s()
            self._ask()

    def _adopt(self) -> None:
        """Take over outboxes whose processes have died."""
        try:
            for file in adopt(self._queue.options.folder):
                self._take_over(file)
        except EtherError as error:
            logger.error("an outbox that was left behind is not used: %s", error)

    def _take_over(self, file: OutboxFile) -> None:
        if any(each.outbox == file.outbox for each in self._outboxes):
            file.close()  # a copy of one that is sent already; its turn comes when that is done
            return
        try:
            outbox = OutboxQueue(file)
        except DecodeError as error:
            file.put_aside()
            logger.error("an outbox that was left behind is damaged: %s, now %s.damaged", error, file.path)
            return
        if file.ledger is not None:
            outbox.ledger = this_place().host, file.ledger  # an outbox does not leave its machine
        if self._belongs_elsewhere(outbox):
            logger.warning(
                "%d entries of %s, whose process has ended, wait for a recorder of the ledger %s, which its"
                " configuration names",
                outbox.waiting, file.source, file.ledger,
            )  # fmt: skip
        else:
            logger.info("%d entries of %s, whose process has ended, are sent now", outbox.waiting, file.source)
        self._outboxes.append(outbox)
        self._pages[outbox.outbox] = SourcePage(outbox)
        self._listen(outbox)

    def _belongs_elsewhere(self, outbox: OutboxQueue) -> bool:
        """Whether the entries of a dead process have to go to a ledger that is not this program's, and to which nobody
        records at present."""
        if outbox.ledger in (None, self._own.ledger):
            return False
        return all((about.host, about.folder) != outbox.ledger for about in self._queue.recorders())

    # -- limits

    def _keep_within_limits(self, now: float) -> list[Entry]:
        """Give up entries that are too old and, with the policy `drop-oldest`, the oldest ones above the limit. Returns
        the gap entries."""
        options, lost = self._queue.options, []
        if self._own.stored_bytes > options.max_bytes:
            self._own.write()  # what is given up is looked for in the file
        too_old = self._waiting_times.too_old(self._own.head, now)
        if too_old > self._own.base and (oldest := self._own.oldest()) is not None and oldest.number <= too_old:
            lost += self._give_up(lambda entry, _: entry.number <= too_old, f"older than {options.max_age_s:g} s")
        too_much = self._own.stored_bytes - options.max_bytes
        if too_much > 0 and options.when_full is WhenFull.DROP_OLDEST:
            room = int(too_much + _ROOM * options.max_bytes)
            lost += self._give_up(lambda _, given_up: given_up < room, FULL)
        return lost

    def _give_up(self, goes: Callable[[Entry, int], bool], why: str) -> list[Entry]:
        try:
            gap = self._own.give_up(goes, why)
        except OutboxFailed as error:
            logger.debug("%s", error)  # tried again at the next look
            return []
        if gap is None:
            return []
        logger.error("%s has given up entries %s to %s of its outbox: %s",
                     self._link.source, gap.more["first"], gap.more["last"], why)  # fmt: skip
        return [gap]

    # -- sending

    def _send(self, outbox: OutboxQueue, now: float) -> None:
        """Send each recorder all that its window lets through."""
        for about in self._queue.recorders():
            window = outbox.windows.get(about.name)
            while window is not None and (first := window.next(outbox.head)) is not None:
                if not self._publisher.send(outbox, about, window, first, now):
                    break

    def _give_up_refused(self, refused: RefusedValue) -> list[Entry]:
        """Give up an entry that the broker will never take, alone; everything behind it would wait for ever."""
        outbox, number, why = refused
        try:
            gap = outbox.give_up_one(number, f"the broker does not take it: {why}")
        except OutboxFailed as error:
            logger.debug("%s", error)  # it is refused again
            return []
        logger.error("entry %d of %s is given up, the broker does not take it: %s", number, outbox.source, why)
        return [gap] if outbox is self._own else []  # nobody here waits for an entry of a dead process

    def _forget(self, outbox: OutboxQueue, *, at_once: bool) -> None:
        try:
            outbox.forget(self._queue.options.topics, at_once=at_once)
        except OutboxFailed as error:
            logger.debug("%s", error)  # it is dropped again with the next receipt

    def _end_if_empty(self, outbox: OutboxQueue) -> None:
        """An adopted outbox of which every recorder has everything is closed, which removes its file."""
        if outbox is not self._own and outbox.base >= outbox.head:
            self._outboxes = [other for other in self._outboxes if other is not outbox]
            self._pages.pop(outbox.outbox).close()
            outbox.file.close()
            self._link.unlisten(self._topics.acks(outbox.outbox), self._receivers.pop(outbox.outbox))
