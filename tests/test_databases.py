"""A connection to SQLite that a test drops without closing it is found, and blamed on that test."""

from __future__ import annotations

import gc
import sqlite3
from pathlib import Path

import databases
import pytest


def drop(held: list[sqlite3.Connection]) -> None:
    """A connection is a part of a circle (its own cache of statements), so only the collector finds it."""
    held.clear()
    gc.collect()


def test_a_connection_that_is_dropped_open_says_so(tmp_path: Path) -> None:
    held = [sqlite3.connect(tmp_path / "dropped.db")]
    assert any("dropped.db" in name for name in databases.open_databases())
    with pytest.warns(ResourceWarning, match=r"connection \d+ to .*dropped\.db was not closed"):
        drop(held)
    assert not any("dropped.db" in name for name in databases.open_databases())


def test_one_that_is_closed_says_nothing(tmp_path: Path) -> None:
    held = [sqlite3.connect(tmp_path / "closed.db")]
    held[0].close()
    held[0].close()
    assert not any("closed.db" in name for name in databases.open_databases())
    drop(held)


def test_one_that_was_never_made_says_nothing(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        sqlite3.connect(tmp_path / "no folder" / "a.db")
    gc.collect()
    assert not any("no folder" in name for name in databases.open_databases())
