"""A second program joins by one line: on the same machine, by mDNS on another one, by an address without multicast."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from journal import Journal
from namespaces import Machine, Network, in_environment, namespaces_missing, run_as, running_network
from programs import Program
from running_brokers import engines, mosquitto_missing

MEMBER = str(Path(__file__).with_name("member.py"))
KEY, OTHER_KEY = "ab" * 16, "cd" * 16
NEEDS_MOSQUITTO = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
NEEDS_NAMESPACES = pytest.mark.skipif(namespaces_missing is not None, reason=str(namespaces_missing))
ENGINES = [pytest.param(engine, marks=NEEDS_MOSQUITTO if engine == "mosquitto" else ()) for engine in engines]
LAN_SESSION = json.dumps({"session": "bench", "broker": {"engine": "mosquitto", "listen": "lan"}})


def assert_they_talk(anvil: Program, bell: Program) -> None:
    """Both directions call and publish."""
    for program, other in ((anvil, "bell"), (bell, "anvil")):
        journal = Journal(program)
        journal.first("called", accept=other.__eq__)
        journal.first("got", after=journal.first("subscribed"))


@pytest.mark.parametrize("engine", ENGINES)
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


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with running_network(tmp_path) as network:
        yield network


@pytest.fixture
def pi(network: Network) -> Machine:
    """The machine that joins; it holds the lab key."""
    return network.machine("pi", ETHER_KEY=KEY)


@pytest.fixture
def pc(network: Network) -> Machine:
    """The machine that runs the session."""
    return network.machine("pc", ETHER_KEY=KEY)


@pytest.fixture
def anvil(pc: Machine) -> Iterator[Program]:
    """A program on `pc` that has started a session for the whole network."""
    with ExitStack() as stack:
        program = stack.enter_context(pc.run(MEMBER, "anvil", "bell", LAN_SESSION))
        program.wait_for("hosting anvil in bench")
        yield program
        program.interrupt()
        assert program.finish().code == 0, program.said()


@NEEDS_NAMESPACES
@NEEDS_MOSQUITTO
def test_another_machine_finds_it_by_mdns(anvil: Program, pi: Machine) -> None:
    pytest.importorskip("zeroconf", reason="zeroconf is not installed: pip install zeroconf")
    with pi.run(MEMBER, "bell", "anvil") as bell:
        bell.wait_for("hosting bell in")
        assert "Joining Ether session: bench on pc (network)" in bell.said()
        assert_they_talk(anvil, bell)


@NEEDS_NAMESPACES
@NEEDS_MOSQUITTO
@pytest.mark.parametrize("way", ["argument", "environment"])
def test_without_multicast_one_address_is_enough(
    network: Network, pc: Machine, anvil: Program, pi: Machine, way: str
) -> None:
    network.drop_multicast(pc)
    network.drop_multicast(pi)
    with pi.run(MEMBER, "bell", "anvil") as alone:
        alone.wait_for("hosting bell in")
        assert "Starting Ether session" in alone.said()
    settings = {"broker": f"mqtt://{pc.address}"} if way == "argument" else {}
    broker = pc.address if way == "environment" else None
    with pi.run(MEMBER, "bell", "anvil", json.dumps(settings), ETHER_BROKER=broker) as bell:
        bell.wait_for("hosting bell in bench")
        assert "Joining Ether session: bench on pc" in bell.said()
        assert_they_talk(anvil, bell)


@NEEDS_NAMESPACES
@NEEDS_MOSQUITTO
@pytest.mark.usefixtures("anvil")
@pytest.mark.parametrize("key", [OTHER_KEY, None], ids=["another key", "no key"])
def test_a_wrong_key_is_refused_and_the_error_names_the_file(pc: Machine, pi: Machine, key: str | None) -> None:
    settings = json.dumps({"broker": f"mqtt://{pc.address}"})
    with pi.run(MEMBER, "bell", "anvil", settings, ETHER_KEY=key) as bell:
        assert bell.finish().code == 1
    assert f"WrongLabKey: the broker at mqtt://{pc.address}:1883 refuses this machine's lab key" in bell.said()
    assert "copy the file ~/.config/ether/key" in bell.said()
    assert KEY not in bell.said()
