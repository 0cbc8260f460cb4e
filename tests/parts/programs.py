"""Users' programs for tests: written to a folder, run as a real process, watched from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from patience import patience
from running_brokers import alive

GONE_S = patience(1.0)
"""Within this time of a program's end nothing of it is left: the rule, for the middle one of several."""
SLOWLY_GONE_S = patience(2.4)
"""For each single one: after a kill a shell waits for 0.6 s and looks through all processes, on a machine that may be
busy. What nobody ends is left for minutes."""

_MARK = "ETHER_TEST_PROGRAM"


@dataclass(frozen=True)
class Finished:
    """How a program ended."""

    code: int
    out: str
    err: str


def program_of(pid: int) -> int:
    """The program that has started an instance: its parent, or the parent of the template that it was forked from."""
    parent = _parent_of(pid)
    words = Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")
    return _parent_of(parent) if b"template" in words else parent


def _parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class Program:
    """A running program; all its descendants carry a mark in their environment."""

    def __init__(self, folder: Path, script: str, *args: str) -> None:
        self.mark = f"{os.getpid()}-{time.monotonic_ns()}"
        self.runtime = folder / f"runtime-{self.mark}"
        self.runtime.mkdir()
        environment = {
            **os.environ,
            _MARK: self.mark,
            "XDG_RUNTIME_DIR": str(self.runtime),
            "ETHER_MDNS": "0",
            "TMPDIR": str(self.runtime),
            "PYTHONFAULTHANDLER": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, script, *args],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        self.lines: dict[str, list[str]] = {"out": [], "err": []}
        self._changed = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(kind, stream), daemon=True)
            for kind, stream in (("out", self.process.stdout), ("err", self.process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def wait_for(self, text: str, timeout_s: float = 30.0) -> None:
        """Return when it has printed a line with this text."""
        with self._changed:
            found = self._changed.wait_for(lambda: self._said(text), patience(timeout_s))
        assert found, f"{text!r} was not printed; it said:\n{self.said()}"

    def said(self) -> str:
        """Everything that it has printed."""
        return "".join(self.lines["out"] + self.lines["err"])

    def interrupt(self) -> None:
        """Ctrl-C in its terminal: to its process group."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        """kill -9, of the main program only."""
        self.process.kill()

    def finish(self, timeout_s: float = 60.0) -> Finished:
        """Wait for its end. Where none comes, it is said what each of its threads does."""
        try:
            self.process.wait(patience(timeout_s))
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            for reader in self._readers:
                reader.join(patience(5))
            raise AssertionError(f"the program has not ended; it said:\n{self.said()}") from None
        for reader in self._readers:
            reader.join(patience(5))
        return Finished(self.process.returncode, "".join(self.lines["out"]), "".join(self.lines["err"]))

    def descendants(self) -> list[int]:
        """Living processes that carry its mark, itself excepted."""
        wanted = f"{_MARK}={self.mark}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                marked = wanted in (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if marked and int(entry.name) != self.process.pid and alive(int(entry.name)):
                found.append(int(entry.name))
        return found

    def assert_nothing_left(self, except_for: int = 0) -> float:
        """After its end no process lives on, no file of it stays; returns how long after."""
        try:
            self.process.wait(patience(30))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the program has not ended; it said:\n{self.said()}") from None
        ended = time.monotonic()
        pause = threading.Event()
        while (left := self._left(except_for)) and time.monotonic() < ended + SLOWLY_GONE_S:
            pause.wait(0.02)
        assert not left, f"left behind: {[_named(item) for item in left]}; it said:\n{self.said()}"
        return time.monotonic() - ended

    def _left(self, except_for: int) -> list[object]:
        return [*(pid for pid in self.descendants() if pid != except_for), *self.runtime.iterdir()]

    def discard(self) -> None:
        """End it and all that it started."""
        for pid in [*self.descendants(), self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.finish()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def _said(self, text: str) -> bool:
        return any(text in line for lines in self.lines.values() for line in lines)

    def _read(self, kind: str, stream: object) -> None:
        for line in stream:  # type: ignore[attr-defined]
            with self._changed:
                self.lines[kind].append(line)
                self._changed.notify_all()


def _named(item: object) -> str:
    try:
        return f"{item}: {Path(f'/proc/{item}/cmdline').read_bytes().decode()!r}"
    except OSError:
        return str(item)


@contextmanager
def running(folder: Path, script: str, *args: str) -> Iterator[Program]:
    """A program, ended with the block, whatever happens."""
    program = Program(folder, script, *args)
    try:
        yield program
    finally:
        program.discard()


def run(folder: Path, script: str, *args: str) -> Finished:
    """Run a program to its end."""
    with running(folder, script, *args) as program:
        return program.finish()


def write(folder: Path, name: str, source: str) -> str:
    """Put a file into the folder; returns its name."""
    (folder / name).write_text(textwrap.dedent(source))
    return name
