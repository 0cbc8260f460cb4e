"""Why a value is what it is: the tree from it back to what began it.

From each record the tree goes to its parents (the messages that led to it) and to what its instance *had heard before*:
the last message of each topic and source that it had received, which a value made from stored state comes from as well.

Promises: each record is followed once, nearest first; where it turns up again the tree says so and does not repeat it,
so that loops end and the size is bounded by the number of records. What is not in the ledger is named. The trap: that
something was heard before does not say that it was used, only that it could be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from ether.errors import LedgerDamaged, PayloadError
from ether.ledger.reader import LedgerReader
from ether.ledger.stored_record import StoredRecord

How = Literal["asked", "parent", "heard"]
MOST_STEPS = 1_000
"""Records that one tree shows unless it is told otherwise."""

NOT_RECORDED = "not recorded"
SHOWN = "shown elsewhere in this tree"
LOOP = "leads back to itself"
NOT_FOLLOWED = "not followed: the tree is cut here"


@dataclass(frozen=True, slots=True)
class LineageLog:
    """What was logged while a value was made."""

    time: float
    source: str
    level: str
    message: str
    exception: str = ""


@dataclass(frozen=True, slots=True)
class LineageStep:
    """One line of the tree. `of` is the id that it led to, `how` in which way; `note` says why it goes no further, and
    then only its `id` may be known."""

    id: str
    depth: int
    of: str
    how: How
    record: StoredRecord | None = None
    logs: tuple[LineageLog, ...] = ()
    note: str = ""

    @property
    def replay_of(self) -> str | None:
        """The id that this one repeats."""
        told = self.record.more.get("replay_of") if self.record is not None else None
        return told if isinstance(told, str) else None


@dataclass(frozen=True, slots=True)
class Tree:
    """The steps from the value to its roots, each before what led to it. `contexts`: what explains them, by SHA-256;
    None for one that was not recorded."""

    steps: tuple[LineageStep, ...]
    contexts: Mapping[str, Mapping[str, Any] | None]

    @property
    def records(self) -> list[StoredRecord]:
        """Every record of the tree, once."""
        return [step.record for step in self.steps if step.record is not None and not step.note]

    @property
    def missing(self) -> list[str]:
        """Ids that are named as a cause and are not in the ledger."""
        return list(dict.fromkeys(step.id for step in self.steps if step.note == NOT_RECORDED))

    @property
    def is_cut(self) -> bool:
        """True where there is more than was asked for."""
        return any(step.note == NOT_FOLLOWED for step in self.steps)


@dataclass(slots=True)
class _Node:
    """A record on its way into the tree; `found_by` is the one that led here first."""

    id: str
    how: How
    found_by: str | None
    record: StoredRecord | None
    causes: list[tuple[str, How]] = field(default_factory=list)


def why(reader: LedgerReader, what: StoredRecord, *, most_steps: int = MOST_STEPS) -> Tree:
    """The tree of a record, back to the roots. Records without an id (gaps, states) have no causes."""
    nodes = _explored(reader, what, most_steps)
    steps = tuple(_ordered(reader, nodes, what))
    wanted = dict.fromkeys(step.record.context for step in steps if step.record is not None and step.record.context)
    return Tree(steps, {sha256: reader.context(sha256) for sha256 in wanted})


def causes_of(record: StoredRecord) -> list[tuple[str, How]]:
    """Ids of what led to it and of what its instance had heard before, each once."""
    causes: dict[str, How] = dict.fromkeys(record.parents, "parent")
    for known in heard_of(record):
        causes.setdefault(known, "heard")
    causes.pop(record.id, None)
    return list(causes.items())


def heard_of(record: StoredRecord) -> list[str]:
    """Ids that its instance had last received before, as a list or by topic."""
    told = record.more.get("heard")
    listed = told.values() if isinstance(told, Mapping) else told if isinstance(told, (list, tuple)) else ()
    return [known for known in listed if isinstance(known, str)]


def _explored(reader: LedgerReader, what: StoredRecord, most_steps: int) -> dict[str, _Node]:
    """Everything that leads to it, nearest first, until there are enough."""
    nodes = {what.id: _Node(what.id, "asked", None, what)}
    waiting = deque([nodes[what.id]])
    while waiting and len(nodes) < most_steps:
        node = waiting.popleft()
        if node.record is None:
            continue
        node.causes = causes_of(node.record)
        for known, how in node.causes:
            if known not in nodes:
                nodes[known] = found = _Node(known, how, node.id, reader.record(known))
                waiting.append(found)
    for node in waiting:
        node.causes = causes_of(node.record) if node.record is not None else []
    return nodes


def _ordered(reader: LedgerReader, nodes: Mapping[str, _Node], what: StoredRecord) -> Iterator[LineageStep]:
    """The tree as lines. A stack of its own: a chain of causes may be longer than Python's."""
    logs_of = cache(reader.logs_of)  # each is asked for by its own step and by those that it led to
    waiting: list[tuple[str, int, str, How]] = [(what.id, 0, "", "asked")]
    while waiting:
        known, depth, of, how = waiting.pop()
        node = nodes.get(known)
        if node is None:
            yield LineageStep(known, depth, of, how, None, (), NOT_FOLLOWED)
        elif node.found_by != (of or None):
            yield LineageStep(known, depth, of, how, node.record, (), _why_again(nodes, known, of))
        elif node.record is None:
            yield LineageStep(known, depth, of, how, None, (), NOT_RECORDED)
        else:
            logs = tuple(map(_log_line, logs_with(logs_of, node.record, asked=how == "asked")))
            yield LineageStep(known, depth, of, how, node.record, logs)
            waiting += [(cause, depth + 1, known, kind) for cause, kind in reversed(node.causes)]


def _why_again(nodes: Mapping[str, _Node], known: str, of: str) -> str:
    if nodes[known].record is None:
        return NOT_RECORDED
    at: str | None = of
    while at is not None:
        if at == known:
            return LOOP
        at = nodes[at].found_by
    return SHOWN


def logs_with(
    logs_of: Callable[[str], Sequence[StoredRecord]], record: StoredRecord, *, asked: bool = False
) -> list[StoredRecord]:
    """What was logged where the record was made, while it was: by its source, while that handled what led to it. For
    the record that is asked for also what others logged while they handled it."""
    found = {log.row: log for log in logs_of(record.id) if asked or log.source == record.source}
    for parent in record.parents:
        found |= {log.row: log for log in logs_of(parent) if log.source == record.source}
    return [found[row] for row in sorted(found)]


def _log_line(record: StoredRecord) -> LineageLog:
    try:
        told = record.value
    except (PayloadError, LedgerDamaged) as error:
        return LineageLog(record.time, record.source, "?", f"this log record cannot be read: {error}")
    if not isinstance(told, Mapping):
        return LineageLog(record.time, record.source, "?", str(told))
    parts = [str(told.get(key, "")) for key in ("level", "message", "exception")]
    return LineageLog(record.time, record.source, *parts)
