"""A child process of the launcher: its lifeline, its output, its end."""

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
_one_line_at_a_time = threading.Lock()


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
        """Wait for the end of the stream: a grandchild may hold it open for longer than its parent lives."""
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


def _write(stream: IO[str] | None, line: str) -> None:
    if stream is None:  # a program without a console
        return
    with _one_line_at_a_time:
        try:
            stream.write(line)
            stream.flush()
        except (OSError, ValueError):
            pass  # the reader of our output has gone, or the stream is closed: the session goes on


_OUTPUT_GRACE_S = 1.0
"""How long the last output of a dead child is waited for."""

_ABORT_S = 0.5
"""How long a child that hangs may take to say where."""

_PACKAGES = str(Path(__file__).resolve().parents[2])
"""Where the `ether` that runs here was imported from; the child shall import the same."""

Ended = Callable[["Child"], None]


class Child:
    """A running child. `on_end` is called once, on a thread of its own, when it has ended and its output is out."""

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
        self._watch = threading.Thread(target=self._wait, name=f"ether-wait-{name}", daemon=True)
        self._watch.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.poll()

    def send(self, data: bytes) -> bool:
        """Write to its standard input; False where it is dead already."""
        try:
            self._stdin.write(data)
            self._stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    def how_it_ended(self) -> str:
        """For people."""
        code = self.exit_code
        said = self._stderr.tail()
        how = (
            f"its process ended with exit code {code}" if code is None or code >= 0 else f"was killed by signal {-code}"
        )
        return f"{how}\n{said}" if said else how

    def terminate(self) -> None:
        """Tell it by a signal to finish; nothing where it has ended."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once; nothing where it has ended."""
        self._process.kill()

    def ended_within(self, timeout_s: float) -> bool:
        """Wait for its end; whether it came."""
        self._watch.join(timeout_s)
        return not self._watch.is_alive() or self.exit_code is not None

    def end(self, timeout_s: float, *, tells_where: bool = False) -> bool:
        """Wait for its end; kill it when the time is over. False where it had to be killed. Twice is fine.

        `tells_where`: it is an instance, which by SIGABRT says on its standard error where each of its threads is.
        """
        by_itself = self.ended_within(timeout_s)
        if not by_itself:
            if tells_where and os.name == "posix":
                self._process.send_signal(signal.SIGABRT)
                self._watch.join(_ABORT_S)
            self._process.kill()
        self._watch.join()
        return by_itself

    def close_stdin(self) -> None:
        """End its standard input: for some children that is the sign to end. Twice is fine."""
        if self._stdin.closed:
            return
        forget_lifeline(self._stdin.fileno())
        try:
            self._stdin.close()
        except OSError:
            pass  # what was still buffered for a dead reader

    def _wait(self) -> None:
        self._process.wait()
        self._stdout.join(_OUTPUT_GRACE_S)
        self._stderr.join(_OUTPUT_GRACE_S)
        self.close_stdin()
        self._on_end(self)


def start_instance(name: str, group: ProcessGroup, on_end: Ended) -> Child:
    """Start an instance's process. It waits for its settings."""
    environment = {**os.environ, **launch_environment()}
    return Child(name, [*python_command(), "-m", "ether", "instance"], group, on_end, environment=environment)


def python_command() -> list[str]:
    """The interpreter of a child with the safe import path, for `launch_environment`."""
    return [sys.executable, "-P"]


def launch_environment() -> dict[str, str]:
    """With the safe import path (`-P`) a child finds `ether` where its launcher did and nothing in the working
    directory instead of the standard library."""
    inherited = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([_PACKAGES, inherited] if inherited else [_PACKAGES])}


def changed_environment() -> dict[str, str | None]:
    """What a child has to give back after its start."""
    return {name: os.environ.get(name) for name in launch_environment()}


def import_path() -> list[str]:
    """The import path as a child in the same working directory must have it."""
    return [os.path.abspath(place) if place == "" else place for place in sys.path]
