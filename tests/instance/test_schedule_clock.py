"""Schedules where the machine's clock is set: no storm of ticks, no silence, no false alarm, and no second dose."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

import pytest

from ether.instance.ticker import Ticker

HOUR_S, DAY_S = 3600.0, 86_400.0
NOON = datetime(2026, 11, 29, 12, 0, 20, tzinfo=UTC).timestamp()


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


class Machine:
    """A ticker, a steady clock and a wall clock; each tick runs at once."""

    def __init__(self, caplog: pytest.LogCaptureFixture, *whens: str, start: float = NOON) -> None:
        self.steady, self.wall = 1000.0, start
        self.ran: dict[str, list[float]] = {when: [] for when in whens}
        self._caplog = caplog
        self.ticker = Ticker("cam", [(when, when) for when in whens], self._submit, logging.getLogger("schedule-clock"))
        self.ticker.begin(self.steady, self.wall, self.steady)

    def _submit(self, method: str, when: str, over: object) -> None:
        self.ran[method].append(self.wall)
        over(True)  # type: ignore[operator]

    def passes(self, seconds: float) -> None:
        """Let time pass; the thread wakes when it said it would."""
        end = self.steady + seconds
        while True:
            wait_s = max(0.001, self.ticker.step(self.steady, self.wall, self.steady))
            step_s = min(wait_s, end - self.steady)
            if step_s <= 0:
                return
            self.steady, self.wall = self.steady + step_s, self.wall + step_s

    def count(self, when: str) -> int:
        """The ticks that ran since the last look."""
        ran = len(self.ran[when])
        self.ran[when].clear()
        return ran

    @property
    def warnings(self) -> list[str]:
        return [record.getMessage() for record in self._caplog.records if record.levelno >= logging.WARNING]


STEPS = [8 * DAY_S, -8 * DAY_S, -NOON + 5.0, HOUR_S, -HOUR_S, 20 * 365 * DAY_S]


@pytest.mark.parametrize("step_s", STEPS)
def test_what_is_due_each_minute_goes_on_each_minute(caplog: pytest.LogCaptureFixture, step_s: float) -> None:
    machine = Machine(caplog, "1 min", "* * * * *")
    machine.passes(10 * 60)
    assert (machine.count("1 min"), machine.count("* * * * *")) == (11, 10)
    machine.wall += step_s
    machine.passes(10 * 60)
    assert machine.count("1 min") == 10
    assert machine.count("* * * * *") in (10, 11)  # one that the clock jumped upon may run beside
    small = 1 if 0 < step_s <= 3 * HOUR_S else 0
    assert machine.ticker.missed == {"1 min": 0, "* * * * *": small}
    assert len(machine.warnings) == 1
    assert "was set" in machine.warnings[0]


@pytest.mark.parametrize("step_s", STEPS)
def test_what_is_due_each_day_runs_once_each_day(caplog: pytest.LogCaptureFixture, step_s: float) -> None:
    daily = "0 12 * * *"
    machine = Machine(caplog, daily, start=NOON - 40.0)
    machine.passes(60.0)  # it has run at 12:00
    assert machine.count(daily) == 1
    machine.wall += step_s
    machine.passes(2 * DAY_S)
    assert machine.count(daily) == (1 if step_s == -HOUR_S else 2)  # the noon that comes again is not a new one
    assert machine.ticker.missed[daily] == 0


def test_what_was_run_is_not_run_again_where_the_clock_is_set_back_by_an_hour(
    caplog: pytest.LogCaptureFixture,
) -> None:
    daily = "0 12 * * *"
    machine = Machine(caplog, daily, start=NOON - 40.0)
    machine.passes(60.0)
    machine.wall -= HOUR_S
    machine.passes(2 * HOUR_S)  # noon comes a second time
    assert machine.count(daily) == 1
    machine.passes(DAY_S)
    assert machine.count(daily) == 1


def test_what_the_clock_skipped_by_an_hour_is_told(caplog: pytest.LogCaptureFixture) -> None:
    daily = "0 13 * * *"
    machine = Machine(caplog, daily)
    machine.wall += 2 * HOUR_S
    machine.passes(60.0)
    assert (machine.count(daily), machine.ticker.missed[daily]) == (0, 1)
    assert daily in machine.warnings[0]
    machine.passes(DAY_S)
    assert machine.count(daily) == 1


def test_a_moment_waits_for_the_clock_of_a_machine_that_began_in_1970(caplog: pytest.LogCaptureFixture) -> None:
    once, daily = "at 2026-11-29 12:05", "0 3 * * *"
    machine = Machine(caplog, once, daily, start=60.0)
    machine.passes(120.0)
    machine.wall = NOON
    machine.passes(600.0)
    assert (machine.count(once), machine.count(daily)) == (1, 0)
    assert machine.ticker.missed == {once: 0, daily: 0}  # no 3 o'clock was missed, though 50 years went by
    late = Machine(caplog, "at 2026-11-29 11:05", start=60.0)
    late.wall = NOON
    late.passes(60.0)
    assert late.ticker.missed == {"at 2026-11-29 11:05": 1}


def test_a_machine_that_slept_has_missed_ticks(caplog: pytest.LogCaptureFixture) -> None:
    """Then the uptime has gone on, and no clock was set."""
    machine = Machine(caplog, "* * * * *")
    machine.passes(60.0)
    machine.ticker.step(machine.steady, machine.wall + HOUR_S, machine.steady + HOUR_S)
    assert machine.ticker.missed["* * * * *"] in (59, 60)
    assert "misses ticks" in machine.warnings[0]


MINUTELY = "* * * * *"
ROUND_TRIPS = [2 * HOUR_S, -2 * HOUR_S, 8 * DAY_S, -8 * DAY_S]


def minutes(times: list[float]) -> list[float]:
    """For which minute each tick stood."""
    return [time // 60 * 60 for time in times]


@pytest.mark.parametrize("step_s", ROUND_TRIPS)
def test_every_minute_that_the_clock_shows_fires_once_while_it_is_wrong_and_when_it_is_right_again(
    caplog: pytest.LogCaptureFixture, step_s: float
) -> None:
    """P3: after two hours ahead nothing fired for two hours."""
    machine = Machine(caplog, MINUTELY)
    machine.passes(150.0)
    machine.wall += step_s
    machine.passes(150.0)
    machine.wall -= step_s
    machine.passes(150.0)
    ran = minutes(machine.ran[MINUTELY])
    right = [NOON // 60 * 60 + 60 * number for number in range(1, 8)]
    wrong = [time + step_s for time in right]
    assert len(set(ran)) == len(ran)  # none twice
    # The minute that the clock jumped upon when it was set forward, 20 s ago, is run, too.
    jumped_upon = {right[4]} if step_s < 0 else set()
    assert {time for time in ran if time in right} == {right[0], right[1], right[5], right[6]} | jumped_upon
    assert [time for time in ran if time in wrong][-2:] == wrong[3:5]
    assert [message.startswith("cam: the clock of ") for message in machine.warnings] == [True, True]
    assert f"by {abs(step_s):,.0f} s" in machine.warnings[0]


@pytest.mark.parametrize("back_s", [2.0, 20.0, 90.0, 290.0])
def test_a_minute_that_comes_again_because_the_clock_was_corrected_is_the_same_minute(
    caplog: pytest.LogCaptureFixture, back_s: float
) -> None:
    machine = Machine(caplog, MINUTELY)
    machine.passes(640.0)
    machine.wall -= back_s
    machine.passes(640.0)
    ran = minutes(machine.ran[MINUTELY])
    assert ran == [NOON // 60 * 60 + 60 * number for number in range(1, len(ran) + 1)]


def test_what_was_left_out_while_the_clock_was_wrong_is_done_when_it_is_right_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    once, daily = "at 2026-11-29 12:30", "30 12 * * *"
    machine = Machine(caplog, once, daily)
    machine.passes(60.0)
    machine.wall += 2 * HOUR_S
    machine.passes(60.0)
    assert (machine.count(once), machine.count(daily)) == (0, 0)
    machine.wall -= 2 * HOUR_S
    machine.passes(HOUR_S)
    assert (machine.count(once), machine.count(daily)) == (1, 1)
    machine.wall -= 2 * HOUR_S  # half past twelve comes again
    machine.passes(3 * HOUR_S)
    assert (machine.count(once), machine.count(daily)) == (0, 0)
