"""What has changed since when: tables whose rows have version numbers, so that each browser is told only what it lacks.

A row that was removed has to be told, too: it stays as None for a while. The trap: a browser that lacks more removals
than are kept would show rows for ever; it gets everything anew instead (`since` says so).
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, NamedTuple

_MOST_REMOVED = 2000


class ChangedRows(NamedTuple):
    """What is newer than a number: the number now, whether this is everything, and the rows by table and key."""

    number: int
    whole: bool
    rows: dict[str, dict[str, Any]]


class _Table:
    def __init__(self) -> None:
        self.rows: dict[str, tuple[int, Any]] = {}
        self.removed: deque[tuple[int, str]] = deque()
        self.newest = 0
        self.forgotten = 0
        """The number of the newest removal that is not kept any more."""


class Versions:
    """Named tables of rows. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables: dict[str, _Table] = {}
        self.number = 1

    def put(self, table: str, key: str, row: Any) -> None:
        """Set a row; nothing changes where it is as it was. None removes it."""
        with self._lock:
            self._put(self._tables.setdefault(table, _Table()), key, row)

    def put_all(self, table: str, rows: dict[str, Any]) -> None:
        """Set all rows of a table: those that are not given are removed."""
        with self._lock:
            known = self._tables.setdefault(table, _Table())
            for key in [key for key, (_, row) in known.rows.items() if row is not None and key not in rows]:
                self._put(known, key, None)
            for key, row in rows.items():
                self._put(known, key, row)

    def _put(self, table: _Table, key: str, row: Any) -> None:
        before = table.rows.get(key)
        if (before is None and row is None) or (before is not None and before[1] == row):
            return
        self.number += 1
        table.newest = self.number
        table.rows[key] = (self.number, row)
        if row is None:
            table.removed.append((self.number, key))
            if len(table.removed) > _MOST_REMOVED:
                table.forgotten, oldest = table.removed.popleft()
                if table.rows.get(oldest, (0, None))[0] == table.forgotten:
                    del table.rows[oldest]

    def row(self, table: str, key: str) -> Any:
        """A row; None where there is none."""
        with self._lock:
            known = self._tables.get(table)
            return None if known is None else known.rows.get(key, (0, None))[1]

    def since(self, number: int) -> ChangedRows:
        """What has changed after `number`; 0 for all there is."""
        with self._lock:
            whole = number == 0 or any(table.forgotten > number for table in self._tables.values())
            least = 0 if whole else number
            found: dict[str, dict[str, Any]] = {}
            for name, table in self._tables.items():
                if table.newest > least:
                    rows = table.rows.items()
                    newer = {key: row for key, (at, row) in rows if at > least and not (whole and row is None)}
                    if newer:
                        found[name] = newer
            return ChangedRows(self.number, whole, found)
