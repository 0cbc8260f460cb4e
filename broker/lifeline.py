"""When the broker has to end: the parent asks for it, the parent dies, or a signal arrives.

The parent holds the writing end of the pipe that is our stdin. When the parent dies, however it dies, the system
closes that end and our read returns nothing.

Other lines are commands to the engine (docs/brokers.md); mosquitto has none.

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

LONGEST_LINE = 1_048_576
SIGNALS_S = 0.5
"""The longest wait of the main thread in one piece. Python runs a signal's handler in the main thread, and a signal
that arrives just before a wait begins does not interrupt it: the handler runs when the wait is over."""


class Lifeline:
    """Watches for the end. Create it in the main thread (signal handlers), before any work that must end in order."""

    def __init__(self) -> None:
        self._on_end: Callable[[], None] | None = None
        self._on_line: Callable[[bytes], None] | None = None
        self._once = threading.Lock()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):  # the last is what Windows has instead of the others
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._on_signal)

    def watch(self, on_end: Callable[[], None], on_line: Callable[[bytes], None] | None = None) -> None:
        """Start to read stdin. `on_end` is called once, from any thread; at once where the end was asked for already.
        `on_line` gets every other line, on the reading thread; of a line beyond `LONGEST_LINE` it gets the beginning.

        Not in the constructor, because a child is forked more safely while there is one thread only.
        """
        self._on_end, self._on_line = on_end, on_line
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
        try:
            self._read_lines()
        finally:  # also where a command meets with a defect: without this thread the parent's death would pass unseen
            self.pull()

    def _read_lines(self) -> None:
        line = b""  # a command counts only as a whole line
        while chunk := _read(0):
            *ended, rest = chunk.replace(b"\r", b"").split(b"\n")
            for part in ended:
                line += part
                if line == b"stop":
                    return
                if line and self._on_line is not None:
                    self._on_line(line)
                line = b""
            line = (line + rest)[:LONGEST_LINE]


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4_096)
    except OSError:
        return b""
