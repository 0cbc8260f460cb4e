"""Which worker gets which file when: the files that take longest come first, so that none of them holds a single worker
when all the others have nothing left to do. Hooks of pytest; tests/conftest.py registers this module.

How long a file takes stands in tests/seconds.txt, for files of five seconds and more. What is not in it (a new file)
counts by its number of tests. The table is allowed to be old: it decides about the order alone. `--seconds-to FILE`
writes how long each test took, and `python tests/again.py --table FILE` makes the table of that.
"""

from __future__ import annotations

import functools
from collections import Counter, OrderedDict
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
    """Adds up how long each test took, with its set-up and its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration  # type: ignore[assignment]

    def pytest_sessionfinish(self) -> None:
        self._path.write_text("".join(f"{seconds:.2f} {test}\n" for test, seconds in self._seconds.most_common()))


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("seconds_to")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Stopwatch(Path(path)))
