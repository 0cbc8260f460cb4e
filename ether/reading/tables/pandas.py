"""Records as a pandas table. Owner of pandas.

Numbers without empty cells have NumPy's types; integers and truth values with empty cells have pandas' nullable ones
(`Int64`, `boolean`), because a float would round them. Everything else is a column of Python objects, as it was sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ether.errors import MissingExtra
from ether.reading.columns import FIXED, Form
from ether.reading.tables.numpy import DTYPES, objects_of, times_of

if TYPE_CHECKING:
    import pandas as pd

    from ether.reading.data import Data

_NULLABLE: Mapping[str, str] = {"int": "Int64", "uint": "UInt64", "bool": "boolean", "float": "float64"}


def frame_of(data: Data) -> pd.DataFrame:
    """See `Data.to_pandas`."""
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtra("to_pandas()", "pandas", "pandas") from error
    held = data.held()
    columns, rows = held.rows()
    forms = columns.forms() or dict.fromkeys(FIXED, Form("text"))
    frame = pd.DataFrame({name: _series(rows, name, form) for name, form in forms.items()})
    frame.attrs["ether"] = held.metadata()
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
