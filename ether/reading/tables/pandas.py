"""Records as a pandas table. Owner of pandas.

A column of numbers without empty cells has a NumPy type. A column of integers or truth values with empty cells has one
of pandas' nullable types (`Int64`, `boolean`), because a float would round large integers. Every other column is made
of Python objects, as they were sent.

The trap: this module has the name of the library that it imports; inside of it, `pandas` is the library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ether.errors import MissingExtra
from ether.reading.columns import FIXED, Form
from ether.reading.tables.numpy import DTYPES, objects_of, times_of

if TYPE_CHECKING:
    import pandas as pd

_NULLABLE: Mapping[str, str] = {"int": "Int64", "uint": "UInt64", "bool": "boolean", "float": "float64"}


def check_library() -> None:
    """Raise `MissingExtra` where pandas is not installed."""
    try:
        import pandas  # noqa: F401
    except ImportError as error:
        raise MissingExtra("to_pandas()", "pandas", "pandas") from error


def frame_of(rows: Sequence[Mapping[str, Any]], forms: Mapping[str, Form], metadata: Mapping[str, Any]) -> pd.DataFrame:
    """A table of these rows; `forms` are its columns, and `metadata` goes to `attrs["ether"]`."""
    import pandas as pd

    columns = forms or dict.fromkeys(FIXED, Form("text"))
    frame = pd.DataFrame({name: _series(rows, name, form) for name, form in columns.items()})
    frame.attrs["ether"] = metadata
    return frame


def _series(rows: Sequence[Mapping[str, Any]], name: str, form: Form) -> pd.Series[Any]:
    import pandas as pd

    cells = [row.get(name) for row in rows]
    if name == "time":
        return pd.Series(times_of(cells)).dt.tz_localize("UTC")
    if form.kind in DTYPES and all(cell is not None for cell in cells):
        return pd.Series(cells, dtype=DTYPES[form.kind])
    if form.kind in _NULLABLE:
        return pd.Series(cells, dtype=_NULLABLE[form.kind])
    return pd.Series(objects_of(cells), dtype=object)
