"""What a sender keeps and a receiver misses: nothing is lost, doubled or out of order without being reported."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lanes import examples

from ether.protocol.reorder_buffer import (
    ASKS,
    LONGEST_S,
    NO_ANSWER,
    PATIENCE_S,
    TOO_OLD,
    Gap,
    ReorderBuffer,
    Sorted,
    Verdict,
)
from ether.protocol.retransmit_buffer import ANSWER_COUNT, Ask, Resent, RetransmitBuffer, seconds_on_the_way
from ether.protocol.sent_log import OVERHEAD_BYTES
from ether.wire.topics import matches

NODE, ME = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
TICK_S = 0.25
SLACK_S = (ASKS + 3) * TICK_S
"""Each step of an exchange may wait for a tick."""


@dataclass
class Pair:
    """A sender and a receiver, and a network between them that a test may let lose things."""

    history: RetransmitBuffer = field(default_factory=RetransmitBuffer)
    order: ReorderBuffer[tuple[str, int]] = field(default_factory=ReorderBuffer)
    got: list[tuple[str, int]] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
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

    def conclude(self, verdict: Verdict[tuple[str, int]]) -> None:
        self.take(verdict.sorted)
        self.doubtful += verdict.doubtful

    def answer(self, ask: Ask | None, losses: deque[bool] | None = None) -> None:
        """The sender answers; what is sent again may get lost, too."""
        again = Ask.from_value(ask.to_value()) if ask is not None else None
        if again is None:
            return
        self.history.tend({}, self.now)
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


class Part(enum.Enum):
    """Of the exchange about what is missing: each of them may get lost."""

    QUESTION = "question"
    MESSAGE = "message that is sent again"
    ANSWER = "answer"
    ECHO = "echo"


@dataclass
class Exchange:
    """The exchange between a pair as time goes by. `lost` says of each part, in order, whether it gets lost; the later
    ones do not. `meanwhile` is called at each tick."""

    pair: Pair
    lost: dict[Part, list[bool]]
    meanwhile: Callable[[], object] = lambda: None
    echo_takes_s: float = 0.0
    echoes: list[float] = field(default_factory=list)

    def run(self, at_most_s: float = 2 * LONGEST_S) -> float:
        """Until nothing waits; after how many seconds that was."""
        pair, began = self.pair, self.pair.now
        while pair.order.busy:
            assert pair.now <= began + at_most_s, "something waits for ever"
            questions = pair.order.questions(ME, pair.now)
            says = pair.order.says(pair.now)
            pair.conclude(pair.order.expired(pair.now))
            for ask in questions.values():
                self._answer(ask)
            if says and not self._loses(Part.ECHO):
                self.echoes.append(pair.now)
            while self.echoes and self.echoes[0] + self.echo_takes_s <= pair.now:
                pair.conclude(pair.order.echoed(self.echoes.pop(0), pair.now))
            self.meanwhile()
            pair.now += TICK_S
        return pair.now - began

    def _answer(self, ask: Ask) -> None:
        if self._loses(Part.QUESTION):
            return
        answers = self.pair.history.answer(ask, NODE, matches, self.pair.now)
        for message in (message for answer in answers for message in answer.messages):
            if not self._loses(Part.MESSAGE):
                self.pair.arrive(message.topic, message.sequence)
        if answers and not self._loses(Part.ANSWER):
            self.pair.take(self.pair.order.answered(NODE, answers, self.pair.now))

    def _loses(self, part: Part) -> bool:
        fates = self.lost.get(part)
        return bool(fates) and fates.pop(0)  # type: ignore[union-attr]


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
    pair = Pair(history=RetransmitBuffer(count=3))
    pair.send("a")
    for _ in range(9):
        pair.send("a", lost=True)
    pair.send("a")
    pair.settle()
    assert pair.gaps == [Gap("cam", "a", 2, 8, TOO_OLD)]
    assert pair.got == [("a", 1), ("a", 9), ("a", 10), ("a", 11)]


@pytest.mark.parametrize("limits", [{"size": 35 + 3 * OVERHEAD_BYTES}, {"age_s": 0.0035}])
def test_bytes_and_age_are_limits_too(limits: dict[str, float]) -> None:
    pair = Pair(history=RetransmitBuffer(**limits))  # type: ignore[arg-type]
    pair.send("a")
    for _ in range(9):
        pair.send("a", lost=True)
    pair.send("a")
    pair.settle()
    assert [gap.first for gap in pair.gaps] == [2]
    assert 3 <= len(pair.got) <= 6
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
    pair.order = ReorderBuffer()
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
    asked_at = pair.now
    for ask in range(1, ASKS + 1):
        assert list(pair.order.questions(ME, pair.now)) == [NODE]
        assert not pair.order.says(asked_at + ask * PATIENCE_S / ASKS - 0.1)
        pair.now = asked_at + ask * PATIENCE_S / ASKS
        assert pair.got == [("a", 1)]
        assert pair.order.says(pair.now)
        assert not pair.order.says(pair.now)
        pair.conclude(pair.order.echoed(pair.now, pair.now))
    assert pair.now == asked_at + PATIENCE_S
    assert pair.got == [("a", 1), ("a", 3), ("a", 5)]
    assert pair.gaps == [Gap("cam", "a", 2, 2, NO_ANSWER), Gap("cam", "a", 4, 4, NO_ANSWER)]
    assert not pair.order.busy


def test_nothing_is_given_up_while_our_own_connection_is_away() -> None:
    pair = Pair()
    for lost in (False, True, False):
        pair.send("a", lost=lost)
    pair.order.questions(ME, pair.now)
    pair.order.went_deaf(pair.now)
    assert not pair.order.says(pair.now + 100)
    assert pair.order.expired(pair.now + 100) == Verdict(Sorted([], []), [])
    assert pair.order.questions(ME, pair.now) == {}
    pair.answer(pair.order.came_back(ME, pair.now + 100))
    assert pair.got == [("a", 1), ("a", 2), ("a", 3)]


def test_sources_that_do_not_answer_after_an_outage_are_named_once() -> None:
    pair = Pair()
    pair.send("a")
    pair.outage()
    exchange = Exchange(pair, {Part.QUESTION: [True] * 9})
    assert exchange.run() <= PATIENCE_S + SLACK_S
    assert pair.doubtful == ["cam"]
    pair.send("a", lost=True)
    pair.send("a")
    Exchange(pair, {}).run()
    assert pair.got == [("a", 1), ("a", 2), ("a", 3)]
    pair.outage()
    exchange.run()
    assert pair.doubtful == ["cam", "cam"]
    for _ in range(2):  # forgotten, and therefore not asked for what it may have sent meanwhile
        pair.outage()
        exchange.run()
    assert pair.doubtful == ["cam", "cam"]
    assert pair.order.topics == set()
    pair.send("a")
    pair.order.left(NODE)
    pair.outage()
    exchange.run()
    assert pair.doubtful == ["cam", "cam"]


def test_what_cannot_be_held_is_asked_for_later() -> None:
    pair = Pair(order=ReorderBuffer(count=3))
    pair.send("a")
    pair.send("a", lost=True)
    for _ in range(20):
        pair.send("a")
    assert [number for _, number in pair.got] == [1]
    assert pair.order.held == 3
    pair.settle()
    assert [number for _, number in pair.got] == list(range(1, 23))
    assert pair.gaps == []


def test_no_more_is_asked_for_than_there_is_room() -> None:
    pair = Pair()
    pair.send("a")
    for _ in range(20):
        pair.send("a", lost=True)
    pair.send("a")
    assert pair.order.questions(ME, pair.now, lambda topic: 0) == {}
    [ask] = pair.order.questions(ME, pair.now, lambda topic: 5).values()
    assert ask.holes == {"a": (1, 6)}
    pair.answer(ask)
    assert [number for _, number in pair.got] == list(range(1, 7))
    pair.settle()
    assert [number for _, number in pair.got] == list(range(1, 23))


def test_who_is_paused_takes_what_exists_at_its_own_pace_and_then_the_rest() -> None:
    pair = Pair()
    pair.send("a")
    assert pair.order.pause(["a"]) == ["#"]
    assert pair.order.pause(["a"]) == []
    for _ in range(10):
        pair.send("a", lost=True)
    assert pair.order.news() == {NODE: {"a": 1}}
    assert pair.order.news() == {NODE: {"a": 1}}, "the source is asked how far it is"
    assert pair.order.heard_heads(NODE, {"a": 11}, ["a"], ME, pair.now) is None
    assert pair.order.missing() == {"a": 10}
    assert pair.order.caught_up() == []
    [ask] = pair.order.questions(ME, pair.now, lambda topic: 4).values()
    pair.send("a", lost=True)  # the answer tells of it
    pair.answer(ask)
    assert [number for _, number in pair.got] == [1, 2, 3, 4, 5]
    assert pair.order.missing() == {"a": 7}
    pair.settle()
    assert pair.order.caught_up() == ["#"]
    pair.send("a", lost=True)  # just before the subscription is back
    pair.send("b", lost=True)
    pair.answer(pair.order.resume(["#"], ME, pair.now))
    assert pair.order.resume(["#"], ME, pair.now) is None
    pair.send("a")
    pair.settle()
    assert pair.got == [*(("a", number) for number in range(1, 14)), ("b", 1), ("a", 14)]
    assert pair.order.pulled == set()


def test_another_filter_that_is_not_paused_still_brings_messages() -> None:
    pair = Pair()
    pair.order.listen("a", pair.now)
    pair.order.listen("b/#", pair.now)
    pair.send("a")
    pair.send("b/c")
    pair.order.unlisten("#", [("a", True), ("b/c", True)])
    assert pair.order.pause(["b/c"]) == ["b/#"]
    assert pair.order.pulled == {"b/c"}
    assert pair.order.unlisten("b/#", [("a", True), ("b/c", False)]) == {NODE: ["b/c"]}
    assert pair.order.paused == []


def test_answers_give_each_topic_its_share() -> None:
    pair = Pair()
    topics = [f"t{number}" for number in range(10)]
    for topic in topics:
        for _ in range(3 * ANSWER_COUNT // 10):
            pair.send(topic, lost=True)
    ask = pair.outage()
    pair.answer(ask)
    assert {topic for topic, _ in pair.got} == set(topics)
    pair.settle()
    pair.assert_accounted()
    assert pair.gaps == []


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


ONCE, ALWAYS = [True], [True] * 10_000
AGAIN_S = PATIENCE_S / ASKS + SLACK_S
"""By when a question was asked again, and answered."""


def with_holes() -> Pair:
    """Number 2 was lost at QoS 1, and 4 at QoS 0."""
    pair = Pair()
    for lost, qos in ((False, 1), (True, 1), (False, 1), (True, 0), (False, 1)):
        pair.send("a", qos, lost=lost)
    return pair


@pytest.mark.parametrize("part", Part)
def test_a_hole_is_filled_whichever_part_of_the_exchange_gets_lost_once(part: Part) -> None:
    pair = with_holes()
    assert Exchange(pair, {part: [*ONCE]}).run() <= AGAIN_S
    assert pair.got == [("a", 1), ("a", 2), ("a", 3), ("a", 5)]
    assert pair.gaps == []


@pytest.mark.parametrize("part", [Part.QUESTION, Part.ANSWER])
def test_a_hole_is_filled_where_the_first_echo_is_lost_as_well(part: Part) -> None:
    pair = with_holes()
    assert Exchange(pair, {part: [*ONCE], Part.ECHO: [*ONCE]}).run() <= PATIENCE_S + SLACK_S
    assert pair.got == [("a", 1), ("a", 2), ("a", 3), ("a", 5)]
    assert pair.gaps == []


@pytest.mark.parametrize(("part", "gaps"), [(Part.QUESTION, [2, 4]), (Part.ANSWER, [4]), (Part.MESSAGE, [2])])
@pytest.mark.parametrize(("echoes", "longest_s"), [([], PATIENCE_S), (ALWAYS, LONGEST_S)])
def test_a_hole_ends_and_is_reported_where_a_part_gets_lost_each_time(
    part: Part, gaps: list[int], echoes: list[bool], longest_s: float
) -> None:
    pair = with_holes()
    assert Exchange(pair, {part: [*ALWAYS], Part.ECHO: [*echoes]}).run() <= longest_s + SLACK_S
    assert [gap.first for gap in pair.gaps] == gaps
    assert pair.got == [("a", number) for number in range(1, 6) if number not in (2, 4)] or part is Part.ANSWER
    pair.assert_accounted()


def test_what_a_source_publishes_meanwhile_is_no_sign_of_an_answer() -> None:
    pair = with_holes()
    exchange = Exchange(pair, {Part.QUESTION: [True] * ASKS}, lambda: pair.send("a"))
    assert exchange.run() <= PATIENCE_S + SLACK_S
    assert [gap.first for gap in pair.gaps] == [2, 4]
    pair.assert_accounted()


def test_a_broker_that_stands_still_gives_nobody_up() -> None:
    pair = with_holes()
    for _ in range(ASKS):
        pair.order.questions(ME, pair.now)  # on its way
    said: list[float] = []
    while len(said) < 10:
        pair.now += TICK_S
        said += [pair.now] if pair.order.says(pair.now) else []
        pair.conclude(pair.order.expired(pair.now))
    for said_at in said:
        pair.conclude(pair.order.echoed(said_at, pair.now))
    assert pair.got == [("a", 1)]
    Exchange(pair, {}).run()
    assert pair.got == [("a", 1), ("a", 2), ("a", 3), ("a", 5)]
    assert pair.gaps == []


@pytest.mark.parametrize("part", [Part.QUESTION, Part.ANSWER, Part.MESSAGE])
def test_what_a_source_says_it_has_sent_is_asked_for_again(part: Part) -> None:
    pair = Pair()
    pair.send("a")
    pair.send("a", lost=True)
    heads = pair.history.heads()
    assert pair.order.heard_heads(NODE, heads, list(heads), ME, pair.now) is None, "it knows where to begin"
    assert Exchange(pair, {part: [*ONCE]}).run() <= AGAIN_S
    assert pair.got == [("a", 1), ("a", 2)]
    pair.send("a", lost=True)
    heads = pair.history.heads()
    pair.order.heard_heads(NODE, heads, list(heads), ME, pair.now)
    assert Exchange(pair, {Part.QUESTION: [*ALWAYS]}).run() <= PATIENCE_S + SLACK_S
    assert pair.gaps == [Gap("cam", "a", 3, 3, NO_ANSWER)]


@pytest.mark.parametrize("part", [Part.QUESTION, Part.ANSWER, Part.MESSAGE])
def test_after_an_outage_sources_are_asked_again(part: Part) -> None:
    pair = Pair()
    pair.send("a")
    pair.order.went_deaf(pair.now)
    for topic in ("a", "new"):
        pair.send(topic, lost=True)
    ask = pair.order.came_back(ME, pair.now)
    exchange = Exchange(pair, {part: [*ONCE]})
    exchange._answer(ask)
    pair.send("new")
    assert exchange.run() <= PATIENCE_S + SLACK_S
    assert sorted(pair.got) == [("a", 1), ("a", 2), ("new", 1), ("new", 2)]
    assert pair.gaps == []
    assert pair.doubtful == []


def test_who_was_never_heard_before_an_outage_and_does_not_answer_is_named_if_it_sends() -> None:
    pair = Pair()
    pair.outage()
    pair.send("a", lost=True)
    pair.send("a")
    assert Exchange(pair, {Part.QUESTION: [*ALWAYS]}).run() <= PATIENCE_S + SLACK_S
    assert pair.got == [("a", 2)]
    assert pair.doubtful == ["cam"]


def test_a_source_that_publishes_at_qos_0_only_answers_too() -> None:
    pair = Pair()
    pair.send("a", 0)
    ask = pair.outage()
    pair.send("a", 0, lost=True)
    exchange = Exchange(pair, {})
    exchange._answer(ask)
    exchange.run()
    assert pair.doubtful == []
    pair.send("a", 0)
    exchange.run()
    assert pair.got == [("a", 1), ("a", 3)]
    assert pair.gaps == []


LOSSES = st.dictionaries(st.sampled_from(Part), st.lists(st.booleans(), max_size=60))


@settings(max_examples=examples(300), deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([0, 1, 1]), st.booleans()), max_size=30),
    LOSSES,
    st.booleans(),
    st.floats(0, 10),
)
def test_whatever_gets_lost_of_the_exchange_every_hole_ends(
    sends: list[tuple[str, int, bool]], lost: dict[Part, list[bool]], out: bool, echo_takes_s: float
) -> None:
    pair = Pair()
    pair.send("a")
    pair.send("b")
    exchange = Exchange(pair, lost, echo_takes_s=echo_takes_s)
    if out:
        exchange._answer(pair.outage())
    later = deque(sends[15:])
    exchange.meanwhile = lambda: pair.send(later[0][0], later[0][1], lost=later.popleft()[2]) if later else None
    for topic, qos, is_lost in sends[:15]:
        pair.send(topic, qos, lost=is_lost)
    exchange.run(5 * LONGEST_S)
    while later:
        exchange.meanwhile()
    pair.send("a")
    pair.send("b")
    exchange.run(5 * LONGEST_S)
    pair.assert_accounted()


AFTERWARDS = st.sampled_from(["", "", "out", "ask"])
STEPS = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([0, 1, 1]), st.booleans(), AFTERWARDS),
    max_size=60,
)


@settings(max_examples=examples(300), deadline=None)
@given(STEPS, st.integers(2, 100), st.integers(1, 100), st.lists(st.booleans(), max_size=40))
def test_whatever_gets_lost_every_number_is_handed_on_in_order_or_reported(
    steps: list[tuple[str, int, bool, str]], keeps: int, holds: int, lost_again: list[bool]
) -> None:
    pair = Pair(history=RetransmitBuffer(count=keeps), order=ReorderBuffer(count=holds))
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
    history = RetransmitBuffer()
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


def test_a_receiver_knows_what_it_lacks_of_what_a_source_says_it_has_sent() -> None:
    """For the end of a session: nothing is at rest while something is on its way."""
    pair = Pair()
    for _ in range(3):
        pair.send("a")
    pair.send("a", lost=True)
    pair.send("b", lost=True)
    heads = pair.history.heads()
    assert heads == {"a": 4, "b": 1}
    assert pair.order.behind(NODE, heads) == {"a": False, "b": False}
    pair.answer(pair.order.heard_heads(NODE, heads, list(heads), ME, pair.now))
    pair.settle()
    assert pair.order.behind(NODE, heads) == {}
    assert pair.got == [("a", 1), ("a", 2), ("a", 3), ("a", 4), ("b", 1)]


def test_what_was_asked_for_is_not_asked_for_again_at_once() -> None:
    pair = Pair()
    pair.send("a", lost=True)
    heads = pair.history.heads()
    assert pair.order.heard_heads(NODE, heads, list(heads), ME, pair.now) is not None
    assert pair.order.behind(NODE, heads) == {"a": True}


def test_a_source_of_which_nothing_has_come_yet_is_named_in_the_gap() -> None:
    pair = Pair(history=RetransmitBuffer(count=1, backlog_bytes=0))
    for _ in range(40):
        pair.send("a", lost=True)
    pair.history.tend({}, pair.now)
    heads = pair.history.heads()
    pair.answer(pair.order.heard_heads(NODE, heads, list(heads), ME, pair.now, "cam"))
    assert {gap.source for gap in pair.gaps} == {"cam"}


def test_an_answer_to_an_earlier_question_is_no_reason_to_ask_again() -> None:
    """A source that is slow to answer was asked twice. Each late answer was followed by one question more, so that all
    was sent again and again, and the more so the slower it was."""
    pair = Pair()
    pair.send("a")
    for _ in range(20):
        pair.send("a", lost=True)
    pair.send("a")

    def ask() -> Ask:
        [question] = pair.order.questions(ME, pair.now, lambda topic: 5).values()
        return question

    first = ask()
    pair.now += PATIENCE_S
    pair.conclude(pair.order.echoed(pair.now, pair.now))
    again = ask()
    assert again.holes == first.holes == {"a": (1, 6)}
    pair.answer(first)
    following = ask()
    assert following.holes == {"a": (6, 11)}
    pair.answer(again)
    assert pair.order.questions(ME, pair.now, lambda topic: 5) == {}
    pair.answer(following)
    assert ask().holes == {"a": (11, 16)}
    assert [number for _, number in pair.got] == list(range(1, 12))


def test_a_question_that_is_lost_behind_a_late_answer_is_asked_again() -> None:
    pair = Pair()
    pair.send("a")
    for _ in range(10):
        pair.send("a", lost=True)
    assert pair.order.questions(ME, pair.now) == {}, "nothing tells that there is more"
    pair.send("a")
    [first] = pair.order.questions(ME, pair.now, lambda topic: 5).values()
    pair.answer(first)
    assert pair.order.questions(ME, pair.now, lambda topic: 5) != {}, "this one is lost"
    pair.answer(first)
    pair.now += PATIENCE_S
    pair.conclude(pair.order.echoed(pair.now, pair.now))
    pair.settle()
    assert [number for _, number in pair.got] == list(range(1, 13))
    assert pair.gaps == []


def test_of_two_questions_about_holes_the_later_ends_of_each_topic_count() -> None:
    earlier = Ask(ME, {}, {}, {"a": (1, 6), "b": (3, 4), "c": (9, 12)})
    later = Ask(ME, {}, {}, {"a": (6, 11), "c": (2, 5)})
    assert later.with_earlier(earlier).holes == {"a": (6, 11), "b": (3, 4), "c": (9, 12)}


def test_a_source_that_is_started_together_with_its_receiver_is_heard_from_its_first_message_on() -> None:
    """It is asked for what it sent before the receiver listened; any other source begins with what comes first."""
    order: ReorderBuffer[int] = ReorderBuffer()
    order.expect(["cam"], 1000.0)
    order.listen("t", 1005.0)
    order.taken_over()
    assert order.arrived("t", "cccccccccccc", "other", 7, 7, 1, 1006.0) == ([7], [])
    assert order.arrived("t", NODE, "cam", 3, 3, 1, 1006.0) == ([], [])
    asks = order.questions(ME, 1006.0)
    assert asks == {NODE: Ask(ME, {}, {"t": 6.0}, {})}
    history = RetransmitBuffer(began=1001.0)
    for number in (1, 2, 3):
        history.note("t", number, b"x", b"", 1001.0 + number)
    [answer] = history.answer(asks[NODE], NODE, matches, 1006.0)
    assert [message.sequence for message in answer.messages] == [1, 2, 3]
    for message in answer.messages[:2]:
        assert order.arrived("t", NODE, "cam", message.sequence, message.sequence, 1, 1006.1) == ([], [])
    assert order.answered(NODE, [answer], 1006.2) == ([1, 2, 3], [])


def test_what_a_source_does_not_keep_since_the_common_start_is_a_gap_from_its_first_message_on() -> None:
    history = RetransmitBuffer(count=10, began=1001.0)
    for number in range(1, 31):
        history.note("t", number, b"x", b"", 1001.0 + number)
    history.tend({}, 1032.0)
    order: ReorderBuffer[int] = ReorderBuffer()
    order.expect(["cam"], 1000.0)
    order.listen("t", 1032.0)
    order.arrived("t", NODE, "cam", 31, 31, 1, 1033.0)
    [answer] = history.answer(order.questions(ME, 1033.0)[NODE], NODE, matches, 1033.0)
    first = answer.messages[0].sequence
    for message in answer.messages:
        order.arrived("t", NODE, "cam", message.sequence, message.sequence, 1, 1033.1)
    result = order.answered(NODE, [answer], 1033.2)
    assert result.gaps == [Gap("cam", "t", 1, first - 1, TOO_OLD)]
    assert result.ready == list(range(first, 32))


def test_a_late_number_does_not_make_forget_what_is_still_missing_and_a_gap_is_told_once() -> None:
    """8 are given up, 9 to 20 are still to come; then 7 comes after all."""
    order: ReorderBuffer[int] = ReorderBuffer()
    order.listen("t", 0.0)
    order.expect(["cam"], 0.0)
    assert order.arrived("t", NODE, "cam", 1, 1, 1, 0.1).ready in ([1], [])
    row = order._rows["t", NODE]
    row.last = 1
    order.heard_heads(NODE, {"t": 20}, ["t"], ME, 0.2, "cam")
    told = row.gap(8, TOO_OLD)
    row.pass_over(8)
    assert told == [Gap("cam", "t", 2, 8, TOO_OLD)]
    assert order.arrived("t", NODE, "cam", 7, 7, 1, 0.3).ready == [7]
    assert (row.last, row.target, row.waiting) == (7, 20, True)
    assert row.gap(20, TOO_OLD) == [Gap("cam", "t", 9, 20, TOO_OLD)]
    assert row.gap(20, TOO_OLD) == []
