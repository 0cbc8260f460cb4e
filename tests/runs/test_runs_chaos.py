"""A run of trials over three instances whose program, instance, broker or recorder is killed in the middle, and which
is started again until it is over: each trial is there once, at most one is repeated for each kill, none is skipped.

Two kills of 12 trials; with ETHER_LONG=1 twenty of 50, five of each kind. CHAOS_SEED repeats one.
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
from programs import Program, running, write
from running_brokers import mosquitto_missing

from ether import Ether
from ether.ledger.reader import LedgerReader
from ether.reading.run_facts import runs_in

LONG = os.environ.get("ETHER_LONG") == "1"
TRIALS = 50 if LONG else 12
VICTIMS = ("main", "instance", "broker", "recorder")
ENGINE = "amqtt" if mosquitto_missing else "mosquitto"
LIVES = 4

pytestmark = pytest.mark.timeout(180)

PROGRAM = """
    import json, sys
    from ether import ether

    session, engine, trials, folder = sys.argv[1:]
    restart = {"restart": "always", "restart_limit": 100}
    names = {"stage": "Stage", "sensor": "Sensor", "analysis": "Analysis"}
    instances = {name: {"class_path": f"run_parts.{kind}", **restart} for name, kind in names.items()}
    config = {"session": session, "broker": {"engine": engine}, "instances": instances,
              "record": {"topics": "all", "folder": folder}}
    with ether.tap(config), ether.subscribe("result") as results:
        print("PIDS " + json.dumps({m["name"]: m["pid"] for m in ether.instances()}), flush=True)
        with ether.run("dose", resume=True) as run:
            for trial in run.trials(int(trials), order="random", again=1):
                print(f"TRIAL {trial.place}", flush=True)
                ether.get("stage", "whereabouts")
                ether.pub({"n": trial.number}, topic="measure")
                while results.get(timeout_s=10).value["n"] != trial.number:
                    pass
                ether.record({"n": trial.number}, name="own")
"""


ROUNDS = [(victim, number) for number in range(5) for victim in VICTIMS] if LONG else [("main", 0), ("another", 0)]


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    chosen = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))
    print(f"{request.node.name}: CHAOS_SEED={chosen}")
    return chosen


def pid_of(program: Program, victim: str, chance: random.Random) -> int:
    """Whom to kill."""
    if victim == "main":
        return program.process.pid
    if victim == "broker":
        # the broker's own process, or Ether's around it
        return chance.choice(sorted(pid for pid in program.descendants() if _is_broker(pid)))
    told = next(line for line in program.lines["out"] if line.startswith("PIDS "))
    pids = json.loads(told.removeprefix("PIDS "))
    return int(pids["recorder" if victim == "recorder" else chance.choice(["stage", "sensor", "analysis"])])


def _is_broker(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended meanwhile
        return False
    return words[0].endswith(b"mosquitto") or b"broker" in words


@pytest.mark.parametrize(("victim", "number"), ROUNDS)
def test_a_run_is_whole_whoever_is_killed(tmp_path: Path, seed: int, victim: str, number: int) -> None:
    chance = random.Random(f"{seed} {victim} {number}")
    victim = chance.choice(VICTIMS[1:]) if victim == "another" else victim
    folder = tmp_path / "ledger"
    write(tmp_path, "experiment.py", PROGRAM)
    (tmp_path / "run_parts.py").write_text((Path(__file__).parents[1] / "parts" / "run_parts.py").read_text())
    words = (f"chaos-{seed}", ENGINE, str(TRIALS), str(folder))
    said = []
    for life in range(LIVES):
        with running(tmp_path, "experiment.py", *words) as program:
            if life == 0:
                program.wait_for(f"TRIAL {chance.randint(2, TRIALS - 2)}\n", 60)
                threading.Event().wait(chance.uniform(0, 0.15))
                os.kill(pid_of(program, victim, chance), signal.SIGKILL)
            done = program.finish(120)
            program.assert_nothing_left()
            said.append(program.said())
        if done.code == 0:
            break
    else:
        pytest.fail("it was never over:\n" + "\n".join(said))
    check(folder, lives=life + 1)


def check(folder: Path, lives: int) -> None:
    with LedgerReader.open(folder) as reader:
        (state,) = runs_in(reader).values()
    assert (state.id, state.status) == ("dose/1", "ended")
    # A program that was killed after the end of its run leaves nothing to resume.
    assert state.resumed in (lives - 1, max(0, lives - 2))
    assert sorted(state.done) == list(range(1, TRIALS + 1))
    assert len(state.repeated) <= 1
    assert sum(attempts.tried for attempts in state.trials.values()) <= TRIALS + 1
    data = Ether().data(folder=folder, run="dose", trial="all")
    for topic in ("stage", "measure", "reading", "result", "own"):
        found = [(record.value["n"], record.trial) for record in data if record.topic == topic]
        assert all(number == trial for number, trial in found), (topic, found)
        assert Counter(trial for _, trial in found) == dict.fromkeys(range(1, TRIALS + 1), 1), topic
    tried_again = {record.trial for record in Ether().data(folder=folder, run="dose") if (record.attempt or 1) > 1}
    assert tried_again <= set(state.repeated)
