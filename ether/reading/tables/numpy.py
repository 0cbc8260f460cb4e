"""Records as a structured NumPy array, and columns as NumPy arrays for other tables. Owner of NumPy beside
`ether.wire.arrays`: tables are made of arrays, and nothing that publishes or receives loads this module.

The trap: NumPy has no empty cell. A column with some becomes float with NaN where that loses nothing, else Python
objects with None.
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

    from ether.reading.data import Data


def body_of(cell: object) -> bytes:
    """Any value that can be sent, as a binary body: also one that JSON could carry, so that a column has one form."""
    return join(*flatten(cell))


def value_of(body: bytes) -> object:
    """The value again."""
    return decode(body, CONTENT_TYPE)


DTYPES: Mapping[str, str] = {"bool": "?", "int": "<i8", "uint": "<u8", "float": "<f8", "complex": "<c16"}
"""Of columns of numbers."""
_EXACT = 2**53


def structured_array_of(data: Data) -> np.ndarray[Any, Any]:
    """See `Data.to_numpy`."""
    try:
        import numpy as np
    except ImportError as error:
        raise MissingExtra("to_numpy()", "numpy", "numpy") from error
    held = data.held()
    columns, rows = held.rows()
    fields = {name: column_array(rows, name, form) for name, form in columns.forms().items()}
    if not rows:
        fields = {name: times_of([]) if name == "time" else np.empty(0, object) for name in FIXED}
    table = np.empty(len(rows), np.dtype([(name, array.dtype, array.shape[1:]) for name, array in fields.items()]))
    for name, array in fields.items():
        table[name] = array
    return table


def column_array(rows: Sequence[Mapping[str, Any]], name: str, form: Form) -> np.ndarray[Any, Any]:
    """A column of rows as an array whose first dimension is theirs."""
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
    """An array of the cells as they are, whatever they are."""
    import numpy as np

    array = np.empty(len(cells), object)
    for at, cell in enumerate(cells):
        array[at] = cell
    return array


def times_of(times: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Unix seconds as datetime64[ns]. Sources give microseconds; below that a float has no more to say."""
    import numpy as np

    return np.array([round(time * 1_000_000) for time in times], "<i8").view("<M8[us]").astype("<M8[ns]")


def _are_floats(cells: Sequence[Any]) -> bool:
    return all(cell is None or abs(cell) <= _EXACT for cell in cells)
