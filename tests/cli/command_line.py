"""The real `ether`, against sessions that the real `ether run` started: as a process of its own, or in this one
(`commands_here`)."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands_here import Done, ether_here
from patience import patience
from programs import Program, running
from running_brokers import engines, mosquitto_missing, soon

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]

ETHER = ("-m", "ether.cli.main")

PARTS = '''
"""Classes for the tests of the command line."""

import logging
import os
import threading

from ether import ether_cleanup, ether_get, ether_init, ether_pub, ether_save, ether_start, ether_sub


class Source:
    """Publishes ten times a second."""

    def __init__(self):
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.number = 0

    @ether_init
    def begin(self):
        self.thread.start()

    def run(self):
        while not self.stop.wait(0.1):
            self.tick()

    @ether_pub(topic="ticks")
    def tick(self):
        self.number += 1
        return {"number": self.number}

    @ether_cleanup
    def end(self):
        self.stop.set()
        self.thread.join()


class Sink:
    """Is called in every way."""

    def __init__(self):
        self.numbers = []

    @ether_sub(topic="ticks")
    def take(self, number: int):
        self.numbers.append(number)

    @ether_start
    def started(self):
        print("started by topic")

    @ether_sub(topic="said")
    def hear(self, text: str = ""):
        print(f"heard {text}")

    @ether_get
    def echo(self, text: str, number: int = 0, values: list = ()):
        return {"text": text, "number": number, "values": values}

    @ether_get
    def say(self):
        logging.getLogger("sink").warning("a warning of the sink")
        logging.getLogger("sink").debug("a detail of the sink")
        return "said"

    @ether_get
    def fail(self):
        raise KeyError("no such thing")

    @ether_save
    def keep(self, what: str):
        if what == "nothing":
            raise ValueError("nothing to keep")
        return what

    @ether_get
    def end(self):
        threading.Timer(0.1, os._exit, (3,)).start()


class Broken:
    def __init__(self):
        raise RuntimeError("the lamp is out")
'''

LAB = """
session: bench
broker: {{engine: {engine}}}
instances:
  source: {{class_path: cli_parts.Source}}
  sink: {{class_path: cli_parts.Sink}}
"""


def ether(folder: Path, *words: str, timeout_s: float = 60.0, **environment: str) -> Done:
    """Run one command in a folder."""
    done = subprocess.run(
        [sys.executable, *ETHER, *words],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=patience(timeout_s),
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def make_lab(folder: Path, engine: str, text: str = LAB) -> None:
    """A folder in which `ether run` finds a configuration."""
    (folder / "cli_parts.py").write_text(PARTS)
    (folder / "ether.yaml").write_text(textwrap.dedent(text).format(engine=engine))


class Bench:
    """A session that runs, and commands that find it."""

    def __init__(self, folder: Path, program: Program) -> None:
        self.folder = folder
        self.program = program

    def ether(self, *words: str, **more: str) -> Done:
        """A command of the same user on the same machine, in this process."""
        return ether_here(self.folder, *words, XDG_RUNTIME_DIR=str(self.program.runtime), **more)

    def command(self, *words: str, **more: str) -> Done:
        """The same in a process of its own."""
        environment = {"XDG_RUNTIME_DIR": str(self.program.runtime), **more}
        return ether(self.folder, *words, **environment)  # type: ignore[arg-type]

    def shows(self, text: str, *words: str, timeout_s: float = 15.0) -> Done:
        """A command that prints this text sooner or later: what it shows comes from another process a moment later."""
        found: list[Done] = []

        def is_shown() -> bool:
            found.append(self.ether(*words))
            return text in found[-1].out

        assert soon(is_shown, timeout_s), found[-1]
        return found[-1]

    @contextmanager
    def watching(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A command that goes on by itself, killed at the end of the block."""
        command = [sys.executable, *ETHER, *words]
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(self.program.runtime)}
        with subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()


@contextmanager
def bench(folder: Path, *words: str) -> Iterator[Bench]:
    """`ether run`, until the end of the block."""
    with running(folder, *ETHER, "run", *words) as program:
        program.wait_for("is ready")
        yield Bench(folder, program)
