"""Threads and jobs of executors have the cause of the code that starts them, and nothing else changes for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from patience import patience

from ether.connection import causes
from ether.connection.caused_work import THREAD_S, CausedWork
from ether.connection.causes import NOTHING, Cause, handling
from ether.connection.inherited_causes import follow_threads

ORIGIN = "scan/1/1/1"


@pytest.fixture
def work() -> CausedWork:
    return CausedWork()


@pytest.fixture
def cause(work: CausedWork) -> Iterator[Cause]:
    """Within the test, this is the cause; it is another one for each test."""
    follow_threads()
    follow_threads()
    cause = Cause("message", "trace", origin=ORIGIN, work=work)
    with handling(cause):
        yield cause


def seen_in(thread: threading.Thread, seen: list[Cause]) -> Cause:
    thread.start()
    thread.join(patience(5))
    return seen.pop()


def test_a_thread_has_the_cause_but_neither_the_worker_nor_other_variables(cause: Cause, work: CausedWork) -> None:
    seen: list[Cause] = []
    found = seen_in(threading.Thread(target=lambda: seen.append(causes.current())), seen)
    assert (found.message_id, found.trace, found.worker, found.origin) == ("message", "trace", None, ORIGIN)
    assert not work.in_work(ORIGIN), "it has finished"


def test_a_users_own_thread_is_as_it_was(cause: Cause) -> None:
    seen: list[Cause] = []

    class Own(threading.Thread):
        def run(self) -> None:
            assert "run" not in vars(self)
            seen.append(causes.current())

    assert seen_in(Own(), seen).origin == ORIGIN
    odd = threading.Thread()
    odd.run = lambda: seen.append(causes.current())  # type: ignore[method-assign]
    kept = odd.run
    assert seen_in(odd, seen).origin == ORIGIN
    assert odd.run is kept


def test_without_a_cause_nothing_is_done() -> None:
    follow_threads()
    seen: list[Cause] = []
    assert seen_in(threading.Thread(target=lambda: seen.append(causes.current())), seen) is NOTHING
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(causes.current).result(patience(5)) is NOTHING


def test_ethers_own_threads_serve_many_causes(cause: Cause) -> None:
    seen: list[Cause] = []
    thread = threading.Thread(target=lambda: seen.append(causes.current()), name="ether-worker")
    assert seen_in(thread, seen) is NOTHING


def test_a_pool_does_not_inherit_and_its_jobs_do(cause: Cause, work: CausedWork) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(causes.origin).result(patience(5)) == ORIGIN
        with handling(NOTHING):
            assert pool.submit(causes.origin).result(patience(5)) is None, "its thread was started by a caused job"
        other = cause._replace(origin="scan/1/2/1")
        with handling(other):
            assert pool.submit(causes.origin).result(patience(5)) == "scan/1/2/1"
    assert not work.in_work(ORIGIN)


def test_a_job_that_is_cancelled_or_refused_is_not_waited_for(cause: Cause, work: CausedWork) -> None:
    go = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(go.wait, patience(10))
        second: Future[bool] = pool.submit(go.wait, patience(10))
        assert [each.what for each in work.in_work(ORIGIN)] == ["a job of an executor, Event.wait"] * 2
        assert second.cancel()
        assert len(work.in_work(ORIGIN)) == 1
        go.set()
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(go.wait)
    assert not work.in_work(ORIGIN)


def test_a_thread_that_cannot_start_leaves_nothing(cause: Cause, work: CausedWork) -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join(patience(5))
    with pytest.raises(RuntimeError, match="once"):
        thread.start()
    assert "run" not in vars(thread)
    assert not work.in_work(ORIGIN)


def test_a_thread_that_outlives_its_trial_has_no_cause_any_more(
    cause: Cause, work: CausedWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go, seen = threading.Event(), threading.Event(), list[tuple[str | None, tuple[str, ...]]]()

    def flow() -> None:
        seen.append((causes.origin(), causes.parents()))
        begun.set()
        go.wait(patience(10))
        seen.append((causes.origin(), causes.parents()))

    thread = threading.Thread(target=flow, name="flow")
    thread.start()
    assert begun.wait(patience(5))
    assert [each.what for each in work.in_work(ORIGIN)] == ["the thread 'flow'"]
    now = time.monotonic()
    monkeypatch.setattr("ether.connection.caused_work.time.monotonic", lambda: now + THREAD_S + 1)
    assert not work.in_work(ORIGIN)
    go.set()
    thread.join(patience(5))
    assert seen == [(ORIGIN, ("message",)), (None, ())]


def test_a_chain_of_threads_is_waited_for_once(work: CausedWork, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer that starts the next one, for ever."""
    begin = time.monotonic()
    heir = work.adopt(ORIGIN, "a timer")
    assert work.in_work(ORIGIN)
    for number in range(1, 4):
        monkeypatch.setattr("ether.connection.caused_work.time.monotonic", lambda n=number: begin + n * THREAD_S * 0.4)
        following = work.adopt(ORIGIN, "the next timer", heir)
        work.release(heir)
        heir = following
        assert bool(work.in_work(ORIGIN)) == (number < 3)
    assert heir.lapsed


def test_a_replay_is_not_forgotten_by_a_thread_that_outlives_its_trial(work: CausedWork) -> None:
    heir = work.adopt("$replay/scan/1/1/1", "a thread")
    with handling(Cause("message", None, origin="$replay/scan/1/1/1", work=work, heir=heir)):
        assert causes.from_replay()
        heir.lapsed = True
        assert causes.from_replay()
        assert causes.origin() == "$replay"
