"""Threads that are started inside a handler, or in the body of a trial, have its cause; and so have jobs that are given
to a `ThreadPoolExecutor` there.

A context variable ends at the border of a thread (Python 3.14 can hand it over, and does not by default). So
`threading.Thread.start` and `ThreadPoolExecutor.submit` are replaced, once for a process, by functions that do the same
and hand over Ether's cause, and nothing else of the context. Where there is no cause they only call the original.

What cannot be known: a thread that the object has from its beginning, and that gets work through a queue, has no cause
(`contextvars.copy_context().run(…)`, called by the handler and run by the thread, hands it over); nor has a callback
that a library calls from a thread of C; nor another process.

The traps. A pool's threads are started by whoever comes first, and work for all: they must not inherit, only their jobs
do. And a thread may never end (a camera that streams): `CausedWork` lets it go after the trial has waited for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.thread import ThreadPoolExecutor
from typing import Any

from ether.connection import causes
from ether.connection.causes import NOTHING, Cause, handling

_OWN = "ether-"
"""Begins the names of Ether's own threads, which serve many causes."""

_replaced: dict[str, Callable[..., Any]] = {}
"""What was replaced: the library's functions, or those that somebody has put in their place before."""


def follow_threads() -> None:
    """From now on threads and jobs of executors inherit causes, in this process. A second call does nothing."""
    if not _replaced:
        _replaced.update(start=threading.Thread.start, submit=ThreadPoolExecutor.submit)
        threading.Thread.start = _start_caused  # type: ignore[method-assign]
        ThreadPoolExecutor.submit = _submit_caused  # type: ignore[assignment,method-assign]


def _start_caused(self: threading.Thread) -> None:
    cause, start = causes.current(), _replaced["start"]
    if cause is NOTHING or self.name.startswith(_OWN):
        start(self)
        return
    heir, leave = _heir_of(cause, f"the thread {self.name!r}")
    attributes, run = vars(self), self.run
    own = attributes.get("run")

    def put_back() -> None:
        attributes.pop("run", None)
        if own is not None:
            attributes["run"] = own

    def run_caused() -> None:
        put_back()
        causes.become(heir)
        try:
            run()
        finally:
            leave()

    attributes["run"] = run_caused
    try:
        start(self)
    except BaseException:
        put_back()
        leave()
        raise


def _submit_caused(self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
    cause, submit = causes.current(), _replaced["submit"]
    if cause is NOTHING:
        return submit(self, fn, *args, **kwargs)  # type: ignore[no-any-return]
    heir, leave = _heir_of(cause, f"a job of an executor, {getattr(fn, '__qualname__', repr(fn))}")

    def run_caused(*args: Any, **kwargs: Any) -> Any:
        with handling(heir):
            return fn(*args, **kwargs)

    try:
        with handling(NOTHING):  # this may start a thread of the pool
            future: Future[Any] = submit(self, run_caused, *args, **kwargs)
    except BaseException:
        leave()
        raise
    future.add_done_callback(lambda _: leave())
    return future


def _heir_of(cause: Cause, what: str) -> tuple[Cause, Callable[[], None]]:
    """The cause for another thread, without the worker, and what to call when that thread has finished."""
    work, heir = cause.work, None
    if work is not None and (origin := causes.origin()) is not None:
        heir = work.adopt(origin, what, cause.heir)

    def leave() -> None:
        if work is not None and heir is not None:
            work.release(heir)

    return Cause(cause.message_id, cause.trace, None, cause.call, cause.origin, work, heir or cause.heir), leave
