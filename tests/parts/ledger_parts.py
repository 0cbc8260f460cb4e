"""Entries and ledgers for tests."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from patience import patience

from ether.ledger.reader import LedgerReader, RecordFilter, StoredRecord
from ether.ledger.writer import LedgerWriter
from ether.wire.entries import Batch, Entry, Kind

OUTBOX = "ab" * 8
OTHER = "cd" * 8
NOW = 1_700_000_000.25


def message_id(number: int) -> str:
    """An id as messages have it."""
    return f"0192f0c1-0000-7000-8000-{number:012x}"


def entry(
    number: int, kind: Kind = "data", topic: str = "camera/frame", *, payload: bytes | None = None,
    parents: tuple[str, ...] = (), more: Mapping[str, object] | None = None, entry_id: str | None = None,
    context: str = "",
) -> Entry:  # fmt: skip
    """An entry of an outbox."""
    body = b'{"frame":%d}' % number if payload is None else payload
    told = message_id(number) if entry_id is None else entry_id
    content_type = "application/json" if payload is None else "application/octet-stream"
    return Entry(number, kind, topic, told, number, NOW + number, parents, context, content_type, body, more or {})


def content(number: int, payload: bytes, kind: Kind = "context") -> Entry:
    """A context or artifact."""
    return entry(number, kind, "", payload=payload, entry_id=hashlib.sha256(payload).hexdigest())


def gap(number: int, first: int, last: int, why: str, topics: Mapping[str, object] | None = None) -> Entry:
    """Numbers that were given up."""
    more = {"first": first, "last": last, "why": why, "topics": topics or {}}
    return entry(number, "gap", "", payload=b"", entry_id="", more=more)


def batch(*entries: Entry, outbox: str = OUTBOX, source: str = "camera", head: int = 0) -> Batch:
    """A batch of an outbox; `head` is at least the last entry's number."""
    return Batch(outbox, source, max([head, *(e.number for e in entries)]), entries)


def run_of(first: int, last: int) -> Batch:
    """A batch of ordinary entries."""
    return batch(*map(entry, range(first, last + 1)))


def stored(folder: Path) -> list[StoredRecord]:
    """Everything that is in a ledger."""
    with LedgerReader.open(folder) as reader:
        return list(reader.records(RecordFilter(kinds=())))


@contextmanager
def under_load(writer: LedgerWriter) -> Iterator[None]:
    """Entries of `OTHER` are appended within the block, and volumes are closed."""
    enough, failed = threading.Event(), []

    def load() -> None:
        try:
            for turn in count():
                first = writer.highest(OTHER) + 1
                rows = [entry(n)._replace(time=NOW + 10**6 + n) for n in range(first, first + 20)]
                writer.append([batch(*rows, outbox=OTHER, source="pump")], NOW)
                if turn % 10 == 9:
                    writer.rotate(NOW)
                if enough.wait(0.03):  # or the ledger, all of which is verified after each kill, grows too fast
                    return
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join(patience(20))
    assert failed == []
