"""Rows that are made quickly are those that are made with care, byte for byte."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from ether.ledger.rows import Intake, OriginCache
from ether.wire.entries import Batch, Entry

ids = st.text("0123456789abcdef-", max_size=12) | st.text(max_size=4)
entries = st.builds(
    Entry,
    number=st.just(0),
    kind=st.sampled_from(["data", "record", "log", "gap"]),
    topic=st.sampled_from(["a", 'b/"ü"\\']),
    id=ids,
    seq=st.integers(-3, 1 << 65),
    time=st.floats() | st.integers(0, 9),  # type: ignore[arg-type]
    parents=st.lists(ids, max_size=3).map(tuple),
    context=st.sampled_from(["", "c" * 64]),
    content_type=st.sampled_from([None, "application/json"]),
    payload=st.binary(max_size=20),
    more=st.sampled_from([{}, {"run": 'r"\\ü'}, {"run": "r", "heard": ["a"]}, {"x": math.inf}]),
)
plain = st.builds(
    Entry,
    number=st.just(0),
    kind=st.just("data"),
    topic=st.sampled_from(["a", "b"]),
    id=st.uuids().map(str),
    seq=st.integers(0, 1 << 62),
    time=st.floats(allow_nan=False, allow_infinity=False),
    parents=st.lists(st.uuids().map(str), max_size=3).map(tuple),
    context=st.sampled_from(["", "c" * 64]),
    content_type=st.sampled_from([None, "application/json"]),
    payload=st.binary(max_size=20),
    more=st.sampled_from([{}, {"run": 'r"\\ü'}, {"run": "r", "heard": ["a"]}]),
)


def numbered(several: list[Entry], first: int) -> Batch:
    return Batch("ab" * 8, "camera", 99, tuple(entry._replace(number=first + n) for n, entry in enumerate(several)))


def rows_of(batches: list[Batch], *, careful: bool) -> tuple[object, ...]:
    intake = Intake(10, b"L" * 32, {}, OriginCache(3), 1764000000.25, careful=careful)
    for batch in batches:
        intake.take(batch)
    return intake.rows, intake.link, sorted(intake.parents), intake.outboxes, intake.origins


@given(st.lists(plain, max_size=6), st.lists(plain, max_size=3))
def test_ordinary_entries(several: list[Entry], more: list[Entry]) -> None:
    batches = [numbered(several, 1), numbered(more, 1 + len(several))]
    assert rows_of(batches, careful=False) == rows_of(batches, careful=True)


@given(st.lists(entries | plain, max_size=4))
def test_whatever_comes(several: list[Entry]) -> None:
    """Where the quick way gives up, the caller begins again with care; otherwise it has made the same."""
    batches = [numbered(several, 1)]
    try:
        quickly = rows_of(batches, careful=False)
        [dump.encode() for row in quickly[0] for dump in row if isinstance(dump, str)]  # type: ignore[attr-defined]
    except (UnicodeError, ValueError):
        return
    if all(abs(entry.seq) < 1 << 63 for entry in several):
        assert quickly == rows_of(batches, careful=True)
