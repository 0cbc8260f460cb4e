"""Which message is blamed for the end of a connection: decisions alone, without a connection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ether.transport.cut_rules import BAN_S, HOLD_S, SOON_S, STRIKES, Bans, LargeWrites, Suspicion


def cut(suspicion: Suspicion[str], *under_way: str, soon: bool = True) -> str | None:
    """The broker closes the connection, and another one comes up."""
    guilty = suspicion.ended(under_way, soon=soon)
    suspicion.begin(0.0)
    return guilty


def test_three_cuts_condemn_a_message_that_was_alone_under_way() -> None:
    suspicion: Suspicion[str] = Suspicion()
    assert cut(suspicion, "bad") is None
    assert suspicion.may_try("bad"), "the second try needs no control"
    assert cut(suspicion, "bad") is None
    assert not suspicion.may_try("bad"), "the third one does"
    assert suspicion.may_try("other")
    suspicion.passed("other")
    assert suspicion.may_try("bad")
    assert cut(suspicion, "bad") == "bad"
    assert not suspicion.has_suspects


def test_the_control_is_one_of_the_same_connection() -> None:
    suspicion: Suspicion[str] = Suspicion()
    cut(suspicion, "bad")
    cut(suspicion, "bad")
    suspicion.passed("other")
    suspicion.begin(1.0)
    assert not suspicion.may_try("bad")
    for _ in range(10):  # tried all the same, because all others are suspects, too
        assert cut(suspicion, "bad") is None


def test_without_another_message_the_connection_has_to_hold_first() -> None:
    for alone, written_at, guilty in (
        (True, 10.0 + HOLD_S - 0.01, None), (False, 10.0 + HOLD_S, None), (True, 10.0 + HOLD_S, "bad"),
    ):  # fmt: skip
        suspicion: Suspicion[str] = Suspicion()
        for _ in range(2):
            suspicion.begin(10.0)
            assert suspicion.ended(["bad"], soon=True, alone=alone) is None
        suspicion.begin(10.0)
        suspicion.written_at = written_at
        assert suspicion.has_held(written_at) == (written_at >= 10.0 + HOLD_S)
        assert suspicion.ended(["bad"], soon=True, alone=alone) == guilty


def test_the_one_among_several_that_is_larger_than_any_before_is_tried_alone() -> None:
    suspicion: Suspicion[str] = Suspicion()
    assert suspicion.ended(["a", "large", "b"], soon=True, likely="large") is None
    assert suspicion.is_suspect("large")
    suspicion.passed("a")
    assert suspicion.ended(["large"], soon=True) is None
    suspicion.passed("b")
    assert suspicion.ended(["large"], soon=True) == "large"


@pytest.mark.parametrize("under_way", [("a", "b"), ("a", "b", "c")])
def test_with_several_under_way_nobody_is_blamed_and_the_next_goes_alone(under_way: tuple[str, ...]) -> None:
    suspicion: Suspicion[str] = Suspicion()
    for _ in range(10):
        assert cut(suspicion, *under_way) is None
    assert not suspicion.has_suspects
    assert suspicion.window == 1


def test_an_acknowledgement_clears() -> None:
    suspicion: Suspicion[str] = Suspicion()
    for _ in range(5):
        cut(suspicion, "slow")
        cut(suspicion, "slow")
        suspicion.passed("slow")
        assert not suspicion.has_suspects


def test_a_connection_that_held_with_the_message_under_way_clears() -> None:
    """A broker that stood still for seconds and then ended does not end because of a message."""
    suspicion: Suspicion[str] = Suspicion()
    for _ in range(5):
        assert cut(suspicion, "waiting") is None
        assert cut(suspicion, "waiting") is None
        assert cut(suspicion, "waiting", soon=False) is None
        assert not suspicion.has_suspects


def test_the_window_grows_back() -> None:
    suspicion: Suspicion[str] = Suspicion()
    cut(suspicion, "a", "b")
    acknowledged = 0
    while not suspicion.is_over(256, 0.0):
        acknowledged += 1
        suspicion.passed(str(acknowledged))
    assert acknowledged == 8


@given(st.lists(st.sampled_from(["cut alone", "cut with others", "cut late", "acknowledged"]), max_size=60))
def test_nobody_is_condemned_without_so_many_cuts_in_a_row(events: list[str]) -> None:
    suspicion: Suspicion[str] = Suspicion()
    alone = 0
    for event in events:
        match event:
            case "cut alone":
                alone += 1
                suspicion.passed("control")
                guilty = cut(suspicion, "m")
                assert (guilty == "m") == (alone == STRIKES)
                alone %= STRIKES
            case "cut with others":
                assert cut(suspicion, "m", "n") is None
            case "cut late":
                alone = 0
                assert cut(suspicion, "m", soon=False) is None
            case "acknowledged":
                alone = 0
                suspicion.passed("m")


# -- what is not sent for a while


def test_a_small_message_is_given_up_for_its_topic() -> None:
    bans = Bans()
    bans.condemn("bad", 100, 50, 1000.0)
    bans.condemn("odd", 90_000, 100_000, 1000.0)
    for size in (1, 100, 1_000_000):
        assert bans.has("bad", size, 1000.0 + BAN_S - 1) == 0
        assert bans.has("odd", size, 1000.0) == 0
        assert bans.has("good", size, 1000.0) is None
    assert bans.limit(1000.0) == 0
    assert bans.has("bad", 100, 1000.0 + BAN_S) is None
    assert not bans.expire(1000.0 + BAN_S)


def test_a_large_message_may_be_given_up_for_either() -> None:
    """Until more is known, others as large as it are not sent on its topic, all else is."""
    bans = Bans()
    bans.condemn("img", 200_000, 500, 0.0)
    assert bans.has("img", 200_000, 1.0) == 200_000
    assert bans.has("img", 300_000, 1.0) == 200_000
    assert bans.has("img", 199_999, 1.0) is None
    assert bans.has("other", 300_000, 1.0) is None
    assert bans.limit(1.0) == 0
    bans.condemn("img", 150_000, 500, 2.0)
    assert bans.has("img", 150_000, 3.0) == 150_000


def test_it_is_the_size_where_a_smaller_one_passes_on_the_same_topic() -> None:
    bans = Bans()
    bans.condemn("img", 200_000, 500, 0.0)
    bans.passed("other", 10, 1.0)
    assert bans.limit(1.0) == 0
    bans.passed("img", 10, 1.0)
    assert bans.limit(1.0) == 200_000
    assert bans.has("other", 200_000, 1.0) == 200_000
    assert bans.has("other", 199_999, 1.0) is None


def test_it_is_the_size_where_large_ones_are_given_up_on_two_topics() -> None:
    bans = Bans()
    bans.condemn("img", 200_000, 500, 0.0)
    bans.condemn("vid", 300_000, 500, 0.0)
    assert bans.limit(1.0) == 300_000
    assert bans.has("third", 300_000, 1.0) == 300_000
    assert bans.has("third", 250_000, 1.0) is None, "the topic of the smaller one may be the reason"
    bans.condemn("third", 250_000, 500, 2.0)
    assert bans.limit(3.0) == 250_000


def test_it_is_the_topic_where_a_larger_one_passes_elsewhere() -> None:
    bans = Bans()
    bans.condemn("bad", 200_000, 500, 0.0)
    bans.passed("good", 250_000, 1.0)
    assert bans.has("bad", 1, 1.0) == 0
    assert bans.has("good", 300_000, 1.0) is None


def test_suspicion_is_not_over_while_something_is_not_sent() -> None:
    suspicion: Suspicion[str] = Suspicion()
    suspicion.bans.condemn("bad", 1, 0, 100.0)
    suspicion.window = 1 << 15
    assert not suspicion.is_over(256, 100.0)
    assert suspicion.is_over(256, 100.0 + BAN_S)


# -- large messages at QoS 0


def strike(writes: LargeWrites, size: int, now: float, *, proven: bool = True, cut: bool = True) -> bool:
    writes.wrote("img", size, now)
    return writes.ended(now + 0.1, cut=cut, proven=proven, above=1000)


def test_three_cuts_after_a_large_write_are_its_size() -> None:
    writes = LargeWrites()
    assert strike(writes, 300_000, 1.0)
    assert strike(writes, 200_000, 2.0)
    assert writes.condemned() is None
    assert strike(writes, 250_000, 3.0)
    assert writes.condemned() == (200_000, "img")
    assert writes.condemned() is None


def test_large_writes_are_not_blamed_for_other_ends() -> None:
    writes = LargeWrites()
    for n in range(STRIKES):
        assert not strike(writes, 300_000, float(n), cut=False)
        assert not strike(writes, 900, float(n)), "no larger than what has passed"
        strike(writes, 300_000, float(n), proven=False)
        writes.wrote("img", 300_000, float(n))
        assert not writes.ended(n + SOON_S + 0.1, cut=True, proven=True, above=1000)
    assert writes.condemned() is None


def test_a_large_write_that_the_connection_has_survived_has_passed() -> None:
    writes = LargeWrites()
    strike(writes, 300_000, 1.0)
    strike(writes, 300_000, 2.0)
    assert writes.wrote("img", 300_000, 3.0) == 0
    assert writes.wrote("img", 300_000, 3.1) == 0, "it is not known yet"
    assert writes.wrote("img", 300_000, 5.0) == 300_000
    strike(writes, 300_000, 6.0)
    assert writes.condemned() is None
