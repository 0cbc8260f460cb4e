"""Which record a row of an exported table is: `hot.csv:12` is the twelfth below the heading.

Promise: a table that somebody sorted, cut or added columns to is understood as long as it has its column `id`; nothing
but that column, and what the file says of its ledger, is believed. The trap: rows count from 1 without the heading, so
a text editor shows row 12 of a CSV file as line 13.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ether.errors import NotRecorded
from ether.reading.export.exports import SUFFIXES
from ether.reading.tables.csv import SIDECAR

_FILE_AND_ROW = re.compile(r"(?P<file>.+):(?P<row>[0-9]{1,18})")


class TableRow(NamedTuple):
    """A row of a table."""

    id: str
    """Of the record."""
    ledger: str | None
    """The folder that it was exported from, if the file says so."""
    session: str | None


def table_row(text: str) -> TableRow | None:
    """The row that `FILE:ROW` means; None for a text that names no table. Raises `NotRecorded` where there is no such
    file, row or column, and `MissingExtra`."""
    given = _FILE_AND_ROW.fullmatch(text.strip())
    form = SUFFIXES.get(Path(given["file"]).suffix.lower()) if given else None
    if given is None or form is None:
        return None
    path, row = Path(given["file"]), int(given["row"])
    try:
        found, rows, told = {"csv": _from_csv, "parquet": _from_parquet, "hdf5": _from_hdf5}[form](path, row)
    except (OSError, UnicodeError, csv.Error) as error:
        raise NotRecorded(text, f"the file cannot be read: {error}") from error
    except LookupError as error:
        raise NotRecorded(text, f"{path} has no column 'id', so nothing tells which record a row is") from error
    if found is None:
        raise NotRecorded(text, f"{path} has the rows 1 to {rows}" if rows else f"{path} has no rows")
    return TableRow(found, _text(told.get("ledger")), _text(told.get("session")))


_Found = tuple[str | None, int, Mapping[str, Any]]
"""The id, None where there is no such row; how many rows there are; what the file says of itself. A column that is not
there is a `LookupError`."""


def _from_csv(path: Path, row: int) -> _Found:
    with path.open(encoding="utf-8-sig", newline="", errors="surrogatepass") as file:
        lines = csv.reader(file)
        column = {name: index for index, name in enumerate(next(lines, []))}["id"]
        before = sum(1 for _ in islice(lines, max(0, row - 1)))
        cells = next(lines, None) if row else None
        if cells is None:
            return None, before + sum(1 for _ in lines), {}
        return cells[column], row, _told(path.with_name(path.name + SIDECAR))


def _told(beside: Path) -> Mapping[str, Any]:
    try:
        told = json.loads(beside.read_text("utf-8"))
    except (OSError, ValueError):
        return {}  # the table may have been sent without it
    return told if isinstance(told, dict) else {}


def _from_parquet(path: Path, row: int) -> _Found:
    from ether.reading.tables.arrow import id_in_parquet

    return id_in_parquet(path, row)


def _from_hdf5(path: Path, row: int) -> _Found:
    from ether.reading.tables.hdf5 import id_in_hdf5

    return id_in_hdf5(path, row)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
