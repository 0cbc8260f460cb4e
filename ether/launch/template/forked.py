"""A process that a template has forked, for its launcher: what `subprocess.Popen` is for one that was executed.

It is no child of the launcher's: the template waits for it, and tells how it has ended. Promises: a signal reaches this
process or nobody, because it goes by the system's handle of it (a pidfd), which also says that it has ended; and its
end is known, too, where the template has been killed before. The trap: how it has ended is not known then, except by
what it has said itself.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from contextlib import suppress
from typing import IO

_TOLD_WITHIN_S = 5.0
"""How long the template may take to tell how a process has ended, whose end the system has told."""
UNKNOWN = 255
"""The exit code of a process of which nobody knows it."""


class ForkedProcess:
    """One forked process, with the launcher's ends of its standard streams."""

    def __init__(self, pid: int, handle: int, stdin: IO[bytes], stdout: IO[bytes], stderr: IO[bytes]) -> None:
        self.pid = pid
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self.known = True
        """Whether it is known how it has ended."""
        self._handle = handle
        self._lock = threading.Lock()
        self._code: int | None = None
        self._told = threading.Event()

    def tell(self, code: int | None) -> None:
        """It has ended with this exit code; None: nobody will tell it any more. May be called on any thread."""
        if self._code is None:
            self._code = code
        self._told.set()

    def poll(self) -> int | None:
        """Its exit code; None where it runs, and until `wait` has returned where nobody tells it."""
        return self._code

    def wait(self) -> int | None:
        """Return when it has ended: its exit code, None where nobody has told it. For one thread."""
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        poll.poll()
        self._told.wait(_TOLD_WITHIN_S)
        with self._lock:
            os.close(self._handle)
            self._handle = -1
        return self._code

    def settle(self, said: int | None) -> None:
        """Nobody has told how it ended: believe what it has said itself, None for nothing."""
        self.known = said is not None
        self._code = UNKNOWN if said is None else said

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing where it has ended."""
        with self._lock, suppress(ProcessLookupError):
            if self._handle >= 0 and self._code is None:
                signal.pidfd_send_signal(self._handle, number)

    def terminate(self) -> None:
        """As `Popen.terminate`."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """As `Popen.kill`."""
        self.send_signal(signal.SIGKILL)
