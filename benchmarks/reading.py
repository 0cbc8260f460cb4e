"""What reading back costs: records per second, and the memory that an export takes.

    python benchmarks/reading.py [--count 20000] [--rounds 3]

The baseline reads the same rows with `sqlite3` and `json` alone, without checksums, order or types. All sides read one
ledger in one process, in turns. Ratios count; absolute figures vary with the machine.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "parts")]

from figures import table  # noqa: E402
from ledgers import BEGAN, Source, make_ledger  # noqa: E402

from ether.reading.data import Data, Query  # noqa: E402
from ether.reading.export.exports import export  # noqa: E402

SOURCES = 4
FORMS = {"CSV": "x.csv", "Parquet": "x.parquet", "HDF5": "x.h5"}


def made(folder: Path, count: int) -> Path:
    """A ledger of so many small records of four sources."""
    sources = [Source(f"s{number}") for number in range(SOURCES)]
    for number in range(count):
        value = {"celsius": number / 10, "n": number, "stage": {"x": number, "y": 2}}
        sources[number % SOURCES].add("room", value, BEGAN + number / 100)
    return make_ledger(folder, sources)


def plain(folder: Path) -> None:
    """The baseline."""
    with sqlite3.connect(folder / "ledger.db") as database:
        for (payload,) in database.execute("SELECT payload FROM records ORDER BY row"):
            json.loads(payload)
    database.close()


def ways(folder: Path, target: Path) -> Mapping[str, Callable[[], object]]:
    """All sides, the baseline first."""
    data = Data(folder, Query())
    exports = {form: (lambda name=name: export(data, target / name)) for form, name in FORMS.items()}
    return {
        "sqlite3 and json alone": lambda: plain(folder),
        "iterating": lambda: sum(1 for _ in data),
        "to_pandas()": data.to_pandas,
        **exports,
    }


def rates(folder: Path, target: Path, count: int, rounds: int) -> dict[str, float]:
    """Records per second, the median of the rounds."""
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds + 1):  # the first loads the libraries
        for name, way in ways(folder, target).items():
            began = time.perf_counter()
            way()
            seconds.setdefault(name, []).append(time.perf_counter() - began)
    return {name: count / statistics.median(taken[1:]) for name, taken in seconds.items()}


def peak_mb(folder: Path, target: Path, form: str) -> float:
    """The most that Python's own memory grows by while a file is written."""
    tracemalloc.start()
    try:
        export(Data(folder, Query()), target / FORMS[form])
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder)
        small, large = made(target / "small", asked.count), made(target / "large", 4 * asked.count)
        found = rates(small, target, asked.count, asked.rounds)
        base = next(iter(found.values()))
        rows = [(name, f"{rate:,.0f}", f"{rate / base:.2f}") for name, rate in found.items()]
        table(f"Records per second, of {asked.count:,}", ("way", "records/s", "ratio"), rows)
        memory = []
        for form in FORMS:
            few, many = (peak_mb(ledger, target, form) for ledger in (small, large))
            memory.append((form, f"{few:.1f}", f"{many:.1f}", f"{many / few:.2f}"))
        table("Memory of an export, MB", ("form", f"{asked.count:,}", f"{4 * asked.count:,}", "ratio"), memory)


if __name__ == "__main__":
    main()
