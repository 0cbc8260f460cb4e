"""The delay of a request, where clocks differ and are set."""

from __future__ import annotations

import pytest

from ether.protocol.one_way_delay import LONGEST_S, WINDOW_S, OneWayDelay

STEPS = [8 * 86_400.0, -8 * 86_400.0, -1.8e9, 3600.0, -3600.0]
NOW = 1.8e9


@pytest.mark.parametrize("step_s", STEPS)
def test_on_one_machine_a_clock_that_is_set_delays_nothing(step_s: float) -> None:
    delay = OneWayDelay(NOW, 0.0)
    assert delay.seconds("cam", NOW + 1.0, NOW + 1.5, 1.5, same_clock=True) == 0.5
    # Sent before the clock was set, and arrived after it.
    assert delay.seconds("cam", NOW + 2.0, NOW + 2.25 + step_s, 2.25, same_clock=True) == pytest.approx(0.25, abs=1e-6)
    # Sent after it; and one that waited in a queue since before.
    assert delay.seconds("cam", NOW + 3.0 + step_s, NOW + 3.5 + step_s, 3.5, same_clock=True) == pytest.approx(0.5)
    assert delay.seconds("cam", NOW + 1.9, NOW + 61.9 + step_s, 61.9, same_clock=True) == pytest.approx(60.0)


@pytest.mark.parametrize("step_s", STEPS)
def test_between_machines_the_clock_of_the_receiver_may_be_set(step_s: float) -> None:
    delay = OneWayDelay(NOW, 0.0)
    assert delay.seconds("cam", 5000.0, NOW, 1.0, same_clock=False) == 0.0
    assert delay.seconds("cam", 5001.0, NOW + step_s, 2.2, same_clock=False) == pytest.approx(0.2)


@pytest.mark.parametrize("step_s", STEPS)
def test_between_machines_the_clock_of_the_sender_may_be_set(step_s: float) -> None:
    delay = OneWayDelay(NOW, 0.0)
    assert delay.seconds("cam", 5000.0, NOW, 1.0, same_clock=False) == 0.0
    assert delay.seconds("cam", 5001.0 + step_s, NOW, 2.0, same_clock=False) == 0.0
    assert delay.seconds("cam", 5002.0 + step_s, NOW, 33.0, same_clock=False) == pytest.approx(30.0)


def test_a_sender_whose_clock_was_set_back_a_little_is_understood_after_some_minutes() -> None:
    delay = OneWayDelay(NOW, 0.0)
    late = [
        delay.seconds("cam", 5000.0 + steady - (120.0 if steady else 0.0), NOW, steady, same_clock=False)
        for steady in (0.0, 1.0, WINDOW_S + 1, 2 * WINDOW_S + 2, 2 * WINDOW_S + 3)
    ]
    assert late[1] == 120.0 < LONGEST_S
    assert late[-1] == 0.0
