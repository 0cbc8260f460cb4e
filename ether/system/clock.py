"""The clocks of this machine, and which of them to take.

    wall_time()      seconds since 1970, for people and records. It may be set at any moment, by years, in either
                     direction. No age, deadline or order of two events follows from it.
    time.monotonic   for ages and deadlines inside one process.
    uptime()         for ages that outlive a process: seconds since the machine was started, the time in which it was
                     asleep included. Two values can be compared only where `boot_id()` was the same for both.

Promise: `wall_time` costs what `time.time` costs, because it is that function. A test sets the wall clock of a process
(and of the processes that this one starts) by naming a file in the environment variable `ETHER_TEST_CLOCK`; the file
holds the seconds by which the clock is off. The variable is read once, when this module is imported.

The trap: Python's own `logging` and the file system have the true time even then.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

TEST_CLOCK = "ETHER_TEST_CLOCK"

_TOGETHER_S = 0.1
_TRIES = 5


def _stepped_clock(path: str) -> Callable[[], float]:
    """A wall clock that is off by the seconds in a file. A file that is missing or empty counts as 0."""

    def stepped_time() -> float:
        try:
            with open(path, encoding="ascii") as file:
                return time.time() + float(file.read() or 0)
        except FileNotFoundError:
            return time.time()

    return stepped_time


def _uptime_clock() -> Callable[[], float]:
    if not hasattr(time, "CLOCK_BOOTTIME"):  # Windows and macOS: their monotonic clock counts from the start, too
        return time.monotonic
    clock = time.CLOCK_BOOTTIME
    return lambda: time.clock_gettime(clock)


wall_time: Callable[[], float] = _stepped_clock(os.environ[TEST_CLOCK]) if TEST_CLOCK in os.environ else time.time
"""The time of day, in seconds since 1970."""

uptime: Callable[[], float] = _uptime_clock()
"""Seconds since the machine was started, including those in which it was asleep."""


def wall_and_uptime() -> tuple[float, float]:
    """Both clocks, read at the same moment to within 0.1 s: a process that stood still between two readings would take
    that for a clock that was set."""
    for _ in range(_TRIES):
        before, wall, after = uptime(), wall_time(), uptime()
        if after - before <= _TOGETHER_S:
            break
    return wall, (before + after) / 2


def boot_id() -> str:
    """A text that is new with every start of the machine; "" where the system has none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.readline().strip()
    except OSError:
        return ""
