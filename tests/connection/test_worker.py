"""The worker runs jobs in order, survives them, and lets the urgent ones pass."""

from __future__ import annotations

import threading
import time

from patience import patience

from ether.connection.worker import ANYBODY, BACKLOG, Worker, next_job


class Step:
    def __init__(self, done: list[str], name: str, error: BaseException | None = None) -> None:
        self.done, self.name, self.error = done, name, error

    def run(self) -> None:
        self.done.append(self.name)
        if self.error is not None:
            raise self.error

    def failed(self, error: BaseException) -> None:
        self.done.append(f"{self.name} failed: {type(error).__name__}")


def test_jobs_run_in_order_and_failures_are_told() -> None:
    done: list[str] = []
    worker = Worker()
    worker.submit(Step(done, "a"))
    worker.submit(Step(done, "b", ValueError()))
    worker.submit(Step(done, "c", SystemExit(3)))
    worker.submit(Step(done, "d"))
    worker.stop()
    worker.run()
    assert done == ["a", "b", "b failed: ValueError", "c", "c failed: SystemExit", "d"]


def test_an_urgent_job_passes_what_is_queued() -> None:
    done: list[str] = []
    worker = Worker()

    class Interrupting(Step):
        def run(self) -> None:
            super().run()
            worker.interrupt(Step(done, "urgent"))

    worker.submit(Interrupting(done, "first"))
    for number in range(3):
        worker.submit(Step(done, str(number)))
    thread = threading.Thread(target=worker.run)
    worker.stop()
    thread.start()
    thread.join(patience(5))
    assert done == ["first", "urgent", "0", "1", "2"]


def test_a_job_whose_failure_cannot_be_reported_ends_no_worker() -> None:
    done: list[str] = []
    worker = Worker()

    class Hopeless(Step):
        def run(self) -> None:
            raise ValueError("it fails")

        def failed(self, error: BaseException) -> None:
            raise TimeoutError("and there is no room for saying so")

    worker.submit(Hopeless(done, "first"))
    worker.submit(Step(done, "second"))
    worker.stop()
    worker.run()
    assert done == ["second"]


class Message(Step):
    """A message of one sender."""

    def __init__(self, done: list[str], name: str, node: str) -> None:
        super().__init__(done, name)
        self.node = node


def run_all(worker: Worker) -> None:
    worker.stop()
    thread = threading.Thread(target=worker.run)
    thread.start()
    thread.join(patience(5))
    assert not thread.is_alive()


def test_without_a_backlog_a_call_keeps_the_order_of_arrival() -> None:
    done: list[str] = []
    worker = Worker()
    for number in range(BACKLOG - 2):
        worker.submit(Message(done, f"y{number}", "y"))
    worker.submit(Step(done, "call"), express="x")
    run_all(worker)
    assert done.index("call") == BACKLOG - 2


def test_before_a_backlog_goes_a_call_behind_the_messages_of_its_caller() -> None:
    """With those of others between them; what the caller sends afterwards comes afterwards; nobody's order changes."""
    done: list[str] = []
    worker = Worker()
    for number in range(BACKLOG):
        worker.submit(Message(done, f"y{number}", "y"))
        if number % 10 == 0:
            worker.submit(Message(done, f"x{number}", "x"))
    worker.submit(Step(done, "call of x"), express="x")
    worker.submit(Message(done, "x later", "x"))
    worker.submit(Step(done, "tick"), express="")
    worker.submit(Step(done, "call of z"), express="z")
    run_all(worker)
    assert done[:2] == ["tick", "call of z"]
    assert done.index("call of x") <= 5
    assert [name for name in done if "x" in name] == ["x0", "x10", "call of x", "x later"]
    assert [name for name in done if name[0] == "y"] == [f"y{number}" for number in range(BACKLOG)]
    assert len(done) == BACKLOG + 6


def test_a_call_does_not_wait_for_the_messages_of_another_caller() -> None:
    """One caller has a thousand messages before its call. The others' calls do not wait for these, and the backlog is
    not forgotten for their sake."""
    done: list[str] = []
    worker = Worker()

    class Again(Step):
        def run(self) -> None:
            super().run()
            if len([name for name in done if name == "call of z"]) < 50:
                worker.submit(Again(done, "call of z"), express="z")

    for number in range(1000):
        worker.submit(Message(done, f"x{number}", "x"))
        worker.submit(Message(done, f"y{number}", "y"))
    worker.submit(Step(done, "call of x"), express="x")
    worker.submit(Again(done, "call of z"), express="z")
    run_all(worker)
    assert done[0] == "call of z"
    calls = [at for at, name in enumerate(done) if name == "call of z"]
    assert len(calls) == 50
    assert calls[-1] < 200, "each of them waits for at most one message of the backlog, and one that has its turn"
    assert {"y0", "y10"} < set(done[: calls[-1]]), "between calls the backlog goes on"
    assert done.index("call of x") > done.index("x999")
    for sender in "xy":
        assert [n for n in done if n[0] == sender] == [f"{sender}{number}" for number in range(1000)]


def test_what_may_be_anybodys_message_is_handled_before_every_call() -> None:
    done: list[str] = []
    worker = Worker()
    for number in range(BACKLOG):
        worker.submit(Message(done, f"y{number}", "y"))
    worker.submit(Message(done, "a row of several senders", ANYBODY))
    worker.submit(Step(done, "call"), express="x")
    run_all(worker)
    assert done[:2] == ["a row of several senders", "call"]


def test_messages_that_wait_at_their_sources_are_a_backlog() -> None:
    done: list[str] = []
    worker = Worker()
    worker.behind = lambda: True
    worker.submit(Message(done, "y", "y"))
    call = Step(done, "call")
    worker.submit(Message(done, "x", "x"))
    worker.submit(call, express="x")
    assert worker.before(call, "x") == 1
    assert worker.queued == 3
    run_all(worker)
    assert done == ["x", "call", "y"]


def test_a_waiting_handler_takes_a_call_out_of_the_backlog() -> None:
    """The call stands in three places, and runs once."""
    done: list[str] = []
    worker = Worker()
    for number in range(BACKLOG):
        worker.submit(Message(done, f"y{number}", "y"))
    call = Step(done, "call")
    worker.submit(call, "chain", "x")
    assert worker.before(call, "x") == 0  # it is in its lane
    nested = worker.begin_wait("chain")
    taken = next_job(nested, 0)
    assert taken is call
    worker.perform(call)
    worker.end_wait("chain", nested)
    run_all(worker)
    assert done.count("call") == 1
    assert len(done) == BACKLOG + 1
    assert worker.queued == 0


def test_a_job_that_is_to_run_alone_does_so_in_spite_of_a_backlog() -> None:
    """With several threads one of them is always at work."""
    done: list[str] = []
    worker = Worker(2)
    alone: list[bool] = []
    more = threading.Event()

    class Endless(Message):
        def run(self) -> None:
            if not more.is_set():
                worker.submit(Endless(done, "y", "y"))

    class Alone(Step):
        def run(self) -> None:
            alone.append(worker.wait_alone(patience(5)))
            more.set()

    for _ in range(2 * BACKLOG):
        worker.submit(Endless(done, "y", "y"))
    worker.submit(Alone(done, "alone"), express="")
    thread = threading.Thread(target=worker.run)
    thread.start()
    assert more.wait(patience(10))
    worker.stop()
    thread.join(patience(5))
    assert alone == [True]


def test_pending_jobs_that_were_looked_through_are_run_all_the_same() -> None:
    """A lab has no thread that runs jobs; a caller whose time is nearly over asks how many are before its call."""
    done: list[str] = []
    worker, call = Worker(), Step(done, "call")
    worker.submit(Message(done, "m", "x"))
    worker.submit(call, "trace", "x")
    worker.submit(Step(done, "last"))
    assert worker.before(call, "x") == 1
    assert worker.run_pending() == 3
    assert done == ["m", "call", "last"]
    assert worker.run_pending() == 0


def test_a_sender_that_has_gone_leaves_nothing_in_the_worker() -> None:
    done: list[str] = []
    worker = Worker()
    for number in range(BACKLOG):
        worker.submit(Message(done, f"m{number}", f"node{number % 4}"))
    worker.submit(Step(done, "call"), None, "node1")
    run_all(worker)
    assert len(done) == BACKLOG + 1
    assert not worker._nodes


def test_threads_that_do_not_end_share_the_time_for_it() -> None:
    held, up = threading.Event(), threading.Semaphore(0)

    class Stuck(Step):
        def run(self) -> None:
            up.release()
            held.wait(patience(20))

    worker = Worker(16)
    for _ in range(16):
        worker.submit(Stuck([], "stuck"))
    worker.start()
    for _ in range(16):
        assert up.acquire(timeout=patience(5))
    began = time.monotonic()
    worker.join(0.3)
    took_s = time.monotonic() - began
    held.set()
    worker.stop()
    worker.join(patience(5))
    assert took_s < patience(2.4), "0.3 s in all, not for each, which would be 4.8 s"
