"""Batches in parts, and how large a message to a recorder may be: decisions alone."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ether.errors import DecodeError
from ether.recording.message_size_rules import AROUND_BYTES, CAUTIOUS_BYTES, FORGET_S, SMALLEST_BYTES, MessageSize
from ether.wire import parts
from ether.wire.parts import HEAD_BYTES, PartsTable, body_bytes, in_parts, is_part

OUTBOX, OTHER = "0123456789abcdef", "fedcba9876543210"


def put_together(table: PartsTable, messages: list[bytes]) -> list[bytes]:
    return [whole for message in messages if (whole := table.add(message)) is not None]


@given(st.binary(max_size=500).filter(lambda batch: not is_part(batch)), st.integers(HEAD_BYTES + 1, 300))
def test_parts_make_the_batch_and_none_is_larger(batch: bytes, largest: int) -> None:
    messages = list(in_parts(batch, OUTBOX, largest))
    assert all(len(message) <= largest for message in messages)
    assert sum(map(body_bytes, messages)) == len(batch)
    if len(batch) <= largest:
        assert messages == [batch]
    else:
        table = PartsTable()
        assert put_together(table, messages) == [batch]
        assert table.waiting_bytes == 0


@given(st.data())
def test_what_is_lost_doubled_or_late_makes_no_wrong_batch(data: st.DataObject) -> None:
    """Whatever a network does: a batch that comes out is one that went in, and the next whole attempt comes through."""
    batches = [bytes([n]) * 400 for n in range(3)]
    attempts = [list(in_parts(batch, OUTBOX, 150)) for batch in batches]
    chance = random.Random(data.draw(st.integers(0, 10_000)))
    stream = [
        part
        for attempt in attempts
        for part in attempt
        if chance.random() < 0.8
        for _ in range(chance.choice((1, 1, 2)))
    ]
    if chance.random() < 0.3:
        chance.shuffle(stream)
    table = PartsTable()
    for whole in put_together(table, stream):
        assert whole in batches
    assert put_together(table, list(in_parts(batches[0], OUTBOX, 150))) == [batches[0]]


def test_outboxes_do_not_mix() -> None:
    table = PartsTable()
    mine, theirs = list(in_parts(b"m" * 400, OUTBOX, 150)), list(in_parts(b"t" * 400, OTHER, 150))
    stream = [part for pair in zip(mine, theirs, strict=True) for part in pair]
    assert put_together(table, stream) == [b"m" * 400, b"t" * 400]


def test_an_attempt_that_never_comes_together_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_BYTES", 1000)
    table = PartsTable()
    for n in range(50):
        first, *_ = in_parts(bytes(700), f"{n:016x}", 600)
        table.add(first)
        assert table.waiting_bytes <= 1000


@pytest.mark.parametrize(
    "garbage",
    [
        parts.MAGIC,
        parts.MAGIC + b"x" * 20,
        parts.MAGIC + bytes(24) + b"\0\0\0\1" + b"\0\0\0\1",
        parts.MAGIC + bytes(32),
    ],
)
def test_garbage_is_no_part(garbage: bytes) -> None:
    assert is_part(garbage)
    with pytest.raises(DecodeError):
        PartsTable().add(garbage)


# -- how large


def test_a_broker_that_refuses_in_words_is_tried_from_above() -> None:
    size = MessageSize()
    size.broker(1 << 28, tells=True)
    assert size.largest(0.0) == (1 << 28) - AROUND_BYTES
    limit, tries, now = 1_000_000, 0, 0.0
    message = 2_400_000
    while True:
        part = min(message, size.largest(now))
        tries += 1
        if part <= limit:
            size.passed(part)
            break
        assert size.refused(part, now)
    assert part == 600_000
    assert tries == 3
    assert size.largest(now) == 600_000
    assert size.largest(now + FORGET_S) == (1 << 28) - AROUND_BYTES, "it may have been raised"


def test_a_broker_that_cannot_refuse_in_words_gets_what_every_broker_takes() -> None:
    size = MessageSize()
    size.broker(1 << 28, tells=False)
    for _ in range(3):
        size.passed(CAUTIOUS_BYTES)  # it acknowledges what it drops, too
        assert size.largest(0.0) == CAUTIOUS_BYTES
    assert size.refused(CAUTIOUS_BYTES, 0.0)
    size.passed(CAUTIOUS_BYTES)
    assert size.largest(0.0) == CAUTIOUS_BYTES // 2


def test_an_announced_limit_counts() -> None:
    size = MessageSize()
    for tells in (True, False):
        size.broker(10_000, tells=tells)
        assert size.largest(0.0) == 10_000 - AROUND_BYTES


@given(st.lists(st.integers(1, 3_000_000), min_size=1, max_size=40))
def test_each_refusal_leads_to_a_smaller_one_until_the_smallest(sizes: list[int]) -> None:
    size = MessageSize()
    size.broker(1 << 28, tells=True)
    for message in sizes:
        part = min(message, size.largest(0.0))
        more = size.refused(part, 0.0)
        assert more == (part > SMALLEST_BYTES)
        assert size.largest(0.0) < part or size.largest(0.0) == SMALLEST_BYTES
