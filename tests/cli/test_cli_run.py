"""`ether run`, `up`, `down`: how a session comes up from the command line, and how it ends."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import ENGINES, ETHER, LAB, bench, ether, make_lab
from commands_here import ether_here
from programs import run, running, write
from running_brokers import alive, soon

pytestmark = pytest.mark.in_turn("folder")


@pytest.fixture(params=ENGINES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with the lab, for each engine."""
    make_lab(tmp_path, request.param)
    return tmp_path


def test_ctrl_c_drains_and_stops_in_order(folder: Path) -> None:
    with bench(folder) as lab:
        lab.program.interrupt()
        done = lab.program.finish()
        assert done.code == 0
        assert "draining" in done.err
        assert "sink: ready after" in done.err
        assert "Traceback" not in done.err
        lab.program.assert_nothing_left()


def test_sigterm_does_the_same(folder: Path) -> None:
    with bench(folder) as lab:
        lab.program.process.terminate()
        assert lab.program.finish().code == 0
        lab.program.assert_nothing_left()


def test_a_second_ctrl_c_stops_at_once(folder: Path) -> None:
    with bench(folder) as lab:
        frozen = [member["pid"] for member in lab.ether("ps", "--json").json["members"]]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)  # or it would be over before the second
        lab.program.interrupt()
        lab.program.wait_for("draining")
        lab.program.wait_for("Shutting down")
        lab.program.interrupt()
        assert lab.program.finish(10).code == 130
        lab.program.assert_nothing_left()


def test_run_prints_what_instances_print_and_start_is_published(folder: Path) -> None:
    with bench(folder, "--start") as lab:
        lab.program.wait_for("started by topic")


def test_run_as_json_tells_events_and_keeps_output_apart(folder: Path) -> None:
    with bench(folder, "--json", "--start") as lab:
        lab.program.wait_for("started by topic")
        lab.program.interrupt()
        done = lab.program.finish()
    ready, ended = (json.loads(line) for line in done.out.splitlines())
    assert (ready["event"], ready["session"], ready["instances"]) == ("ready", "bench", ["source", "sink"])
    assert ended == {"event": "ended", "code": 0, "problems": {}}
    assert "started by topic" in done.err


BROKEN = LAB + "  broken: {{class_path: cli_parts.Broken}}\n"


def test_an_instance_that_does_not_start_ends_the_run_with_its_reason(folder: Path) -> None:
    make_lab(folder, "amqtt", BROKEN)
    done = run(folder, *ETHER, "run")
    assert done.code == 1
    assert "not ready: broken" in done.err
    assert "the lamp is out" in done.err
    assert "ether/cli" not in done.err


def test_when_every_instance_has_ended_the_run_ends(tmp_path: Path) -> None:
    make_lab(tmp_path, "amqtt", "broker: {{engine: {engine}}}\ninstances:\n  sink: {{class_path: cli_parts.Sink}}\n")
    with bench(tmp_path) as lab:
        lab.ether("call", "sink.end")
        done = lab.program.finish()
        assert "every instance has ended" in done.err
        assert done.code == 1  # with an exit code of its own
        lab.program.assert_nothing_left()


def test_a_run_without_instances_goes_on(tmp_path: Path) -> None:
    (tmp_path / "ether.yaml").write_text("session: empty\nbroker: {engine: amqtt}\n")
    with bench(tmp_path) as lab:
        assert lab.ether("ps").err == "nobody is in session empty\n"
        lab.program.interrupt()
        assert lab.program.finish().code == 0


# -- without a terminal


@pytest.fixture
def user(folder: Path) -> Iterator[Path]:
    """Whatever was started in the background ends with the test."""
    yield folder
    for row in ether_here(folder, "sessions", "--json").json:
        os.kill(row["pid"], signal.SIGKILL)
        soon(lambda pid=row["pid"]: not alive(pid), 5)  # type: ignore[misc]


def test_up_and_down(user: Path) -> None:
    told = ether(user, "up", "-d", "--json").json
    assert (told["session"], told["instances"]) == ("bench", ["source", "sink"])
    assert os.getsid(told["pid"]) == told["pid"]
    assert ether_here(user, "call", "sink.say").out == "said\n"
    pids = [member["pid"] for member in ether_here(user, "ps", "--json").json["members"]]
    done = ether_here(user, "down")
    assert (done.code, done.out, done.err) == (0, "session bench has ended\n", "")
    assert ether_here(user, "sessions", "--json").json == []
    assert soon(lambda: not any(map(alive, [*pids, told["pid"]])), 2)
    assert "draining" in Path(told["output"]).read_text()


@pytest.mark.parametrize("folder", ENGINES[:1], indirect=True)
def test_h3_what_runs_already_is_said_and_its_output_is_left_alone(user: Path) -> None:
    told = ether(user, "up", "-d", "--json").json
    output = Path(told["output"])
    before = output.read_text()
    assert before
    for command in (("run",), ("up", "-d")):
        ether(user, *command).assert_mistake(1, "session bench runs already, on", "`ether down -s bench`", "ether.tap(")
    config = user / "ether.yaml"
    config.write_text(config.read_text() + "begin_within_s: 3\n")  # another configuration, with the same instances
    again = ether(user, "up", "-d")
    assert again.code == 1
    assert "session bench runs already, on" in again.err
    assert "it has a 'source' already" in again.err
    assert output.read_text().startswith(before)
    assert f"its whole output is in {output}" not in again.err
    ether(user, "run", "-s", "bnech", "--join").assert_mistake(4, "named 'bnech'", "Did you mean 'bench'?")
    ether_here(user, "ps", "-s", "bnech").assert_mistake(4, "named 'bnech'", "there is: bench")


def test_a_session_that_does_not_come_up_says_why(user: Path) -> None:
    make_lab(user, "amqtt", BROKEN)
    done = ether(user, "up", "-d")
    assert done.code == 1
    assert "the lamp is out" in done.err
    assert ether_here(user, "sessions", "--json").json == []
    ether(user, "up", "-d", "missing.yaml").assert_mistake(3, "missing.yaml")


def test_a_session_that_nobody_may_end(tmp_path: Path) -> None:
    write(
        tmp_path,
        "mine.py",
        """
        import threading
        from ether import ether
        ether.tap({"session": "mine", "broker": {"engine": "amqtt"}})
        print("up", flush=True)
        threading.Event().wait(60)
        """,
    )
    with running(tmp_path, "mine.py") as program:
        program.wait_for("up")
        done = ether_here(tmp_path, "down", XDG_RUNTIME_DIR=str(program.runtime))
        done.assert_mistake(1, "mine", str(program.process.pid))


def test_a_new_project_runs_at_once(tmp_path: Path) -> None:
    assert ether_here(tmp_path, "new", "demo").code == 0
    with bench(tmp_path / "demo") as lab:
        lab.program.wait_for("degrees")
        assert isinstance(lab.ether("call", "thermometer.read").json, float)
        assert lab.ether("call", "alarm.set_limit", "limit=22.5").json == 22.5
        lab.program.interrupt()
        assert lab.program.finish().code == 0
