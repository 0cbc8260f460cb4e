"""From a row of an exported table to its record: `hot.csv:12` means the twelfth row below the heading.

Promise: a table may have been sorted, cut or given more columns, as long as it has its column `id`. Only that column is
used, and the file's metadata about its ledger. The trap: rows count from 1 without the heading, so a text editor shows
row 12 of a CSV file as line 13.
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

_Found = tuple[str | None, int, Mapping[str, Any]]
"""The record's id, None where there is no such row; the number of rows; the file's metadata."""

_FILE_AND_ROW = re.compile(r"(?P<file>.+):(?P<row>[0-9]{1,18})")


class TableRow(NamedTuple):
    """A row of a table."""

    id: str
    """The id of its record."""
    ledger: str | None
    """The folder of the ledger that it was exported from, None where the file has no such metadata."""
    session: str | None
    ledgers: tuple[str, ...] = ()
    """The folders of the ledgers, of a table of several."""


def table_row(text: str) -> TableRow | None:
    """The row that `FILE:ROW` means; None where the text does not name a table. Raises `NotRecorded` where there is no
    such file, row or column, and `MissingExtra`."""
    given = _FILE_AND_ROW.fullmatch(text.strip())
    form = SUFFIXES.get(Path(given["file"]).suffix.lower()) if given else None
    if given is None or form is None:
        return None
    path, row = Path(given["file"]), int(given["row"])
    try:
        found, rows, metadata = {"csv": _from_csv, "parquet": _from_parquet, "hdf5": _from_hdf5}[form](path, row)
    except (OSError, UnicodeError, csv.Error) as error:
        raise NotRecorded(text, f"the file cannot be read: {error}") from error
    except LookupError as error:
        raise NotRecorded(text, f"{path} has no column 'id', so nothing tells which record a row is") from error
    if found is None:
        raise NotRecorded(text, f"{path} has the rows 1 to {rows}" if rows else f"{path} has no rows")
    several = metadata.get("ledgers")
    ledgers = tuple(map(str, several)) if isinstance(several, list) else ()
    return TableRow(found, _text(metadata.get("ledger")), _text(metadata.get("session")), ledgers)


def _from_csv(path: Path, row: int) -> _Found:
    """Raises `LookupError` where the file has no column of ids, as the readers of the other formats do."""
    with path.open(encoding="utf-8-sig", newline="", errors="surrogatepass") as file:
        lines = csv.reader(file)
        column = {name: index for index, name in enumerate(next(lines, []))}["id"]
        before = sum(1 for _ in islice(lines, max(0, row - 1)))
        cells = next(lines, None) if row else None
        if cells is None:
            return None, before + sum(1 for _ in lines), {}
        return cells[column], row, _metadata(path.with_name(path.name + SIDECAR))


def _metadata(beside: Path) -> Mapping[str, Any]:
    try:
        metadata = json.loads(beside.read_text("utf-8"))
    except (OSError, ValueError):
        return {}  # the table may have been passed on without the file beside it
    return metadata if isinstance(metadata, dict) else {}


def _from_parquet(path: Path, row: int) -> _Found:
    from ether.reading.tables.arrow import id_in_parquet

    return id_in_parquet(path, row)


def _from_hdf5(path: Path, row: int) -> _Found:
    from ether.reading.tables.hdf5 import id_in_hdf5

    return id_in_hdf5(path, row)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
