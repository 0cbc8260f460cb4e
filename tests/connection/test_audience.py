"""What a sender knows of its readers: what it keeps for them, and whom it tells what exists."""

from __future__ import annotations

from ether.protocol.audience import BURST_COUNT, FORGET_S, Audience


def look(audience: Audience, heads: dict[str, int], now: float) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    found = audience.unannounced(heads), audience.behind(heads, now)
    audience.looked(heads)
    return found


def test_the_floor_is_that_of_the_slowest_reader() -> None:
    audience = Audience()
    audience.report("fast", {"a": 100, "b": 5}, 0.0)
    audience.report("slow", {"a": 7}, 0.0)
    assert audience.floors() == {"a": 7, "b": 5}
    audience.report("slow", {"a": 50}, 1.0)
    assert audience.floors() == {"a": 50, "b": 5}
    audience.ends("slow", ["a"])
    assert audience.floors() == {"a": 100, "b": 5}
    assert audience.nodes == ["fast"]
    audience.ends("fast")
    assert audience.floors() == {}


def test_everybody_is_told_of_a_new_topic_once_it_is_silent_and_of_each_burst() -> None:
    audience = Audience()
    assert look(audience, {"a": 1}, 0.0)[0] == {}, "something may follow at once"
    assert look(audience, {"a": 1}, 0.5)[0] == {"a": 1}
    assert look(audience, {"a": 1}, 1.0)[0] == {}
    assert look(audience, {"a": 2}, 1.5)[0] == {}
    assert look(audience, {"a": 2}, 2.0)[0] == {}, "a reader that is known is told itself"
    assert look(audience, {"a": 2 + BURST_COUNT}, 2.5)[0] == {}
    assert look(audience, {"a": 2 + BURST_COUNT}, 3.0)[0] == {"a": 2 + BURST_COUNT}


def test_who_has_not_got_the_last_ones_is_told_and_less_and_less_often() -> None:
    audience = Audience()
    audience.report("reader", {"a": 10}, 0.0)
    look(audience, {"a": 12}, 0.0)
    told = [now for now in range(1, 30) if look(audience, {"a": 12}, float(now))[1] == {"reader": {"a": 12}}]
    assert told == [1, 3, 7, 15, 23]
    audience.report("reader", {"a": 11}, 30.0)
    assert look(audience, {"a": 12}, 30.5)[1] == {}, "it gets on"
    assert look(audience, {"a": 12}, 31.0)[1] == {"reader": {"a": 12}}
    audience.report("reader", {"a": 12}, 32.0)
    assert look(audience, {"a": 12}, 50.0)[1] == {}


def test_a_reader_that_has_everything_is_never_forgotten_and_one_that_is_silent_is() -> None:
    audience = Audience()
    audience.report("idle", {"a": 10}, 0.0)
    audience.report("dead", {"a": 3}, 0.0)
    look(audience, {"a": 10}, 0.0)
    look(audience, {"a": 10}, FORGET_S)
    assert audience.nodes == ["idle", "dead"]
    look(audience, {"a": 10}, FORGET_S + 1.0)
    assert audience.nodes == ["idle"]
    assert audience.floors() == {"a": 10}
