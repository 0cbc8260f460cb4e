"""When the broker has to end: the parent asks for it, the parent dies, or a signal arrives.

The parent holds the writing end of the pipe that is our stdin. When the parent dies, however it dies, the system
closes that end and our read returns nothing.

Promise: a line "stop" on stdin, the end of stdin, SIGTERM and SIGHUP all lead to a call of the callback `on_end`,
once, within milliseconds. SIGINT is ignored: Ctrl-C reaches every process of a terminal, and the parent decides what
it means.
The trap: where a signal ends the process, the thread that reads stdin stays blocked in its read. It must hold none of
Python's locks then, so it reads the descriptor, not `sys.stdin`, whose lock Python takes at exit.
"""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

SIGNALS_S = 0.5
"""The longest wait of the main thread in one piece. Python runs a signal's handler in the main thread, and a signal
that arrives just before a wait begins does not interrupt it: the handler runs when the wait is over."""


class Lifeline:
    """Watches for the end. Create it in the main thread (signal handlers), before any work that must end in order."""

    def __init__(self) -> None:
        self._on_end: Callable[[], None] | None = None
        self._once = threading.Lock()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):  # the last is what Windows has instead of the others
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._on_signal)

    def watch(self, on_end: Callable[[], None]) -> None:
        """Start to read stdin. `on_end` is called once, from any thread; at once where the end was asked for already.

        Not in the constructor, because a child is forked more safely while there is one thread only.
        """
        self._on_end = on_end
        if self._once.locked():
            on_end()
        threading.Thread(target=self._read_stdin, name="lifeline", daemon=True).start()

    def pull(self) -> None:
        """Ask for the end; every call after the first does nothing.

        The lock is never released: it is a flag that can be tested and set in one step, also in a signal handler.
        """
        if self._once.acquire(blocking=False) and self._on_end is not None:
            self._on_end()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.pull()

    def _read_stdin(self) -> None:
        received = b"\n"  # as if a line had ended: the command counts only as a whole line
        while b"\nstop\n" not in received:
            chunk = _read(0)
            if not chunk:
                break
            received = received[-16:] + chunk.replace(b"\r", b"")
        self.pull()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4_096)
    except OSError:
        return b""
