"""Libraries of the extras. A test of one is skipped where it is not installed, and says what to install."""

from __future__ import annotations

from typing import Any

import pytest

EXTRAS = {"pandas": "pandas", "pyarrow": "parquet", "h5py": "hdf5"}


def library(module: str) -> Any:
    """The module; the test that asks for it is skipped where it is missing."""
    name = module.partition(".")[0]
    return pytest.importorskip(module, reason=f"{name} is not installed: pip install -e '.[{EXTRAS[name]}]'")
