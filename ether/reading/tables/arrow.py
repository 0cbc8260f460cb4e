"""Records as an Arrow table. Owner of pyarrow.

The schema's metadata has under `ether` what `Data.metadata()` says, as JSON; each field's has its `Form`. Arrays of one
shape are fixed-size lists of all their elements in C order (`shape` and `dtype` are in the form), lists are lists,
complex numbers are structs of `real` and `imag`. What fits none of Arrow's types is JSON text (`json`) or a body as it
travels on the wire (`body`), which `ether.wire.decode(cell, "application/vnd.ether.binary")` reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ether.errors import MissingExtra
from ether.reading.columns import FIXED, Form, is_array, json_text
from ether.reading.tables.numpy import body_of

if TYPE_CHECKING:
    import pyarrow as pa

    from ether.reading.data import Data

METADATA_KEY = b"ether"
_NO_COLUMNS: Mapping[str, Form] = dict.fromkeys(FIXED, Form("text"))
_TYPES = {"bool": "bool_", "int": "int64", "uint": "uint64", "float": "float64", "text": "string", "bytes": "binary",
          "json": "string", "body": "binary", "empty": "null"}  # fmt: skip


def table_of(data: Data) -> pa.Table:
    """See `Data.to_arrow`."""
    held = data.held()
    columns, rows = held.rows()
    return arrow_rows(rows, schema_of(columns.forms(), held.metadata(), "to_arrow()"))


def schema_of(forms: Mapping[str, Form], metadata: Mapping[str, Any], what: str) -> pa.Schema:
    """The Arrow schema of these columns; raises `MissingExtra`, in which `what` is what was asked for."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingExtra(what, "pyarrow", "parquet") from error
    fields = [_field(name, form) for name, form in (forms or _NO_COLUMNS).items()]
    return pa.schema(fields, metadata={METADATA_KEY: json.dumps(metadata, ensure_ascii=False).encode()})


def arrow_rows(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of this schema, whose fields say what their cells are."""
    import pyarrow as pa

    arrays = []
    for field in schema:
        form = form_in(field)
        cells = [_cell(row.get(field.name), field.name, form) for row in rows]
        arrays.append(pa.array(cells, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def form_in(field: pa.Field) -> Form:
    """The form that a field of our own carries."""
    said = json.loads(field.metadata[METADATA_KEY])
    return Form(said["kind"], said.get("dtype", ""), tuple(said.get("shape", ())))


def _field(name: str, form: Form) -> pa.Field:
    import pyarrow as pa

    return pa.field(name, _type(name, form), metadata={METADATA_KEY: json.dumps(form.to_value()).encode()})


def _type(name: str, form: Form) -> pa.DataType:
    import pyarrow as pa

    if name == "time":
        return pa.timestamp("ns", tz="UTC")
    if form.kind == "complex":
        return pa.struct([("real", pa.float64()), ("imag", pa.float64())])
    if form.kind == "array":
        return pa.list_(_element_type(form.dtype), prod(form.shape))
    if form.kind == "list":
        return pa.list_(_element_type(form.dtype))
    return getattr(pa, _TYPES[form.kind])()


def _element_type(dtype: str) -> pa.DataType:
    import pyarrow as pa

    kinds = {"b": "bool_", "i": "int", "u": "uint", "f": "float"}
    bits = "" if dtype[1] == "b" else str(8 * int(dtype[2:]))
    return getattr(pa, f"{kinds[dtype[1]]}{bits}")()


def _cell(cell: Any, name: str, form: Form) -> Any:
    """As Arrow takes it."""
    if name == "time":
        return round(cell * 1_000_000) * 1000
    if cell is None:
        return None
    if form.kind == "json":
        return json_text(cell)
    if form.kind == "body":
        return body_of(cell)
    if form.kind == "complex":
        return {"real": cell.real, "imag": cell.imag}
    if form.kind in ("array", "list") and is_array(cell):
        return cell.astype(cell.dtype.newbyteorder("=")).reshape(-1)
    return cell


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
