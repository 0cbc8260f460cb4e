"""Columns of records as NumPy arrays: a structured array for users, plain arrays for the other tables; and the binary
body of a cell that no column type holds (`body_of`), which needs no NumPy.

Owner of NumPy beside `ether.wire.arrays`: tables are made of arrays, and no process that publishes or receives loads
this module.

The trap: NumPy has no empty cell. A column of numbers with empty cells becomes float with NaN where that loses nothing;
otherwise it becomes an array of Python objects with None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ether.errors import MissingExtra
from ether.reading.columns import FIXED, Form
from ether.wire.binary import CONTENT_TYPE, join
from ether.wire.codec import decode
from ether.wire.values import flatten

if TYPE_CHECKING:
    import numpy as np

DTYPES: Mapping[str, str] = {"bool": "?", "int": "<i8", "uint": "<u8", "float": "<f8", "complex": "<c16"}
"""NumPy's type for each kind of number columns."""

_EXACT = 2**53
"""Up to here every integer is a float, too."""

# -- cells of the form `body`


def body_of(cell: object) -> bytes:
    """Any value that can be sent, as a binary body. Values that JSON could carry are binary, too, so that all cells of
    a column have one form."""
    return join(*flatten(cell))


def value_of(body: bytes) -> object:
    """The inverse of `body_of`."""
    return decode(body, CONTENT_TYPE)


# -- arrays


def check_library() -> None:
    """Raise `MissingExtra` where NumPy is not installed."""
    try:
        import numpy  # noqa: F401
    except ImportError as error:
        raise MissingExtra("to_numpy()", "numpy", "numpy") from error


def structured_array_of(rows: Sequence[Mapping[str, Any]], forms: Mapping[str, Form]) -> np.ndarray[Any, Any]:
    """A structured array of shape `(rows,)` with one field for each column in `forms`."""
    import numpy as np

    fields = {name: column_array(rows, name, form) for name, form in forms.items()}
    if not rows:
        fields = {name: times_of([]) if name == "time" else np.empty(0, object) for name in FIXED}
    table = np.empty(len(rows), np.dtype([(name, array.dtype, array.shape[1:]) for name, array in fields.items()]))
    for name, array in fields.items():
        table[name] = array
    return table


def column_array(rows: Sequence[Mapping[str, Any]], name: str, form: Form) -> np.ndarray[Any, Any]:
    """A column as an array of shape `(rows, …)`; arrays of one shape are stacked."""
    import numpy as np

    cells: list[Any] = [row.get(name) for row in rows]
    if name == "time":
        return times_of(cells)
    if all(cell is not None for cell in cells):
        if form.kind in DTYPES:
            return np.array(cells, DTYPES[form.kind])
        if form.kind == "array":
            return np.stack(cells)
    elif form.kind == "float" or (form.kind == "int" and _are_floats(cells)):
        return np.array([np.nan if cell is None else cell for cell in cells], "<f8")
    return objects_of(cells)


def objects_of(cells: Sequence[Any]) -> np.ndarray[Any, Any]:
    """A one-dimensional array of Python objects. It is filled cell by cell: given lists of one length, `np.array` would
    make a two-dimensional array of them."""
    import numpy as np

    array = np.empty(len(cells), object)
    for at, cell in enumerate(cells):
        array[at] = cell
    return array


def times_of(times: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Unix seconds as datetime64[ns]. Sources give microseconds; a float of today's seconds holds nothing finer."""
    import numpy as np

    return np.array([round(time * 1_000_000) for time in times], "<i8").view("<M8[us]").astype("<M8[ns]")


def _are_floats(cells: Sequence[Any]) -> bool:
    return all(cell is None or abs(cell) <= _EXACT for cell in cells)
