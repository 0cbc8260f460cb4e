"""Grids that do not drift, missed ticks that are counted, clocks that are put forward and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ether.config.when import Cron, parse_when
from ether.instance.schedule_rules import LATE_S, Tick, next_time, schedule

BERLIN = ZoneInfo("Europe/Berlin")


def stamp(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def cron(text: str) -> Cron:
    found = parse_when(text)
    assert isinstance(found, Cron)
    return found


def test_a_period_begins_at_once_and_does_not_drift() -> None:
    ticks = schedule(parse_when("0.5s"), 100.0, 0.0)
    assert ticks.steady
    assert ticks.take(100.0) == Tick(True, 0)
    assert ticks.take(100.4) is None
    assert ticks.take(100.7) == Tick(True, 0)  # noticed late
    assert ticks.due() == 101.0  # not 101.2


def test_missed_ticks_come_once_as_a_number() -> None:
    ticks = schedule(parse_when("0.5s"), 0.0, 0.0)
    ticks.take(0.0)
    assert ticks.take(60.2) == Tick(True, 119)
    assert ticks.take(60.2) is None
    assert ticks.due() == 60.5


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.sampled_from(["1ms", "0.3s", "7s", "3Hz"]))
def test_every_tick_of_the_grid_is_run_or_missed(times: list[float], when: str) -> None:
    ticks = schedule(parse_when(when), 0.0, 0.0)
    taken = [tick for now in sorted(times) if (tick := ticks.take(now)) is not None]
    last = max(times)
    due = ticks.due()
    assert due is not None
    assert due > last - 1e-9
    period = 1 / 3 if when == "3Hz" else {"1ms": 0.001, "0.3s": 0.3, "7s": 7.0}[when]
    assert sum(1 + tick.missed for tick in taken) == pytest.approx(due / period)


def test_once() -> None:
    at = schedule(parse_when("at 2026-01-16 07:30"), 0.0, 0.0, BERLIN)
    due = stamp("2026-01-16 07:30")
    assert (at.steady, at.due()) == (False, due)
    assert at.take(due - 1) is None
    assert at.take(due + 1) == Tick(True, 0)
    assert (at.due(), at.take(due + 2)) == (None, None)


def test_once_in_the_past_is_missed_and_not_run() -> None:
    at = schedule(parse_when("at 2026-01-16T07:30:00+00:00"), 0.0, 0.0)
    assert at.take(datetime(2026, 1, 16, 8, 30, tzinfo=UTC).timestamp()) == Tick(False, 1)
    assert at.due() is None


def test_a_machine_that_slept_does_not_catch_up() -> None:
    begin = stamp("2026-06-01 00:00")
    ticks = schedule(parse_when("*/5 * * * *"), 0.0, begin, BERLIN)
    assert ticks.take(begin + 300) == Tick(True, 0)
    assert ticks.take(begin + 3600 + LATE_S + 1) == Tick(False, 11)
    assert ticks.take(begin + 3900 + 1) == Tick(True, 0)


def test_a_clock_that_was_put_back_does_not_run_a_tick_twice() -> None:
    begin = stamp("2026-06-01 12:00")
    ticks = schedule(parse_when("*/5 * * * *"), 0.0, begin, BERLIN)
    assert ticks.take(begin + 300) is not None
    assert ticks.take(begin + 10) is None
    assert ticks.due() == begin + 600


@pytest.mark.parametrize(
    ("line", "after", "due"),
    [
        ("*/5 * * * *", "2026-06-01 12:03", "2026-06-01 12:05"),
        ("0 3 * * *", "2026-06-01 12:03", "2026-06-02 03:00"),
        ("0 12 * * mon", "2026-06-01 12:00", "2026-06-08 12:00"),
        ("0 0 29 2 *", "2026-06-01 12:00", "2028-02-29 00:00"),
        ("0 0 13 * fri", "2026-06-01 12:00", "2026-06-05 00:00"),  # either will do
        ("0 0 13 * fri", "2026-06-05 12:00", "2026-06-12 00:00"),
        ("0 0 13 * fri", "2026-06-12 12:00", "2026-06-13 00:00"),
        ("59 23 31 12 *", "2026-12-31 23:59", "2027-12-31 23:59"),
    ],
)
def test_the_next_time(line: str, after: str, due: str) -> None:
    assert next_time(cron(line), stamp(after), BERLIN) == stamp(due)


def test_the_29th_of_february_is_found_across_2100() -> None:
    assert next_time(cron("0 0 29 2 *"), stamp("2096-03-01 00:00"), BERLIN) == stamp("2104-02-29 00:00")


def test_an_hour_that_comes_twice() -> None:
    """Clocks are put back from 03:00 to 02:00 on 25 October 2026."""
    half = cron("30 2 * * *")
    first = next_time(half, stamp("2026-10-25 00:00"), BERLIN)
    assert first == stamp("2026-10-25 02:30")
    assert next_time(half, first, BERLIN) == stamp("2026-10-26 02:30")
    each, time, count = cron("30 * * * *"), stamp("2026-10-25 00:00"), 0
    while (time := next_time(each, time, BERLIN) or 0) < stamp("2026-10-25 04:00"):
        count += 1
    assert count == 5  # 0:30, 1:30, 2:30 twice, 3:30


def test_an_hour_that_does_not_come() -> None:
    """Clocks are put forward from 02:00 to 03:00 on 29 March 2026."""
    found = next_time(cron("30 2 * * *"), stamp("2026-03-29 00:00"), BERLIN)
    assert found == stamp("2026-03-29 03:30")


@given(st.integers(1_600_000_000, 2_500_000_000), st.sampled_from(["*/7 * * * *", "0 3 * * *", "15,45 8-17 * * 1-5"]))
def test_it_is_the_first_match(after: int, line: str) -> None:
    spec = cron(line)
    zone = ZoneInfo("UTC")
    expected = datetime.fromtimestamp(after, zone).replace(second=0) + timedelta(minutes=1)
    while not (
        expected.minute in spec.minutes and expected.hour in spec.hours and expected.isoweekday() % 7 in spec.weekdays
    ):
        expected += timedelta(minutes=1)
    assert next_time(spec, float(after), zone) == expected.timestamp()
