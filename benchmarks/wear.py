"""What saving writes to a card: bytes written and syncs for each saved value, beside bare SQLite.

    python benchmarks/wear.py [--sizes 64 1000 100000] [--rates 1 10 100] [--seconds 15] [--engine amqtt] [--folder DIR]

One program saves values of a size at a steady rate; the recorder writes them. Four sides: as it comes, with
`record: {sync_every_s: 1}` and `5` (the saving mode for cards), and bare SQLite (WAL, synchronous=FULL, one row and one
commit for each value). Counted are the bytes that the kernel has to write for both processes (`write_bytes` of
/proc/PID/io, without what was taken back before it was written), those that are still in a write-ahead log and will be
copied into the database (each block of 4 kB once), and the syncs (fsync and fdatasync, counted by strace; "-" where
that is not installed). The folder has to be on a real disk: a memory disk writes nothing. Linux only.

The figures are those of a steady state: the first seconds, with the explanations of the programs, are left out.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from figures import table  # noqa: E402

from ether import Ether  # noqa: E402

WARM_S = 5.5
SIDES = {"ether": 0.0, "sync_every_s: 1": 1.0, "sync_every_s: 5": 5.0, "bare SQLite": None}
BLOCK = 4096
Save = Callable[[int], object]


def written(pids: list[int]) -> int:
    """Bytes that the kernel has to write for these processes."""
    total = 0
    for pid in pids:
        facts = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
        total += int(facts["write_bytes"]) - int(facts["cancelled_write_bytes"])
    return total


def in_logs(folder: Path) -> int:
    """Bytes of the blocks of databases that have to be written when their logs are copied."""
    return BLOCK * sum(len(set(blocks_in(path.read_bytes()))) for path in folder.rglob("*-wal"))


def blocks_in(log: bytes) -> Iterator[int]:
    """The block of the database that each frame of the log's present round belongs to (see `ether.ledger.wal`)."""
    if not log:
        return
    page_bytes, salts = struct.unpack_from(">I", log, 8)[0], log[16:24]
    for at in range(32, len(log) - 24, 24 + page_bytes):
        if log[at + 8 : at + 16] == salts:
            yield (struct.unpack_from(">I", log, at)[0] - 1) * page_bytes // BLOCK


class Syncs:
    """Counts the syncs of processes."""

    def __init__(self, pids: list[int], folder: Path) -> None:
        self._file = folder / "syncs"
        self._strace = None
        if shutil.which("strace"):
            attach = [word for pid in pids for word in ("-p", str(pid))]
            command = ["strace", "-f", "-q", "-e", "trace=fsync,fdatasync,sync,syncfs", "-o", str(self._file), *attach]
            self._strace = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def stop(self) -> int | None:
        """How many there were; None where they cannot be counted."""
        if self._strace is None:
            return None
        self._strace.send_signal(signal.SIGINT)
        self._strace.wait(10)
        return len(re.findall(r"^\d+ +(?:fsync|fdatasync|sync|syncfs)\(", self._file.read_text(), re.MULTILINE))


def steadily(save: Save, rate: float, seconds: float, size: int, pids: list[int], folder: Path) -> tuple[float, float]:
    """Save at a rate; returns the bytes written for each byte of a value, and the syncs a second."""
    pause, numbers = threading.Event(), count(0)

    def run(for_s: float) -> int:
        begin, n = time.monotonic(), 0
        while (due := begin + n / rate) < begin + for_s:
            pause.wait(max(0.0, due - time.monotonic()))
            save(next(numbers))
            n += 1
        return n

    run(WARM_S)
    before, syncs, began = written(pids) + in_logs(folder), Syncs(pids, folder), time.monotonic()
    saved = run(seconds)
    took, counted = time.monotonic() - began, syncs.stop()
    wrote = written(pids) + in_logs(folder) - before
    return wrote / (saved * size), float("nan") if counted is None else counted / took


@contextmanager
def ether_side(folder: Path, size: int, engine: str, **record: float) -> Iterator[tuple[Save, list[int]]]:
    """A session of this program and a recorder."""
    own = Ether()
    broker = {"engine": engine}
    own.tap({"broker": broker, "record": {"topics": [], "folder": str(folder / "led"), "logs": False, **record}})
    payload = os.urandom(size)
    try:
        own.record(payload, "v").wait(timeout_s=20)
        recorder = next(it["pid"] for it in own.instances() if it["name"] == "recorder")
        # Each value is another one: payloads of one content would be stored once.
        yield lambda n: own.record(n.to_bytes(8, "big") + payload[8:], "v"), [os.getpid(), int(recorder)]
    finally:
        own.shutdown()


@contextmanager
def sqlite_side(folder: Path, size: int) -> Iterator[tuple[Save, list[int]]]:
    """What one writes by hand."""
    database = sqlite3.connect(folder / "bare.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE v (id TEXT PRIMARY KEY, time REAL, payload BLOB)")
    payload = os.urandom(size)

    def save(n: int) -> None:
        row = (os.urandom(16).hex(), time.time(), n.to_bytes(8, "big") + payload[8:])
        database.execute("INSERT INTO v VALUES (?, ?, ?)", row)

    yield save, [os.getpid()]
    database.close()


def measured(side: str, size: int, rate: float, arguments: argparse.Namespace) -> tuple[float, float]:
    """One cell of the table."""
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        os.environ["XDG_STATE_HOME"] = str(folder / "state")  # the outboxes are on the same disk
        every_s = SIDES[side]
        if every_s is None:
            opened = sqlite_side(folder, size)
        else:
            record = {"sync_every_s": every_s} if every_s else {}
            opened = ether_side(folder, size, arguments.engine, **record)
        with opened as (save, pids):
            return steadily(save, rate, arguments.seconds, size, pids, folder)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 1000, 2000, 10_000, 100_000])
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 10.0, 100.0])
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--engine", default="amqtt")
    parser.add_argument("--folder", default=str(Path.home()), help="on the disk that is to be measured")
    arguments = parser.parse_args()
    rows = []
    for size in arguments.sizes:
        for rate in arguments.rates:
            cells = [measured(side, size, rate, arguments) for side in SIDES]
            figures = [text for times, syncs in cells for text in (f"{times:.1f} ×", f"{syncs:.1f}")]
            rows.append([f"{size:,} B", f"{rate:g} a second", *figures])
            print(*rows[-1], flush=True)
    header = ["value", "rate", *(f"{side}: {what}" for side in SIDES for what in ("bytes / size", "syncs / s"))]
    table(f"Bytes written and syncs, {arguments.seconds:g} s each", header, rows)


if __name__ == "__main__":
    main()
