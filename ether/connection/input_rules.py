"""What a process was handed between two of its results, in a few numbers: runs of consecutive messages, pure.

An object keeps state, and Ether cannot see which part of it went into a result. It can say which messages the object
had been handed. A `Window` holds them for one stretch of time: for each kind, topic and source the runs of messages
that follow one another, each as its first id, its last id and how many there are.

Promise: a run names every message that was handed over, and no other one, except where its row says `about`: a row has
at most `MOST_RUNS` runs, and beyond that keeps only the first id, the last id and the number. What has no id (messages
of programs without Ether, answers within a process) is counted.

The trap: several methods and threads may take messages twice and out of order, so runs are sorted and joined when there
are many of them, and when they are given out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ether.wire.head import Headers, node_of

MOST_RUNS = 64
"""Of one row."""

MOST_ROWS = 1_000
"""Of one window. What comes beyond is counted."""


class Input(NamedTuple):
    """Something other than a message that a process was handed: the answer to a call, a call, a record of a ledger. (A
    tuple, because one is made for each call.)"""

    kind: str
    """As in the ledger: `data`, `record`, `call`."""
    topic: str
    """The user's name of it; of a call `instance.method`."""
    source: str
    """The instance or program that the ledger has it from."""
    seq: int
    """Its number among those of its source on its topic; 0 where it has none."""
    id: str
    """"" where it is not known."""


Item = tuple[str, Headers | None] | Input
"""What was handed over: a message as its MQTT topic and headers (None: of a program without Ether), or an `Input`."""

Key = tuple[str, str, str]
"""Kind, topic and source. The topic of a message that came by a subscription is that of MQTT."""


class InputRun:
    """Messages of one source that follow one another."""

    __slots__ = ("count", "first", "first_id", "last", "last_id", "node")

    def __init__(self, seq: int, message_id: str) -> None:
        self.node = node_of(message_id)
        self.first = self.last = seq
        self.first_id = self.last_id = message_id
        self.count = 1

    def copy(self) -> InputRun:
        """Another run of the same messages."""
        other = InputRun(self.first, self.first_id)
        other.last, other.last_id, other.count = self.last, self.last_id, self.count
        return other

    def joins(self, other: InputRun) -> bool:
        """Take over the messages of another run that begins inside of this one or right behind it; False where it does
        not. Messages without numbers follow one another where their ids do."""
        if self.node != other.node:
            return False
        if not self.first or not other.first:
            if self.first or other.first or other.first_id <= self.last_id:
                return False
            self.count += other.count
        elif self.first <= other.first <= self.last + 1:
            if other.last <= self.last:
                return True
            self.count = other.last - self.first + 1
        else:
            return False
        self.last, self.last_id = other.last, other.last_id
        return True


class InputRow:
    """What came of one kind from one source on one topic."""

    __slots__ = ("about", "nameless", "runs")

    def __init__(self) -> None:
        self.runs: list[InputRun] = []
        self.about = False
        """Whether the one run that is left may have holes."""
        self.nameless = 0
        """How many had no id."""

    def take(self, seq: int, message_id: str) -> None:
        """Take one message."""
        if self.runs and not self.about:
            run = self.runs[-1]
            if seq == run.last + 1 and run.last and message_id.endswith(run.node):
                run.last, run.last_id = seq, message_id
                run.count += 1
                return
        self.add(InputRun(seq, message_id))

    def add(self, other: InputRun) -> None:
        """Take a run, which belongs to this row from now on."""
        if self.about:
            self._widen(other)
        elif not (self.runs and self.runs[-1].joins(other)):
            self.runs.append(other)
            if len(self.runs) > MOST_RUNS:
                self.sort()
                if len(self.runs) > MOST_RUNS // 2:
                    runs, self.about, self.runs = self.runs[1:], True, self.runs[:1]
                    for run in runs:
                        self._widen(run)

    def _widen(self, other: InputRun) -> None:
        (whole,) = self.runs
        whole.first_id, whole.last_id = min(whole.first_id, other.first_id), max(whole.last_id, other.last_id)
        whole.count += other.count

    def sort(self) -> None:
        """Bring the runs into the order of their ids, and join those that follow one another."""
        runs = sorted(self.runs, key=lambda run: (run.node, run.first, run.first_id))
        joined = runs[:1]
        for run in runs[1:]:
            if not joined[-1].joins(run):
                joined.append(run)
        self.runs = sorted(joined, key=lambda run: run.first_id)

    def merge(self, other: InputRow) -> None:
        """Take everything of another row, which stays as it is."""
        self.nameless += other.nameless
        for run in other.runs:
            self.add(run.copy())
        if other.about and not self.about:
            self.sort()
            runs, self.about, self.runs = self.runs[1:], True, self.runs[:1]
            for run in runs:
                self._widen(run)

    @property
    def count(self) -> int:
        """How many messages these are."""
        return sum(run.count for run in self.runs) + self.nameless


class Window:
    """Everything that was handed over during one stretch of time."""

    __slots__ = ("left_out", "rows")

    def __init__(self) -> None:
        self.rows: dict[Key, InputRow] = {}
        self.left_out = 0
        """How many items came from further topics and sources than a window has rows."""

    def add(self, items: Iterable[Item]) -> None:
        """Take items, in their order."""
        row: InputRow | None = None
        last_topic = last_source = None
        for item in items:
            headers = None if isinstance(item, Input) else item[1]
            if headers is not None:  # as `facts_of` does it, which would cost as much as the rest
                topic, source, seq, message_id = item[0], headers.source, headers.seq, headers.id
                if topic is not last_topic or source != last_source:
                    last_topic, last_source = topic, source
                    row = self._row(("data", topic, source))
            else:
                key, seq, message_id = facts_of(item)
                row, last_topic = self._row(key), None
            if row is None:
                self.left_out += 1
            elif not message_id:
                row.nameless += 1
            else:
                row.take(seq, message_id)

    def merge(self, other: Window) -> None:
        """Take everything of another window, which stays as it is."""
        self.left_out += other.left_out
        for key, row in other.rows.items():
            mine = self._row(key)
            if mine is None:
                self.left_out += row.count
            else:
                mine.merge(row)

    def _row(self, key: Key) -> InputRow | None:
        row = self.rows.get(key)
        if row is None and len(self.rows) < MOST_ROWS:
            row = self.rows[key] = InputRow()
        return row


def facts_of(item: Item) -> tuple[Key, int, str]:
    """The key of an item, its number, and its id; "" where it has none."""
    if isinstance(item, Input):
        return (item.kind, item.topic, item.source), item.seq, item.id
    topic, headers = item
    if headers is None:
        return ("data", topic, ""), 0, ""
    return ("data", topic, headers.source), headers.seq, headers.id
