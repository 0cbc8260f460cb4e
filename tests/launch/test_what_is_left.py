"""What an instance's code has started ends with the instance, however that ends; and an end has bounds, which cut
nothing short that saves."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_params import EMBEDDED
from patience import patience
from running_brokers import soon

from ether import Ether
from ether.errors import LifecycleFailed

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the environment of processes"),
    pytest.mark.slow("programs of their own, and their ends"),
]

LONG = os.environ.get("ETHER_LONG") == "1"

PROCESSES = ["popen", "deaf", "setsid", "daemon", "fork", "pool", "spawn"]
ENDLESS = ["thread", "atexit", "loop"]
HOW = ["shutdown", "remove", "restart", "hang", "instance killed", "ctrl-c", "program killed"]
WORK_S = 1.5
"""Of `end:` in these tests. The default of 5 s would only take longer."""
BOUND_S = {"program killed": 0.6, "instance killed": 0.0, "hang": WORK_S + 1.5}
"""By which time, beside `SLACK_S`, everything has ended; `WORK_S` for what is not listed. A hang has to be noticed
before."""
SLACK_S = 2.4
"""A second is what it takes. What nobody ends lives on for minutes, and B5 took 21 s."""

PROGRAM = """
import json, sys, time
from ether import ether
from ether.errors import LifecycleFailed

config, kinds = json.loads(sys.argv[1])
ether.tap(config, timeout_s=60)
with ether.subscribe("looping") as looping:
    ether.get("starter", "start", {"kinds": kinds}, timeout_s=60)
    if "loop" in kinds:
        looping.get(60)
print("ready", flush=True)
how = sys.stdin.readline().strip()
try:
    getattr(ether, how)(*(["starter"] if how in ("remove", "restart") else []))
except LifecycleFailed as error:
    print("raised", error, flush=True)
"""

_OF_ETHER = re.compile(r'File "[^"]*/ether/(launch/(?!child_main)|session|api)[^"]*", line \d+, in ')
"""A line of a traceback with Ether's own code (`faulthandler` writes no comma before `in`). A handler that is left
raises in `child_main`."""


def starter(folder: Path, **more: Any) -> dict[str, Any]:
    return {"class_path": "ending_parts.Starter", "args": [os.fspath(folder)], **more}


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def started(folder: Path, kinds: list[str]) -> dict[str, int]:
    """The numbers of the processes that an instance has started, by kind, and of its own."""
    wanted = {kind for kind in kinds if kind in PROCESSES or kind == "bare"}

    def found() -> dict[str, int]:
        texts = {file.name.partition("-")[0]: file.read_text() for file in folder.glob("*-*")}
        return {kind: int(text) for kind, text in texts.items() if text}

    assert soon(lambda: set(found()) >= wanted, patience(10)), wanted - set(found())
    return found() | {"instance": int(next(folder.glob("*-*")).name.rpartition("-")[2])}


def assert_gone(processes: dict[str, int], within_s: float) -> None:
    assert soon(lambda: not any(map(alive, processes.values())), patience(within_s)), {
        kind: pid for kind, pid in processes.items() if alive(pid)
    }


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder in which processes note their numbers. What a failing test leaves is killed."""
    yield tmp_path
    for file in tmp_path.rglob("*-*"):
        if file.is_file() and (text := file.read_text()) and alive(int(text)):
            os.kill(int(text), signal.SIGKILL)


@pytest.mark.parametrize("engine", EMBEDDED)
def test_b4_what_an_instance_has_started_ends_with_it(engine: str, folder: Path) -> None:
    """Each instance ends in another way; what its code has started is gone. A daemon that is to live on does."""
    ether, kinds = Ether(), ["popen", "setsid", "daemon", "fork", "pool"]
    plans = {
        "removed": {}, "killed": {}, "hung": {"hang": {"silent_s": 1.0, "reaction": "restart"}}, "last": {},
        "detached": {"detach": True},
    }  # fmt: skip
    for name in plans:
        (folder / name).mkdir()
    instances = {name: starter(folder / name, **more) for name, more in plans.items()}
    described = {"broker": {"engine": engine}, "instances": instances, "end": {"work_s": WORK_S}}
    ether.tap(described, timeout_s=patience(30))
    try:
        of = {}
        for name in plans:
            asked = {"last": [*kinds, "deaf", "bare"], "detached": ["daemon", "popen"]}.get(name, kinds)
            ether.get(name, "start", {"kinds": asked}, timeout_s=patience(10))
            of[name] = started(folder / name, asked)
        os.kill(of["killed"]["instance"], signal.SIGKILL)
        os.kill(of["hung"]["instance"], signal.SIGSTOP)
        ether.remove("removed")
        assert_gone(of["removed"], SLACK_S)
        assert_gone(of["killed"], SLACK_S)
        assert_gone(of["hung"], SLACK_S + 1.5)
    finally:
        ether.shutdown()
    assert_gone(of["last"], SLACK_S)
    assert not alive(of["detached"].pop("instance"))
    assert all(map(alive, of["detached"].values()))


@pytest.mark.parametrize("engine", EMBEDDED)
def test_b5_ctrl_c_with_a_loop_and_an_atexit_that_hangs(engine: str, folder: Path) -> None:
    """Reproducer B5: it took 21 s."""
    one_end("ctrl-c", engine, [*ENDLESS, "popen", "setsid"], folder)


def test_what_was_started_is_gone_when_the_program_is_killed(folder: Path) -> None:
    one_end("program killed", "amqtt", [*PROCESSES, "loop"], folder)


def test_what_saves_is_cut_short_by_nothing(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time for handlers and threads is over long before: one instance is at work in a loop, and leaves it.
    Meanwhile the log shows what takes so long."""
    monkeypatch.setattr("ether.launch.child_ends._SHOWN_AFTER_S", 0.3)
    seconds, ether = (20.0 if LONG else 1.2), Ether()
    instances = {}
    for name in ("calm", "busy"):
        (folder / name).mkdir()
        instances[name] = {"class_path": "ending_parts.Saver", "args": [os.fspath(folder / name), seconds]}
    ether.tap({"instances": instances, "end": {"work_s": 1.0}}, timeout_s=patience(30))
    with ether.subscribe("looping") as looping:
        ether.pub(None, topic="endless")
        looping.get(patience(5)), looping.get(patience(5))
    with pytest.raises(LifecycleFailed, match="busy: drain: did not answer") as caught:
        ether.shutdown()
    assert "killed" not in str(caught.value)
    assert re.search(r"calm: save_all goes on \(\d+ s of 60 s\)", caplog.text)
    assert {file.relative_to(folder).as_posix() for file in folder.glob("*/*")} == {
        f"{name}/{step}" for name in instances for step in ("saved", "clean")
    }


@pytest.mark.skipif(not LONG, reason="ETHER_LONG=1")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("how", HOW)
def test_a_hundred_ends(how: str, folder: Path) -> None:
    draw = random.Random(how)
    for number in range(-(-100 // len(HOW))):
        kinds = draw.sample(PROCESSES, 3) + draw.sample(ENDLESS, draw.choice([0, 0, 1, 2]))
        place = folder / str(number)
        place.mkdir()
        one_end(how, draw.choice(["amqtt", "mosquitto"]), kinds, place)


def one_end(how: str, engine: str, kinds: list[str], folder: Path) -> None:
    """One end of a program of its own, and what is left of it."""
    more = {"hang": {"silent_s": 1.0, "reaction": "restart"}} if how == "hang" else {}
    config = {
        "broker": {"engine": engine},
        "instances": {"starter": starter(folder, **more)},
        "end": {"work_s": WORK_S},
    }
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps([config, kinds])],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert program.stdin is not None
    assert program.stdout is not None
    try:
        first = program.stdout.readline()
        assert first == "ready\n", first
        processes = started(folder, kinds)
        began = time.monotonic()
        if how == "ctrl-c":
            program.send_signal(signal.SIGINT)
        elif how == "program killed":
            program.kill()
        elif how in ("hang", "instance killed"):
            os.kill(processes["instance"], signal.SIGSTOP if how == "hang" else signal.SIGKILL)
        else:
            program.stdin.write(f"{how}\n")
            program.stdin.flush()
        assert_gone(processes, BOUND_S.get(how, WORK_S) + SLACK_S)
        print(f"{how}, {engine}, {', '.join(kinds)}: {time.monotonic() - began:.2f} s")
    finally:
        if how != "ctrl-c":
            program.kill()
        told, log = program.communicate(timeout=patience(20))
    assert not _OF_ETHER.search(log) or how == "ctrl-c", log
    assert "raised" not in told or set(ENDLESS) & set(kinds), told
