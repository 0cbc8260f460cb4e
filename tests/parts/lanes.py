"""Which tests run, and in how many processes: the lanes, whose turn it is, and the number of workers. Hooks of pytest;
tests/conftest.py imports them.

The fast lane (`--lane fast`) holds what stays in its own process. Nobody keeps a list: a test that starts another
program (a broker, a Python, a network namespace) is stopped at that moment, by an audit hook of the interpreter, and
counts as left out. So one function is in the lane over the loopback broker and outside of it over the real ones. Two
kinds are known beforehand: tests marked `slow`, which are left out, and those that ask `git` or `ldconfig`, which are
not.

The trap: what a fixture or a thread has tried counts, too. Whatever such a test then says, it is left out, not failed.

Brokers take turns in tests marked `in_turn("engine")`, whose cases differ in nothing but the broker and test what is
above it: the tests of such a file run over one broker after the other, from one on that depends on the file's name. So
each of the brokers carries a share of each suite, and each test is run once. With ETHER_LONG=1 each runs over each.

The same for tests marked `drawn(n)`, whose cases repeat with other values what the others prove: one of each n of them
is run, drawn by the hash of its name, so that each run of a commit has the same ones. With ETHER_LONG=1 all are.
`--part 1/4` runs the files of the first of four parts, which the hash of a file's path decides.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from patience import FACTOR

LEFT_OUT = "left out of the fast lane: "

# Quick programs that are no part of a lab.
_WITHIN_THE_LANE = ("git", "ldconfig")
_KINDS = {
    "starts a Python process": ("python",),
    "starts a broker": ("mosquitto",),
    "makes a network namespace": ("unshare", "nsenter", "ip"),
}
_FORKS = ("os.fork", "os.forkpty", "os.posix_spawn", "pty.spawn")


def fast_lane() -> bool:
    """Whether this is the fast lane; for what has a short form, such as the number of examples."""
    return _Lane.is_fast


def examples(count: int) -> int:
    """How many examples of a property are tried: all with ETHER_LONG=1, otherwise a quarter of them, and a
    twentieth in the fast lane."""
    if fast_lane():
        return max(count // 20, 10)
    return count if os.environ.get("ETHER_LONG") == "1" else count // 4


class _Lane:
    """What the audit hook needs; it can be installed only once and never be taken away."""

    is_fast = False
    running: str | None = None
    refused: dict[str, str] = {}  # noqa: RUF012  one for the process

    @classmethod
    def look(cls, event: str, arguments: tuple[Any, ...]) -> None:
        if cls.running is None:
            return
        if event == "subprocess.Popen":
            program = os.path.basename(os.fsdecode(arguments[0])).lower()
            if program.removesuffix(".exe") in _WITHIN_THE_LANE:
                return
            starts = next((kind for kind, names in _KINDS.items() if program.startswith(names)), None)
            why = starts or f"starts {program}"
        elif event in _FORKS:
            why = "forks"
        else:
            return
        cls.refused.setdefault(cls.running, why)
        raise pytest.skip.Exception(LEFT_OUT + why)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--lane",
        choices=("all", "fast"),
        default="all",
        help="fast: only tests that start no other program; under a minute on two cores. docs/testing.md",
    )
    parser.addoption("--part", metavar="K/N", help="only the files of the K-th of N parts, by the hash of their paths")
    parser.addoption("--processor-to", metavar="FILE", help="write the processor time of each test and its programs")
    parser.addoption("--seconds-to", metavar="FILE", help="write how long each test took, for tests/again.py")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "in_turn(parameter): its cases take turns; all of them with ETHER_LONG=1")
    config.addinivalue_line("markers", "drawn(n): of its cases one of each n is run; all of them with ETHER_LONG=1")
    config.addinivalue_line("markers", "slow(why): takes seconds on an idle machine; not in the fast lane")
    if config.getoption("lane") == "fast" and not _Lane.is_fast:
        _Lane.is_fast = True
        sys.addaudithook(_Lane.look)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file of another part is not even imported."""
    part = config.getoption("part")
    if part is None or not collection_path.name.startswith("test_"):
        return None
    return None if is_of_part(collection_path.relative_to(config.rootpath).as_posix(), part) else True


def is_of_part(path: str, part: str) -> bool:
    """Whether this file is of the part `K/N`. Raises `pytest.UsageError` where that is no part."""
    first, _, of = part.partition("/")
    if not (first.isdecimal() and of.isdecimal() and 1 <= int(first) <= int(of)):
        raise pytest.UsageError(f"--part takes K/N, the K-th of N parts, as 1/4; not {part}")
    return zlib.crc32(path.encode()) % int(of) == int(first) - 1


@pytest.hookimpl(trylast=True)  # behind -k and -m: what they leave takes turns, and is drawn
def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    if os.environ.get("ETHER_LONG") != "1":
        for leave_out in (whose_turn_it_is_not, not_drawn):  # of what is whose turn it is
            if others := leave_out(items):
                items[:] = [item for item in items if item not in others]
                config.hook.pytest_deselected(items=list(others))
    if FACTOR > 1:
        _lengthen_limits(items, config)


def whose_turn_it_is_not(items: list[pytest.Item]) -> set[pytest.Item]:
    """The cases that are not run, because of each test marked `in_turn` one is: of those that can run here at all."""
    cases: dict[tuple[object, ...], list[pytest.Item]] = {}
    for item in items:
        mark, spec = item.get_closest_marker("in_turn"), getattr(item, "callspec", None)
        if mark is not None and spec is not None and mark.args[0] in spec.params:
            same = tuple((name, repr(value)) for name, value in spec.params.items() if name != mark.args[0])
            cases.setdefault((item.path, getattr(item, "originalname", item.name), same), []).append(item)
    turns: Counter[object] = Counter()
    others: set[pytest.Item] = set()
    for (path, *_), all_cases in cases.items():
        able = [item for item in all_cases if not _is_left_out(item)] or all_cases
        others.update(all_cases)
        first = sum(os.path.basename(str(path)).encode())
        others.discard(able[(first + turns[path]) % len(able)])
        turns[path] += 1
    return others


def not_drawn(items: list[pytest.Item]) -> set[pytest.Item]:
    """The cases of tests marked `drawn` that are not run: of those that can run here at all, one of each n is."""
    cases: dict[tuple[object, ...], list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("drawn") is not None and getattr(item, "callspec", None) is not None:
            cases.setdefault((item.path, getattr(item, "originalname", item.name)), []).append(item)
    others: set[pytest.Item] = set()
    for all_cases in cases.values():
        mark = all_cases[0].get_closest_marker("drawn")
        assert mark is not None
        able = [item for item in all_cases if not _is_left_out(item)] or all_cases
        by_lot = sorted(able, key=lambda item: (zlib.crc32(item.name.encode()), item.name))
        others.update(set(all_cases) - set(by_lot[: -(-len(by_lot) // mark.args[0])]))
    return others


def _is_left_out(item: pytest.Item) -> bool:
    """Whether it is not run here. A condition may be given by name, and several."""
    marks = list(item.iter_markers("skipif"))
    return any(any((*mark.args, mark.kwargs.get("condition", False))) for mark in marks)


def _lengthen_limits(items: list[pytest.Item], config: pytest.Config) -> None:
    """The time limit of a test is a bound as any other."""
    usual_s = float(config.getini("timeout"))
    for item in items:
        own = item.get_closest_marker("timeout")
        limit_s = own.args[0] if own is not None and own.args else usual_s
        item.add_marker(pytest.mark.timeout(limit_s * FACTOR), append=False)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Three workers on two cores, because tests wait as much as they compute; each of them imports all files of tests,
    which takes it ten seconds. None for a single file, and where somebody wants to see the output as it comes."""
    if config.option.capture == "no" or config.option.collectonly or _is_one_file(config.args):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(2, cores * 3 // 2)


def _is_one_file(arguments: list[str]) -> bool:
    paths = {argument.partition("::")[0] for argument in arguments}
    return len(paths) == 1 and Path(paths.pop()).is_file()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    _Lane.running = item.nodeid if _Lane.is_fast else None
    try:
        return (yield)
    finally:
        _Lane.running = None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if _Lane.is_fast and item.get_closest_marker("slow") is not None:
        pytest.skip(LEFT_OUT + "is slow")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    why = _Lane.refused.get(item.nodeid)
    if why is not None and call.excinfo is not None:
        _let_go(call.excinfo.value)
    if why is not None and (call.when == "call" or report.failed):
        # What ends a test that was stopped in its middle is told once, and its end cannot be held against it.
        path, line, _ = item.location
        report.outcome = "passed" if call.when == "teardown" else "skipped"
        report.longrepr = None if call.when == "teardown" else (path, (line or 0) + 1, f"Skipped: {LEFT_OUT}{why}")
    return report


def _let_go(error: BaseException | None) -> None:
    """Drop what a test that was stopped in its middle still holds (open files, connections): now, and not when the
    garbage of its frames is collected, in some later test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        while error is not None:
            traceback.clear_frames(error.__traceback__)
            error = error.__context__
        gc.collect(1)  # what holds itself; it is young, and a whole collection for each such test would take minutes


def _why(report: Any) -> str | None:
    """Why the lane leaves this one out; None where it does not."""
    if not (getattr(report, "skipped", False) and isinstance(report.longrepr, tuple)):
        return None
    _, found, why = str(report.longrepr[2]).partition(LEFT_OUT)
    return why if found else None


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    return None if _why(report) is None else ("left out", "-", "LEFT OUT")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.getoption("lane") != "fast":
        return
    out = terminalreporter.stats.get("left out", [])
    ran = [report for report in terminalreporter.stats.get("passed", []) if report.when == "call"]
    ran += terminalreporter.stats.get("failed", [])
    count = len(out) + len(ran)
    terminalreporter.section("the fast lane")
    terminalreporter.line(
        f"{len(ran):,} of {count:,} tests ran ({len(ran) / max(count, 1):.0%}). "
        f"Left out: {len(out):,}; `python -m pytest` runs them all."
    )
    for why, number in Counter(map(_why, out)).most_common():
        terminalreporter.line(f"  {number:5,}  {why}")
    out_of, of = Counter(map(_room, out)), Counter(map(_room, out + ran))
    terminalreporter.line("by folder: " + ", ".join(f"{room} {n} of {of[room]}" for room, n in out_of.most_common()))


def _room(report: pytest.TestReport) -> str:
    parts = report.nodeid.partition("::")[0].split("/")
    return parts[-2] if len(parts) > 1 else parts[0]
