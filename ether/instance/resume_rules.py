"""From which numbers on a new incarnation goes on, decided from what its predecessor has left.

A receiver asks a source for everything above one number of each topic, for all of its methods together; each method
then leaves out what it has handled itself. Promise: nothing that a method has not begun is left out. A message whose
method had returned is handled again where the broker may not have what it published. One that was in work when the
process died is not handled again and is named: as with a call, nobody knows how far it came, and it may be the reason.

The trap: a method without a row has handled nothing of that source, if the predecessor had the method. If it had not,
because the code was changed meanwhile, the method goes on where the others are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class RowKey(NamedTuple):
    """One method, the full topic of its messages, and the process that sends them, with its name."""

    method: str
    topic: str
    node: str
    source: str


class SavedRow(NamedTuple):
    """One row: up to which number a method has handled the messages of one source on one topic."""

    key: RowKey
    begun: int = 0
    """The highest number that was begun."""
    done: int = 0
    """Up to here its method has returned."""
    finished: int = 0
    """Up to here the broker has what its method has published, too. The next incarnation begins behind it."""
    zero: float = 0.0
    """The smallest difference between the monotonic clock and the times in the source's messages; 0.0: not known."""
    skipped: tuple[tuple[int, int], ...] = ()
    """Ranges of numbers, both ends included, that are left out: they were in work when an incarnation died."""


class EarlierPositions(NamedTuple):
    """What a file says. `since`: when the first incarnation began to listen, by the monotonic clock; `methods`: those
    that the last one had."""

    since: float
    methods: frozenset[str]
    rows: list[SavedRow]
    node: str = ""


class Resumption(NamedTuple):
    """How to go on."""

    rows: list[SavedRow]
    """The rows that the new incarnation begins with."""
    numbers: dict[tuple[str, str], tuple[str, int]]
    """For each topic and node the source's name, and the number above which everything is asked for."""
    left_out: list[tuple[RowKey, int, int]]
    """What was in work when the process died: the first and the last number."""


def resumption(
    earlier: EarlierPositions, filters: Mapping[str, Sequence[str]], matches: Callable[[str, str], bool]
) -> Resumption:
    """Decide. `filters`: the MQTT topic filters of each method that subscribes now."""
    found = Resumption([], {}, [])
    for (topic, node), known in _by_source(earlier.rows).items():
        listening = [method for method, names in filters.items() if any(matches(name, topic) for name in names)]
        if not listening:
            continue
        source = known[0].key.source
        rows = {row.key.method: _next(row) for row in known}
        furthest = max(row.finished for row in rows.values())
        for method in listening:
            if method not in earlier.methods:
                rows[method] = SavedRow(RowKey(method, topic, node, source), furthest, furthest, furthest)
        found.rows.extend(rows[method] for method in listening if method in rows)
        in_work = (row for row in known if row.begun > row.done and row.key.method in listening)
        found.left_out.extend((row.key, row.done + 1, row.begun) for row in in_work)
        if all(method in rows for method in listening):
            found.numbers[topic, node] = source, min(rows[method].finished for method in listening)
    return found


def _by_source(rows: Sequence[SavedRow]) -> dict[tuple[str, str], list[SavedRow]]:
    """The rows of each topic and node. A name has one process at a time, so of several nodes of one name the latest
    counts."""
    latest = {(row.key.topic, row.key.source): row.key.node for row in rows}
    found: dict[tuple[str, str], list[SavedRow]] = defaultdict(list)
    for row in rows:
        if latest[row.key.topic, row.key.source] == row.key.node:
            found[row.key.topic, row.key.node].append(row)
    return found


def _next(row: SavedRow) -> SavedRow:
    """A row as the next incarnation begins with it."""
    skipped = tuple(pair for pair in row.skipped if pair[1] > row.finished)
    if row.begun > row.done:
        skipped = (*skipped, (row.done + 1, row.begun))
    return SavedRow(row.key, row.finished, row.finished, row.finished, row.zero, skipped)
