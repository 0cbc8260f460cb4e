"""What people of this trade send arrives as docs/values.md says, and what is refused names the way to send it."""

from __future__ import annotations

import pytest
from value_table import KINDS, NOT_SENT, REFUSED, SENT, Kind, refused_row, rows_of_page, sent_row


@pytest.mark.parametrize(
    ("kind", "row"), list(zip(KINDS, rows_of_page(SENT), strict=True)), ids=[kind.written for kind in KINDS]
)
def test_it_arrives_as_the_page_says(kind: Kind, row: str) -> None:
    made = sent_row(kind)
    if made is None:
        pytest.skip("a library is not installed: pip install -e '.[values]'")
    assert made == row, "python tests/parts/value_table.py --write"
    assert f"`{kind.hint}`: the same" in row


@pytest.mark.parametrize(("written", "row"), list(zip(NOT_SENT, rows_of_page(REFUSED), strict=True)), ids=NOT_SENT)
def test_a_refusal_says_what_to_do(written: str, row: str) -> None:
    made = refused_row(written)
    if made is None:
        pytest.skip("a library is not installed: pip install -e '.[values]'")
    assert made == row, "python tests/parts/value_table.py --write"
    assert any(way in row for way in ("send ", "rename", "must be", "mark the method")), row
