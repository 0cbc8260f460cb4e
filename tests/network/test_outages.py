"""Links that are cut and healed, brokers that are killed and restarted: everybody is back, once, nothing is twice, and
nothing is lost, in either direction, whatever the broker has forgotten: its source sends it again.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from journal import Journal
from namespaces import Network, namespaces_missing, running_network
from paired import pair
from patience import patience
from programs import Program
from running_brokers import mosquitto_missing

pytestmark = [
    pytest.mark.skipif(namespaces_missing is not None, reason=str(namespaces_missing)),
    pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing)),
]
MEMBER = str(Path(__file__).with_name("member.py"))
HUB = str(Path(__file__).with_name("hub.py"))
TESTS = str(Path(__file__).parents[1] / "parts")
LONG = os.environ.get("ETHER_LONG") == "1"
CUTS_S = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 30.0] if LONG else [1.0, 6.0]
BACK_S = patience(3.0)
NOTICED_S = 15.0  # one and a half keep-alives of 5 s, looked at every 5 s
OWN_NOTICE_S = 4.9  # 2 s of silence, and half a second until something is said; the keep-alive needs 7.5
BOTH_READY = "anvil=ready bell=ready"


class Members:
    """Two programs on two machines that call each other and publish to each other."""

    def __init__(self, anvil: Program, bell: Program) -> None:
        self.programs = anvil, bell
        self.anvil, self.bell = Journal(anvil), Journal(bell)
        for journal, other in ((self.anvil, "bell"), (self.bell, "anvil")):
            journal.first("called", accept=other.__eq__)
            journal.first("got", after=journal.first("subscribed"))

    def assert_back(self, since: float, within_s: float) -> None:
        """Everybody calls, and the table of each shows both, once, and goes on doing so."""
        for journal in (self.anvil, self.bell):
            assert journal.first("called", since) - since <= within_s
            journal.first("present", since + within_s + 1.0)
            wrong = [event for event in journal.events("present", since + within_s) if event.value != BOTH_READY]
            assert wrong == []

    def stop_publishing(self) -> None:
        """Returns when whatever was published has arrived, but for what never will."""
        for program in self.programs:
            program.process.send_signal(signal.SIGUSR1)
        for sender, receiver in ((self.anvil, self.bell), (self.bell, self.anvil)):
            sender.first("published")
            last = str(sender.numbers("published")[0])
            receiver.first("got", accept=last.__eq__)


def lost_numbers(sender: Journal, receiver: Journal) -> list[int]:
    """Numbers that never arrived, of those sent since the first that did; the others arrived once and in order."""
    got = receiver.numbers("got")
    assert got == sorted(set(got))
    return sorted(set(range(got[0], sender.numbers("published")[0] + 1)) - set(got))


def assert_nothing_lost(members: Members) -> None:
    for sender, receiver in ((members.anvil, members.bell), (members.bell, members.anvil)):
        assert lost_numbers(sender, receiver) == [], receiver.said()


def wait(seconds: float) -> None:
    """Let a cut last: its length is what is tested."""
    threading.Event().wait(seconds)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with running_network(tmp_path) as network:
        yield network


@contextmanager
def two_members(anvil: Program, bell: Program) -> Iterator[Members]:
    yield Members(anvil, bell)
    for program in (bell, anvil):
        program.interrupt()
        assert program.finish().code == 0, program.said()[-6000:]


@pytest.fixture
def members(network: Network) -> Iterator[Members]:
    """`anvil` on the machine `pc` runs the session and its broker, `bell` has joined from `pi`."""
    pc, pi = network.machine("pc"), network.machine("pi")
    pair(pc.environment, pi.environment, "pi")
    with ExitStack() as stack:
        lan = {"session": "bench", "broker": {"engine": "mosquitto", "listen": "lan"}}
        anvil = stack.enter_context(pc.run(MEMBER, "anvil", "bell", json.dumps(lan)))
        anvil.wait_for("hosting")
        bell = stack.enter_context(pi.run(MEMBER, "bell", "anvil", json.dumps({"broker": f"mqtts://{pc.address}"})))
        yield stack.enter_context(two_members(anvil, bell))


def cut(network: Network, members: Members, seconds: float) -> tuple[float, float]:
    """Cut `pi` off and let it back; when both happened."""
    [pi] = [machine for machine in network.machines if machine.name == "pi"]
    began = time.monotonic()
    network.cut(pi)
    wait(seconds)
    if seconds > OWN_NOTICE_S + 1.0:
        noticed = members.bell.first("offline", began, "True".__eq__, timeout_s=0.1)
        assert noticed - began < OWN_NOTICE_S
        members.bell.first("last-known", noticed, "True".__eq__, timeout_s=0.1)
        looked = [event.time for event in members.bell.events("present", noticed)]
        assert len(looked) > 5, "it looks at once, whether or not there is a connection"
    if seconds > NOTICED_S:
        noticed = members.anvil.first("changed", began, "bell lost".__eq__, timeout_s=0.1)
        assert noticed - began < NOTICED_S
    healed = time.monotonic()
    network.heal(pi)
    return began, healed


@pytest.mark.parametrize("seconds", CUTS_S)
def test_after_a_cut_everybody_is_back_and_has_missed_nothing(
    network: Network, members: Members, seconds: float
) -> None:
    began, healed = cut(network, members, seconds)
    members.assert_back(healed, BACK_S)
    members.bell.first("offline", healed, "False".__eq__)
    assert [event for event in members.anvil.events("offline", began) if event.value == "True"] == []
    members.stop_publishing()
    assert_nothing_lost(members)


def test_after_a_brokers_restart_everybody_is_back_and_has_missed_nothing(network: Network, rounds: int) -> None:
    hub = network.machine("hub", PYTHONPATH=TESTS)
    pc, pi = network.machine("pc"), network.machine("pi")
    url = f"mqtt://lab:secret@{hub.address}"
    with hub.run(HUB, hub.address, "1883", "lab", "secret") as broker:
        broker.wait_for("listening")
        with ExitStack() as stack:
            start = json.dumps({"session": "bench", "broker": url})
            anvil = stack.enter_context(pc.run(MEMBER, "anvil", "bell", start))
            anvil.wait_for("hosting")
            bell = stack.enter_context(pi.run(MEMBER, "bell", "anvil", json.dumps({"broker": url})))
            members = stack.enter_context(two_members(anvil, bell))
            for _ in range(rounds):
                restart(broker, members)
            members.stop_publishing()
            assert_nothing_lost(members)
        broker.interrupt()
        assert broker.finish().code == 0, broker.said()


def restart(broker: Program, members: Members) -> None:
    """Kill the broker, start it again, and see everybody come back."""
    log = Journal(broker)
    asked = time.monotonic()
    broker.process.send_signal(signal.SIGUSR1)
    again = log.first("restarted", asked)
    members.assert_back(again, BACK_S)
