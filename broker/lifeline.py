"""When to stop: the parent's word, the parent's death, or a signal.

Promise: a line "stop" on stdin, the end of stdin, SIGTERM and SIGHUP all lead to one call of `pulled`, once, within
milliseconds. SIGINT is ignored: Ctrl-C reaches every process of a terminal, and what it means is the parent's business.
The trap: the thread that reads stdin stays blocked there for ever when a signal ends the process, so it must hold no
lock of Python's own: it reads the descriptor, not `sys.stdin`.
"""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

SIGNALS_S = 0.5
"""For so long the main thread may wait at a stretch. A signal that comes in the moment before a wait does not wake it,
and Python runs the handler only then."""


class Lifeline:
    """Watches for the end. Create it in the main thread (signals), before anything that must not be cut off."""

    def __init__(self) -> None:
        self._pulled: Callable[[], None] | None = None
        self._once = threading.Lock()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):  # the last is what Windows has instead of the others
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._on_signal)

    def watch(self, pulled: Callable[[], None]) -> None:
        """Start to read stdin, and have `pulled` called at the end, from any thread; at once if it has come already.

        Not in the constructor: a child is forked more safely before there are threads.
        """
        self._pulled = pulled
        if self._once.locked():
            pulled()
        threading.Thread(target=self._read_stdin, name="lifeline", daemon=True).start()

    def pull(self) -> None:
        """Ask for the end; every call after the first does nothing."""
        if self._once.acquire(blocking=False) and self._pulled is not None:
            self._pulled()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.pull()

    def _read_stdin(self) -> None:
        said = b"\n"
        while b"\nstop\n" not in said:
            chunk = _read(0)
            if not chunk:
                break
            said = said[-16:] + chunk.replace(b"\r", b"")
        self.pull()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4_096)
    except OSError:
        return b""
