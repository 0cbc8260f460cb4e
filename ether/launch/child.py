"""A child process of the launcher: how it is started, its lifeline, its output, its end.

The lifeline is the child's standard input: it ends when the launcher dies, however that happens, and a child that
Ether wrote ends then, too. Promise: whatever a child writes is passed on line by line, its last lines are at hand when
it has ended, and `on_end` is called exactly once, when both are complete. The trap: a grandchild may hold the output
open for longer than the child lives, so the end of the output is waited for only briefly.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ether.launch.process_group import ProcessGroup, close_in_forked_children, forget_lifeline

_TAIL_LINES = 30

_OUTPUT_GRACE_S = 1.0
"""How long the last output of a dead child is waited for."""

_ABORT_S = 0.5
"""How long a child that hangs may take to write where its threads are."""

_OF_TERMINATE = (-signal.SIGTERM, 1) if os.name == "nt" else (-signal.SIGTERM,)
"""The exit codes of a process that `terminate()` has ended: Windows has no signals, and gives it a code."""

_PACKAGES = str(Path(__file__).resolve().parents[2])
"""Where the `ether` that runs here was imported from; the child shall import the same."""

Ended = Callable[["Child"], None]


# -- its output


class Pump:
    """A thread that reads a child's stream to its end and passes on every line."""

    def __init__(self, stream: IO[bytes], write: Callable[[str], None], name: str) -> None:
        self._stream = stream
        self._write = write
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._thread = threading.Thread(target=self._run, name=f"ether-output-{name}", daemon=True)
        self._thread.start()

    def tail(self) -> str:
        """The last lines."""
        return "".join(self._tail)

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the stream, which a grandchild may hold open."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        with self._stream:
            for raw in self._stream:
                line = raw.decode("utf-8", "replace")
                line = line if line.endswith("\n") else line + "\n"
                self._tail.append(line)
                self._write(line)


def to_stdout(line: str) -> None:
    """Write a line to this program's standard output."""
    _write(sys.stdout, line)


def to_stderr(line: str) -> None:
    """Write a line to this program's standard error."""
    _write(sys.stderr, line)


_one_line_at_a_time = threading.Lock()


def _write(stream: IO[str] | None, line: str) -> None:
    if stream is None:  # a program without a console
        return
    with _one_line_at_a_time:
        try:
            stream.write(line)
            stream.flush()
        except (OSError, ValueError):
            pass  # the reader of our output has gone, or the stream is closed: the session goes on


# -- the process


class Child:
    """A running child. `on_end` is called once, on a thread of its own, when the child has ended and its output is
    complete."""

    def __init__(
        self,
        name: str,
        command: list[str],
        group: ProcessGroup,
        on_end: Ended,
        *,
        environment: dict[str, str] | None = None,
        on_stdout: Callable[[str], None] = to_stdout,
        on_stderr: Callable[[str], None] = to_stderr,
    ) -> None:
        self.name = name
        self._on_end = on_end
        self._terminated = False
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            **group.options(),
        )
        close_in_forked_children(self._process)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._stdin = self._process.stdin
        self._stdout = Pump(self._process.stdout, on_stdout, f"{name}-stdout")
        self._stderr = Pump(self._process.stderr, on_stderr, f"{name}-stderr")
        self._waiter = threading.Thread(target=self._wait, name=f"ether-wait-{name}", daemon=True)
        self._waiter.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.poll()

    def send(self, data: bytes) -> bool:
        """Write to its standard input; False where it has ended already."""
        try:
            self._stdin.write(data)
            self._stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    @property
    def ended_as_told(self) -> bool:
        """Whether it has ended with exit code 0, or of the signal by which it was told to finish."""
        return self.exit_code == 0 or (self._terminated and self.exit_code in _OF_TERMINATE)

    def how_it_ended(self) -> str:
        """How it ended, for people: its exit code or signal, and its last lines of standard error."""
        code = self.exit_code
        tail = self._stderr.tail()
        how = (
            f"its process ended with exit code {code}" if code is None or code >= 0 else f"was killed by signal {-code}"
        )
        return f"{how}\n{tail}" if tail else how

    def terminate(self) -> None:
        """Tell it to finish, by SIGTERM; nothing where it has ended."""
        self._terminated = True
        self._process.terminate()

    def kill(self) -> None:
        """End it at once; nothing where it has ended."""
        self._process.kill()

    def ended_within(self, timeout_s: float) -> bool:
        """Wait for its end; returns whether it came in time."""
        self._waiter.join(timeout_s)
        return not self._waiter.is_alive() or self.exit_code is not None

    def end(self, timeout_s: float, *, tells_where: bool = False) -> bool:
        """Wait for its end; kill it when the time is over. False where it had to be killed. Twice is fine.

        `tells_where`: the child is an instance, which on SIGABRT writes to its standard error where each of its threads
        is. It gets that signal before it is killed.
        """
        by_itself = self.ended_within(timeout_s)
        if not by_itself:
            if tells_where and os.name == "posix":
                self._process.send_signal(signal.SIGABRT)
                self._waiter.join(_ABORT_S)
            self._process.kill()
        self._waiter.join()
        return by_itself

    def close_stdin(self) -> None:
        """End its standard input: for some children that is the request to end. Twice is fine."""
        if self._stdin.closed:
            return
        forget_lifeline(self._stdin.fileno())
        try:
            self._stdin.close()
        except OSError:
            pass  # what was still buffered for a dead reader

    def _wait(self) -> None:
        """The child's waiting thread."""
        self._process.wait()
        self._stdout.join(_OUTPUT_GRACE_S)
        self._stderr.join(_OUTPUT_GRACE_S)
        self.close_stdin()
        self._on_end(self)


# -- an instance's process


def start_instance(name: str, group: ProcessGroup, on_end: Ended) -> Child:
    """Start an instance's process. It waits for its settings."""
    environment = {**os.environ, **launch_environment()}
    return Child(name, [*python_command(), "-m", "ether", "instance"], group, on_end, environment=environment)


def python_command() -> list[str]:
    """The interpreter for a child, with the safe import path (`-P`); goes with `launch_environment`."""
    return [sys.executable, "-P"]


def launch_environment() -> dict[str, str]:
    """The variables that are changed for the start of a child. With them and the safe import path it finds `ether`
    where its launcher did, and nothing in the working directory shadows the standard library."""
    inherited = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([_PACKAGES, inherited] if inherited else [_PACKAGES])}


def changed_environment() -> dict[str, str | None]:
    """The variables of `launch_environment` with this program's own values: the child takes them when it has started,
    so that the user's code sees the environment that the user has set."""
    return {name: os.environ.get(name) for name in launch_environment()}


def import_path() -> list[str]:
    """The import path of this program, for a child in the same working directory."""
    return [os.path.abspath(place) if place == "" else place for place in sys.path]
