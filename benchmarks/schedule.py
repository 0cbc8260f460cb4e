"""How far from its time a polled method begins: `ether_every` beside a bare loop with `time.sleep`, in turns.

python benchmarks/schedule.py [seconds]
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable

from ether.runtime.ticks import Ticker
from ether.runtime.worker import Worker

RATES_HZ = (10, 100, 1000)


class _Tick:
    def __init__(self, times: list[float], finish: Callable[[bool], None]) -> None:
        self._times, self._finish = times, finish

    def run(self) -> None:
        self._times.append(time.monotonic())
        self._finish(True)

    def failed(self, error: BaseException) -> None:
        raise error


def by_ether(rate_hz: int, seconds: float) -> tuple[float, list[float], int]:
    """When each tick began, on a worker's thread, and how many were missed."""
    times: list[float] = []
    worker = Worker()
    worker.start()
    ticker = Ticker(
        "bench", [("read", f"{rate_hz}Hz")], lambda _, __, finish: worker.submit(_Tick(times, finish)),
        logging.getLogger("bench"),
    )  # fmt: skip
    begin = time.monotonic()
    ticker.start()
    threading.Event().wait(seconds)
    ticker.stop()
    worker.stop()
    worker.join()
    return begin, times, ticker.missed["read"]


def by_hand(rate_hz: int, seconds: float) -> tuple[float, list[float], int]:
    """The same in a loop that sleeps until the next time on the grid."""
    times: list[float] = []
    begin = time.monotonic()
    for number in range(int(seconds * rate_hz)):
        time.sleep(max(0.0, begin + number / rate_hz - time.monotonic()))
        times.append(time.monotonic())
    return begin, times, 0


def jitter_us(begin: float, times: list[float], rate_hz: int) -> tuple[float, float]:
    """p50 and p99 of how late each began, on the grid that began at `begin`; in µs. More than a period counts as less:
    that is what the number of missed ones is for."""
    late = sorted((now - begin) % (1 / rate_hz) * 1e6 for now in times)
    return late[len(late) // 2], late[int(len(late) * 0.99)]


def main() -> None:
    """Print the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    print(f"{'rate':>8} {'':>10} {'p50':>9} {'p99':>9} {'missed':>7}")
    for rate in RATES_HZ:
        found = {}
        for name, run in (("bare loop", by_hand), ("ether", by_ether)):
            begin, times, missed = run(rate, seconds)
            found[name] = jitter_us(begin, times, rate)
            print(f"{rate:>5} Hz {name:>10} {found[name][0]:>6.0f} µs {found[name][1]:>6.0f} µs {missed:>7}")
        ratios = [own / bare for own, bare in zip(found["ether"], found["bare loop"], strict=True)]
        print(f"{'':>8} {'ratio':>10} " + " ".join(f"{ratio:>8.1f}×" for ratio in ratios))


if __name__ == "__main__":
    main()
