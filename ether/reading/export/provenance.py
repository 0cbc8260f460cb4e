"""PROV-JSON and RO-Crates as forms of `ether export`: what a query chose, with where it came from.

A query that names values (`where`) is taken at its word; any other also chooses the calls and the logs of its topics,
run, instance and time, because they belong to what happened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ether.errors import ExportFailed
from ether.ledger.reader import LedgerReader, StoredRecord
from ether.reading.data import Data
from ether.reading.export import crate as export_crate
from ether.reading.export import prov as export_prov
from ether.reading.export.tables import Exported


def to_prov(data: Data, path: Path) -> Exported:
    """Write W3C PROV-JSON; raises `ExportFailed`, `OSError`."""
    with LedgerReader.open(data.folder) as reader:
        if next(chosen(reader, data), None) is None:
            raise ExportFailed(f"nothing was recorded that fits, so {path} is not written")
        return Exported(path, "prov", export_prov.write(reader, path, chosen(reader, data)), ())


def to_crate(data: Data, path: Path) -> Exported:
    """Write an RO-Crate to a folder that is not there yet; raises `ExportFailed`, `MissingExtra`, `OSError`."""
    with LedgerReader.open(data.folder) as reader:
        title = (
            f"{reader.session}: {', '.join(f'{key} {value}' for key, value in data.query.said.items()) or 'everything'}"
        )
        count = export_crate.write(reader, path, lambda: chosen(reader, data), name=title)
    return Exported(path, "crate", count, ())


def chosen(reader: LedgerReader, data: Data) -> Iterator[StoredRecord]:
    """The records of a query."""
    query = data.query
    if query.where is not None:
        for record in data:
            if (stored := reader.by_row(record.row)) is not None:
                yield stored
        return
    wanted = replace(query.filter_of(query.instance), kinds=export_prov.KINDS)
    for stored in reader.records(wanted):
        if query.upto_row is not None and stored.row > query.upto_row:
            return
        yield stored
