"""The worker: runs user code, one job at a time, on one thread; on several where the user asks for it.

One at a time is the right default for hardware. In an instance's process the worker is the main thread, because GUI
toolkits, signal handlers and some drivers insist on it. A job that fails is told so and the next one runs: no
exception of user code ends the worker.

A handler that calls another instance waits on its worker's own thread, and that instance may call back: A calls B,
B calls A. The trap is that A's worker waits. So while it waits, it runs the jobs that belong to the very chain of
calls that it waits for, and no others: to the user they are one conversation, and nothing else gets in between.
"""

from __future__ import annotations

import queue
import threading
from typing import Any, Protocol

_SIGNALS_S = 0.5
"""So late may a signal be noticed that came in the moment before a wait. Python runs its handler on the main thread,
when that has woken up; and only a signal that comes during the wait wakes it."""


class Stopped(SystemExit):
    """Raised inside of a handler that does not come back although everything ends. Not an `Exception`, so that a loop
    which goes on after every error ends, too."""


class Job(Protocol):
    """A piece of work."""

    def run(self) -> None:
        """Do it. User code may raise anything here."""

    def failed(self, error: BaseException) -> None:
        """It raised; called on the worker, in the `except` clause."""


Nested = queue.SimpleQueue[Job | None]
"""What a waiting worker may do meanwhile; None: look again at what you wait for."""


class Worker:
    """A queue of jobs and the loop that runs them. `submit` may be called from any thread and signal handler."""

    def __init__(self, threads: int = 1) -> None:
        """`threads`: how many jobs run at the same time. The owner brings the first thread, by `run()`."""
        self.threads = threads
        self._jobs: queue.SimpleQueue[Job | _Chained | None] = queue.SimpleQueue()
        self._urgent: list[Job] = []
        self._helpers: list[threading.Thread] = []
        self._active: set[int] = set()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: dict[str, list[Nested]] = {}
        self._chained: dict[str, list[_Chained]] = {}
        self._running = False

    def submit(self, job: Job, trace: str | None = None) -> None:
        """Add a job to the end of the queue; one of a chain that a handler here waits for runs at once."""
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
        """Run a job before everything that is queued, as soon as the current one is finished."""
        self._urgent.append(job)
        self._jobs.put(_Nothing())

    @property
    def queued(self) -> int:
        """How many jobs wait."""
        return self._jobs.qsize()

    @property
    def running(self) -> bool:
        """True while there is a thread that runs the jobs."""
        return self._running

    @property
    def on_this_thread(self) -> bool:
        """True inside of one of its jobs."""
        return threading.get_ident() in self._active

    # -- running

    def start(self) -> None:
        """Run on threads of its own, all of them."""
        self._running = True
        self._help(self.threads)

    def run(self) -> None:
        """Run jobs until `stop()`, on the caller's thread and on as many more as it takes."""
        self._running = True
        self._help(self.threads - 1)
        self._loop()
        self.join()
        self._running = False

    def stop(self) -> None:
        """End after the jobs that were submitted before."""
        for _ in range(max(1, self.threads)):
            self._jobs.put(None)

    def join(self) -> None:
        """Wait for the end of its own threads."""
        for helper in self._helpers:
            if helper is not threading.current_thread():
                helper.join()

    def run_pending(self) -> int:
        """Run what is queued now, on the caller's thread; returns how many jobs that were."""
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
        """Run one job here and now, and tell it if it failed."""
        me = threading.get_ident()
        outermost = me not in self._active
        self._active.add(me)
        try:
            job.run()
        except (Exception, SystemExit) as error:  # noqa: BLE001  the worker loop: user code may raise anything
            job.failed(error)
        finally:
            if outermost:
                self._leave(me)

    def wait_alone(self, timeout_s: float) -> bool:
        """Inside of a job: wait until no other job runs. False when the time is over."""
        others = {threading.get_ident()}
        with self._changed:
            return self._changed.wait_for(lambda: not self._active - others, timeout_s)

    # -- waiting inside of a job

    def begin_wait(self, trace: str) -> Nested:
        """The calling job waits for something of this chain, which may have come back here already; give the result to
        `end_wait()`."""
        nested: Nested = queue.SimpleQueue()
        with self._lock:
            waiting = self._waiting.setdefault(trace, [])
            for outer in waiting:  # it came before this wait, while an outer one of the same chain was the innermost
                _move_jobs(outer, nested)
            waiting.append(nested)
            for chained in self._chained.pop(trace, ()):
                chained.taken = True
                nested.put(chained.job)
        return nested

    def end_wait(self, trace: str, nested: Nested) -> None:
        """It waits no longer; what came too late to be run meanwhile is for the next outer wait of the chain, or is
        queued as usual."""
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
                continue  # it came in the moment in which its handler was left

    def _next(self) -> Job | _Chained | None:
        """In short waits: one without an end sleeps through a signal that came just before it."""
        while True:
            try:
                return self._jobs.get(timeout=_SIGNALS_S)
            except queue.Empty:
                continue

    def _take(self, chained: _Chained) -> bool:
        """Take a job out of its chain; False where a waiting handler has run it."""
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
    """A queued job that belongs to a chain of calls."""

    __slots__ = ("job", "taken", "trace")

    def __init__(self, job: Job, trace: str) -> None:
        self.job, self.trace, self.taken = job, trace, False


class _Nothing:
    """Wakes the worker."""

    def run(self) -> None:
        pass

    def failed(self, error: BaseException) -> None:
        pass


def _move_jobs(source: Nested, target: queue.SimpleQueue[Any]) -> None:
    while not source.empty():
        job = source.get()
        if job is not None:
            target.put(job)
    source.put(None)  # whoever waits there looks again, in case that was its own wake-up call


def next_job(nested: Nested, timeout_s: float) -> Job | None:
    """What a waiting worker may do next; None to look again, and when the time is over."""
    try:
        return nested.get(timeout=max(0.0, timeout_s))
    except queue.Empty:
        return None
