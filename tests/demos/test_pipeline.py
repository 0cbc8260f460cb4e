"""The user's pipeline, as processes: from the first line to the last, on each broker."""

from __future__ import annotations

import re
import shutil
import statistics
from pathlib import Path

import pytest
from engine_params import EMBEDDED, EVERY, STOCKS, On, argument
from patience import patience
from programs import GONE_S, run, running, write

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} - (\w+):(\d+) - ([A-Z]+) - (.*)$")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder with the example in it."""
    for example in ("dual_processors", "external_classes"):
        for file in (EXAMPLES / example).iterdir():
            if file.is_file():
                shutil.copy(file, tmp_path / (f"{example}_{file.name}" if file.name == "run.py" else file.name))
        shutil.copy(EXAMPLES / example / "pipeline.yaml", tmp_path / f"{example}.yaml")
    return tmp_path


@pytest.mark.parametrize("engine", EVERY)
@pytest.mark.parametrize("example", ["dual_processors", "external_classes"])
def test_the_example_runs_and_by_hand_gives_the_same(folder: Path, example: str, engine: str, on: On) -> None:
    shutil.copy(folder / f"{example}.yaml", folder / "pipeline.yaml")
    finished = run(folder, f"{example}_run.py", argument(on(engine)))
    assert finished.code == 0, finished.err
    by_process, by_hand = finished.out.split("The same by hand")
    for part in (by_process, by_hand):
        assert "mean: 126.0, max: 168" in part
        assert "min: 84" in part


def test_the_log_tells_the_session_in_the_agreed_words(folder: Path) -> None:
    shutil.copy(folder / "dual_processors.yaml", folder / "pipeline.yaml")
    finished = run(folder, "dual_processors_run.py", "amqtt")
    lines = [match.groups() for line in finished.err.splitlines() if (match := LOG_LINE.match(line))]
    said = [text for name, _, level, text in lines if name == "Ether" and level == "INFO"]
    session = said[0].removeprefix("Starting Ether session: ")
    assert said[0].startswith("Starting Ether session: ")
    assert said[1].startswith("Broker: amqtt ")
    assert said[2:] == [
        "Ether system started successfully",
        f"Shutting down Ether session: {session}",
        "Ether system shutdown complete",
    ]
    assert len(lines) == len(finished.err.splitlines()), finished.err


SCRIPT = """
    import sys
    from ether import ether, ether_pub, ether_start, ether_sub

    broker = sys.argv[1] if "://" in sys.argv[1] else {"engine": sys.argv[1]}
    print("the script runs")

    class DataService:
        @ether_start()
        @ether_pub(topic="answer")
        def begin(self):
            print("in a child", flush=True)
            return {"where": __name__}

    ether.tap({"instances": {"service": {"class_path": "my_script.DataService"}}}, broker=broker)
    with ether.subscribe("answer") as answers:
        ether.start()
        print("answer", answers.get(timeout_s=10).value)
"""


@pytest.mark.parametrize("engine", EVERY)
def test_a_class_of_the_running_script_needs_no_guard_and_no_shutdown(tmp_path: Path, engine: str, on: On) -> None:
    finished = run(tmp_path, write(tmp_path, "my_script.py", SCRIPT), argument(on(engine)))
    assert finished.code == 0, finished.err
    assert finished.out.count("the script runs") == 1
    assert "in a child\n" in finished.out
    assert "answer" in finished.out  # two programs write to one pipe, and print() writes in pieces
    assert "{'where': 'my_script'}" in finished.out
    assert "Ether system shutdown complete" in finished.err


AT_ONCE = """
    import sys
    from ether import ether, ether_save_all, ether_sub

    broker = sys.argv[1] if "://" in sys.argv[1] else {"engine": sys.argv[1]}

    class Counter:
        def __init__(self):
            self.seen = []
        @ether_sub(topic="result")
        def take(self, value: int):
            self.seen.append(value)
        @ether_save_all
        def save(self):
            print("seen", sorted(self.seen))

    for number in range(int(sys.argv[2])):
        instances = {
            "generator": {"class_path": "dual_processors.DataGenerator"},
            "double": {"class_path": "dual_processors.DataProcessor", "args": ["double", 2]},
            "quadruple": {"class_path": "dual_processors.DataProcessor", "args": ["quadruple", 4]},
            "counter": {"class_path": "at_once.Counter"},
        }
        ether.tap({"instances": instances}, broker=broker)
        ether.start()
        ether.shutdown()
"""


@pytest.mark.parametrize("engine", EVERY)
def test_the_first_message_is_never_lost(folder: Path, engine: str, rounds: int, on: On) -> None:
    """`ether.start()` right after `ether.tap()`, `ether.shutdown()` right after that: both results arrive."""
    finished = run(folder, write(folder, "at_once.py", AT_ONCE), argument(on(engine)), str(rounds))
    assert finished.code == 0, finished.err
    assert finished.out.count("seen [84, 168]") == rounds


MOMENTS = [
    "",
    "Starting Ether session",
    "Broker:",
    "Ether system started",
    "Generating data",
    "Shutting down",
    "Ether system shutdown complete",
]


ENDS = [
    *(pytest.param(*each.values, how, marks=each.marks) for each in EMBEDDED for how in ("interrupt", "kill")),
    *(pytest.param(*each.values, "kill", marks=each.marks) for each in STOCKS),
]


@pytest.mark.parametrize(("engine", "how"), ENDS)
def test_nothing_outlives_the_main_program(folder: Path, engine: str, how: str, rounds: int, on: On) -> None:
    """Ctrl-C and kill -9 at moments of every kind: a second later there is no process and no file of ours."""
    shutil.copy(folder / "dual_processors.yaml", folder / "pipeline.yaml")
    broker, took_s = argument(on(engine)), list[float]()
    first = 2 * [each.values for each in ENDS].index((engine, how))  # so that two rounds of each are all moments
    for number in range(rounds):
        with running(folder, "dual_processors_run.py", broker) as program:
            moment = MOMENTS[(first + number) % len(MOMENTS)]
            if moment and not (moment == "Broker:" and "://" in broker):  # the session's own broker is named
                program.wait_for(moment)
            getattr(program, how)()
            took_s.append(program.assert_nothing_left())
    assert statistics.median(took_s) < GONE_S, took_s
    finished = run(folder, "dual_processors_run.py", broker)
    assert finished.code == 0, finished.err
    assert "mean: 126.0" in finished.out


def test_a_child_stuck_in_c_code_does_not_outlive_a_killed_launcher(tmp_path: Path) -> None:
    script = """
        import ctypes
        from ether import ether, ether_start

        class Stuck:
            @ether_start()
            def hold(self):
                print("holding", flush=True)
                ctypes.PyDLL(None).sleep(600)  # keeps the interpreter's lock: no Python code can run

        ether.tap({"instances": {"stuck": {"class_path": "stuck_script.Stuck"}}}, broker={"engine": "amqtt"})
        ether.start()
        input_never_comes = ether.subscribe("never").get(timeout_s=600)
    """
    with running(tmp_path, write(tmp_path, "stuck_script.py", script)) as program:
        program.wait_for("holding")
        program.kill()
        program.assert_nothing_left()


def test_a_forked_helper_of_the_user_does_not_keep_children_alive(tmp_path: Path) -> None:
    script = """
        import os, time
        from ether import ether, ether_sub

        class Idle:
            @ether_sub(topic="x")
            def take(self): ...

        ether.tap({"instances": {"idle": {"class_path": "fork_script.Idle"}}}, broker={"engine": "amqtt"})
        if os.fork() == 0:
            os.environ["ETHER_TEST_PROGRAM"] = ""
            os.write(1, b"its pid is %d\\n" % os.getpid())
            time.sleep(600)
        os.write(1, b"forked\\n")
        time.sleep(600)
    """
    with running(tmp_path, write(tmp_path, "fork_script.py", script)) as program:
        program.wait_for("forked")
        program.wait_for("its pid is")
        helper = int(next(line for line in program.lines["out"] if "its pid is" in line).split()[-1])
        program.kill()
        program.process.wait(patience(10))
        program.assert_nothing_left(except_for=helper)
