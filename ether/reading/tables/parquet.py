"""Records as a Parquet file, in pieces: one row group for each chunk; and the id of a row. Needs pyarrow (see
`ether.reading.tables.arrow`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ether.errors import MissingExtra
from ether.reading.columns import Form
from ether.reading.tables.arrow import arrow_rows, schema_of


def write_parquet(
    path: Path, forms: Mapping[str, Form], chunks: Iterable[Sequence[Mapping[str, Any]]], metadata: Mapping[str, Any]
) -> None:
    """Write the file. Raises `MissingExtra`."""
    schema = schema_of(forms, metadata, "a Parquet file")
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for chunk in chunks:
            writer.write_table(arrow_rows(chunk, schema))


def id_in_parquet(path: Path, row: int) -> tuple[str | None, int, Mapping[str, Any]]:
    """A row's id, None where there is no such row; how many rows there are; the file's metadata. Raises `MissingExtra`,
    `OSError`, and `LookupError` where it has no ids."""
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra("a Parquet file", "pyarrow", "parquet") from error
    with pq.ParquetFile(path) as file:
        told = json.loads((file.schema_arrow.metadata or {}).get(b"ether", b"{}"))
        rows = file.metadata.num_rows
        ids = file.read(columns=["id"]).column("id")
        return (ids[row - 1].as_py() if 0 < row <= rows else None), rows, told
