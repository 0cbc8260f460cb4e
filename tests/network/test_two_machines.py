"""A second program joins by one line: on the same machine, by mDNS on another one, by an address without multicast. And
two machines that start a session of one name at the same moment have one session."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from journal import Journal
from namespaces import Machine, Network, in_environment, namespaces_missing, run_as, running_network
from paired import pair
from patience import patience
from programs import Program
from running_brokers import engines, mosquitto_missing

from ether import Ether

ROUNDS = 20 if os.environ.get("ETHER_LONG") == "1" else 2
STARTER = str(Path(__file__).with_name("starter.py"))
MEMBER = str(Path(__file__).with_name("member.py"))
KEY = "ab" * 16
NEEDS_MOSQUITTO = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
NEEDS_NAMESPACES = pytest.mark.skipif(namespaces_missing is not None, reason=str(namespaces_missing))
ENGINES = [pytest.param(engine, marks=NEEDS_MOSQUITTO if engine == "mosquitto" else ()) for engine in engines]

pytestmark = pytest.mark.in_turn("engine")


def assert_they_talk(anvil: Program, bell: Program) -> None:
    """Both directions call and publish."""
    for program, other in ((anvil, "bell"), (bell, "anvil")):
        journal = Journal(program)
        journal.first("called", accept=other.__eq__)
        journal.first("got", after=journal.first("subscribed"))


def test_the_second_program_of_a_machine_needs_no_argument(engine: str, tmp_path: Path) -> None:
    runtime = tmp_path / "r"
    runtime.mkdir(mode=0o700)
    command = in_environment({"XDG_RUNTIME_DIR": str(runtime)}, sys.executable, MEMBER)
    settings = json.dumps({"broker": {"engine": engine}})
    with run_as(tmp_path, *command, "anvil", "bell", settings) as anvil:
        anvil.wait_for("hosting anvil in")
        with run_as(tmp_path, *command, "bell", "anvil") as bell:
            assert_they_talk(anvil, bell)
            bell.interrupt()
            assert bell.finish().code == 0, bell.said()
        assert "Joining Ether session" in bell.said()
        anvil.interrupt()
        assert anvil.finish().code == 0, anvil.said()
    assert list(runtime.iterdir()) == []


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine of the broker."""
    return str(request.param)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with running_network(tmp_path) as network:
        yield network


@pytest.fixture
def pi(network: Network, pc: Machine) -> Machine:
    """The machine that joins; it is a member of the other one's lab. Where it leads itself, that one may join, too."""
    machine = network.machine("pi")
    pair(pc.environment, machine.environment, "pi")
    pair(machine.environment, pc.environment, "pc")
    return machine


@pytest.fixture
def pc(network: Network) -> Machine:
    """The machine that runs the session."""
    return network.machine("pc")


@pytest.fixture
def anvil(pc: Machine, engine: str) -> Iterator[Program]:
    """A program on `pc` that has started a session for the whole network."""
    settings = json.dumps({"session": "bench", "broker": {"engine": engine, "listen": "lan"}})
    with ExitStack() as stack:
        program = stack.enter_context(pc.run(MEMBER, "anvil", "bell", settings))
        program.wait_for("hosting anvil in bench")
        yield program
        program.interrupt()
        assert program.finish().code == 0, program.said()


@NEEDS_NAMESPACES
def test_another_machine_finds_it_by_mdns(anvil: Program, pi: Machine) -> None:
    pytest.importorskip("zeroconf", reason="zeroconf is not installed: pip install zeroconf")
    with pi.run(MEMBER, "bell", "anvil") as bell:
        bell.wait_for("hosting bell in")
        assert "Joining Ether session: bench on pc (network)" in bell.said()
        assert_they_talk(anvil, bell)


@NEEDS_NAMESPACES
@pytest.mark.parametrize("way", ["argument", "environment"])
def test_without_multicast_one_address_is_enough(
    network: Network, pc: Machine, anvil: Program, pi: Machine, way: str
) -> None:
    network.drop_multicast(pc)
    network.drop_multicast(pi)
    with pi.run(MEMBER, "bell", "anvil") as alone:
        alone.wait_for("hosting bell in")
        assert "Starting Ether session" in alone.said()
    settings = {"broker": f"mqtts://{pc.address}"} if way == "argument" else {}
    broker = pc.address if way == "environment" else None
    with pi.run(MEMBER, "bell", "anvil", json.dumps(settings), ETHER_BROKER=broker) as bell:
        bell.wait_for("hosting bell in bench")
        assert "Joining Ether session: bench on pc" in bell.said()
        assert_they_talk(anvil, bell)


@NEEDS_NAMESPACES
@pytest.mark.usefixtures("anvil")
@pytest.mark.parametrize(
    ("of", "way"),
    [
        ("no lab", "address"),
        ("no lab", "mdns"),
        ("no lab", "name"),
        ("another lab", "address"),
        ("another lab", "name"),
    ],
)
def test_a_stranger_is_refused_and_starts_no_session_of_its_own(
    network: Network, pc: Machine, of: str, way: str
) -> None:
    stranger = network.machine("stranger")
    if of == "another lab":
        pair(stranger.environment, stranger.environment, "stranger")
    settings = {"address": {"broker": f"mqtts://{pc.address}"}, "mdns": {}, "name": {"session": "bench"}}[way]
    with stranger.run(MEMBER, "bell", "anvil", json.dumps(settings), ETHER_KEY=KEY) as bell:
        if of == "another lab" and way != "address":
            bell.wait_for("hosting bell in")  # somebody else's lab is nothing to a member of this one
            assert "Starting Ether session" in bell.said()
            return
        assert bell.finish().code == 1
    assert "NotAMember: " in bell.said()
    assert "type `ether pair NAME` on" in bell.said()
    assert "hosting" not in bell.said()


def in_data(machine: Machine) -> dict[str, list[int]]:
    """What is in the ledgers of a machine: the numbers by the machine that has saved them."""
    found: dict[str, list[int]] = {}
    for folder in machine.folder.glob("data/**/ledger.db"):
        for row in Ether().data(folder=str(folder.parent), topic="n"):
            found.setdefault(row.value["from"], []).append(row.value["n"])
    return found


@contextmanager
def started(pairs: list[tuple[Machine, str]], engine: str, apart_s: float, data: str) -> Iterator[list[Program]]:
    """A program on each machine that starts a session of this name and records into this folder: at the same moment,
    or the last one a bit later."""
    with ExitStack() as stack:
        programs: list[Program] = []
        files = [machine.folder / f"moment-{name}" for machine, name in pairs]
        for (machine, name), file in zip(pairs, files, strict=True):
            (machine.folder / data).mkdir()
            os.mkfifo(file)
            settings = json.dumps({"session": name, "broker": {"engine": engine, "listen": "lan"}})
            program = machine.run(STARTER, str(file), settings, XDG_DATA_HOME=str(machine.folder / data))
            programs.append(stack.enter_context(program))
        for program in programs:
            program.wait_for("there")
        at = time.monotonic() + patience(0.2)
        for file in files:
            file.write_text(str(at + apart_s * (file is files[-1])))
        yield programs


def seconds_of_two_names(pc: Machine, pi: Machine, engine: str) -> float:
    """What the same takes two machines where neither has to wait for the other: on a machine that is busy with other
    things, a name cannot be had in less."""
    with started([(pc, "one"), (pi, "two")], engine, 0.0, "other") as programs:
        for program in programs:
            program.wait_for('"saved": 20')
            program.interrupt()
        return max(float(json.loads(program.lines["out"][0])["after_s"]) for program in programs)


@NEEDS_NAMESPACES
@pytest.mark.timeout(600 if ROUNDS > 2 else 120)
@pytest.mark.parametrize("turn", range(ROUNDS))
def test_two_machines_that_start_one_name_at_the_same_moment_have_one_session(
    pc: Machine, pi: Machine, engine: str, turn: int
) -> None:
    with started([(pc, "bench"), (pi, "bench")], engine, 0.1 * (turn % 2), "data") as programs:
        for program in programs:
            program.wait_for('"saved": 20')
        told = [json.loads(program.lines["out"][0]) for program in programs]
        leader = told[0]["leader"]
        assert told[1]["leader"] == leader, "\n".join(program.said() for program in programs)
        for program in reversed(programs) if leader == "pc" else programs:
            program.interrupt()
            assert program.finish().code == 0, program.said()
    took_s = max(each["after_s"] for each in told)
    assert took_s < patience(3.0) or took_s < 3.0 * seconds_of_two_names(pc, pi, engine)  # a fault waits for 8 s more
    leads, joins = (pc, pi) if leader == "pc" else (pi, pc)
    assert in_data(leads) == {"pc": list(range(20)), "pi": list(range(20))}
    assert in_data(joins) == {}
