"""What a sender keeps and a receiver misses: nothing is lost, doubled or out of order without being reported."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ether.protocol.history import ANSWER_COUNT, Ask, History, Resent, seconds_on_the_way
from ether.protocol.order import NO_ANSWER, PATIENCE_S, TOO_MUCH, TOO_OLD, Gap, Order, Sorted
from ether.wire.topics import matches

NODE, ME = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


@dataclass
class Pair:
    """A sender and a receiver, and a network between them that a test may let lose things."""

    history: History = field(default_factory=History)
    order: Order[tuple[str, int]] = field(default_factory=Order)
    got: list[tuple[str, int]] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    sent: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.order.listen("#", self.now)

    def send(self, topic: str, qos: int = 1, *, lost: bool = False) -> None:
        self.now += 0.001
        numbers = self.sent.setdefault(topic, [])
        number = len(numbers) + 1
        numbers.append((number, qos))
        if qos:
            self.history.note(topic, number, b"x" * 10, b"", self.now)
        if not lost:
            self.arrive(topic, number)

    def arrive(self, topic: str, number: int) -> None:
        if self.order.passes(topic, NODE, number):
            self.got.append((topic, number))
        else:
            self.take(self.order.arrived(topic, NODE, "cam", number, (topic, number), 10, self.now))

    def take(self, result: Sorted[tuple[str, int]] | None) -> None:
        if result is not None:
            self.got += result.ready
            self.gaps += result.gaps

    def answer(self, ask: Ask | None, losses: deque[bool] | None = None) -> None:
        """The sender answers; what is sent again may get lost, too."""
        again = Ask.from_value(ask.to_value()) if ask is not None else None
        if again is None:
            return
        answers = self.history.answer(again, NODE, matches, self.now)
        for answer in answers:
            for message in answer.messages:
                if not (losses and losses.popleft()):
                    self.arrive(message.topic, message.sequence)
        read = [Resent.from_value(answer.topic, answer.to_value()) for answer in answers]
        self.take(self.order.answered(NODE, [answer for answer in read if answer is not None], self.now))

    def settle(self, losses: deque[bool] | None = None) -> None:
        """Ask until nothing is missing any more."""
        for _ in range(200):
            questions = self.order.questions(ME, self.now)
            if not questions:
                return
            for ask in questions.values():
                self.answer(ask, losses)
        raise AssertionError("it asks for ever")

    def outage(self) -> Ask:
        self.order.went_deaf(self.now)
        return self.order.came_back(ME, self.now)

    def assert_accounted(self) -> None:
        """Every number of QoS 1 was handed on once and in order, or is in a gap."""
        for topic, numbers in self.sent.items():
            got = [number for name, number in self.got if name == topic]
            assert got == sorted(set(got))
            reported = {n for gap in self.gaps if gap.topic == topic for n in range(gap.first, gap.last + 1)}
            assert not reported & set(got)
            assert {number for number, qos in numbers if qos} <= reported | set(got)


def test_a_hole_in_the_middle_is_filled_in_order() -> None:
    pair = Pair()
    for lost in (False, True, True, False, True, False):
        pair.send("a", lost=lost)
    assert pair.got == [("a", 1)]
    pair.settle()
    assert pair.got == [("a", number) for number in range(1, 7)]
    assert pair.gaps == []
    assert not pair.order.busy


def test_what_was_lost_at_qos_0_is_gone_over_without_a_word() -> None:
    pair = Pair()
    pair.send("a", 1)
    pair.send("a", 0, lost=True)
    pair.send("a", 1, lost=True)
    pair.send("a", 0, lost=True)
    pair.send("a", 0)
    pair.settle()
    assert pair.got == [("a", 1), ("a", 3), ("a", 5)]
    assert pair.gaps == []


def test_what_the_sender_no_longer_keeps_is_reported_once() -> None:
    pair = Pair(history=History(count=3))
    pair.send("a")
    for _ in range(9):
        pair.send("a", lost=True)
    pair.send("a")
    pair.settle()
    assert pair.gaps == [Gap("cam", "a", 2, 8, TOO_OLD)]
    assert pair.got == [("a", 1), ("a", 9), ("a", 10), ("a", 11)]


@pytest.mark.parametrize("limits", [{"size": 35}, {"age_s": 0.0035}])
def test_bytes_and_age_are_limits_too(limits: dict[str, float]) -> None:
    pair = Pair(history=History(**limits))  # type: ignore[arg-type]
    pair.send("a")
    for _ in range(9):
        pair.send("a", lost=True)
    pair.send("a")
    pair.settle()
    assert [gap.first for gap in pair.gaps] == [2]
    assert 3 <= len(pair.got) <= 5
    pair.assert_accounted()


def test_after_an_outage_everything_since_is_asked_for_also_on_topics_that_were_never_heard() -> None:
    pair = Pair()
    pair.send("a")
    pair.order.went_deaf(pair.now)
    for topic in ("a", "new", "a", "new"):
        pair.send(topic, lost=True)
    ask = pair.order.came_back(ME, pair.now)
    pair.send("new")  # comes before the answer: it must wait for the two before it
    assert ("new", 3) not in pair.got
    pair.answer(ask)
    pair.settle()
    assert sorted(pair.got) == [("a", 1), ("a", 2), ("a", 3), ("new", 1), ("new", 2), ("new", 3)]
    pair.assert_accounted()


def test_what_was_sent_before_the_receiver_listened_is_not_sent_again() -> None:
    pair = Pair()
    pair.order = Order()
    for _ in range(5):
        pair.send("a", lost=True)
    pair.now += 10
    pair.order.listen("a", pair.now)
    pair.send("a", lost=True)
    pair.answer(pair.outage())
    assert pair.got == [("a", 6)]
    assert pair.gaps == []


def test_a_long_outage_is_made_good_in_portions() -> None:
    pair = Pair()
    pair.send("a")
    pair.order.went_deaf(pair.now)
    for _ in range(3 * ANSWER_COUNT):
        pair.send("a", lost=True)
    pair.answer(pair.order.came_back(ME, pair.now))
    assert len(pair.got) == 1 + ANSWER_COUNT
    pair.settle()
    assert len(pair.got) == 1 + 3 * ANSWER_COUNT
    pair.assert_accounted()


def test_a_sender_that_was_away_says_how_far_it_got() -> None:
    pair = Pair()
    pair.send("a")
    pair.send("a", lost=True)
    pair.send("b", lost=True)
    heads = pair.history.heads()
    pair.answer(pair.order.heard_heads(NODE, heads, list(heads), ME, pair.now))
    assert sorted(pair.got) == [("a", 1), ("a", 2), ("b", 1)]
    assert pair.order.heard_heads(NODE, heads, list(heads), ME, pair.now) is None
    assert not pair.order.busy


def test_a_sender_that_is_gone_is_waited_for_no_longer_than_the_patience() -> None:
    pair = Pair()
    for lost in (False, True, False, True, False):
        pair.send("a", lost=lost)
    assert list(pair.order.questions(ME, pair.now)) == [NODE]
    assert not pair.order.overdue(pair.now + PATIENCE_S - 0.1)
    assert pair.order.overdue(pair.now + PATIENCE_S)
    pair.take(pair.order.give_up(pair.now))
    assert pair.got == [("a", 1), ("a", 3), ("a", 5)]
    assert pair.gaps == [Gap("cam", "a", 2, 2, NO_ANSWER), Gap("cam", "a", 4, 4, NO_ANSWER)]
    assert not pair.order.busy


def test_nothing_is_given_up_while_our_own_connection_is_away() -> None:
    pair = Pair()
    for lost in (False, True, False):
        pair.send("a", lost=lost)
    pair.order.questions(ME, pair.now)
    pair.order.went_deaf(pair.now)
    assert not pair.order.overdue(pair.now + 100)
    assert pair.order.questions(ME, pair.now) == {}
    pair.answer(pair.order.came_back(ME, pair.now + 100))
    assert pair.got == [("a", 1), ("a", 2), ("a", 3)]


def test_sources_that_do_not_answer_after_an_outage_are_named_once() -> None:
    pair = Pair()
    pair.send("a")
    pair.outage()
    assert pair.order.silent(pair.now - 1) == []
    assert pair.order.silent(pair.now) == ["cam"]
    assert pair.order.silent(pair.now) == []
    pair.send("a")
    pair.order.left(NODE)
    pair.outage()
    assert pair.order.silent(pair.now) == []


def test_more_than_can_be_held_ends_the_waiting() -> None:
    pair = Pair(order=Order(count=3))
    pair.send("a")
    pair.send("a", lost=True)
    for _ in range(4):
        pair.send("a")
    assert pair.gaps == [Gap("cam", "a", 2, 2, TOO_MUCH)]
    assert [number for _, number in pair.got] == [1, 3, 4, 5, 6]


def test_a_topic_that_is_listened_to_no_more_and_then_again_has_missed_nothing() -> None:
    pair = Pair()
    pair.send("a")
    pair.order.unlisten("#", [("a", False)])
    pair.send("a", lost=True)
    pair.order.listen("#", pair.now)
    pair.send("a")
    assert pair.got == [("a", 1), ("a", 3)]
    assert not pair.order.busy


@pytest.mark.parametrize("value", [None, 3, {}, {"by": 1}, {"by": "x", "last": [], "filters": {}, "holes": {}}])
def test_what_is_not_a_question_is_ignored(value: object) -> None:
    assert Ask.from_value(value) is None
    assert Resent.from_value("a", value) is None


AFTERWARDS = st.sampled_from(["", "", "out", "ask"])
STEPS = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([0, 1, 1]), st.booleans(), AFTERWARDS),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(2, 100), st.integers(1, 100), st.lists(st.booleans(), max_size=40))
def test_whatever_gets_lost_every_number_is_handed_on_in_order_or_reported(
    steps: list[tuple[str, int, bool, str]], keeps: int, holds: int, lost_again: list[bool]
) -> None:
    pair = Pair(history=History(count=keeps), order=Order(count=holds))
    losses = deque([*lost_again, *[False] * 100_000])
    pair.send("a")
    pair.send("b")
    for topic, qos, lost, then in steps:
        pair.send(topic, qos, lost=lost)
        if then == "ask":
            pair.settle(losses)
        elif then == "out":
            pair.answer(pair.outage(), losses)
    losses.clear()
    pair.answer(pair.outage())
    pair.settle()
    pair.assert_accounted()


def test_what_was_sent_while_the_question_was_on_its_way_counts_as_missed() -> None:
    history = History()
    history.note("t", 1, b"", b"", 10.0)
    asked_at = 10.5
    ask = Ask("receiver", {}, {"t": 0.6}, {})  # it has listened since 9.9
    arrived_at = asked_at + 3.0
    [late] = history.answer(ask, "node", lambda name, topic: name == topic, arrived_at)
    assert late.messages == [] or late.messages == ()
    [right] = history.answer(ask.older(3.0), "node", lambda name, topic: name == topic, arrived_at)
    assert [message.sequence for message in right.messages] == [1]


@pytest.mark.parametrize(
    ("asked", "now", "took_s"), [(100.0, 103.0, 3.0), (100.0, 99.0, 2.0), (100.0, 500.0, 2.0), ("x", 1.0, 2.0)]
)
def test_how_long_a_question_took_where_clocks_differ(asked: object, now: float, took_s: float) -> None:
    assert seconds_on_the_way(asked, now) == took_s
