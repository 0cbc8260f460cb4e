"""Which worker gets which file when: the files that take longest come first, so that none of them holds a single worker
when all the others have nothing left to do. Hooks of pytest; tests/conftest.py registers this module.

How long a file takes stands in tests/seconds.txt, for files of five seconds and more. What is not in it (a new file)
counts by its number of tests. The table is allowed to be old: it decides about the order alone. `--seconds-to FILE`
writes how long each test took, and `python tests/again.py --table FILE` makes the table of that. `--processor-to FILE`
writes the processor time instead, of the test and of the programs that it started and waited for: the trap is that a
program which outlived its parent is in no account.
"""

from __future__ import annotations

import functools
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

TABLE = Path(__file__).resolve().parent.parent / "seconds.txt"
USUAL_S = 0.05
"""A test of which nothing is known."""


@functools.cache
def seconds_of_files() -> dict[str, float]:
    """What the table says: seconds by file, as it stands in the names of tests."""
    lines = (line.split() for line in TABLE.read_text().splitlines() if not line.startswith("#"))
    return {path: float(seconds) for seconds, path in lines}


class LongestFirst(OrderedDict[str, dict[str, bool]]):
    """The files that wait for a worker. It is asked for the next one, and gives the one that takes longest."""

    def popitem(self, last: bool = True) -> tuple[str, dict[str, bool]]:
        scope = max(self, key=self._seconds)
        return scope, self.pop(scope)

    def _seconds(self, scope: str) -> float:
        # What is asked for may be a part of a file; then the order does not matter.
        return seconds_of_files().get(scope, 0.0) or USUAL_S * len(self[scope])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """xdist's own order goes by the number of tests, and the longest files have few."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    scheduling = LoadFileScheduling(config, log)
    scheduling.workqueue = LongestFirst()
    return scheduling


class Stopwatch:
    """Adds up how long each test took, with its set-up and its end: by this account."""

    def __init__(self, path: Path, seconds_of: Callable[[pytest.TestReport], float]) -> None:
        self._path, self._seconds_of = path, seconds_of
        self._seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += self._seconds_of(report)  # type: ignore[assignment]

    def pytest_sessionfinish(self) -> None:
        self._path.write_text("".join(f"{seconds:.2f} {test}\n" for test, seconds in self._seconds.most_common()))


class ProcessorClock:
    """Writes the processor time since the last report into each report, in the process that runs the tests."""

    def __init__(self) -> None:
        self._before_s = sum(os.times()[:4])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        now_s = sum(os.times()[:4])
        report.processor_s, self._before_s = now_s - self._before_s, now_s
        return report


def pytest_configure(config: pytest.Config) -> None:
    seconds, processor = config.getoption("seconds_to"), config.getoption("processor_to")
    if processor:
        config.pluginmanager.register(ProcessorClock())
    if hasattr(config, "workerinput"):
        return
    if seconds:
        config.pluginmanager.register(Stopwatch(Path(seconds), lambda report: report.duration))
    if processor:
        config.pluginmanager.register(Stopwatch(Path(processor), lambda report: report.processor_s))
