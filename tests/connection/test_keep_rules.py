"""Which of the messages that wait are handled: decisions without threads, and the mailbox that carries them out."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ether.config.keep import Keep
from ether.connection.inbound import Inbound
from ether.connection.keep_rules import TELL_EVERY_S, Skipped, SkippedLog, WaitingMessages
from ether.connection.mailbox import Mailbox
from ether.protocol.message_age import MessageAges
from ether.transport.base import Delivery
from ether.wire.envelope import EnvelopeV5, EnvelopeV311
from ether.wire.head import Headers

LATEST, NEWEST_3, YOUNG = Keep(1), Keep(3), Keep(None, 0.5)


def fill(waiting: WaitingMessages[Any], key: str, items: Any, now: float = 0.0) -> int:
    """Put them in; the number of turns that were asked for."""
    return sum(waiting.put(key, item, now, now).ask for item in items)


def empty(waiting: WaitingMessages[Any], key: str, turns: int, now: float = 0.0) -> list[Any]:
    """What so many turns handle."""
    taken = [waiting.take(key, now).item for _ in range(turns)]
    return [item for item in taken if item is not None]


def test_latest_is_the_newest_of_each_row_with_one_turn() -> None:
    waiting: WaitingMessages[Any] = WaitingMessages(LATEST)
    assert fill(waiting, "a", range(100)) == 1
    assert fill(waiting, "b", "xyz") == 1
    assert empty(waiting, "a", 1) == [99]
    assert empty(waiting, "b", 1) == ["z"]
    assert waiting.skipped == Skipped(99 + 2, 0)
    assert fill(waiting, "a", [100]) == 1, "a row that was emptied asks again"


def test_the_newest_n_come_in_their_order() -> None:
    waiting: WaitingMessages[Any] = WaitingMessages(NEWEST_3)
    assert fill(waiting, "a", range(10)) == 3
    assert empty(waiting, "a", 3) == [7, 8, 9]
    assert waiting.skipped == Skipped(7, 0)


def test_what_is_displaced_is_given_back_at_once() -> None:
    waiting: WaitingMessages[Any] = WaitingMessages(LATEST)
    assert waiting.put("a", 1, 0.0, 0.0) == ([], True)
    assert waiting.put("a", 2, 0.0, 0.0) == ([1], False)


def test_what_is_too_old_is_skipped_when_its_turn_comes() -> None:
    waiting: WaitingMessages[Any] = WaitingMessages(YOUNG)
    assert [waiting.put("a", n, n / 10, n / 10).ask for n in range(3)] == [True, True, True]
    assert waiting.take("a", 0.55) == (1, [0])
    assert waiting.take("a", 0.71) == (None, [2])
    assert waiting.take("a", 0.71) == (None, []), "its message was skipped in an earlier turn"
    assert waiting.skipped == Skipped(0, 2)


def test_what_is_too_old_when_it_comes_asks_for_no_turn() -> None:
    waiting: WaitingMessages[Any] = WaitingMessages(YOUNG)
    assert waiting.put("a", "stale", 0.0, 1.0) == (["stale"], False)
    assert waiting.idle_turns == 0


def test_a_busy_reader_of_young_messages_holds_few_and_asks_for_few_turns() -> None:
    """The handler takes a minute, at 100 messages a second: neither messages nor turns pile up."""
    waiting: WaitingMessages[Any] = WaitingMessages(YOUNG)
    turns, skipped = 0, 0
    for n in range(6000):
        put = waiting.put("a", n, n / 100, n / 100)
        turns += put.ask
        skipped += len(put.skipped)
    assert turns <= 52
    assert skipped >= 6000 - 52


@given(
    keep=st.builds(Keep, st.none() | st.integers(1, 4), st.none() | st.floats(0.5, 5.0)),
    steps=st.lists(st.tuples(st.sampled_from("abT"), st.floats(0.0, 2.0)), max_size=60),
)
def test_nothing_is_lost_uncounted_and_order_holds(keep: Keep, steps: list[tuple[str, float]]) -> None:
    """`a` and `b` bring a message, `T` is a turn. Each message is handled once or skipped once, in its row's order."""
    waiting: WaitingMessages[tuple[str, int]] = WaitingMessages(keep)
    turns: list[str] = []
    sent: dict[str, int] = defaultdict(int)
    handled: dict[str, list[int]] = defaultdict(list)
    skipped: list[tuple[str, int]] = []
    now = 0.0
    for what, passes_s in [*steps, *[("T", 0.0)] * 60]:
        now += passes_s
        if what != "T":
            sent[what] += 1
            put = waiting.put(what, (what, sent[what]), now, now)
            skipped += put.skipped
            turns += [what] * put.ask
        elif turns:
            taken = waiting.take(turns.pop(0), now)
            skipped += taken.skipped
            if taken.item is not None:
                handled[taken.item[0]].append(taken.item[1])
    assert not turns
    assert waiting.idle_turns == 0
    assert waiting.skipped.total == len(skipped) == len(set(skipped))
    for key, numbers in handled.items():
        assert numbers == sorted(set(numbers))
        assert {*numbers, *(n for row, n in skipped if row == key)} == set(range(1, sent[key] + 1))
    if keep == Keep():
        assert not skipped


# -- what the log says


def test_the_log_gets_a_line_at_the_first_and_then_sums() -> None:
    log = SkippedLog("keep=latest, max_age=0.5s")
    assert log.line(Skipped(), 0.0) is None
    first = log.line(Skipped(3, 0), 1.0)
    assert first == "skipped 3 messages (keep=latest, max_age=0.5s): 3 replaced by newer ones"
    assert [log.line(Skipped(n, 0), 1.0 + n / 100) for n in range(4, 1000)] == [None] * 996
    later = log.line(Skipped(1200, 4), 1.0 + TELL_EVERY_S)
    assert later is not None
    assert "skipped 1,201 messages" in later
    assert "1,197 replaced by newer ones, 4 too old; 1,204 in all" in later
    assert log.line(Skipped(1200, 4), 1000.0) is None, "nothing new"
    assert log.line(Skipped(1201, 4), 1000.0 + 1) is not None
    assert log.line(Skipped(1202, 4), 1000.0 + 2) is None
    assert log.line(Skipped(1202, 4), 1000.0 + 2, last=True) is not None


# -- the mailbox


def inbound(number: int, *, topic: str = "t", source: str | None = "cam", sent: float = 0.0, size: int = 1,
            envelope: Any = None, done: Any = None) -> Inbound:  # fmt: skip
    """A message of a source, or a foreign one; `done` gets the delivery when it is done with."""
    if source is None:
        delivery = Delivery(topic, b"%d" % number, 0, False)
    else:
        head = Headers(f"00000000-0000-7000-8000-{sum(source.encode()):012x}", source, number, sent, ())
        packed = (envelope or EnvelopeV5()).pack({"n": number, "fill": "x" * size}, head)
        delivery = Delivery(topic, packed.payload, 1, False, packed.properties)
    return Inbound(delivery, 1, threading.Lock(), done or (lambda delivery: None))


@pytest.mark.parametrize("envelope", [EnvelopeV5(), EnvelopeV311()], ids=["5", "3.1.1"])
@pytest.mark.parametrize("size", [1, 1_000_000], ids=["small", "large"])
def test_a_skipped_message_is_done_with_at_once(envelope: Any, size: int) -> None:
    done: list[Delivery] = []
    mailbox = Mailbox(LATEST, MessageAges())
    messages = [inbound(n, size=size, envelope=envelope, done=done.append) for n in range(1, 6)]
    turns = [mailbox.put(message) for message in messages]
    assert [turn is not None for turn in turns] == [True, False, False, False, False]
    assert done == [message.delivery for message in messages[:4]]
    assert turns[0] is not None
    assert mailbox.take(*turns[0]) is messages[4]
    assert len(done) == 4, "whoever takes a message is done with it later"


def test_of_a_wildcard_the_newest_of_each_topic_and_source_waits() -> None:
    mailbox = Mailbox(LATEST, MessageAges())
    rows = [("a", "cam"), ("b", "cam"), ("a", "cam2"), ("a", None)]
    turns = [
        turn for n in (1, 2) for topic, source in rows if (turn := mailbox.put(inbound(n, topic=topic, source=source)))
    ]
    assert len(turns) == 4
    assert mailbox.skipped == Skipped(4, 0)


def test_a_foreign_message_is_as_old_as_its_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("ether.connection.mailbox.time", SimpleNamespace(monotonic=lambda: now[0]))
    mailbox = Mailbox(Keep(None, 0.5), MessageAges())
    turn = mailbox.put(inbound(1, source=None))
    assert turn is not None
    now[0] += 0.4
    assert mailbox.take(*turn) is not None
    turn = mailbox.put(inbound(2, source=None))
    assert turn is not None
    now[0] += 0.6
    assert mailbox.take(*turn) is None
    assert mailbox.skipped == Skipped(0, 1)


@pytest.mark.parametrize("off_s", [-10.0, 10.0, -1e9])
def test_a_senders_wrong_clock_throws_nothing_away(off_s: float) -> None:
    mailbox = Mailbox(Keep(None, 0.5), MessageAges())
    for n in range(1, 50):
        turn = mailbox.put(inbound(n, sent=time.time() + off_s))
        assert turn is not None
        assert mailbox.take(*turn) is not None
    assert mailbox.skipped == Skipped()


def test_closing_drops_what_waits() -> None:
    done: list[Delivery] = []
    mailbox = Mailbox(NEWEST_3, MessageAges())
    for n in range(1, 4):
        mailbox.put(inbound(n, done=done.append))
    mailbox.close()
    assert len(done) == 3
    assert mailbox.skipped == Skipped(), "nobody asked for it to be skipped"
