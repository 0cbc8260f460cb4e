"""A physiology stream, 8 channels at 1 kHz, one message for each reading, recorded: what is on disk in the end, and how
regularly it was read, beside a bare loop that writes the same to a file.

python benchmarks/stream.py [seconds] [engine]

The amplifier has a clock and a buffer of its own, as such devices have: a reading gives all samples since the one
before. So a late reading loses nothing, and shows as jitter. What is lost on the way to the disk shows as a gap. Every
sample on disk is compared with the one that the amplifier had made.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from ether import Ether, ether_every, ether_get, ether_pub, ether_start

RATE_HZ = 1000
CHANNELS = 8
SYNC_S = 0.1
"""How often the bare loop brings its file to disk."""


def signal(first: int, count: int) -> np.ndarray:
    """The samples from number `first` on: (count, 8) float64."""
    numbers = np.arange(first, first + count)[:, None]
    return np.sin(numbers * 0.01 * np.arange(1, CHANNELS + 1)) + numbers


class Amplifier:
    """Takes samples by its own clock from `begin` on, for some seconds."""

    def __init__(self, seconds: float) -> None:
        self._all = int(seconds * RATE_HZ)
        self._began = 0.0
        self._read = 0

    @ether_start
    def begin(self) -> None:
        self._began = time.monotonic()

    @ether_every(f"{RATE_HZ}Hz")
    def poll(self) -> None:
        if self._began and (until := self.due(time.monotonic())) > self._read:
            self.reading(until)

    def due(self, now: float) -> int:
        """How many samples it has taken by now."""
        return min(self._all, int((now - self._began) * RATE_HZ))

    @ether_pub(topic="samples")
    def reading(self, until: int) -> dict[str, object]:
        """All samples that were not read yet."""
        first, self._read = self._read, until
        since = time.monotonic() - self._began
        return {"first": first, "since": since, "samples": signal(first, until - first)}

    @ether_get
    def over(self) -> bool:
        """True when all has been read."""
        return self._read == self._all


Readings = list[tuple[int, float, np.ndarray]]
"""Of each: the number of its first sample, seconds since the beginning, the samples."""


def recorded(seconds: float, engine: str, folder: Path) -> Readings:
    """By Ether: what the ledger has."""
    ether = Ether()
    kept = folder / "ledger"
    config = {
        "broker": {"engine": engine},
        "record": {"topics": ["samples"], "folder": str(kept)},
        "instances": {"amplifier": {"class_path": "stream.Amplifier", "args": [seconds]}},
    }
    with ether.tap(config):
        ether.start()
        pause = threading.Event()
        pause.wait(seconds)
        while not ether.get("amplifier", "over"):
            pause.wait(0.05)
    found = [record.value for record in ether.data(folder=kept, topic="samples")]
    return [(value["first"], value["since"], value["samples"]) for value in found]


def by_hand(seconds: float, folder: Path) -> Readings:
    """In one loop that sleeps until the next time on the grid."""
    found: Readings = []
    amplifier, number, read = Amplifier(seconds), 0, 0
    amplifier.begin()
    began = synced = time.monotonic()
    with (folder / "samples").open("wb") as file:
        while not amplifier.over():
            number = max(number, int((time.monotonic() - began) * RATE_HZ)) + 1
            time.sleep(max(0.0, began + number / RATE_HZ - time.monotonic()))
            now = time.monotonic()
            if (until := amplifier.due(now)) > read:
                value, read = amplifier.reading(until), until
                file.write(value["samples"].tobytes())
                found.append((value["first"], value["since"], value["samples"]))
            if now - synced >= SYNC_S:
                file.flush()
                os.fsync(file.fileno())
                synced = now
    return found


def gaps(readings: Readings) -> tuple[int, int, int]:
    """Samples on disk, samples that are missing or there twice, samples that differ from what was taken."""
    held = np.concatenate([np.arange(first, first + len(samples)) for first, _, samples in readings])
    wrong = sum(not np.array_equal(samples, signal(first, len(samples))) for first, _, samples in readings)
    return len(held), int(np.count_nonzero(np.diff(held) != 1)) + int(held[0] != 0), wrong


def row(name: str, seconds: float, readings: Readings, cpu_s: float) -> str:
    """One line of the table."""
    held, holes, wrong = gaps(readings)
    missing = int(seconds * RATE_HZ) - held
    between = np.diff([since for _, since, _ in readings]) * 1e3
    p50, p99 = np.percentile(np.abs(between - 1e3 / RATE_HZ), [50, 99]) * 1e3
    return (
        f"{name:>10} {held:>8} {missing:>8} {holes:>5} {wrong:>6} {len(readings):>9} "
        f"{p50:>6.0f} µs {p99:>6.0f} µs {between.max():>7.1f} ms {cpu_s / seconds * 100:>6.0f} %"
    )


def cpu_s() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    """Print the table; the exit code is 1 where a sample is not on disk."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    engine = sys.argv[2] if len(sys.argv) > 2 else "auto"
    print(f"{CHANNELS} channels at {RATE_HZ} Hz for {seconds:g} s; jitter: of the time between two readings")
    print(f"{'':>10} {'samples':>8} {'missing':>8} {'gaps':>5} {'wrong':>6} {'readings':>9} "
          f"{'p50':>9} {'p99':>9} {'longest':>10} {'cpu':>8}")  # fmt: skip
    whole = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label, run in (
            ("bare loop", lambda: by_hand(seconds, folder)),
            ("ether", lambda: recorded(seconds, engine, folder)),
        ):
            before = cpu_s()
            readings = run()
            print(row(label, seconds, readings, cpu_s() - before), flush=True)
            whole = whole and gaps(readings) == (int(seconds * RATE_HZ), 0, 0)
    sys.exit(not whole)


if __name__ == "__main__":
    main()
