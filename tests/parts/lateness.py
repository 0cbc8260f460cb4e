"""How late this machine is, so that a test which measures a delay does not measure the machine's other work."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from types import TracebackType


class Lateness:
    """How much time the machine takes from threads of this process that wait just as callers do and want to run: its
    own share of any delay."""

    TICK_S, THREADS = 0.005, 3

    def __init__(self) -> None:
        self._over = threading.Event()
        self._samples: list[list[tuple[float, float]]] = [[] for _ in range(self.THREADS)]
        self._threads = [
            threading.Thread(target=self._run, args=(samples,), name="lateness") for samples in self._samples
        ]

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
