"""Methods that are called at their times: by a lab's own clock, and by real ones."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import pytest
from patience import patience
from running_brokers import soon

from ether import ether_every, ether_pub, ether_sub
from ether.connection.worker import Worker
from ether.errors import MarkError
from ether.instance.ticker import Ticker
from ether.spec.marks import MarkKind, marks_of
from ether.spec.methods import describe
from ether.testing import Lab


class Probe:
    """Reads."""

    def __init__(self) -> None:
        self.readings = 0

    @ether_pub(topic="reading", every="0.5s")
    def read(self) -> int:
        self.readings += 1
        return self.readings


class Plain:
    """Knows nothing of Ether."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def poll(self) -> str:
        self.calls.append("poll")
        return "polled"

    def fail(self) -> None:
        raise OSError("the port is gone")


class Echo:
    """Counts what it hears."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    @ether_sub(topic="reading")
    def hear(self, value: int) -> None:
        self.heard.append(value)


def plain(methods: dict[str, object]) -> dict[str, object]:
    path = f"{__name__}.Plain"
    return {"instances": {"plain": {"class_path": path}}, "registry": {path: {"methods": methods}}}


def test_the_decorator_only_marks() -> None:
    class Marked:
        @ether_every("5s")
        @ether_every("0 3 * * *")
        def read(self) -> int:
            return 7

    assert Marked().read() == 7
    assert [mark.kind for mark in marks_of(Marked.read)] == [MarkKind.EVERY, MarkKind.EVERY]
    assert describe(Marked).methods[0].times == ("5s", "0 3 * * *")


@pytest.mark.parametrize("wrong", ["5", "", "5m", 5, None, len])
def test_a_wrong_time_is_refused_where_it_is_written(wrong: object) -> None:
    with pytest.raises(MarkError, match="ether_every"):
        ether_every(wrong)  # type: ignore[arg-type]


def test_polling_publishes_and_does_not_drift() -> None:
    with Lab(objects={"probe": Probe(), "echo": Echo()}) as lab:
        lab.advance(2.2)
        assert lab["echo"].heard == [1, 2, 3, 4, 5]  # at 0, 0.5, 1, 1.5, 2
        lab.advance(0.2)
        assert lab["probe"].readings == 5
        lab.advance(0.2)
        assert lab["probe"].readings == 6


def test_by_the_registry_alone() -> None:
    with Lab(plain({"poll": {"ether_pub": {"topic": "polled", "every": "100ms"}}})) as lab:
        lab.advance(0.95)
        assert lab.values("polled") == ["polled"] * 10


def test_a_tick_that_fails_is_reported_and_the_next_one_comes() -> None:
    with Lab(plain({"fail": {"ether_every": "1s"}, "poll": {"ether_every": "1s"}}), collect_failures=True) as lab:
        lab.advance(2.5)
        assert [str(failure) for failure in lab.failures] == ["the port is gone"] * 3
        assert lab["plain"].calls == ["poll"] * 3


def test_a_method_that_needs_arguments_cannot_be_called_by_itself() -> None:
    class Needy:
        @ether_every("1s")
        def set(self, value: int) -> None: ...

    with pytest.raises(MarkError, match=r"Needy\.set cannot be called at set times: missing a required argument"):
        Lab(objects={"needy": Needy()})


class Hand:
    """Takes ticks, and ends them when told."""

    def __init__(self) -> None:
        self.open: list[object] = []

    def submit(self, method: str, when: str, finish: object) -> None:
        self.open.append(finish)


def test_what_cannot_be_run_in_time_is_missed_and_told_once_a_burst(caplog: pytest.LogCaptureFixture) -> None:
    hand = Hand()
    ticker = Ticker("probe", [("read", "1s")], hand.submit, logging.getLogger("probe"))
    ticker.begin(0.0, 0.0)
    with caplog.at_level(logging.WARNING, "probe"):
        for second in range(5):  # the worker has not come to the first one
            ticker.step(float(second), 0.0)
        assert len(hand.open) == 1
        hand.open.pop()(True)  # type: ignore[operator]
        ticker.step(5.0, 0.0)
    assert (len(hand.open), ticker.missed) == (1, {"read": 4})
    assert [record.getMessage() for record in caplog.records] == [
        "probe: read (every 1s) misses ticks: the last one could not be run in time",
        "probe: read (every 1s) is in time again; ticks missed: 4",
    ]


def test_real_clocks_and_no_tick_after_stop() -> None:
    ticks: list[int] = []
    three = threading.Event()

    def submit(method: str, when: str, finish: object) -> None:
        ticks.append(len(ticks))
        finish(True)  # type: ignore[operator]
        if len(ticks) >= 3:
            three.set()

    ticker = Ticker("probe", [("read", "1ms")], submit, logging.getLogger("probe"))
    ticker.start()
    assert three.wait(patience(10))
    ticker.stop()
    ticker.stop()
    count = len(ticks)
    assert not any(thread.name == "ether-ticks-probe" for thread in threading.enumerate())
    assert len(ticks) == count


class Tick:
    """A job that ends its tick, and may have to wait before."""

    def __init__(self, finish: Callable[[bool], None], goes_on: threading.Event | None = None) -> None:
        self._finish, self._goes_on = finish, goes_on

    def run(self) -> None:
        if self._goes_on is not None:
            self._goes_on.wait()
        self._finish(True)

    def failed(self, error: BaseException) -> None:
        raise error


@contextmanager
def helped_ticker(goes_on: threading.Event | None = None) -> Iterator[tuple[Ticker, SimpleQueue[str]]]:
    """A ticker at 50 Hz whose worker looks after the ticks, and the threads that handed them over."""
    worker: Worker = Worker()
    handed: SimpleQueue[str] = SimpleQueue()

    def submit(method: str, when: str, finish: Callable[[bool], None]) -> None:
        handed.put(threading.current_thread().name)
        worker.submit(Tick(finish, goes_on), express="")

    ticker = Ticker("probe", [("read", "50Hz")], submit, logging.getLogger("Ether"))
    ticker.helped, worker.turn = True, ticker.turn
    worker.start()
    ticker.start()
    try:
        yield ticker, handed
    finally:
        if goes_on is not None:
            goes_on.set()
        ticker.stop()
        worker.stop()
        worker.join()


def test_the_worker_hands_ticks_to_itself() -> None:
    with helped_ticker() as (_, handed):
        threads = [handed.get(timeout=patience(5)) for _ in range(20)]
    assert threads.count("ether-worker") > 10, threads


def test_what_becomes_due_while_a_tick_goes_on_is_missed_and_seen_at_once() -> None:
    goes_on = threading.Event()
    with helped_ticker(goes_on) as (ticker, handed):
        handed.get(timeout=patience(5))
        assert soon(lambda: ticker.missed["read"] > 2, 5), "missed ticks are only seen when the worker is free again"
        assert handed.empty()
