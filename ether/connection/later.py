"""Tasks for a later moment, on one thread of their own. For what follows from a message on a thread that must not wait:
publishing after an outage, looking again at a member that was silent.

Promise: the thread is there only while a task waits or runs, so a process that never needs it never has it. The trap: a
task that waits delays all others.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from itertools import count

from ether.errors import EtherError
from ether.log import get_ether_logger

logger = get_ether_logger("Ether")

Task = Callable[[], object]


class Later:
    """The tasks of one process."""

    def __init__(self, name: str) -> None:
        """`name` is the thread's."""
        self._name = name
        self._changed = threading.Condition()
        self._tasks: list[tuple[float, int, Task]] = []
        self._numbers = count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def after(self, pause_s: float, task: Task) -> None:
        """Run a task after a pause, unless everything is closed before. Only enqueues; may be called on any thread."""
        with self._changed:
            if self._closed:
                return
            heapq.heappush(self._tasks, (time.monotonic() + pause_s, next(self._numbers), task))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            else:
                self._changed.notify()

    def close(self) -> None:
        """Run no more tasks; returns when the one that runs has ended. A second call does nothing."""
        with self._changed:
            self._closed = True
            self._tasks.clear()
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while (task := self._next()) is not None:
            try:
                task()
            except EtherError as error:
                logger.info("%s: %s", self._name, error)
            except Exception:  # a worker loop: one task's defect must not end the others
                logger.exception("%s: a task failed", self._name)

    def _next(self) -> Task | None:
        """Wait for the next task; None where there is none."""
        with self._changed:
            while self._tasks:
                wait_s = self._tasks[0][0] - time.monotonic()
                if wait_s <= 0:
                    return heapq.heappop(self._tasks)[2]
                self._changed.wait(wait_s)
            self._thread = None  # under the lock: the next task starts another thread
            return None
