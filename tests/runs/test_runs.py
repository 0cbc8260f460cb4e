"""Named runs: what belongs to which trial, how a run ends, and how one that was cut short goes on."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands_here import ether_here
from engine_params import EVERY, On
from patience import patience

from ether import Ether
from ether.errors import (
    ConditionNotMet,
    LifecycleFailed,
    NoRunHere,
    QueryMistake,
    ReadbackDiffers,
    RunDiffers,
    RunGoesOn,
    RunStopped,
    SyncError,
    TrialDisturbed,
)
from ether.protocol.run_record import RunState
from ether.runs.run import Run
from ether.runs.trial_rules import duration_text

ENGINE = "amqtt"

Tapped = Callable[..., Ether]


def part(name: str, **options: Any) -> dict[str, Any]:
    return {"class_path": f"run_parts.{name}", **options}


@pytest.fixture
def tapped(on: On, request: pytest.FixtureRequest) -> Iterator[Tapped]:
    """Starts this test's session."""
    opened: list[Ether] = []

    def tap(engine: str = ENGINE, **instances: Any) -> Ether:
        own = Ether()
        opened.append(own)
        session = f"runs-{abs(hash(request.node.name)) % 10**8}"
        own.tap({"session": session, "record": "all", "broker": on(engine), "instances": instances})
        return own

    yield tap
    for own in reversed(opened):
        try:
            own.shutdown()
        except LifecycleFailed:
            pass  # what was killed on purpose cannot be asked


def state_of(ether: Ether, run: Run) -> RunState:
    (told,) = ether.get("recorder", "runs", {"run": run.id})
    return RunState.from_value(told)


def events(ether: Ether, run: Run) -> list[dict[str, Any]]:
    return [record.value for record in ether.data(run=run.id, kinds=("run",))]


@pytest.mark.parametrize("engine", EVERY)
def test_data_belongs_to_its_run_and_trial(tapped: Tapped, engine: str) -> None:
    ether = tapped(engine, stage=part("Stage"), sensor=part("Sensor"), analysis=part("Analysis"))
    ether.pub("before", topic="note")
    with ether.subscribe("result") as results, ether.run("dose", compound="A") as run:
        seen = []
        for trial in run.trials(["a", "b", "c", "d"], order="random", seed=5):
            assert trial.prepared == {"stage": trial.number, "sensor": None}
            seen.append((trial.number, trial.condition))
            assert ether.get("stage", "whereabouts") == {"n": trial.number}
            ether.pub({"n": trial.number}, topic="measure")
            assert results.get().value == {"n": trial.number}
            ether.record({"n": trial.number}, name="own")
            trial.state["temperature"] = 37
        ether.pub("between", topic="note")
    ether.pub("after", topic="note")
    ether.flush()
    assert sorted(seen) == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
    assert run.id == "dose/1"
    for topic in ("stage", "measure", "reading", "result", "own"):
        found = [(r.value["n"], r.trial, r.attempt, r.run) for r in ether.data(topic=topic, run="dose", trial="all")]
        assert found == [(number, number, 1, "dose/1") for number, _ in seen], topic
        (one,) = ether.data(topic=topic, run="dose/1", trial=2)
        assert one.value["n"] == 2
    assert {r.value: (r.run.partition("/")[0], r.trial) for r in ether.data(topic="note")} == {
        "before": (ether.data(topic="note").first.run, None), "between": ("dose", None),
        "after": (ether.data(topic="note").first.run, None),
    }  # fmt: skip
    state = state_of(ether, run)
    assert (state.status, state.metadata, state.planned, state.done) == ("ended", {"compound": "A"}, 4, [1, 2, 3, 4])
    ends = [event for event in events(ether, run) if event["event"] == "trial-end"]
    assert all(end["state"] == {"temperature": 37} for end in ends)
    with pytest.raises(QueryMistake, match="trial 9 of run 'dose/1' is not done; done are 1, 2, 3, 4"):
        ether.data(run="dose", trial=9)
    with pytest.raises(QueryMistake, match="needs run="):
        ether.data(trial=9)
    shown = ether_here(Path.cwd(), "runs", str(ether.session_id), "--json")
    assert shown.code == 0, shown
    (told,) = shown.json
    assert (told["run"], told["status"], told["trials_done"], told["trials"]) == ("dose/1", "ended", 4, 4)


def test_what_is_still_at_work_keeps_its_trial(tapped: Tapped) -> None:
    ether = tapped(slow=part("Slow"))
    with ether.run("late") as run:
        for trial in run.trials(3):
            ether.pub({"n": trial.number, "seconds": 0.3}, topic="slow")
    assert [(r.value["n"], r.trial) for r in ether.data(topic="late", run="late")] == [(1, 1), (2, 2), (3, 3)]


def test_a_stream_changes_its_trial_without_a_pause(tapped: Tapped) -> None:
    ether = tapped(stream=part("Stream"))
    with ether.subscribe("stream") as stream, ether.run("flow") as run:
        ether.start()
        for _ in run.trials(3):
            begin = stream.get().value["number"]
            ether.wait_for("stream", lambda value, begin=begin: value["number"] > begin + 20, timeout_s=20)
    of_trial = [(r.value["number"], r.trial) for r in ether.data(topic="stream", run="flow")]
    assert {trial for _, trial in of_trial} >= {1, 2, 3}
    numbers = [number for number, _ in of_trial]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    in_trials = [trial for _, trial in of_trial if trial is not None]
    assert in_trials == sorted(in_trials)


def test_how_a_run_ended_is_recorded(tapped: Tapped) -> None:
    ether = tapped(stage=part("Stage"))
    failed, interrupted = ether.run("bad"), ether.run("stopped")
    with pytest.raises(KeyError):
        fail_in(2, failed, KeyError("no cell"))
    with pytest.raises(KeyboardInterrupt):
        fail_in(1, interrupted, KeyboardInterrupt())
    with ether.run("short") as left:
        for trial in left.trials(3):
            if trial.number == 3:
                break
    told = {run.id: state_of(ether, run) for run in (failed, interrupted, left)}
    assert [(s.status, s.error, s.done) for s in told.values()] == [
        ("failed", "KeyError: 'no cell'", [1]), ("interrupted", "Ctrl-C", []), ("left", "", [1, 2]),
    ]  # fmt: skip
    with ether.run("short", resume=True) as again:
        assert again.resumed
        assert [(trial.number, trial.attempt, trial.repeated) for trial in again.trials(3)] == [(3, 2, True)]
    assert state_of(ether, again).status == "ended"
    assert again.id == left.id
    with ether.run("short", resume=True) as over:
        assert list(over.trials(3)) == []
    with ether.run("short") as new:
        assert new.id == "short/2"
        with pytest.raises(RunGoesOn, match="'short/2' goes on in main"):
            ether.run("other").__enter__()


def fail_in(number: int, run: Run, error: BaseException) -> None:
    with run:
        for trial in run.trials(3):
            if trial.number == number:
                raise error


def test_a_run_goes_on_only_as_it_began(tapped: Tapped) -> None:
    ether = tapped()
    with ether.run("r", sample=3) as run:
        order = [trial.number for trial, _ in zip(run.trials(8, order="random"), range(3), strict=False)]
    with pytest.raises(RunDiffers, match="8 trials, and 9"), ether.run("r", resume=True) as run:
        run.trials(9)
    with pytest.raises(RunDiffers, match="metadata"), ether.run("r", resume=True, sample=4):
        pass
    with ether.run("r", resume=True) as run:
        assert run.metadata == {"sample": 3}
        order += [trial.number for trial in run.trials(8, order="random", seed=99)]
    plan = state_of(ether, run).plans[0]
    assert list(plan.order) == list(dict.fromkeys(order))


def test_a_preparation_that_fails_is_the_trials_failure(tapped: Tapped) -> None:
    ether = tapped(sensor=part("Sensor"))
    ether.host(Picky(), "picky")
    with pytest.raises(SyncError, match="no light"), ether.run("r") as run:
        for _ in run.trials(3):
            pass
    assert (state_of(ether, run).status, state_of(ether, run).done) == ("failed", [1])


class Picky:
    """Fails for the second trial."""

    def prepare(self, trial: int) -> None:
        if trial == 2:
            raise RuntimeError("no light")


Picky.prepare = Ether().sync(topic="prepare_trial")(Picky.prepare)  # type: ignore[method-assign]


def test_an_instance_that_dies_spoils_its_trial_only(tapped: Tapped) -> None:
    ether = tapped(stage=part("Stage", restart="always"))

    def body(trial: Any, doomed: int) -> None:
        ether.get("stage", "whereabouts")
        if trial.number == doomed and not trial.repeated:
            before = _ready_pid(ether, "stage")
            ether.get_later("stage", "die")
            _soon(lambda: _ready_pid(ether, "stage") not in (None, before))

    with ether.run("r") as run:
        for trial in run.trials(4, again=1):
            body(trial, 2)
    state = state_of(ether, run)
    assert (state.status, state.done, state.repeated) == ("ended", [1, 2, 3, 4], [2])
    found = [(r.value["n"], r.trial, r.attempt) for r in ether.data(topic="stage", run="r", trial="all")]
    assert found == [(1, 1, 1), (2, 2, 2), (3, 3, 1), (4, 4, 1)]
    run = ether.run("s")
    with run, pytest.raises(TrialDisturbed, match="stage died during it"):
        [body(trial, 3) for trial in run.trials(4)]
    assert state_of(ether, run).done == [1, 2]


def test_an_instance_that_dies_while_a_trial_begins_is_waited_for_and_prepared(
    tapped: Tapped, monkeypatch: pytest.MonkeyPatch
) -> None:
    ether = tapped(stage=part("Stage", restart="always"))
    retag, gone = Run.retag, threading.Event()
    ether.on_change(lambda told: gone.set() if (told["name"], told["state"]) == ("stage", "restarting") else None)

    def retag_after_a_death(run: Run, trial: int | None, *rest: Any) -> None:
        if trial == 2 and not gone.is_set():  # the stage was there a moment ago, so the trial was allowed to begin
            ether.get_later("stage", "die")
            assert gone.wait(patience(20))
        retag(run, trial, *rest)

    monkeypatch.setattr(Run, "retag", retag_after_a_death)
    with ether.run("r") as run:
        for trial in run.trials(3):
            assert trial.prepared == {"stage": trial.number}
            assert ether.get("stage", "whereabouts") == {"n": trial.number}
    state = state_of(ether, run)
    assert (state.status, state.done, state.repeated) == ("ended", [1, 2, 3], [])
    found = [(r.value["n"], r.trial, r.attempt) for r in ether.data(topic="stage", run="r", trial="all")]
    assert found == [(1, 1, 1), (2, 2, 1), (3, 3, 1)]


def _ready_pid(ether: Ether, name: str) -> object:
    return next((m.get("pid") for m in ether.instances() if m["name"] == name and m["state"] == "ready"), None)


def test_scans_set_and_read_back(tapped: Tapped) -> None:
    ether = tapped(stage=part("Stage"))
    stage = ether.instance("stage")
    with ether.run("scan") as run:
        found = [
            (t.condition, round(t.readback, 6)) for t in run.scan(stage.move, [1.0, 2.0], read=stage.read, within=0.01)
        ]
        grid = run.scan(stage.move, {"x": [1.0, 2.0], "y": [1.0, 2.0]}, read=stage.read)
        places = [round(t.readback) for t in grid]
    assert found == [(1.0, 1.001), (2.0, 2.001)]
    assert places == [11, 21, 12, 22]
    told = [(e["trial"], e["asked"], round(e["readback"])) for e in events(ether, run) if e["event"] == "set"]
    assert told[1:3] == [(2, 2.0, 2), (3, {"x": 1.0, "y": 1.0}, 11)]
    with pytest.raises(ReadbackDiffers, match=r"1\.0 was set and 1\.001 read back"), ether.run("scan") as run:
        next(run.scan(stage.move, [1.0], read=stage.read, within=0.0001))
    with pytest.raises(RuntimeError, match="beyond the end of the rail"), ether.run("scan") as run:
        next(run.scan(stage.refuse, [7.0]))


@contextmanager
def repeated(ether: Ether, topic: str, *values: object) -> Iterator[None]:
    """These values, again and again: when somebody begins to wait for them cannot be seen from outside."""
    enough = threading.Event()

    def publish() -> None:
        while not enough.wait(0.05):
            for value in values:
                ether.pub(value, topic=topic)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def test_waiting_for_a_condition(tapped: Tapped) -> None:
    ether = tapped()
    with repeated(ether, "temp", 36.0, 37.0, 38.5):
        assert ether.wait_for("temp", lambda t: t > 37, timeout_s=20) == 38.5
    with pytest.raises(ConditionNotMet, match=r"on 'cold' met the condition within 0\.2 s: none came at all") as none:
        ether.wait_for("cold", lambda t: t > 37, timeout_s=0.2)
    assert isinstance(none.value, TimeoutError)
    with repeated(ether, "words", "warm"), pytest.raises(TypeError) as wrong:
        ether.wait_for("words", lambda t: t > 37, timeout_s=20)
    assert "the message on 'words': 'warm'" in wrong.value.__notes__[0]


def test_a_run_is_held_up_by_an_interlock_and_by_people(tapped: Tapped) -> None:
    ether = tapped()
    with pytest.raises(NoRunHere):
        ether.pause_run()
    other = Ether()
    other.tap(session=ether.session_id, broker=ether.broker_url)
    bodies: list[int] = []
    with ether.run("held", suspend_while={"door": "open", "beam": lambda current: current < 10}) as run:

        def held(by: str) -> None:
            _soon(lambda: by in run.held_up_by)

        def measure() -> None:
            for trial in run.trials(3):
                bodies.append(trial.number)
                if trial.number == 1:
                    first.set()
                    assert go_on.wait(patience(20))

        first, go_on = threading.Event(), threading.Event()
        thread = threading.Thread(target=measure)
        thread.start()
        assert first.wait(patience(20))
        ether.pub("open", topic="door")
        held("door is 'open'")  # before the next: each topic has a thread of its own
        ether.pub(3, topic="beam")
        held("door is 'open'; beam is 3")
        assert other.pause_run("lunch") == "held/1"
        go_on.set()
        _soon(lambda: any(event["event"] == "suspend" for event in events(ether, run)))
        ether.pub("shut", topic="door")
        ether.pub(20, topic="beam")
        _soon(lambda: run.held_up_by == "paused: lunch")
        assert bodies == [1]
        other.resume_run()
        thread.join(patience(20))
    other.shutdown()
    assert bodies == [1, 2, 3]
    (suspended,) = [event for event in events(ether, run) if event["event"] == "suspend"]
    assert "door is 'open'" in suspended["why"]
    (went_on,) = [event for event in events(ether, run) if event["event"] == "goes-on"]
    assert went_on["waited_s"] > 0


def test_a_run_is_stopped_by_another_program_and_resumed_behind_its_trials(tapped: Tapped) -> None:
    ether = tapped()
    done: list[int] = []
    with Ether() as other:
        other.tap(session=ether.session_id, broker=ether.broker_url)

        def measure() -> str:
            with ether.run("cut", resume=True) as run:
                for trial in run.trials(5):
                    done.append(trial.number)
                    if done == [1, 2]:
                        other.pause_run("first")
                        other.stop_run("smoke")
            return run.id

        with pytest.raises(RunStopped, match="smoke") as stopped:
            measure()
        assert done == [1, 2]
        assert ether.runs(session=ether.session_id)[-1].status == "interrupted"
        assert measure() == stopped.value.run
    assert done == [1, 2, 3, 4, 5]


def _soon(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    pause = threading.Event()
    for _ in range(int(patience(timeout_s) / 0.02)):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError("it did not become so")


def test_progress_is_drawn_with_the_time_that_is_left(tapped: Tapped, monkeypatch: pytest.MonkeyPatch) -> None:
    ether = tapped()
    shown = io.StringIO()
    with ether.run("bar", progress=True) as run:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", shown)
            trials = run.trials(4)
        for trial in trials:
            threading.Event().wait(0.6 if trial.number == 1 else 0)
    lines = shown.getvalue().splitlines()
    (took_s,) = [e["took_s"] for e in events(ether, run) if e["event"] == "trial-end" and e["trial"] == 1]
    assert took_s >= 0.6
    assert any(f"1 of 4 trials, {duration_text(3 * took_s)} left" in line for line in lines), lines
    assert lines[-1].endswith("100 % 4 of 4 trials")
