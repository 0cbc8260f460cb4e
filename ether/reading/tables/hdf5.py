"""Records as an HDF5 file, written chunk by chunk. Owner of h5py.

There is one dataset for each column, all of the same length. Attributes named `ether` (JSON) describe the table, on the
file, and each column, on its dataset; what all runs of the table have in common (`run.animal`) is an attribute of the
file. Arrays of one shape are stacked. HDF5 has no empty cell: such a cell is filled with NaN, 0, False or an empty
value, and the dataset `missing/<column>` has True for it. Times are integers, nanoseconds since 1970 in UTC.

The trap: in HDF5 a `/` begins a group. In the names of datasets `/`, `%` and NUL are escaped as in URLs; the attribute
`column` has the name itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ether.errors import MissingExtra
from ether.reading.columns import Form, common_metadata, json_text
from ether.reading.tables.numpy import body_of

if TYPE_CHECKING:
    import h5py
    import numpy as np

_NUMBERS = {"bool": "?", "int": "<i8", "uint": "<u8", "float": "<f8", "complex": "<c16"}
_CHUNK_BYTES = 1 << 20
_ESCAPES = {"/": "%2F", "%": "%25", "\0": "%00"}
MISSING = "missing"
"""The group of the datasets that mark empty cells."""


def write_hdf5(
    path: Path, forms: Mapping[str, Form], chunks: Iterable[Sequence[Mapping[str, Any]]], metadata: Mapping[str, Any],
    full: frozenset[str],
) -> None:  # fmt: skip
    """Write the file; `full` are the columns without empty cells, which need no marks. Raises `MissingExtra`."""
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra("an HDF5 file", "h5py", "hdf5") from error

    with h5py.File(path, "w", track_order=True) as file:
        file.attrs["ether"] = json.dumps(metadata, ensure_ascii=False)
        for name, cell in common_metadata(metadata).items():
            file.attrs[name] = cell if isinstance(cell, (str, bool, int, float)) else json_text(cell)
        columns = [_ColumnFile(file, name, form, name in full) for name, form in forms.items()]
        for chunk in chunks:
            for column in columns:
                column.append([row.get(column.name) for row in chunk])


def id_in_hdf5(path: Path, row: int) -> tuple[str | None, int, Mapping[str, Any]]:
    """A row's id, None where there is no such row; how many rows there are; the file's metadata. Raises `MissingExtra`,
    `OSError`, and `LookupError` where it has no ids."""
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra("an HDF5 file", "h5py", "hdf5") from error
    with h5py.File(path) as file:
        ids = file["id"].asstr()
        return (ids[row - 1] if 0 < row <= len(ids) else None), len(ids), json.loads(file.attrs.get("ether", "{}"))


class _ColumnFile:
    """One column's datasets."""

    def __init__(self, file: h5py.File, name: str, form: Form, is_full: bool) -> None:
        self.name = name
        self._form = form
        dtype = _dtype(name, form)
        shape = form.shape if form.kind == "array" else ()
        self._values = _made(file, _dataset_name(name), dtype, shape)
        self._values.attrs["column"] = name
        self._values.attrs["ether"] = json.dumps(form.to_value())
        self._missing = None if is_full else _made(file, f"{MISSING}/{_dataset_name(name)}", "?", ())
        if self._missing is not None:
            self._missing.attrs["column"] = name

    def append(self, cells: Sequence[Any]) -> None:
        import numpy as np

        begin = len(self._values)
        self._values.resize(begin + len(cells), axis=0)
        if self._form.kind in ("list", "bytes", "body"):
            # One by one: of several items of one length h5py would make a two-dimensional array.
            for at, cell in enumerate(cells, begin):
                self._values[at] = self._item(cell)
        else:
            self._values[begin:] = self._packed(cells)
        if self._missing is not None:
            self._missing.resize(begin + len(cells), axis=0)
            self._missing[begin:] = np.array([cell is None for cell in cells], bool)

    def _packed(self, cells: Sequence[Any]) -> np.ndarray[Any, Any]:
        """The cells of a chunk as one array with the dataset's type; empty cells get a filler."""
        import numpy as np

        form = self._form
        if self.name == "time":
            return np.array([round(cell * 1_000_000) * 1000 for cell in cells], "<i8")
        if form.kind in _NUMBERS:
            filler = float("nan") if form.kind in ("float", "complex") else 0
            return np.array([filler if cell is None else cell for cell in cells], _NUMBERS[form.kind])
        if form.kind == "array":
            empty = np.zeros(form.shape, form.dtype)
            return np.stack([empty if cell is None else cell for cell in cells])
        text: Callable[[Any], str] = json_text if form.kind == "json" else str
        return np.array(["" if cell is None else text(cell) for cell in cells], object)

    def _item(self, cell: Any) -> np.ndarray[Any, Any]:
        """One cell of variable length: numbers of a list, or bytes."""
        import numpy as np

        if self._form.kind == "list":
            return np.array([] if cell is None else cell, self._form.dtype)
        if self._form.kind == "body":
            return np.frombuffer(b"" if cell is None else body_of(cell), np.uint8)
        return np.frombuffer(cell or b"", np.uint8)


def _made(file: h5py.File, name: str, dtype: Any, shape: tuple[int, ...]) -> h5py.Dataset:
    """A new dataset that can grow, in compressed chunks of about a mebibyte."""
    import numpy as np

    element = np.dtype(dtype).itemsize
    for size in shape:
        element *= size
    rows = max(1, min(4096, _CHUNK_BYTES // max(1, element)))
    return file.create_dataset(
        name, (0, *shape), dtype, maxshape=(None, *shape), chunks=(rows, *shape), compression="gzip", compression_opts=4
    )


def _dtype(name: str, form: Form) -> Any:
    import h5py
    import numpy as np

    if name == "time":
        return "<i8"
    if form.kind == "array":
        return form.dtype
    if form.kind == "list":
        return h5py.vlen_dtype(np.dtype(form.dtype))
    if form.kind in ("bytes", "body"):
        return h5py.vlen_dtype(np.uint8)
    return _NUMBERS.get(form.kind) or h5py.string_dtype()


def _dataset_name(column: str) -> str:
    """A name that HDF5 takes: it has no dataset without a name, `.` means the group itself, and `missing` is taken."""
    name = "".join(_ESCAPES.get(char, char) for char in column)
    return {"": "%", ".": "%2E", MISSING: "%6Dissing"}.get(name, name)
