"""Brokers that promise no more than MQTT does (faults E7, E8): no order across topics, no retained messages for
wildcards, no properties. Sessions, names, calls, saves, supervision, records and ends work over each of them.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bare_promises import BarePromises, Habits
from patience import patience
from running_brokers import mosquitto_missing, soon
from stock_mosquittos import stock_mosquitto, stranger, url_of

from ether import Ether, ether_get
from ether.errors import EtherError, InstanceLost, NameTaken, NoResponder
from ether.session.discovery.search import find
from ether.transport.base import Delivery

pytestmark = [
    pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing)),
    pytest.mark.skipif(os.name != "posix", reason="signals"),
    pytest.mark.in_turn("habits"),
]

SLOW_S = (0.0, 0.2)
HABITS = {
    "unordered": Habits(delays_s=SLOW_S, by_topic=True, seed=2),
    "all-three": Habits(hides_retained=True, delays_s=SLOW_S, strips=True, seed=3),
}
if os.environ.get("ETHER_LONG") == "1":
    HABITS["hides-retained"] = Habits(hides_retained=True)
    HABITS |= {f"unordered-{seed}": Habits(delays_s=(0.0, 0.4), seed=seed) for seed in range(4, 12)}
    HABITS |= {f"unordered-topics-{seed}": Habits(delays_s=(0.0, 0.4), by_topic=True, seed=seed) for seed in range(8)}
PUMP = {"class_path": "pump_parts.Pump"}
RESTARTED = {**PUMP, "restart": "always", "restart_limit": 100, "restart_window_s": 0.1}


@pytest.fixture(params=HABITS)
def habits(request: pytest.FixtureRequest) -> Habits:
    return HABITS[request.param]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def proxy(stack: ExitStack, habits: Habits) -> BarePromises:
    return stack.enter_context(BarePromises(stack.enter_context(stock_mosquitto()), habits))


@pytest.fixture(autouse=True)
def state_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def program(stack: ExitStack, proxy: BarePromises, record: Any = None, **instances: dict[str, Any]) -> Ether:
    ether = Ether()
    ether.tap({"session": "bench", "broker": proxy.url, "record": record, "instances": instances})
    stack.callback(ether.shutdown)
    return ether


def names(ether: Ether) -> list[str]:
    return sorted(member["name"] for member in ether.instances() if member["state"] == "ready")


def known(ether: Ether) -> list[str]:
    """Also those that cannot be reached in this moment, and were ready before."""
    members = ether.instances()
    return sorted(member["name"] for member in members if member.get("last_state", member["state"]) == "ready")


# -- who is there, and who holds a name


def test_a_session_starts_and_who_joins_sees_all_of_it_at_once(stack: ExitStack, proxy: BarePromises) -> None:
    """R9 (`tap` was NameTaken for its own claim) and R10 (a guest saw an empty session)."""
    leader = program(stack, proxy, a=PUMP, b=PUMP, c=PUMP)
    assert names(leader) == ["a", "b", "c"]
    guest = program(stack, proxy)
    assert names(guest) == ["a", "b", "c"]
    assert {guest.get(name, "pid") for name in "abc"} == {leader.get(name, "pid") for name in "abc"}
    guest.host(Here(), "d")
    assert leader.get("d", "pid") == os.getpid()
    late = program(stack, proxy, e=PUMP)
    assert names(late) == ["a", "b", "c", "d", "e"]
    with pytest.raises(NoResponder, match="no instance and no class is named 'nobody'"):
        late.get("nobody", "pid")


class Here:
    """An instance in the test's own process."""

    @ether_get
    def pid(self) -> int:
        return os.getpid()


def test_a_name_that_is_held_is_refused_and_its_holder_not_disturbed(stack: ExitStack, proxy: BarePromises) -> None:
    """E7: a second program got the name, and gave it up a moment later."""
    leader = program(stack, proxy, s=PUMP)
    pid = leader.get("s", "pid")
    changes: list[Any] = []
    leader.on_change(lambda told: changes.append(told) if told["name"] == "s" else None)
    for _ in range(2):
        with pytest.raises(NameTaken) as caught:
            Ether().tap({"session": "bench", "broker": proxy.url, "instances": {"s": PUMP}})
        assert caught.value.pid == pid
    assert leader.get("s", "pid") == pid
    assert changes == []


def test_of_many_that_want_a_name_at_once_one_gets_it(stack: ExitStack, proxy: BarePromises) -> None:
    members = [program(stack, proxy) for _ in range(3)]
    for n in range(2):
        start, outcomes = threading.Barrier(len(members)), dict[int, str]()

        def want(index: int, name: str, start: threading.Barrier, outcomes: dict[int, str]) -> None:
            start.wait()
            try:
                members[index].host(Here(), name)
                outcomes[index] = "holds it"
            except NameTaken:
                outcomes[index] = "refused"

        threads = [threading.Thread(target=want, args=(i, f"n{n}", start, outcomes)) for i in range(len(members))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(patience(30))
        assert sorted(outcomes.values()) == ["holds it"] + ["refused"] * (len(members) - 1)


def test_a_session_is_found_without_its_name(stack: ExitStack, proxy: BarePromises) -> None:
    """Where the broker hides its sessions from wildcards, by the heartbeats of their instances."""
    program(stack, proxy, pump=PUMP)
    found = find(broker=proxy.url, environment={})
    assert found is not None
    assert (found.name, found.pid) == ("bench", os.getpid())


def test_who_was_cut_off_still_knows_who_is_there(stack: ExitStack, proxy: BarePromises) -> None:
    leader = program(stack, proxy, pump=PUMP)
    guest = program(stack, proxy)
    mine = guest._joined("a test").link.source
    assert proxy.cut(mine) == 1
    assert soon(lambda: any(client.startswith(mine) for client in proxy.clients()), 10)
    assert not soon(lambda: known(guest) != ["pump"], 6.0), "it has forgotten a member that lives"
    assert soon(lambda: names(guest) == ["pump"], 10)
    assert guest.get("pump", "pid") == leader.get("pump", "pid")


# -- calls, saves, deaths


def test_calls_saves_and_syncs(stack: ExitStack, proxy: BarePromises) -> None:
    leader = program(stack, proxy, pump=PUMP, other=PUMP)
    guest = program(stack, proxy)
    for n in range(1, 4):
        assert guest.save("pump", "dose", {"ul": 1})["result"] == n
        assert leader.get("pump", "count") == n
    assert guest.sync("prime") == {"pump": 1, "other": 1}
    with guest.lease("pump", reason="alone"):
        assert guest.get("pump", "count") == 3


def test_an_instance_that_is_killed_serves_again_and_its_callers_are_told(
    stack: ExitStack, proxy: BarePromises
) -> None:
    leader = program(stack, proxy, pump=RESTARTED)
    guest = program(stack, proxy)
    pid = guest.get("pump", "pid")
    with guest.subscribe("begun") as begun:
        under_way = guest.get_later("pump", "busy", {"seconds": 30})
        begun.get(patience(10))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(InstanceLost):
        guest.collect(under_way)
    for ether in (guest, leader):
        assert soon(partial(serves, ether, pid), 20)


def serves(ether: Ether, former: int) -> bool:
    try:
        return bool(ether.get("pump", "pid", timeout_s=patience(2)) != former)
    except EtherError:
        return False


def test_an_answer_that_was_sent_before_an_end_is_the_answer(stack: ExitStack, proxy: BarePromises) -> None:
    """An instance is stopped as soon as it has answered, and the news of its end may come before the answer."""
    leader = program(stack, proxy, pump=PUMP)
    guest = program(stack, proxy)
    with leader.subscribe("begun") as begun:
        call = guest.get_later("pump", "busy", {"seconds": 0.3})
        begun.get(patience(10))
        leader.remove("pump")
    assert guest.collect(call) == 0


# -- ends, and what is on disk


def test_what_is_under_way_is_handled_before_the_end(stack: ExitStack, proxy: BarePromises, tmp_path: Path) -> None:
    out = tmp_path / "handled"
    ether = Ether()
    sink = {"class_path": "pump_parts.Sink", "kwargs": {"path": str(out)}}
    doubler = {"class_path": "pump_parts.Doubler"}
    ether.tap({"session": "bench", "broker": proxy.url, "instances": {"doubler": doubler, "sink": sink}})
    for n in range(30):
        ether.pub({"n": n}, topic="single")
    ether.shutdown()
    assert json.loads(out.read_text()) == [2 * n for n in range(30)]


def test_orderly_ends_say_nothing_and_leave_nothing(stack: ExitStack, habits: Habits) -> None:
    port = stack.enter_context(stock_mosquitto())
    proxy = stack.enter_context(BarePromises(port, habits))
    for _ in range(2):
        with ExitStack() as session:
            program(session, proxy, pump=PUMP, other=PUMP)
            guest = program(session, proxy, third=PUMP)
            guest.host(Here(), "here")
            assert guest.get("pump", "count") == 0
        assert retained(port) == {}


def retained(port: int) -> dict[str, bytes]:
    """What the broker holds. An echo comes back behind it, through the same subscription."""
    found: dict[str, bytes] = {}
    with stranger(url_of(port)) as transport:
        transport.subscribe(["ether/#"])
        transport.publish("ether/echo", b"echo")
        while isinstance(item := transport.receive(patience(5)), Delivery) and item.topic != "ether/echo":
            found[item.topic] = item.payload
    return found


def test_values_of_all_programs_are_recorded(stack: ExitStack, proxy: BarePromises, tmp_path: Path) -> None:
    leader = program(stack, proxy, {"topics": "all", "folder": str(tmp_path / "ledger")}, doubler=_DOUBLER)
    guest = program(stack, proxy)
    for n in range(5):
        guest.pub({"n": n}, topic="single")
    assert wait_until_saved(guest) == 0
    assert soon(lambda: leader.get("doubler", "all") == [0, 1, 2, 3, 4], 10)
    assert wait_until_saved(leader) == 0
    assert soon(lambda: recorded(tmp_path / "ledger", "double") == [0, 2, 4, 6, 8], 10)
    assert recorded(tmp_path / "ledger", "single") == [0, 1, 2, 3, 4]


_DOUBLER = {"class_path": "pump_parts.Doubler"}


def wait_until_saved(ether: Ether) -> int:
    return ether.flush(patience(10))


def recorded(folder: Path, topic: str) -> list[int]:
    return [entry.value["n"] for entry in Ether().data(folder=folder, topic=topic)]
