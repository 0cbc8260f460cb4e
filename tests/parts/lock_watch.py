"""Finds violations of the lock discipline (docs/concurrency.md) while tests run.

Nobody publishes, waits or calls user code while holding a lock of `connection/`, `calls/` or `recording/`. The locks
of these rooms are replaced by locks that know which thread holds them: `install` gives every module of the rooms
another `threading` and `queue`. Whatever publishes, waits or runs user code asks then whether its thread holds such a
lock. What is found is noted with its stack, and `check` raises it, after each test.

Only this process is watched, not its children. What counts as user code: a job of a worker, a method of a hosted
object, the serializers of a value, what is called back when a call is settled or reports progress, when the connection
changes, and when a message was acknowledged.
"""

from __future__ import annotations

import functools
import importlib
import linecache
import pkgutil
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

ROOMS = ("ether.connection", "ether.calls", "ether.recording")
ORDER_LOCK = "ether.connection.link: self._publish_lock = threading.Lock()"
"""The one lock under which messages are handed to the transport, which must not wait then: numbers have to leave in
their order."""

installed = False
_state = threading.local()
_found: list[str] = []


def _held() -> list[Any]:
    try:
        return _state.held  # type: ignore[no-any-return]
    except AttributeError:
        _state.held = []
        return _state.held  # type: ignore[no-any-return]


class WatchedLock:
    """A lock that is held, to those who ask, by the thread in its `with` block."""

    def __init__(self, inner: Any, name: str) -> None:
        self._inner, self.name = inner, name
        self._acquire = inner.acquire
        self.release, self.locked = inner.release, getattr(inner, "locked", None)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """A lock that is acquired with a time-out serves as a signal: that is a wait."""
        if timeout > 0:
            _ask("waits for a lock that serves as a signal")
        return bool(self._inner.acquire(blocking, timeout))

    def __enter__(self) -> None:
        self._acquire()
        try:
            _state.held.append(self)
        except AttributeError:
            _state.held = [self]

    def __exit__(self, *_: object) -> None:
        held = _state.held
        if held[-1] is self:
            del held[-1]
        else:  # released in another order than it was taken
            place = max(place for place, lock in enumerate(held) if lock is self)
            del held[place]
        self.release()


class WatchedRLock(WatchedLock):
    """The same, with what a condition needs of an `RLock`."""

    def __init__(self, inner: Any, name: str) -> None:
        super().__init__(inner, name)
        self._release_save, self._acquire_restore = inner._release_save, inner._acquire_restore
        self._is_owned = inner._is_owned


class _Threading(ModuleType):
    """`threading`, as the modules of the rooms see it."""

    def Lock(self) -> Any:  # noqa: N802
        return WatchedLock(threading.Lock(), _maker())

    def RLock(self) -> Any:  # noqa: N802
        return WatchedRLock(threading.RLock(), _maker())

    def Condition(self, lock: Any = None) -> threading.Condition:  # noqa: N802
        return threading.Condition(WatchedRLock(threading.RLock(), _maker()) if lock is None else lock)


class _Queue(ModuleType):
    """`queue`, as the modules of the rooms see it."""

    class SimpleQueue(queue.SimpleQueue[Any]):
        """Its `get` is a wait."""

        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            if block and _held():
                _ask("waits for a queue")
            return super().get(block, timeout)


def _in_place_of(module: ModuleType, kind: type[ModuleType]) -> ModuleType:
    """A module with the names of `module`, but for those that `kind` has. Copied, because each look at a name that a
    module does not have itself costs 3 µs."""
    made = kind(module.__name__)
    vars(made).update({name: value for name, value in vars(module).items() if not hasattr(kind, name)})
    return made


def _maker() -> str:
    """Where a lock is made: the module and the line."""
    frame = sys._getframe(2)
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    return f"{frame.f_globals['__name__']}: {line}"


def _ask(what: str, *, but: object = None) -> None:
    """Note a violation where this thread holds a lock other than `but`."""
    held = [lock for lock in _held() if lock is not but]
    if held:
        stack = "".join(traceback.format_stack(sys._getframe(2), limit=14))
        _found.append(f"{threading.current_thread().name} {what} while it holds {held[-1].name}\n{stack}")


def _wrapped(owner: Any, name: str, before: Callable[..., None]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        if _held():
            before(*args, **kwargs)
        return original(*args, **kwargs)

    setattr(owner, name, watched)


def _saying(what: str) -> Callable[..., None]:
    return lambda *_, **__: _ask(what)


def _on_publish(*_: Any, timeout_s: float = 10.0, **__: Any) -> None:  # bare: what it is in the product
    held = _held()
    if timeout_s > 0 or len(held) > 1 or held[0].name != ORDER_LOCK:
        _ask("publishes")


def _on_wait(condition: Any, timeout: float | None = None) -> None:
    if not getattr(_state, "starting", False) and (timeout is None or timeout > 0):
        _ask("waits for a condition or an event", but=condition._lock)


def _on_join(_: object, timeout: float | None = None) -> None:
    if timeout is None or timeout > 0:
        _ask("waits for the end of a thread")


def _watch_starts() -> None:
    """The start of a thread is no wait: the new thread says that it runs before it does anything else."""
    start = threading.Thread.start

    @functools.wraps(start)
    def watched(thread: threading.Thread) -> None:
        _state.starting = True
        try:
            start(thread)
        finally:
            _state.starting = False

    threading.Thread.start = watched  # type: ignore[method-assign]


def install() -> None:
    """Watch from now on; before any object of the rooms is made."""
    global installed
    installed = True
    watched_threading, watched_queue = _in_place_of(threading, _Threading), _in_place_of(queue, _Queue)
    for room in ROOMS:
        for found in pkgutil.iter_modules(importlib.import_module(room).__path__, f"{room}."):
            module = importlib.import_module(found.name)
            unseen = {"Lock", "RLock", "Condition", "SimpleQueue"} & vars(module).keys()
            assert not unseen, f"{found.name} imports {unseen} by name, which the lock watch cannot see"
            if getattr(module, "threading", None) is threading:
                module.threading = watched_threading  # type: ignore[attr-defined]
            if getattr(module, "queue", None) is queue:
                module.queue = watched_queue  # type: ignore[attr-defined]
    _watch_starts()
    _wrapped(threading.Condition, "wait", _on_wait)
    _wrapped(threading.Thread, "join", _on_join)
    _wrap_the_house()


def _wrap_the_house() -> None:
    from ether.calls.client import PendingCall
    from ether.connection.link import Link
    from ether.connection.worker import Worker
    from ether.instance.hosted import HostedInstance
    from ether.transport.connection import NetworkTransport
    from ether.transport.loopback import LoopbackTransport
    from ether.transport.send_queue import SendQueue
    from ether.wire import values

    for transport in (NetworkTransport, LoopbackTransport):
        _wrapped(transport, "publish", _on_publish)
        _wrapped(transport, "subscribe", _saying("waits for the broker"))
        _wrapped(transport, "unsubscribe", _saying("waits for the broker"))
    _wrapped(Worker, "perform", _saying("runs a job"))
    _wrapped(HostedInstance, "call", _saying("calls a method of the user's"))
    _wrapped(values, "_flatten_slowly", _saying("runs serializers, which may be the user's"))
    _wrapped(PendingCall, "settle", _saying("settles a call, which calls back"))
    _wrapped(PendingCall, "take_note", _saying("reports progress, which calls back"))
    _wrapped(Link, "_tell_connection", _saying("tells of the connection, which calls back"))
    _wrapped(SendQueue, "run_callbacks", _saying("tells of acknowledgements, which calls back"))


def check() -> None:
    """Raise what was found since the last call."""
    found, _found[:] = list(_found), []
    assert not found, "a violation of the lock discipline (docs/concurrency.md): " + "\n".join(found[:3])


@contextmanager
def expected() -> Iterator[list[str]]:
    """What the block violates is put into the list, and counts no more."""
    before = len(_found)
    found: list[str] = []
    try:
        yield found
    finally:
        found += _found[before:]
        del _found[before:]
