"""Export of recorded values as a table: Parquet, CSV or HDF5, with metadata in the file or beside it.

Promises: the file appears completely or not at all, and an older file of that name stays until then. Ledgers of any
size are written in chunks: they are read twice, first for the columns, then for the cells. Both times the records are
the same, whatever a recorder appends meanwhile.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ether.errors import EtherError, ExportFailed, ExportUnwritable
from ether.ledger.durable import replace_file
from ether.reading.columns import FIXED, Columns, Form
from ether.reading.data import Data
from ether.reading.tables.csv import READING, SIDECAR, write_csv

CHUNK = 5000
"""Records that are in memory at one time."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export."""

    path: Path
    form: str
    records: int
    columns: tuple[str, ...]
    beside: tuple[Path, ...] = ()
    """Further files that belong to it."""


@dataclass(frozen=True, slots=True)
class _Table:
    """The table that a writer of a format gets."""

    data: Data
    columns: Columns
    forms: Mapping[str, Form]
    metadata: Mapping[str, Any]
    chunk: int

    def chunks(self) -> Iterator[list[dict[str, Any]]]:
        for records in self.data.chunks(self.chunk):
            yield [record.cells() for record in records]

    def exported(self, path: Path, form: str, *beside: Path) -> Exported:
        return Exported(path, form, self.columns.rows, tuple(self.forms), beside)


def to_parquet(data: Data, path: Path, *, chunk: int = CHUNK) -> Exported:
    """Write one Parquet file. Raises `ExportFailed`, `ExportUnwritable`, `MissingExtra`."""
    from ether.reading.tables.arrow import write_parquet

    table = _table_of(data, path, chunk)
    with replacing(path) as part:
        write_parquet(part, table.forms, table.chunks(), table.metadata)
    return table.exported(path, "parquet")


def to_hdf5(data: Data, path: Path, *, chunk: int = CHUNK) -> Exported:
    """Write one HDF5 file. Raises as `to_parquet` does."""
    from ether.reading.tables.hdf5 import write_hdf5

    table = _table_of(data, path, chunk)
    with replacing(path) as part:
        write_hdf5(part, table.forms, table.chunks(), table.metadata, table.columns.full())
    return table.exported(path, "hdf5")


def to_csv(data: Data, path: Path, *, chunk: int = CHUNK) -> Exported:
    """Write one CSV file, and beside it a JSON file that describes it. Raises `ExportFailed`, `ExportUnwritable`."""
    table = _table_of(data, path, chunk)
    beside = path.with_name(path.name + SIDECAR)
    columns = {name: _described(name, form) for name, form in table.forms.items()}
    description = {**table.metadata, "records": table.columns.rows, "columns": columns, "reading": READING}
    with replacing(beside) as part_beside, replacing(path) as part:
        with part.open("w", encoding="utf-8", newline="", errors="surrogatepass") as file:
            write_csv(file, table.forms, (row for rows in table.chunks() for row in rows))
        part_beside.write_text(json.dumps(description, ensure_ascii=False, indent=2) + "\n", "utf-8")
    return table.exported(path, "csv", beside)


def _table_of(data: Data, path: Path, chunk: int) -> _Table:
    held = data.held()
    columns = held.columns()
    if columns.rows == 0:
        raise ExportFailed(f"nothing was recorded that fits, so {path} is not written: {held!r}")
    return _Table(held, columns, columns.forms(), held.metadata(), chunk)


def _described(name: str, form: Form) -> dict[str, object]:
    return {"kind": "time"} if name == FIXED[0] else form.to_value()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file for the block to write. It replaces `path` at the end of the block, and is deleted where the block
    fails. Raises `ExportUnwritable`."""
    part = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
    try:
        yield part
        replace_file(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, EtherError):
            raise ExportUnwritable(path, error) from error
        raise
