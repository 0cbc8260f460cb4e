"""How far from its time a polled method begins: `ether_every` beside a bare loop with `time.sleep`, in turns.

python benchmarks/schedule.py [seconds]

Both do not make up for what could not begin before the next one was due, and count it as missed. `stream.py` shows what
a whole session makes of 1,000 Hz.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable

from ether.connection.worker import Worker
from ether.instance.ticker import Ticker

RATES_HZ = (10, 100, 1000)
TURNS = 5


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
    number = missed = 0
    begin = time.monotonic()
    while number < int(seconds * rate_hz):
        time.sleep(max(0.0, begin + number / rate_hz - time.monotonic()))
        now = time.monotonic()
        latest = max(number, int((now - begin) * rate_hz))
        missed, number = missed + latest - number, latest + 1
        times.append(now)
    return begin, times, missed


def late_us(begin: float, times: list[float], rate_hz: int) -> list[float]:
    """How late each began, on the grid that began at `begin`."""
    return [(now - begin) % (1 / rate_hz) * 1e6 for now in times]


def in_turns(rate_hz: int, seconds: float) -> dict[str, tuple[float, float, float]]:
    """p50 and p99 of how late each began in µs, and how many of a thousand were missed, by who ran it."""
    late: dict[str, list[float]] = {name: [] for name in RUNS}
    missed = dict.fromkeys(RUNS, 0)
    for _ in range(TURNS):
        for name, run in RUNS.items():
            begin, times, lost = run(rate_hz, seconds / TURNS)
            late[name] += late_us(begin, times, rate_hz)
            missed[name] += lost
    return {name: figures(sorted(late[name]), missed[name]) for name in RUNS}


def figures(late: list[float], missed: int) -> tuple[float, float, float]:
    """p50, p99, missed of a thousand."""
    return late[len(late) // 2], late[int(len(late) * 0.99)], 1e3 * missed / (len(late) + missed)


RUNS: dict[str, Callable[[int, float], tuple[float, list[float], int]]] = {"bare loop": by_hand, "ether": by_ether}


def main() -> None:
    """Print the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    logging.getLogger("bench").setLevel(logging.ERROR)
    print(f"{'rate':>8} {'':>10} {'p50':>9} {'p99':>9} {'missed':>9}")
    for rate in RATES_HZ:
        found = in_turns(rate, seconds)
        for name, (p50, p99, missed) in found.items():
            print(f"{rate:>5} Hz {name:>10} {p50:>6.0f} µs {p99:>6.0f} µs {missed:>7.1f} ‰")
        ratios = [own / bare for own, bare in zip(found["ether"][:2], found["bare loop"][:2], strict=True)]
        print(f"{'':>8} {'ratio':>10} " + " ".join(f"{ratio:>8.1f}×" for ratio in ratios))


if __name__ == "__main__":
    main()
