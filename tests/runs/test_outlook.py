"""How long a run will take is said from the trials that are done, and from nothing else."""

from __future__ import annotations

from ether.protocol.run_record import Attempts, RunState, TrialPlan
from ether.runs.outlook_rules import outlook


def _state(seconds: list[float], planned: int, **plan: bool) -> RunState:
    trials = {number: Attempts(1, 1, False, took) for number, took in enumerate(seconds, 1)}
    row = TrialPlan(1, tuple(range(1, planned + 1)), tuple(range(planned)), **plan)
    return RunState("dose/1", "dose", plans=(row,), trials=trials)


def test_the_time_left_is_the_median_for_each_trial_that_is_left() -> None:
    found = outlook(_state([1.0, 2.0, 9.0], 10))
    assert (found.done, found.planned, found.left_s, found.trial_s) == (3, 10, 14.0, 2.0)
    assert (found.shortest_s, found.longest_s, found.measured) == (1.0, 9.0, 3)


def test_nothing_is_said_before_a_trial_is_done() -> None:
    assert outlook(_state([], 10)).left_s is None


def test_nothing_is_said_where_nobody_knows_how_many_there_will_be() -> None:
    found = outlook(_state([1.0], 3, drawn=True, complete=False))
    assert (found.planned, found.left_s) == (None, None)
