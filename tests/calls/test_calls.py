"""Calls between processes: values, and the truth about why there is none."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_params import EVERY, EVERY_AND_3_1_1, On, argument, engine_params
from patience import patience
from running_brokers import engines, running_broker, session_broker

from ether import Ether, ether_get, ether_save, ether_sub, ether_sync
from ether.errors import (
    Cancelled,
    InstanceLost,
    NameTaken,
    NoResponder,
    RemoteError,
    RequestTimeout,
    SyncError,
    ValidationFailed,
)

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "data_service"

INSTANCES = {
    "store": {"class_path": "called_parts.Store"},
    "one": {"class_path": "called_parts.Ping", "kwargs": {"other": "two"}},
    "two": {"class_path": "called_parts.Ping", "kwargs": {"other": "one"}},
    "pool": {"class_path": "called_parts.Slow", "concurrency": 4},
    "slow": {"class_path": "called_parts.Slow"},
}


@pytest.fixture(params=EVERY_AND_3_1_1, scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Ether]:
    """The instances above, on each engine."""
    with session_broker(request.param) as broker, Ether() as own:
        own.tap({"instances": INSTANCES}, broker=broker)
        own.save("store", "keep", {"root": 0})  # opens its files, which no test of this module is to be blamed for
        yield own


@pytest.fixture
def ether() -> Iterator[Ether]:
    own = Ether()
    yield own
    own.shutdown()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A named pipe that holds a method until it is written to."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


# -- values and errors


@pytest.mark.parametrize(
    "value", [None, 0, "", [], {}, {"status": "error"}, {"error": {"kind": "raised"}}, b"\0", 1e400]
)
def test_every_value_comes_back_as_it_is(lab: Ether, value: Any) -> None:
    assert lab.get("store", "same", {"root": value}) == value
    assert lab.save("store", "keep", {"root": value})["result"] == value


def test_arrays_come_back(lab: Ether) -> None:
    np = pytest.importorskip("numpy")
    array = np.random.default_rng(1).normal(size=(300, 500))
    assert (lab.get("store", "same", {"root": array}) == array).all()


def test_arguments_are_validated_and_models_arrive(lab: Ether) -> None:
    assert lab.get("store", "area", {"box": {"width": "2", "height": 3}}) == 6
    with pytest.raises(ValidationFailed, match=r"box\.width.*'wide'") as caught:
        lab.get("store", "area", {"box": {"width": "wide", "height": 3}})
    assert caught.value.problems[0].argument == "box.width"
    status = lab.save("store", "keep_number", {"number": "x"})
    assert (status["status"], status["error"].partition(":")[0]) == ("error", "ValidationFailed")
    assert "number" in status["message"]


def test_a_remote_error_is_the_builtin_too_and_shows_its_own_traceback(lab: Ether) -> None:
    with pytest.raises(KeyError) as caught:
        lab.get("store", "fail", {"how": "KeyError"})
    error = caught.value
    assert isinstance(error, RemoteError)
    assert (error.remote_class, error.remote_message) == ("KeyError", "'why'")
    assert "called_parts.py" in error.remote_traceback
    assert "Remote traceback" in str(error)
    assert "ether/runtime" not in error.remote_traceback


@pytest.mark.in_turn("lab")
@pytest.mark.parametrize(
    "how", ["OSError", "UnicodeDecodeError", "StopIteration", "ExceptionGroup", "Special", "SystemExit"]
)
def test_every_exception_can_be_told(lab: Ether, how: str) -> None:
    with pytest.raises(RemoteError) as caught:
        lab.get("store", "fail", {"how": how})
    assert caught.value.remote_class == how
    assert lab.save("store", "fail_to_save", {"how": how})["error"].partition(":")[0] == how


def test_a_result_that_cannot_be_sent_is_an_error(lab: Ether) -> None:
    with pytest.raises(RemoteError, match=r"lock.*cannot be sent|cannot send"):
        lab.get("store", "unsendable")


@pytest.mark.in_turn("lab")
@pytest.mark.parametrize(
    ("service", "method", "says"),
    [
        ("stor", "same", "store"),
        ("Stoer", "same", "Store"),
        ("store", "sane", "same"),
        ("store", "keep", "marked ether_save"),
        ("store", "_private", "same"),
    ],
)
def test_nobody_there_names_who_is_nearest_first(lab: Ether, service: str, method: str, says: str) -> None:
    with pytest.raises(NoResponder) as caught:
        lab.get(service, method)
    assert says in str(caught.value)
    status = lab.save(service, method + "x")
    assert (status["status"], status["error"].partition(":")[0]) == ("error", "NoResponder")


def test_a_timeout_tells_who_is_busy_with_what(lab: Ether, gate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ether.calls.client._PROBE_LEAD_S", patience(2.0))  # it has time to say so
    held = lab.get_later("slow", "hold", {"call": "held", "gate": str(gate)}, timeout_s=patience(60))
    begun = time.monotonic()
    with pytest.raises(RequestTimeout, match=r"within 2 s: slow is still busy, since \d+\.\d s in hold"):
        lab.get("slow", "sleep", {"seconds": 0}, timeout_s=2)
    assert time.monotonic() - begun >= 2
    gate.write_text("go")
    assert lab.collect(held) == "held"
    assert lab.get("slow", "sleep", {"seconds": 0}) == 0


def test_an_expired_request_is_not_run(lab: Ether, gate: Path) -> None:
    before = lab.get("slow", "count")
    first = lab.get_later("slow", "hold", {"call": "first", "gate": str(gate)}, timeout_s=patience(60))
    with pytest.raises(RequestTimeout):
        lab.get("slow", "sleep", {"seconds": 0}, timeout_s=0.2)
    gate.write_text("go")
    assert lab.collect(first) == "first"
    assert lab.get("slow", "count") == before + 1


# -- whom


def test_a_class_name_spreads_over_its_instances_least_busy_first(lab: Ether, gate: Path) -> None:
    names = {lab.get("Ping", "name") for _ in range(4)}
    assert names == {"one", "two"}
    busy = lab.get_later("one", "hold", {"gate": str(gate)}, timeout_s=patience(60))
    assert [lab.get("Ping", "name") for _ in range(6)] == ["two"] * 6
    gate.write_text("go")
    lab.collect(busy)


# -- at the same time


def test_threads_and_coroutines_get_their_own_answers(lab: Ether) -> None:
    wrong: list[Any] = []

    def ask(start: int) -> None:
        wrong.extend(n for n in range(start, start + 50) if lab.get("store", "same", {"root": n}) != n)

    threads = [threading.Thread(target=ask, args=(100 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []

    async def many() -> list[Any]:
        return await asyncio.gather(*(lab.aget("store", "same", {"root": n}) for n in range(100)))

    assert asyncio.run(many()) == list(range(100))


def test_async_errors_and_deadlines(lab: Ether, gate: Path) -> None:
    async def ask() -> None:
        with pytest.raises(KeyError):
            await lab.aget("store", "fail", {"how": "KeyError"})
        with pytest.raises(RequestTimeout):
            await lab.aget("slow", "sleep", {"seconds": 0.0}, timeout_s=0.2)
        status = await lab.asave("store", "fail_to_save", {"how": "KeyError"})
        assert status["status"] == "error"

    holder = lab.get_later("slow", "hold", {"call": "first", "gate": str(gate)}, timeout_s=patience(60))
    asyncio.run(ask())
    gate.write_text("go")
    assert lab.collect(holder) == "first"


def test_calls_in_a_circle_and_to_oneself_do_not_deadlock(lab: Ether) -> None:
    for _ in range(20):
        assert lab.get("one", "rally", {"n": 5}) == ["one", "two", "one", "two", "one", "two"]
    assert lab.get("one", "rally_alone", {"n": 3}) == ["one"] * 4


def test_one_at_a_time_unless_asked_for_more(lab: Ether) -> None:
    def together(service: str, method: str, number: int) -> int:
        calls = [lab.get_later(service, method, {"together": number}, timeout_s=patience(60)) for _ in range(4)]
        return max(lab.collect(calls))

    assert together("slow", "overlap", 1) == 1
    assert together("pool", "overlap", 4) == 4
    assert together("slow", "overlap_by_decorator", 3) == 3


# -- proxies


def test_proxies_have_the_remote_classs_methods(lab: Ether) -> None:
    store, ping = lab.instance("store"), lab.service("Ping")
    assert store.area({"width": 2, "height": 3}) == 6
    assert store.keep_number(number=3) == {"status": "success", "result": 3, "message": "store.keep_number succeeded"}
    assert str(inspect.signature(store.area)) == "(box: Box) -> float"
    assert {ping.name() for _ in range(4)} == {"one", "two"}
    assert "area" in dir(store)
    assert "_private" not in dir(store)
    with pytest.raises(TypeError, match="box"):
        store.area()
    with pytest.raises(AttributeError, match="area"):
        store.arae()
    with pytest.raises(NoResponder, match="store"):
        lab.instance("stor")
    with pytest.raises(NoResponder, match="Ping"):
        lab.service("Pong")


def test_a_result_that_is_not_what_was_promised_is_an_error(lab: Ether) -> None:
    with pytest.raises(RemoteError, match=r"ResultInvalid.*valid number"):
        lab.get("store", "promise")


# -- later


def test_later_in_any_order_with_progress_and_log(lab: Ether) -> None:
    first, second = (lab.get_later("slow", "steps", {"count": n}) for n in (3, 2))
    pending = lab._client.later(second)  # type: ignore[union-attr]
    assert lab.collect(second) == 2
    assert pending.progress == (0.5, "step 1 of 2")
    assert [line["message"] for line in pending.log] == ["step 0", "step 1"]
    assert lab.collect(first) == 3
    with pytest.raises(KeyError, match="collected before"):
        lab.collect(first)


def test_progress_can_be_shown(lab: Ether, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab.collect(lab.get_later("slow", "steps", {"count": 2}), show=True) == 2
    shown = capsys.readouterr().err
    assert "slow.steps [###############...............]  50 % step 1 of 2\n" in shown


def test_all_progress_is_shown_also_where_the_answer_is_there_before_it_is_drawn(
    lab: Ether, capsys: pytest.CaptureFixture[str]
) -> None:
    call = lab.get_later("slow", "steps", {"count": 5})
    pending = lab._client.later(call)  # type: ignore[union-attr]
    pending.watch(lambda *_: threading.Event().wait(0.1))  # a console that takes its time
    assert lab.collect(call, show=True) == 5
    shown = capsys.readouterr().err
    assert "slow.steps [########################......]  80 % step 4 of 5\n" in shown


def main_thread_is_in(function: str) -> bool:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None and frame.f_code.co_name != function:
        frame = frame.f_back
    return frame is not None


def test_h7c_an_interrupt_ends_the_bar_and_says_that_the_call_goes_on(
    lab: Ether, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    call = lab.get_later("slow", "steps", {"count": 10_000})
    pending = lab._client.later(call)  # type: ignore[union-attr]
    interrupts = iter([signal.SIGINT])

    def once_it_waits(*_report: object) -> None:
        """At the first report that finds the main thread waiting: a SIGINT at any other place ends the test itself."""
        if main_thread_is_in("await_end") and (interrupt := next(interrupts, None)) is not None:
            signal.pthread_kill(threading.main_thread().ident or 0, interrupt)

    pending.watch(once_it_waits)
    with pytest.raises(KeyboardInterrupt):
        lab.collect(call, show=True)
    assert f"slow.steps goes on although nobody waits for it; ether.cancel('{call}')" in caplog.text
    capsys.readouterr()
    later = threading.Event()
    pending.watch(lambda *_: later.set())
    later.clear()
    assert later.wait(patience(5)), "the method runs on"
    assert "slow.steps [" not in capsys.readouterr().err, "the bar is drawn in later cells"
    lab.cancel(call)
    with pytest.raises(Cancelled):
        lab.collect(call)


def test_collect_for_a_while_leaves_the_call_alone(lab: Ether, gate: Path) -> None:
    call = lab.get_later("slow", "hold", {"call": "held", "gate": str(gate)}, timeout_s=patience(60))
    with pytest.raises(TimeoutError, match="goes on"):
        lab.collect(call, timeout_s=0.05)
    gate.write_text("go")
    assert lab.collect(call) == "held"


def test_cancel_reaches_a_method_that_reports_and_one_that_waits_in_line(lab: Ether) -> None:
    running = lab.get_later("slow", "steps", {"count": 10_000})
    waiting = lab.get_later("slow", "steps", {"count": 1})
    lab.cancel(waiting)
    lab.cancel(running)
    for call in (running, waiting):
        with pytest.raises(Cancelled):
            lab.collect(call)


def test_save_later_is_a_status(lab: Ether) -> None:
    good, bad = (
        lab.save_later("store", "keep", {"root": 1}),
        lab.save_later("store", "fail_to_save", {"how": "KeyError"}),
    )
    assert [status["status"] for status in lab.collect([good, bad])] == ["success", "error"]


# -- here


class Local:
    """An object of the test's own process."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    @ether_get
    def add(self, a: int, b: int = 1) -> int:
        return a + b

    @ether_save
    def put(self, x: int) -> None:
        raise ValueError("full")

    @ether_get
    def thread(self) -> str:
        return threading.current_thread().name

    @ether_sub(topic="local")
    def hear(self, root: Any) -> None:
        self.seen.append(root)

    @ether_sync(topic="ready-steady")
    def ready(self, level: float = 1.0) -> float:
        return 2 * level


class Another:
    """An object of another class does not take a name; one of the same class, of a cell that is run again, does."""


def test_a_hosted_object_is_called_directly_with_the_same_checks(lab: Ether) -> None:
    local = Local()
    lab.host(local, name="local")
    try:
        assert lab.get("local", "add", {"a": "2"}) == 3
        assert lab.get("Local", "add", 4) == 5
        assert lab.get("local", "thread") == "ether-worker"
        with pytest.raises(ValidationFailed, match="a: "):
            lab.get("local", "add", {"a": "x"})
        assert lab.save("local", "put", {"x": 1})["message"] == "full"
        with pytest.raises(NameTaken, match=r"is held on .*that is this program"):
            lab.host(Another(), name="local")
        assert lab.get("store", "ask", {"service": "local", "method": "add", "params": {"a": 20}}) == 21
        lab.pub(7, topic="local")
        lab._launch.session.drain(["local"], 10)  # type: ignore[union-attr]
    finally:
        lab.unhost("local")
    assert vars(local) == {"seen": [7]}
    with pytest.raises(NoResponder):
        lab.get("local", "add", {"a": 1})


# -- all together


def test_sync_runs_everybody_and_returns_what_each_returned(lab: Ether) -> None:
    assert lab.sync("prepare", level="3") == {"one": ["one", 3.0], "two": ["two", 3.0]}
    with pytest.raises(NoResponder, match="prepare"):
        lab.sync("repair")


def test_sync_works_as_a_decorator_too(lab: Ether) -> None:
    class Marked:
        @lab.sync(topic="marked")
        def method(self) -> int:
            return 3

    lab.host(Marked(), name="marked")
    try:
        assert lab.sync("marked") == {"marked": 3}
        assert Marked().method() == 3
    finally:
        lab.unhost("marked")


# -- deaths


def test_sync_names_who_failed_and_who_died_in_the_time_of_the_others(ether: Ether, on: On) -> None:
    instances = {
        f"member{n}": {"class_path": "called_parts.Member", "kwargs": {"name": f"member{n}"}} for n in range(8)
    }
    ether.tap({"instances": instances}, broker=on("amqtt"))
    launch = ether._launch
    assert launch is not None
    victim = launch._supervisor.child("member7").pid
    with ether.subscribe("begun") as begun:
        done: list[Any] = []

        def ask() -> None:
            try:
                ether.sync("trial", failing="member3", waiting="member7", timeout_s=patience(60))
            except SyncError as error:
                done.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        assert begun.get(timeout_s=patience(20)).value == "member7"
        os.kill(victim, signal.SIGKILL)
        asking.join(patience(20))
    (error,) = done
    assert set(error.results) == {f"member{n}" for n in range(8)} - {"member3", "member7"}
    assert error.failed == {"member3": "ValueError: member3 would not"}
    assert set(error.lost) == {"member7"}
    assert error.missing == {}
    assert "member7" in str(error)


@pytest.mark.parametrize("engine", EVERY)
def test_an_instance_that_dies_in_a_call_is_named_at_once(ether: Ether, engine: str, on: On) -> None:
    ether.tap({"instances": {"slow": {"class_path": "called_parts.Slow"}}}, broker=on(engine))
    launch = ether._launch
    assert launch is not None
    with pytest.raises(InstanceLost, match=r"slow died while it was working on slow\.die"):
        ether.get("slow", "die", timeout_s=30)
    with pytest.raises(NoResponder, match=r"slow is lost"):
        ether.get("slow", "count")


def test_a_stopped_instance_is_told_from_a_busy_one(ether: Ether, on: On) -> None:
    ether.tap({"instances": {"slow": {"class_path": "called_parts.Slow"}}}, broker=on("amqtt"))
    pid = ether._launch._supervisor.child("slow").pid  # type: ignore[union-attr]
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(RequestTimeout, match="slow stopped responding"):
            ether.get("slow", "count", timeout_s=0.6)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert ether.get("slow", "count") == 0


# -- strangers


@pytest.mark.parametrize("engine", engine_params(engines))
@pytest.mark.skipif(shutil.which("mosquitto_rr") is None, reason="mosquitto_rr is not installed")
def test_any_mqtt_5_program_can_call(ether: Ether, engine: str) -> None:
    with running_broker(engine) as broker:
        ether.tap(
            {"instances": {"store": {"class_path": "called_parts.Store"}}}, session="bench", broker=broker.url_tcp
        )
        options = ["-V", "5", "-h", broker.host, "-p", str(broker.port), "-u", broker.username, "-P", broker.password]

        def ask(method: str, body: str, *more: str) -> str:
            topic = f"ether/1/bench/call/store/{method}"
            command = ["mosquitto_rr", *options, "-t", topic, "-e", "my/replies", "-m", body, "-W", "10", *more]
            return subprocess.run(
                command, capture_output=True, text=True, check=True, timeout=patience(20)
            ).stdout.strip()

        assert ask("area", '{"box": {"width": 2, "height": 4}}') == "8.0"
        failed = ask("fail", '{"how": "KeyError"}', "-F", "%P %p")
        assert "error:KeyError" in failed
        assert '"class":"KeyError"' in failed.replace(" ", "")
        assert "no method" in ask("nothing", "{}")
        ether.shutdown()


@pytest.mark.parametrize("engine", EVERY)
def test_the_example_runs(tmp_path: Path, engine: str, on: On) -> None:
    for file in EXAMPLE.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    command = [sys.executable, "run.py", argument(on(engine))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=patience(60))
    lines = done.stdout.splitlines()
    assert lines[0].startswith("saved: {'status': 'success', 'result': 1")
    assert lines[1] == "read: {'id': 1, 'name': 'plate 7', 'tags': ['pilot']}"
    assert lines[2] == "saved again: error - item 1 exists already"
    assert lines[3] == "unknown: RemoteError - DataService.get_item raised KeyError: 2"
