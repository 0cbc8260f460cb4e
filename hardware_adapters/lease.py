"""One lock for each port, with a lease that names its holder.

    with port.lease("calibration", reason="zero point"):
        port.query("CAL?")          # no other thread's command comes between

A lease belongs to the thread that took it; other threads may act under it with `lease.joined()`. A thread that has
the lease may lease again: each thread's entries are counted, and the last exit frees the port. Threads are served in
the order in which they came. A thread that waits too long gets `PortBusy`, which names the holder, its reason and
since when.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType

from hardware_adapters.errors import PortBusy


@dataclass(frozen=True, slots=True)
class Holding:
    """The holder of a port, its reason, and since when (seconds of the epoch)."""

    holder: str
    reason: str
    since: float = field(default_factory=time.time)

    def __str__(self) -> str:
        return f"{self.holder} (since {time.strftime('%H:%M:%S', time.localtime(self.since))})"


class PortLock:
    """The lock of one port."""

    def __init__(self, port: str) -> None:
        self.port = port
        self._changed = threading.Condition()
        self._lease: Lease | None = None
        self._queue: deque[object] = deque()  # else a thread that leases in a loop would never let others in

    @property
    def holding(self) -> Holding | None:
        """The present holder; None where the port is free."""
        lease = self._lease
        return lease.holding if lease else None

    def lease(self, holder: str, reason: str = "", timeout_s: float = 5.0) -> Lease:
        """Take the port for `holder`. Raises PortBusy where it is not free within `timeout_s` seconds."""
        me = threading.get_ident()
        with self._changed:
            if self._lease is None or not self._lease.admits(me):
                self._wait(timeout_s)
                self._lease = Lease(self, Holding(holder, reason))
            self._lease.enter(me)
            return self._lease

    def _wait(self, timeout_s: float) -> None:
        """Wait until the port is free and this thread is the first of the queue. The condition is held."""
        turn = object()
        self._queue.append(turn)
        try:
            if not self._changed.wait_for(lambda: self._lease is None and self._queue[0] is turn, timeout_s):
                held = self._lease.holding if self._lease else None
                raise PortBusy(
                    self.port, holder=str(held or "those who came before"), reason=held.reason if held else ""
                )
        finally:
            self._queue.remove(turn)
            self._changed.notify_all()

    def interrupt(self, why: str) -> None:
        """Mark the present lease: the device was lost during it, so the holder's sequence of commands is broken."""
        with self._changed:
            if self._lease is not None:
                self._lease.interrupted = why

    def leave(self, lease: Lease) -> None:
        """Count an exit of this thread; the last exit frees the port. For `Lease`."""
        with self._changed:
            if lease.exit(threading.get_ident()) and self._lease is lease:
                self._lease = None
                self._changed.notify_all()

    def enter(self, lease: Lease) -> None:
        """Count an entry of this thread into a lease that is still held. For `Lease`."""
        with self._changed:
            if self._lease is not lease:
                raise PortBusy(self.port, holder=str(self.holding or "nobody"), reason="the lease has ended")
            lease.enter(threading.get_ident())


class Lease:
    """A port that is held. A context, or ended with `release()`."""

    def __init__(self, lock: PortLock, holding: Holding) -> None:
        self._lock, self.holding, self.interrupted = lock, holding, ""
        self._entries: Counter[int] = Counter()

    def admits(self, thread: int) -> bool:
        """Whether this thread acts under the lease."""
        return self._entries[thread] > 0

    def enter(self, thread: int) -> None:
        """Count an entry; the lock's condition is held."""
        self._entries[thread] += 1

    def exit(self, thread: int) -> bool:
        """Count an exit; whether it was the last one. The lock's condition is held."""
        if self._entries[thread] > 0:
            self._entries[thread] -= 1
        return not any(self._entries.values())

    def release(self) -> None:
        """Give the port back, once for each time it was taken."""
        self._lock.leave(self)

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Let the calling thread act under this lease of another thread. Raises PortBusy where the lease has ended."""
        self._lock.enter(self)
        try:
            yield
        finally:
            self._lock.leave(self)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
