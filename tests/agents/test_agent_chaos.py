"""An agent that is killed at random moments: no orphan, nothing on the broker that says it lives, and the next start
brings its instances back. With ETHER_LONG=1 it is killed 100 times; CHAOS_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from agent_parts import Machine, becomes, config, leave, member, sensor
from patience import patience
from programs import Program
from running_brokers import engines, mosquitto_missing, running_broker, soon

from ether import Ether

LONG = os.environ.get("ETHER_LONG") == "1"
KILLS = 100 if LONG else 4
CLEAN_S = 5.0
LATEST_KILL_S = 2.5
NAMES = ("cam", "lamp")

pytestmark = [pytest.mark.in_turn("engine"), pytest.mark.timeout(1800 if LONG else 120)]
needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    seed = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))
    print(f"{request.node.name}: CHAOS_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def ether(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ether]:
    for variable in ("XDG_STATE_HOME", "XDG_DATA_HOME"):  # what others left to save would bring a recorder here
        monkeypatch.setenv(variable, str(tmp_path / variable))
    own = Ether()
    yield own
    leave(own)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_agent_leaves_nothing_and_the_next_start_brings_all_back(
    ether: Ether, engine: str, tmp_path: Path, chance: random.Random
) -> None:
    with running_broker(engine) as broker:
        pi3 = Machine(tmp_path, "pi3", broker.url_tcp)
        with pi3.agent(joins=False) as agent:
            ether.tap(config(cam=sensor(after="lamp"), lamp=sensor()), broker=broker.url_tcp)
            agent.kill()
            until_nothing_is_left(agent)
        for n in range(KILLS):
            kill_and_start_again(ether, pi3, f"kill {n}", chance)


def kill_and_start_again(ether: Ether, pi3: Machine, moment: str, chance: random.Random) -> None:
    with ExitStack() as stack:
        victim = stack.enter_context(pi3.agent(joins=False))
        delay_s = chance.uniform(0, LATEST_KILL_S)
        threading.Event().wait(delay_s)  # a random moment: there is nothing to wait for
        victim.kill()
        killed = time.monotonic()
        moment = f"{moment}, after {delay_s:.3f} s"
        if chance.random() < 0.5:  # at once, while its orphans die; or when all is over
            until_nothing_is_left(victim)
            assert soon(lambda: not alive(ether), CLEAN_S - (time.monotonic() - killed)), f"{moment}: {alive(ether)}"
        again = stack.enter_context(pi3.agent())
        for name in NAMES:
            becomes(ether, name, "ready", machine="pi3")
            pid = ether.get(name, "pid")
            assert pid in again.descendants(), f"{moment}: {name} answers from an earlier life"
        assert sorted(each["name"] for each in ether.instances()) == sorted(NAMES), moment
        until_nothing_is_left(victim)
        again.kill()
        until_nothing_is_left(again)


def alive(ether: Ether) -> dict[str, str]:
    """What is said to live of the agent and its instances, though it was killed."""
    states = {name: str(member(ether, name).get("state")) for name in ("pi3", *NAMES)}
    return {name: state for name, state in states.items() if state in ("starting", "ready", "hung")}


def until_nothing_is_left(program: Program) -> None:
    """A second is the rule, which other tests hold it to; on a machine that is busy with others these 5 s count."""
    program.process.wait(patience(30))
    assert soon(lambda: not program._left(0), CLEAN_S), f"left behind: {program._left(0)}; it said:\n{program.said()}"
