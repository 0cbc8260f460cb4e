"""Up to which number an instance has handled the messages of each source, in a file that outlives its process.

The next incarnation of the instance reads the file, and asks the sources for everything above these numbers. Promise:
whatever moment the process is killed in, the file says what was finished. The file is mapped into memory, and a number
is written there by one assignment, which costs less than a tenth of a microsecond; the operating system keeps it. The
file is for the same machine and the same boot: nothing is synced.

A row (`ether.instance.resume_rules`) belongs to one method, topic and process that sends there. A message counts as
finished when the broker has acknowledged what its method published; until then the results would die with the process.

The traps. A row is made when the first message of its source is begun: of a source without a row nothing was handled,
as far as the method was there. And two threads of a method may take their messages in another order than they begin
them: a kill in that very moment loses the one that was not begun.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ether.instance.resume_rules import EarlierPositions, RowKey, SavedRow
from ether.log import get_ether_logger
from ether.transport.base import Receipt

logger = get_ether_logger("Ether")

_MAGIC = b"ETHPOS1\n"
_HEAD = struct.Struct("<8sdQQ")
"""The magic, since when the instance listens (monotonic clock), the offset of the first free byte, and one reserved."""

_END_AT = 16
_ROW = struct.Struct("<QQQdQ")
"""Of a row: its numbers as in `SavedRow`, the `zero` of its source, and the bytes of its key, which follow."""

_BEGUN, _DONE, _FINISHED, _ZERO = 0, 1, 2, 3
"""Which words of a row they are."""

_WORD = 8
_CAPACITY = 1 << 20
"""Bytes of a file, most of them never written: some 5,000 rows."""

_CARRIED_ROWS = 2_000
"""The most rows that are taken over from an earlier incarnation, the latest ones."""


class Row:
    """One row of the open file, for a method that handles one message at a time."""

    __slots__ = ("_at", "_numbers", "_skipped", "handled")

    def __init__(self, numbers: memoryview, at: int, saved: SavedRow) -> None:
        """`numbers`: the file as 64-bit words; `at`: the index of the row's first word."""
        self._numbers, self._at = numbers, at
        self._skipped = frozenset(n for first, last in saved.skipped for n in range(first, last + 1))
        self.handled = saved.finished
        """Everything up to this number was handled by an earlier incarnation."""

    def leaves_out(self, number: int) -> bool:
        """Whether a message is not to be handled: an earlier incarnation has done so, or has died meanwhile."""
        return number <= self.handled or number in self._skipped

    @property
    def finished(self) -> int:
        """Everything up to this number is finished."""
        return int(self._numbers[self._at + _FINISHED])

    def begin(self, number: int) -> None:
        """A message is about to be handled."""
        self._numbers[self._at + _BEGUN] = number

    def end(self, number: int) -> None:
        """Its method has returned, or raised."""
        self._numbers[self._at + _DONE] = number

    def finish(self, number: int) -> None:
        """The broker has what its method has published."""
        self._numbers[self._at + _FINISHED] = number


class SharedRow(Row):
    """A row of a method that handles several messages at a time: done, and finished, is what lies below all others."""

    __slots__ = ("_in_work", "_lock", "_unfinished")

    def __init__(self, numbers: memoryview, at: int, saved: SavedRow, lock: threading.Lock) -> None:
        super().__init__(numbers, at, saved)
        self._lock = lock
        self._in_work: set[int] = set()
        self._unfinished: set[int] = set()

    def begin(self, number: int) -> None:
        with self._lock:
            self._in_work.add(number)
            self._unfinished.add(number)
            self._numbers[self._at + _BEGUN] = max(number, self._numbers[self._at + _BEGUN])

    def end(self, number: int) -> None:
        with self._lock:
            self._in_work.discard(number)
            self._note(_DONE, self._in_work)

    def finish(self, number: int) -> None:
        with self._lock:
            self._unfinished.discard(number)
            self._note(_FINISHED, self._unfinished)

    def _note(self, word: int, left: set[int]) -> None:
        self._numbers[self._at + word] = min(left) - 1 if left else self._numbers[self._at + _BEGUN]


class _NoRow(Row):
    """For messages that nobody can send again."""

    __slots__ = ()

    def leaves_out(self, number: int) -> bool:
        return False

    @property
    def finished(self) -> int:
        return 0

    def begin(self, number: int) -> None:
        pass

    def end(self, number: int) -> None:
        pass

    def finish(self, number: int) -> None:
        pass


NO_ROW = _NoRow(memoryview(b""), 0, SavedRow(RowKey("", "", "", "")))


def read_positions(path: Path) -> EarlierPositions | None:
    """What the earlier incarnation has left; None where it has left nothing, or nothing that can be read."""
    try:
        data = path.read_bytes()
        magic, since, end, _ = _HEAD.unpack_from(data)
        if magic != _MAGIC or not _HEAD.size <= end <= len(data):
            raise ValueError("it is no file of positions")
        methods: frozenset[str] = frozenset()
        rows, node = [], ""
        for numbers, key in _parts(data[:end]):
            if isinstance(key, dict):
                methods, node = frozenset(key["methods"]), str(key["node"])
            else:
                *names, skipped = key
                pairs = tuple((int(first), int(last)) for first, last in skipped)
                rows.append(SavedRow(RowKey(*map(str, names)), *numbers, pairs))
        return EarlierPositions(since, methods, rows, node)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        logger.warning("what was handled before this start is not known: %s: %s", path, error)
        return None


def _parts(data: bytes) -> Iterator[tuple[tuple[int, int, int, float], Any]]:
    """The parts of a file: the numbers of a row, and its key."""
    at = _HEAD.size
    while at < len(data):
        begun, done, finished, zero, size = _ROW.unpack_from(data, at)
        key = json.loads(data[at + _ROW.size : at + _ROW.size + size])
        yield (begun, done, finished, zero), key
        at += _ROW.size + _padded(size)


class Positions:
    """The open file of one incarnation. Rows are asked for on the threads of the workers."""

    def __init__(
        self,
        path: Path,
        methods: Mapping[str, bool],
        node: str = "",
        earlier: EarlierPositions | None = None,
        carried: Iterable[SavedRow] = (),
    ) -> None:
        """Makes the file anew. `methods`: those that subscribe, and whether each handles several messages at a time.
        `node`: the end of the ids of this process's own messages.
        `earlier` is what the earlier incarnation has left, `carried` the rows to begin with. Raises `OSError`."""
        self._methods = dict(methods)
        self._path = path
        self._lock = threading.Lock()
        """Guards the end of the file, and the sets of shared rows."""
        self._is_full = False
        self.rows: dict[tuple[str, str, str], Row] = {}
        """By method, topic and node."""
        self._sources: dict[int, tuple[str, str]] = {}
        """For the first word of each row its topic and source."""
        self._unfinished: deque[tuple[Row, int, Receipt]] = deque()
        """Messages whose method has returned, with the receipt of what the process had published last."""
        self._watched = 0
        """How many of them are finished when the receipt is acknowledged that is being watched; 0: none is watched."""
        self._finishing = threading.Lock()
        """Guards `_watched`, and what is taken out of `_unfinished`."""
        new = path.with_suffix(".new")
        self._map = _new_map(new, earlier.since if earlier is not None else time.monotonic())
        self._words = memoryview(self._map).cast("B").cast("Q")
        self._floats = memoryview(self._map).cast("B").cast("d")
        self._append((0, 0, 0, 0.0), {"methods": sorted(methods), "node": node})
        for row in list(carried)[-_CARRIED_ROWS:]:
            self._add(row)
        os.replace(new, path)

    def add(self, key: RowKey) -> Row:
        """The row of a method's messages of one source, made where there is none; `NO_ROW` where the file is full."""
        return self._add(SavedRow(key))

    def _add(self, saved: SavedRow) -> Row:
        key = saved.key
        with self._lock:
            known = self.rows.get(key[:3])
            if known is not None:
                return known
            at = self._append(saved[1:5], [*key, saved.skipped])
            row: Row = NO_ROW
            if at is not None:
                self._sources[at] = key.topic, key.source
                is_shared = self._methods.get(key.method, False)
                row = SharedRow(self._words, at, saved, self._lock) if is_shared else Row(self._words, at, saved)
            self.rows[key[:3]] = row
        if row is NO_ROW and not self._is_full:
            self._is_full = True
            logger.warning(
                "more sources and topics than a restart can hand on: messages of the rest may be lost in one"
            )
        return row

    def _append(self, numbers: tuple[int, int, int, float], key: object) -> int | None:
        """Add a part; returns the index of its first word, None where there is no room. The end of the file is moved
        last: what a kill interrupts is not there."""
        text = json.dumps(key).encode()
        end = int(self._words[_END_AT // _WORD])
        after = end + _ROW.size + _padded(len(text))
        if after > _CAPACITY:
            return None
        _ROW.pack_into(self._map, end, *numbers, len(text))
        self._map[end + _ROW.size : end + _ROW.size + len(text)] = text
        self._words[_END_AT // _WORD] = after
        return end // _WORD

    # -- what is finished

    def ended(self, row: Row, number: int, published: Receipt | None) -> None:
        """A method has returned. `published` is the receipt of what the process has published last, if anything."""
        row.end(number)
        unfinished = self._unfinished
        if not unfinished and (published is None or published.done):
            row.finish(number)
            return
        unfinished.append((row, number, unfinished[-1][2] if published is None else published))
        if not self._watched:
            self._acknowledged()

    def _acknowledged(self) -> None:
        """The receipt that was watched is acknowledged (or refused), and with it everything that was published before;
        on the transport's thread. One receipt is watched at a time, the latest: in a burst this is called once for many
        messages."""
        while True:
            with self._finishing:
                for _ in range(self._watched):
                    row, number, _ = self._unfinished.popleft()
                    row.finish(number)
                self._watched = len(self._unfinished)
                if not self._watched:
                    return
                latest = self._unfinished[self._watched - 1][2]
            if not latest.done:
                latest.when_settled(self._acknowledged)
                return

    def note_zeros(self, zeros: Mapping[tuple[str, str], float]) -> None:
        """Note the `zero` of each source, by topic and source."""
        for at, key in list(self._sources.items()):
            zero = zeros.get(key)
            if zero is not None:
                self._floats[at + _ZERO] = zero

    def finished(self, method: str, topic: str, node: str) -> int:
        """Up to which number a method has finished the messages of a topic and node; 0 where it has begun none."""
        row = self.rows.get((method, topic, node))
        return 0 if row is None else row.finished

    def leave(self, *, acknowledged: bool) -> None:
        """No message is in work any more, and none will be. `acknowledged`: the broker has everything that was
        published. The file stays mapped until the process ends, because other threads may still look into it."""
        with self._finishing:
            while acknowledged and self._unfinished:
                row, number, _ = self._unfinished.popleft()
                row.finish(number)
            self._watched = 0
            self._unfinished.clear()


def _new_map(path: Path, since: float) -> mmap.mmap:
    """A new file, mapped."""
    with open(path, "wb+") as file:
        file.truncate(_CAPACITY)
        mapped = mmap.mmap(file.fileno(), _CAPACITY)
    _HEAD.pack_into(mapped, 0, _MAGIC, since, _HEAD.size, 0)
    return mapped


def _padded(size: int) -> int:
    return -(-size // _WORD) * _WORD
