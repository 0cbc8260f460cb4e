"""What keeping costs: entries per second into a ledger, beside bare SQLite in the same run.

    python benchmarks/ledger.py [--count 50000] [--group 500] [--singles 300] [--rounds 5] [--folder DIR]

Baselines, all in WAL mode with synchronous=FULL and as many entries in a transaction:

    bare SQLite    what one writes by hand: one table of the same fields, the message's id as its key
    four columns   the floor: id, topic, time and payload, no index; such a table finds nothing again
    same tables    the ledger's own tables and indexes, without checksums, chain, head file and acceptance

The sides take turns. Ratios count; absolute figures are those of the machine and its disk.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from figures import PAD, median, table  # noqa: E402

from ether.ledger import schema as ledger_schema  # noqa: E402
from ether.ledger.reader import LedgerReader  # noqa: E402
from ether.ledger.verify import verify  # noqa: E402
from ether.ledger.writer import LedgerWriter  # noqa: E402
from ether.wire.entries import Batch, Entry  # noqa: E402

OUTBOX = "ab" * 8
CONTEXT = "c" * 64
Append = Callable[[Sequence[Entry]], object]


def entries(count: int) -> list[Entry]:
    """Messages of about 64 bytes, as a process has them in its outbox."""
    now = time.time()
    return [
        Entry(
            number, "data", "camera/frame", f"0192f0c1-0000-7000-8000-{number:012x}", number, now + number / 1000,
            (), CONTEXT, "application/json", b'{"frame":%d,"exposure":0.01,"pad":"%s"}' % (number, PAD.encode()),
            {"run": "r1"},
        )
        for number in range(1, count + 1)
    ]  # fmt: skip


@contextmanager
def ledger(folder: Path) -> Iterator[Append]:
    """The real one."""
    writer = LedgerWriter.open(folder, "bench")
    yield lambda group: writer.append([Batch(OUTBOX, "camera", group[-1].number, tuple(group))], time.time())
    writer.close()


def _sqlite(folder: Path) -> sqlite3.Connection:
    folder.mkdir()
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


FIELDS = (
    "outbox TEXT, number INTEGER, kind TEXT, topic TEXT, id TEXT PRIMARY KEY, source TEXT, seq INTEGER, time REAL,"
    " received REAL, run TEXT, parents TEXT, context TEXT, content_type TEXT, more TEXT, payload BLOB"
)


@contextmanager
def by_hand(folder: Path) -> Iterator[Append]:
    """One table of the same fields."""
    connection = _sqlite(folder)
    connection.execute(f"CREATE TABLE messages ({FIELDS})")

    def append(group: Sequence[Entry]) -> None:
        now = time.time()
        connection.execute("BEGIN IMMEDIATE")
        rows = [
            (OUTBOX, e.number, e.kind, e.topic, e.id, "camera", e.seq, e.time, now, e.more.get("run"),
             json.dumps(e.parents), e.context, e.content_type, json.dumps(e.more), e.payload)
            for e in group
        ]  # fmt: skip
        connection.executemany(f"INSERT INTO messages VALUES ({', '.join('?' * 15)})", rows)
        connection.execute("COMMIT")

    yield append
    connection.close()


@contextmanager
def four_columns(folder: Path) -> Iterator[Append]:
    """One table, no index."""
    connection = _sqlite(folder)
    connection.execute("CREATE TABLE messages (row INTEGER PRIMARY KEY, id TEXT, topic TEXT, time REAL, payload BLOB)")

    def append(group: Sequence[Entry]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        rows = [(entry.id, entry.topic, entry.time, entry.payload) for entry in group]
        connection.executemany("INSERT INTO messages (id, topic, time, payload) VALUES (?, ?, ?, ?)", rows)
        connection.execute("COMMIT")

    yield append
    connection.close()


@contextmanager
def same_tables(folder: Path) -> Iterator[Append]:
    """The ledger's columns and indexes, filled with what an entry says and nothing that proves it."""
    connection = _sqlite(folder)
    ledger_schema.create(connection, {})
    nothing = bytes(32)

    def append(group: Sequence[Entry]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        rows = [
            (None, 1, e.number, e.id, e.seq, e.time, e.time, "[]", '{"run":"r1"}', len(e.payload), None, e.payload,
             nothing, nothing)
            for e in group
        ]  # fmt: skip
        connection.executemany(f"INSERT INTO records VALUES ({', '.join('?' * 14)})", rows)
        connection.execute("COMMIT")

    yield append
    connection.close()


SIDES = {"bare SQLite": by_hand, "ledger": ledger, "four columns": four_columns, "same tables": same_tables}


def rate(side: str, told: Sequence[Entry], group: int, folder: Path) -> float:
    """Entries per second."""
    with SIDES[side](folder) as append:
        began = time.perf_counter()
        for at in range(0, len(told), group):
            append(told[at : at + group])
        return len(told) / (time.perf_counter() - began)


def compare(title: str, told: Sequence[Entry], group: int, rounds: int, folder: Path) -> None:
    """One table: every side in turn, several times."""
    measured: list[dict[str, float]] = []
    for number in range(rounds):
        order = list(SIDES)[number % len(SIDES) :] + list(SIDES)[: number % len(SIDES)]
        measured.append({side: rate(side, told, group, folder / f"{group}-{number}-{side[-4:]}") for side in order})
    base = median(measured, "bare SQLite")
    rows = []
    for side in SIDES:
        ratio = sorted(row[side] / row["bare SQLite"] for row in measured)[rounds // 2]
        per_s = median(measured, side)
        rows.append([side, f"{per_s:,.0f}", f"{1e6 / per_s:.1f}", f"{ratio:.2f}"])
    table(f"{title} (median of {rounds}; base {base:,.0f}/s)", ["side", "entries/s", "µs each", "of bare"], rows)


def read_back(told: Sequence[Entry], folder: Path) -> None:
    """What reading and verifying cost."""
    with ledger(folder) as append:
        for at in range(0, len(told), 500):
            append(told[at : at + 500])
    began = time.perf_counter()
    with LedgerReader.open(folder) as reader:
        count = sum(1 for _ in reader.records())
    read_s = time.perf_counter() - began
    began = time.perf_counter()
    assert verify(folder).ok
    verify_s = time.perf_counter() - began
    rows = [["read", f"{read_s / count * 1e6:.1f}"], ["verified", f"{verify_s / count * 1e6:.1f}"]]
    table(f"{count:,} entries of a sealed ledger", ["", "µs each"], rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--group", type=int, default=500)
    parser.add_argument("--singles", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", default=None, help="on the disk to be measured")
    given = parser.parse_args()
    told = entries(given.count)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        compare(f"{given.group} entries in a transaction", told, given.group, given.rounds, Path(folder))
        compare("One entry in a transaction", told[: given.singles], 1, given.rounds, Path(folder))
        read_back(told, Path(folder) / "read")


if __name__ == "__main__":
    main()
