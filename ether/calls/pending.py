"""A call under way, as the caller holds it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from ether.connection.link import Inbound
from ether.errors import EtherError
from ether.protocol.answers import LOG, ErrorReport
from ether.spec.marks import MarkKind

Done = Callable[[], None]
Watch = Callable[[float, str], None]
Outcome = tuple[object, ErrorReport | EtherError | None]
"""A value, or None and why there is none."""


class PendingCall:
    """A call under way. Settled once; may be waited for by several threads, and watched."""

    def __init__(
        self, call: str, instance: str, kind: MarkKind | None, timeout_s: float, correlation: bytes | None = None
    ) -> None:
        self.call = call
        self.instance = instance
        self.kind = kind
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s
        self.correlation = correlation or os.urandom(16)
        self.progress: tuple[float, str] | None = None
        self.log: list[dict[str, Any]] = []
        self.status: Mapping[str, Any] | None = None
        self.cancel_here: Callable[[], None] | None = None
        self.when_cut: Callable[[EtherError], None] | None = None
        """For a save, which outlives what ends every other call: it is told of that, and goes on."""
        self.when_late: Callable[[], None] | None = None
        """For a save, shortly before its deadline: its promise is prepared."""
        self._take: Callable[[], Outcome] | None = None
        self._outcome: Outcome | None = None
        self._settled = False
        self._open = threading.Lock()
        self._open.acquire()
        self._callbacks: list[Done] = []
        self._watchers: list[Watch] = []
        self._lock = threading.Lock()

    @property
    def settled(self) -> bool:
        """True once there is an answer or an error."""
        return self._settled

    def settle(self, take: Callable[[], Outcome]) -> bool:
        """The end, told by whoever took this out of the table of requests. `take` gives the value or the error; it is
        called once, by the first who wants to know. False where it was over before: a save's first end counts."""
        with self._lock:
            if self._settled:
                return False
            self._take, self._settled = take, True
            callbacks, self._callbacks = self._callbacks, []
        self._open.release()
        for done in callbacks:
            done()
        return True

    def take_note(self, schema: str, value: object) -> None:
        """A forerunner of the answer."""
        match value:
            case dict() if schema == LOG:
                self.log.append(value)
            case {"fraction": int(fraction) | float(fraction), "text": str(text)}:
                self.progress = (float(fraction), text)
                for watch in tuple(self._watchers):
                    watch(float(fraction), text)

    def fail(self, error: EtherError) -> None:
        """The end without an answer."""
        self.settle(lambda: (None, error))

    def cut(self, error: EtherError) -> None:
        """This attempt will not be answered: the end, except for a save."""
        if self.when_cut is None:
            self.fail(error)
        else:
            self.when_cut(error)

    def when_done(self, done: Done) -> None:
        """Call `done` when settled, on the thread that settles; at once where it is."""
        with self._lock:
            if not self._settled:
                self._callbacks.append(done)
                return
        done()

    def watch(self, watch: Watch) -> None:
        """Call `watch` with every progress report from now on, on the dispatch thread, and with the last one now."""
        self._watchers.append(watch)
        if self.progress is not None:
            watch(*self.progress)

    def wait(self, until: float) -> bool:
        """Wait until settled or a point on the monotonic clock."""
        if self._settled:
            return True
        if not self._open.acquire(timeout=max(0.0, until - time.monotonic())):
            return self._settled
        self._open.release()
        return True

    def result(self) -> Any:
        """The value, or the error raised. Only once settled. A large answer is decoded here, on the caller's thread."""
        with self._lock:
            if self._outcome is None:
                assert self._take is not None
                self._outcome = self._take()
            value, error = self._outcome
        if isinstance(error, ErrorReport):
            raise error.to_exception(self.call, self.call)
        if error is not None:
            raise error
        return value


def read_answer(inbound: Inbound) -> Outcome:
    """An answer that arrived."""
    try:
        value, headers = inbound.unpack().value, inbound.headers()
    finally:
        inbound.done()
    failed = headers is not None and headers.error is not None
    return (None, ErrorReport.from_value(value)) if failed else (value, None)
