"""The clock of a session's programs is set while everything runs: nothing is lost, and nothing raises a false alarm.

The broker keeps the true time, as one on another machine would.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from patience import patience
from programs import Program, running, write
from running_brokers import RunningBroker, engines, mosquitto_missing, running_broker
from set_clock import DAY_S, HOUR_S, SetClock

from ether.ledger.reader import LedgerReader, RecordFilter
from ether.reading.run_facts import runs_in

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]
TO_1970 = 60.0 - time.time()

pytestmark = pytest.mark.in_turn("broker")

STEPS = [
    pytest.param((0.0, 8 * DAY_S), id="8-days-ahead"),
    pytest.param((0.0, -8 * DAY_S), id="8-days-back"),
    pytest.param((TO_1970, 0.0), id="from-1970"),
    pytest.param((0.0, TO_1970), id="to-1970"),
    pytest.param((0.0, -HOUR_S), id="back-by-an-hour"),
][None if os.environ.get("ETHER_LONG") == "1" else 2 :]

ALARMS = re.compile(
    r"hung|no sign of life|is lost|was lost|given up|gives up|older than|too old|expired|too late|earlier program|"
    r"offline|Traceback|ERROR"
)
"""That a tick is missed is no false alarm on a busy machine; what schedules do is in tests/instance."""

PROGRAM = """
    import json, os, sys, threading
    from ether import ether
    from ether.errors import EtherError

    config, folder, n = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    pause = threading.Event()
    kept, saves, problems, pictures = [], [], [], []

    def there(name):
        return os.path.exists(os.path.join(folder, name))

    with ether.tap(config), ether.run("clocks", resume=True) as run:
        print("ready", flush=True)
        for trial in run.trials(3):
            while not there(f"trial-{trial.number}"):
                n += 1
                kept.append(ether.record({"n": n}, "dose"))
                if n % 5 == 0:
                    saves.append(ether.save_later("doser", "dose", {"n": n}))
                if n % 5 == 1 and not there("away"):
                    try:
                        pictures.append(ether.get("cam", "count", timeout_s=20.0 if there("back") else 5.0))
                    except EtherError as error:
                        if not there("away"):
                            problems.append(f"get: {error}")
                if n % 50 == 1:
                    saved = next((i for i, each in enumerate(kept) if not each.done), len(kept))
                    print(f"at {n} saved {saved}", flush=True)
                pause.wait(0.01)
            print(f"trial {trial.number} is over", flush=True)
        for saved in kept:
            try:
                saved.wait(20.0)
            except EtherError as error:
                problems.append(f"record: {error}")
        for call in saves:
            answer = ether.collect(call, timeout_s=20.0)
            if answer["status"] != "success":
                problems.append(f"save: {answer}")
        print("SAID " + json.dumps({
            "n": n, "saves": len(saves), "problems": problems, "pictures": pictures,
            "instances": {m["name"]: m["state"] for m in ether.instances()},
        }), flush=True)
"""


@pytest.fixture(params=ENGINES)
def broker(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    with running_broker(request.param) as running_one:
        yield running_one


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SetClock:
    for variable in ("XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    return SetClock(tmp_path, monkeypatch)


@contextmanager
def stopped(broker: RunningBroker) -> Iterator[None]:
    pids = {broker.process.pid, broker.engine_pid}
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def some_time(program: Program, rounds: int = 1) -> None:
    """Until the program has gone on for at least `rounds` × 50 of its rounds."""
    for _ in range(rounds):
        before = len(progress(program))
        until(program, lambda before=before: len(progress(program)) > before)  # type: ignore[misc]


def until(program: Program, done: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline, pause = time.monotonic() + patience(timeout_s), threading.Event()
    while not done():
        assert time.monotonic() < deadline, program.said()
        pause.wait(0.02)


def progress(program: Program) -> list[str]:
    return [line for line in program.lines["out"] if line.startswith("at ")]


def start(folder: Path, broker: RunningBroker, after: int = 0) -> tuple[str, ...]:
    """The arguments of the program, which counts from `after` on."""
    write(folder, "bench.py", PROGRAM)
    (folder / "clock_parts.py").write_text((Path(__file__).parents[1] / "parts" / "clock_parts.py").read_text())
    config = {
        "session": "bench",
        "broker": broker.url_tcp,
        "record": {"topics": [], "folder": str(folder / "ledger")},
        "instances": {
            "cam": {"class_path": "clock_parts.Camera"},
            "doser": {"class_path": "clock_parts.Doser", "kwargs": {"file": str(folder / "doses")}},
        },
    }
    return "bench.py", json.dumps(config), str(folder), str(after)


def said(program: Program) -> dict[str, Any]:
    line = next(line for line in program.lines["out"] if line.startswith("SAID "))
    found: dict[str, Any] = json.loads(line.removeprefix("SAID "))
    return found


def doses(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "doses").read_text().split()]


def recorded(folder: Path) -> list[int]:
    with LedgerReader.open(folder / "ledger") as reader:
        return [record.value["n"] for record in reader.records(RecordFilter(kinds=("record",), topic="dose"))]


def check(folder: Path, program: Program) -> int:
    """Nobody has complained, everything works, and the run is whole. Returns the last number."""
    told = said(program)
    assert told["problems"] == []
    assert told["instances"].pop("recorder") == "ready"
    assert told["instances"] == {"cam": "ready", "doser": "ready"}
    assert told["pictures"] == sorted(told["pictures"])
    assert told["pictures"][-1] > told["pictures"][0]
    with LedgerReader.open(folder / "ledger") as reader:
        [run] = runs_in(reader).values()
    assert run.status == "ended"
    assert len(run.done) == 3
    assert all(0.0 <= attempts.seconds < 120.0 for attempts in run.trials.values())
    assert [line for line in program.lines["err"] if ALARMS.search(line)] == []
    return int(told["n"])


@pytest.mark.drawn(2)
@pytest.mark.parametrize("step", STEPS)
def test_a_clock_that_is_set_loses_nothing_and_alarms_nobody(
    tmp_path: Path, broker: RunningBroker, clock: SetClock, step: tuple[float, float]
) -> None:
    """Set while all are connected, set back while the broker stands still and everything waits, and set once more."""
    first, second = step
    clock.set(first)
    with running(tmp_path, *start(tmp_path, broker)) as program:
        program.wait_for("ready")
        some_time(program)
        clock.set(second)
        some_time(program, 2)
        (tmp_path / "trial-1").touch()
        program.wait_for("trial 1 is over")
        some_time(program)  # so that the next trial has begun: that needs the broker
        (tmp_path / "away").touch()
        with stopped(broker):
            some_time(program)  # what is recorded and saved from now on waits
            clock.set(first)
            some_time(program, 2)  # longer than the outbox takes to look at ages
        (tmp_path / "away").rename(tmp_path / "back")  # from here on calls wait until all are connected again
        some_time(program, 2)
        (tmp_path / "trial-2").touch()
        program.wait_for("trial 2 is over")
        clock.set(second)
        some_time(program, 2)
        (tmp_path / "trial-3").touch()
        program.wait_for("SAID ", 60)
        program.finish()
    last = check(tmp_path, program)
    assert recorded(tmp_path) == list(range(1, last + 1))
    assert doses(tmp_path) == list(range(5, last + 1, 5))


@pytest.mark.drawn(2)
@pytest.mark.parametrize("step", STEPS)
def test_a_run_is_resumed_by_a_program_with_another_time(
    tmp_path: Path, broker: RunningBroker, clock: SetClock, step: tuple[float, float]
) -> None:
    """The program is killed in the middle of a trial, and started again after its clock was set: what its outboxes hold
    is delivered, and the run goes on with the second trial."""
    first, second = step
    clock.set(first)
    with running(tmp_path, *start(tmp_path, broker)) as program:
        program.wait_for("ready")
        some_time(program)
        (tmp_path / "trial-1").touch()
        program.wait_for("trial 1 is over")
        some_time(program)
        program.kill()
        program.process.wait(patience(10))
        until(program, lambda: not program.descendants())
    saved = max(int(line.split()[3]) for line in progress(program))
    clock.set(second)
    with running(tmp_path, *start(tmp_path, broker, 10_000)) as program:
        program.wait_for("ready", 60)
        some_time(program, 2)
        (tmp_path / "trial-2").touch()
        (tmp_path / "trial-3").touch()
        program.wait_for("SAID ", 60)
        program.finish()
    end = check(tmp_path, program)
    values, given = recorded(tmp_path), doses(tmp_path)
    assert len(set(values)) == len(values)
    assert len(set(given)) == len(given)
    # Of what was handed over in the last moments before the kill, and of a dose that was just being given, nobody knows
    # how far it came.
    assert set(range(1, saved + 1)) | set(range(10_001, end + 1)) <= set(values)
    assert set(range(5, saved - 20, 5)) | set(range(10_005, end + 1, 5)) <= set(given)
