"""A broker that was started again has forgotten who leads: nobody begins a second session beside the first, and where
two lead all the same, one steps back.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from patience import patience
from programs import Program, program_of, running, write
from running_brokers import RunningBroker, engines, mosquitto_missing, running_broker, soon
from set_clock import DAY_S, SetClock

from ether import Ether
from ether.errors import LifecycleFailed
from ether.session.recovery import recorded_at, sessions_returning
from ether.transport.endpoint import Endpoint

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]

WORKER = {"class_path": "kept_parts.Worker"}

LEADER = """
    import json, sys, threading
    from ether import ether

    with ether.tap(json.loads(sys.argv[1])):
        print("ready", flush=True)
        while not threading.Event().wait(0.2):
            pass
"""


pytestmark = pytest.mark.in_turn("broker")


@pytest.fixture(params=ENGINES)
def broker(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    with running_broker(request.param) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "leader.py", LEADER)
    (tmp_path / "kept_parts.py").write_text((Path(__file__).parents[1] / "parts" / "kept_parts.py").read_text())
    return tmp_path


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def leader(
    stack: ExitStack, folder: Path, broker: RunningBroker, record: dict[str, Any] | None = None, **instances: Any
) -> Program:
    """Another program, which leads the session `bench`."""
    config = {"session": "bench", "broker": broker.url_tcp, "record": record, "instances": instances}
    program: Program = stack.enter_context(running(folder, "leader.py", json.dumps(config)))
    program.wait_for("ready")
    return program


def member(stack: ExitStack, broker: RunningBroker, config: dict[str, Any]) -> Ether:
    ether = Ether()
    ether.tap(config, broker=broker.url_tcp)
    stack.callback(leave, ether)
    return ether


def leave(ether: Ether) -> None:
    try:
        ether.shutdown()
    except LifecycleFailed:
        pass  # what stopped itself on purpose


# -- waiting for the session that is about to be back


@pytest.mark.parametrize("named", [True, False])
def test_who_comes_before_the_leader_is_back_waits_for_it(
    stack: ExitStack, folder: Path, broker: RunningBroker, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """The record on this machine says that it lives."""
    program = leader(stack, folder, broker, cam=WORKER)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(program.runtime))
    broker.kill()
    broker = broker.restart()
    newcomer = member(stack, broker, {"session": "bench"} if named else {})
    assert newcomer.session_id == "bench"
    assert newcomer.session_info()["pid"] == program.process.pid
    assert soon(lambda: keepers(newcomer) == {"cam": "main"}, 15), newcomer.instances()
    assert newcomer.get("cam", "add", {"a": 1, "b": 2}) == 3


def test_instances_without_their_keeper_are_a_reason_to_wait(broker: RunningBroker) -> None:
    """As on another machine, whose record cannot be read here: an instance was quicker than its program."""
    endpoint = Endpoint.from_url(broker.url_tcp)
    with ExitStack() as stack:
        first = member(stack, broker, {"session": "other"})
        link = first._joined("a test").link
        state, entry = "ether/1/bench/state/cam", "ether/1/bench/session"
        link.publish(state, {"name": "cam", "state": "ready", "birth": "b", "keeper": "main", "epoch": 1}, retain=True)
        link.flush(patience(5))
        found: list[Any] = []
        waiting = threading.Thread(target=lambda: found.extend(sessions_returning(endpoint, "bench", ())))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        link.publish(entry, {"host": "pc1", "pid": 7}, retain=True)
        waiting.join(patience(10))
        assert [info.session for info in found] == ["bench"]
        link.withdraw(entry)
        link.publish(state, {"name": "cam", "state": "lost", "birth": "b", "keeper": "main", "epoch": 1}, retain=True)
        link.flush(patience(5))
        assert sessions_returning(endpoint, "bench", ()) == []
        link.withdraw(state)


def test_whom_records_place_at_a_broker() -> None:
    from ether.session.discovery.local_sessions import SessionRecord

    here = SessionRecord("bench", "mqtt://user:secret@lab:1883", "pc1", 7, 0.0, "1")
    there = SessionRecord("other", "mqtt://lab:1884", "pc1", 7, 0.0, "1")
    endpoint = Endpoint.from_url("mqtt://lab")
    assert recorded_at(endpoint, None, [here, there]) == {"bench"}
    assert recorded_at(endpoint, "other", [here, there]) == set()


# -- two that lead


@pytest.mark.parametrize("off_s", [0.0, -8 * DAY_S])
def test_of_two_that_lead_the_later_one_steps_back(
    stack: ExitStack, folder: Path, broker: RunningBroker, monkeypatch: pytest.MonkeyPatch, off_s: float
) -> None:
    """The first one is frozen while the broker forgets it, as behind a cut of the network; its record is another
    machine's. The clock of the second one may be behind, so that it seems to have begun earlier."""
    records = [{"topics": [], "folder": str(folder / name)} for name in ("first", "second")]
    first = leader(stack, folder, broker, records[0], cam=WORKER, one=WORKER)
    with frozen(first):
        broker.kill()
        broker = broker.restart()
        SetClock(folder, monkeypatch).set(off_s)
        second = leader(stack, folder, broker, records[1], cam=WORKER, two=WORKER)
    second.wait_for("goes on as its guest")
    seen = member(stack, broker, {"session": "bench"})
    wanted = {"cam": "main", "one": "main", "recorder": "main", "two": "leader"}
    assert soon(lambda: keepers(seen) == wanted, 15), f"{keepers(seen)}\n{first.said()}\n{second.said()}"
    assert seen.session_info()["pid"] == first.process.pid
    assert {program_of(seen.get(name, "pid")) for name in ("cam", "one")} == {first.process.pid}
    assert program_of(seen.get("two", "pid")) == second.process.pid
    program = next(member["keeper"] for member in seen.instances() if member["name"] == "two")
    assert program in seen.session_info()["programs"]
    second.kill()  # its last word with the broker is still that of one who leads
    second.process.wait(patience(10))
    del wanted["two"]
    assert soon(lambda: keepers(seen) == wanted, 10), keepers(seen)
    assert soon(lambda: seen.session_info().get("pid") == first.process.pid, 5)
    first.interrupt()
    first.assert_nothing_left()
    assert first.said().count("gives up its name") == 0, first.said()


def keepers(ether: Ether) -> dict[str, str]:
    """Of each instance that is ready; the random bits of a guest's name left out."""
    ready = [member for member in ether.instances() if member["state"] == "ready"]
    return {member["name"]: member["keeper"].partition("-")[0] for member in ready}


@contextmanager
def frozen(program: Program) -> Iterator[None]:
    """All of it, and so that it hears nothing of its broker's end."""
    pids = [program.process.pid, *program.descendants()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
