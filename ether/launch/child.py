"""A child process of the launcher: how it is started, its lifeline, its output, its end.

The lifeline is the child's standard input: it ends when the launcher dies, however that happens, and a child that
Ether wrote ends then, too. Promise: whatever a child writes is passed on line by line, its last lines are at hand when
it has ended, and `on_end` is called exactly once, when both are complete and what an instance's code has started has
ended with it. The trap: a grandchild that is to live on may hold the output open for longer than the child lives, so
the end of the output is waited for only briefly.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ether.launch.child_notes import LAST_STEPS, NOTE, STAGES, exit_code_in
from ether.launch.process_family import ProcessFamily
from ether.launch.process_group import ProcessGroup, close_in_forked_children, forget_lifeline
from ether.launch.template.forked import ForkedProcess
from ether.system.descendants import MARK

_TAIL_LINES = 30

_OUTPUT_GRACE_S = 1.0
"""How long the last output of a dead child is waited for."""

_OF_TERMINATE = (-signal.SIGTERM, 1) if os.name == "nt" else (-signal.SIGTERM,)
"""The exit codes of a process that `terminate()` has ended: Windows has no signals, and gives it a code."""

_PACKAGES = str(Path(__file__).resolve().parents[2])
"""Where the `ether` that runs here was imported from; the child shall import the same."""

Ended = Callable[["Child"], None]

Fork = Callable[[str, str], ForkedProcess | None]
"""Forks the process of an instance, given its name and its mark; None where none can be forked."""


# -- its output


class Pump:
    """A thread that reads a child's stream to its end and passes on every line."""

    def __init__(
        self, stream: IO[bytes], write: Callable[[str], None], name: str, note: Callable[[str], None] | None = None
    ) -> None:
        """`note` is called with what the child says to its launcher between its lines (`child_notes`)."""
        self._stream = stream
        self._write = write
        self._note = note
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
                if self._note is not None and NOTE in raw:
                    raw, _, note = raw.partition(NOTE)
                    self._note(note.decode("ascii", "replace").strip())
                    if not raw:
                        continue
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
        program: list[str] | ForkedProcess,
        group: ProcessGroup,
        on_end: Ended,
        *,
        environment: dict[str, str] | None = None,
        on_stdout: Callable[[str], None] = to_stdout,
        on_stderr: Callable[[str], None] = to_stderr,
        mark: str | None = None,
    ) -> None:
        """`program`: a command, or a process that runs already. `mark`: the child leads a process group of its own, and
        what it starts ends with it and is found by this mark; an empty one: what it starts lives on. None for a child
        that starts nothing."""
        self.name = name
        self._on_end = on_end
        self._terminated = False
        self._said: set[str] = set()
        self._said_changed = threading.Condition()
        self._is_over = False
        self.step: tuple[str, float] = "", time.monotonic()
        """The last step that it is taking, of `child_notes.LAST_STEPS`, empty for none, and since when. One value,
        because another thread reads it: an old beginning beside a new step would look like a time that is over."""
        self._group = group
        self._said_code: int | None = None
        self._process = (
            program
            if isinstance(program, ForkedProcess)
            else subprocess.Popen(
                program,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                **(group.options() if mark is None else group.options_of_leader()),
            )
        )
        if mark is not None:
            group.admit(self._process.pid, alone=not mark)
        self._family = ProcessFamily(name, self._process.pid, mark) if mark and os.name == "posix" else None
        assert self._process.stdin is not None
        close_in_forked_children(self._process.stdin.fileno())
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._stdin = self._process.stdin
        self._stdout = Pump(self._process.stdout, on_stdout, f"{name}-stdout")
        self._stderr = Pump(self._process.stderr, on_stderr, f"{name}-stderr", None if mark is None else self._note)
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
        if isinstance(self._process, ForkedProcess) and not self._process.known:
            how = "its process ended, nobody knows how: the template process that it was forked from had died before"
        return f"{how}\n{tail}" if tail else how

    def look(self) -> None:
        """Note what it has started, because it is about to end."""
        if self._family is not None and self.exit_code is None:
            self._family.look()

    def terminate(self) -> None:
        """Tell it to finish, by SIGTERM; nothing where it has ended."""
        self._terminated = True
        self._process.terminate()

    def kill(self) -> None:
        """End it at once, and what it has started; nothing where it has ended."""
        self.look()
        self._process.kill()

    def show_where(self) -> None:
        """Let an instance that is about to be killed write to its standard error where each of its threads is; it ends
        by that."""
        self.look()
        if os.name == "posix":
            self._process.send_signal(signal.SIGABRT)

    def ended_within(self, timeout_s: float) -> bool:
        """Wait for its end; returns whether it came in time."""
        self._waiter.join(timeout_s)
        return not self._waiter.is_alive() or self.exit_code is not None

    def left_s(self, began: float, timeout_s: float, step_s: float) -> float:
        """How long it may still take to end, where it was told to at `began` and has `timeout_s` for that; each last
        step has `step_s` of its own. What comes behind a step has its `timeout_s` from there."""
        step, since = self.step
        return max(began, since) + (step_s if step else timeout_s) - time.monotonic()

    def end(self, timeout_s: float) -> bool:
        """Wait for its end; kill it when the time is over. False where it had to be killed. Returns when what it has
        started has ended, too. Twice is fine."""
        by_itself = self.ended_within(timeout_s)
        if not by_itself:
            self.kill()
        self._waiter.join()
        return by_itself

    def forget_note(self, note: str) -> None:
        """What it has said before does not count any more."""
        with self._said_changed:
            self._said.discard(note)

    def await_note(self, note: str, timeout_s: float) -> bool:
        """Wait until it says that (`child_notes`); False where it has ended without, or the time is over."""
        with self._said_changed:
            self._said_changed.wait_for(lambda: note in self._said or self._is_over, max(0.0, timeout_s))
            return note in self._said

    def _note(self, step: str) -> None:
        """On the thread that reads its standard error."""
        if step in STAGES:
            with self._said_changed:
                self._said.add(step)
                self._said_changed.notify_all()
            return
        if (code := exit_code_in(step)) is not None:
            self._said_code = code
        self.step = step if step in LAST_STEPS else "", time.monotonic()

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
        if self._family is not None:
            self._family.end()  # before the output is awaited, which they may hold open
        self._group.dismiss(self.pid)
        self._stdout.join(_OUTPUT_GRACE_S)
        self._stderr.join(_OUTPUT_GRACE_S)
        if isinstance(self._process, ForkedProcess) and self._process.poll() is None:
            self._process.settle(self._said_code)
        self.close_stdin()
        with self._said_changed:
            self._is_over = True
            self._said_changed.notify_all()
        self._on_end(self)


# -- an instance's process


def start_instance(
    name: str, group: ProcessGroup, on_end: Ended, *, detach: bool = False, fork: Fork | None = None
) -> Child:
    """Start an instance's process. It waits for its settings. `detach`: what its code starts lives on when it ends.
    With `fork` it is forked, where that can be. Raises `OSError` where the system allows no further process."""
    mark = "" if detach else group.next_mark()
    if fork is not None and (forked := fork(name, mark)) is not None:
        return Child(name, forked, group, on_end, mark=mark)
    environment = {**start_environment(), **({MARK: mark} if mark else {})}
    return Child(name, [*module_command(), "instance"], group, on_end, environment=environment, mark=mark)


def module_command() -> list[str]:
    """The command for a process of Ether's; a word that says which one comes behind. Goes with `start_environment`."""
    return [*python_command(), "-m", "ether"]


def start_environment() -> dict[str, str]:
    """The environment in which a process of Ether's is started."""
    return {**os.environ, **launch_environment()}


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
