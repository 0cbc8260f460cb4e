"""The log file of a session: every record of every instance, of all machines, in one file on this machine.

`<state folder>/ether/logs/<session>.log`, at most 5 files of 10 MB. The state folder is `$XDG_STATE_HOME`, or
`~/.local/state`; on Windows `%LOCALAPPDATA%`. The launcher writes it; every program that may read the folder can read
it back (`read_back`).

Promises: the network thread only queues; a full disk is reported once, missing records are counted, and writing goes on
as soon as there is room; where there are too many records, errors are the last to be cut. The trap: a warning of this
module about its file comes back as a record for the file. So there is one for each change of state, not one for each
record.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from ether.connection.deadline import Deadline
from ether.connection.link import Inbound, Link
from ether.errors import ConfigError, InvalidName, PayloadError
from ether.log import get_ether_logger
from ether.logs.budget_rules import Cut, CutCount, LogQueue, band_of, cut_sentence
from ether.logs.lines import LogLine, level_number, read_lines
from ether.logs.rotating_file import RotatingFile, Unwritten, parts_of
from ether.protocol.presence import ECHO
from ether.system.clock import wall_time
from ether.system.folders import file_name, remove_old, state_folder
from ether.system.old_files import still_old
from ether.wire.topics import SessionTopics, check_instance_name

FILE_MAX_BYTES = 10_000_000
FILES = 5
KEPT_SESSIONS = 50
KEPT_DAYS = 30.0
QUEUE_MAX = 20_000
QUEUE_MAX_BYTES = 32 << 20
CLOSE_TIMEOUT_S = 2.0

_BATCH = 500
_RETRY_S = 1.0
_ECHO_PATIENCE_S = 0.5
_ECHO_BYTES = 64
"""An echo stands within the first bytes of a body."""
_LEVELS_IN_A_BODY = ((b'"DEBUG"', 10), (b'"INFO"', 20), (b'"WARNING"', 30), (b'"ERROR"', 40), (b'"CRITICAL"', 50))

logger = get_ether_logger("logs")


def log_folder() -> Path:
    """The folder of this user's session logs; it is not made here. Raises `ConfigError` where the user has no home."""
    return state_folder() / "logs"


def log_path(session: str, folder: Path | None = None) -> Path:
    """The file of a session's log."""
    return (folder or log_folder()) / f"{file_name(session)}.log"


def read_back(
    session: str,
    since: float | None = None,
    instance: str | None = None,
    level: int | str = 0,
    *,
    folder: Path | None = None,
) -> Iterator[LogLine]:
    """The records in a session's files, oldest first: from `since` on (seconds since 1970), of one instance, of at
    least that level. None where there is no file. Raises `ConfigError` for an unknown level."""
    # All files are opened before one is read, so that a rotation meanwhile takes nothing away. Opened newest first, a
    # file that is renamed in between is met again under its next name, and recognised by device and inode.
    least = level_number(level)
    with ExitStack() as opened:
        streams, seen = [], set()
        for path in parts_of(log_path(session, folder), FILES):
            try:
                stream = opened.enter_context(open(path, encoding="utf-8", errors="backslashreplace", newline="\n"))
            except FileNotFoundError:
                continue
            facts = os.fstat(stream.fileno())
            if (facts.st_dev, facts.st_ino) not in seen and (since is None or facts.st_mtime >= since):
                seen.add((facts.st_dev, facts.st_ino))
                streams.append(stream)
        for line in read_lines(line for stream in reversed(streams) for line in stream):
            if _is_wanted(line, since, instance, least):
                yield line


class SessionLog:
    """Writes a session's log from its construction until `close()`."""

    def __init__(
        self,
        link: Link,
        topics: SessionTopics,
        folder: Path | None = None,
        *,
        max_bytes: int = FILE_MAX_BYTES,
        now: Callable[[], float] = wall_time,
    ) -> None:
        """Returns when the broker has confirmed the subscription; raises `SubscribeRefused` where it does not. Problems
        with files are not raised. The owner of `link` closes it after this object."""
        self._session = topics.session
        self._link, self._topics = link, topics
        self._echo = ""
        self._echoed = threading.Event()
        self._folder = folder
        self._max_bytes = max_bytes
        self._now = now
        self._changed = threading.Condition()
        self._queue: LogQueue[Inbound] = LogQueue(QUEUE_MAX, QUEUE_MAX_BYTES)
        self._cuts = CutCount()
        self._asleep = self._closing = False
        self._file: RotatingFile | None = None
        self._retry_at = float("-inf")
        self._failing = False
        self._unwritten = 0
        self._unreadable = 0
        link.listen(topics.log("+"), self._take, now=self._take, qos=0)
        self._thread = threading.Thread(target=self._run, name="ether-log-file", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Records that arrived and are in no file: cut, unwritten, or not readable."""
        with self._changed:
            return sum(self._cuts.total.values()) + self._unwritten + self._unreadable

    def catch_up(self, timeout_s: float) -> bool:
        """Return when every record has arrived that the broker has accepted before now; False after `timeout_s`
        seconds. An echo to oneself comes through the subscription of the records, behind them."""
        deadline = Deadline(timeout_s)
        self._echo = os.urandom(8).hex()
        while not self._echoed.is_set() and not deadline.passed:  # sent again, in case a broker that is full drops it
            topic = self._topics.log(self._link.source)
            self._link.publish(topic, {ECHO: self._echo}, timeout_s=deadline.left())
            self._echoed.wait(min(_ECHO_PATIENCE_S, deadline.left()))
        return self._echoed.is_set()

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Write the records that have arrived, in at most about `timeout_s` seconds, and end. Twice is fine."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    # -- taking, on the network thread

    def _take(self, inbound: Inbound) -> bool:
        payload = inbound.delivery.payload
        if self._echo and self._echo.encode() in payload[:_ECHO_BYTES]:
            self._echoed.set()
            inbound.done()
            return True
        inbound.done()  # before it is written: records that wait for the disk must not slow down the messages
        with self._changed:
            for given_up in self._queue.offer(band_of(_level_in(payload)), inbound, 500 + len(payload)):
                self._cuts.note(given_up)
            if self._asleep:
                self._asleep = False
                self._changed.notify()
        return True

    # -- writing, on our own thread

    def _run(self) -> None:
        self._make_room()
        while (batch := self._batch()) is not None:
            self._write([line for inbound in batch if (line := self._line(inbound)) is not None])
        self._write([])
        if self._file is not None:
            self._file.close()

    def _batch(self) -> list[Inbound] | None:
        """Records that have arrived; empty where only a report of cut records is due; None at the end."""
        with self._changed:
            while not self._queue and not self._closing:
                patience_s = self._cuts.wait_s(time.monotonic())
                if patience_s == 0:
                    return []
                self._asleep = True
                self._changed.wait(patience_s)
                self._asleep = False
            batch: list[Inbound] = []
            while len(batch) < _BATCH and (queued := self._queue.take()) is not None:
                batch.append(queued.item)
            return batch or None

    def _line(self, inbound: Inbound) -> LogLine | None:
        instance = inbound.delivery.topic.rpartition("/")[2]
        try:
            line = LogLine.from_value(inbound.unpack().value, check_instance_name(instance))
        except (PayloadError, InvalidName):
            line = None
        if line is None:
            self._unreadable += 1
            if self._unreadable == 1:
                logger.warning("what arrives on %r is no log record; it is counted", inbound.delivery.topic)
        return line

    def _write(self, lines: list[LogLine]) -> None:
        """Write a batch, after remarks about missing records. Never raises. While the disk takes nothing, records are
        counted as unwritten, and the file is tried once a second."""
        if self._failing and time.monotonic() < self._retry_at and not self._closing:
            self._unwritten += len(lines)
            return
        cut = self._report_of_cuts()
        remarks = self._remarks(cut)
        texts = [line.to_text().encode("utf-8", "backslashreplace") for line in (*remarks, *lines)]
        if not texts:
            return
        try:
            self._open_file().write(texts)
        except (OSError, ConfigError) as error:
            self._failed(error, len(lines), cut)
        else:
            self._succeeded()

    def _failed(self, error: OSError | ConfigError, lines: int, cut: Cut) -> None:
        self._unwritten += min(lines, error.lines) if isinstance(error, Unwritten) else lines
        self._retry_at = time.monotonic() + _RETRY_S
        with self._changed:
            self._cuts.take_back(cut)
        if not self._failing:
            self._failing = True
            logger.error("the log file of session %s cannot be written: %s", self._session, error)

    def _succeeded(self) -> None:
        if self._failing:
            self._failing = False
            logger.warning("the log file is written again; %d records are missing in it", self._unwritten)

    def _report_of_cuts(self) -> Cut:
        with self._changed:
            now = time.monotonic()
            return self._cuts.take_report(now) if self._closing or self._cuts.wait_s(now) == 0 else {}

    def _remarks(self, cut: Cut) -> list[LogLine]:
        """Lines about records that are missing in the file."""
        texts = [f"{cut_sentence(cut)}: they came faster than they could be written"] if cut else []
        if self._failing:
            texts.append(f"{self._unwritten:,} records are missing here: the file could not be written")
        return [_remark(text, self._now()) for text in texts]

    def _make_room(self) -> None:
        try:
            _remove_old(self._where(), self._session, self._now())
            remove_old()
        except (OSError, ConfigError) as error:
            logger.info("what old sessions left could not be removed: %s", error)

    def _where(self) -> Path:
        return self._folder or log_folder()

    def _open_file(self) -> RotatingFile:
        if self._file is None:
            self._file = RotatingFile(log_path(self._session, self._where()), self._max_bytes, FILES)
        return self._file


def _remark(text: str, now: float) -> LogLine:
    return LogLine(now, "WARNING", "Ether", text, os.getpid(), level_number=30)


def _level_in(payload: bytes) -> int:
    """The level of an undecoded record: decoding takes too long for the network thread."""
    start = payload.find(b'"level":', 0, 200)
    if start >= 0:
        for text, number in _LEVELS_IN_A_BODY:
            if payload.startswith(text, start + 8):
                return number
    return 20


def _is_wanted(line: LogLine, since: float | None, instance: str | None, least: int) -> bool:
    return (
        (since is None or line.time >= since)
        and (instance is None or line.instance == instance)
        and line.level_number >= least
    )


def _remove_old(folder: Path, own_session: str, now: float) -> None:
    """Remove the logs of other sessions that are certainly older than `KEPT_DAYS`, and all but the youngest
    `KEPT_SESSIONS`."""
    ages: dict[str, float] = {}
    files: dict[str, list[Path]] = {}
    for path in folder.glob("*.log*") if folder.is_dir() else ():
        name, _, number = path.name.rpartition(".log")
        if not name or not (number == "" or number[1:].isdecimal()):
            continue
        files.setdefault(name, []).append(path)
        ages[name] = min(ages.get(name, float("inf")), now - path.stat().st_mtime)
    ages.pop(file_name(own_session), None)
    goes = set(sorted(ages, key=lambda name: ages[name])[KEPT_SESSIONS - 1 :])
    look_old = {name for name in ages if ages[name] > KEPT_DAYS * 86_400}
    if folder.is_dir():
        goes |= still_old(folder / "old-logs.json", look_old, now)
    for name in goes:
        for path in files[name]:
            path.unlink(missing_ok=True)
