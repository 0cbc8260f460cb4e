"""Durable saves per second, acknowledged end to end, beside bare SQLite; and what recording costs a pipeline.

    python benchmarks/saving.py [--engine mosquitto|amqtt] [--count 20000] [--rounds 5] [--messages 10000]

A save counts when `wait()` has returned: on disk at the recorder, synced. The baseline is one process that writes the
same bytes to SQLite with synchronous=FULL, in the same groups, on the same disk and in the same run. The pipeline
is program → processor → collector, three processes, at full rate, with `record: all` and without, in turns. Ratios
count; absolute figures vary with the machine.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "parts")]

from figures import PAD, median, table  # noqa: E402
from running_brokers import RunningBroker, running_broker  # noqa: E402

from ether import Ether, ether_pub, ether_sub  # noqa: E402
from ether.wire.codec import encode  # noqa: E402

GROUP = 500
WARM_UP = 50


class Doubler:
    """The middle of the pipeline."""

    @ether_sub(topic="numbers")
    @ether_pub(topic="doubled")
    def double(self, n: int, pad: str) -> dict[str, object]:
        return {"n": 2 * n, "pad": pad}


class Counter:
    """Its end; tells how fast messages came, when all have."""

    def __init__(self, count: int) -> None:
        self.count, self.seen, self.began = count, 0, 0.0

    @ether_sub(topic="doubled")
    def take(self, n: int, pad: str) -> None:
        self.seen += 1
        if self.seen == 1:
            self.began = time.monotonic()
        if self.seen == self.count:
            from ether import ether

            ether.pub(self.count / (time.monotonic() - self.began), topic="figures")


def values(count: int) -> Iterator[dict[str, object]]:
    for n in range(count):
        yield {"n": n, "pad": PAD}


def figures_of(count: int, seconds: float, singles_s: list[float]) -> dict[str, float]:
    singles_s.sort()
    p50, p99 = singles_s[len(singles_s) // 2], singles_s[int(len(singles_s) * 0.99)]
    return {"grouped": count / seconds, "single": len(singles_s) / sum(singles_s),
            "p50_ms": p50 * 1000, "p99_ms": p99 * 1000}  # fmt: skip


def by_sqlite(folder: Path, count: int, singles: int) -> dict[str, float]:
    """One process, one table, synchronous=FULL."""
    with closing(sqlite3.connect(folder / f"bare{time.monotonic_ns()}.db", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE records (row INTEGER PRIMARY KEY, payload BLOB)")

        def save(rows: list[bytes]) -> None:
            database.execute("BEGIN")
            database.executemany("INSERT INTO records (payload) VALUES (?)", [(row,) for row in rows])
            database.execute("COMMIT")

        began, group = time.perf_counter(), []
        for value in values(count):
            group.append(encode(value).payload)
            if len(group) == GROUP:
                save(group)
                group = []
        seconds = time.perf_counter() - began
        return figures_of(count, seconds, timed(singles, lambda value: save([encode(value).payload])))


def timed(count: int, save: Callable[[dict[str, object]], object]) -> list[float]:
    spent = []
    for value in values(count):
        began = time.perf_counter()
        save(value)
        spent.append(time.perf_counter() - began)
    return spent


def by_ether(ether: Ether, count: int, singles: int) -> dict[str, float]:
    """Through outbox, broker, recorder and back."""
    timed(WARM_UP, lambda value: ether.record(value, "warm").wait())
    began, group = time.perf_counter(), []
    for value in values(count):
        group.append(ether.record(value, "bench"))
        if len(group) == GROUP:
            group[-1].wait()
            group = []
    seconds = time.perf_counter() - began
    return figures_of(count, seconds, timed(singles, lambda value: ether.record(value, "bench").wait()))


def unbroken(ether: Ether, count: int) -> float:
    """Saves per second of a program that waits for none but the last."""
    began = time.perf_counter()
    for value in values(count):
        last = ether.record(value, "bench")
    last.wait(120)
    return count / (time.perf_counter() - began)


WAYS: dict[str, dict[str, Any] | None] = {
    "not recorded": None,
    "record: all": {"topics": "all"},
    "and strangers": {"topics": "all", "strangers": True},
}


def through_pipeline(engine: str, folder: Path, count: int, recording: dict[str, Any] | None) -> float:
    """Messages per second at the pipeline's end, on the session's own broker."""
    instances = {
        "doubler": {"class_path": "saving.Doubler"},
        "counter": {"class_path": "saving.Counter", "args": [count]},
    }
    place = {"folder": str(folder / f"pipe{time.monotonic_ns()}")}
    record = {} if recording is None else {"record": {**recording, **place}}
    ether = Ether()
    lab = {"instances": instances, **record}
    with ether.tap(lab, broker={"engine": engine}), ether.subscribe("figures") as figures:
        for value in values(count):
            ether.pub(value, topic="numbers")
        rate = figures.get(timeout_s=120).value
    assert isinstance(rate, float)
    return rate


@contextmanager
def recorded_session(broker: RunningBroker, folder: Path) -> Iterator[Ether]:
    ether = Ether()
    with ether.tap({"record": {"topics": [], "folder": str(folder / "ledger")}}, broker=broker.url_tcp):
        yield ether


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--engine", default="mosquitto", choices=["mosquitto", "amqtt"])
    options.add_argument("--count", type=int, default=20_000)
    options.add_argument("--singles", type=int, default=300)
    options.add_argument("--messages", type=int, default=10_000)
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="ether-bench-") as name, running_broker(given.engine) as broker:
        folder = Path(name)
        for variable in ("XDG_STATE_HOME", "XDG_DATA_HOME"):
            os.environ[variable] = str(folder / variable)
        saves(broker, folder, given)
    with tempfile.TemporaryDirectory(prefix="ether-bench-") as name:
        pipeline(Path(name), given)


def saves(broker: RunningBroker, folder: Path, given: argparse.Namespace) -> None:
    bare: list[dict[str, Any]] = []
    ours: list[dict[str, Any]] = []
    with recorded_session(broker, folder) as ether:
        for _ in range(given.rounds):
            bare.append(by_sqlite(folder, given.count, given.singles))
            ours.append({**by_ether(ether, given.count, given.singles), "unbroken": unbroken(ether, given.count)})
    names = {"grouped": f"saves/s in groups of {GROUP}", "single": "saves/s one by one",
             "p50_ms": "one save, p50 ms", "p99_ms": "one save, p99 ms"}  # fmt: skip
    rows = []
    for key, name in names.items():
        theirs, own = median(bare, key), median(ours, key)
        rows.append([name, f"{theirs:,.1f}", f"{own:,.1f}", f"{own / theirs:.2f}"])
    rate = median(ours, "unbroken")
    rows.append(["saves/s, waiting for the last only", "", f"{rate:,.1f}", f"{rate / median(bare, 'grouped'):.2f}"])
    title = f"{given.engine}, 64-byte values, {given.rounds} rounds, medians"
    table(title, ["figure", "bare SQLite, FULL", "Ether", "ratio"], rows)


def pipeline(folder: Path, given: argparse.Namespace) -> None:
    rates: list[dict[str, Any]] = [
        {way: through_pipeline(given.engine, folder, given.messages, recording) for way, recording in WAYS.items()}
        for _ in range(given.rounds)
    ]
    plain = median(rates, "not recorded")
    rows = [[way, f"{median(rates, way):,.0f}", f"{median(rates, way) / plain:.2f}"] for way in WAYS]
    table("A pipeline at full rate: messages/s at its end", ["recording", given.engine, "ratio"], rows)


if __name__ == "__main__":
    main()
