"""A ledger that is being written, for the tests of its life."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ether.ledger.writer import LedgerWriter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "session"


@pytest.fixture
def writer(folder: Path) -> Iterator[LedgerWriter]:
    opened = LedgerWriter.open(folder, "bench")
    yield opened
    opened.close()
