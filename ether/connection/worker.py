"""The worker: runs user code, one job at a time, on one thread; on several threads where the user asks for it.

One at a time is the right default for hardware. In an instance's process the worker is the main thread, because GUI
toolkits, signal handlers and some drivers insist on it. A job that raises has its `failed()` called, and the next job
runs: no exception of user code ends the worker, whatever its class. `KeyboardInterrupt`, `GeneratorExit` and the panics
of libraries in Rust are no `Exception`s, and a method may raise them, too.

A job that forks leaves a copy of itself in another process, and that copy ends with the job (`fork_guard`).

The trap is a call that comes back. A handler that calls another instance waits on its worker's own thread, and that
instance may call back: A calls B, B calls A. If A's worker only waited, both would wait for ever. Therefore a waiting
worker runs the jobs of the chain of calls that it waits for (its trace id), and no others. To the user they are one
conversation, and no other job gets in between.

Order. Jobs run in the order of their arrival, as long as the worker keeps up. Where there is a backlog, of `BACKLOG`
jobs or more, an *express* job (a call, a tick, a step of an end) goes before it. The messages that its own caller has
sent before it go before it, too: they and it are moved to a lane of that caller. A call whose turn has come in its lane
goes before messages of other lanes; between two calls one message of the backlog is handled. Messages of one sender
keep their order in any case.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Protocol

from ether.connection import fork_guard as forks
from ether.connection.deadline import Deadline
from ether.log import get_ether_logger

logger = get_ether_logger("Ether")

_SIGNALS_S = 0.5
"""The longest single wait. Python runs a signal's handler on the main thread once that thread is awake, and only a
signal that comes during a wait wakes it. A signal that comes just before a wait is therefore handled this late."""


BACKLOG = 20
"""So many jobs that wait are a backlog. With fewer the order of arrival holds for all: what another process has caused
by a message that came before a call is done before that call."""

FOREIGN = "-"
"""As the node of a job: its sender is a program without Ether."""

ANYBODY = "*"
"""As the node of a job: it may be a message of any sender, so every express job waits for it."""

_HELPERS_S = 1.0
"""For the jobs on other threads that are still at work when the worker ends."""


class Stopped(SystemExit):
    """Raised inside a handler that does not return although the process ends. Not an `Exception`, so that a user's loop
    which continues after every error ends, too."""


class Job(Protocol):
    """A piece of work."""

    def run(self) -> None:
        """Do it. User code may raise anything here."""

    def failed(self, error: BaseException) -> None:
        """It raised `error`. Called on the worker, in the `except` clause."""


class MessageOf(Protocol):
    """A job that is a message: which process has sent it."""

    @property
    def node(self) -> str:
        """The end of the ids of its sender's messages; or `FOREIGN`, or `ANYBODY`."""


Nested = queue.SimpleQueue[Job | None]
"""The jobs that a waiting worker runs meanwhile. None wakes it, to look again at what it waits for."""


class Worker:
    """A queue of jobs and the loop that runs them. `submit` may be called from any thread; `interrupt`, `stop`, and
    `submit` without a `trace` from a signal handler, too, as they take no lock that the interrupted code could hold."""

    def __init__(self, threads: int = 1) -> None:
        """`threads` is the number of jobs that run at the same time. The owner's thread, in `run()`, is the first."""
        self.threads = threads
        self.behind: Callable[[], bool] = lambda: False
        """Whether there is a backlog outside of this queue: messages that wait at their sources."""
        self.turn: Callable[[], float] | None = None
        """Called before each job of a worker with one thread: it may submit jobs that are due, and returns the seconds
        until the next one may be."""
        self._jobs: queue.SimpleQueue[Job | _Queued | None] = queue.SimpleQueue()
        self._urgent: list[Job] = []
        self._express: deque[_Queued] = deque()
        """The express jobs that wait in their turn, also in `_jobs`."""
        self._lanes: dict[str, deque[Job | _Queued]] = {}
        """For each caller what goes before the backlog: its messages and calls, in their order. The lane of nobody, the
        empty text, goes before the others, which take turns."""
        self._backlog: deque[Job | _Queued | None] = deque()
        """What was taken out of `_jobs` to look through it, in the order of arrival. It goes before `_jobs`."""
        self._nodes: Counter[str] = Counter()
        """The messages in `_backlog`, by sender."""
        self._run_elsewhere = 0
        """Express jobs that stand in `_backlog`, and were moved to a lane."""
        self._owes_turn = False
        """Whether the latest job was a call that went before the backlog."""
        self._helpers: list[threading.Thread] = []
        self._active: set[int] = set()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: dict[str, list[Nested]] = {}
        """For each chain of calls, the queues of the handlers that wait for it, the outermost first."""
        self._chained: dict[str, list[_Queued]] = {}
        """For each chain of calls, its jobs in the ordinary queue that no handler has taken yet."""
        self._running = False
        forks.watch()
        self._awaited = 0
        """How many threads wait until no job runs."""
        self._held_by = 0
        """The thread whose job is to run alone; 0: none."""

    def submit(self, job: Job, trace: str | None = None, express: str | None = None) -> None:
        """Add a job to the end of the queue. `trace` is the chain of calls that it belongs to; where a handler of this
        worker waits for that chain, the handler runs the job instead. `express`: it goes before a backlog, behind what
        this node has sent before it (empty: of nobody)."""
        if trace is None and express is None:
            self._jobs.put(job)
            return
        queued = _Queued(job, trace, express)
        with self._lock:
            if trace is not None:
                if nested := self._waiting.get(trace):
                    nested[-1].put(job)
                    return
                self._chained.setdefault(trace, []).append(queued)
            if express is not None:
                self._express.append(queued)
            self._jobs.put(queued)

    def serves(self, trace: str | None) -> bool:
        """Whether a handler waits for this chain of calls, so that a job of the chain would be run at once."""
        return trace is not None and trace in self._waiting

    def interrupt(self, job: Job) -> None:
        """Run a job before all queued ones, as soon as the current one is finished."""
        self._urgent.append(job)
        self._jobs.put(_Nothing())

    @property
    def queued(self) -> int:
        """The number of jobs in the queue."""
        lanes = sum(map(len, list(self._lanes.values())))
        return self._jobs.qsize() + lanes + max(0, len(self._backlog) - self._run_elsewhere)

    def before(self, job: Job, node: str) -> int | None:
        """How many jobs are to be run before an express job of that node: all of them its own messages and calls, where
        there is a backlog. None where the job does not wait here."""
        with self._lock:
            self._sort_in()
            self._jobs.put(_Nothing())  # the worker may have been about to take what is in `_backlog` now
            self._pull_forward()
            waiting: Iterable[object] = self._lanes.get(node, ())
            if not any(_is(each, job) for each in waiting):
                waiting = self._backlog
            return next((at for at, each in enumerate(waiting) if _is(each, job)), None)

    def messages_of(self, node: str) -> int:
        """How many messages of a sender wait."""
        with self._lock:
            self._sort_in()
            self._jobs.put(_Nothing())
            return self._nodes[node] + sum(_node_of(each) == node for each in self._lanes.get(node, ()))

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
        self.join(_HELPERS_S)
        self._running = False

    def stop(self) -> None:
        """End after the jobs that were submitted before this call."""
        for _ in range(max(1, self.threads)):
            self._jobs.put(None)

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for the end of the worker's own threads, for `timeout_s` in all. One whose job does not return goes on
        until its process ends."""
        deadline = None if timeout_s is None else Deadline(timeout_s)
        for helper in self._helpers:
            if helper is not threading.current_thread():
                helper.join(None if deadline is None else deadline.left())

    def run_pending(self) -> int:
        """Run the queued jobs on the caller's thread; returns how many there were."""
        done = 0
        while True:
            while self._urgent:
                self.perform(self._urgent.pop(0))
                done += 1
            with self._lock:
                job = self._next_of_backlog() if self._backlog or self._lanes else _Nothing()
            if isinstance(job, _Nothing):
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    return done
            if isinstance(job, _Queued):
                job = job.job if self._take(job) else None
            if job is not None and not isinstance(job, _Nothing):
                self.perform(job)
                done += 1

    def perform(self, job: Job) -> None:
        """Run one job on this thread, and call its `failed()` where it raises. Raises nothing, with one exception: the
        `KeyboardInterrupt` of a thread that is not the worker's own (`run_pending`, or a lab) is its owner's Ctrl-C."""
        me = threading.get_ident()
        outermost = me not in self._active
        self._active.add(me)
        forked = forks.times
        try:
            job.run()
        except BaseException as error:  # the worker loop: user code may raise anything
            if forks.times != forked:
                forks.end_forked(error)
            self._fail(job, error)
            if isinstance(error, KeyboardInterrupt) and not self._running:
                raise
        finally:
            if outermost:
                self._leave(me)
        if forks.times != forked:
            forks.end_forked(None)

    def _fail(self, job: Job, error: BaseException) -> None:
        """Tell a job of its error. Its answer may find no room, or no connection; the next job has to run all the
        same."""
        try:
            job.failed(error)
        except BaseException:
            logger.exception("a failure could not be reported")

    def wait_alone(self, timeout_s: float) -> bool:
        """Inside a job: wait until no other job runs. False when the time is over. Where it is this worker's job, the
        worker's other threads begin nothing until it has ended: with a backlog they would never all be idle."""
        me = threading.get_ident()
        with self._changed:
            if me in self._active:
                self._held_by = me
            self._awaited += 1
            try:
                return self._changed.wait_for(lambda: not self._active - {me}, timeout_s)
            finally:
                self._awaited -= 1

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
            self._forget_taken()
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
        while True:
            try:
                if (job := self._next()) is None:
                    return
                while self._urgent:
                    self.perform(self._urgent.pop(0))
                if self._held_by:
                    self._wait_for_turn()
                if not isinstance(job, _Queued):
                    self.perform(job)
                elif self._take(job):
                    self.perform(job.job)
            except Stopped:
                continue  # raised just after its handler had returned
            except BaseException:  # by a signal handler of the user's, between two jobs
                logger.exception("an exception between two jobs; the worker goes on")

    def _next(self) -> Job | _Queued | None:
        """The next job, in waits of `_SIGNALS_S`."""
        while True:
            wait_s = _SIGNALS_S if self.turn is None else min(_SIGNALS_S, self.turn())
            if self._express or self._backlog or self._lanes:
                with self._lock:
                    job = self._next_of_backlog()
                if not isinstance(job, _Nothing):
                    return job
            try:
                return self._jobs.get(timeout=wait_s)
            except queue.Empty:
                continue

    # -- the backlog; all of it under the lock

    def _next_of_backlog(self) -> Job | _Queued | None:
        """The next job of the lanes or the backlog; `_Nothing` where there is none."""
        self._pull_forward()
        if not self._lanes:
            return self._backlog.popleft() if self._note_turn() else _Nothing()
        if "" not in self._lanes and self._owes_turn and self._note_turn():
            job = self._backlog.popleft()
            if job is not None:
                return job
            self._backlog.appendleft(None)  # the end comes after what was there before it, in the lanes, too
        return self._next_of_lanes()

    def _next_of_lanes(self) -> Job | _Queued:
        calls = (node for node, lane in self._lanes.items() if not node or isinstance(lane[0], _Queued))
        node = "" if "" in self._lanes else next(calls, next(iter(self._lanes)))
        lane = self._lanes.pop(node)
        job = lane.popleft()
        if lane:
            self._lanes[node] = lane  # behind the others, so that they take turns
        self._owes_turn = bool(node) and isinstance(job, _Queued)
        return job

    def _note_turn(self) -> bool:
        """Make the first job of the backlog one that may be run in its turn; False where there is none. A message whose
        sender has a lane goes to its end, so that messages of one sender keep their order."""
        self._owes_turn = False
        while self._backlog:
            job = self._backlog[0]
            node = _node_of(job)
            moved = isinstance(job, _Queued) and job.pulled
            if node is not None:
                self._count_down(node)
                if node in self._lanes and job is not None:
                    self._lanes[node].append(job)
                    moved = True
            elif moved:
                self._run_elsewhere -= 1
            if not moved:
                return True
            self._backlog.popleft()
        self._run_elsewhere = 0
        return False

    def _is_backlog(self) -> bool:
        waiting = self._jobs.qsize() + len(self._backlog) - self._run_elsewhere
        return waiting - len(self._express) >= BACKLOG or self.behind()

    def _forget_taken(self) -> None:
        while self._express and self._express[0].taken:
            self._express.popleft()

    def _sort_in(self) -> None:
        with suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()  # never a wait: the worker's lock is held
                if isinstance(job, _Nothing):
                    continue
                self._backlog.append(job)
                if (node := _node_of(job)) is not None:
                    self._nodes[node] += 1
        for _ in range(self.threads - 1):
            self._jobs.put(_Nothing())  # the other threads may have been about to take what is in `_backlog` now

    def _pull_forward(self) -> None:
        """Where there is a backlog, move the express jobs to the lanes of their callers, each behind the messages that
        its caller sent before it. A job stays in the backlog, too, where it is skipped when its turn comes; so the
        backlog is looked through only for a caller that has messages in it."""
        self._forget_taken()
        if not self._express or not (self._lanes or self._is_backlog()):
            return
        self._sort_in()
        while self._express:
            express = self._express.popleft()
            node = express.express or ""
            lane = self._lanes.setdefault(node, deque())
            if node and (self._nodes[node] or self._nodes[ANYBODY]):
                self._pull_messages(node, express, lane)
            lane.append(express)
            express.pulled = True
            self._run_elsewhere += 1

    def _pull_messages(self, node: str, upto: _Queued, lane: deque[Job | _Queued]) -> None:
        """Move a sender's messages in front of a job of the backlog to a lane."""
        jobs, self._backlog = self._backlog, deque()
        ahead = True
        for job in jobs:
            ahead = ahead and job is not upto
            sender = _node_of(job)
            if ahead and job is not None and sender is not None and sender in (node, ANYBODY):
                self._count_down(sender)
                lane.append(job)
            else:
                self._backlog.append(job)

    def _count_down(self, node: str) -> None:
        self._nodes[node] -= 1
        if not self._nodes[node]:
            del self._nodes[node]  # senders come and go

    def _take(self, queued: _Queued) -> bool:
        """Take a job out of its chain, to run it in the loop; False where a waiting handler, or the loop, has taken
        it."""
        with self._lock:
            if queued.taken:
                return False
            queued.taken = True
            self._forget_taken()
            if queued.trace is not None:
                chain = self._chained[queued.trace]
                chain.remove(queued)
                if not chain:
                    del self._chained[queued.trace]
            return True

    def _wait_for_turn(self) -> None:
        """Wait while another thread's job runs alone."""
        me = threading.get_ident()
        with self._changed:
            while self._held_by not in (0, me):
                self._changed.wait(_SIGNALS_S)

    def _leave(self, me: int) -> None:
        self._active.discard(me)
        if self._held_by == me:
            self._held_by = 0
        if self._awaited or self.threads > 1:
            with self._changed:
                self._changed.notify_all()


class _Queued:
    """A job in the ordinary queue that belongs to a chain of calls (`trace`), or that goes before a backlog (`express`:
    behind the messages of that node). `taken`: it was run, or is being run. `pulled`: it stands in a lane, too."""

    __slots__ = ("express", "job", "pulled", "taken", "trace")

    def __init__(self, job: Job, trace: str | None, express: str | None) -> None:
        self.job, self.trace, self.express = job, trace, express
        self.taken = self.pulled = False


class _Nothing:
    """A job that only wakes the worker."""

    def run(self) -> None:
        pass

    def failed(self, error: BaseException) -> None:
        pass


def _node_of(job: object) -> str | None:
    """The sender of a job that is a message; None for all others."""
    node: str | None = getattr(job, "node", None)
    return node


def _is(queued: object, job: Job) -> bool:
    return isinstance(queued, _Queued) and queued.job is job


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
