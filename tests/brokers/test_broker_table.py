"""The table in docs/brokers.md is what the doctor finds, broker by broker; where one is not installed its column is
compared by .ci/long."""

from __future__ import annotations

import pytest

from ether.session.broker_probe import CapabilityVerdict, Finding
from tests.brokers.broker_table import (
    COLUMNS,
    PAGE,
    Column,
    Table,
    cell_of,
    found_at,
    note_of,
    read_page,
    written,
)

TABLE = read_page(PAGE.read_text())


@pytest.mark.parametrize(
    "column",
    [
        pytest.param(
            column,
            marks=pytest.mark.skipif(column.skipped is not None, reason=column.skipped or ""),
            id=column.heading,
        )
        for column in COLUMNS
    ],
)
def test_a_column_of_the_page(column: Column) -> None:
    """Out of date? `python tests/brokers/broker_table.py --write`."""
    found = found_at(column)
    assert TABLE.cells[column.heading] == {name: cell_of(finding) for name, finding in found.items()}
    for name, finding in found.items():
        if finding.verdict is not CapabilityVerdict.YES:
            assert TABLE.notes[name, cell_of(finding)] == note_of(finding)


def test_every_cell_that_is_not_yes_says_its_consequence() -> None:
    assert TABLE.cells.keys() == {column.heading for column in COLUMNS}
    for heading, cells in TABLE.cells.items():
        for name, cell in cells.items():
            if cell.partition(":")[0] in ("no", "limited", "unknown"):
                assert TABLE.notes.get((name, cell)), f"{heading}, {name}: {cell}"
            assert "not tried" not in cell, f"{heading}, {name}"


def test_the_page_is_written_as_it_is_read() -> None:
    """A page without a table gets one; writing what was read changes nothing."""
    page = PAGE.read_text()
    assert written(page, TABLE) == page
    table = Table()
    findings = [
        Finding("a", CapabilityVerdict.YES, "yes"),
        Finding("b", CapabilityVerdict.NO, "no", consequence="x: y", instead="z"),
    ]
    table.put(COLUMNS[0].heading, {each.name: each for each in findings})
    read = read_page(written("before\n<!-- made by tests/brokers/broker_table.py -->\n<!-- end -->\nafter\n", table))
    assert read == table
