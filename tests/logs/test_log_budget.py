"""What is cut when there is too much: by level, in order, and counted."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ether.logs.budget_rules import RATES, Band, CutCount, LogBudget, LogQueue, LogRate, band_of, cut_sentence

bands = st.sampled_from(Band)
steps = st.lists(st.tuples(bands, st.floats(0, 0.5)), max_size=300)
SMALL = {band: LogRate(5, 3) for band in Band}


@pytest.mark.parametrize(
    ("level", "band"),
    [
        *((level, Band.DEBUG) for level in (-1, 0, 10, 19)),
        *((level, Band.INFO) for level in (20, 29)),
        *((level, Band.WARNING) for level in (30, 39)),
        *((level, Band.ERROR) for level in (40, 50, 99)),
    ],
)
def test_bands(level: int, band: Band) -> None:
    assert band_of(level) is band


def test_a_flood_of_debug_leaves_the_tokens_of_the_others_alone() -> None:
    budget = LogBudget(0.0)
    debug = sum(budget.admits(Band.DEBUG, now=i / 100_000) for i in range(100_000))
    assert debug == pytest.approx(RATES[Band.DEBUG].burst + RATES[Band.DEBUG].per_s, abs=2)
    assert all(budget.admits(Band.ERROR, 1.0) for _ in range(int(RATES[Band.ERROR].burst)))


def test_what_was_used_up_comes_back_with_time() -> None:
    budget = LogBudget(0.0, SMALL)
    assert [budget.admits(Band.DEBUG, 0.0) for _ in range(4)] == [True, True, True, False]
    assert [budget.admits(Band.DEBUG, 0.4) for _ in range(3)] == [True, True, False]
    assert [budget.admits(Band.DEBUG, 1000.0) for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_goes_back_gives_nothing_and_breaks_nothing() -> None:
    budget = LogBudget(10.0, SMALL)
    assert [budget.admits(Band.DEBUG, 5.0) for _ in range(4)] == [True, True, True, False]
    assert budget.admits(Band.DEBUG, 10.25)


@given(steps)
def test_while_a_record_is_refused_everything_less_is_refused(arrivals: list[tuple[Band, float]]) -> None:
    budget, now = LogBudget(0.0, SMALL), 0.0
    for band, pause in arrivals:
        now += pause
        if not budget.admits(band, now):
            assert not any(budget.admits(lower, now) for lower in Band if lower <= band)


@given(st.lists(st.tuples(bands, st.integers(1, 40), st.booleans()), max_size=200))
def test_the_queue_keeps_order_bounds_and_count(arrivals: list[tuple[Band, int, bool]]) -> None:
    queue: LogQueue[int] = LogQueue(max_count=8, max_size=100)
    offered = Counter(band for band, _, _ in arrivals)
    cut: Counter[Band] = Counter()
    taken = []
    for number, (band, size, then_take) in enumerate(arrivals):
        given_up = queue.offer(band, number, size)
        assert all(lost <= band for lost in given_up)  # nobody leaves for one of a lower level
        cut.update(given_up)
        assert len(queue) <= 8
        if then_take and (queued := queue.take()) is not None:
            taken.append(queued)
    in_the_end = []
    while (queued := queue.take()) is not None:
        in_the_end.append(queued)
    items = [queued.item for queued in (*taken, *in_the_end)]
    assert items == sorted(items)
    assert sum(queued.size for queued in in_the_end) <= 100
    assert offered == cut + Counter(queued.band for queued in (*taken, *in_the_end))


def test_a_full_queue_gives_up_the_oldest_of_the_lowest_level() -> None:
    queue: LogQueue[str] = LogQueue(max_count=3, max_size=1000)
    for band, name in ((Band.ERROR, "e1"), (Band.DEBUG, "d1"), (Band.DEBUG, "d2")):
        assert queue.offer(band, name, 1) == []
    assert queue.offer(Band.INFO, "i1", 1) == [Band.DEBUG]
    assert queue.offer(Band.DEBUG, "d3", 1) == [Band.DEBUG]
    assert queue.offer(Band.ERROR, "e2", 1) == [Band.DEBUG]
    assert queue.offer(Band.DEBUG, "d4", 1) == [Band.DEBUG]  # itself: all others count for more
    assert queue.offer(Band.ERROR, "e3", 1) == [Band.INFO]
    assert queue.offer(Band.ERROR, "e4", 1) == [Band.ERROR]
    assert [queued.item for queued in iter(queue.take, None) if queued] == ["e2", "e3", "e4"]


def test_one_record_larger_than_the_queue_is_taken_alone() -> None:
    queue: LogQueue[str] = LogQueue(max_count=3, max_size=10)
    assert queue.offer(Band.DEBUG, "small", 5) == []
    assert queue.offer(Band.DEBUG, "large", 50) == [Band.DEBUG]
    assert queue.offer(Band.DEBUG, "small", 5) == [Band.DEBUG]
    assert len(queue) == 1


def test_what_was_cut_is_said_at_most_once_a_second_and_all_of_it() -> None:
    cuts = CutCount()
    assert cuts.wait_s(0.0) is None
    cuts.note(Band.DEBUG, 3)
    assert cuts.wait_s(0.0) == 0
    assert cuts.take_report(0.0) == {Band.DEBUG: 3}
    assert cuts.wait_s(0.0) is None
    cuts.note(Band.INFO)
    assert cuts.wait_s(0.25) == 0.75
    assert cuts.wait_s(7.0) == 0
    said = cuts.take_report(1.0)
    cuts.take_back(said)
    cuts.note(Band.INFO)
    assert cuts.take_report(2.0) == {Band.INFO: 2}
    assert cuts.total == {Band.DEBUG: 3, Band.INFO: 2, Band.WARNING: 0, Band.ERROR: 0}


def test_the_sentence() -> None:
    assert cut_sentence({Band.INFO: 12, Band.DEBUG: 1400}) == "1,412 records were cut: 1,400 debug, 12 info"
    assert cut_sentence({Band.ERROR: 1}) == "1 record was cut: 1 error"
