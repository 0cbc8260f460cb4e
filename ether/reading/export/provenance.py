"""Export of a query's records with their provenance, as PROV-JSON or as an RO-Crate.

A query with a condition on values (`where`) gives exactly the values that fit. Any other query also gives the calls and
the log records of its topics, run, instance and time, because they belong to what happened.
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
from ether.reading.notes import clock_corrections
from ether.reading.several import SeveralData


def to_prov(data: Data, path: Path) -> Exported:
    """Write W3C PROV-JSON; raises `ExportFailed`, `OSError`."""
    _refuse_several(data, path)
    with LedgerReader.open(data.folder) as reader:
        if next(chosen(reader, data), None) is None:
            raise ExportFailed(f"nothing was recorded that fits, so {path} is not written")
        return Exported(path, "prov", export_prov.write(reader, path, chosen(reader, data)), ())


def to_crate(data: Data, path: Path) -> Exported:
    """Write an RO-Crate to a folder that is not there yet; raises `ExportFailed`, `MissingExtra`, `OSError`."""
    _refuse_several(data, path)
    with LedgerReader.open(data.folder) as reader:
        words = ", ".join(f"{key} {value}" for key, value in data.query.said.items())
        title = f"{reader.session}: {words or 'everything'}"
        count = export_crate.write(reader, path, lambda: chosen(reader, data), name=title)
    return Exported(path, "crate", count, ())


def _refuse_several(data: Data, path: Path) -> None:
    if isinstance(data, SeveralData):
        raise ExportFailed(f"provenance is that of one ledger, so {path} is not written; export each by its session")


def chosen(reader: LedgerReader, data: Data) -> Iterator[StoredRecord]:
    """The stored records of a query, in the order of the ledger (with `where`: in the order of time)."""
    query = data.query
    if query.where is not None:
        for record in data:
            if (stored := reader.by_row(record.row)) is not None:
                yield stored
        return
    corrections = clock_corrections(reader)
    wanted = replace(query.filter_of(query.instance, corrections), kinds=export_prov.KINDS)
    for stored in reader.records(wanted):
        if query.upto_row is not None and stored.row > query.upto_row:
            return
        if not corrections or query.is_in_time(stored.time + corrections.of(stored)):
            yield stored
