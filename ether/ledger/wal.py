"""What the write-ahead log of a database holds beyond its last commit: half-written transactions, named.

SQLite passes over such a tail without a word, which is right for its data and wrong for a report. The file's format:
https://www.sqlite.org/fileformat2.html#walformat. Promises: reads only; whatever the file holds, an answer.

The trap: behind the end of the log stand frames of its earlier rounds. They have other salts, and are nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ether.ledger.sqlite import WAL

_HEADER = struct.Struct(">IIIIIIII")
_FRAME = struct.Struct(">IIIIII")
_MAGIC = 0x377F0682
_ONES = 0xFFFFFFFF


class Tail(NamedTuple):
    """Bytes of the log that belong to no finished transaction."""

    file: str
    begin: int
    end: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}, bytes {self.begin:,} to {self.end:,}: {self.what}"


class _Frame(NamedTuple):
    at: int
    commit: bool
    current: bool
    """Of this round of the log."""
    whole: bool
    """Its checksum, and those of all before it, are right."""


def tails(folder: Path, name: str = WAL) -> list[Tail]:
    """The half-written ends in the log of a database, in order; none where there is no log."""
    try:
        log = (folder / name).read_bytes()
    except FileNotFoundError:
        return []
    if not log:
        return []
    if len(log) < _HEADER.size or not _is_header(log):
        return (
            [] if not any(log) else [Tail(name, 0, len(log), "the log's header is half-written: nothing in it counts")]
        )
    return list(_tails(name, log))


def _tails(name: str, log: bytes) -> Iterator[Tail]:
    page_bytes = _HEADER.unpack_from(log)[2]
    frame_bytes = _FRAME.size + page_bytes
    frames = list(_frames(log, page_bytes))
    committed = max((index for index, frame in enumerate(frames) if frame.whole and frame.commit), default=-1)
    after = frames[committed + 1 :]
    current = [frame for frame in after if frame.current]
    if not current:
        return
    whole, broken = [f for f in current if f.whole], [f for f in current if not f.whole]
    begin, end = current[0].at, current[-1].at + frame_bytes
    told = []
    if whole:
        told.append(f"{len(whole)} whole pages")
    if broken:
        told.append(f"{len(broken)} torn or unreadable ones")
    yield Tail(name, begin, min(end, len(log)), f"a transaction that was not finished: {' and '.join(told)}")


def _is_header(log: bytes) -> bool:
    magic, _, page_bytes, _, _, _, *checksum = _HEADER.unpack_from(log)
    sane = magic & ~1 == _MAGIC and 512 <= page_bytes <= 65536 and page_bytes & (page_bytes - 1) == 0
    return sane and [*_sum(log[:24], (0, 0), big=magic & 1)] == checksum


def _frames(log: bytes, page_bytes: int) -> Iterator[_Frame]:
    magic, *_, salt1, salt2, sum1, sum2 = _HEADER.unpack_from(log)
    running, whole = (sum1, sum2), True
    for at in range(_HEADER.size, len(log) - _FRAME.size + 1, _FRAME.size + page_bytes):
        _, size_after, *salts, frame1, frame2 = _FRAME.unpack_from(log, at)
        current = salts == [salt1, salt2]
        page = log[at + _FRAME.size : at + _FRAME.size + page_bytes]
        whole = whole and current and len(page) == page_bytes
        if whole:
            running = _sum(log[at : at + 8] + page, running, big=magic & 1)
            whole = running == (frame1, frame2)
        yield _Frame(at, size_after != 0, current, whole)


def _sum(data: bytes, before: tuple[int, int], *, big: int) -> tuple[int, int]:
    """SQLite's checksum of the log, over 32-bit words."""
    words = struct.unpack(f"{'>' if big else '<'}{len(data) // 4}I", data)
    one, two = before
    pairs = iter(words)
    for first, second in zip(pairs, pairs, strict=True):
        one = (one + first + two) & _ONES
        two = (two + second + one) & _ONES
    return one, two
