"""Entries and batches come back as they were, and nothing else comes back at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ether.errors import DecodeError
from ether.wire.entries import KINDS, Batch, Entry, pack_batch, pack_entries, pack_entry, unpack_batch, unpack_entries

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
entries = st.builds(
    Entry,
    number=st.integers(0, 1 << 62),
    kind=st.sampled_from(sorted(KINDS - {"signature"})),  # a recorder makes those, and takes them from nobody
    topic=texts,
    id=texts,
    seq=st.integers(0, 1 << 62),
    time=st.floats(allow_nan=False, allow_infinity=False),
    parents=st.lists(texts, max_size=3).map(tuple),
    context=texts,
    content_type=st.none() | texts,
    payload=st.binary(max_size=200),
    more=st.dictionaries(texts, st.integers(0, 9) | texts, max_size=3),
)


@given(st.lists(entries, min_size=1, max_size=6))
def test_a_block_comes_back(several: list[Entry]) -> None:
    assert unpack_entries(pack_entries(several)) == several


def test_what_entries_have_in_common_is_said_once() -> None:
    one = Entry(
        1,
        "data",
        "camera/frames",
        "0" * 36,
        1,
        1764000000.123456,
        (),
        "c" * 64,
        "application/json",
        b"{}",
        {"run": "r" * 30},
    )
    many = [one._replace(number=n, seq=n) for n in range(1, 101)]
    assert unpack_entries(pack_entries(many)) == many
    assert len(pack_entries(many)) < len(pack_entry(one)) + 100 * 50


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (0, "[-1]"),
        (0, "[1,2,3]"),
        (1, '["nonsense"]'),
        (5, "[[1]]"),
        (6, "[7]"),
        (9, "[-1,1]"),
        (3, '["a"]'),
        (3, "[]"),
    ],
)
def test_a_column_that_is_not_what_it_should_be_is_refused(column: int, value: str) -> None:
    columns = ["[1]", '["data"]', '["t"]', '["a","b"]', "[1]", "[[]]", '[""]', "[null]", "[{}]", "[0,0]"]
    columns[column] = value
    head = f"[{','.join(columns)}]".encode()
    opening = b'["abababababababab","camera",7,0]'
    batch = b"\x00EB2" + len(opening).to_bytes(4, "big") + bytes(4) + opening
    times = bytes(16)
    with pytest.raises(DecodeError):
        unpack_batch(batch + len(head).to_bytes(4, "big") + len(times).to_bytes(4, "big") + head + times)


@given(st.lists(entries, max_size=5))
def test_a_batch_comes_back(several: list[Entry]) -> None:
    blocks = [pack_entries(several[:2]), *map(pack_entry, several[2:])] if several else []
    packed = pack_batch("ab" * 8, "camera", 7, blocks, base=3)
    assert unpack_batch(packed) == Batch("ab" * 8, "camera", 7, tuple(several), 3)


@given(st.lists(entries, min_size=1, max_size=3), st.data())
def test_a_damaged_batch_is_refused_or_still_a_batch(several: list[Entry], data: st.DataObject) -> None:
    packed = bytearray(pack_batch("ab" * 8, "camera", 7, map(pack_entry, several)))
    where = data.draw(st.integers(0, len(packed) - 1))
    packed[where] ^= data.draw(st.integers(1, 255))
    try:
        assert isinstance(unpack_batch(bytes(packed)), Batch)
    except DecodeError:
        pass


@given(st.lists(entries, min_size=1, max_size=3), st.data())
def test_a_batch_that_was_cut_off_is_refused(several: list[Entry], data: st.DataObject) -> None:
    packed = pack_batch("ab" * 8, "camera", 7, map(pack_entry, several))
    whole = {len(pack_batch("ab" * 8, "camera", 7, map(pack_entry, several[:n]))) for n in range(len(several))}
    end = data.draw(st.integers(0, len(packed) - 1).filter(lambda n: n not in whole))
    with pytest.raises(DecodeError):
        unpack_batch(packed[:end])


@pytest.mark.parametrize("body", [b"", b"{}", b"\x00EB2", b"\x00EB2\x00\x00\x00\x02\x00\x00\x00\x00[]"])
def test_what_is_no_batch_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        unpack_batch(body)
