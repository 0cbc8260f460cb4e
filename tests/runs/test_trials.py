"""What a run's facts decide: order, what is next, which attempt counts."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ether.protocol.run_record import Attempts, RunState, TrialPlan, replay
from ether.runs.trial_rules import (
    conditions_of,
    difference,
    drawn_from,
    duration_text,
    grid_of,
    left_of,
    make_plan,
    seconds_left,
    snake_places,
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


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_a_snake_changes_one_parameter_by_one_step(shape: list[int]) -> None:
    places = snake_places(shape)
    assert sorted(places) == list(range(math.prod(shape)))
    grid = list(itertools.product(*map(range, shape)))
    for before, after in itertools.pairwise(places):
        assert sum(abs(a - b) for a, b in zip(grid[before], grid[after], strict=True)) == 1
    plan = make_plan(3, grid, "snake", 7, shape)
    assert (plan.order[0], plan.seed) == (3, None)
    assert sorted(plan.order) == list(range(3, 3 + len(grid)))


def test_what_is_drawn_and_what_is_listed() -> None:
    for listed in (3, [1], (1,), range(3), {1: 2}, "abc"):
        assert drawn_from(listed, "random") is None
    for drawn in ((n for n in (1, 2)), iter([1, 2]), map(int, "12"), lambda left=[2, 1]: left.pop() if left else None):
        made = drawn_from(drawn, "given")
        assert made is not None
        assert list(made) == [1, 2]
    with pytest.raises(ValueError, match="order='random' needs all conditions"):
        drawn_from(iter([1]), "random")


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


# -- rows inside of trials, drawn conditions


def plan_fact(first: int, conditions: list[Any], turn: int = 1, **more: Any) -> Fact:
    return fact(0, "plan", turn=turn, **{**make_plan(first, conditions, "given", None).to_value(), **more})


def test_rows_are_found_by_their_place() -> None:
    facts = [
        plan_fact(1, [0, 1]), fact(1, "trial", trial=1, attempt=1), plan_fact(3, ["a"], within=[1, 1], nth=0),
        plan_fact(4, [], within=[1, 1], nth=1), plan_fact(4, ["b"], within=[3, 1], nth=0),
        fact(2, "trial", trial=4, attempt=1), fact(3, "trial-end", trial=4, attempt=1, status="done", result={"r": 1}),
    ]  # fmt: skip
    state = replay(facts)["dose/1"]
    assert [plan.key for plan in state.plans] == [(None, 0), (1, 0), (3, 0), (1, 1)]
    assert state.nested == {3: 1, 4: 3}
    assert (state.with_nested([1]), state.with_nested([2]), state.with_nested([3])) == ([1, 3, 4], [2], [3, 4])
    assert RunState.from_value(state.to_value()) == state
    assert state.trials[4].result == {"r": 1}
    assert RunState.from_value(state.to_value(results=False)).trials[4].result is None


def drawn_facts(*conditions: Any, turn: int = 1, first: int = 1) -> list[Fact]:
    return [
        fact(1, "draw", within=None, nth=0, trial=number, condition=condition, turn=turn)
        for number, condition in enumerate(conditions, first)
    ]


def test_drawn_conditions_are_gathered() -> None:
    plan = TrialPlan(1, (), (), drawn=True, complete=False)
    facts = [fact(0, "plan", turn=1, **plan.to_value()), *drawn_facts("a", "b")]
    state = replay(facts)["dose/1"]
    assert (state.plans[0].order, state.plans[0].conditions, state.complete) == ((1, 2), ("a", "b"), False)
    assert state.plans[0].condition(2) == "b"
    ended = fact(2, "plan-end", within=None, nth=0, of=2)
    assert replay([*facts, ended])["dose/1"].complete
    # a program that died had recorded that no more come, and its successor, which did not know it, has drawn one
    assert not replay([*facts, *drawn_facts("c", first=3, turn=20), ended])["dose/1"].complete
    assert RunState.from_value(state.to_value()) == state


@pytest.mark.parametrize("late_first", [True, False])
def test_what_the_later_program_recorded_is_what_happened(late_first: bool) -> None:
    """A fact of a program that died may come before or after those of its successor, which did not know it."""
    plan = TrialPlan(1, (), (), drawn=True, complete=False)
    begun = [fact(0, "plan", turn=1, **plan.to_value()), *drawn_facts("a")]
    dead, alive = drawn_facts("dead", first=2, turn=3), drawn_facts("alive", first=2, turn=14)
    state = replay([*begun, *(dead + alive if late_first else alive + dead)])["dose/1"]
    assert state.plans[0].conditions == ("a", "alive")
    dead, alive = [plan_fact(1, [1, 2], 3)], [plan_fact(1, [3, 4], 14)]
    state = replay(dead + alive if late_first else alive + dead)["dose/1"]
    assert [plan.conditions for plan in state.plans] == [(3, 4)]


def test_old_rows_get_their_place_from_the_order_of_the_facts() -> None:
    def old(first: int, conditions: list[Any]) -> Fact:
        value = {"first": first, "conditions": conditions, "seed": None}
        return fact(0, "plan", order=list(range(first, first + len(conditions))), **value)

    facts = [
        old(1, [0, 1]), fact(1, "trial", trial=1, attempt=1), old(3, [5]), fact(2, "trial", trial=3, attempt=1),
        fact(3, "trial-end", trial=3, attempt=1, status="done"),
        fact(4, "trial-end", trial=1, attempt=1, status="done"), fact(5, "trial", trial=2, attempt=1),
    ]  # fmt: skip
    assert [plan.key for plan in replay([*facts, old(4, [5])])["dose/1"].plans] == [(None, 0), (1, 0), (2, 0)]
    left = fact(7, "trial-end", trial=2, attempt=1, status="left")  # by `break`, before the row began
    assert [plan.key for plan in replay([*facts, old(4, [5]), left])["dose/1"].plans] == [(None, 0), (1, 0), (None, 1)]


def test_a_killed_run_took_as_long_as_it_recorded_something() -> None:
    facts = [fact(0, "begin"), plan_fact(1, [None]), fact(5, "trial", trial=1, attempt=1)]
    found = [fact(900, "trial-end", trial=1, attempt=1, status="aborted"), fact(901, "end", status="aborted")]
    before, after = replay(facts)["dose/1"], replay([*facts, *found])["dose/1"]
    assert (before.ended, before.last, after.status, after.ended) == (None, 5, "aborted", 5)
