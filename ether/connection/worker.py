"""The worker: runs user code, one job at a time, on one thread; on several threads where the user asks for it.

One at a time is the right default for hardware. In an instance's process the worker is the main thread, because GUI
toolkits, signal handlers and some drivers insist on it. A job that raises has its `failed()` called, and the next job
runs: no exception of user code ends the worker.

The trap is a call that comes back. A handler that calls another instance waits on its worker's own thread, and that
instance may call back: A calls B, B calls A. If A's worker only waited, both would wait for ever. Therefore a waiting
worker runs the jobs of the chain of calls that it waits for (its trace id), and no others. To the user they are one
conversation, and no other job gets in between.
"""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import Any, Protocol

from ether.log import get_ether_logger

logger = get_ether_logger("Ether")

_SIGNALS_S = 0.5
"""The longest single wait. Python runs a signal's handler on the main thread once that thread is awake, and only a
signal that comes during a wait wakes it. A signal that comes just before a wait is therefore handled this late."""


class Stopped(SystemExit):
    """Raised inside a handler that does not return although the process ends. Not an `Exception`, so that a user's loop
    which continues after every error ends, too."""


class Job(Protocol):
    """A piece of work."""

    def run(self) -> None:
        """Do it. User code may raise anything here."""

    def failed(self, error: BaseException) -> None:
        """It raised `error`. Called on the worker, in the `except` clause."""


Nested = queue.SimpleQueue[Job | None]
"""The jobs that a waiting worker runs meanwhile. None wakes it, to look again at what it waits for."""


class Worker:
    """A queue of jobs and the loop that runs them. `submit` may be called from any thread; `interrupt`, `stop`, and
    `submit` without a `trace` from a signal handler, too, as they take no lock that the interrupted code could hold."""

    def __init__(self, threads: int = 1) -> None:
        """`threads` is the number of jobs that run at the same time. The owner's thread, in `run()`, is the first."""
        self.threads = threads
        self._jobs: queue.SimpleQueue[Job | _Chained | None] = queue.SimpleQueue()
        self._urgent: list[Job] = []
        self._helpers: list[threading.Thread] = []
        self._active: set[int] = set()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: dict[str, list[Nested]] = {}
        """For each chain of calls, the queues of the handlers that wait for it, the outermost first."""
        self._chained: dict[str, list[_Chained]] = {}
        """For each chain of calls, its jobs in the ordinary queue that no handler has taken yet."""
        self._running = False

    def submit(self, job: Job, trace: str | None = None) -> None:
        """Add a job to the end of the queue. `trace` is the chain of calls that it belongs to; where a handler of this
        worker waits for that chain, the handler runs the job instead."""
        if trace is None:
            self._jobs.put(job)
            return
        with self._lock:
            if nested := self._waiting.get(trace):
                nested[-1].put(job)
                return
            chained = _Chained(job, trace)
            self._chained.setdefault(trace, []).append(chained)
        self._jobs.put(chained)

    def interrupt(self, job: Job) -> None:
        """Run a job before all queued ones, as soon as the current one is finished."""
        self._urgent.append(job)
        self._jobs.put(_Nothing())

    @property
    def queued(self) -> int:
        """The number of jobs in the queue."""
        return self._jobs.qsize()

    @property
    def running(self) -> bool:
        """True while there is a thread that runs the jobs."""
        return self._running

    @property
    def on_this_thread(self) -> bool:
        """True inside one of this worker's jobs."""
        return threading.get_ident() in self._active

    # -- running

    def start(self) -> None:
        """Run jobs on threads of the worker's own only."""
        self._running = True
        self._help(self.threads)

    def run(self) -> None:
        """Run jobs until `stop()`, on the caller's thread and, with several `threads`, on the others beside it."""
        self._running = True
        self._help(self.threads - 1)
        self._loop()
        self.join()
        self._running = False

    def stop(self) -> None:
        """End after the jobs that were submitted before this call."""
        for _ in range(max(1, self.threads)):
            self._jobs.put(None)

    def join(self) -> None:
        """Wait for the end of the worker's own threads."""
        for helper in self._helpers:
            if helper is not threading.current_thread():
                helper.join()

    def run_pending(self) -> int:
        """Run the queued jobs on the caller's thread; returns how many there were."""
        done = 0
        while not self._jobs.empty():
            job = self._jobs.get()
            if isinstance(job, _Chained):
                job = job.job if self._take(job) else None
            if job is not None:
                self.perform(job)
                done += 1
        return done

    def perform(self, job: Job) -> None:
        """Run one job on this thread, and call its `failed()` where it raises."""
        me = threading.get_ident()
        outermost = me not in self._active
        self._active.add(me)
        try:
            job.run()
        except (Exception, SystemExit) as error:  # noqa: BLE001  the worker loop: user code may raise anything
            self._fail(job, error)
        finally:
            if outermost:
                self._leave(me)

    def _fail(self, job: Job, error: BaseException) -> None:
        """Tell a job of its error. Its answer may find no room, or no connection; the next job has to run all the
        same."""
        try:
            job.failed(error)
        except Exception:
            logger.exception("a failure could not be reported")

    def wait_alone(self, timeout_s: float) -> bool:
        """Inside a job: wait until no other job runs. False when the time is over."""
        others = {threading.get_ident()}
        with self._changed:
            return self._changed.wait_for(lambda: not self._active - others, timeout_s)

    # -- waiting inside of a job

    def begin_wait(self, trace: str) -> Nested:
        """Begin a wait of the calling job for something of this chain of calls; pass the result to `end_wait()`.

        Jobs of the chain may have arrived before this wait, and each of them is in one of two places. Where an outer
        handler waits for the same chain, they are in its queue: but that handler cannot run them, because this one is
        running on top of it, so they move here. Where none waited, they are in the ordinary queue, behind other jobs:
        they are marked as taken, so that the loop skips them, and run here. From now on `submit` puts jobs of the chain
        into the innermost queue, which is this one.
        """
        nested: Nested = queue.SimpleQueue()
        with self._lock:
            waiting = self._waiting.setdefault(trace, [])
            for outer in waiting:
                _move_jobs(outer, nested)
            waiting.append(nested)
            for chained in self._chained.pop(trace, ()):
                chained.taken = True
                nested.put(chained.job)
        return nested

    def end_wait(self, trace: str, nested: Nested) -> None:
        """End a wait. Jobs that came too late to be run in it go to the next outer wait of the chain, or into the
        ordinary queue."""
        with self._lock:
            waiting = self._waiting[trace]
            waiting.remove(nested)
            _move_jobs(nested, waiting[-1] if waiting else self._jobs)
            if not waiting:
                del self._waiting[trace]

    # -- inside

    def _help(self, threads: int) -> None:
        for _ in range(threads):
            helper = threading.Thread(target=self._loop, name="ether-worker", daemon=True)
            self._helpers.append(helper)
            helper.start()

    def _loop(self) -> None:
        while (job := self._next()) is not None:
            try:
                while self._urgent:
                    self.perform(self._urgent.pop(0))
                if not isinstance(job, _Chained):
                    self.perform(job)
                elif self._take(job):
                    self.perform(job.job)
            except Stopped:
                continue  # raised just after its handler had returned

    def _next(self) -> Job | _Chained | None:
        """The next job, in waits of `_SIGNALS_S`."""
        while True:
            try:
                return self._jobs.get(timeout=_SIGNALS_S)
            except queue.Empty:
                continue

    def _take(self, chained: _Chained) -> bool:
        """Take a job out of its chain, to run it in the loop; False where a waiting handler has taken it."""
        with self._lock:
            if chained.taken:
                return False
            chain = self._chained[chained.trace]
            chain.remove(chained)
            if not chain:
                del self._chained[chained.trace]
            return True

    def _leave(self, me: int) -> None:
        self._active.discard(me)
        if self.threads > 1:
            with self._changed:
                self._changed.notify_all()


class _Chained:
    """A job in the ordinary queue that belongs to a chain of calls. `taken`: a waiting handler runs it."""

    __slots__ = ("job", "taken", "trace")

    def __init__(self, job: Job, trace: str) -> None:
        self.job, self.trace, self.taken = job, trace, False


class _Nothing:
    """A job that only wakes the worker."""

    def run(self) -> None:
        pass

    def failed(self, error: BaseException) -> None:
        pass


def _move_jobs(source: Nested, target: queue.SimpleQueue[Any]) -> None:
    with suppress(queue.Empty):
        while True:
            job = source.get_nowait()  # never a wait: the worker's lock is held
            if job is not None:
                target.put(job)
    source.put(None)  # among what was taken out may have been the waiting thread's own wake-up


def next_job(nested: Nested, timeout_s: float) -> Job | None:
    """The next job for a waiting worker; None when it shall look again, and when the time is over."""
    try:
        return nested.get(timeout=max(0.0, timeout_s))
    except queue.Empty:
        return None
