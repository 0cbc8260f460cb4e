"""Saves survive: whatever is killed, each is run at most once, and each gets its answer or waits on disk for it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from call_parts import executions, right_answer
from engine_params import EVERY, On
from patience import patience
from programs import run, running, write
from running_brokers import alive, running_broker, soon

from ether import Ether, ether_save
from ether.system.folders import calls_folder, journal_path

LONG = os.environ.get("ETHER_LONG") == "1"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and named pipes")

WITHIN_S = patience(30.0)
AT_ONCE = {"restart": "always", "restart_limit": 1000, "restart_window_s": 0.1}
"""Restarts that are not counted together, so that the pause before each of them does not grow."""

SESSION = "saves"


@pytest.fixture
def ether() -> Iterator[Ether]:
    """An `Ether` of the test's own."""
    own = Ether()
    yield own
    own.shutdown()


@pytest.fixture(params=EVERY)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    folder = tmp_path / "ledger"
    folder.mkdir()
    return folder


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A named pipe that holds a method until it is written to."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


@pytest.fixture(autouse=True)
def session_of_its_own(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What one test leaves on disk is not the next one's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@contextmanager
def beside(work: Callable[..., Any], *given: Any, **named: Any) -> Iterator[Future[Any]]:
    """Done on a thread of its own, and waited for at the end."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(work, *given, **named)


def doser(ledger: Path, **more: Any) -> dict[str, Any]:
    return {"class_path": "save_parts.Doser", "kwargs": {"ledger": str(ledger)}, **more}


def tap(ether: Ether, broker: object, **instances: dict[str, Any]) -> None:
    ether.tap({"session": SESSION, "instances": instances}, broker=broker)  # type: ignore[arg-type]


def state(ether: Ether, name: str) -> object:
    return next(member["state"] for member in ether.instances() if member["name"] == name)


def kept_calls() -> int:
    """How many calls wait on disk, of processes that have ended."""
    count = 0
    for path in calls_folder(SESSION).glob("*.calls"):
        with sqlite3.connect(path, timeout=0) as database:
            count += database.execute("SELECT count(*) FROM calls").fetchone()[0]
        database.close()
    return count


# -- statuses


def test_errors_are_final_and_nothing_stays_on_disk(ether: Ether, engine: str, ledger: Path, on: On) -> None:
    tap(ether, on(engine), doser=doser(ledger))
    assert ether.save("doser", "dose", {"call": "a", "number": 3})["result"] == right_answer("a", 3)
    assert ether.save("Doser", "dose", {"call": "b", "number": 4})["result"] == right_answer("b", 4)
    refused = ether.save("doser", "refuse", {"call": "c"})
    assert (refused["status"], refused["error"], refused["message"]) == ("error", "ValueError: no c", "no c")
    assert ether.save("doser", "unsendable", {"call": "d"})["error"].partition(":")[0] == "EncodeError"
    assert ether.save("doser", "dose", {"call": "e", "number": "x"})["error"].partition(":")[0] == "ValidationFailed"
    started = time.monotonic()
    assert ether.save("nobody", "dose", {})["error"].partition(":")[0] == "NoResponder"
    assert ether.save("doser", "doze", {})["error"].partition(":")[0] == "NoResponder"
    assert time.monotonic() - started < patience(5.0)  # it is not waited for what never was
    assert ether.instance("doser").dose("f", 5)["status"] == "success"
    assert executions(ledger) == dict.fromkeys("abcdf", 1)
    ether.shutdown()
    assert list(calls_folder(SESSION).iterdir()) == []


def test_a_busy_instance_makes_a_save_pending_and_it_is_collected(
    ether: Ether, ledger: Path, gate: Path, on: On, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ether.calls.client._PROBE_LEAD_S", patience(2.0))  # it has time to say that it is busy
    tap(ether, on("amqtt"), doser=doser(ledger))
    status = ether.save("doser", "hold", {"call": "long", "gate": str(gate)}, timeout_s=patience(3.0))
    assert (status["status"], set(status)) == ("pending", {"status", "call_id", "message"})
    assert "still busy" in status["message"]
    again = ether.collect(status["call_id"], timeout_s=0.2)
    assert (again["status"], again["call_id"]) == ("pending", status["call_id"])
    gate.write_text("go")
    assert ether.collect(status["call_id"], timeout_s=WITHIN_S)["result"] == "long"
    with pytest.raises(KeyError, match="collected before"):
        ether.collect(status["call_id"])
    assert executions(ledger) == {"long": 1}


def test_async_and_later_saves_may_be_pending_and_cancelled(ether: Ether, ledger: Path, gate: Path, on: On) -> None:
    tap(ether, on("amqtt"), doser=doser(ledger))

    async def save() -> dict[str, Any]:
        return await ether.asave("doser", "hold", {"call": "first", "gate": str(gate)}, timeout_s=0.5)

    first = asyncio.run(save())
    later = ether.save_later("doser", "dose", {"call": "second", "number": 2})
    third = ether.save_later("doser", "dose", {"call": "third", "number": 3}, timeout_s=0.1)
    with pytest.raises(TimeoutError, match="it goes on"):
        ether.collect(later, timeout_s=0.1)
    assert ether.collect(third)["status"] == "pending"
    ether.cancel(third)
    gate.write_text("go")
    assert ether.collect(first["call_id"], timeout_s=WITHIN_S)["result"] == "first"
    assert ether.collect(later)["result"] == right_answer("second", 2)
    assert ether.collect(third, timeout_s=WITHIN_S)["error"].partition(":")[0] == "Cancelled"
    assert executions(ledger) == {"first": 1, "second": 1}


# -- the callee dies


@pytest.mark.timeout(600 if LONG else 120)
def test_a_save_that_is_interrupted_is_never_run_again(
    ether: Ether, engine: str, ledger: Path, gate: Path, on: On
) -> None:
    """kill -9 in the middle of each."""
    tap(ether, on(engine), doser=doser(ledger, **AT_ONCE))
    rounds = 50 if LONG else 5
    with ether.subscribe("dosing") as dosing:
        for number in range(rounds):
            given = {"call": f"dose {number}", "gate": str(gate)}
            with beside(ether.save, "doser", "hold", given, timeout_s=WITHIN_S) as saving:
                os.kill(dosing.get().value["pid"], signal.SIGKILL)  # type: ignore[index]
                status = saving.result(WITHIN_S)
            assert (status["status"], status["error"].partition(":")[0]) == ("error", "Interrupted"), status
            assert "not run again" in status["message"]
    assert executions(ledger) == {f"dose {number}": 1 for number in range(rounds)}
    assert ether.save("doser", "dose", {"call": "last", "number": 1})["status"] == "success"


@pytest.mark.timeout(600 if LONG else 120)
def test_killed_at_any_moment_nothing_is_run_twice(ether: Ether, engine: str, ledger: Path, on: On) -> None:
    tap(ether, on(engine), doser=doser(ledger, **AT_ONCE))
    statuses: dict[str, str] = {}
    over = threading.Event()

    def save_on() -> None:
        number = 0
        while not over.is_set():
            call = f"dose {number}"
            status = ether.save("doser", "dose", {"call": call, "number": number}, timeout_s=WITHIN_S)
            assert status["status"] == "success" or status["error"].partition(":")[0] == "Interrupted", status
            assert status["status"] == "error" or status["result"] == right_answer(call, number)
            statuses[call] = status["status"]
            number += 1

    chance = random.Random(7)
    with beside(save_on) as saving:
        try:
            for _ in range(50 if LONG else 3):
                os.kill(ether.get("doser", "pid", timeout_s=WITHIN_S), signal.SIGKILL)
                begun = len(statuses)
                more = chance.randrange(1, 60)
                assert soon(lambda begun=begun, more=more: len(statuses) > begun + more, WITHIN_S)  # type: ignore[misc]
        finally:
            over.set()
        saving.result(WITHIN_S)
    done = executions(ledger)
    assert max(done.values()) == 1
    assert all(done[call] == 1 for call, status in statuses.items() if status == "success")


def test_another_journal_cannot_say_whether_a_save_was_run(ether: Ether, ledger: Path, gate: Path, on: On) -> None:
    tap(ether, on("amqtt"), doser=doser(ledger))
    with ether.subscribe("dosing") as dosing:
        given = {"call": "moved", "gate": str(gate)}
        with beside(ether.save, "doser", "hold", given, timeout_s=WITHIN_S) as saving:
            os.kill(dosing.get().value["pid"], signal.SIGKILL)  # type: ignore[index]
            assert soon(lambda: state(ether, "doser") == "lost", WITHIN_S)
            for path in journal_path(SESSION, "doser").parent.iterdir():
                path.unlink()
            ether.restart("doser")
            status = saving.result(WITHIN_S)
    assert status["error"].partition(":")[0] == "Interrupted"
    assert "another journal" in status["message"]
    assert executions(ledger) == {"moved": 1}


def test_what_is_lost_for_now_is_pending(ether: Ether, ledger: Path, on: On) -> None:
    tap(ether, on("amqtt"), doser=doser(ledger))
    os.kill(ether.get("doser", "pid"), signal.SIGKILL)
    assert soon(lambda: state(ether, "doser") == "lost", WITHIN_S)
    status = ether.save("doser", "dose", {"call": "waits", "number": 2}, timeout_s=0.3)
    assert status["status"] == "pending"
    assert "doser is lost" in status["message"]
    ether.restart("doser")
    assert ether.collect(status["call_id"], timeout_s=WITHIN_S)["result"] == right_answer("waits", 2)
    assert executions(ledger) == {"waits": 1}


# -- the broker dies


def test_saves_wait_for_the_broker(ether: Ether, engine: str, ledger: Path) -> None:
    """Within its deadline a save waits through a restart of the broker; past it, it is pending, and comes later."""
    with running_broker(engine) as broker:
        tap(ether, broker.url_tcp, doser=doser(ledger))
        assert ether.save("doser", "dose", {"call": "before", "number": 0})["status"] == "success"
        ids = []
        for number in range(3):
            broker.kill()
            assert soon(
                lambda: ether.session_info()["offline_since"] is not None, 10
            )  # until then it seems to be there
            status = ether.save("doser", "dose", {"call": f"away {number}", "number": number}, timeout_s=0.3)
            assert status["status"] == "pending", status
            assert "connection" in status["message"]
            ids.append(status["call_id"])
            given = {"call": f"patient {number}", "number": number}
            with beside(ether.save, "doser", "dose", given, timeout_s=WITHIN_S) as saving:
                broker = broker.restart()
                assert saving.result(WITHIN_S)["result"] == right_answer(f"patient {number}", number)
        for number, call_id in enumerate(ids):
            assert ether.collect(call_id, timeout_s=WITHIN_S)["result"] == right_answer(f"away {number}", number)
        done = executions(ledger)
        assert (len(done), max(done.values())) == (7, 1)
        ether.shutdown()
        assert kept_calls() == 0


def kept_by(ether: Ether) -> int:
    """How many calls this program keeps."""
    assert ether._client is not None
    retry = ether._client.session.saves._retry
    assert retry is not None
    return len(retry.outbox())


PROGRAM = """
    import sys
    from ether import ether
    url, call, then = sys.argv[1:]
    ether.tap({"session": "saves"}, broker=url)
    print("joined", flush=True)
    sys.stdin = open("orders")
    sys.stdin.readline()
    status = ether.save("doser", "dose", {"call": call, "number": 6}, timeout_s=0.3)
    print(status["status"], status["call_id"], flush=True)
    if then == "stay":
        sys.stdin.readline()
    ether.shutdown()
    print("left", flush=True)
"""
NEXT_RUN = """
    import sys
    from ether import ether
    with ether.tap({"session": "saves"}, broker=sys.argv[1]):
        print(ether.collect(sys.argv[2], timeout_s=20), flush=True)
"""


@pytest.mark.in_turn("engine")
@pytest.mark.parametrize("how", ["leaves", "is killed"])
def test_a_save_made_while_the_broker_is_down_arrives_when_the_session_next_runs(
    ether: Ether, engine: str, ledger: Path, tmp_path: Path, how: str
) -> None:
    """Show 8: by a program that then exits, or dies."""
    os.mkfifo(tmp_path / "orders")
    script = write(tmp_path, "program.py", PROGRAM)
    with running_broker(engine) as broker:
        tap(ether, broker.url_tcp, doser=doser(ledger))
        with running(tmp_path, script, broker.url_tcp, "dose", "exit" if how == "leaves" else "stay") as program:
            program.wait_for("joined")
            with open(tmp_path / "orders", "w") as orders:
                broker.kill()
                orders.write("save\n")
                orders.flush()
                program.wait_for("pending")
                if how == "is killed":
                    program.kill()
                program.finish()
        call_id = "".join(program.lines["out"]).split("pending ")[1].split()[0]
        assert (kept_calls(), executions(ledger)) == (1, {})
        broker = broker.restart()
        done = run(tmp_path, write(tmp_path, "next_run.py", NEXT_RUN), broker.url_tcp, call_id)
        assert "'status': 'success'" in done.out, done
        again = run(tmp_path, "next_run.py", broker.url_tcp, call_id)
        assert "KeyError" in again.err  # it is over
        assert executions(ledger) == {"dose": 1}
        assert kept_calls() == 0
        ether.shutdown()


WAITING = """
    import sys
    from ether import ether
    with ether.tap({"session": "saves"}, broker=sys.argv[1]):
        if sys.argv[2] == "save":
            ether.save("doser", "hold", {"call": "held", "gate": sys.argv[3]}, timeout_s=60)
        else:
            open(sys.argv[3]).read()
"""


@pytest.mark.in_turn("engine")
def test_the_answer_goes_to_the_next_run_of_a_program_that_died_while_it_waited(
    ether: Ether, engine: str, ledger: Path, gate: Path, tmp_path: Path
) -> None:
    """The method is still running when the next run asks for its answer."""
    script, end = write(tmp_path, "waiting.py", WAITING), tmp_path / "end"
    os.mkfifo(end)
    with running_broker(engine) as broker:
        tap(ether, broker.url_tcp, doser=doser(ledger))
        with ether.subscribe("dosing") as dosing, running(tmp_path, script, broker.url_tcp, "save", str(gate)) as first:
            dosing.get(WITHIN_S)
            first.kill()
            first.finish()
        with running(tmp_path, script, broker.url_tcp, "wait", str(end)) as heir:
            heir.wait_for("is sent again")
            gate.write_text("go")
            heir.wait_for("was delivered")
            end.write_text("end")
            heir.finish()
        assert (kept_calls(), executions(ledger)) == (0, {"held": 1})
        ether.shutdown()


def test_a_name_that_nobody_can_tell_is_kept_and_can_be_taken_back(ether: Ether, ledger: Path) -> None:
    with running_broker("amqtt") as broker:
        tap(ether, broker.url_tcp, doser=doser(ledger))
        broker.kill()
        status = ether.save("nobody", "dose", {"call": "x"}, timeout_s=0.1)
        assert (status["status"], kept_by(ether)) == ("pending", 1)
        broker.restart()
        patient = {"call": "known", "number": 1}
        assert ether.save("doser", "dose", patient, timeout_s=WITHIN_S)["status"] == "success"
        assert ether.collect(status["call_id"], timeout_s=0.1)["status"] == "pending"
        ether.cancel(status["call_id"])
        assert ether.collect(status["call_id"])["error"].partition(":")[0] == "Cancelled"
        assert soon(lambda: kept_by(ether) == 0, WITHIN_S)
        ether.shutdown()


class Bottle:
    """An object of the test's own process."""

    def __init__(self) -> None:
        self.fillings: list[str] = []

    @ether_save
    def fill(self, what: str) -> int:
        self.fillings.append(what)
        return len(self.fillings)


FILLING = """
    import sys
    from ether import ether
    with ether.tap({"session": "saves"}, broker=sys.argv[1]):
        print(ether.save("bottle", "fill", {"what": "water"}))
"""


def test_an_object_of_a_notebook_keeps_a_journal_for_others(ether: Ether, tmp_path: Path) -> None:
    bottle = Bottle()
    with running_broker("amqtt") as broker:
        tap(ether, broker.url_tcp)
        ether.host(bottle, name="bottle")
        done = run(tmp_path, write(tmp_path, "filling.py", FILLING), broker.url_tcp)
        assert "'result': 1" in done.out, done
        assert (
            ether.save("bottle", "fill", {"what": "wine"})["result"] == 2
        )  # its own process's call goes straight to it
        with sqlite3.connect(journal_path(SESSION, "bottle")) as database:
            assert database.execute("SELECT count(*) FROM calls WHERE finished > 0").fetchone() == (1,)
        database.close()
        ether.shutdown()
    assert bottle.fillings == ["water", "wine"]


def test_the_session_ends_and_its_next_run_takes_what_was_not_answered(ledger: Path, gate: Path, on: On) -> None:
    first, second = Ether(), Ether()
    try:
        tap(first, on("amqtt"), doser=doser(ledger))
        os.kill(first.get("doser", "pid"), signal.SIGKILL)
        assert soon(lambda: state(first, "doser") == "lost", WITHIN_S)
        given = {"call": "late", "number": 9}
        with beside(first.save, "doser", "dose", given, timeout_s=WITHIN_S) as saving:
            assert soon(lambda: kept_by(first) == 1, WITHIN_S)
            first.shutdown()
            status = saving.result(WITHIN_S)
        assert status["status"] == "pending", status
        assert kept_calls() == 1
        tap(second, on("amqtt"), doser=doser(ledger))
        assert second.collect(status["call_id"], timeout_s=WITHIN_S)["result"] == right_answer("late", 9)
    finally:
        first.shutdown()
        second.shutdown()
    assert executions(ledger) == {"late": 1}


def test_an_instance_that_is_killed_goes_on_with_its_saves(ether: Ether, ledger: Path, on: On) -> None:
    relay = {"class_path": "save_parts.Relay", "restart": "always"}
    tap(ether, on("amqtt"), doser=doser(ledger), relay=relay)
    os.kill(ether.get("doser", "pid"), signal.SIGKILL)
    assert soon(lambda: state(ether, "doser") == "lost", WITHIN_S)
    given = {"service": "doser", "method": "dose", "params": {"call": "relayed", "number": 1}, "timeout_s": 0.2}
    assert ether.get("relay", "relay", given)["status"] == "pending"
    killed = ether.get("relay", "pid")
    os.kill(killed, signal.SIGKILL)
    assert soon(lambda: not alive(killed), WITHIN_S)  # it may be ready again sooner than somebody looks
    ether.restart("doser")
    assert soon(lambda: executions(ledger) == {"relayed": 1}, WITHIN_S)


# -- the disk


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resource limits as Linux has them")
def test_a_full_disk_is_an_error_of_the_save_and_the_instance_lives(ether: Ether, ledger: Path, on: On) -> None:
    tap(ether, on("amqtt"), doser=doser(ledger))
    pid = ether.get("doser", "pid")
    ether.get("doser", "limit_files", {"size": 512})
    status = ether.save("doser", "dose", {"call": "full", "number": 1})
    assert (status["status"], status["error"].partition(":")[0]) == ("error", "StoreFailed")
    assert str(journal_path(SESSION, "doser")) in status["message"]
    assert "was not run" in status["message"]
    ether.get("doser", "limit_files", {"size": -1})
    assert ether.save("doser", "dose", {"call": "room", "number": 1})["status"] == "success"
    assert ether.get("doser", "pid") == pid
    assert executions(ledger) == {"room": 1}


FULL = """
    import resource, sys
    from ether import ether
    with ether.tap({"session": "saves"}, broker=sys.argv[1]):
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, resource.RLIM_INFINITY))
        print(ether.save("doser", "dose", {"call": "full", "number": 1}))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(ether.save("doser", "dose", {"call": "room", "number": 1}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resource limits as Linux has them")
def test_what_cannot_be_written_down_is_not_sent(ether: Ether, ledger: Path, tmp_path: Path) -> None:
    with running_broker("amqtt") as broker:
        tap(ether, broker.url_tcp, doser=doser(ledger))
        done = run(tmp_path, write(tmp_path, "full.py", FULL), broker.url_tcp)
        full, room = done.out.splitlines()
        assert "'error': 'StoreFailed: cannot make " in full
        assert "saves/calls" in full
        assert "'status': 'success'" in room
        assert executions(ledger) == {"room": 1}
        ether.shutdown()
