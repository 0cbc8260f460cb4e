"""How late this machine is, so that a test which measures a delay does not measure the machine's other work: its
processors and, where the measured thing ends with a file that has to be on disk, its disk."""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from pathlib import Path
from types import TracebackType


class Lateness:
    """How much time the machine takes from threads of this process that wait just as callers do and want to run: its
    own share of any delay."""

    TICK_S, THREADS = 0.005, 3

    def __init__(self, disk: Path | None = None) -> None:
        """`disk`: a folder in which a small file is written and synced again and again."""
        self._over = threading.Event()
        self._syncs: list[tuple[float, float]] = []
        self._samples: list[list[tuple[float, float]]] = [[] for _ in range(self.THREADS)]
        self._threads = [
            threading.Thread(target=self._run, args=(samples,), name="lateness") for samples in self._samples
        ]
        if disk is not None:
            self._threads.append(threading.Thread(target=self._sync, args=(disk / "lateness",), name="lateness-disk"))

    def __enter__(self) -> Lateness:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, samples: list[tuple[float, float]]) -> None:
        while not self._over.is_set():
            due = time.monotonic() + self.TICK_S
            self._over.wait(self.TICK_S)
            samples.append((due, time.monotonic()))

    def _sync(self, path: Path) -> None:
        with path.open("wb") as file:
            while not self._over.wait(self.TICK_S):
                file.seek(0)
                file.write(os.urandom(4096))
                file.flush()
                began = time.monotonic()
                os.fsync(file.fileno())
                self._syncs.append((began, time.monotonic()))

    def syncing(self, start: float, end: float) -> float:
        """For how many seconds of that time the disk let a small file wait."""
        waits = [min(done, end) - max(began, start) for began, done in list(self._syncs)]
        return sum(wait for wait in waits if wait > 0)

    def between(self, start: float, end: float) -> float:
        """For how many seconds of that time a thread that waits was kept from running; of several the unluckiest."""
        return max(self._kept(samples, start, end) for samples in self._samples)

    @staticmethod
    def _kept(samples: list[tuple[float, float]], start: float, end: float) -> float:
        kept = 0.0
        for due, woke in samples[bisect_left(samples, start, key=lambda sample: sample[1]) :]:
            if due > end:
                break
            kept += woke - due
        return kept
