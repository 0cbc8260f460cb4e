"""Methods that a thread of their own calls again and again: blocking reads, and generators that go on for ever.

Promises: a failure is reported, and the method is called again after a pause that grows to some seconds; None means
that nothing has come, and is not published; a generator that ends is not begun again. The trap: a read that blocks
cannot be interrupted. Its thread is left at the end of the process, so a driver's read should have a time-out.
"""

from __future__ import annotations

import threading

from ether.connection.deadline import Deadline
from ether.instance.host import DriverHost
from ether.system.backoff import Backoff

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_NOTHING_PAUSE_S = 0.002
"""After a call that brought nothing. A read that does not block would take a processor otherwise."""
_END_S = 1.0
"""For all threads of an instance to end."""


class StreamThreads:
    """The streams of one instance, from `start()` to `stop()`."""

    def __init__(self, host: DriverHost) -> None:
        self._host = host
        self._ended = threading.Event()
        self._threads: list[tuple[threading.Thread, threading.Event]] = []

    def start(self) -> None:
        """Start the threads. A second call does nothing."""
        if self._threads or self._ended.is_set():
            return
        for method in self._host.spec.methods:
            if method.streams:
                over = threading.Event()
                thread = threading.Thread(
                    target=self._run, args=(method.name, over), name=f"ether-stream-{method.name}", daemon=True
                )
                self._threads.append((thread, over))
        for thread, _ in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads; waits for them for a moment. A second call does nothing."""
        self._ended.set()
        for _, over in self._threads:
            over.set()
        deadline = Deadline(_END_S)
        for thread, _ in self._threads:
            if thread is not threading.current_thread():
                thread.join(deadline.left())
        self._threads = []

    def _run(self, method: str, over: threading.Event) -> None:
        pauses = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        while not over.is_set():
            try:
                came = self._host.stream(method, over)
            except BaseException as error:  # noqa: BLE001  user code may raise anything; the thread goes on
                if over.is_set():
                    return  # the driver was closed under it
                self._host.report(f"{self._host.spec.name}.{method} (stream)", error, {})
                over.wait(pauses.next_s())
                continue
            pauses = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
            if not came:
                over.wait(_NOTHING_PAUSE_S)
