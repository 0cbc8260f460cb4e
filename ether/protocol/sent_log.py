"""The messages that a process has published lately, in the order in which they left, within limits.

Messages are kept in chunks, because a limit that is looked at for each message would cost more than the rest of `note`.
The latest chunks are kept whole. An older chunk is kept as far as a reader is behind: those of its messages that some
reader has not got (`floors`) move to the backlog, which is in memory at first, and then in a `Spill`, a file.

Promise: of every number up to the head of a topic, the log has the message, or the number was never noted (QoS 0), or
it is not above `gone(topic)`. Messages leave the log oldest first, topic by topic.

The trap: there is no lock, because it would cost each message as much as everything else here. One thread at a time
calls `note` and `pass_over` (the publisher), one at a time everything else (the tender). So each attribute is written
by one of the two, or its operations are atomic; and what is read is read against the order in which messages move, so
that none falls in between. A publisher that is faster than the tender takes the tender's part (`Load.FAR`): the limits
hold whatever else the tender's thread is doing, and nothing is dropped because it was late.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, Protocol, TypeVar

T = TypeVar("T")

OVERHEAD_BYTES = 250
"""What a message costs in memory beside its bytes."""

_CHUNK_COUNT = 256
_PARTS = 16
"""A chunk is at most this part of a limit, so that the limits hold within a sixteenth."""

_OVER, _FAR_OVER = 1.25, 1.75
"""At so many times the limit in bytes the tender is called before its next turn, and the publisher does its work."""

_SNAPSHOTS = 100
"""How often a copy is tried that the other thread disturbs, which happens in a Python without an interpreter lock."""

_ROW = struct.Struct(">dIIII")
"""Of a message in the spill: time, index of the topic, number, and the lengths of payload and properties."""


class SentMessage(NamedTuple):
    """One message as it left. `time` is in seconds of a steady clock."""

    time: float
    topic: str
    sequence: int
    payload: bytes
    properties: bytes


class Load(IntEnum):
    """How the log stands to its limit in bytes after a message was noted."""

    WITHIN = 0
    OVER = 1
    """There is work for `tend`."""
    FAR = 2
    """There is too much of it: who publishes calls `tend`, or the memory grows as fast as messages come."""


_Row = tuple[float, str, int, bytes, bytes]
"""A `SentMessage` as it is noted: a bare tuple, which is made four times as fast."""


class Spill(Protocol):
    """A place for bytes beside the memory. Every method may raise `OSError`."""

    def put(self, data: bytes) -> int:
        """Keep these bytes; returns the key to them."""

    def get(self, key: int) -> bytes:
        """The bytes of a key."""

    def free(self, key: int) -> None:
        """The bytes of a key are not needed any more."""


@dataclass(frozen=True, slots=True)
class KeepLimits:
    """`count`, `size` and `age_s` are what is kept for readers that lost their connection. What is younger than
    `young_s` is kept beyond `count`: readers that nobody knows may be about to report. `backlog_bytes` is what is kept
    beyond all that for readers that are behind, of which `memory_bytes` are in memory."""

    count: int
    size: int
    age_s: float
    backlog_bytes: int
    memory_bytes: int
    young_s: float = 0.0


@dataclass(slots=True)
class _Chunk:
    """Messages that left one after the other. `rows` is empty where they are in the spill, under `key`."""

    rows: list[_Row]
    size: int
    ranges: dict[str, tuple[int, int]]
    """The first and the last number of each topic."""
    latest: float
    """The time of the last message."""
    count: int
    key: int | None = None


@dataclass(slots=True)
class Dropped:
    """What the backlog had to give up, although readers had not got it."""

    topics: dict[str, tuple[int, int]] = field(default_factory=dict)
    """For each topic the number of messages, and the highest of their numbers."""

    def add(self, chunk: _Chunk, floors: Mapping[str, int]) -> None:
        """A chunk had to go."""
        for topic, (first, last) in chunk.ranges.items():
            if last > (floor := floors.get(topic, last)):
                count, _ = self.topics.get(topic, (0, 0))
                self.topics[topic] = count + last - max(first - 1, floor), last


class SentLog:
    """See the module. `now` in seconds of a steady clock."""

    def __init__(self, limits: KeepLimits, spill: Spill | None = None) -> None:
        self._limits = limits
        self._spill = spill
        self._chunk_count = max(1, min(_CHUNK_COUNT, limits.count // _PARTS))
        self._chunk_size = max(1, limits.size // _PARTS)
        self._chunk_s = limits.age_s / _PARTS
        self.heads: dict[str, int] = {}
        """The number of the last message on each topic."""
        self._open: list[_Row] = []
        self._open_size = 0
        self._sealed: deque[_Chunk] = deque()
        # Written by the publisher:
        self._bytes_in = 0
        self._passed: dict[str, tuple[int, float]] = {}
        """For each topic the number and time of its last message that cannot be sent again."""
        # Written by the tender:
        self._bytes_out = 0
        self._gone: dict[str, tuple[int, float]] = {}
        self._backlog: deque[_Chunk] = deque()
        self._backlog_bytes = self._memory_bytes = 0

    # -- the publisher's side

    def note(self, topic: str, sequence: int, payload: bytes, properties: bytes, now: float) -> Load:
        """Note a message that has left at QoS 1."""
        rows = self._open
        rows.append((now, topic, sequence, payload, properties))
        self.heads[topic] = sequence
        self._open_size += len(payload) + len(properties) + OVERHEAD_BYTES
        if len(rows) < self._chunk_count and self._open_size < self._chunk_size and now - rows[0][0] < self._chunk_s:
            return Load.WITHIN
        return self._seal()

    def pass_over(self, topic: str, sequence: int, payload: bytes, properties: bytes, now: float) -> Load:
        """Note a message that has left and cannot be sent again."""
        self.heads[topic] = sequence
        self._passed[topic] = sequence, now
        return Load.WITHIN

    def _seal(self) -> Load:
        chunk = _chunk(self._open)
        # First sealed, then a new open one: a reader in between sees the messages twice, never not at all.
        self._sealed.append(chunk)
        self._open, self._open_size = [], 0
        self._bytes_in += chunk.size
        size, limit = self._sealed_bytes, self._limits.size
        return Load.WITHIN if size <= _OVER * limit else Load.OVER if size <= _FAR_OVER * limit else Load.FAR

    @property
    def _sealed_bytes(self) -> int:
        return self._bytes_in - self._bytes_out

    # -- the tender's side

    def gone(self, topic: str) -> tuple[int, float] | None:
        """The number and time of the last message of a topic that is not kept any more; None where there is none."""
        found = [gone for gone in (self._gone.get(topic), self._passed.get(topic)) if gone is not None]
        return max(found, default=None)

    def messages(self, wanted: Mapping[str, tuple[int, int]]) -> Iterator[SentMessage]:
        """The kept messages of these topics, of each with numbers above the first and up to the second, in order. A
        topic that the caller takes out of `wanted` meanwhile is read no further.

        The open chunk is looked up before the sealed ones, and read after them: one that is sealed meanwhile comes
        twice, and its numbers are passed over."""
        last = {topic: after for topic, (after, _) in wanted.items()}
        open_rows = self._open
        for chunk in [*self._backlog, *_copy(self._sealed)]:
            if any(_overlap(chunk.ranges.get(topic), last[topic], upto) for topic, (_, upto) in wanted.items()):
                yield from _within(self._rows_of(chunk), wanted, last)
        yield from _within(_copy(open_rows), wanted, last)

    def tend(self, floors: Mapping[str, int], now: float) -> Dropped:
        """Bring the log within its limits. `floors` says for each topic that has readers the last number that all of
        them have got. Returns what readers will miss."""
        dropped = Dropped()
        count = sum(chunk.count for chunk in _copy(self._sealed)) + len(self._open)
        while self._sealed and self._is_over(chunk := self._sealed[0], count, now):
            # First kept, then taken out: an exception of a signal handler in between leaves a message here twice.
            self._keep_behind(chunk, floors)
            self._sealed.popleft()
            count -= chunk.count
            self._bytes_out += chunk.size
        for chunk in list(self._backlog):
            if all(last <= floors.get(topic, last) for topic, (_, last) in chunk.ranges.items()):
                self._remove(chunk)
        while self._backlog_bytes > self._limits.backlog_bytes:
            oldest = self._backlog[0]
            self._remove(oldest)
            dropped.add(oldest, floors)
        return dropped

    def _is_over(self, oldest: _Chunk, count: int, now: float) -> bool:
        """Whether a limit is exceeded, so that the oldest sealed chunk goes; `count` is that of all messages here."""
        limits = self._limits
        return (
            (count > limits.count and oldest.latest <= now - limits.young_s)
            or self._sealed_bytes + self._open_size > limits.size
            or oldest.latest < now - limits.age_s
        )

    def _keep_behind(self, chunk: _Chunk, floors: Mapping[str, int]) -> None:
        """Move what a reader has not got into the backlog; the rest is gone."""
        behind = []
        for row in chunk.rows:
            if (floor := floors.get(row[1])) is not None and row[2] > floor:
                behind.append(row)
            else:
                self._note_gone(row[1], row[2], row[0])
        if not behind:
            return
        kept = _chunk(behind)
        if self._spill is not None and self._memory_bytes + kept.size > self._limits.memory_bytes:
            self._to_spill(kept)
        if kept.key is None:
            self._memory_bytes += kept.size
        self._backlog.append(kept)
        self._backlog_bytes += kept.size

    def _to_spill(self, chunk: _Chunk) -> None:
        assert self._spill is not None
        try:
            chunk.key = self._spill.put(_packed(chunk))
        except OSError:
            return  # the disk is full or gone: it stays in memory, within the limit of the backlog
        chunk.rows = []

    def _remove(self, chunk: _Chunk) -> None:
        self._backlog.remove(chunk)
        self._backlog_bytes -= chunk.size
        for topic, (_, last) in chunk.ranges.items():
            self._note_gone(topic, last, chunk.latest)
        if chunk.key is None:
            self._memory_bytes -= chunk.size
        elif self._spill is not None:
            self._spill.free(chunk.key)

    def _note_gone(self, topic: str, sequence: int, time: float) -> None:
        before = self._gone.get(topic)
        if before is None or before[0] < sequence:
            self._gone[topic] = sequence, time

    def _rows_of(self, chunk: _Chunk) -> list[_Row]:
        """The messages of a chunk. What cannot be read back is gone: the reader is told so."""
        if chunk.key is None or self._spill is None:
            return chunk.rows
        try:
            return _unpacked(self._spill.get(chunk.key), list(chunk.ranges))
        except OSError:
            self._remove(chunk)
            return []


def _copy(items: Iterable[T]) -> list[T]:
    """A copy of what the publisher may be appending to."""
    for _ in range(_SNAPSHOTS):
        with suppress(RuntimeError):
            return list(items)
    return []


def _chunk(rows: list[_Row]) -> _Chunk:
    ranges: dict[str, tuple[int, int]] = {}
    size = OVERHEAD_BYTES * len(rows)
    for _, topic, sequence, payload, properties in rows:
        size += len(payload) + len(properties)
        first, _ = ranges.get(topic, (sequence, 0))
        ranges[topic] = first, sequence
    return _Chunk(rows, size, ranges, rows[-1][0], len(rows))


def _overlap(span: tuple[int, int] | None, after: int, upto: int) -> bool:
    return span is not None and span[1] > after and span[0] <= upto


def _within(rows: list[_Row], wanted: Mapping[str, tuple[int, int]], last: dict[str, int]) -> Iterator[SentMessage]:
    """The rows that are wanted and come after those that were given before (`last`)."""
    for row in rows:
        topic, sequence = row[1], row[2]
        if (pair := wanted.get(topic)) is not None and last[topic] < sequence <= pair[1]:
            last[topic] = sequence
            yield SentMessage._make(row)


def _packed(chunk: _Chunk) -> bytes:
    indices = {topic: index for index, topic in enumerate(chunk.ranges)}
    parts: list[bytes] = []
    for time, topic, sequence, payload, properties in chunk.rows:
        parts += (_ROW.pack(time, indices[topic], sequence, len(payload), len(properties)), payload, properties)
    return b"".join(parts)


def _unpacked(data: bytes, topics: list[str]) -> list[_Row]:
    rows: list[_Row] = []
    at = 0
    while at < len(data):
        time, index, sequence, payload_bytes, properties_bytes = _ROW.unpack_from(data, at)
        middle = at + _ROW.size + payload_bytes
        at = middle + properties_bytes
        rows.append((time, topics[index], sequence, data[middle - payload_bytes : middle], data[middle:at]))
    return rows
