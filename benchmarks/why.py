"""How long `ether why` takes, as a user runs it, in ledgers of a hundred thousand records.

    python benchmarks/why.py [--records 100000] [--rounds 5]

Three ledgers, each of so many records, made here by the ledger's own writer:

    pipeline   rounds of five messages: start, value, two results, a summary over both
    fan        one `start` that led to all the others, as a generator's loop makes it
    chain      each message led to the next, as in a control loop; the tree is followed for its first 1,000 steps

Printed are seconds of a whole command in a process of its own, medians over the rounds. The baselines are of the same
run: `ether --version`, which does nothing, and reading every record of the ledger once.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "parts")]

from figures import table  # noqa: E402

from ether.ledger.writer import LedgerWriter  # noqa: E402
from ether.provenance.context import InstanceFacts, make_context  # noqa: E402
from ether.wire.codec import JSON  # noqa: E402
from ether.wire.entries import Batch, Entry  # noqa: E402
from ether.wire.head import MessageIds  # noqa: E402

BATCH = 1_000
NOW = 1_750_000_000.0

Put = Callable[[str, tuple[str, ...], tuple[str, ...]], Entry]


def main() -> None:
    """Make the ledgers, ask them, print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--records", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for name, shape in SHAPES.items():
            folder = Path(place, name)
            topic = write(folder, shape, given.records)
            times = [measured(folder, topic) for _ in range(given.rounds)]
            asked, nothing, everything = (statistics.median(column) for column in zip(*times, strict=True))
            figures = (f"{asked:.3f}", f"{nothing:.3f}", f"{everything:.3f}", f"{asked / everything:.3f}")
            rows.append((name, f"{given.records:,}", *figures))
    header = ("ledger", "records", "ether why, s", "ether --version, s", "read all, s", "why / read all")
    table("ether why, of the last value", header, rows)


def measured(folder: Path, topic: str) -> tuple[float, float, float]:
    """Seconds of the question, of a command that does nothing, and of reading everything."""
    read = (
        "import sys; from ether.ledger.reader import LedgerReader as L, RecordFilter as F; from pathlib import Path\n"
    )
    read += "with L.open(Path(sys.argv[1])) as reader: print(sum(1 for _ in reader.records(F(kinds=()))))"
    ether = (sys.executable, "-m", "ether.cli.main")
    return (
        seconds(*ether, "why", topic, "--last", "--ledger", str(folder)),
        seconds(*ether, "--version"),
        seconds(sys.executable, "-c", read, str(folder)),
    )


def seconds(*command: str) -> float:
    """How long a command takes."""
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ, check=True)
    return time.perf_counter() - began


def write(folder: Path, shape: Callable[[Put], Iterator[Entry]], records: int) -> str:
    """A ledger of so many records; returns the topic whose last value is asked for."""
    context = make_context(InstanceFacts("maker", "birth", 1, "__main__"))
    ids = MessageIds(1)
    made = 0

    def put(topic: str, parents: tuple[str, ...], heard: tuple[str, ...] = ()) -> Entry:
        nonlocal made
        made += 1
        now = NOW + made / 1000
        more = {"run": "one", "heard": list(heard)}
        return Entry(
            0, "data", topic, ids.next(int(now * 1000)), made, now, parents, context.sha256, JSON, b'{"x":1}', more
        )

    ledger = LedgerWriter.open(folder, "bench")
    waiting = list(context.entries(NOW))
    number, topic = 0, ""
    for entry in shape(put):
        waiting.append(entry)
        topic = entry.topic
        if len(waiting) >= BATCH or made >= records:
            numbered = tuple(each._replace(number=number + n) for n, each in enumerate(waiting, 1))
            number += len(waiting)
            ledger.append([Batch("ab" * 8, "maker", number, numbered)], NOW)
            waiting.clear()
        if made >= records and topic in ("summary", "value", "step"):
            break
    ledger.close()
    return topic


def pipeline(put: Put) -> Iterator[Entry]:
    """Rounds of five."""
    while True:
        yield (start := put("start", (), ()))
        yield (value := put("value", (start.id,), (start.id,)))
        yield (double := put("double", (value.id,), (value.id,)))
        yield (square := put("square", (value.id,), (value.id,)))
        yield put("summary", (square.id,), (double.id, square.id))


def fan(put: Put) -> Iterator[Entry]:
    """One start, and all else from it."""
    yield (start := put("start", (), ()))
    while True:
        yield put("value", (start.id,), ())


def chain(put: Put) -> Iterator[Entry]:
    """Each from the one before."""
    last: tuple[str, ...] = ()
    while True:
        yield (step := put("step", last, ()))
        last = (step.id,)


SHAPES = {"pipeline": pipeline, "fan": fan, "chain": chain}

if __name__ == "__main__":
    main()
