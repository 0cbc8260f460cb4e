"""A Mosquitto that keeps its messages over its own death: program and broker die together, and the next start leads,
records, and loses nothing of before. The reproducers R3 (`power`) and R4 (`ghost`) of the list of faults, by name.

With ETHER_LONG=1 there are 20 power cuts in a row, otherwise a few. The seed is printed; CHAOS_SEED repeats it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from mains import Mains, mains
from patience import patience
from programs import Program, program_of, running, write
from running_brokers import mosquitto_missing, soon

from ether import Ether
from ether.cli.exits import Exit
from ether.errors import LifecycleFailed
from ether.ledger.reader import LedgerReader, RecordFilter
from ether.ledger.verify import verify
from ether.recording.sources import orphaned_outboxes
from ether.session.leader_rules import RETURN_S
from ether.transport import Transport, open_transport
from ether.transport.base import Delivery
from ether.transport.endpoint import Endpoint
from ether.wire.topics import SessionTopics

pytestmark = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))

LONG = os.environ.get("ETHER_LONG") == "1"
CUTS = 20 if LONG else 3
WORKER = {"class_path": "kept_parts.Worker"}
AT_ONCE_S = 4.5
"""For a start whose predecessor is seen to be dead. The fault takes 5 to 10 s for each life, and never records: near
enough that no factor fits between."""

LEADER = """
    import json, sys, threading
    from ether import ether

    with ether.tap(json.loads(sys.argv[1])):
        print("ready", flush=True)
        while not threading.Event().wait(0.2):
            pass
"""

SAVER = """
    import json, os, sys
    from ether import ether

    life, config = sys.argv[1], json.loads(sys.argv[2])
    acknowledged = os.open("acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    ether.tap(config)
    info = ether.session_info()
    print("started:", "leads" if info["pid"] == os.getpid() else info, flush=True)
    n = 0
    while True:
        saved = []
        for _ in range(20):
            n += 1
            saved.append(ether.pub({"life": life, "n": n}, topic="v"))
        for each in saved:
            each.wait(30)
        os.write(acknowledged, "".join(f"{each.id}\\n" for each in saved).encode())
        print("acknowledged", flush=True)
"""


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Iterator[Mains]:
    with mains(persistent=getattr(request, "param", True)) as powered:
        yield powered


@pytest.fixture(autouse=True)
def nothing_of_other_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits in the outboxes of another test's session would ask for a recorder in this one's."""
    for variable in ("XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))


stock = pytest.mark.parametrize("broker", [pytest.param(False, id="stock")], indirect=True)
"""A broker without persistence, which lives on when a program is killed."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "leader.py", LEADER)
    write(tmp_path, "saver.py", SAVER)
    (tmp_path / "kept_parts.py").write_text((Path(__file__).parents[1] / "parts" / "kept_parts.py").read_text())
    return tmp_path


@pytest.fixture
def stack(broker: Mains) -> Iterator[ExitStack]:
    """Whatever is in it ends before the broker does."""
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    seed = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))
    print(f"{request.node.name}: CHAOS_SEED={seed}")
    return random.Random(seed)


def leader(stack: ExitStack, folder: Path, config: dict[str, Any]) -> Program:
    program: Program = stack.enter_context(running(folder, "leader.py", json.dumps(config)))
    program.wait_for("ready")
    return program


def power_cut(broker: Mains, program: Program) -> None:
    """Everything stands still at one moment, and nothing of it runs on: no last word, no will, no cleaning up."""
    pids = [program.process.pid, *program.descendants()]
    for pid in pids:
        signalled(pid, signal.SIGSTOP)
    broker.kill()
    for pid in [*pids, *program.descendants()]:
        signalled(pid, signal.SIGKILL)
    program.process.wait(patience(10))
    assert soon(lambda: not program.descendants(), 10)


def signalled(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def tapped(stack: ExitStack, config: dict[str, Any]) -> tuple[Ether, float]:
    """A program in the session, and how long its start took."""
    ether, began = Ether(), time.monotonic()
    ether.tap(config)
    stack.callback(ether.shutdown)
    return ether, time.monotonic() - began


def leads(ether: Ether) -> bool:
    return ether.session_info()["pid"] == os.getpid()


# -- R3, R4


def test_r3_power_each_start_after_a_power_cut_leads_and_records(stack: ExitStack, folder: Path, broker: Mains) -> None:
    ledger = folder / "ledger"
    config = {"session": "pi", "broker": broker.url, "record": {"topics": "all", "folder": str(ledger)}}
    first = leader(stack, folder, config)
    assert soon(lambda: "ether/1/pi/record/recorder/about" in broker.retained(), 5)
    power_cut(broker, first)
    broker.start()
    assert {"ether/1/pi/session", "ether/1/pi/state/recorder"} <= broker.retained().keys(), "the ghosts of this test"
    for life in (1, 2):
        own = Ether()
        began = time.monotonic()
        own.tap(config)
        took_s = time.monotonic() - began
        try:
            assert leads(own)
            for n in range(10):
                own.pub({"n": n}, topic="v")
            assert [(it["name"], it["state"]) for it in own.instances()] == [("recorder", "ready")]
            assert own.flush(patience(5)) == 0
        finally:
            began = time.monotonic()
            own.shutdown()
        assert time.monotonic() - began < AT_ONCE_S
        assert len(list(own.data(folder=ledger, topic="v"))) == 10 * life
        assert took_s < AT_ONCE_S
        assert broker.retained() == {}


@stock
def test_r4_ghost_a_killed_recorder_haunts_nobody(stack: ExitStack, folder: Path, broker: Mains) -> None:
    first = leader(stack, folder, {"session": "ghost", "broker": broker.url, "record": "all"})
    first.kill()
    assert soon(lambda: not first.descendants(), 5)
    second, _ = tapped(stack, {"session": "ghost", "broker": broker.url})
    for n in range(200):
        assert second.pub({"n": n}, topic="v") is None, "nobody records"
    assert second.flush(patience(5)) == 0
    # What the dead program itself had not saved yet (the beginning of its run) may have asked for a recorder.
    assert [it["name"] for it in second.instances()] in ([], ["recorder"])
    assert soon(lambda: orphaned_outboxes("ghost") == [], 10)
    began = time.monotonic()
    second.shutdown()
    assert time.monotonic() - began < AT_ONCE_S
    assert broker.retained() == {}


@stock
def test_a_recorder_takes_its_description_back_when_its_program_dies(
    stack: ExitStack, folder: Path, broker: Mains
) -> None:
    """Even where no program is left to clear it, and none comes."""
    first = leader(stack, folder, {"session": "ghost", "broker": broker.url, "record": "all"})
    about = "ether/1/ghost/record/recorder/about"
    assert about in broker.retained()
    first.kill()
    assert soon(lambda: about not in broker.retained(), 10)


def test_what_waited_for_a_recorder_that_died_is_recorded_by_the_next(
    stack: ExitStack, folder: Path, broker: Mains
) -> None:
    """The recorder stands still while 300 values are published: they wait on disk, and nothing of them is lost."""
    ledger = folder / "ledger"
    config = {"session": "pi", "broker": broker.url, "record": {"topics": "all", "folder": str(ledger)}}
    first = leader(stack, folder, config)
    guest, _ = tapped(stack, {"session": "pi", "broker": broker.url})
    recorder = next(it["pid"] for it in guest.instances() if it["name"] == "recorder")
    os.kill(recorder, signal.SIGSTOP)
    receipts = [guest.pub({"n": n}, topic="v") for n in range(300)]
    assert guest.flush(0.5) > 0
    power_cut(broker, first)
    broker.start()
    second = leader(stack, folder, config)
    for receipt in receipts:
        assert receipt is not None
        receipt.wait(patience(20))
    guest.shutdown()
    second.interrupt()
    second.finish()
    with LedgerReader.open(ledger) as reader:
        values = [record for record in reader.records(RecordFilter(kinds=())) if record.topic == "v"]
    assert sorted(json.loads(record.payload)["n"] for record in values) == list(range(300))


def test_two_services_that_start_together_after_a_power_cut_share_one_session(
    stack: ExitStack, folder: Path, broker: Mains
) -> None:
    config = {"session": "pi", "broker": broker.url, "record": {"topics": "all", "folder": str(folder / "ledger")}}
    power_cut(broker, leader(stack, folder, {**config, "instances": {"cam": WORKER}}))
    broker.start()
    services = [
        stack.enter_context(running(folder, "leader.py", json.dumps({**config, "instances": {name: WORKER}})))
        for name in ("cam", "pump")
    ]
    for service in services:
        service.wait_for("ready")
    own, _ = tapped(stack, {"session": "pi", "broker": broker.url})
    assert soon(lambda: states(own) == {"cam": "ready", "pump": "ready", "recorder": "ready"}, 10), own.instances()
    assert own.session_info()["pid"] in {service.process.pid for service in services}
    assert len(own.session_info()["programs"]) == 2, "the other service, and this program"
    assert not any("goes on as its guest" in service.said() for service in services)
    saved = own.pub(1, topic="v")
    assert saved is not None
    saved.wait(patience(10))


def test_the_command_line_shows_no_session_that_died_with_its_broker(
    stack: ExitStack, folder: Path, broker: Mains
) -> None:
    power_cut(broker, leader(stack, folder, {"session": "pi", "broker": broker.url, "instances": {"cam": WORKER}}))
    for command in (["ps", "-s", "pi"], ["ps"], ["sessions", "--json"]):
        broker.start()
        where = [sys.executable, "-m", "ether.cli.main", *command, "-b", broker.url]
        shown = subprocess.run(where, capture_output=True, text=True, timeout=patience(30), check=False)
        if command[0] == "ps":
            assert (shown.returncode, shown.stdout) == (Exit.NO_SESSION, ""), shown
        else:
            assert (shown.returncode, json.loads(shown.stdout)) == (Exit.OK, []), shown
        broker.kill()


# -- 20 power cuts


@pytest.mark.timeout(1200 if LONG else 120)
@pytest.mark.slow("power cuts, one after the other")
def test_after_each_power_cut_the_next_start_leads_and_nothing_of_before_is_lost(
    folder: Path, broker: Mains, chance: random.Random
) -> None:
    ledger = folder / "ledger"
    config = {
        "session": "pi", "broker": broker.url, "record": {"topics": "all", "folder": str(ledger)},
        "instances": {"cam": WORKER},
    }  # fmt: skip
    began, started = time.monotonic(), list[float]()
    for life in range(CUTS):
        with running(folder, "saver.py", str(life), json.dumps(config)) as program:
            starts = time.monotonic()
            program.wait_for("started:", 30)
            started.append(time.monotonic() - starts)
            assert "started: leads\n" in program.lines["out"], program.said()
            program.wait_for("acknowledged", 30)
            threading.Event().wait(chance.uniform(0.0, 0.5))  # until a random moment: there is nothing to wait for
            power_cut(broker, program)
        broker.start()
    with ExitStack() as stack:
        own, _ = tapped(stack, config)
        assert leads(own)
        assert own.get("cam", "add", {"a": 1, "b": 2}) == 3
        assert own.flush(patience(20)) == 0
        assert soon(lambda: orphaned_outboxes("pi") == [], 20), orphaned_outboxes("pi")
        assert soon(lambda: own.get("recorder", "proof")["durable"] == own.get("recorder", "proof")["total"], 20)
        proof = own.get("recorder", "proof")
    assert (list(proof["gaps"]), proof["duplicates"]) == ([], 0), proof["summary"]
    acknowledged = (folder / "acknowledged").read_text().rpartition("\n")[0].splitlines()
    with LedgerReader.open(ledger) as reader:
        records = list(reader.records(RecordFilter(kinds=())))
    counts = Counter(record.id for record in records if record.topic == "v")
    assert [it for it in acknowledged if counts[it] != 1] == [], "lost, or saved twice"
    assert {json.loads(record.payload)["life"] for record in records if record.topic == "v"} == set(
        map(str, range(CUTS))
    )
    report = verify(ledger)
    assert (report.ok, report.findings) == (True, ()), str(report)
    assert broker.retained() == {}
    print(
        f"{CUTS} power cuts in {time.monotonic() - began:.0f} s, {len(acknowledged)} acknowledged, 0 lost; a start took"
        f" {max(started):.1f} s at most"
    )


# -- whoever lives is not deposed


def test_a_leader_whose_broker_just_came_back_goes_on(
    stack: ExitStack, folder: Path, broker: Mains, rounds: int
) -> None:
    program = leader(stack, folder, {"session": "pi", "broker": broker.url, "instances": {"cam": WORKER}})
    for _ in range(max(2, rounds // 3)):
        broker.kill()
        broker.start()
        newcomer = Ether()
        newcomer.tap(session="pi", broker=broker.url)
        try:
            assert newcomer.session_info()["pid"] == program.process.pid
            assert newcomer.get("cam", "add", {"a": 1, "b": 2}, timeout_s=patience(10)) == 3
        finally:
            newcomer.shutdown()
    assert "goes on as its guest" not in program.said()


@pytest.mark.parametrize("frozen_s", [1.0, 10.0])
def test_a_frozen_leader_is_not_deposed(stack: ExitStack, folder: Path, broker: Mains, frozen_s: float) -> None:
    """Its record is another user's, so only its process is seen. The broker may clear its entry meanwhile."""
    program = leader(stack, folder, {"session": "pi", "broker": broker.url, "instances": {"cam": WORKER}})
    began = time.monotonic()
    with standing_still(program):
        newcomer, took_s = tapped(stack, {"session": "pi", "broker": broker.url})
        assert newcomer._launch is not None
        assert newcomer._launch.joined
        threading.Event().wait(max(0.0, frozen_s - (time.monotonic() - began)))  # how long it stands still is the test
    assert took_s < patience(4.9)  # it is seen to live after 2; one that waits for its answer takes 10
    assert soon(lambda: newcomer.session_info().get("pid") == program.process.pid, 10)
    assert soon(lambda: states(newcomer) == {"cam": "ready"}, 10), newcomer.instances()
    assert newcomer.get("cam", "add", {"a": 1, "b": 2}) == 3
    assert newcomer._launch.joined
    assert "goes on as its guest" not in program.said()


@contextmanager
def standing_still(program: Program) -> Iterator[None]:
    pid = program.process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def states(ether: Ether) -> dict[str, str]:
    return {member["name"]: member["state"] for member in ether.instances()}


# -- leaders of other machines


@contextmanager
def connected(broker: Mains) -> Iterator[Transport]:
    transport = open_transport(Endpoint.from_url(broker.url), client_id="elsewhere")
    transport.connect(patience(5))
    try:
        yield transport
    finally:
        transport.close()


@contextmanager
def elsewhere(broker: Mains, *topics: str) -> Iterator[Transport]:
    """A connection of another machine's program, which has led the session `pi`."""
    with connected(broker) as transport:
        if topics:
            transport.subscribe(topics)
        transport.publish(ENTRY, entry(), retain=True).wait(patience(5))
        yield transport


ENTRY, PROBE = "ether/1/pi/session", "ether/1/pi/control/leader/probe"


def entry() -> bytes:
    facts = {"host": "pc1", "pid": 7, "pid_started": "1", "boot": "another", "namespace": "another"}
    return json.dumps({**facts, "session": "pi", "since": 1000.0, "program": "main", "run": "r", "wire": 2}).encode()


def test_a_leader_of_another_machine_that_is_not_connected_is_none(stack: ExitStack, broker: Mains) -> None:
    with elsewhere(broker):
        pass
    own, took_s = tapped(stack, {"session": "pi", "broker": broker.url})
    assert leads(own)
    assert took_s < patience(RETURN_S + 3.4)  # by one who waits as for a silent leader: 13


def test_a_leader_of_another_machine_that_comes_back_late_is_joined(stack: ExitStack, broker: Mains) -> None:
    with elsewhere(broker):
        pass
    joined = threading.Thread(target=lambda: stack.enter_context(closing_tap(broker)))
    began = time.monotonic()
    joined.start()
    threading.Event().wait(RETURN_S / 3)  # how late it comes is the test; the rest is for it to be connected again
    with elsewhere(broker, PROBE):
        joined.join(patience(10))
        assert not joined.is_alive()
        assert time.monotonic() - began < patience(RETURN_S + 3.4)
        assert OUTCOMES.pop() == "guest"


OUTCOMES: list[str] = []


@contextmanager
def closing_tap(broker: Mains) -> Iterator[None]:
    own = Ether()
    own.tap(session="pi", broker=broker.url)
    assert own._launch is not None
    OUTCOMES.append("guest" if own._launch.joined else "leader")
    yield
    own.shutdown()


@pytest.mark.parametrize("late_s", [0.0, 4.0])
def test_a_leader_of_another_machine_that_is_connected_and_slow_is_joined(
    stack: ExitStack, broker: Mains, late_s: float
) -> None:
    """The broker has a subscriber for the question, so it is there, and is waited for."""
    with elsewhere(broker, PROBE) as transport:
        answering = threading.Thread(target=answer, args=(transport, late_s))
        answering.start()
        own, took_s = tapped(stack, {"session": "pi", "broker": broker.url})
        answering.join(patience(10))
        assert own._launch is not None
        assert own._launch.joined
        assert own.session_info()["pid"] == 7
        assert late_s <= took_s < late_s + RETURN_S - 0.1  # as long as it takes to be given up


def answer(transport: Transport, late_s: float) -> None:
    while not (isinstance(item := transport.receive(patience(10)), Delivery) and item.topic == PROBE):
        pass
    threading.Event().wait(late_s)
    transport.publish(ENTRY, entry(), retain=True).wait(patience(5))


# -- what else the dead have left


@stock
def test_a_start_clears_everything_that_the_dead_have_left(stack: ExitStack, folder: Path, broker: Mains) -> None:
    """Each kind of retained message, of this machine and of another one; what lives stays."""
    guest = leader(stack, folder, {"session": "sweep", "broker": broker.url, "instances": {"main2": WORKER}})
    here = {"host": os.uname().nodename, "pid": 2**22 - 1}
    there = {"host": "pc1", "pid": 7, "boot": "another", "namespace": "another"}
    with connected(broker) as transport:
        left = {
            **{f"state/{name}": {"name": name, "state": state, "birth": "b", "epoch": 3, **facts, **where}
               for where, mark in ((here, "h"), (there, "t"))
               for name, state, facts in (
                   (f"cam-{mark}", "ready", {"keeper": f"prog-{mark}"}),
                   (f"own-{mark}", "ready", {"keeper": "main"}),
                   (f"obj-{mark}", "offline", {}),
                   (f"again-{mark}", "restarting", {"keeper": "main"}),
                   (f"lost-{mark}", "lost", {"keeper": f"prog-{mark}", "supervised": True}),
                   (f"prog-{mark}", "ready", {"kind": "program"}),
                   (f"pi-{mark}", "ready", {"kind": "agent"}),
                   (f"off-{mark}", "lost", {"kind": "agent"}),
               )},
            "state/pi-t/health": {"load": 1.0},
            "state/nobody/health": {"load": 1.0},
            "record/recorder/about": {"birth": "b", "topics": "all"},
            "record/cam-t/about": {"birth": "b", "topics": "all"},
            "run": {"run": "r/1", "turn": 5, "trial": 1, "attempt": 1, "goes_on": True, "program": "main"},
        }  # fmt: skip
        for place, value in left.items():
            transport.publish(f"ether/1/sweep/{place}", json.dumps(value).encode(), retain=True).wait(patience(5))
    guest.kill()
    assert soon(lambda: not guest.descendants(), 5)
    own, _ = tapped(stack, {"session": "sweep", "broker": broker.url, "instances": {"cam-h": WORKER, "own-t": WORKER}})
    assert leads(own)
    assert own.get("cam-h", "add", {"a": 1, "b": 2}) == own.get("own-t", "add", {"a": 1, "b": 2}) == 3
    alive = {f"ether/1/sweep/{place}" for place in ("session", "state/cam-h", "state/own-t")}
    # What the killed program had not saved yet may have asked for a recorder, which is a new one.
    alive |= {f"ether/1/sweep/{place}" for place in ("state/recorder", "record/recorder/about")}
    assert soon(lambda: broker.retained().keys() <= alive, 30), broker.retained().keys() - alive
    assert broker.retained().get("ether/1/sweep/record/recorder/about", {"topics": []})["topics"] == []
    assert own.pub(1, topic="v") is None, "nobody records"


def test_a_name_that_a_dead_instance_of_another_machine_holds_is_free(stack: ExitStack, broker: Mains) -> None:
    there = {"host": "pc1", "pid": 7, "boot": "another", "namespace": "another", "keeper": "main", "epoch": 3}
    value = {"name": "cam", "state": "ready", "birth": "b", **there}
    with connected(broker) as transport:
        transport.publish("ether/1/pi/state/cam", json.dumps(value).encode(), retain=True).wait(patience(5))
    own, _ = tapped(stack, {"session": "pi", "broker": broker.url, "instances": {"cam": WORKER}})
    assert own.get("cam", "add", {"a": 1, "b": 2}) == 3
    assert next(it["epoch"] for it in own.instances() if it["name"] == "cam") > 3


def test_everything_that_is_retained_has_an_owner(stack: ExitStack, folder: Path, broker: Mains) -> None:
    """Whatever else Ether begins to retain has to be swept, too: see `SessionTopics.retained_of`."""
    record = {"topics": "all", "folder": str(folder / "ledger")}
    own, _ = tapped(stack, {"session": "pi", "broker": broker.url, "record": record, "instances": {"cam": WORKER}})
    leader(stack, folder, {"session": "pi", "broker": broker.url})
    topics = SessionTopics("pi")
    with own.run("warm-up") as run:
        for _ in run.trials(1):
            own.host(object(), "here")
            kinds = {"session": set[str](), "run": set[str](), "member": set[str]()}
            for topic in broker.retained():
                own_topics = {topics.session_info: "session", topics.run: "run"}
                kinds[own_topics.get(topic, "member")].add(topics.member_of(topic) or topic)
    assert kinds["session"] == {topics.session_info}
    assert kinds["run"] == {topics.run}
    assert kinds["member"] == {"cam", "here", "recorder", *own.session_info()["programs"]}


def test_a_member_that_lives_is_not_swept(stack: ExitStack, folder: Path, broker: Mains) -> None:
    """The leader dies with the broker; a guest with an instance and an object lives on, and so do its announcements
    under the next leader."""
    first = leader(stack, folder, {"session": "pi", "broker": broker.url})
    guest = leader(stack, folder, {"session": "pi", "broker": broker.url, "instances": {"cam": WORKER}})
    power_cut(broker, first)
    broker.start()
    own, _ = tapped(stack, {"session": "pi", "broker": broker.url})
    assert leads(own)
    assert soon(lambda: states(own).get("cam") == "ready", 10)
    threading.Event().wait(patience(4.0))  # longer than it takes to be swept: nothing happens, which is the test
    assert states(own).get("cam") == "ready"
    assert program_of(own.get("cam", "pid")) == guest.process.pid
    assert len(own.session_info()["programs"]) == 1


def test_a_guest_that_was_taken_for_dead_is_back_when_it_can_speak(
    stack: ExitStack, folder: Path, broker: Mains
) -> None:
    own, _ = tapped(stack, {"session": "pi", "broker": broker.url})
    guest = leader(stack, folder, {"session": "pi", "broker": broker.url})
    programs = own.session_info()["programs"]
    assert len(programs) == 1
    client = own._client
    assert client is not None
    with standing_still(guest):
        client.link.transport.publish(client.topics.state(programs[0]), b"", retain=True).wait(patience(5))
        assert soon(lambda: own.session_info()["programs"] == [], 5)
    assert soon(lambda: own.session_info()["programs"] == programs, 10)


def test_guests_notice_that_their_leader_died_with_the_broker(stack: ExitStack, folder: Path, broker: Mains) -> None:
    """Nobody starts anything: what the broker still says of the leader goes all the same."""
    first = leader(
        stack, folder, {"session": "pi", "broker": broker.url, "record": "all", "instances": {"cam": WORKER}}
    )
    guest, _ = tapped(stack, {"session": "pi", "broker": broker.url})
    power_cut(broker, first)
    broker.start()
    own = {f"ether/1/pi/state/{name}" for name in guest.session_info()["programs"]}
    assert len(own) == 1
    assert soon(lambda: broker.retained().keys() == own, 30), broker.retained().keys()
    assert guest.instances() == []
    with suppress(LifecycleFailed):  # where something of its own was to be recorded, nobody is there who would
        guest.shutdown()
