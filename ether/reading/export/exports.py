"""The formats of exports, by name. A new format is a new line in `EXPORTS`.

Promise: only the module of the wanted format is imported. The trap: so the modules stand in `EXPORTS` as text, and a
wrong name is found when the format is used; a test loads them all.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path

from ether.errors import ExportFailed
from ether.reading.data import Data
from ether.reading.export.tables import Exported

Export = Callable[[Data, Path], Exported]
"""Writes the records of a `Data` to a path, completely or not at all. Raises `ExportFailed`, `ExportUnwritable`,
`MissingExtra`."""

EXPORTS: Mapping[str, str] = {
    "parquet": "ether.reading.export.tables:to_parquet",
    "csv": "ether.reading.export.tables:to_csv",
    "hdf5": "ether.reading.export.tables:to_hdf5",
    "prov": "ether.reading.export.provenance:to_prov",
    "crate": "ether.reading.export.provenance:to_crate",
}
"""By name of a format, the module and function of its `Export`."""

SUFFIXES: Mapping[str, str] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
}
"""By suffix of a file, the format that it means where none is named."""


def export(data: Data, path: Path, form: str | None = None) -> Exported:
    """Write the records; `form` is a name in `EXPORTS`, None means the format of the file's suffix. Raises
    `ExportFailed`, `ExportUnwritable`, `MissingExtra`."""
    return _load(form or form_of(path))(data, path)


def form_of(path: Path) -> str:
    """The format that a file's suffix means; raises `ExportFailed`."""
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
