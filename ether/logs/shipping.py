"""Ships every log record of a process to its session: to the topic `log/<name>`, one message for each record.

The user's only API is `logging`. A thread that logs never waits: it puts the record into a bounded queue, and a thread
of this module publishes it, at QoS 0. While the broker is away records wait in the queue. Records above the limits are
cut (`ether.logs.budget_rules`) and counted, and the count is published once a second.

Promise: every record that was logged was either shipped or counted as cut. Two kinds are neither, because shipping them
would log again, without end: records of the publishing thread while it publishes, and records of the network layer
below WARNING.

The trap: a record may come from under the transport's own lock, from a signal handler, or from a finalizer that the
garbage collector runs in the middle of this module's code. So nothing is published, formatted or waited for under the
lock here. The lock is re-entrant, and `_busy` says that its owner is in the middle of a change: a record that arrives
then is put into `_aside`, and queued by the next change.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple

from ether.connection import fork_guard as forks
from ether.connection.deadline import Deadline
from ether.connection.link import Link
from ether.errors import PayloadTooLarge, PublishTimeout, TransportClosed, TransportError
from ether.log import ROOT_NAME, LibrariesFromWarning, UnseenHandler, get_ether_logger
from ether.logs.budget_rules import Band, Cut, CutCount, LogBudget, LogQueue, Queued, band_of, cut_sentence
from ether.logs.records import record_value, shortened, size_of
from ether.system.clock import wall_time
from ether.transport.base import Receipt
from ether.wire.topics import SessionTopics

QUEUE_MAX = 4_000
QUEUE_MAX_BYTES = 4 << 20
CLOSE_TIMEOUT_S = 1.0

_NETWORK_LOGGERS = ("Ether.transport", "paho")
_PATIENCE_S = 0.5
"""For one attempt to publish; after each it is checked whether the time for closing is over."""

_RECONNECT_LOOK_S = 0.2
_SETTLE_S = 1.5
"""After an outage records wait for so long, until readers of the log are back, too: at QoS 0 a record without a reader
is lost (readers try to connect once a second)."""

_HANDLER_LOOK_S = 2.0
"""How often it is checked that our handler is installed: user code may replace all handlers, by
`logging.config.dictConfig()` for example."""

_NOTHING_CUT: Cut = MappingProxyType({})

logger = get_ether_logger("logs")


class _Fate(Enum):
    SENT = "sent"
    LATER = "there is no connection, or no room"
    NEVER = "this record cannot be sent"


class _Waiting(NamedTuple):
    """The next message: a record, or a report of cut records (`band` is None, `cut` its counts)."""

    band: Band | None
    value: dict[str, Any]
    cut: Cut


class LogShipper:
    """Ships from its construction until `close()`."""

    def __init__(self, link: Link, topics: SessionTopics, name: str, *, own_process: bool = True) -> None:
        """`link` is open. With `own_process` this is the process of an instance, and every logger is shipped, from the
        root down. In a user's program only Ether's own loggers are, until the user has configured logging; from then on
        all are. A handler of ours at the root before that would make `logging.basicConfig()` do nothing."""
        self.name = name
        self._link = link
        self._topic = topics.log(name)
        self._own_process = own_process
        self._forks = forks.watch()
        self._handler = _Intake(self)
        self._wake = threading.Condition(self._handler.own_lock)
        self._asleep = self._busy = self._publishing = False
        self._closing = self._last_report_made = self._over = False
        self._close_by = Deadline(0)
        self._settled: Deadline | None = Deadline(0)
        self._budget = LogBudget(time.monotonic())
        self._queue: LogQueue[dict[str, Any]] = LogQueue(QUEUE_MAX, QUEUE_MAX_BYTES)
        self._aside: deque[tuple[Band, dict[str, Any]]] = deque()
        self._cuts = CutCount()
        self._shipped = 0
        self._keep_handler_installed()
        self._thread = threading.Thread(target=self._run, name=f"ether-log-{name}", daemon=True)
        self._thread.start()

    @property
    def shipped(self) -> int:
        """Records that were handed to the network."""
        return self._shipped

    @property
    def cut(self) -> dict[str, int]:
        """Records that were cut, by level."""
        with self._wake:
            return {band.name.lower(): count for band, count in self._cuts.total.items()}

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Take no more records, publish the queued ones in at most `timeout_s` seconds, and end. Twice is fine."""
        with self._wake:
            if self._closing:
                return
            self._close_by = Deadline(timeout_s)
            self._closing = True
            self._wake.notify_all()
        self._thread.join(timeout_s + 2 * _PATIENCE_S)
        self._detach()
        with self._wake:
            unsaid = self._cuts.take_report(time.monotonic())
        if unsaid:
            logger.warning("%s left before all of its log was sent; %s", self.name, cut_sentence(unsaid))

    # -- taking, on any thread

    def take(self, record: logging.LogRecord) -> None:
        """Queue a record, or count it as cut. Neither waits nor publishes."""
        if self._is_ignored(record):
            return
        band = band_of(record.levelno)
        if not self._admits(band):
            return
        self._put(band, record_value(record, self.name))

    def give_up(self, record: logging.LogRecord) -> None:
        """Count a record that could not be taken."""
        with self._wake:
            self._cuts.note(band_of(record.levelno))

    def _is_ignored(self, record: logging.LogRecord) -> bool:
        if self._closing or self._forks != forks.times:  # a forked child has neither our threads nor our connection
            return True
        if self._publishing and threading.get_ident() == self._thread.ident:
            return True
        return record.levelno < logging.WARNING and record.name.startswith(_NETWORK_LOGGERS)

    def _admits(self, band: Band) -> bool:
        with self._wake:
            if self._busy:  # this thread interrupted itself, see the trap: the budget must not be touched now
                return True
            self._busy = True
            try:
                admitted = self._budget.admits(band, time.monotonic())
                if not admitted:
                    self._cuts.note(band)
                return admitted
            finally:
                self._busy = False

    def _put(self, band: Band, value: dict[str, Any]) -> None:
        with self._wake:
            if self._over:
                self._cuts.note(band)
                return
            self._aside.append((band, value))
            if self._busy:
                return
            self._busy = True
            try:
                self._queue_all_aside()
                if self._asleep:
                    self._asleep = False
                    self._wake.notify()
            finally:
                self._busy = False

    def _queue_all_aside(self) -> None:
        while self._aside:
            band, value = self._aside.popleft()
            for given_up in self._queue.offer(band, value, size_of(value)):
                self._cuts.note(given_up)

    # -- publishing, on our own thread

    def _run(self) -> None:
        while (waiting := self._next()) is not None:
            if self._ship(waiting):
                self._shipped += waiting.band is not None
            else:
                self._not_shipped(waiting)
        self._give_up_the_rest()

    def _next(self) -> _Waiting | None:
        """The next message to publish; None at the end."""
        while not self._is_time_to_end():
            with self._wake:
                waiting = self._first_queued()
                if waiting is not None:
                    return waiting
                if self._closing:
                    return None
                patience_s = self._cuts.wait_s(time.monotonic())
                self._asleep = True
                self._wake.wait(_HANDLER_LOOK_S if patience_s is None else patience_s)
                self._asleep = False
            self._keep_handler_installed()
        return None

    def _first_queued(self) -> _Waiting | None:
        self._busy = True
        try:
            self._queue_all_aside()
            now = time.monotonic()
            patience_s = self._cuts.wait_s(now)
            if patience_s is not None and (patience_s == 0 or self._is_last_report_due()):
                return self._report(self._cuts.take_report(now))
            queued: Queued[dict[str, Any]] | None = self._queue.take()
            return None if queued is None else _Waiting(queued.band, queued.item, _NOTHING_CUT)
        finally:
            self._busy = False

    def _is_last_report_due(self) -> bool:
        """True once, while closing, when every record is sent: the last report of cut records is due."""
        now = self._closing and not self._queue and not self._last_report_made
        self._last_report_made |= now
        return now

    def _is_time_to_end(self) -> bool:
        return self._closing and (self._close_by.passed or not self._link.transport.connected)

    def _report(self, cut: Cut) -> _Waiting:
        value = {
            "time": wall_time(),
            "level": "WARNING",
            "logger": logger.name,
            "instance": self.name,
            "pid": os.getpid(),
            "message": cut_sentence(cut),
            "message_id": None,
            "trace": None,
            "cut": {band.name.lower(): count for band, count in cut.items()},
        }
        return _Waiting(None, value, cut)

    def _ship(self, waiting: _Waiting) -> bool:
        """Publish, as soon as there is a connection; False where the message was given up."""
        while (fate := self._published(waiting.value)) is _Fate.LATER:
            with self._wake:
                if not self._closing:
                    self._wake.wait(_RECONNECT_LOOK_S)
            if self._is_time_to_end():
                return False
            self._keep_handler_installed()
        return fate is _Fate.SENT

    def _published(self, value: dict[str, Any]) -> _Fate:
        if not self._is_settled():
            return _Fate.LATER
        self._publishing = True
        try:
            try:
                receipt = self._link.publish(self._topic, value, qos=0, timeout_s=_PATIENCE_S)
            except PayloadTooLarge:
                receipt = self._link.publish(self._topic, shortened(value), qos=0, timeout_s=_PATIENCE_S)
            return self._outcome(receipt)
        except TransportClosed:
            return _Fate.NEVER
        except TransportError:
            return _Fate.LATER
        except Exception:  # noqa: BLE001  this loop must outlive every record; it is counted, which is said
            return _Fate.NEVER
        finally:
            self._publishing = False

    def _is_settled(self) -> bool:
        """Whether there is a connection and, after an outage, readers of the log are back (`_SETTLE_S`). Only called
        with a record at hand; that is enough, since the link itself logs the beginning and the end of an outage."""
        connected = self._link.transport.connected
        if not connected:
            self._settled = None
        elif self._settled is None:
            self._settled = Deadline(_SETTLE_S)
        return connected and (self._closing or self._settled is None or self._settled.passed)

    def _outcome(self, receipt: Receipt) -> _Fate:
        """Wait until the message has left this process: this keeps the transport's queue short."""
        while not receipt.done:
            try:
                receipt.wait(_PATIENCE_S)
            except PublishTimeout:
                if self._closing and self._close_by.passed:
                    return _Fate.NEVER
        return _Fate.SENT

    def _not_shipped(self, waiting: _Waiting) -> None:
        with self._wake:
            if waiting.band is None:
                self._cuts.take_back(waiting.cut)
            else:
                self._cuts.note(waiting.band)

    def _give_up_the_rest(self) -> None:
        with self._wake:
            self._over = True
            self._queue_all_aside()
            while (queued := self._queue.take()) is not None:
                self._cuts.note(queued.band)

    # -- our handler

    def _keep_handler_installed(self) -> None:
        """Install our handler at the right logger, and only there, whatever user code has done to its handlers."""
        root, own = logging.getLogger(), logging.getLogger(ROOT_NAME)
        at_root = self._own_process or any(not isinstance(handler, UnseenHandler) for handler in root.handlers)
        right, wrong = (root, own) if at_root else (own, root)
        if self._handler not in right.handlers:
            right.addHandler(self._handler)
        if self._handler in wrong.handlers:
            wrong.removeHandler(self._handler)

    def _detach(self) -> None:
        for name in ("", ROOT_NAME):
            logging.getLogger(name).removeHandler(self._handler)
        self._handler.close()


class _Intake(UnseenHandler):
    """The handler by which `logging` passes records to the shipper."""

    def __init__(self, shipper: LogShipper) -> None:
        super().__init__()
        self._shipper = shipper
        # The handler's lock, because `logging` replaces it in a forked child, where another thread may have held it.
        assert self.lock is not None
        self.own_lock = self.lock
        self.addFilter(LibrariesFromWarning())

    def handle(self, record: logging.LogRecord) -> bool:
        """As the standard library's, but without the lock: user code runs in `emit()`."""
        if not self.filter(record):
            return False
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._shipper.take(record)
        except Exception:  # noqa: BLE001  logging must not raise in the thread that logs
            self._shipper.give_up(record)
            self.handleError(record)
