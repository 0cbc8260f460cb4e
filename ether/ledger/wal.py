"""Half-written transactions at the end of a database's write-ahead log.

SQLite ignores such a tail without a word, which is right for its data and wrong for a report. The file's format is at
https://www.sqlite.org/fileformat2.html#walformat: a header, then frames of one page each; a frame has the salts of the
header, and a checksum over all frames before it; a frame that ends a transaction has the size of the database.

Promises: the log is only read, and any content gets an answer. The trap: SQLite writes the log again from its beginning
after a checkpoint, with new salts. Frames of an earlier round then stand behind its end; they mean nothing.
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
    """Bytes of the log that belong to no finished transaction: from `begin` up to, and without, `end`."""

    file: str
    begin: int
    end: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}, bytes {self.begin:,} to {self.end:,}: {self.what}"


class _Frame(NamedTuple):
    at: int
    """Its first byte in the log."""
    commit: bool
    """Whether it ends a transaction."""
    current: bool
    """Whether it is of this round of the log: its salts are those of the header."""
    whole: bool
    """Whether its checksum and those of all frames before it are right."""


def tails(folder: Path, name: str = WAL) -> list[Tail]:
    """The half-written end of a database's log; none where there is no log, or the log ends with a commit."""
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
    # As SQLite reads it: the log counts up to the last whole frame that ends a transaction.
    committed = max((index for index, frame in enumerate(frames) if frame.whole and frame.commit), default=-1)
    after = frames[committed + 1 :]
    current = [frame for frame in after if frame.current]
    if not current:
        return
    whole, broken = [f for f in current if f.whole], [f for f in current if not f.whole]
    begin, end = current[0].at, current[-1].at + frame_bytes
    parts = []
    if whole:
        parts.append(f"{len(whole)} whole pages")
    if broken:
        parts.append(f"{len(broken)} torn or unreadable ones")
    yield Tail(name, begin, min(end, len(log)), f"a transaction that was not finished: {' and '.join(parts)}")


def _is_header(log: bytes) -> bool:
    """Whether the log begins with a whole header. The lowest bit of its magic number says whether the checksums read
    words as big-endian; the page size is a power of two."""
    magic, _, page_bytes, _, _, _, *checksum = _HEADER.unpack_from(log)
    sane = magic & ~1 == _MAGIC and 512 <= page_bytes <= 65536 and page_bytes & (page_bytes - 1) == 0
    return sane and [*_sum(log[:24], (0, 0), big=magic & 1)] == checksum


def _frames(log: bytes, page_bytes: int) -> Iterator[_Frame]:
    """The frames in order. `whole` stays false after the first frame that is not: each checksum goes on from the one
    before (`running`), so nothing behind a torn frame can be checked."""
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
    """SQLite's checksum of the log: over pairs of 32-bit words, going on from `before`."""
    words = struct.unpack(f"{'>' if big else '<'}{len(data) // 4}I", data)
    one, two = before
    pairs = iter(words)
    for first, second in zip(pairs, pairs, strict=True):
        one = (one + first + two) & _ONES
        two = (two + second + one) & _ONES
    return one, two
