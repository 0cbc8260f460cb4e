"""Which forms what was recorded can be exported in, by name. One more form is one more line in `EXPORTS`.

Promise: only the module of the form that was asked for is imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path

from ether.errors import ExportFailed
from ether.reading.data import Data
from ether.reading.export.tables import Exported

Export = Callable[[Data, Path], Exported]
"""Writes what a query chose of a ledger (`data.folder`, `data.query`) to a path, whole or not at all. Raises
`ExportFailed`, `ExportUnwritable`, `MissingExtra`."""

EXPORTS: Mapping[str, str] = {
    "parquet": "ether.reading.export.tables:to_parquet",
    "csv": "ether.reading.export.tables:to_csv",
    "hdf5": "ether.reading.export.tables:to_hdf5",
    "prov": "ether.reading.export.provenance:to_prov",
    "crate": "ether.reading.export.provenance:to_crate",
}
"""From each form's name to where its `Export` is."""

SUFFIXES: Mapping[str, str] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
}
"""Which form a file's ending means, where none is named."""


def export(data: Data, path: Path, form: str | None = None) -> Exported:
    """Write the records; `form` is a name in `EXPORTS`, left out the one that the file's ending means. Raises
    `ExportFailed`, `ExportUnwritable`, `MissingExtra`."""
    return _load(form or form_of(path))(data, path)


def form_of(path: Path) -> str:
    """The form that a file's ending means; raises `ExportFailed`."""
    found = SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise ExportFailed(f"cannot tell a form from the name {path.name!r}; give it one of {', '.join(SUFFIXES)}")
    return found


def _load(form: str) -> Export:
    home = EXPORTS.get(form)
    if home is None:
        raise ExportFailed(f"there is no form {form!r}; there are {', '.join(EXPORTS)}")
    module, _, name = home.partition(":")
    found: Export = getattr(importlib.import_module(module), name)
    return found
