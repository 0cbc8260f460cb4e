"""The thread that empties a process's outbox: to disk, to the recorders, and, where nobody takes it, up to the limit.

Promise: it outlives whatever the disk, the broker and the recorders do. The trap: receipts and changes of the
connection come in on other threads, which only note them here (`has_news`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ether.connection.link import BATCH_OVERHEAD, Inbound, Link, TakeNow
from ether.errors import EtherError, OutboxFailed, PayloadError, PayloadTooLarge, PublishTimeout, TransportError
from ether.log import get_ether_logger
from ether.recording.outbox_file import OutboxFile, adopt
from ether.recording.outbox_queue import BATCH_BYTES, FULL, OutboxQueue
from ether.recording.receipt_rules import RecorderAbout
from ether.recording.send_window_rules import SendWindow
from ether.system.backoff import Backoff
from ether.wire.entries import Entry, pack_batch
from ether.wire.topics import SessionTopics

if TYPE_CHECKING:
    from ether.recording.writer import RecordWriter

logger = get_ether_logger("Ether")

_LOOK_S = 0.5
"""How often ages, limits, a disk that was full and a recorder that nobody has started yet are looked at."""
_ADOPT_S = 5.0
_ASK_AT_MOST_S = 30.0
_SEND_S = 2.0
_ROOM = 0.1
"""How much of the limit is given up at a time, so that it does not happen for each entry."""


class Sender:
    """Empties the outbox of one process, and those that dead processes have left beside it."""

    def __init__(self, link: Link, topics: SessionTopics, record_writer: RecordWriter, file: OutboxFile) -> None:
        self._link, self._topics, self._record_writer = link, topics, record_writer
        self.path = file.path
        self._own = OutboxQueue(file)
        self._queues = [self._own]
        self._acks: deque[Inbound] = deque()
        self._connection: deque[bool] = deque()
        self._next_look = self._next_adoption = self._next_asking = 0.0
        self._asking = Backoff(2 * _LOOK_S, _ASK_AT_MOST_S)
        self._problems: dict[str, str] = {}
        self._receivers: dict[str, TakeNow] = {}
        self._thread = threading.Thread(target=self._run, name=f"ether-outbox-{link.source}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._link.on_connection.append(self._on_connection)
        self._listen(self._own)
        self._thread.start()

    def end(self) -> None:
        """Stop; the files are closed. The saver has said that it is closing."""
        self._thread.join()
        self._link.on_connection.remove(self._on_connection)

    @property
    def has_news(self) -> bool:
        """Whether there is something to do beside what is to be saved."""
        return bool(self._acks or self._connection)

    def _listen(self, outbox: OutboxQueue) -> None:
        """A receiver for each lane: `unlisten` must end one of them only."""
        receive = self._receivers[outbox.outbox] = partial(Sender._on_ack, self)
        self._link.listen(self._topics.ack(outbox.outbox), receive, now=receive)

    # -- on other threads

    def _on_ack(self, inbound: Inbound) -> bool:
        self._acks.append(inbound)
        self._record_writer.wake()
        return True

    def _on_connection(self, up: bool) -> None:
        self._connection.append(up)
        self._record_writer.wake()

    # -- on our own

    def _run(self) -> None:
        patience_s = 0.0
        while (fresh := self._record_writer.take_fresh(patience_s)) is not None:
            try:
                patience_s = self._step(fresh)
            except Exception:  # this loop must outlive everything: what waits in the outbox depends on it
                logger.exception("the outbox of %s could not be emptied; trying again", self._link.source)
                patience_s = _LOOK_S
        for outbox in self._queues:
            self._close(outbox)

    def _close(self, outbox: OutboxQueue) -> None:
        if not outbox.write():
            logger.error("%s ends, and its disk takes nothing: %d entries are lost", outbox.source, outbox.unwritten)
        self._forget(outbox, at_once=True)
        outbox.file.close()

    def _step(self, fresh: list[Entry]) -> float:
        """One round; seconds until the next one is due."""
        now = time.monotonic()
        lost: list[Entry] = []
        if fresh:
            self._own.add(fresh)
        self._take_acks(now)
        self._meet_recorders(now)
        look = now >= self._next_look
        if look:
            self._next_look = now + _LOOK_S
            self._look_around(now)
            lost = self._keep_within_limits()
        for outbox in list(self._queues):
            lost += self._send(outbox)
            self._forget(outbox, at_once=look)
            self._end_if_empty(outbox)
        waiting = sum(outbox.stored_bytes for outbox in self._queues)
        self._record_writer.tell(self._own.levels, waiting, self._problems if self._own.waiting else {}, lost)
        looks = [left for outbox in self._queues for w in outbox.windows.values() if (left := w.look(now)) is not None]
        return min([self._next_look - now, *looks])

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
                    ours = [each for each in self._queues if each.outbox == outbox]
                    if any(each.receive(name, incarnation, upto, now) for each in ours):
                        self._note_problem(name, str(more.get("problem") or ""))

    def _note_problem(self, recorder: str, problem: str) -> None:
        if problem:
            self._problems[recorder] = problem
        else:
            self._problems.pop(recorder, None)

    def _meet_recorders(self, now: float) -> None:
        recorders = {about.name: about for about in self._record_writer.recorders()}
        changes = [self._connection.popleft() for _ in range(len(self._connection))]
        changes.append(self._link.transport.connected)
        for outbox in self._queues:
            outbox.meet(recorders, changes, now)
        for name in self._problems.keys() - recorders.keys():
            del self._problems[name]

    def _look_around(self, now: float) -> None:
        for outbox in self._queues:
            outbox.write()
            outbox.batch_bytes = max(1, min(BATCH_BYTES, self._link.transport.max_packet_bytes - BATCH_OVERHEAD))
        if not self._link.transport.connected:
            return
        self._ask_for_recorder(now)
        if now >= self._next_adoption:
            self._next_adoption = now + _ADOPT_S
            self._adopt()

    def _ask_for_recorder(self, now: float) -> None:
        """Ever more seldom: one that cannot start is not started twice a second."""
        if self._record_writer.recorders() or not self._own.waiting:
            self._asking.reset()
            self._next_asking = 0.0
        elif now >= self._next_asking:
            self._next_asking = now + self._asking.next_s()
            self._record_writer.ask_for_recorder()

    def _adopt(self) -> None:
        try:
            for file in adopt(self._record_writer.options.folder):
                outbox = OutboxQueue(file)
                logger.info("%d entries of %s, which has died, are sent now", outbox.waiting, file.source)
                self._queues.append(outbox)
                self._listen(outbox)
        except EtherError as error:
            logger.error("an outbox that was left behind is not used: %s", error)

    # -- limits

    def _keep_within_limits(self) -> list[Entry]:
        options, lost = self._record_writer.options, []
        oldest_allowed = time.time() - options.max_age_s
        oldest = self._own.oldest()
        if oldest is not None and oldest.time < oldest_allowed:
            lost += self._give_up(lambda entry, _: entry.time < oldest_allowed, f"older than {options.max_age_s:g} s")
        too_much = self._own.stored_bytes - options.max_bytes
        if too_much > 0 and self._record_writer.drops_oldest:
            room = int(too_much + _ROOM * options.max_bytes)
            lost += self._give_up(lambda _, given_up: given_up < room, FULL)
        return lost

    def _give_up(self, goes: Callable[[Entry, int], bool], why: str) -> list[Entry]:
        try:
            gap = self._own.give_up(goes, why)
        except OutboxFailed as error:
            logger.debug("%s", error)  # looked at again in a moment
            return []
        if gap is None:
            return []
        logger.error("%s has given up entries %s to %s of its outbox: %s",
                     self._link.source, gap.more["first"], gap.more["last"], why)  # fmt: skip
        return [gap]

    # -- sending

    def _send(self, outbox: OutboxQueue) -> list[Entry]:
        """Everything that windows let through; what had to be given up."""
        for about in self._record_writer.recorders():
            window = outbox.windows.get(about.name)
            while window is not None and (first := window.next(outbox.head)) is not None:
                try:
                    if not self._send_batch(outbox, about, window, first):
                        break
                except PayloadTooLarge as error:
                    return self._too_large(outbox, about, first, error)
        return []

    def _send_batch(self, outbox: OutboxQueue, about: RecorderAbout, window: SendWindow, first: int) -> bool:
        rows = outbox.rows(first, about)
        if not rows:
            return False
        batch = pack_batch(
            outbox.outbox,
            outbox.source,
            outbox.head,
            [packed for _, packed in rows],
            outbox.base,
        )
        try:
            self._link.publish(self._topics.record(about.name), batch, timeout_s=_SEND_S)
        except PublishTimeout:
            return False
        except TransportError as error:
            logger.debug("a batch could not be sent: %s", error)
            return False
        window.sent(rows[-1][0], time.monotonic())
        return True

    def _too_large(self, outbox: OutboxQueue, about: RecorderAbout, first: int, error: PayloadTooLarge) -> list[Entry]:
        """A broker that takes less than the one for which it was made: batches become smaller, and an entry that is too
        large for one of its own is given up, or all behind it would wait for ever."""
        if len(outbox.rows(first, about)) > 1 or outbox.splits(first):
            outbox.batch_bytes = max(1, outbox.batch_bytes // 4)
            return []
        logger.error("entry %d of %s is given up: %s", first, outbox.source, error)
        gap = outbox.give_up_one(first, f"too large for this broker, which takes {error.limit:,} bytes")
        return [gap] if outbox is self._own else []

    def _forget(self, outbox: OutboxQueue, *, at_once: bool) -> None:
        try:
            outbox.forget(self._record_writer.options.topics, at_once=at_once)
        except OutboxFailed as error:
            logger.debug("%s", error)  # it is dropped again with the next receipt

    def _end_if_empty(self, outbox: OutboxQueue) -> None:
        if outbox is not self._own and outbox.base >= outbox.head:
            self._queues = [other for other in self._queues if other is not outbox]
            outbox.file.close()
            self._link.unlisten(self._topics.ack(outbox.outbox), self._receivers.pop(outbox.outbox))
