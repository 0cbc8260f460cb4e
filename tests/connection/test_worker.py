"""The worker runs jobs in order, survives them, and lets the urgent ones pass."""

from __future__ import annotations

import threading

from patience import patience

from ether.connection.worker import Worker


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
