"""Sessions from the inside: what starts, what does not and why, what fails and goes on, how it ends."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from patience import patience
from programs import running, write
from running_brokers import RunningBroker, engines, mosquitto_missing, running_broker

from ether import Ether
from ether.errors import (
    ConfigError,
    EncodeError,
    InvalidName,
    LifecycleFailed,
    NotAllowedHere,
    NotJoined,
    PayloadTooLarge,
    StartFailed,
)

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]

AMQTT = {"engine": "amqtt"}
pytestmark = pytest.mark.in_turn("engine")


def parts(**classes: str | tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Instances of classes in `lab_parts`."""
    described = {}
    for name, given in classes.items():
        cls, kwargs = given if isinstance(given, tuple) else (given, {})
        described[name] = {"class_path": f"lab_parts.{cls}", "kwargs": dict(kwargs)}
    return described


@pytest.fixture
def ether() -> Iterator[Ether]:
    """An `Ether` of the test's own."""
    own = Ether()
    yield own
    own.shutdown()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each broker engine."""
    return str(request.param)


END: dict[str, float] = {}
"""How long an end may take."""


def tap(ether: Ether, engine: str = "amqtt", **classes: Any) -> None:
    ether.tap({"instances": parts(**classes), "end": END}, broker={"engine": engine})


# -- starting


def test_everything_that_can_fail_at_the_start_is_named_with_the_users_own_traceback(ether: Ether) -> None:
    instances = parts(
        fine="Echo",
        raising="Raising",
        exiting="Exiting",
        tapping="Tapping",
        failing=("Lifecycle", {"name": "f", "fail_in": "init"}),
    )
    with pytest.raises(StartFailed) as caught:
        ether.tap({"instances": instances}, broker=AMQTT)
    reasons = caught.value.reasons
    assert set(reasons) == set(instances) - {"fine"}
    assert "COM7" in reasons["raising"]
    assert "_open_port" in reasons["raising"]
    assert "ether/process" not in reasons["raising"]
    assert "exit code 7" in reasons["exiting"]
    assert "out of order" in reasons["exiting"]
    assert "NotAllowedHere" in reasons["tapping"]
    assert "init went wrong" in reasons["failing"]
    for name in reasons:
        assert name in str(caught.value)
    with pytest.raises(NotJoined):
        ether.pub(1)


def test_h11_what_the_sources_say_is_named_before_anything_runs(ether: Ether) -> None:
    instances = parts(fine="Echo", raising="Raising")
    instances["missing_class"] = {"class_path": "lab_parts.Ecko"}
    instances["missing_module"] = {"class_path": "no_such_lab.Echo"}
    instances["wrong_arguments"] = {"class_path": "lab_parts.Slow"}
    with pytest.raises(StartFailed) as caught:
        ether.tap({"instances": instances}, broker=AMQTT)
    reasons = caught.value.reasons
    assert set(reasons) == {"missing_class", "missing_module", "wrong_arguments"}
    assert "Did you mean 'Echo'?" in reasons["missing_class"]
    assert "no module 'no_such_lab'" in reasons["missing_module"]
    assert "missing a required argument: 'seconds'; expected Slow(seconds: float" in reasons["wrong_arguments"]


def test_an_instance_that_is_not_ready_in_time_is_named(ether: Ether) -> None:
    with pytest.raises(StartFailed, match=r"--- slow ---\nnot ready within 8 s") as caught:
        ether.tap({"instances": parts(slow=("Slow", {"seconds": 600}), fine="Echo")}, broker=AMQTT, timeout_s=8)
    assert set(caught.value.reasons) == {"slow"}


def test_after_a_failed_start_the_next_one_works(ether: Ether) -> None:
    with pytest.raises(StartFailed):
        tap(ether, bad="Raising")
    tap(ether, fine="Echo")
    with ether.subscribe("out") as out:
        ether.pub([1], topic="in")
        assert out.get().value == [1]


@pytest.mark.parametrize("name", ["a+b", "a/b", "#", "$x", "nul\0", "", "x" * 300, "bell\a"])
def test_names_that_cannot_be_topics_are_refused(ether: Ether, name: str) -> None:
    with pytest.raises((ConfigError, InvalidName)):
        ether.tap({"instances": {name: {"class_path": "lab_parts.Echo"}}})
    with pytest.raises((ConfigError, InvalidName)):
        ether.tap(session=name)


def test_an_argument_that_cannot_cross_to_a_process_is_named(ether: Ether) -> None:
    with pytest.raises(EncodeError, match=r"instances\.slow\.kwargs\.seconds"):
        ether.tap({"instances": parts(slow=("Slow", {"seconds": threading.Lock()}))}, broker=AMQTT)


def test_autorun_false_is_not_started(ether: Ether) -> None:
    instances = parts(echo="Echo", bad="Raising")
    instances["bad"]["autorun"] = False
    ether.tap({"instances": instances}, broker=AMQTT)


def test_a_second_tap_is_refused_or_restarts(ether: Ether) -> None:
    tap(ether, echo="Echo")
    first = ether.session_id
    with pytest.raises(NotAllowedHere, match="restart=True"):
        tap(ether, other="Echo")
    ether.tap({"instances": parts(echo="Echo")}, broker=AMQTT, restart=True)
    assert ether.session_id != first


def test_calls_without_a_session_say_so(ether: Ether) -> None:
    for call in (ether.start, ether.pub, ether.save_all, ether.cleanup, lambda: ether.subscribe("x")):
        with pytest.raises(NotJoined, match="tap"):
            call()
    ether.shutdown()


def test_a_session_without_instances_works(ether: Ether, engine: str) -> None:
    with ether.tap(broker={"engine": engine}), ether.subscribe("a/+") as both:
        ether.pub({"x": 1}, topic="a/b")
        message = both.get()
        assert (message.topic, message.value, message.source) == ("a/b", {"x": 1}, "main")


# -- an instance's process


def test_an_instance_lives_where_the_parent_does(ether: Ether, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "given-by-the-user")
    tap(ether, here="Environment")
    with ether.subscribe("here") as here:
        ether.pub(topic="where")
        said = here.get().value
    assert isinstance(said, dict)
    assert said["cwd"] == os.getcwd()
    assert said["path"] == [os.path.abspath(place) if place == "" else place for place in sys.path]
    assert said["PYTHONPATH"] == "given-by-the-user"
    assert said["stdin"] == ""
    assert said["main_thread"]
    url = ether.broker_url
    assert url is not None
    assert url.split(":")[2].split("@")[0] not in said["cmdline"]


def test_what_children_print_arrives_in_whole_lines(ether: Ether, capsys: pytest.CaptureFixture[str]) -> None:
    letters = "abcd"
    tap(ether, **{letter: ("Printer", {"letter": letter}) for letter in letters})
    ether.pub({"lines": 50, "length": 9000}, topic="print")
    ether.shutdown()
    lines = capsys.readouterr().out.splitlines()
    for letter in letters:
        assert lines.count(letter * 9000) == 50
    assert lines.count("an end without a line break") == 4
    assert len(lines) == 204


def test_own_calls_publish_with_their_cause_from_any_thread(ether: Ether) -> None:
    tap(ether, source="Source")
    with ether.subscribe("values") as values, ether.subscribe("go") as gone:
        ether.pub(topic="go")
        cause = gone.get().id
        messages = [values.get() for _ in range(3)]
    assert [message.value for message in messages] == [1, 2, 3]
    assert [message.source for message in messages] == ["source"] * 3
    assert [message.parents for message in messages] == [(cause,)] * 3, "a thread that a handler starts inherits it"


def test_async_methods_work_and_their_tasks_go_on(ether: Ether) -> None:
    tap(ether, worker="Asynchronous")
    with ether.subscribe("async-done") as done, ether.subscribe("later-done") as later:
        ether.pub(1, topic="async")
        assert (done.get().value, later.get().value) == (2, 3)


# -- values


def test_every_kind_of_value_comes_back(ether: Ether, engine: str) -> None:
    np = pytest.importorskip("numpy")
    tap(ether, engine, echo="Echo")
    values = [None, True, 3, 2.5, "text µ", [1, [2]], {"a": {"b": None}}, b"\x00\xff", {"n": float("inf")}, ""]
    with ether.subscribe("out") as out:
        for value in values:
            ether.pub(value, topic="in")
            assert out.get().value == value
        array = np.asfortranarray(np.arange(12, dtype=">i2").reshape(3, 4))
        ether.pub({"image": array}, topic="in")
        back = out.get().value["image"]  # type: ignore[index]
        assert (back.dtype, back.shape, back.flags.f_contiguous) == (array.dtype, array.shape, True)
        assert (back == array).all()


def test_what_cannot_be_sent_is_refused_at_the_sender(ether: Ether) -> None:
    ether.tap(broker={"engine": "amqtt", "max_message_bytes": 10_000})
    with pytest.raises(EncodeError, match=r"a\[1\]"):
        ether.pub({"a": [1, object()]})
    with pytest.raises(PayloadTooLarge, match="10,000"):
        ether.pub(b"x" * 10_001)
    for topic in ("a/+", "#", "", "nul\0", "mqtt:$SYS/x"):
        with pytest.raises(InvalidName):
            ether.pub(1, topic=topic)
    with ether.subscribe("general") as general:
        ether.pub("still here")
        assert general.get().value == "still here"


# -- failures


def test_handlers_that_fail_are_reported_once_and_the_next_message_is_handled(
    ether: Ether, capsys: pytest.CaptureFixture[str]
) -> None:
    tap(ether, typed="Typed")
    with ether.subscribe("doubled") as doubled:
        ether.pub({"value": "seven"}, topic="int")
        ether.pub({"other": 1}, topic="int")
        for how in ("value", "exit", "recursion", "unicode", "memory", "silent", "group"):
            ether.pub({"how": how}, topic="fail")
        ether.pub(topic="unsendable")
        ether.pub({"value": 21}, topic="int")
        assert doubled.get().value == 42
    ether.shutdown()
    told = capsys.readouterr().err
    assert told.count("Typed.double failed: ValidationFailed") == 2
    assert "value: Input should be a valid integer" in told
    assert "payload={'value': 'seven'}" in told
    assert "topic=int" in told
    assert "message_id=0" in told
    assert told.count("Typed.fail failed") == 7
    for error in (
        "ValueError: value",
        "sys.exit(3)",
        "RecursionError",
        "MemoryError",
        "UnicodeDecodeError",
        "ExceptionGroup",
    ):
        assert error in told
    assert (
        "Typed.unsendable failed: EncodeError: cannot send what Typed publishes on 'never', at images[1].mask" in told
    )
    assert "lab_parts.py" in told
    assert "typed:" in told


@pytest.mark.parametrize("topic", ["int", "fail"])
def test_strangers_and_broken_bodies(ether: Ether, engine: str, topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Raw bytes from some other MQTT program, good and bad."""
    tap(ether, engine, typed="Typed")
    launch = ether._launch
    assert launch is not None
    raw = launch.session.link.transport
    full = launch.topics.data(topic)
    with ether.subscribe("doubled") as doubled:
        for body in (b"{broken", b"\xff\xfe", b"", b"[" * 5000, b'{"value": 1e999}', b"\x93junk", b'{"_ether": 3}'):
            raw.publish(full, body, qos=1)
        raw.publish(launch.topics.data("int"), b'{"value": 21}', qos=1)
        found = [doubled.get().value for _ in range(1)]
    assert 42 in found
    ether.shutdown()
    assert f"topic={topic}" in capsys.readouterr().err


# -- lifecycle


def test_lifecycle_runs_in_order_on_the_main_thread(ether: Ether, capsys: pytest.CaptureFixture[str]) -> None:
    tap(ether, one=("Lifecycle", {"name": "one"}), two=("Lifecycle", {"name": "two"}))
    assert ether.save_all() == {"one": ["save"], "two": ["save"]}
    assert ether.cleanup() == {"one": ["clean"], "two": ["clean"]}
    ether.shutdown()
    steps = [line.removesuffix(" in MainThread").split(": ") for line in capsys.readouterr().out.splitlines()]
    order = ["init", "save_all", "cleanup", "save_all", "cleanup", "shutdown"]
    for name in ("one", "two"):
        assert [step for who, step in steps if who == name] == order
    last = [step for _, step in steps][-6:]
    assert last == ["save_all", "save_all", "cleanup", "cleanup", "shutdown", "shutdown"]


@pytest.mark.parametrize("step", ["save_all", "cleanup", "shutdown"])
def test_a_step_that_fails_is_named_and_the_others_run(
    ether: Ether, step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tap(ether, bad=("Lifecycle", {"name": "bad", "fail_in": step}), good=("Lifecycle", {"name": "good"}))
    with pytest.raises(LifecycleFailed, match=f"bad: .*{step} went wrong") as caught:
        ether.shutdown()
    assert set(caught.value.reasons) == {"bad"}
    told = capsys.readouterr()
    for name in ("good", "bad"):
        for each in ("save_all", "cleanup", "shutdown"):
            assert f"{name}: {each}" in told.out
    assert f"{step} went wrong" in told.err


def test_an_instance_that_is_killed_is_named_and_does_not_hold_up_the_end(
    ether: Ether, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    tap(ether, victim="Environment", other=("Lifecycle", {"name": "other"}))
    launch = ether._launch
    assert launch is not None
    child = launch._supervisor.child("victim")
    os.kill(child.pid, signal.SIGKILL)
    child._waiter.join(patience(5))
    ether.shutdown()
    told = capsys.readouterr()
    assert "instance victim ended: was killed by signal 9" in caplog.text
    assert "other: save_all" in told.out


@pytest.fixture
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shutdown with less patience: of the time for handlers, 1.5 s are for them to come back."""
    monkeypatch.setitem(END, "work_s", 2.5)


@pytest.mark.usefixtures("short_steps")
def test_an_instance_that_is_busy_is_named_and_saves(ether: Ether, capsys: pytest.CaptureFixture[str]) -> None:
    tap(ether, busy="Busy", other=("Lifecycle", {"name": "other"}))
    ether.pub({"seconds": 5.0}, topic="busy")  # far more than what the end waits for, which may begin late
    with pytest.raises(LifecycleFailed, match=r"busy: drain: did not answer within 1\.5 s"):
        ether.shutdown()
    assert "saved" in capsys.readouterr().out.splitlines()


@pytest.mark.usefixtures("short_steps")
def test_an_instance_that_never_comes_back_leaves_its_handler_and_saves(
    ether: Ether, capfd: pytest.CaptureFixture[str]
) -> None:
    tap(ether, busy="Busy")
    ether.pub({"seconds": 600}, topic="busy")
    with pytest.raises(LifecycleFailed, match=r"busy: drain: did not answer within 1\.5 s") as caught:
        ether.shutdown()
    assert "killed" not in str(caught.value)
    told = capfd.readouterr()
    assert told.out.splitlines()[-1] == "saved"
    assert "Stopped: everything ends, and this handler has not come back" in told.err


@pytest.mark.usefixtures("short_steps")
def test_a_loop_that_goes_on_after_every_error_ends_too(ether: Ether, capsys: pytest.CaptureFixture[str]) -> None:
    tap(ether, loop="Stubborn")
    ether.pub(1, topic="go")
    with pytest.raises(LifecycleFailed, match="did not answer"):
        ether.shutdown()
    assert capsys.readouterr().out.splitlines()[-1] == "cleaned up"


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a handler is left by no signal")
def test_a_busy_instance_cleans_up_when_its_program_is_killed(tmp_path: Path) -> None:
    write(
        tmp_path,
        "lamps.py",
        """
        import threading
        from pathlib import Path
        from ether import ether, ether_cleanup, ether_start

        class Lamp:
            @ether_start
            def shine(self):
                ether.pub(topic="shining")
                while True:
                    threading.Event().wait(1)

            @ether_cleanup
            def switch_off(self):
                Path("off").touch()
        """,
    )
    write(
        tmp_path,
        "lab.py",
        """
        from ether import ether
        ether.tap({"broker": {"engine": "amqtt"}, "instances": {"lamp": {"class_path": "lamps.Lamp"}}})
        with ether.subscribe("shining") as shining:
            ether.start()
            shining.get()
        print("it is on", flush=True)
        ether.wait_for("never", timeout_s=60)
        """,
    )
    with running(tmp_path, "lab.py") as program:
        program.wait_for("it is on")
        program.kill()
        program.assert_nothing_left()
    assert (tmp_path / "off").exists()


@pytest.mark.usefixtures("short_steps")
def test_an_instance_that_hears_no_signal_is_killed(ether: Ether) -> None:
    tap(ether, deaf="Deaf")
    ether.pub(1, topic="go")
    with pytest.raises(LifecycleFailed, match="was killed"):
        ether.shutdown()


@pytest.mark.usefixtures("short_steps")
def test_a_session_that_never_rests_is_ended_all_the_same(ether: Ether, capsys: pytest.CaptureFixture[str]) -> None:
    tap(ether, endless="Endless")
    ether.pub({"n": 0}, topic="round")
    with pytest.raises(LifecycleFailed, match="still being published"):
        ether.shutdown()
    assert "endless saved" in capsys.readouterr().out


@pytest.mark.usefixtures("short_steps")
def test_without_a_broker_instances_still_save(ether: Ether, capsys: pytest.CaptureFixture[str]) -> None:
    with running_broker("amqtt") as broker:
        ether.tap({"instances": parts(one=("Lifecycle", {"name": "one"}))}, broker=broker.url_tcp)
        broker.kill()
        link = ether._launch.session.link  # type: ignore[union-attr]
        with ether._launch.session._changed:  # type: ignore[union-attr]
            ether._launch.session._changed.wait_for(lambda: not link.transport.connected, 5)  # type: ignore[union-attr]
        with pytest.raises(LifecycleFailed, match="the broker is gone"):
            ether.shutdown()
    steps = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert steps == ["init", "save_all", "cleanup", "shutdown"]


def test_a_forked_child_does_not_end_its_parents_session(ether: Ether) -> None:
    tap(ether, echo="Echo")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        ether.shutdown()
        os.write(writing, b"left")
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading, 4) == b"left"
    os.close(reading)
    os.close(writing)
    with ether.subscribe("out") as out:
        ether.pub(5, topic="in")
        assert out.get().value == 5


# -- brokers


def test_a_broker_that_dies_is_started_again_and_everybody_is_back(
    ether: Ether, engine: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    tap(ether, engine, echo="Echo")
    launch = ether._launch
    assert launch is not None
    broker = launch._broker
    assert broker is not None
    with ether.subscribe("out") as out:
        url = ether.broker_url
        with launch.session._changed:  # before the kill: the broker may be back before this program goes on
            launch.session._presence.forget("echo")
            os.kill(broker._child.pid, signal.SIGKILL)
            again = launch.session._changed.wait_for(lambda: "echo" in launch.session._presence.ready(), patience(20))
        assert again
        assert ether.broker_url == url
        ether.pub("again", topic="in")
        assert out.get().value == "again"
    ether.shutdown()
    told = capsys.readouterr().err
    assert "Starting it again at once" in caplog.text
    assert "is connected to the broker again" in told


@pytest.fixture
def bench(engine: str) -> Iterator[RunningBroker]:
    """A broker that runs already."""
    with running_broker(engine) as broker:
        yield broker


def test_an_external_broker_carries_a_session_and_keeps_nothing_of_it(ether: Ether, bench: RunningBroker) -> None:
    ether.tap({"session": "bench", "instances": parts(echo="Echo")}, broker=bench.url_tcp)
    assert (ether.session_id, ether.broker_url) == ("bench", None)
    with ether.subscribe("out") as out:
        ether.pub({"a": 1}, topic="in")
        assert out.get().value == {"a": 1}
    ether.shutdown()
    with ether.tap(broker=bench.url_tcp), ether.subscribe("mqtt:ether/#") as kept:
        ether.pub("last", topic="mqtt:ether/end")
        topics = []
        while (message := kept.get()).value != "last":
            topics.append(message.topic)
        assert [topic for topic in topics if "/bench/" in topic] == []


def test_who_does_not_end_is_killed_and_shows_where_it_was(
    ether: Ether, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(END, "work_s", 1.0)
    tap(ether, lingering="Lingering", other="Echo")
    with pytest.raises(LifecycleFailed, match="lingering: did not end and was killed") as caught:
        ether.shutdown()
    assert "other" not in str(caught.value)
    if os.name == "posix":
        assert "linger_for_ever" in capfd.readouterr().err
