"""Finds connections to SQLite that are dropped without being closed.

Python closes a forgotten connection whenever its garbage is collected, which may be in the middle of another test. From
3.13 on it warns then, and the warning is blamed on that test. Here every connection of the tests' own process warns,
under each Python; and `open_databases` names those that a test has left open, so that it is blamed itself
(tests/conftest.py).
"""

from __future__ import annotations

import functools
import itertools
import sqlite3
import warnings
from typing import Any

_connect = sqlite3.connect
_numbers = itertools.count(1)
_open: set[str] = set()


class WatchedConnection(sqlite3.Connection):
    """A connection that complains when it is dropped open."""

    _name = ""

    def __init__(self, database: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(database, *args, **kwargs)
        self._name = f"connection {next(_numbers)} to {database}"
        _open.add(self._name)

    def close(self) -> None:
        super().close()
        _open.discard(self._name)

    def __del__(self) -> None:
        if self._name in _open:
            self.close()
            warnings.warn(f"{self._name} was not closed", ResourceWarning, source=self, stacklevel=2)


def install() -> None:
    """Watch every connection that is made from now on."""
    sqlite3.connect = functools.partial(_connect, factory=WatchedConnection)  # type: ignore[assignment]


def open_databases() -> frozenset[str]:
    """The connections of this process that are open."""
    return frozenset(_open)
