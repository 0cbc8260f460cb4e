"""The page about errors names every error of the tree, by the texts that the classes make."""

from __future__ import annotations

import re

from error_table import BEGIN, END, HEAD, PAGE, PAGES, SPECIAL, errors, rows, texts_of

from ether.errors import BrokerUnreachable, EtherError, LedgerLocked


def test_the_page_is_made_of_the_errors() -> None:
    table = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    assert table.removeprefix(HEAD).splitlines() == rows(), "python tests/parts/error_table.py --write"
    for error in errors():
        assert f"`{error.__name__}`" in table


def test_a_text_is_the_one_that_is_raised() -> None:
    (text,) = texts_of(BrokerUnreachable)
    pattern = ".*".join(map(re.escape, text.split("…")))
    assert re.fullmatch(pattern, str(BrokerUnreachable("mqtt://here:1", "refused")))
    assert any("One program writes to a ledger at a time" in text for text in texts_of(LedgerLocked))


def test_every_page_belongs_to_an_error() -> None:
    modules = {error.__module__.rpartition(".")[2] for error in errors()}
    assert set(PAGES) <= modules
    assert set(SPECIAL) <= {error.__name__ for error in errors()}
    assert EtherError in errors()
