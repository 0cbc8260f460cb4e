"""Calls an instance's methods at their times: hands each tick to the worker when it is due.

The worker looks after that itself, before each job and instead of sleeping on: a thread that only wakes another one
costs a sensor at 100 Hz a third of its processor time. Where the worker has several threads, or methods have threads of
their own, a thread of the ticker's does it; else that one only looks whether the worker is busy.

Promises: at most one tick of a schedule waits or runs; meanwhile further ticks of it are missed. Missed ticks are
counted (`missed`), and logged when a burst of misses begins and when it is over, not once per tick.

The trap: user code runs on the worker, one job at a time. A method misses ticks when it takes longer than its period,
and also when another method of the instance does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from logging import Logger

from ether.config.when import parse_when
from ether.instance.schedule_rules import Schedule, schedule
from ether.protocol.clock_steps import STEP_S, set_words
from ether.system.clock import wall_and_uptime
from ether.system.processes import this_place

Submit = Callable[[str, str, Callable[[bool], None]], None]
"""Queues a tick. Its arguments: the method, the schedule as its user wrote it, and a callback for the end of the tick,
which gets whether the method was run."""

_LONGEST_WAIT_S = 30.0
_LOOK_S = 1.0
"""Where a schedule goes by the wall clock, the thread looks at that at least this often, because it can be set while
the thread waits."""

_WATCH_S = 0.25
"""Where the worker looks after the ticks itself, this late the thread notices that it is busy."""

_BURST_OVER_S = 1.0
"""A burst of misses is over after this time without a miss."""


@dataclass(slots=True)
class _Timetable:
    method: str
    when: str
    schedule: Schedule
    pending: bool = False
    missed: int = 0
    burst: int = 0
    missed_at: float = 0.0


class Ticker:
    """Runs from `start()` to `stop()`. `times` are pairs of a method and its schedule, as the user wrote it."""

    def __init__(self, name: str, times: list[tuple[str, str]], submit: Submit, logger: Logger) -> None:
        self._name, self._times, self._submit, self._logger = name, times, submit, logger
        self._tables: list[_Timetable] = []
        self._lock = threading.Lock()
        self._stepping = threading.Lock()
        """Held for a step. Taken before `_lock` and the worker's."""
        self._due = float("inf")
        """When the next tick may be due, by the steady clock; never before the start."""
        self.helped = False
        """Whether a worker calls `turn` whenever it has nothing to do, and at the end of each job."""
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._ahead = 0.0
        """By how much the wall clock was ahead of the machine's uptime at the last look."""
        self._steady = True
        """Whether no schedule goes by the wall clock."""

    def start(self) -> None:
        """Start the thread. The first tick of every period is due at once."""
        if self._times and self._thread is None:
            self.begin(time.monotonic(), *wall_and_uptime())
            self._due = 0.0
            self._thread = threading.Thread(target=self._run, name=f"ether-ticks-{self._name}", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Hand over no more ticks. A second call does nothing."""
        self._stopped.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    @property
    def missed(self) -> dict[str, int]:
        """The number of missed ticks, for every method that has a schedule."""
        counts = {method: 0 for method, _ in self._times}
        for table in self._tables:
            counts[table.method] += table.missed
        return counts

    def begin(self, steady_now: float, wall_now: float, uptime_now: float | None = None) -> None:
        """Begin all schedules at this time. Public for a lab, which calls `step` itself instead of `start`.

        `uptime_now` is what tells a clock that was set from a machine that was asleep; without it, the steady time."""
        self._ahead = wall_now - (steady_now if uptime_now is None else uptime_now)
        self._tables = [
            _Timetable(method, when, schedule(parse_when(when), steady_now, wall_now)) for method, when in self._times
        ]
        self._steady = all(table.schedule.steady for table in self._tables)

    def step(self, steady_now: float, wall_now: float, uptime_now: float | None = None) -> float:
        """Hand over the ticks that are due; returns the seconds until the next one may be."""
        self._look_at_clock(wall_now, steady_now if uptime_now is None else uptime_now)
        wait_s = _LONGEST_WAIT_S if self._steady else _LOOK_S
        for table in self._tables:
            now = steady_now if table.schedule.steady else wall_now
            if (tick := table.schedule.take(now)) is not None:
                self._take(table, tick.runs, tick.missed, steady_now)
            if (due := table.schedule.due()) is not None:
                wait_s = min(wait_s, max(0.0, due - now))
        return wait_s

    def turn(self) -> float:
        """Hand over what is due, on the worker: so no other thread has to wake up for it. Returns the seconds until the
        next tick may be due."""
        now = time.monotonic()
        if now < self._due:
            return self._due - now
        with self._stepping:
            if self._stopped.is_set():
                self._due = float("inf")
            else:
                self._due = now + self.step(now, *wall_and_uptime())
        return max(0.0, self._due - time.monotonic())

    def _run(self) -> None:
        """The thread. Where a worker helps, it only looks whether that is busy: a burst of missed ticks is noticed
        while it goes on."""
        self.turn()  # the worker may be waiting for something else
        patience_s = _WATCH_S if self.helped else 0.0
        while not self._stopped.wait(min(_LONGEST_WAIT_S, max(0.0, self._due + patience_s - time.monotonic()))):
            if time.monotonic() >= self._due + patience_s:
                self.turn()

    def _look_at_clock(self, wall_now: float, uptime_now: float) -> None:
        """Tell the schedules when the wall clock was set, and log it once, with the methods that are not run for it."""
        before = uptime_now + self._ahead
        set_by_s = wall_now - before
        self._ahead = wall_now - uptime_now
        if abs(set_by_s) <= STEP_S:
            return
        left_out = [table for table in self._tables if table.schedule.clock_set(before, wall_now)]
        with self._lock:
            for table in left_out:
                table.missed += 1
        if self._steady:
            return
        names = ", ".join(f"{table.method} ({table.when})" for table in left_out)
        never = f"; times that it never showed: {names}" if names else ""
        self._logger.warning("%s: %s%s", self._name, set_words(this_place().host, set_by_s), never)

    def _take(self, table: _Timetable, runs: bool, missed: int, now: float) -> None:
        """Hand over one tick, unless the previous one still waits or runs: then it counts as missed, too."""
        with self._lock:
            skips = runs and table.pending
            table.pending = table.pending or runs
        self._miss(table, missed + skips, now)
        if runs and not skips:
            self._submit(table.method, table.when, lambda ran: self._over(table, ran))

    def _over(self, table: _Timetable, ran: bool) -> None:
        """On the worker: a tick is over, and the next one may be handed over. What became due meanwhile is missed."""
        if self.helped:
            self.turn()
        with self._lock:
            table.pending = False
            table.missed += not ran

    def _miss(self, table: _Timetable, ticks: int, now: float) -> None:
        """Count missed ticks, and log the begin and the end of a burst; called with each tick, also with 0 missed."""
        if not ticks and not table.burst:
            return
        what = f"{table.method} (every {table.when})".replace("every at", "at")
        if ticks:
            with self._lock:
                table.missed += ticks
            if not table.burst:
                self._logger.warning("%s: %s misses ticks: the last one could not be run in time", self._name, what)
            table.burst += ticks
            table.missed_at = now
        elif now - table.missed_at >= _BURST_OVER_S:
            self._logger.warning("%s: %s is in time again; ticks missed: %d", self._name, what, table.burst)
            table.burst = 0
