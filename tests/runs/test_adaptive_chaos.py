"""Nested, adaptive and snake scans, and scans of two devices, whose program or instance is killed with signal 9 at
random moments, most of them inside of a call of a body, until the run is over: no condition is skipped, and a kill
repeats one at most. That is counted by lines that the bodies themselves append to a file, not by anything of Ether's.

One or two kills in each of three runs; with ETHER_LONG=1 twenty of each victim in each of four. CHAOS_SEED repeats one.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from patience import patience
from programs import Program, running, write
from running_brokers import mosquitto_missing

from ether import Ether
from ether.ledger.reader import LedgerReader
from ether.reading.run_facts import runs_in

LONG = os.environ.get("ETHER_LONG") == "1"
ENGINE = "amqtt" if mosquitto_missing else "mosquitto"
KILLS = 20 if LONG else 1
"""Of the program, and as many of an instance."""
SHORT = {"adaptive": ["main"], "devices": ["instance"]}
SIZES = {"nested": 6, "adaptive": 45, "snake": 20, "devices": 20}

pytestmark = pytest.mark.timeout(900 if LONG else 120)

PROGRAM = """
    import json, sys
    from ether import ether
    from ether.errors import LifecycleFailed
    from chaos_strategies import STRATEGIES

    session, engine, kind, form, size, folder, log = sys.argv[1:]
    size = int(size)
    restart = {"restart": "always", "restart_limit": 1000}
    instances = {name: {"class_path": f"run_parts.{name.title()}", **restart} for name in ("stage", "reader")}
    config = {"session": session, "broker": {"engine": engine}, "instances": instances,
              "record": {"topics": "all", "folder": folder}}


    def begin(*what):
        with open(log, "a") as file:
            file.write(json.dumps(what) + "\\n")


    def body(*what):
        begin(*what)
        print("BODY " + json.dumps({m["name"]: m["pid"] for m in ether.instances()}), flush=True)
        found = ether.get("reader", "read", {"n": what[-1], "seconds": 0.03})
        ether.record({"what": list(what)}, name="own")
        return found


    def nested(run):
        for outer in run.trials(size, again=3):
            with outer:
                begin("outer", outer.number)
                for inner in run.trials([float(n) for n in range(size)], order="random", again=3):
                    with inner:
                        for third in run.trials(iter([7.0, 8.0]), again=3):
                            with third:
                                body(outer.number, inner.condition, third.condition)


    def adaptive(run):
        for trial in run.adapt(STRATEGIES[form](2 ** -size), again=3):
            with trial:
                trial.result = body(trial.condition) - 3.3


    def snake(run):
        stage = ether.instance("stage")
        grid = {"x": [float(n) for n in range(size)], "y": [1.0, 2.0, 3.0]}
        run.each(lambda trial: body(trial.condition["x"], trial.condition["y"]),
                 run.scan(stage.move, grid, order="snake", read=stage.read, again=3))


    def devices(run):
        stage, reader = ether.instance("stage"), ether.instance("reader")
        grid = {"x": [float(n) for n in range(size)], "y": [1.0, 2.0, 3.0]}
        setters = {"x": stage.move, "y": lambda n: reader.read(n, 0.01)}
        for trial in run.scan(setters, grid, order="snake" if size == 3 else "random", read={"x": stage.read}, again=3):
            with trial:
                body(trial.condition["x"], trial.condition["y"])


    try:
        with ether.tap(config), ether.run("scan", resume=True) as run:
            globals()[kind](run)
    except LifecycleFailed:
        pass  # an instance was killed after the last trial
"""

STRATEGIES = """
    class Bisection:
        def __init__(self, until):
            self.low, self.high, self.until = 0.0, 8.0, until

        def ask(self):
            return None if self.high - self.low < self.until else (self.low + self.high) / 2

        def tell(self, condition, result):
            if result > 0:
                self.high = condition
            else:
                self.low = condition


    def sent(until):
        strategy = Bisection(until)
        while (point := strategy.ask()) is not None:
            strategy.tell(point, (yield point))


    def of_history(until):
        def ask(history):
            strategy = Bisection(until)
            for condition, result in history:
                strategy.tell(condition, result)
            return strategy.ask()
        return ask


    STRATEGIES = {"ask-tell": Bisection, "sent": sent, "history": of_history}
"""


def points(until: float) -> list[float]:
    """What the bisection asks for."""
    low, high, found = 0.0, 8.0, []
    while high - low >= until:
        found.append((low + high) / 2)
        low, high = (low, found[-1]) if found[-1] > 3.3 else (found[-1], high)
    return found


def wanted(kind: str, size: int) -> list[list[float]]:
    """What the bodies are to be about; for a snake and for a strategy in their order."""
    rows = [float(n) for n in range(size)]
    if kind == "nested":
        return [[outer, inner, third] for outer in range(1, size + 1) for inner in rows for third in (7.0, 8.0)]
    if kind == "adaptive":
        return [[point] for point in points(2**-size)]
    return [[x, y] for turn, x in enumerate(rows) for y in ((1.0, 2.0, 3.0) if turn % 2 == 0 else (3.0, 2.0, 1.0))]


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    chosen = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))
    print(f"{request.node.name}: CHAOS_SEED={chosen}")
    return chosen


KINDS = ["nested", "adaptive", "devices", *(["snake"] if LONG else [])]


@pytest.mark.parametrize("kind", KINDS)
def test_no_condition_is_skipped_and_a_kill_repeats_one_at_most(tmp_path: Path, seed: int, kind: str) -> None:
    chance = random.Random(f"{seed} {kind}")
    size = SIZES[kind] if LONG else 2 if kind == "nested" else 3
    write(tmp_path, "experiment.py", PROGRAM)
    write(tmp_path, "chaos_strategies.py", STRATEGIES)
    (tmp_path / "run_parts.py").write_text((Path(__file__).parents[1] / "parts" / "run_parts.py").read_text())
    folder, log = tmp_path / "ledger", tmp_path / "bodies"
    form = chance.choice(["ask-tell", "sent", "history"])
    words = (f"chaos-{kind}-{seed}", ENGINE, kind, form, str(size), str(folder), str(log))
    victims = ["main"] * KILLS + ["instance"] * KILLS if LONG or kind == "nested" else SHORT[kind]
    victims = chance.sample(victims, len(victims))
    kills: Counter[str] = Counter()
    while True:
        with running(tmp_path, "experiment.py", *words) as program:
            bodies = 0
            while victims and program.process.poll() is None:
                bodies += chance.randint(1, 2)
                if not _reached(program, bodies):
                    break
                threading.Event().wait(chance.uniform(0, 0.1))
                kills[victims[-1]] += _kill(program, victims[-1], chance)
                if victims.pop() == "main":
                    break
            done = program.finish(120)
            program.assert_nothing_left()
        if done.code == 0:
            break
        assert done.code == -signal.SIGKILL, program.said()
    assert not victims or not LONG, (kills, victims)
    print(kind, form, dict(kills))
    check(kind, size, folder, log, kills)


def _reached(program: Program, bodies: int) -> bool:
    """Whether the program comes to so many bodies; it may be over before."""
    deadline, pause = time.monotonic() + patience(60), threading.Event()
    while sum(line.startswith("BODY") for line in program.lines["out"]) < bodies:
        if program.process.poll() is not None:
            return False
        assert time.monotonic() < deadline, program.said()
        pause.wait(0.005)
    return True


def _kill(program: Program, victim: str, chance: random.Random) -> int:
    """Kill the program or one of its instances; returns how many were killed."""
    told = [line for line in program.lines["out"] if line.startswith("BODY ")][-1]
    pids = json.loads(told.removeprefix("BODY "))
    pid = program.process.pid if victim == "main" else pids[chance.choice(["stage", "reader"])]
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1


def check(kind: str, size: int, folder: Path, log: Path, kills: Counter[str]) -> None:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    outer = [line for line in lines if line[0] == "outer"]
    bodies = [line for line in lines if line[0] != "outer"]
    expected = wanted(kind, size)
    in_order = list(dict.fromkeys(map(tuple, bodies)))
    if kind in ("adaptive", "snake") or (kind == "devices" and size == 3):
        assert in_order == list(map(tuple, expected))
    assert sorted(in_order) == sorted(map(tuple, expected))  # none is skipped, and no other one happened
    assert len(bodies) <= len(expected) + kills.total(), Counter(map(tuple, bodies))
    if kind == "nested":
        assert len({line[1] for line in outer}) == size
        assert len(outer) <= size + kills.total()
    with LedgerReader.open(folder) as reader:
        (state,) = runs_in(reader).values()
    assert (state.id, state.status) == ("scan/1", "ended")
    # A program that was killed after the end of its run leaves nothing to resume.
    assert state.resumed in (kills["main"], max(0, kills["main"] - 1))
    assert state.all_done
    assert sum(attempts.tried - 1 for attempts in state.trials.values()) <= 3 * kills.total()  # three levels at most
    data = Ether().data(folder=folder, topic="own", run="scan", trial="all")
    counted = [tuple(record.value["what"]) for record in data]
    assert Counter(counted) == dict.fromkeys(map(tuple, expected), 1)
