"""The worker: runs user code, one message at a time, on one thread.

One at a time is the right default for hardware. In an instance's process the worker is the main thread, because GUI
toolkits, signal handlers and some drivers insist on it. A job that fails is told so and the next one runs: no
exception of user code ends the worker.
"""

from __future__ import annotations

import queue
from typing import Protocol


class Job(Protocol):
    """A piece of work."""

    def run(self) -> None:
        """Do it. User code may raise anything here."""

    def failed(self, error: BaseException) -> None:
        """It raised; called on the worker, in the `except` clause."""


class Worker:
    """A queue of jobs and the loop that runs them. `submit` may be called from any thread and signal handler."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._urgent: list[Job] = []

    def submit(self, job: Job) -> None:
        """Add a job to the end of the queue."""
        self._jobs.put(job)

    def interrupt(self, job: Job) -> None:
        """Run a job before everything that is queued, as soon as the current one is finished."""
        self._urgent.append(job)
        self._jobs.put(_Nothing())

    def stop(self) -> None:
        """End `run()` after the jobs that were submitted before."""
        self._jobs.put(None)

    def run(self) -> None:
        """Run jobs until `stop()`."""
        while (job := self._jobs.get()) is not None:
            while self._urgent:
                perform(self._urgent.pop(0))
            perform(job)

    def run_pending(self) -> int:
        """Run what is queued now, on the caller's thread; returns how many jobs that were."""
        done = 0
        while not self._jobs.empty():
            job = self._jobs.get()
            if job is not None:
                perform(job)
                done += 1
        return done


class _Nothing:
    """Wakes the worker."""

    def run(self) -> None:
        pass

    def failed(self, error: BaseException) -> None:
        pass


def perform(job: Job) -> None:
    """Run one job and tell it if it failed."""
    try:
        job.run()
    except (Exception, SystemExit) as error:  # noqa: BLE001  the worker loop: user code may raise anything
        job.failed(error)
