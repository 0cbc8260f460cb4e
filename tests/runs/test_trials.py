"""What a run's facts decide: order, what is next, which attempt counts."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ether.protocol.run_record import Attempts, RunState, TrialPlan, replay
from ether.runs.trial_rules import (
    conditions_of,
    difference,
    duration_text,
    grid_of,
    left_of,
    make_plan,
    seconds_left,
)
from ether.wire.run_ids import is_run_id, latest, next_id

Fact = tuple[str, float, dict[str, Any]]


def fact(at: float, event: str, **said: Any) -> Fact:
    topic = "dose/1" if event in ("begin", "end") else "dose/1/trials"
    return topic, at, {"event": event, **said}


def test_an_order_is_that_of_its_seed() -> None:
    plan = make_plan(1, "abcdefgh", "random", 7)
    assert plan == make_plan(1, "abcdefgh", "random", 7)
    assert plan.order != make_plan(1, "abcdefgh", "random", 8).order
    assert sorted(plan.order) == list(range(1, 9))
    assert plan.condition(3) == "c"
    assert make_plan(5, [0, 0], "given", 7) == TrialPlan(5, (5, 6), (0, 0), None)
    with pytest.raises(ValueError, match="did you mean 'random'"):
        make_plan(1, [1], "randum", None)


def test_what_conditions_can_be() -> None:
    assert conditions_of(2) == [None, None]
    assert conditions_of(x for x in (1, 2)) == [1, 2]
    for wrong in ("abc", True, {"a": 1}):
        with pytest.raises(TypeError, match="a number or a list"):
            conditions_of(wrong)
    with pytest.raises(ValueError, match="-1"):
        conditions_of(-1)


def test_grids() -> None:
    assert grid_of({"x": [1, 2], "y": [3, 4]}, "grid") == [
        {"x": 1, "y": 3}, {"x": 1, "y": 4}, {"x": 2, "y": 3}, {"x": 2, "y": 4},
    ]  # fmt: skip
    assert grid_of({"x": [1, 2], "y": [3, 4]}, "zip") == [{"x": 1, "y": 3}, {"x": 2, "y": 4}]
    with pytest.raises(ValueError, match="x has 1, y has 2"):
        grid_of({"x": [1], "y": [3, 4]}, "zip")
    with pytest.raises(ValueError, match="'spiral'"):
        grid_of({}, "spiral")


@given(st.integers(1, 12), st.integers(0, 40), st.randoms(use_true_random=False))
def test_whatever_dies_when_no_trial_is_skipped_and_none_counts_twice(
    trials: int, deaths: int, chance: random.Random
) -> None:
    """A program that dies between any two facts and goes on does each trial; a death repeats one at most."""
    facts: list[Fact] = [
        fact(0, "begin", metadata={}),
        fact(0, "plan", **make_plan(1, [None] * trials, "random", 1).to_value()),
    ]
    lives, ran = 0, []
    while True:
        state = replay(facts)["dose/1"]
        steps = [
            step
            for number, attempt in left_of(state.plans[0], state.trials)
            for step in (
                fact(0, "trial", trial=number, attempt=attempt),
                fact(0, "trial-end", trial=number, attempt=attempt, status="done"),
            )
        ]
        dies = lives < deaths
        done = steps[: chance.randrange(len(steps) + 1)] if dies else steps
        ran += [step for step in done if step[2]["event"] == "trial"]
        late = [step for step in done[-1:] if dies and step[2]["event"] == "trial-end" and chance.random() < 0.3]
        facts += done[: len(done) - len(late)]
        facts += late if chance.random() < 0.5 else []  # it came after all, or its outbox is lost
        lives += 1
        if not dies:
            break
    state = replay(facts)["dose/1"]
    assert sorted(state.done) == list(range(1, trials + 1))
    assert state.all_done
    assert len(ran) <= trials + lives
    assert sum(attempts.tried for attempts in state.trials.values()) == len(
        {(r[2]["trial"], r[2]["attempt"]) for r in ran}
    )


@pytest.mark.parametrize("ended", [691_201.0, -691_201.0, 1.0])
def test_a_trial_took_what_it_took_whatever_its_clock_did_meanwhile(ended: float) -> None:
    facts = [fact(0, "begin"), fact(1, "trial", trial=1, attempt=1)]
    by_clock = fact(int(ended), "trial-end", trial=1, attempt=1, status="done")
    assert replay([*facts, by_clock])["dose/1"].trials[1].seconds == max(0.0, ended - 1.0)
    measured = fact(int(ended), "trial-end", trial=1, attempt=1, status="done", took_s=0.25)
    assert replay([*facts, measured])["dose/1"].trials[1].seconds == 0.25


def test_the_end_of_a_dead_program_may_come_late() -> None:
    facts = [
        fact(0, "begin"), fact(0, "plan", **make_plan(1, [None], "given", None).to_value()),
        fact(1, "trial", trial=1, attempt=1), fact(2, "trial", trial=1, attempt=2),
        fact(3, "trial-end", trial=1, attempt=1, status="done"),
    ]  # fmt: skip
    assert replay(facts)["dose/1"].trials == {1: Attempts(2, 1, True, 2.0)}
    facts.append(fact(4, "trial-end", trial=1, attempt=2, status="done"))
    assert replay(facts)["dose/1"].trials == {1: Attempts(2, 2, False, 2.0)}


def test_a_runs_state_goes_through_a_message() -> None:
    facts = [
        fact(0, "begin", metadata={"compound": "A"}, owner={"pid": 7}, turn=1),
        fact(0, "plan", **make_plan(1, [0.1, 0.3], "random", 7).to_value()),
        fact(1, "trial", trial=2, attempt=1, turn=4), fact(2, "trial-end", trial=2, attempt=1, status="failed"),
        fact(3, "end", status="failed", error="KeyError: 'x'"), fact(4, "begin", resumed=True, owner={"pid": 8}),
    ]  # fmt: skip
    facts.append(("20250116-112800-abcdef", 5, {"event": "begin"}))
    (state,) = replay(facts).values()
    assert RunState.from_value(state.to_value()) == state
    assert (state.status, state.resumed, state.owner, state.turn) == ("running", 1, {"pid": 8}, 4)
    assert (state.done, state.planned, state.repeated, state.all_done) == ([], 2, [], False)
    assert list(left_of(state.plans[0], state.trials))[0 if state.plans[0].order[0] == 2 else 1] == (2, 2)


def test_ids() -> None:
    assert is_run_id("dose/1")
    assert not is_run_id("dose")
    assert not is_run_id("/1")
    assert not is_run_id("20250116-112800-abcdef")
    assert next_id("dose", ["dose/9", "dose/10", "dosage/12"]) == "dose/11"
    assert next_id("dose", []) == "dose/1"
    assert latest("dose", ["dose/9", "dose/10"]) == "dose/10"


def test_differences_and_times_are_told() -> None:
    assert difference([1, 2], [1, 2]) == ""
    assert difference([1, 2], [1]) == "it has 2 trials, and 1 were given"
    assert difference([1, 2], [1, 3]) == "condition 2 was 2, and is 3 now"
    assert seconds_left([1.0, None, 3.0], 5) == 10.0
    assert seconds_left([], 5) is None
    assert seconds_left([], 0) == 0.0
    assert [duration_text(s) for s in (3.6, 80, 7500)] == ["4 s", "1 min 20 s", "2 h 5 min"]
