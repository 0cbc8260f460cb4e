"""One name, one holder: claims, refusals, taking over, and what a replaced process still says."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from patience import patience
from running_brokers import RunningBroker, engines, mosquitto_missing, running_broker

from ether import Ether, ether_get
from ether.errors import EtherError, InstanceLost, LifecycleFailed, NameTaken

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]
REFUSED_S = patience(2.0)
LATE = 1000


class Here:
    """A replacement that lives in the test's own process."""

    @ether_get
    def slow_pid(self, seconds: float) -> int:
        return os.getpid()


@pytest.fixture(params=ENGINES)
def broker(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    with running_broker(request.param) as running:
        yield running


def member(stack: ExitStack, broker: RunningBroker, **instances: Any) -> Ether:
    """A program in the session `bench`, with instances of its own."""
    ether = Ether()
    ether.tap({"session": "bench", "instances": instances}, broker=broker.url_tcp)
    stack.callback(leave, ether)
    return ether


def leave(ether: Ether) -> None:
    try:
        ether.shutdown()
    except LifecycleFailed:
        pass  # what was stopped or replaced on purpose


FLOOD = {"class_path": "kept_parts.Flood"}
WORKER = {"class_path": "kept_parts.Worker"}


def test_a_second_instance_of_a_name_is_refused_and_its_holder_named(broker: RunningBroker) -> None:
    with ExitStack() as stack:
        first = member(stack, broker, cam=WORKER)
        changes: list[object] = []
        first.on_change(lambda told: changes.append(told) if told["name"] == "cam" else None)
        begun = time.monotonic()
        with pytest.raises(NameTaken) as caught:
            Ether().tap({"session": "bench", "instances": {"cam": WORKER}}, broker=broker.url_tcp)
        assert time.monotonic() - begun < REFUSED_S
        assert caught.value.pid == first.get("cam", "pid")
        assert changes == [], "who is refused takes nothing of the holder with it"
        assert caught.value.host == os.uname().nodename
        assert caught.value.since is not None
        assert time.time() - caught.value.since < 60
        second = member(stack, broker)
        with pytest.raises(NameTaken):
            second.host(Here(), "cam")
        assert second.get("cam", "add", {"a": 1, "b": 1}) == 2


def test_of_many_who_want_a_name_at_once_one_gets_it(broker: RunningBroker, rounds: int) -> None:
    with ExitStack() as stack:
        members = [member(stack, broker) for _ in range(6)]
        for n in range(rounds):
            start = threading.Barrier(len(members))
            outcomes: dict[int, str] = {}

            def want(index: int, name: str, start: threading.Barrier, outcomes: dict[int, str]) -> None:
                start.wait()
                try:
                    members[index].host(Here(), name)
                    outcomes[index] = "holds it"
                except NameTaken:
                    outcomes[index] = "refused"

            threads = [
                threading.Thread(target=want, args=(index, f"name{n}", start, outcomes))
                for index in range(len(members))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(patience(20))
            assert sorted(outcomes.values()) == ["holds it"] + ["refused"] * (len(members) - 1)


def test_a_ghost_of_this_machine_does_not_hold_a_name(broker: RunningBroker) -> None:
    with ExitStack() as stack:
        first = member(stack, broker)
        ghost = {"name": "cam", "state": "ready", "birth": "0" * 16, "host": os.uname().nodename, "pid": 2**22 - 1}
        client = first._client
        assert client is not None
        client.link.publish(client.topics.state("cam"), ghost, retain=True)
        second = member(stack, broker, cam=WORKER)
        assert second.get("cam", "add", {"a": 2, "b": 1}) == 3


def test_nothing_that_a_frozen_and_replaced_process_sends_is_accepted(broker: RunningBroker) -> None:
    with ExitStack() as stack:
        first = member(stack, broker, cam=FLOOD)
        other = member(stack, broker)
        frozen = next(i["pid"] for i in other.instances() if i["name"] == "cam")
        with other.subscribe("late") as late:
            other.pub({"total": LATE}, topic="flood")
            assert isinstance(late.get().value, dict)
            freeze(frozen)
            stack.callback(end, frozen)
            call_id = first.get_later("cam", "slow_pid", {"seconds": 0})
            other.host(Here(), "cam", takeover=True)
            with pytest.raises(InstanceLost):
                first.collect(call_id)
            before = drained(late)
            os.kill(frozen, signal.SIGCONT)
            gone(frozen)
            assert drained(late) == 0, f"{before} came before it was replaced"
        for program in (first, other):
            assert program.get("cam", "slow_pid", {"seconds": 0}) == os.getpid()


def test_a_replaced_process_that_was_cut_off_gives_up_when_it_is_back() -> None:
    """The fence went by while its connection was gone: what is announced under its name tells it."""
    with ExitStack() as stack:
        broker = stack.enter_context(running_broker("amqtt"))
        first = member(stack, broker, cam=WORKER)
        pid = first.get("cam", "pid")
        other = member(stack, broker)
        freeze(pid)
        stack.callback(end, pid)
        other.host(Here(), "cam", takeover=True)
        broker.kill()
        broker.restart()
        os.kill(pid, signal.SIGCONT)
        gone(pid)
        deadline = time.monotonic() + patience(20)
        while True:
            try:
                assert other.get("cam", "slow_pid", {"seconds": 0}, timeout_s=patience(5)) == os.getpid()
                return
            except EtherError:
                assert time.monotonic() < deadline


def drained(subscription: Any) -> int:
    count = 0
    while True:
        try:
            subscription.get(timeout_s=0.5)
            count += 1
        except TimeoutError:
            return count


def freeze(pid: int) -> None:
    """Stop a process; returns when it stands still, which on a busy machine is not at once."""
    os.kill(pid, signal.SIGSTOP)
    deadline, pause = time.monotonic() + patience(10), threading.Event()
    while (state := state_letter(pid)) != "T":
        assert time.monotonic() < deadline, state
        pause.wait(0.01)


def state_letter(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def gone(pid: int) -> None:
    """Return when a process has ended of its own accord."""
    deadline, pause = time.monotonic() + patience(10), threading.Event()
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        pause.wait(0.02)
    assert not os.path.exists(f"/proc/{pid}"), "it has not stopped itself"


def end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def test_programs_that_want_the_same_new_session_at_once_share_one(rounds: int) -> None:
    for n in range(max(2, rounds // 3)):
        with ExitStack() as stack:
            programs = [Ether() for _ in range(4)]
            for program in programs:
                stack.callback(leave, program)
            start, failures = threading.Barrier(len(programs)), []

            def tap(program: Ether, session: str, start: threading.Barrier, failures: list[BaseException]) -> None:
                start.wait()
                try:
                    program.tap(session=session, broker={"engine": "amqtt"})
                except EtherError as error:
                    failures.append(error)

            threads = [threading.Thread(target=tap, args=(p, f"bench{n}", start, failures)) for p in programs]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(patience(60))
            assert not failures
            leaders = [program for program in programs if program.broker_url is not None]
            assert len(leaders) == 1
            leaders[0].host(Here(), "cam")
            for program in programs:
                assert program.get("cam", "slow_pid", {"seconds": 0}) == os.getpid()
            for program in programs:
                if program not in leaders:
                    leave(program)
