"""When a clock counts as set, and which of the values made before it are put right."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from ether.protocol.clock_steps import ClockSteps, set_words
from ether.protocol.record_notes import ClockNote, MissedNote
from ether.reading.notes import ClockCorrections, NotedClock


def test_a_clock_that_was_set_is_noticed_once_and_no_other() -> None:
    clock = ClockSteps(1000.0, 50.0)
    assert clock.look(1000.5, 50.5) is None
    assert clock.look(4600.6, 4150.5) is not None  # neither the time nor the uptime alone decides
    clock = ClockSteps(1000.0, 50.0)
    assert clock.look(4600.0, 3650.0) is None  # the machine was asleep
    for second in range(3600):  # pulled right by 0.5 ms a second
        assert clock.look(4600.0 + second * 1.0005, 3650.0 + second) is None
    wall, up = clock.wall, clock.uptime
    step = clock.look(wall - 7200.0 + 0.5, up + 0.5)
    assert step is not None
    assert step.set_by_s == pytest.approx(-7200.0)
    assert (step.after_uptime, step.uptime) == (up, up + 0.5)
    assert clock.look(wall - 7200.0 + 1.0, up + 1.0) is None


def test_it_is_told_in_words() -> None:
    assert set_words("pi3", -7200.2) == "the clock of pi3 was set back by 7,200 s"
    assert set_words("pi3", 1.5) == "the clock of pi3 was set forward by 1.5 s"


def test_notes_are_read_back_and_others_are_none() -> None:
    clock = ClockNote("pi3", "b0", 12.5, 1000.0, -7200.0, 12.0, 17)
    missed = MissedNote("analysis", "camera", "image", 1, 3, "too old")
    assert ClockNote.from_value(clock.to_value()) == clock
    assert MissedNote.from_value(missed.to_value()) == missed
    assert str(missed) == "analysis never got image of camera, number 1 to 3: too old"
    for other in (None, {}, [], {"host": "pi3"}, missed.to_value() | {"first": "1"}):
        assert ClockNote.from_value(other) is None
        assert MissedNote.from_value(other) is None


def noted(outbox: str, number: int, *facts: Any) -> NotedClock:
    return NotedClock(outbox, number, "cam", ClockNote("pi3", "b0", *facts))


def record(outbox: str, number: int, time: float) -> Any:
    return cast(Any, SimpleNamespace(outbox=outbox, number=number, time=time))


def test_times_are_put_right_by_the_last_setting_of_the_same_boot() -> None:
    """Two hours ahead at first (ahead 8200), set right at the uptime of 100 (ahead 1000). Values 8 and 9 were made
    between the two looks at the clock: 8 before it was set, 9 since."""
    notes = [noted("a", 3, 50.0, 8200.0), noted("a", 10, 100.5, 1000.0, -7200.0, 100.0, 7), noted("z", 1, 20.0, 8200.0)]
    corrections = ClockCorrections(notes)
    assert corrections
    assert corrections.of(record("a", 7, 8200.0 + 99.9)) == -7200.0
    assert corrections.of(record("a", 8, 8200.0 + 100.1)) == -7200.0
    assert corrections.of(record("a", 9, 1000.0 + 100.3)) == 0.0
    assert corrections.of(record("a", 11, 1000.0 + 101.0)) == 0.0
    assert corrections.of(record("z", 2, 8200.0 + 21.0)) == -7200.0  # a process that had ended by then
    assert corrections.of(record("other", 2, 8200.0)) == 0.0
    assert (corrections.most_s, corrections.least_s) == (-7200.0, -7200.0)


def test_without_a_step_nothing_is_put_right() -> None:
    assert not ClockCorrections([noted("a", 3, 50.0, 8200.0), noted("b", 3, 900.0, 8200.4)])
    assert not ClockCorrections([])
    unknown = [
        NotedClock("a", 1, "cam", ClockNote("pi3", "", 1.0, 1.0)),
        NotedClock("a", 5, "cam", ClockNote("pi3", "", 2.0, 99.0)),
    ]
    assert not ClockCorrections(unknown)  # a system that tells no boot: uptimes cannot be compared
