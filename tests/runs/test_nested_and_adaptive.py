"""Trials inside of trials, conditions that are drawn or adapt to results, and trials that are repeated because an
instance died in a call of their body: in one program, resumed in the same session. Kills of the program are in
test_adaptive_chaos.py."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands_here import ether_here
from patience import patience

from ether import Ether
from ether.cli.runs.runs import _shown
from ether.errors import EncodeError, InstanceLost, LifecycleFailed, RunDiffers, TrialDisturbed
from ether.protocol.run_record import RunState
from ether.runs.run import Run
from ether.runs.trial import Trial


@contextmanager
def session(name: str, folder: Path) -> Iterator[Ether]:
    own = Ether()
    restart = {"restart": "always", "restart_limit": 100}
    own.tap({
        "session": name, "broker": {"engine": "amqtt"}, "record": {"topics": "all", "folder": str(folder)},
        "instances": {name: {"class_path": f"run_parts.{name.title()}", **restart} for name in ("reader", "stage")},
    })  # fmt: skip
    yield own
    try:
        own.shutdown()
    except LifecycleFailed:
        pass  # what was killed on purpose cannot be asked


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ether]:
    with session("adaptive-tests", tmp_path_factory.mktemp("adaptive") / "ledger") as own:
        yield own


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Ether]:
    """A session of one test alone, which kills instances."""
    with session("mortal-tests", tmp_path / "ledger") as own:
        yield own


def state_of(lab: Ether, run: Run) -> RunState:
    (told,) = lab.get("recorder", "runs", {"run": run.id})
    return RunState.from_value(told)


def events(lab: Ether, run: Run, event: str) -> list[dict[str, Any]]:
    return [record.value for record in lab.data(run=run.id, kinds=("run",)) if record.value["event"] == event]


def shown(lab: Ether, run: Run) -> dict[str, Any]:
    told = ether_here(Path.cwd(), "runs", str(lab.session_id), "--json")
    assert told.code == 0, told
    return next(row for row in told.json if row["run"] == run.id)


def resume(lab: Ether, name: str, begin: Callable[[Run], object]) -> Run:
    """Go on with a run, without bodies."""
    with lab.run(name, resume=True) as run:
        begin(run)
    return run


class Cut(Exception):
    """Ends a body, as a death would."""


def until_done(attempt: Callable[[int | None], None], cuts: list[int]) -> None:
    """Call it with where it is cut, as often as there are cuts, and once to the end."""
    for cut in cuts:
        with pytest.raises(Cut):
            attempt(cut)
    attempt(None)


# -- V3: nested


def test_v3_nested_trials_resume_where_they_were_cut(lab: Ether) -> None:
    """The reproducer: outer [0, 1, 2] by inner [0, 5], cut in the fourth inner trial."""

    def experiment(stop_at: int | None = None) -> list[tuple[int, int]]:
        done: list[tuple[int, int]] = []
        with lab.run("v3-nested", resume=True) as run:
            runs.append(run)
            for outer in run.trials([0, 1, 2]):
                for inner in run.trials([0, 5]):
                    if len(done) == stop_at:
                        raise KeyboardInterrupt
                    done.append((outer.condition, inner.condition))
        return done

    runs: list[Run] = []
    with pytest.raises(KeyboardInterrupt):
        experiment(stop_at=3)
    assert experiment() == [(1, 5), (2, 0), (2, 5)]
    state = state_of(lab, runs[-1])
    assert (state.status, state.planned, len(state.done), state.all_done) == ("ended", 9, 9, True)
    assert experiment() == []


def test_nested_trials_have_numbers_data_and_rows_of_their_own(lab: Ether) -> None:
    order: list[str] = []
    with lab.run("nested-data") as run:
        for outer in run.trials(["a", "b"]):
            lab.record({"at": outer.condition}, name="nested-data")
            for inner in run.trials(["x", "y"], prepare=None):
                assert inner.within is outer
                for third in run.trials(1, prepare=None):
                    order.append(f"{outer.condition}{inner.condition}")
                    lab.record({"at": order[-1], "n": third.number}, name="nested-data")
            lab.record({"at": f"{outer.condition} after"}, name="nested-data")
    state = state_of(lab, run)
    assert order == ["ax", "ay", "bx", "by"]
    assert [(plan.first, plan.within and plan.within[0]) for plan in state.plans] == [
        (1, None), (3, 1), (5, 3), (6, 4), (7, 2), (9, 7), (10, 8),
    ]  # fmt: skip
    by_trial = {r.value["at"]: r.trial for r in lab.data(topic="nested-data", run=run.id)}
    assert by_trial == {"a": 1, "ax": 5, "ay": 6, "a after": 1, "b": 2, "bx": 9, "by": 10, "b after": 2}
    of_a = [r.value["at"] for r in lab.data(topic="nested-data", run=run.id, trial=1)]
    assert of_a == ["a", "ax", "ay", "a after"]
    assert [r.value["at"] for r in lab.data(topic="nested-data", run=run.id, trial=[4, 2])] == [
        "ay", "b", "bx", "by", "b after",
    ]  # fmt: skip
    assert len(list(lab.data(topic="nested-data", run=run.id, trial="all"))) == 8
    row = shown(lab, run)
    assert (row["trials"], row["trials_done"], row["nested"], row["nested_done"]) == (10, 10, 8, 8)
    assert _shown(row)["done"] == "2 of 2, inside 8 of 8"
    assert _shown({**row, "complete": False, "nested": 0, "nested_done": 0})["done"] == "10 of 10 so far"
    within = {event["trial"]: event.get("within") for event in events(lab, run, "trial")}
    assert within == {1: None, 2: None, 3: [1, 1], 4: [1, 1], 5: [3, 1], 6: [4, 1], 7: [2, 1], 8: [2, 1],
                      9: [7, 1], 10: [8, 1]}  # fmt: skip


def test_each_nested_trial_is_done_once_wherever_it_was_cut(lab: Ether) -> None:
    """Three levels, two rows at the second one, random orders, cut three times in the middle of a body."""
    begun: Counter[tuple[Any, ...]] = Counter()
    runs: list[Run] = []

    def attempt(cut: int | None) -> None:
        def body(*conditions: Any) -> None:
            nonlocal bodies
            begun[conditions] += 1
            if bodies == cut:
                raise Cut
            bodies += 1

        bodies = 0
        with lab.run("nested-cuts", resume=True) as run:
            runs.append(run)
            for a in run.trials(2, order="random", prepare=None):
                for b in run.trials([1, 2], order="random", prepare=None):
                    body(a.number, b.condition)
                for c in run.trials(iter([3]), prepare=None):
                    for d in run.trials([4, 5], prepare=None):
                        body(a.number, c.condition, d.condition)

    until_done(attempt, [1, 2, 1])
    assert set(begun) == {(a, b) for a in (1, 2) for b in (1, 2)} | {(a, 3, d) for a in (1, 2) for d in (4, 5)}
    assert sum(begun.values()) == 8 + 3
    assert state_of(lab, runs[-1]).all_done


def test_a_loop_that_was_left_by_break_is_not_around_the_next_one(lab: Ether) -> None:
    with lab.run("broken-loops") as run:
        for trial in run.trials(5, prepare=None):
            if trial.number == 2:
                break
        for _ in run.trials(2, prepare=None):
            pass
        for trial in run.trials(2, prepare=None):
            with trial:
                pass
            break
    state = state_of(lab, run)
    assert [(plan.first, plan.within) for plan in state.plans] == [(1, None), (6, None), (8, None)]
    assert (state.status, state.done) == ("left", [1, 6, 7, 8])  # the end of a with block is the end of its trial


def test_what_comes_after_an_inner_trial_that_failed_belongs_to_the_outer_one(lab: Ether) -> None:
    with lab.run("inner-failure") as run:
        for outer in run.trials(2, prepare=None):
            with outer:
                for inner in run.trials(2, prepare=None):
                    try:
                        with inner:
                            lab.record("inner", name="inner-failure")
                            raise Cut
                    except Cut:
                        lab.record("outer", name="inner-failure")
                for _ in run.trials(2, prepare=None):
                    break
                for _ in run.trials(1, prepare=None):
                    pass
                lab.record("end", name="inner-failure")
        lab.record("outside", name="inner-failure")
    found = [(r.value, r.trial) for r in lab.data(topic="inner-failure", run=run.id)]
    inside = [("inner", 3), ("outer", 1), ("inner", 4), ("outer", 1), ("end", 1)]
    inside += [("inner", 8), ("outer", 2), ("inner", 9), ("outer", 2), ("end", 2)]
    assert found == [*inside, ("outside", None)]
    assert state_of(lab, run).done == [1, 2, 7, 12]


def test_a_break_inside_leaves_the_outer_trial_whole(lab: Ether) -> None:
    with lab.run("inner-break") as run:
        for _ in run.trials(2, prepare=None):
            for inner in run.trials(3, prepare=None):
                if inner.place == 2:
                    break
    state = state_of(lab, run)
    assert (state.status, state.done, state.planned) == ("ended", [1, 2, 3, 6], 8)
    with lab.run("inner-break", resume=True) as again:
        assert list(again.trials(2, prepare=None)) == []


def test_an_instance_that_dies_inside_repeats_the_inner_trial_alone(mortal: Ether) -> None:
    bodies: list[tuple[int, int]] = []
    with mortal.run("inner-death") as run:
        for outer in run.trials(2):
            for inner in run.trials([10, 20], again=1):
                bodies.append((outer.number, inner.condition))
                with inner:
                    if len(bodies) == 2:
                        mortal.get("reader", "die")
                    mortal.get("reader", "read", {"n": 1})
    assert bodies == [(1, 10), (1, 20), (1, 20), (2, 10), (2, 20)]
    state = state_of(mortal, run)
    assert (state.status, len(state.done), state.repeated) == ("ended", 6, [4])


# -- V3: drawn one by one


def test_v3_a_generator_is_asked_when_its_turn_comes(lab: Ether) -> None:
    """The reproducer: the step depends on the first result."""
    step = 0.5

    def points() -> Iterator[float]:
        point = 0.0
        while point < 1.0:
            yield point
            point += step

    seen = []
    with lab.run("v3-adaptive") as run:
        for trial in run.trials(points(), prepare=None):
            step = 0.1
            seen.append(round(trial.condition, 2))
            assert len(events(lab, run, "draw")) == trial.number  # on disk before the body
            assert trial.of is None
    assert seen == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0][: len(seen)]
    assert len(seen) >= 10
    assert state_of(lab, run).complete


def test_drawn_conditions_are_drawn_again_when_a_run_is_resumed(lab: Ether) -> None:
    drawn: list[int] = []
    bodies: list[int] = []
    runs: list[Run] = []

    def squares(of: int) -> Iterator[int]:
        for number in range(of):
            drawn.append(number)
            yield number * number

    def attempt(cut: int | None) -> None:
        with lab.run("drawn-again", resume=True) as run:
            runs.append(run)
            for trial in run.trials(squares(5), prepare=None):
                bodies.append(trial.condition)
                if trial.number == cut:
                    raise Cut

    until_done(attempt, [2, 4])
    assert bodies == [0, 1, 1, 4, 9, 9, 16]
    assert drawn == [0, 1, 0, 1, 2, 3, 0, 1, 2, 3, 4]
    with pytest.raises(RunDiffers, match="5 conditions were drawn in all, and now there are more"):
        resume(lab, "drawn-again", lambda run: run.trials(squares(6)))
    with pytest.raises(RunDiffers, match="5 conditions were drawn, and now there are 4"):
        resume(lab, "drawn-again", lambda run: run.trials(squares(4)))
    with pytest.raises(RunDiffers, match="condition 1 was 0, and is 7 now"):
        resume(lab, "drawn-again", lambda run: run.trials(iter([7, 8, 9, 10, 11])))
    assert state_of(lab, runs[-1]).status == "ended"  # looked at in vain, and not changed by it


def test_functions_are_drawn_from_until_none_and_no_order_is_pretended(lab: Ether) -> None:
    left = [3, 2, 1]
    with lab.run("function") as run:
        trials = run.trials(lambda: left.pop() if left else None, prepare=None)
        with pytest.raises(TypeError, match="is not known"):
            len(trials)
        assert [trial.condition for trial in trials] == [1, 2, 3]
        assert len(trials) == 0
        with pytest.raises(ValueError, match=r"order='random' needs all conditions .* list\(…\)"):
            run.trials((n for n in range(3)), order="random")
        with pytest.raises(ValueError, match="order='snake' needs a grid"):
            run.trials([1, 2, 3], order="snake")


# -- V3: adaptive


class Bisection:
    """Finds where a result changes its sign, with ask and tell."""

    def __init__(self) -> None:
        self.low, self.high = 0.0, 8.0
        self.told: list[tuple[float, float]] = []

    def ask(self) -> float | None:
        return None if self.high - self.low < 0.5 else (self.low + self.high) / 2

    def tell(self, condition: float, result: float) -> None:
        self.told.append((condition, result))
        if result > 0:
            self.high = condition
        else:
            self.low = condition


def bisected() -> Iterator[float]:
    strategy = Bisection()
    while (point := strategy.ask()) is not None:
        strategy.tell(point, (yield point))  # type: ignore[misc]


def bisect(history: list[tuple[float, float]]) -> float | None:
    strategy = Bisection()
    for condition, result in history:
        strategy.tell(condition, result)
    return strategy.ask()


POINTS = [4.0, 2.0, 3.0, 3.5, 3.25]


@pytest.mark.parametrize("form", [Bisection, bisected, lambda: bisect], ids=["ask-tell", "generator", "function"])
def test_a_strategy_is_told_each_result_also_when_it_is_resumed(
    lab: Ether, form: Callable[[], Any], request: pytest.FixtureRequest
) -> None:
    bodies: list[float] = []
    name = f"adapt-{request.node.callspec.id}"
    runs: list[Run] = []

    def attempt(cut: int | None) -> None:
        with lab.run(name, resume=True) as run:
            runs.append(run)
            for trial in run.adapt(form(), prepare=None):
                bodies.append(trial.condition)
                if trial.number == cut:
                    raise Cut
                trial.result = trial.condition - 3.3

    until_done(attempt, [1, 3, 4])
    assert bodies == [4.0, 4.0, 2.0, 3.0, 3.0, 3.5, 3.5, 3.25]
    state = state_of(lab, runs[-1])
    assert (state.status, list(state.plans[0].conditions), state.complete) == ("ended", POINTS, True)
    assert [state.trials[n].result for n in (1, 2)] == pytest.approx([0.7, -1.3])
    attempt(None)
    assert len(bodies) == 8


def test_a_strategy_that_draws_anew_is_told_what_was_done(lab: Ether, caplog: pytest.LogCaptureFixture) -> None:
    class Random(Bisection):
        def ask(self) -> float | None:
            return None if len(self.told) == 3 else float.fromhex(os.urandom(4).hex())

        def tell(self, condition: float, result: Any) -> None:
            self.told.append((condition, result))

    lives: list[Random] = []
    bodies: list[float] = []

    def attempt(cut: int | None) -> None:
        lives.append(Random())
        with lab.run("adapt-random", resume=True) as run:
            for trial in run.adapt(lives[-1], prepare=None):
                bodies.append(trial.condition)
                if trial.number == cut:
                    raise Cut
                trial.result = (trial.number, "a")

    until_done(attempt, [3])
    assert bodies[2] == bodies[3]  # the condition that was drawn is the one that is repeated
    assert lives[1].told == [(bodies[n], [n + 1, "a"]) for n in (0, 1, 3 - 1)]
    assert lives[0].told == lives[1].told[:2]
    assert sum("asks for another condition" in record.getMessage() for record in caplog.records) == 1

    def other() -> Iterator[float]:
        yield 99.0

    with pytest.raises(RunDiffers, match=r"condition 1 was .*, and is 99\.0 now"):
        resume(lab, "adapt-random", lambda run: run.adapt(other()))


def test_what_cannot_be_asked_says_so(lab: Ether) -> None:
    def failing(history: list[Any]) -> float:
        raise ZeroDivisionError("no slope")

    with lab.run("not-asked") as run:
        for wrong in ([1, 2], bisected, Bisection):
            with pytest.raises(TypeError, match="a strategy is an object with ask"):
                run.adapt(wrong)
        with pytest.raises(ZeroDivisionError) as caught:
            next(run.adapt(failing))
        assert "drew the condition after 0 others" in caught.value.__notes__[0]
    with pytest.raises(EncodeError) as unheard:
        resume(lab, "not-recorded", lambda run: run.each(lambda trial: lab, 1, prepare=None))
    assert "in trial.result or trial.state of trial 1 of run 'not-recorded/1'" in unheard.value.__notes__


# -- scans


def test_a_snake_and_two_devices(lab: Ether) -> None:
    stage = lab.instance("stage")
    asked: list[tuple[str, float]] = []

    def set_power(value: float) -> None:
        asked.append(("mW", value))

    def move(value: float) -> None:
        stage.move(value)
        asked.append(("x", value))

    grid = {"mW": [5, 6], "x": [1, 2, 3]}
    with lab.run("two-devices") as run:
        scan = run.scan(
            {"mW": set_power, "x": move}, grid, order="snake", read={"x": stage.read}, within={"x": 0.1}, prepare=None
        )
        seen = [(t.number, t.condition["mW"], t.condition["x"], round(t.readback["x"])) for t in scan]
    assert seen == [(1, 5, 1, 1), (2, 5, 2, 2), (3, 5, 3, 3), (6, 6, 3, 3), (5, 6, 2, 2), (4, 6, 1, 1)]
    assert asked[:4] == [("mW", 5), ("x", 1), ("mW", 5), ("x", 2)]
    with lab.run("two-devices-wrong") as run:
        with pytest.raises(ValueError, match="the setters are of mW, and the values of mW, x"):
            run.scan({"mW": set_power}, grid)
        with pytest.raises(ValueError, match="order='snake' needs a grid"):
            run.scan(stage.move, {"x": [1], "y": [2]}, by="zip", order="snake")
        scan = run.scan(stage.move, run.adapt(bisected(), prepare=None), read=stage.read)
        for trial in scan:
            trial.result = trial.readback - 3.3
        assert [trial["asked"] for trial in events(lab, run, "set")] == POINTS


# -- P4


def test_p4_a_trial_is_repeated_whose_instance_died_in_a_call_of_the_body(mortal: Ether) -> None:
    """The reproducer, in the two forms that can do it."""
    seen: list[tuple[int, int]] = []

    def body(trial: Trial) -> int:
        seen.append((trial.number, trial.attempt))
        if trial.condition == 3 and not trial.repeated:
            mortal.get("reader", "die")
        return int(mortal.get("reader", "read", {"n": trial.condition}))

    with mortal.run("p4-with") as run:
        for trial in run.trials([1, 2, 3, 4], again=3):
            with trial:
                trial.result = body(trial)
    assert seen == [(1, 1), (2, 1), (3, 1), (3, 2), (4, 1)]
    state = state_of(mortal, run)
    assert (state.status, state.done, state.repeated) == ("ended", [1, 2, 3, 4], [3])
    (disturbed,) = [event for event in events(mortal, run, "trial-end") if event["status"] == "disturbed"]
    assert disturbed["died"] == ["reader"]
    assert "reader died while it was working on" in disturbed["error"]
    with mortal.run("p4-each") as run:
        assert run.each(body, [1, 2, 3, 4], again=1) == [1, 2, 3, 4]
    assert state_of(mortal, run).repeated == [3]
    _siblings_of_p4(mortal)


def _siblings_of_p4(mortal: Ether) -> None:
    """A setter that dies, and a death of which the body says nothing."""
    reader, died = mortal.instance("reader"), []

    def setter(n: int) -> None:
        if n == 2 and not died:
            died.append(n)
            mortal.get("reader", "die")
        reader.read(n)

    with mortal.run("p4-scan") as run:
        assert [(t.condition, t.attempt) for t in run.scan(setter, [1, 2, 3], again=1)] == [(1, 1), (2, 2), (3, 1)]
    silent: list[int] = []

    def silently(trial: Trial) -> None:
        silent.append(trial.number)
        if trial.number == 1 and not trial.repeated:
            with pytest.raises(InstanceLost):
                mortal.get("reader", "die")

    with mortal.run("p4-silent") as run:
        run.each(silently, 2, again=1)
    assert silent == [1, 1, 2]
    with pytest.raises(TrialDisturbed), mortal.run("p4-silent-once") as run:
        run.each(silently, 2)


def test_p4_a_plain_loop_says_what_it_cannot_do_and_after_the_last_repetition_the_error_comes_out(
    mortal: Ether,
) -> None:
    run = mortal.run("p4-plain")

    def plain() -> None:
        with run:
            for trial in run.trials([1, 2], again=3):
                mortal.get("reader", "die" if trial.number == 2 else "read", {} if trial.number == 2 else {"n": 1})

    with pytest.raises(InstanceLost) as caught:
        plain()
    assert "with `for trial in run.trials(…, again=3):` and `with trial:`" in caught.value.__notes__[0]
    assert state_of(mortal, run).done == [1]
    with mortal.run("p4-plain", resume=True) as again:
        assert [(trial.number, trial.attempt) for trial in again.trials([1, 2])] == [(2, 2)]
    bodies: list[int] = []  # and where it can be repeated: after the last time the error comes out

    def dies(trial: Trial) -> None:
        bodies.append(trial.attempt)
        mortal.get("reader", "die")

    run = mortal.run("p4-over")
    with pytest.raises(InstanceLost) as caught, run:
        run.each(dies, 2, again=1)
    assert bodies == [1, 2]
    assert "again= says, which was 1" in caught.value.__notes__[0]
    assert (state_of(mortal, run).status, state_of(mortal, run).done) == ("failed", [])


def test_p4_only_a_death_repeats_a_trial(lab: Ether) -> None:
    bodies: list[int] = []

    def failing(run: Run) -> None:
        for trial in run.trials(3, again=3, prepare=None):
            with trial:
                bodies.append(trial.number)
                if trial.number == 2:
                    raise KeyError("no cell")

    with pytest.raises(KeyError):
        resume(lab, "p4-other", failing)
    assert bodies == [1, 2]
    with lab.run("p4-caught") as run:
        for trial in run.trials(3, again=3, prepare=None):
            try:
                with trial:
                    if trial.number == 2:
                        raise KeyError("no cell")
            except KeyError:
                continue
    state = state_of(lab, run)
    assert (state.status, state.done) == ("left", [1, 3])  # a failure that was caught is no trial that is done
    with lab.run("p4-caught", resume=True) as run:
        assert [trial.number for trial in run.trials(3, prepare=None)] == [2]


def test_p4_an_instance_that_only_seemed_to_hang_has_not_died(mortal: Ether) -> None:
    pid = next(member["pid"] for member in mortal.instances() if member["name"] == "reader")
    hung = threading.Event()
    mortal.on_change(lambda told: hung.set() if (told["name"], told["state"]) == ("reader", "hung") else None)
    go_on = threading.Timer(0.5, os.kill, (pid, signal.SIGCONT))
    with mortal.run("p4-hung") as run:
        for trial in run.trials(2):
            if trial.number == 1:
                os.kill(pid, signal.SIGSTOP)
                assert hung.wait(patience(20))
                go_on.start()
    go_on.join()
    state = state_of(mortal, run)
    assert (state.status, state.done, state.repeated) == ("ended", [1, 2], [])


# -- P6


def test_p6_a_finished_run_that_is_looked_at_again_keeps_its_facts(lab: Ether) -> None:
    def script() -> Run:
        with lab.run("p6", resume=True, sample=7) as run:
            for trial in run.trials(2, prepare=None):
                lab.record(trial.number, name="p6")
            lab.record("once", name="p6-summary")
        return run

    run = script()
    before, records = shown(lab, run), len(list(lab.data(run="p6/1", kinds=("run", "record"))))
    assert script().id == run.id
    with pytest.raises(Cut), lab.run("p6", resume=True):
        raise Cut
    with pytest.raises(RunDiffers):
        resume(lab, "p6", lambda run: run.trials(3))
    lab.flush()
    assert shown(lab, run) == before
    assert len(list(lab.data(run="p6/1", kinds=("run", "record")))) == records
    with lab.run("p6", resume=True) as more:  # a script that has grown
        more.trials(2, prepare=None)
        assert [trial.number for trial in more.trials(2, prepare=None)] == [3, 4]
    assert shown(lab, run)["trials_done"] == 4
    assert shown(lab, run)["resumed"] == 1
