"""The ages of messages by clocks that differ, drift and are set."""

from __future__ import annotations

import pytest

from ether.protocol.message_age import SOURCES, STEADY_S, MessageAges
from ether.wire.head import Headers

HERE = 1e6
"""By how much the sender's wall clock is ahead of the receiver's steady clock in these tests."""


class Source:
    """A source whose clock may be set: `sends` at a steady time, its message arrives `late_s` later."""

    def __init__(self, ages: MessageAges, node: str = "0123456789ab", name: str = "cam") -> None:
        self.ages, self.node, self.name = ages, node, name
        self.off_s, self.number = 0.0, 0

    def headers(self, at: float) -> Headers:
        self.number += 1
        return Headers(f"00000000-0000-7000-8000-{self.node}", self.name, self.number, HERE + at + self.off_s, ())

    def sends(self, at: float, late_s: float = 0.001) -> float:
        return self.ages.note("t", self.headers(at), at + late_s)


@pytest.fixture
def source() -> Source:
    return Source(MessageAges())


def test_the_fastest_message_counts_as_new(source: Source) -> None:
    assert source.sends(0.0, 0.020) == 0.0
    assert source.sends(1.0, 0.005) == 0.0
    assert source.sends(2.0, 0.025) == pytest.approx(0.020)
    assert source.sends(3.0, 7.005) == pytest.approx(7.0, abs=0.01)


@pytest.mark.parametrize("off_s", [10.0, -10.0, 86_400.0, -1.7e9])
def test_an_offset_of_the_clocks_is_no_age(source: Source, off_s: float) -> None:
    source.off_s = off_s
    assert [source.sends(n / 10) for n in range(100)] == pytest.approx([0.0] * 100, abs=1e-6)


def test_a_clock_that_is_set_forward_is_followed_at_once(source: Source) -> None:
    source.sends(0.0)
    source.off_s = 3600.0
    assert source.sends(1.0) == 0.0
    assert source.sends(2.0, 0.301) == pytest.approx(0.3, abs=0.01)


def test_a_clock_that_is_set_back_is_followed_at_once(source: Source) -> None:
    source.sends(0.0)
    source.sends(1.0)
    source.off_s = -10.0
    assert source.sends(1.1) == 0.0
    assert source.sends(2.0, 0.301) == pytest.approx(0.3, abs=0.01)


def test_a_clock_that_is_set_back_while_its_source_is_silent_is_followed_in_half_a_minute(source: Source) -> None:
    source.sends(0.0)
    source.off_s = -10.0
    times = [60.0 + n for n in range(40)]
    ages = dict(zip(times, (source.sends(at) for at in times), strict=True))
    assert ages[61.0] == pytest.approx(10.0, abs=0.1)
    assert all(ages[at] == 0.0 for at in times if at > 60.0 + STEADY_S + 1)


def test_a_queue_that_grows_is_no_clock(source: Source) -> None:
    """A reader that falls behind for an hour, by half of the time."""
    source.sends(0.0)
    for n in range(1, 36_000, 100):
        assert source.sends(n / 10, n / 20) == pytest.approx(n / 20, rel=0.001, abs=0.5)


def test_a_queue_that_moves_up_and_down_is_no_clock(source: Source) -> None:
    source.sends(0.0)
    for n in range(1, 2000):
        late_s = 5.0 + (n % 7) / 20
        assert source.sends(n / 10, late_s) == pytest.approx(late_s, rel=0.01)


def test_one_late_message_now_and_then_is_no_clock(source: Source) -> None:
    for n in range(200):
        is_late = n % 10 == 9
        age_s = source.sends(float(n), 5.0 if is_late else 0.001)
        assert age_s == pytest.approx(5.0 if is_late else 0.0, abs=0.1)


def test_clocks_that_drift_are_followed(source: Source) -> None:
    """50 ppm for a week, with messages that are now and then 20 ms late."""
    for n in range(0, 604_800, 60):
        source.off_s = -n * 50e-6
        assert source.sends(float(n), 0.02 if n % 7 else 0.0) < 0.2


def test_another_process_of_the_name_has_another_clock(source: Source) -> None:
    for n in range(10):
        source.sends(n / 10)
    successor = Source(source.ages, node="ba9876543210")
    successor.off_s = -10.0
    assert [successor.sends(2.0 + n / 10) for n in range(5)] == pytest.approx([0.0] * 5, abs=1e-6)


def test_a_message_that_two_receivers_note_counts_once(source: Source) -> None:
    headers = source.headers(1.0)
    assert source.ages.note("t", headers, 1.5) == 0.0
    assert source.ages.note("t", headers, 1.6) == pytest.approx(0.1)
    assert source.ages.age_s("t", headers, 3.5) == pytest.approx(2.0, abs=0.01)


def test_of_a_source_that_was_never_heard_no_age_is_known(source: Source) -> None:
    assert source.ages.age_s("t", source.headers(1.0), 2.0) is None


def test_sources_without_end_are_forgotten() -> None:
    ages = MessageAges()
    first = Source(ages, name="first")
    first.sends(0.0)
    for n in range(SOURCES):
        Source(ages, name=f"cam{n}").sends(0.0)
    assert ages.age_s("t", first.headers(0.0), 1.0) is None
    assert len(ages._clocks) == SOURCES
