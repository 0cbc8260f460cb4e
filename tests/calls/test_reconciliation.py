"""Calls over an outage: an answer or a request that a broker lost is sent again, nothing runs twice, and a broker that
stands still ends no call of an instance that lives."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distance import Distance
from engine_params import EVERY, STOCKS
from lossy_proxy import CALM, Direction, Fate, LossyProxy, Policy
from patience import patience
from running_brokers import RunningBroker, running_broker, soon

from ether import Ether
from ether.errors import InstanceLost, NoResponder
from ether.protocol.request_table import Answered

TO_BROKER, TO_CLIENT = Direction.TO_BROKER, Direction.TO_CLIENT


@pytest.fixture
def ether() -> Iterator[Ether]:
    """To be named behind the broker, because it has to end first."""
    with Ether() as own:
        yield own


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    folder = tmp_path / "ledger"
    folder.mkdir()
    return folder


def ran(ledger: Path) -> Counter[str]:
    """How often each call was run, by whomever."""
    return Counter(line for file in ledger.iterdir() for line in file.read_text().splitlines())


def once(ledger: Path, **more: Any) -> dict[str, Any]:
    return {"class_path": "far_parts.Once", "kwargs": {"folder": str(ledger)}, **more}


@pytest.fixture(params=EVERY)
def network(request: pytest.FixtureRequest) -> Iterator[tuple[RunningBroker, LossyProxy, str]]:
    """A broker behind a network that loses what it is told to lose."""
    with running_broker(request.param) as broker, LossyProxy(broker.host, broker.port, seed=1) as proxy:
        yield broker, proxy, proxy.url(broker.username or "nobody", broker.password or "nothing")


@pytest.mark.parametrize("lost", ["answer", "request"])
def test_what_the_broker_lost_of_a_call_is_sent_again_when_all_are_back(
    network: tuple[RunningBroker, LossyProxy, str], ether: Ether, ledger: Path, lost: str
) -> None:
    _, proxy, url = network
    ether.tap({"instances": {"one": once(ledger)}}, broker=url)
    assert ether.get("one", "work", {"call": "first"}) == "first is done"
    proxy.apply(Policy(acknowledge_and_drop=1.0, topics="/reply/" if lost == "answer" else "/call/one/work"), TO_BROKER)
    call = ether.get_later("one", "work", {"call": "second"}, timeout_s=patience(20))
    assert proxy.wait_for(lambda: proxy.count(Fate.ACKNOWLEDGE_AND_DROP) > 0, 10)
    if lost == "answer":  # what was dropped first may have been the answer to a question of the session's
        assert soon(lambda: ran(ledger)["second"] == 1, 10)
    else:
        assert ran(ledger)["second"] == 0
    proxy.apply(CALM)
    proxy.cut()
    assert ether.collect(call, timeout_s=patience(15)) == "second is done"
    assert ran(ledger) == {"first": 1, "second": 1}


@pytest.mark.parametrize("lost", ["answer", "request"])
def test_what_a_broker_drops_of_a_call_while_all_are_connected_is_sent_again(
    network: tuple[RunningBroker, LossyProxy, str], ether: Ether, ledger: Path, lost: str
) -> None:
    """As a broker does whose queue for a client is full. The call waits for long, so its instance is asked."""
    _, proxy, url = network
    ether.tap({"instances": {"one": once(ledger)}}, broker=url)
    assert ether.get("one", "work", {"call": "first"}) == "first is done"
    proxy.apply(Policy(acknowledge_and_drop=1.0, topics="/reply/" if lost == "answer" else "/call/one/work"), TO_BROKER)
    call = ether.get_later("one", "work", {"call": "second"}, timeout_s=patience(20))
    assert proxy.wait_for(lambda: proxy.count(Fate.ACKNOWLEDGE_AND_DROP) > 0, 10)
    proxy.apply(CALM)
    assert ether.collect(call, timeout_s=patience(15)) == "second is done"
    assert ran(ledger) == {"first": 1, "second": 1}


def test_only_the_instance_was_away_and_its_answer_arrives(
    network: tuple[RunningBroker, LossyProxy, str], ether: Ether, ledger: Path
) -> None:
    _, proxy, url = network
    ether.tap({"instances": {"one": once(ledger)}}, broker=url)
    proxy.apply(Policy(acknowledge_and_drop=1.0, topics="/reply/"), TO_BROKER)
    call = ether.get_later("one", "work", {"call": "only"}, timeout_s=patience(20))
    assert proxy.wait_for(lambda: proxy.count(Fate.ACKNOWLEDGE_AND_DROP) > 0, 10)
    proxy.apply(CALM)
    assert proxy.cut("one") == 1
    assert ether.collect(call, timeout_s=patience(15)) == "only is done"
    assert ran(ledger) == {"only": 1}


def test_a_call_that_goes_on_through_an_outage_runs_once(
    network: tuple[RunningBroker, LossyProxy, str], ether: Ether, ledger: Path
) -> None:
    _, proxy, url = network
    ether.tap({"instances": {"one": once(ledger)}}, broker=url)
    with ether.subscribe("working") as working:
        call = ether.get_later("one", "work", {"call": "long", "seconds": 2.0}, timeout_s=patience(30))
        assert working.get(patience(10)).value == "long"
    for _ in range(3):
        proxy.cut()
        assert soon(lambda: len(proxy.clients()) >= 2, 10)
    assert ether.collect(call, timeout_s=patience(20)) == "long is done"
    assert ran(ledger) == {"long": 1}


def test_a_window_that_has_forgotten_calls_does_not_say_that_they_never_came() -> None:
    now = [100.0]
    window: Answered[str] = Answered(lambda: now[0], max_count=2)
    assert window.remembers_since(0.0)
    for number in range(3):
        assert window.take_on("main", bytes([number]), print)
    assert not window.recall("main", b"\x00", print)
    assert not window.remembers_since(100.0)
    now[0] = 200.0
    assert window.remembers_since(150.0)
    answers: list[str] = []
    window.answered("main", b"\x02", "two", 3)
    assert window.recall("main", b"\x02", answers.append)
    assert window.recall("main", b"\x01", answers.append)
    assert answers == ["two"]


# -- a broker that stands still, or is away


def outage(broker: RunningBroker, how: str, seconds: float) -> RunningBroker:
    """The broker does nothing for a while; returns the broker that serves after that."""
    over = threading.Event()
    if how == "frozen":
        with broker.frozen():
            over.wait(seconds)
        return broker
    broker.kill()
    over.wait(seconds)
    return broker.restart()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", STOCKS)
@pytest.mark.slow("a broker is away for 10 s, n times")
def test_r8_a_broker_that_is_away_or_stands_still_ends_no_call(engine: str) -> None:
    """Reproducer R8: each of its calls returns 42, and later calls work."""
    with running_broker(engine) as broker, Ether() as ether:
        ether.tap(
            {"instances": {"cam": {"class_path": "far_parts.Cam", "kwargs": {"seconds": 8.0}}}}, broker=broker.url_tcp
        )
        pid = ether.get("cam", "pid")
        rounds = 5 if os.environ.get("ETHER_LONG") == "1" else 1
        for number in range(2 * rounds):
            call = ether.get_later("cam", "scan", timeout_s=patience(60))
            threading.Event().wait(patience(2.0))  # the outage begins in the middle of the call
            broker = outage(broker, ("killed", "frozen")[number % 2], 10.0)
            assert ether.collect(call, timeout_s=patience(15)) == 42
            for _ in range(10):
                assert ether.get("cam", "scans", timeout_s=patience(10)) == number + 1
        assert ether.get("cam", "pid") == pid


@pytest.mark.parametrize("how", ["frozen", "killed"])
@pytest.mark.parametrize("engine", EVERY)
def test_calls_that_are_made_as_soon_as_the_broker_is_back_find_their_instance(
    engine: str, how: str, ledger: Path
) -> None:
    """The caller may be back before the instance is: then the request waits for it."""
    with running_broker(engine) as broker, Ether() as ether:
        ether.tap({"instances": {"one": once(ledger), "two": once(ledger)}}, broker=broker.url_tcp)
        calls: list[str] = []
        link = ether._client.link  # type: ignore[union-attr]
        for number in range(4):
            back = threading.Event()
            link.on_connection.append(lambda up, back=back: back.set() if up else None)
            if how == "frozen":
                with broker.frozen():
                    link.transport._wire.fail("a test's own cut")  # type: ignore[attr-defined]
                    assert soon(lambda: not link.transport.connected, 5)
            else:
                broker.kill()
                broker = broker.restart()
            name = f"call {number}"
            calls += [name]
            assert back.wait(patience(20))
            target = ("one", "two")[number % 2]
            assert ether.get(target, "work", {"call": name}, timeout_s=patience(20)) == f"{name} is done"
        assert ran(ledger) == dict.fromkeys(calls, 1)


# -- an instance that dies, and a caller far away


@pytest.mark.parametrize("engine", STOCKS)
def test_a_call_just_after_a_death_waits_for_the_restart_also_from_far_away(engine: str, ledger: Path) -> None:
    """EB5: the caller has not heard of the death when it calls; the broker delivers the request to nobody."""
    with (
        running_broker(engine) as broker,
        Distance(broker.host, broker.port, 0.05) as distance,
        Ether() as ether,
        Ether() as far,
    ):
        ether.tap({"session": "far", "instances": {"one": once(ledger, restart="on-failure")}}, broker=broker.url_tcp)
        far.tap(session="far", broker=distance.url)
        assert far.get("one", "work", {"call": "before"}) == "before is done"
        for number in range(3):
            ends = _ends(broker)
            pid = _kill_one(ether)
            assert soon(lambda ends=ends: _ends(broker) > ends, 10)  # else the broker gives the request to the dead
            call = f"after death {number}"
            assert far.get("one", "work", {"call": call}, timeout_s=patience(30)) == f"{call} is done"
            assert soon(lambda pid=pid: _pid(ether, "one") not in (None, pid), 10)
        assert set(ran(ledger).values()) == {1}


def _ends(broker: RunningBroker) -> int:
    """How many connections of the instance a stock Mosquitto says to have ended."""
    return len(re.findall(r"Client one\S* (?:closed its connection|disconnected)", broker.stderr()))


def _kill_one(ether: Ether) -> int:
    """Kill the instance; its pid."""
    pid = _pid(ether, "one")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


def _pid(ether: Ether, name: str) -> int | None:
    return next((m["pid"] for m in ether.instances() if m["name"] == name and m["state"] == "ready"), None)


@pytest.mark.parametrize("engine", STOCKS)
def test_a_call_that_the_dead_had_received_is_lost_also_from_far_away(engine: str, ledger: Path) -> None:
    with (
        running_broker(engine) as broker,
        Distance(broker.host, broker.port, 0.05) as distance,
        Ether() as ether,
        Ether() as far,
    ):
        ether.tap({"session": "far2", "instances": {"one": once(ledger, restart="on-failure")}}, broker=broker.url_tcp)
        far.tap(session="far2", broker=distance.url)
        with far.subscribe("working") as working:
            call = far.get_later("one", "work", {"call": "begun", "seconds": 30}, timeout_s=patience(60))
            assert working.get(patience(10)).value == "begun"
        _kill_one(ether)
        with pytest.raises(InstanceLost):
            far.collect(call, timeout_s=patience(10))
        assert ran(ledger) == {"begun": 1}


@pytest.mark.parametrize("engine", STOCKS)
def test_a_call_that_the_next_process_has_got_is_answered_by_it(engine: str, ledger: Path) -> None:
    """The request is on its way for longer than the restart takes: the news of the death is there before the broker's
    word that somebody was given the request, and that is not the dead one."""
    with (
        running_broker(engine) as broker,
        Distance(broker.host, broker.port, 0.0) as distance,
        Ether() as ether,
        Ether() as far,
    ):
        ether.tap({"session": "next", "instances": {"one": once(ledger, restart="on-failure")}}, broker=broker.url_tcp)
        far.tap(session="next", broker=distance.url)
        assert far.get("one", "work", {"call": "before"}, timeout_s=patience(30)) == "before is done"
        distance.one_way_s = 0.5
        _kill_one(ether)
        calls = [far.get_later("one", "work", {"call": f"after {n}"}, timeout_s=patience(30)) for n in range(5)]
        assert [far.collect(call) for call in calls] == [f"after {n} is done" for n in range(5)]
        assert set(ran(ledger).values()) == {1}


@pytest.mark.parametrize("got_by", ["the dead", "the next"])
@pytest.mark.parametrize("engine", STOCKS)
def test_a_call_on_its_way_when_its_instance_died_belongs_to_who_has_got_it(
    engine: str, got_by: str, ledger: Path
) -> None:
    """The news of the death comes before the receipt, here by the test's own word."""
    with (
        running_broker(engine) as broker,
        Distance(broker.host, broker.port, 0.0) as distance,
        Ether() as ether,
        Ether() as far,
    ):
        ether.tap({"session": "doubt", "instances": {"one": once(ledger, restart="on-failure")}}, broker=broker.url_tcp)
        far.tap(session="doubt", broker=distance.url)
        assert far.get("one", "work", {"call": "before"}, timeout_s=patience(30)) == "before is done"
        distance.one_way_s = 0.6
        pid = _pid(ether, "one")
        assert pid is not None
        if got_by == "the dead":
            os.kill(pid, signal.SIGSTOP)  # it is given the request, and runs nothing any more
        call = far.get_later("one", "work", {"call": "on its way"}, timeout_s=patience(30))
        pending = far._client.later(call)  # type: ignore[union-attr]
        assert far._client.session.calls.lose("one", "was killed", returns=True) == []  # type: ignore[union-attr]
        assert not pending.receipt_known
        if got_by == "the next":
            assert far.collect(call) == "on its way is done"
            return
        assert soon(lambda: pending.receipt_known, 10)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(InstanceLost, match="was killed"):
            far.collect(call)
        assert soon(lambda: _pid(ether, "one") not in (None, pid), 10)
        assert ran(ledger) == {"before": 1}


@pytest.mark.parametrize("engine", EVERY)
def test_a_call_to_one_that_is_never_started_again_ends_soon_in_the_truth(engine: str, ledger: Path) -> None:
    with running_broker(engine) as broker, Ether() as ether:
        ether.tap({"instances": {"one": once(ledger)}}, broker=broker.url_tcp)
        _kill_one(ether)
        began = time.monotonic()
        with pytest.raises((InstanceLost, NoResponder)):
            ether.get("one", "work", {"call": "too late"}, timeout_s=60)
        assert time.monotonic() - began < patience(10)
        assert not ran(ledger)
