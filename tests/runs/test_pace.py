"""When each message of a recording is due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ether.errors import QueryMistake
from ether.runs.pacing_rules import AT_ONCE, ReplayPacing, speed_of


def due(speed: float, *times: float) -> list[float]:
    pace = ReplayPacing(speed)
    return [pace.due_s(time) for time in times]


def test_the_rhythm_is_the_recordings_own_divided_by_the_speed() -> None:
    assert due(1, 100, 100.5, 103) == [0, 0.5, 3]
    assert due(10, 100, 105, 200) == [0, 0.5, 10]
    assert due(0.5, 100, 101) == [0, 2]
    assert due(AT_ONCE, 100, 101, 10_000) == [0, 0, 0]


def test_a_clock_that_was_set_back_delays_nothing() -> None:
    assert due(1, 100, 110, 105, 106, 111) == [0, 10, 10, 10, 11]


@given(st.lists(st.floats(0, 1e9)), st.floats(1e-3, 1e6))
def test_due_times_never_go_back(times: list[float], speed: float) -> None:
    found = due(speed, *times)
    assert found == sorted(found)
    assert not found or found[0] == 0


def test_speeds_as_users_give_them() -> None:
    assert [speed_of(speed) for speed in (1, 0.5, "10", "max")] == [1, 0.5, 10, AT_ONCE]
    for speed in (0, -1, "fast", "nan", ""):
        with pytest.raises(QueryMistake, match="'max'"):
            speed_of(speed)
    with pytest.raises(QueryMistake):
        ReplayPacing(0)
