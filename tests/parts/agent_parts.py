"""Machines for the tests of agents: each an agent in a process of its own, with folders of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from patience import patience
from programs import Program, running, write
from running_brokers import alive, soon

from ether import Ether
from ether.errors import LifecycleFailed

SESSION = "bench"

ANYTHING = object()
"""A fact that has to be there, whatever it is."""

INSTRUMENTS = '''
"""The classes that the owner of the other machine allows."""

import os
import subprocess
from subprocess import Popen

from ether import ether_cleanup, ether_every, ether_get, ether_init, ether_pub, ether_save_all


class Thermometer:
    """Measures by itself, and keeps every value."""

    @ether_every("200ms")
    @ether_pub(topic="temp", save=True)
    def measure(self):
        return 20


class Sensor:
    """Reads a number, and notes its last steps."""

    def __init__(self, offset=0, file=None, fail=""):
        self.offset, self.file, self.fail = offset, file, fail

    @ether_init
    def begin(self):
        if self.fail and os.path.exists(self.fail):
            raise RuntimeError("the sensor is not plugged in")
        self.note("begins")

    @ether_get
    def read(self) -> int:
        return 20 + self.offset

    @ether_get
    def pid(self) -> int:
        return os.getpid()

    @ether_save_all
    def save(self):
        self.note("saves")

    @ether_cleanup
    def clean(self):
        self.note("cleans up")

    def note(self, text):
        if self.file:
            with open(self.file, "a") as file:
                file.write(f"{text}\\n")


class Dying:
    """Ends before it is announced."""

    def __init__(self):
        os._exit(9)


class Plain:
    """Without decorators."""

    def double(self, n: int) -> int:
        return 2 * n
'''

AGENT = """
import os, sys
state, name, broker, session, *allow = sys.argv[1:]
os.environ.update(XDG_STATE_HOME=state, XDG_CONFIG_HOME=state)
from ether.errors import EtherError
from ether.agents.daemon import Agent
try:
    marks = [root.removeprefix("registry:") for root in allow if root.startswith("registry:")]
    allow = [root for root in allow if not root.startswith("registry:")]
    sys.exit(Agent(name, allow=allow, allow_registry=marks, broker=broker or None, session=session or None).run())
except EtherError as error:
    sys.exit(f"refused: {error}")
"""

LAUNCHER = """
import json, os, sys, threading
from ether import ether
if __name__ == "__main__":
    runtime, broker, config = sys.argv[1:]
    if runtime:
        os.environ["XDG_RUNTIME_DIR"] = runtime
    ether.tap(json.loads(config), broker=json.loads(broker))
    print("up", flush=True)
    while not threading.Event().wait(0.5):  # one without an end may sleep through a Ctrl-C: see test_signals.py
        pass
"""


class Machine:
    """The other machine."""

    def __init__(self, folder: Path, name: str, broker: str = "") -> None:
        self.folder = folder / f"machine-{name}"
        self.state = self.folder / "state"
        self.instruments = self.folder / "instruments"
        for place in (self.state, self.instruments):
            place.mkdir(parents=True)
        write(self.instruments, "instruments.py", INSTRUMENTS)
        write(self.folder, "agent_main.py", AGENT)
        self.name, self.broker = name, broker

    @contextmanager
    def agent(self, *allow: str, session: str = "", joins: bool = True, name: str = "") -> Iterator[Program]:
        """Its agent, killed with the block if it still runs."""
        allowed = allow or (str(self.instruments),)
        chosen = name or self.name
        with running(self.folder, "agent_main.py", str(self.state), chosen, self.broker, session, *allowed) as program:
            if joins:
                program.wait_for(f"Agent {chosen} is in session")
            yield program

    @property
    def file(self) -> Path:
        """What the agent was asked to run."""
        return self.state / "ether" / "agents" / f"{self.name}.json"

    def kept(self) -> dict[str, Any]:
        """What the file says."""
        value = json.loads(self.file.read_text())
        assert isinstance(value, dict)
        return value


def sensor(host: str = "pi3", **options: Any) -> dict[str, Any]:
    return {"class_path": "instruments.Sensor", "host": host, **options}


def config(**instances: Any) -> dict[str, Any]:
    return {"session": SESSION, "instances": instances}


@contextmanager
def launcher(
    folder: Path, broker: object, configuration: dict[str, Any], runtime: Path | None = None
) -> Iterator[Program]:
    """A program that starts the session, in a process of its own; `runtime` is its folder, if not one of its own."""
    write(folder, "launcher.py", LAUNCHER)
    where = "" if runtime is None else str(runtime)
    with running(folder, "launcher.py", where, json.dumps(broker), json.dumps(configuration)) as program:
        program.wait_for("up")
        yield program


@contextmanager
def joined(broker: str) -> Iterator[Ether]:
    """This process, in the session."""
    ether = Ether()
    try:
        yield ether.tap(session=SESSION, broker=broker)
    finally:
        leave(ether)


def leave(ether: Ether) -> None:
    try:
        ether.shutdown()
    except LifecycleFailed:
        pass  # what was killed on purpose


def member(ether: Ether, name: str) -> dict[str, Any]:
    """What is announced under a name, by programs and agents, too; empty where nothing is."""
    client = ether._client
    assert client is not None
    client.session.open(patience(10))
    found = [each for each in client.session.announcements() if each.name == name]
    return {"state": found[0].state.value, "error": found[0].error, **found[0].about} if found else {}


def becomes(ether: Ether, name: str, state: str, timeout_s: float = 20.0, **facts: Any) -> dict[str, Any]:
    """Wait until the holder of a name is in this state, with these facts; returns what it told then. A moment later it
    may be in the next state."""
    told: dict[str, Any] = {}

    def so() -> bool:
        nonlocal told
        told = member(ether, name)
        return told.get("state") == state and all(
            key in told if value is ANYTHING else told.get(key) == value for key, value in facts.items()
        )

    assert soon(so, timeout_s), f"{name} is not {state} with {facts}, but {told}"
    return told


def gone(pid: int, timeout_s: float = 5.0) -> bool:
    """Whether a process ends. Within a second is the rule; what is left over does not end by itself at all."""
    return bool(soon(lambda: not alive(pid), timeout_s))


def instances_of(agent: Program) -> list[int]:
    """The processes of its instances; the guard of their group is none."""
    found = []
    for pid in agent.descendants():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if b"instance" in words:
            found.append(pid)
    return found
