"""The page of `ether run --page` and of `ether.plot`: `ether dashboard` in a process of its own.

The session does not depend on it: whatever becomes of the page, the session goes on. The page ends with its program,
also where that is killed: its standard input ends then.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from types import TracebackType

_END_S = 5.0


class PageProcess:
    """A context manager that ends the page, where one was started."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, session: str, *, view: str = "") -> None:
        """Open the page of a session that runs on this machine, at a view such as `values?p=temperature`. What it
        prints goes to standard error."""
        from ether.launch.child import module_command, start_environment

        at = ["--view", view] if view else []
        command = [*module_command(), "dashboard", "--ends-with-input", *at, "--", session]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sys.stderr, env=start_environment())

    def __enter__(self) -> PageProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End the page; without one nothing happens."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
