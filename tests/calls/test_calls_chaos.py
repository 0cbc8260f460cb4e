"""Calls when things go wrong: many at once, over a bad network, among enemies, with deaths. Real processes throughout.

Whatever happens, a call ends in its own right answer or in the truth about why there is none, by its deadline, and what
it asks for is done at most once.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from call_parts import SAVED, executions, right_answer
from hostile import HostileClient
from lateness import Lateness
from lossy_proxy import CALM, Direction, Fate, LossyProxy, Policy
from patience import patience
from running_brokers import RunningBroker, engines, mosquitto_missing, running_broker, soon

from ether import Ether
from ether.connection.deadline import Deadline
from ether.errors import CallError, InstanceLost, LifecycleFailed, NoResponder, RequestTimeout

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
LONG = os.environ.get("ETHER_LONG") == "1"
EACH = 1_000 if LONG else 150
"""Calls of each of sixteen threads."""
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and named pipes")

JOIN_S = patience(60.0)
LATE_S = 0.1
"""By how much a call may outlive its deadline, besides what this machine's own scheduling is late by."""
LAST_STEPS_S = 0.3
"""Before its deadline a call wakes up to ask what keeps it waiting; if that is delayed, so is its end."""
CALLS = "/(call|reply)/"
"""The topics that a bad network harms here; that presence survives losses is tested elsewhere."""


@pytest.fixture
def ether() -> Iterator[Ether]:
    """An `Ether` of the test's own."""
    own = Ether()
    yield own
    own.shutdown()


@pytest.fixture
def short_turns() -> Iterator[None]:
    """Proxy, enemy and callers share this process: with the interpreter's turns of 5 ms these would be measured."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    yield
    sys.setswitchinterval(usual)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each broker engine."""
    return str(request.param)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Where the parts note what they execute."""
    folder = tmp_path / "ledger"
    folder.mkdir()
    return folder


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A named pipe that holds a method until it is written to."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


def tallies(ledger: Path, *names: str) -> dict[str, Any]:
    """Instances of `Tally`."""
    return {name: {"class_path": "call_parts.Tally", "kwargs": {"ledger": str(ledger)}} for name in names}


def callers(*names: str) -> dict[str, Any]:
    """Instances of `Caller`."""
    return {name: {"class_path": "call_parts.Caller"} for name in names}


def in_threads(number: int, work: Callable[[int], object]) -> None:
    """Do it in that many threads at once; the first error of any is raised."""
    failed: list[BaseException] = []

    def guarded(thread: int) -> None:
        try:
            work(thread)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(n,), name=f"caller-{n}") for n in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN_S)
    assert not [thread.name for thread in threads if thread.is_alive()]
    if failed:
        raise failed[0]


def pending(ether: Ether) -> int:
    """How many requests this program waits for."""
    launch = ether._launch
    assert launch is not None
    return len(launch.session.calls.requests)


def await_delivered(ether: Ether, call_id: str) -> None:
    """Wait until the broker has said that it has a request of this program, and whom for."""
    launch = ether._launch
    assert launch is not None
    call = launch.session.calls.requests.get(bytes.fromhex(call_id))
    assert call is not None
    assert soon(lambda: call.receipt_known, timeout_s=patience(10))
    assert not call.undelivered


def open_requests(ether: Ether) -> list[str]:
    """What this program waits for, to be read where it should be nothing."""
    launch = ether._launch
    assert launch is not None
    calls = launch.session.calls
    waiting = [call for name in calls.asked() for call in calls.requests.asked_of(name)]
    return [f"{call.call} of {call.instance}, settled: {call.settled}, lost: {call.lost!r}" for call in waiting]


def wait_ready(ether: Ether, *names: str, timeout_s: float = 10.0) -> dict[str, str]:
    """Wait until they are ready; why they are not."""
    launch = ether._launch
    assert launch is not None
    return launch.session.wait_ready(names, Deadline(patience(timeout_s)), dict)


@dataclass
class Record:
    """What became of calls. Lists and counters of CPython are safe to add to from threads under the lock."""

    right: int = 0
    wrong: list[object] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    answered: list[str] = field(default_factory=list)
    ends: list[tuple[str, float, float, bool]] = field(default_factory=list)
    promised: list[tuple[str, str, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def make(self, ether: Ether, service: str, call: str, number: int, timeout_s: float, *, saves: bool = False) -> str:
        """Make one call and note its end; returns the name of the error, "" for an answer."""
        outcome: object
        error = ""
        deadline = time.monotonic() + timeout_s
        try:
            given = {"call": call, "number": number}
            outcome = (ether.save if saves else ether.get)(
                service, "keep" if saves else "answer", given, timeout_s=timeout_s
            )
        except CallError as told:
            outcome, error = told, type(told).__name__
        end = time.monotonic()
        if saves and isinstance(outcome, dict):
            error = "" if outcome["status"] == "success" else outcome.get("error", "pending")
            if error == "pending":
                self.promised.append((outcome["call_id"], call, number))
            outcome = outcome.get("result", outcome)
        with self.lock:
            self._note(call, number, outcome, error)
            self.ends.append((f"{call} {error}", deadline, end, saves))
        return error

    def _note(self, call: str, number: int, outcome: object, error: str) -> None:
        if error:
            self.errors[error] += 1
        elif outcome == right_answer(call, number):
            self.right += 1
            self.answered.append(call)
        else:
            self.wrong.append((call, outcome))

    def outlived(self, lateness: Lateness) -> list[str]:
        """Calls that ended later than they may, with the numbers. Before a save says `pending`, it is on disk."""
        outlived = []
        for call, deadline, end, saves in self.ends:
            if end - deadline > LATE_S:
                noise = lateness.between(deadline - LAST_STEPS_S, end)
                disk = lateness.syncing(deadline - LAST_STEPS_S, end) if saves else 0.0
                if end - deadline > LATE_S + noise + disk:
                    outlived.append(
                        f"{call}: {end - deadline:.3f} s late, the machine {noise:.3f} s, its disk {disk:.3f} s"
                    )
        return outlived


# -- many at once


def test_sixteen_threads_get_each_their_own_answers(ether: Ether, engine: str, ledger: Path) -> None:
    ether.tap({"instances": tallies(ledger, "one", "two")}, broker={"engine": engine})
    record = Record()

    def work(thread: int) -> None:
        for number in range(EACH):
            service = ("Tally", "one", "two")[number % 3]
            record.make(ether, service, f"{thread}-{number}", thread * EACH + number, 30.0)

    in_threads(16, work)
    assert (record.right, record.wrong, record.errors) == (16 * EACH, [], {})
    done = executions(ledger)
    assert (len(done), max(done.values())) == (16 * EACH, 1)
    assert len(list(ledger.iterdir())) == 2  # both had a share
    assert pending(ether) == 0


def test_a_call_does_not_wait_for_another_service(ether: Ether, engine: str, ledger: Path, gate: Path) -> None:
    """The other one is busy until all calls have ended; if one waited for it, it would end at its own deadline."""
    ether.tap({"instances": tallies(ledger, "slow", "quick")}, broker={"engine": engine})
    record = Record()
    took: dict[str, list[float]] = {"at rest": [], "by instance": [], "by class": []}

    def measure(kind: str, service: str, turn: int) -> None:
        for number in range(30):
            started = time.monotonic()
            record.make(ether, service, f"{kind}-{turn}-{number}", number, 30.0)
            took[kind].append(time.monotonic() - started)

    measure("at rest", "quick", 0)  # what is slow once only
    took["at rest"].clear()
    for turn in range(1, 6):  # in turns, because what else the machine does changes meanwhile
        measure("at rest", "quick", turn)
        with ether.subscribe("dozing") as dozing:
            held = ether.get_later("slow", "hold", {"call": f"held-{turn}", "gate": str(gate)}, timeout_s=JOIN_S)
            dozing.get()
        measure("by instance", "quick", turn)
        measure("by class", "Tally", turn)  # the least busy one is asked
        gate.write_text("open")
        assert ether.collect(held) == f"held-{turn}"
    assert (record.right, record.wrong, record.errors) == (480, [], {})
    at_rest = statistics.median(took["at rest"])
    for kind in ("by instance", "by class"):
        assert statistics.median(took[kind]) < 5 * at_rest + 0.001, kind


# -- a bad network, each evil on its own


@pytest.fixture
def broker(engine: str) -> Iterator[RunningBroker]:
    """A broker that runs already."""
    with running_broker(engine) as running:
        yield running


@pytest.fixture
def network(broker: RunningBroker) -> Iterator[LossyProxy]:
    """A calm proxy in front of the broker."""
    with LossyProxy(broker.host, broker.port, seed=3) as proxy:
        yield proxy


@pytest.fixture
def url(network: LossyProxy, broker: RunningBroker) -> str:
    """The broker's address, through the proxy."""
    return network.url(broker.username, broker.password)


@pytest.mark.parametrize("direction", list(Direction))
def test_what_is_delivered_twice_runs_once_and_answers_once(
    network: LossyProxy, url: str, ether: Ether, ledger: Path, direction: Direction
) -> None:
    ether.tap({"instances": tallies(ledger, "one")}, broker=url)
    network.apply(Policy(double=0.7, reorder=0.3, topics=CALLS), direction)
    record = Record()
    in_threads(8, lambda n: [record.make(ether, "one", f"{n}-{i}", i, 20.0) for i in range(60)])
    assert (record.right, record.wrong, record.errors) == (480, [], {})
    done = executions(ledger)
    assert (len(done), max(done.values())) == (480, 1)
    network.apply(CALM)
    assert network.count(Fate.DOUBLE, direction) > 400
    assert pending(ether) == 0


@pytest.mark.parametrize("lost", ["/call/", "/reply/"])
def test_what_a_broker_loses_ends_at_the_deadline(
    network: LossyProxy, url: str, ether: Ether, ledger: Path, lost: str
) -> None:
    ether.tap({"instances": tallies(ledger, "one")}, broker=url)
    network.apply(Policy(acknowledge_and_drop=1.0, topics=lost), Direction.TO_CLIENT)
    record = Record()
    with Lateness() as lateness:
        in_threads(8, lambda n: record.make(ether, "one", f"lost-{n}", n, 1.0))
    assert record.errors == {"RequestTimeout": 8}
    assert not record.outlived(lateness)
    assert pending(ether) == 0
    network.apply(CALM)
    assert record.make(ether, "one", "found", 1, 10.0) == ""
    assert set(executions(ledger)) - {f"lost-{n}" for n in range(8)} == {"found"}
    assert ("lost-0" in executions(ledger)) == (lost == "/reply/")


def test_a_question_about_a_call_that_has_just_ended_leaves_nothing_behind(
    network: LossyProxy, url: str, ether: Ether, ledger: Path
) -> None:
    """The answer came while its caller made up its mind to ask the instance; and the question is lost."""
    ether.tap({"instances": tallies(ledger, "one")}, broker=url)
    call = ether.get_later("one", "answer", {"call": "answered", "number": 1})
    ended = ether._client.later(call)  # type: ignore[union-attr]
    assert ended.wait(time.monotonic() + patience(10.0))
    network.apply(Policy(acknowledge_and_drop=1.0, topics="/call/"), Direction.TO_CLIENT)
    ether._launch.session.calls.probe(ended)  # type: ignore[union-attr]
    assert pending(ether) == 0


@pytest.mark.parametrize("direction", list(Direction))
def test_a_request_that_arrives_after_its_deadline_is_not_executed(
    network: LossyProxy, url: str, ether: Ether, ledger: Path, direction: Direction
) -> None:
    ether.tap({"instances": tallies(ledger, "one")}, broker=url)
    assert Record().make(ether, "one", "warm", 1, 10.0) == ""
    network.apply(Policy(delay=1.0, delay_s=(0.6, 0.6), topics="/call/.*/answer"), direction)
    with pytest.raises(RequestTimeout):
        ether.get("one", "answer", {"call": "too late", "number": 1}, timeout_s=0.3)
    assert network.wait_for(lambda: network.count(Fate.DELAY, direction) == 1, 5.0)
    network.apply(CALM)
    assert network.wait_for(lambda: network.held == 0, 5.0)
    assert Record().make(ether, "one", "behind it", 2, 10.0) == ""
    assert set(executions(ledger)) == {"warm", "behind it"}


def test_an_answer_that_comes_late_answers_nothing_else(
    network: LossyProxy, url: str, ether: Ether, ledger: Path
) -> None:
    ether.tap({"instances": tallies(ledger, "one")}, broker=url)
    network.apply(Policy(delay=0.5, delay_s=(0.25, 0.6), topics="/reply/"), Direction.TO_CLIENT)
    record = Record()
    in_threads(8, lambda n: [record.make(ether, "one", f"{n}-{i}", i, 0.2) for i in range(20)])
    assert record.wrong == []
    assert record.right + record.errors["RequestTimeout"] == 160
    assert record.right > 20
    assert record.errors["RequestTimeout"] > 20
    network.apply(CALM)
    assert network.wait_for(lambda: network.held == 0, 5.0)
    assert record.make(ether, "one", "last", 3, 10.0) == ""
    assert ether._launch.session.calls.requests.counts.unknown == 0  # type: ignore[union-attr]
    assert pending(ether) == 0


def test_requests_that_expire_in_the_queue_leave_nothing_behind(
    ether: Ether, engine: str, ledger: Path, gate: Path
) -> None:
    """More of them than fit into any window between an instance and its broker."""
    ether.tap({"instances": tallies(ledger, "one")}, broker={"engine": engine})
    with ether.subscribe("dozing") as dozing:
        held = ether.get_later("one", "hold", {"call": "held", "gate": str(gate)}, timeout_s=patience(60.0))
        dozing.get()
    ids = [ether.get_later("one", "answer", {"call": f"x-{n}", "number": n}, timeout_s=0.5) for n in range(1500)]
    for each in ids:
        with pytest.raises(RequestTimeout, match=r"still busy|stopped responding"):
            ether.collect(each)
    gate.write_text("open")
    assert ether.collect(held) == "held"
    record = Record()
    for number in range(100):
        assert record.make(ether, "one", f"after-{number}", number, 5.0) == ""
    assert set(executions(ledger)) == {"held", *(f"after-{n}" for n in range(100))}
    assert pending(ether) == 0


def test_an_instance_is_called_again_whose_cut_the_broker_notices_late(
    network: LossyProxy, url: str, ether: Ether, ledger: Path
) -> None:
    """It is back before the broker publishes the will of its old connection, and must not stay dead for it."""
    ether.tap({"instances": tallies(ledger, "one")}, broker=url)
    with ether.subscribe(f"mqtt:ether/1/{ether.session_id}/state/one") as states:
        assert states.get().value["state"] == "ready"  # type: ignore[index]
        assert network.cut("one", unnoticed_s=1.0) == 1
        told: set[object] = set()
        while told != {"lost", "ready"}:
            told.add(states.get().value["state"])  # type: ignore[index]
        assert network.wait_for(lambda: network.unnoticed == 0, 5.0)
    assert wait_ready(ether, "one", timeout_s=5.0) == {}
    assert Record().make(ether, "one", "again", 1, 10.0) == ""


def test_an_instance_that_is_away_for_a_moment_when_all_ends_saves_all_the_same(
    network: LossyProxy, url: str, ether: Ether, ledger: Path
) -> None:
    ether.tap({"instances": tallies(ledger, "one", "two")}, broker=url)
    with ether.subscribe(f"mqtt:ether/1/{ether.session_id}/state/one") as states:
        network.cut("one")
        while states.get().value["state"] != "lost":  # type: ignore[index]
            pass
    started = time.monotonic()
    with contextlib.suppress(LifecycleFailed):  # it may say that one was not there
        ether.shutdown()
    assert executions(ledger)[SAVED] == 2
    assert time.monotonic() - started < patience(5.0)


def test_a_first_call_from_inside_an_instance_ends_in_an_answer_or_a_call_error(
    network: LossyProxy, url: str, ether: Ether, ledger: Path
) -> None:
    ether.tap({"instances": {**tallies(ledger, "one"), **callers("other")}}, broker=url)
    network.apply(Policy(acknowledge_and_drop=1.0, topics="/reply/other"), Direction.TO_CLIENT)
    told = ether.get("other", "relay", {"service": "one", "seconds": 0.0, "timeout_s": 0.5}, timeout_s=patience(20.0))
    assert told["error"] == "RequestTimeout"
    # How late the machine lets the other process be is not measured, and what is not noticed waits for much longer.
    assert told["at"] - told["deadline"] < patience(2.4)
    network.apply(CALM)
    again = ether.get("other", "relay", {"service": "one", "seconds": 0.0, "timeout_s": 10.0}, timeout_s=patience(20.0))
    assert again["error"] is None


# -- everything at once

DEADLINES_S = (*[0.2] * 8, *[0.4] * 4, 0.8, 2.0)
OVER_S = 2.5
"""No call of the great mixture lasts longer."""

BAD = Policy(
    drop=0.001,
    acknowledge_and_drop=0.008,
    double=0.03,
    delay=0.02,
    reorder=0.03,
    stall=0.0002,
    cut=0.0002,
    delay_s=(0.02, 1.0),
    stall_s=0.3,
    topics=CALLS,
)


@pytest.mark.usefixtures("short_turns")
def test_thousands_of_calls_among_losses_enemies_and_deaths(ether: Ether, engine: str, ledger: Path) -> None:
    number_of_calls = how_many(engine)
    names = ("tally0", "tally1", "tally2")
    doomed = ("caller0", "caller1")
    record = Record()
    numbers = itertools.count()
    with running_broker(engine) as broker, LossyProxy(broker.host, broker.port, seed=11) as proxy:
        instances = {**tallies(ledger, *names), **callers(*doomed)}
        ether.tap({"instances": instances}, broker=proxy.url(broker.username, broker.password))
        assert ether.session_id is not None

        def work(thread: int) -> None:
            chance = random.Random(thread)
            while (number := next(numbers)) < number_of_calls:
                service = chance.choice(("Tally", "Tally", *names))
                timeout_s = chance.choice(DEADLINES_S)
                saves = number % 4 == 0
                for attempt in itertools.count():
                    call = f"main-{thread}-{number}-{attempt}"
                    if record.make(ether, service, call, number, timeout_s, saves=saves) != "NoResponder":
                        break
                    wait_ready(ether, *names, timeout_s=1.0)

        with (
            HostileClient(broker, ether.session_id, over_s=OVER_S) as enemy,
            Lateness(ledger.parent) as lateness,
            ether.subscribe("called") as called,
        ):
            ether.pub({"service": "Tally", "threads": 2}, topic="call-on")
            assert len({called.get().value["pid"] for _ in doomed}) == 2  # type: ignore[index]
            proxy.apply(BAD)
            victims = threading.Thread(target=lambda: kill_two(ether, called))
            victims.start()
            in_threads(32, work)
            victims.join(JOIN_S)
            assert not victims.is_alive()
            assert (enemy.failed, set(enemy.did) >= {"again", "wrong_id", "wrong_topic", "garbage"}) == ([], True)
            proxy.apply(CALM)
            proxy.cut()
            assert proxy.wait_for(lambda: proxy.held == 0 and len(proxy.clients()) >= 4, 20.0)
            well_again(ether, *names)
            calm = Record()
            for number in range(100):
                calm.make(ether, "Tally", f"calm-{number}", number, 10.0)
            assert (calm.right, calm.errors) == (100, {})
            for call_id, call, number in record.promised:
                assert ether.collect(call_id, timeout_s=JOIN_S)["result"] == right_answer(call, number)
                record.answered.append(call)
        print(engine, record.right, dict(record.errors), proxy.counts(), dict(enemy.did), len(record.ends))
        assert record.wrong == []
        assert set(record.errors) <= {"RequestTimeout", "InstanceLost", "NoResponder", "pending"}
        assert record.right > 0.6 * number_of_calls
        assert not record.outlived(lateness)
        done = executions(ledger)
        assert [call for call, times in done.items() if times > 1] == []
        assert [call for call in record.answered if call not in done] == []
        # A save may have been answered while it was being sent again: its entry goes when that is done.
        assert soon(lambda: pending(ether) == 0, 5.0), open_requests(ether)
        ether.shutdown()


def well_again(ether: Ether, *names: str) -> None:
    """Everybody answers, soon after the network is what it was."""
    deadline = Deadline(patience(30.0))
    for name in names:
        for attempt in itertools.count():
            if Record().make(ether, name, f"well-{name}-{attempt}", attempt, 1.0) == "":
                break
            assert not deadline.passed
            wait_ready(ether, name, timeout_s=1.0)


def how_many(engine: str) -> int:
    """Ten thousand where there is time; otherwise a quarter of them, and on the second engine where the first one has
    run a tenth."""
    if LONG:
        return 10_000
    return 1_000 if engine == "amqtt" and mosquitto_missing is None else 2_500


def kill_two(ether: Ether, called: Any) -> None:
    """Kill each process that calls, in the middle of its calls."""
    right: Counter[int] = Counter()
    while len([number for number in right.values() if number >= 100]) < 2:
        said = called.get(JOIN_S).value  # after a hundred right answers to one thread, among 32 that ask for more
        assert said["wrong"] == 0
        if said["pid"] not in right:
            os.kill(said["pid"], signal.SIGKILL)
        right[said["pid"]] += said["right"]


# -- instances that die, and that hang


def test_an_instance_that_is_killed_inside_of_a_handler_is_lost_at_once(
    ether: Ether, engine: str, ledger: Path, rounds: int
) -> None:
    """For the program that started it, and for another instance, which hears of it from the broker: within a second on
    an idle machine. Without the news of the death it takes 20 s and more."""
    victims = [f"victim{n}" for n in range(rounds)]
    instances = {**tallies(ledger, *victims), **callers("other")}
    ether.tap({"instances": instances}, broker={"engine": engine}, timeout_s=patience(60))
    for victim in victims:
        with ether.subscribe("dozing") as dozing:
            relayed = ether.get_later("other", "relay", {"service": victim, "seconds": 60, "timeout_s": 30})
            pid = dozing.get().value["pid"]  # type: ignore[index]
        mine = ether.get_later(victim, "doze", {"call": "behind", "seconds": 60}, timeout_s=patience(30))
        await_delivered(ether, mine)  # what is delivered to nobody is not lost: `NoResponder`
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(InstanceLost, match=victim):
            ether.collect(mine, timeout_s=20)
        assert time.monotonic() - killed < patience(2.4)
        theirs = ether.collect(relayed, timeout_s=patience(20))
        assert theirs["error"] == "InstanceLost"
        assert theirs["at"] - killed < patience(2.4)
        with pytest.raises(NoResponder):
            ether.get(victim, "answer", {"call": "dead", "number": 1}, timeout_s=5)
    assert pending(ether) == 0


def test_an_instance_that_is_stopped_is_told_from_a_busy_one(
    ether: Ether, engine: str, ledger: Path, gate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ether.tap({"instances": tallies(ledger, "hung", "busy")}, broker={"engine": engine})
    with ether.subscribe("dozing") as dozing:
        held = ether.get_later("busy", "hold", {"call": "held", "gate": str(gate)}, timeout_s=patience(60))
        dozing.get()
        first = ether.get_later("hung", "doze", {"call": "short", "seconds": 0.0}, timeout_s=patience(30))
        pid = dozing.get().value["pid"]  # type: ignore[index]
    assert ether.collect(first, timeout_s=patience(10)) == "short"
    record = Record()
    os.kill(pid, signal.SIGSTOP)
    try:
        with Lateness() as lateness:
            with pytest.raises(RequestTimeout, match=r"hung .*stopped responding"):
                ether.get("hung", "answer", {"call": "stopped", "number": 1}, timeout_s=0.8)
            in_threads(4, lambda n: record.make(ether, "hung", f"stopped-{n}", n, 0.5))
        monkeypatch.setattr("ether.calls.client._PROBE_LEAD_S", patience(2.0))  # it has time to say so
        with pytest.raises(RequestTimeout, match=r"busy is still busy, .* in .*hold"):
            ether.get("busy", "answer", {"call": "in the queue", "number": 1}, timeout_s=3)
        assert record.errors == {"RequestTimeout": 4}
        assert not record.outlived(lateness)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert record.make(ether, "hung", "continued", 5, 10.0) == ""
    gate.write_text("open")
    assert ether.collect(held, timeout_s=patience(10)) == "held"
    assert record.make(ether, "busy", "awake", 6, 10.0) == ""
    assert set(executions(ledger)) == {"held", "short", "continued", "awake"}  # nothing that had expired
    assert pending(ether) == 0
