"""Records as an Arrow table, and as a Parquet file, which is made of Arrow tables. Owner of pyarrow.

The schema's metadata has `Data.metadata()` as JSON under the key `ether`; each field's metadata has its `Form` there.
Arrays of one shape are fixed-size lists of all their elements in C order (`shape` and `dtype` are in the form), lists
are lists, complex numbers are structs of `real` and `imag`. Cells that fit none of Arrow's types are JSON text (`json`)
or a body as it travels on the wire (`body`), which `ether.wire.decode(cell, "application/vnd.ether.binary")` reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ether.errors import MissingExtra
from ether.reading.columns import FIXED, Form, common_metadata, is_array, json_text
from ether.reading.tables.numpy import body_of

if TYPE_CHECKING:
    import pyarrow as pa

METADATA_KEY = b"ether"
_NO_COLUMNS: Mapping[str, Form] = dict.fromkeys(FIXED, Form("text"))
"""Of a table without rows."""
_TYPES = {"bool": "bool_", "int": "int64", "uint": "uint64", "float": "float64", "text": "string", "bytes": "binary",
          "json": "string", "body": "binary", "empty": "null"}  # fmt: skip
"""The name of Arrow's type for each kind of column that needs no parameters."""


def check_library(what: str) -> None:
    """Raise `MissingExtra` where pyarrow is not installed; `what` is the user's request."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingExtra(what, "pyarrow", "parquet") from error


# -- a table


def schema_of(forms: Mapping[str, Form], metadata: Mapping[str, Any]) -> pa.Schema:
    """The Arrow schema of these columns."""
    import pyarrow as pa

    fields = [_field(name, form) for name, form in (forms or _NO_COLUMNS).items()]
    common = {name.encode(): json_text(cell).encode() for name, cell in common_metadata(metadata).items()}
    return pa.schema(fields, metadata={METADATA_KEY: json.dumps(metadata, ensure_ascii=False).encode(), **common})


def arrow_rows(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of a schema from `schema_of`."""
    import pyarrow as pa

    arrays = []
    for field in schema:
        form = form_in(field)
        cells = [_cell(row.get(field.name), field.name, form) for row in rows]
        arrays.append(pa.array(cells, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def form_in(field: pa.Field) -> Form:
    """The form in the metadata of a field from `schema_of`."""
    value = json.loads(field.metadata[METADATA_KEY])
    return Form(value["kind"], value.get("dtype", ""), tuple(value.get("shape", ())))


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
    """Arrow's type for a NumPy type such as `<f8`: its letter gives the family, its bytes the width in bits."""
    import pyarrow as pa

    families = {"b": "bool_", "i": "int", "u": "uint", "f": "float"}
    bits = "" if dtype[1] == "b" else str(8 * int(dtype[2:]))
    return getattr(pa, f"{families[dtype[1]]}{bits}")()


def _cell(cell: Any, name: str, form: Form) -> Any:
    """The cell as `pa.array` takes it."""
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
    if form.kind in ("array", "list") and is_array(cell):  # flat, in this machine's byte order
        return cell.astype(cell.dtype.newbyteorder("=")).reshape(-1)
    return cell


# -- a Parquet file


def write_parquet(
    path: Path, forms: Mapping[str, Form], chunks: Iterable[Sequence[Mapping[str, Any]]], metadata: Mapping[str, Any]
) -> None:
    """Write the file, one group of rows for each chunk. Raises `MissingExtra`."""
    check_library("a Parquet file")
    import pyarrow.parquet as pq

    schema = schema_of(forms, metadata)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for chunk in chunks:
            writer.write_table(arrow_rows(chunk, schema))


def id_in_parquet(path: Path, row: int) -> tuple[str | None, int, Mapping[str, Any]]:
    """A row's id, None where there is no such row; how many rows there are; the file's metadata. Raises `MissingExtra`,
    `OSError`, and `LookupError` where it has no ids."""
    check_library("a Parquet file")
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        metadata = json.loads((file.schema_arrow.metadata or {}).get(METADATA_KEY, b"{}"))
        rows = file.metadata.num_rows
        ids = file.read(columns=["id"]).column("id")
        return (ids[row - 1].as_py() if 0 < row <= rows else None), rows, metadata
