"""Recorded values as one file that other programs read: Parquet, CSV, HDF5, with its metadata in it or beside it.

Promises: the file is there whole or not at all, and an older one of that name stays until then. Ledgers of any size
pass through in pieces: they are read twice, once for what columns there are, once for what stands in them, and both
times hold the same records, whatever a recorder adds meanwhile.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ether.errors import ExportFailed
from ether.store.columns import FIXED, Columns, Form
from ether.store.data import Data
from ether.store.table_csv import READING, SIDECAR, write_csv

CHUNK = 5000
"""Records that are in memory at the same time."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    path: Path
    format: str
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


def export_table(data: Data, path: Path, table_format: str, *, chunk: int = CHUNK) -> Exported:
    """Write the records to a file. Raises `ExportFailed`, `MissingExtra`, `OSError`."""
    write = TABLES.get(table_format)
    if write is None:
        raise ExportFailed(f"there is no table format {table_format!r}; there are {', '.join(TABLES)}")
    held = data.held()
    columns = held.columns()
    if columns.rows == 0:
        raise ExportFailed(f"nothing was recorded that fits, so {path} is not written: {held!r}")
    table = _Table(held, columns, columns.forms(), held.metadata(), chunk)
    beside = write(table, path)
    return Exported(path, table_format, columns.rows, tuple(table.forms), beside)


def format_of(path: Path) -> str:
    """The format that a file's ending means; raises `ExportFailed`."""
    found = SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise ExportFailed(f"cannot tell a format from the name {path.name!r}; give it one of {', '.join(SUFFIXES)}")
    return found


def _to_parquet(table: _Table, path: Path) -> tuple[Path, ...]:
    from ether.store.table_parquet import write_parquet

    with replacing(path) as part:
        write_parquet(part, table.forms, table.chunks(), table.metadata)
    return ()


def _to_hdf5(table: _Table, path: Path) -> tuple[Path, ...]:
    from ether.store.table_hdf5 import write_hdf5

    with replacing(path) as part:
        write_hdf5(part, table.forms, table.chunks(), table.metadata, table.columns.full())
    return ()


def _to_csv(table: _Table, path: Path) -> tuple[Path, ...]:
    beside = path.with_name(path.name + SIDECAR)
    described = {name: _described(name, form) for name, form in table.forms.items()}
    told = {**table.metadata, "records": table.columns.rows, "columns": described, "reading": READING}
    with replacing(path) as part, replacing(beside) as part_beside:
        with part.open("w", encoding="utf-8", newline="", errors="surrogatepass") as file:
            write_csv(file, table.forms, (row for rows in table.chunks() for row in rows))
        part_beside.write_text(json.dumps(told, ensure_ascii=False, indent=2) + "\n", "utf-8")
    return (beside,)


def _described(name: str, form: Form) -> dict[str, object]:
    return {"kind": "time"} if name == FIXED[0] else form.to_value()


TABLES: Mapping[str, Callable[[_Table, Path], tuple[Path, ...]]] = {
    "parquet": _to_parquet,
    "csv": _to_csv,
    "hdf5": _to_hdf5,
}
SUFFIXES: Mapping[str, str] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write to that takes the place of `path` at the end of the block, and is gone where the block fails."""
    part = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
