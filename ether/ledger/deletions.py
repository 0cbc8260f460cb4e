"""Rows of a volume that were deleted: the tombstones that stand in their place.

Each deletion says who, when, what and why; each of its spans says which rows are gone, and the link of the last of
them. The chain goes on from that link: the row behind the span was linked to it when it was written, so nobody can put
other rows, or another number of them, in the place of those that are gone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from ether.ledger import schema
from ether.ledger.sqlite import Connection
from ether.wire.json_text import dumps, loads


class DeletedSpan(NamedTuple):
    """Rows that are gone. `link`: of the last of them."""

    first: int
    last: int
    link: bytes


class Deletion(NamedTuple):
    """One deletion in one volume."""

    said: Mapping[str, Any]
    """`at` (unix seconds), `by`, `host`, `what`, `why`, `records`, `bytes`."""
    spans: tuple[DeletedSpan, ...]
    whole: bool
    """Whether what it says is what was written."""

    def __str__(self) -> str:
        said = self.said
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(said.get("at") or 0)))
        why = f": {said['why']}" if said.get("why") else ""
        who = f"{said.get('by', 'somebody')} on {said.get('host', 'a machine')}"
        return f"deleted {when} by {who}: {said.get('what', '')}{why}"

    @property
    def rows(self) -> int:
        """How many rows are gone."""
        return sum(span.last - span.first + 1 for span in self.spans)


def deletions_in(connection: Connection) -> list[Deletion]:
    """The deletions of a volume, in their order. Raises `SqliteError`."""
    if not schema.has_deletions(connection):
        return []
    spans: dict[int, list[DeletedSpan]] = {}
    for first, last, link, deletion in connection.execute("SELECT * FROM deleted ORDER BY first"):
        spans.setdefault(deletion, []).append(DeletedSpan(first, last, link))
    return [
        Deletion(_read(said), tuple(spans.get(number, ())), hashlib.sha256(str(said).encode()).digest() == checksum)
        for number, said, checksum in connection.execute("SELECT * FROM deletions ORDER BY deletion")
    ]


def _read(said: object) -> Mapping[str, Any]:
    try:
        found = loads(str(said), strict=True)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def add_deletion(connection: Connection, said: Mapping[str, object], spans: list[DeletedSpan]) -> None:
    """Note a deletion. The tables are there. Raises `SqliteError`."""
    text = dumps(dict(said))
    number = connection.execute("SELECT coalesce(max(deletion), 0) + 1 FROM deletions").fetchone()[0]
    connection.execute("INSERT INTO deletions VALUES (?, ?, ?)", (number, text.decode(), hashlib.sha256(text).digest()))
    connection.executemany("INSERT INTO deleted VALUES (?, ?, ?, ?)", [(*span, number) for span in spans])
