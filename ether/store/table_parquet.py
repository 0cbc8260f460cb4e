"""Records as a Parquet file, in pieces: one row group for each chunk. Needs pyarrow (see `ether.store.table_arrow`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ether.store.columns import Form
from ether.store.table_arrow import arrow_rows, schema_of


def write_parquet(
    path: Path, forms: Mapping[str, Form], chunks: Iterable[Sequence[Mapping[str, Any]]], metadata: Mapping[str, Any]
) -> None:
    """Write the file. Raises `MissingExtra`."""
    schema = schema_of(forms, metadata, "a Parquet file")
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for chunk in chunks:
            writer.write_table(arrow_rows(chunk, schema))
