"""Recorded values as one file that other programs read: Parquet, CSV, HDF5, with its metadata in it or beside it.

Promises: the file is there whole or not at all, and an older one of that name stays until then. Ledgers of any size
pass through in pieces: they are read twice, once for what columns there are, once for what stands in them, and both
times hold the same records, whatever a recorder adds meanwhile.
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
"""Records that are in memory at the same time."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    path: Path
    form: str
    records: int
    columns: tuple[str, ...]
    beside: tuple[Path, ...] = ()
    """Files that belong to it."""


@dataclass(frozen=True, slots=True)
class _Table:
    """What a writer is given."""

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
    """One Parquet file. Raises `ExportFailed`, `ExportUnwritable`, `MissingExtra`, as the others."""
    from ether.reading.tables.arrow import write_parquet

    table = _table_of(data, path, chunk)
    with replacing(path) as part:
        write_parquet(part, table.forms, table.chunks(), table.metadata)
    return table.exported(path, "parquet")


def to_hdf5(data: Data, path: Path, *, chunk: int = CHUNK) -> Exported:
    """One HDF5 file."""
    from ether.reading.tables.hdf5 import write_hdf5

    table = _table_of(data, path, chunk)
    with replacing(path) as part:
        write_hdf5(part, table.forms, table.chunks(), table.metadata, table.columns.full())
    return table.exported(path, "hdf5")


def to_csv(data: Data, path: Path, *, chunk: int = CHUNK) -> Exported:
    """One CSV file, and a JSON file beside it that says what is in it."""
    table = _table_of(data, path, chunk)
    beside = path.with_name(path.name + SIDECAR)
    described = {name: _described(name, form) for name, form in table.forms.items()}
    told = {**table.metadata, "records": table.columns.rows, "columns": described, "reading": READING}
    with replacing(beside) as part_beside, replacing(path) as part:
        with part.open("w", encoding="utf-8", newline="", errors="surrogatepass") as file:
            write_csv(file, table.forms, (row for rows in table.chunks() for row in rows))
        part_beside.write_text(json.dumps(told, ensure_ascii=False, indent=2) + "\n", "utf-8")
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
    """A file to write to that takes the place of `path` at the end of the block, and is gone where the block fails.
    Raises `ExportUnwritable`."""
    part = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
    try:
        yield part
        replace_file(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, EtherError):
            raise ExportUnwritable(path, error) from error
        raise
