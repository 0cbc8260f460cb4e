"""The thread that empties a process's outbox: to disk, to the recorders, and, where nobody takes it, up to the limit.

Promise: it outlives whatever the disk, the broker and the recorders do. The trap: receipts and changes of the
connection come in on other threads, which only note them here (`has_news`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from ether.errors import EtherError, OutboxFailed, PayloadError, PublishTimeout, TransportError
from ether.logs import get_ether_logger
from ether.protocol.recorders import RecorderAbout
from ether.protocol.send_window import SendWindow
from ether.runtime.lane import FULL, Lane
from ether.runtime.link import Inbound, Link, TakeNow
from ether.store.outbox import OutboxFile, adopt
from ether.wire.entries import Entry, pack_batch
from ether.wire.topics import SessionTopics

if TYPE_CHECKING:
    from ether.runtime.saving import Saver

logger = get_ether_logger("Ether")

_LOOK_S = 0.5
"""How often ages, limits, a disk that was full and a recorder that nobody has started yet are looked at."""
_ADOPT_S = 5.0
_SEND_S = 2.0
_ROOM = 0.1
"""How much of the limit is given up at a time, so that it does not happen for each entry."""


class Sender:
    """Empties the outbox of one process, and those that dead processes have left beside it."""

    def __init__(self, link: Link, topics: SessionTopics, saver: Saver, file: OutboxFile) -> None:
        self._link, self._topics, self._saver = link, topics, saver
        self.path = file.path
        self._own = Lane(file)
        self._lanes = [self._own]
        self._acks: deque[Inbound] = deque()
        self._connection: deque[bool] = deque()
        self._next_look = self._next_adoption = 0.0
        self._problem = ""
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

    def _listen(self, lane: Lane) -> None:
        """A receiver for each lane: `unlisten` must end one of them only."""
        receive = self._receivers[lane.outbox] = partial(Sender._on_ack, self)
        self._link.listen(self._topics.ack(lane.outbox), receive, now=receive)

    # -- on other threads

    def _on_ack(self, inbound: Inbound) -> bool:
        self._acks.append(inbound)
        self._saver.wake()
        return True

    def _on_connection(self, up: bool) -> None:
        self._connection.append(up)
        self._saver.wake()

    # -- on our own

    def _run(self) -> None:
        patience_s = 0.0
        while (fresh := self._saver.take_fresh(patience_s)) is not None:
            try:
                patience_s = self._step(fresh)
            except Exception:  # this loop must outlive everything: what waits in the outbox depends on it
                logger.exception("the outbox of %s could not be emptied; trying again", self._link.source)
                patience_s = _LOOK_S
        for lane in self._lanes:
            lane.write()
            lane.file.close()

    def _step(self, fresh: list[tuple[int, bytes]]) -> float:
        """One round; seconds until the next one is due."""
        now = time.monotonic()
        lost: list[Entry] = []
        if fresh:
            self._own.add(fresh)
        self._take_acks(now)
        self._tell_windows(now)
        if now >= self._next_look:
            self._next_look = now + _LOOK_S
            self._look_around(now)
            lost = self._keep_within_limits()
        for lane in self._lanes:
            self._send(lane)
            self._forget(lane)
        waiting = sum(lane.stored_bytes for lane in self._lanes)
        self._saver.tell(self._own.acknowledged, waiting, self._problem, lost)
        looks = [left for lane in self._lanes for w in lane.windows.values() if (left := w.look(now)) is not None]
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
                case {"outbox": str(outbox), "recorder": str(name), "birth": str(birth), "upto": int(upto), **more}:
                    for lane in self._lanes:
                        if lane.outbox == outbox and (window := lane.windows.get(name)) is not None:
                            window.receive(birth, upto, now)
                            self._problem = str(more.get("problem") or "")

    def _tell_windows(self, now: float) -> None:
        recorders = {about.name: about for about in self._saver.recorders()}
        changes = [self._connection.popleft() for _ in range(len(self._connection))]
        for lane in self._lanes:
            for name in lane.windows.keys() - recorders.keys():
                del lane.windows[name]
            for name, about in recorders.items():
                window = lane.windows.get(name)
                if window is None:
                    window = lane.windows[name] = SendWindow(lane.base)
                for up in [*changes, self._link.transport.connected]:
                    window.connection(up, now)
                window.recorder(about.birth, now)
        if not recorders:
            self._problem = ""

    def _look_around(self, now: float) -> None:
        for lane in self._lanes:
            lane.write()
        if not self._saver.recorders() and self._own.waiting and self._link.transport.connected:
            self._saver.ask_for_recorder()
        if now >= self._next_adoption:
            self._next_adoption = now + _ADOPT_S
            self._adopt()

    def _adopt(self) -> None:
        try:
            for file in adopt(self._saver.options.folder):
                lane = Lane(file)
                logger.info("%d entries of %s, which has died, are sent now", file.count, file.source)
                self._lanes.append(lane)
                self._listen(lane)
        except EtherError as error:
            logger.error("an outbox that was left behind is not used: %s", error)

    # -- limits

    def _keep_within_limits(self) -> list[Entry]:
        options, lost = self._saver.options, []
        oldest_allowed = time.time() - options.max_age_s
        while (oldest := self._own.oldest()) is not None and oldest.time < oldest_allowed:
            lost += self._give_up(1, f"older than {options.max_age_s:g} s")
        too_much = self._own.stored_bytes - options.max_bytes
        if too_much > 0 and self._saver.drops_oldest:
            lost += self._give_up(int(too_much + _ROOM * options.max_bytes), FULL)
        return lost

    def _give_up(self, room_bytes: int, why: str) -> list[Entry]:
        gap = self._own.give_up(room_bytes, why)
        if gap is None:
            return []
        logger.error("%s has given up entries %s to %s of its outbox: %s",
                     self._link.source, gap.more["first"], gap.more["last"], why)  # fmt: skip
        return [gap]

    # -- sending

    def _send(self, lane: Lane) -> None:
        for about in self._saver.recorders():
            window = lane.windows.get(about.name)
            while window is not None and (first := window.next(lane.head)) is not None:
                if not self._send_batch(lane, about, window, first):
                    break

    def _send_batch(self, lane: Lane, about: RecorderAbout, window: SendWindow, first: int) -> bool:
        rows = lane.rows(first, about)
        if not rows:
            return False
        batch = pack_batch(lane.outbox, lane.source, lane.head, [packed for _, packed in rows], lane.base)
        try:
            self._link.publish(self._topics.record(about.name), batch, timeout_s=_SEND_S)
        except PublishTimeout:
            return False
        except TransportError as error:
            logger.debug("a batch could not be sent: %s", error)
            return False
        window.sent(rows[-1][0], time.monotonic())
        return True

    def _forget(self, lane: Lane) -> None:
        try:
            lane.forget()
        except OutboxFailed as error:
            logger.debug("%s", error)  # it is dropped again with the next receipt
        if lane is not self._own and lane.base >= lane.head:
            self._lanes = [other for other in self._lanes if other is not lane]
            lane.file.close()
            self._link.unlisten(self._topics.ack(lane.outbox), self._receivers.pop(lane.outbox))
