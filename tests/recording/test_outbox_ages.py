"""How long entries of an outbox have waited."""

from __future__ import annotations

from ether.recording.age_rules import WaitingTimes


def test_an_entry_is_too_old_after_its_time_and_not_before() -> None:
    times = WaitingTimes(100.0)
    assert times.too_old(0, 0.0) == 0
    assert times.too_old(5, 10.0) == 0
    assert times.too_old(9, 20.0) == 0
    assert times.too_old(9, 110.0) == 0
    assert times.too_old(9, 110.5) == 5
    assert times.too_old(20, 120.5) == 9
    assert times.too_old(20, 220.4) == 9
    assert times.too_old(20, 220.6) == 20
    assert times.too_old(20, 1000.0) == 20
    assert times.too_old(21, 1001.0) == 20
    assert times.too_old(21, 1102.0) == 21


def test_its_memory_is_bounded_and_it_is_exact_to_a_thousandth() -> None:
    times = WaitingTimes(604_800.0)
    now = 0.0
    for number in range(1, 200_000):
        now += 10.0
        old = times.too_old(number, now)
        assert 0 <= max(0, number - 60_480) - old <= 62
    assert len(times._notes) < 1100
