"""The page names each attack that is tried here, as the tests say it."""

from __future__ import annotations

from tests.attacks.attack_table import DOCS, rows, with_table


def test_the_page_has_the_table_of_these_tests() -> None:
    text = DOCS.read_text()
    assert with_table(text) == text, "python tests/attacks/attack_table.py --write brings it up to date"


def test_no_row_is_there_twice() -> None:
    names = [row for row, *_ in rows()]
    assert len(names) == len(set(names)) >= 20
