"""The lineage of a value: which record is meant (`find`), and the tree of everything that led to it (`why`).

From each record the tree goes to its inputs (`ether.provenance.inputs`): those that it was made of, and those that it
could have been made of, because its process had been handed them.

Promises: each record is followed once, from the place that is nearest to the value. Where it turns up again, the tree
says so and does not repeat it; so loops end, and the size is bounded by the number of records. A cause that is not in
the ledger is named, or counted where its id is not known. Many inputs of one topic are one step, which names all of
them and is followed no further. The trap: that a message was heard does not prove that it was used, only that it could
be.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from ether.errors import LedgerDamaged, NotRecorded, PayloadError
from ether.ledger.reader import LedgerReader, RecordFilter, StoredRecord
from ether.provenance.inputs import COULD, FEW, How, InputGroup, inputs_of

SHORTEST = 8
"""Characters of an id that are enough to look for it."""
_ROW = re.compile(r"(?:row\s*|#)?(?P<row>[0-9]{1,18})", re.IGNORECASE)
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f-]{0,27})?", re.IGNORECASE)
_KINDS = ("data", "record", "call", "log")
_MARGIN_S = 60.0
"""How far the time in an id and the time of its record may differ."""
_SHOWN = 5
"""Names that a message lists."""

MOST_STEPS = 1_000
"""Records in one tree, unless the caller says otherwise."""

NOT_RECORDED = "not recorded"
SHOWN = "shown elsewhere in this tree"
LOOP = "leads back to itself"
NOT_FOLLOWED = "not followed: the tree is cut here"

# -- finding the record that is meant


def find(reader: LedgerReader, text: str, *, last: bool = False) -> StoredRecord:
    """The record that a text means. With `last` the text is a topic (or filter), and means its newest record. Otherwise
    it is an id, the beginning of one (at least `SHORTEST` characters), or a row, as `17` or `row 17`. Raises
    `NotRecorded`."""
    given = text.strip()
    if last:
        return _last_of(reader, given)
    if found := reader.record(given):
        return found
    if (row := _ROW.fullmatch(given)) and (found := reader.by_row(int(row["row"]))):
        return found
    if _ID.fullmatch(given):
        return _by_beginning(reader, given.lower())
    raise NotRecorded(given, _hint(reader, given, row is not None))


def _last_of(reader: LedgerReader, topic: str) -> StoredRecord:
    for record in reader.records(RecordFilter(topic=topic), newest_first=True, limit=1):
        return record
    raise NotRecorded(topic, f"nothing was recorded on this topic; {_topics(reader)}")


def _by_beginning(reader: LedgerReader, beginning: str) -> StoredRecord:
    """The record whose id begins so. An id is a UUIDv7: its first 12 digits are the time in milliseconds. The digits
    that are given bound the time, and only records of that time are read."""
    digits = beginning.replace("-", "")[:12]
    first = int(digits.ljust(12, "0"), 16) / 1000
    last = int(digits.ljust(12, "f"), 16) / 1000
    near = reader.records(RecordFilter(kinds=_KINDS, since=first - _MARGIN_S, until=last + _MARGIN_S))
    found = {record.id: record for record in near if record.id.startswith(beginning)}
    if len(found) == 1:
        return next(iter(found.values()))
    raise NotRecorded(
        beginning, f"{len(found)} ids begin with it: {_some(list(found))}" if found else "no id begins with it"
    )


def _hint(reader: LedgerReader, given: str, is_row: bool) -> str:
    if is_row:
        row = int(_ROW.fullmatch(given)["row"])  # type: ignore[index]
        for deletion in reader.deletions():
            if any(span.first <= row <= span.last for span in deletion.spans):
                return f"it was {deletion}"
        return f"the ledger has the rows 1 to {reader.count()}"
    if any(topic.topic == given for topic in reader.topics()):
        return "it is a topic: --last asks for the newest value on it"
    expected = f"an id or its first {SHORTEST} characters, a row such as 17, or a topic with --last"
    return f"expected {expected}; {_topics(reader)}"


def _topics(reader: LedgerReader) -> str:
    topics = list(dict.fromkeys(topic.topic for topic in reader.topics()))
    return f"recorded are the topics {_some(topics)}" if topics else "no topic was recorded"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


# -- the tree


@dataclass(frozen=True, slots=True)
class LineageLog:
    """A log record that was made while a value was made."""

    time: float
    source: str
    level: str
    message: str
    exception: str = ""


@dataclass(frozen=True, slots=True)
class LineageStep:
    """One line of the tree. `of` is the id of the record that it led to, and `how` the way in which it did. `note` says
    why the tree goes no further here; then there may be no `record`. A step with a `group` stands for many inputs;
    where they are `followed`, the steps behind it, one deeper, are these."""

    id: str
    depth: int
    of: str
    how: How
    record: StoredRecord | None = None
    logs: tuple[LineageLog, ...] = ()
    note: str = ""
    group: InputGroup | None = None
    followed: bool = True

    @property
    def replay_of(self) -> str | None:
        """The id of the message that this one repeats."""
        original = self.record.more.get("replay_of") if self.record is not None else None
        return original if isinstance(original, str) else None


class Earlier(NamedTuple):
    """The results of the same name that the same process had made before: how many, and the row of the last one."""

    number: int = 0
    row: int = 0


_NONE_EARLIER = Earlier()


@dataclass(frozen=True, slots=True)
class Tree:
    """The steps from the value to its roots, each before its own causes. `contexts`: the contexts of all steps by
    SHA-256, None for one that was not recorded. `earlier`: of the value."""

    steps: tuple[LineageStep, ...]
    contexts: Mapping[str, Mapping[str, Any] | None]
    earlier: Earlier = _NONE_EARLIER

    @property
    def records(self) -> list[StoredRecord]:
        """Every record of the tree, once; without those that stand in a group only."""
        return [step.record for step in self.steps if step.record is not None and not step.note]

    @property
    def missing(self) -> list[str]:
        """The ids of causes that are not in the ledger."""
        found = dict.fromkeys(step.id for step in self.steps if step.note == NOT_RECORDED)
        for group in self.groups:
            found |= dict.fromkeys(group.named)
        return list(found)

    @property
    def unnamed(self) -> int:
        """How many more are not in the ledger, and their ids are not known."""
        return sum(max(0, group.missing - len(group.named)) for group in self.groups)

    @property
    def groups(self) -> list[InputGroup]:
        """The groups of inputs of all records in the tree."""
        return [step.group for step in self.steps if step.group is not None]

    @property
    def could(self) -> bool:
        """Whether the value could have been made of more than its process has told: of what it had kept from before."""
        return not any(step.how in ("used", "trigger") for step in self.steps if step.of == self.steps[0].id)

    @property
    def is_cut(self) -> bool:
        """Whether there are more records than the tree may have. What is not followed in a group is not counted."""
        return any(step.note == NOT_FOLLOWED for step in self.steps)


@dataclass(slots=True)
class _Node:
    """A record in the graph of causes. `found_by`: the id from which the walk reached it first; its subtree stands
    there."""

    id: str
    how: How
    found_by: str | None
    record: StoredRecord | None
    causes: list[tuple[str, How]] = field(default_factory=list)
    groups: list[InputGroup] = field(default_factory=list)


def why(reader: LedgerReader, what: StoredRecord, *, most_steps: int = MOST_STEPS, few: int = FEW) -> Tree:
    """The tree of a record, back to its roots. Records without an id (gaps, states) have no causes. A group of inputs
    is followed where it has at most `few`."""
    nodes = _explored(reader, what, most_steps, few)
    steps = tuple(_ordered(reader, nodes, what, few))
    wanted = dict.fromkeys(step.record.context for step in steps if step.record is not None and step.record.context)
    return Tree(steps, {sha256: reader.context(sha256) for sha256 in wanted}, Earlier(*reader.earlier(what)))


def _explored(reader: LedgerReader, what: StoredRecord, most_steps: int, few: int) -> dict[str, _Node]:
    """The graph of causes, by id. It is searched breadth first, so each record is found from its nearest place, and a
    cut at `most_steps` leaves out the farthest records."""
    nodes = {what.id: _Node(what.id, "asked", None, what)}
    waiting = deque([nodes[what.id]])
    while waiting and len(nodes) < most_steps:
        node = waiting.popleft()
        if node.record is None:
            continue
        node.causes, node.groups = inputs_of(reader, node.record)
        members = [(known, group.how) for group in node.groups if len(group.ids) <= few for known in group.ids]
        for known, how in (*node.causes, *members):
            if known not in nodes:
                nodes[known] = found = _Node(known, how, node.id, reader.record(known))
                waiting.append(found)
    for node in waiting:  # at the cut: their causes are named, and not followed
        if node.record is not None:
            node.causes, node.groups = inputs_of(reader, node.record)
    return nodes


def _ordered(reader: LedgerReader, nodes: Mapping[str, _Node], what: StoredRecord, few: int) -> Iterator[LineageStep]:
    """The steps in the order of a depth-first walk, on a stack of its own: a chain of causes may be longer than
    Python's stack is deep."""
    logs_of = cache(reader.logs_of)  # a record's logs are read for its own step and for each step that it led to
    waiting: list[tuple[str | InputGroup, int, str, How]] = [(what.id, 0, "", "asked")]
    while waiting:
        known, depth, of, how = waiting.pop()
        if isinstance(known, InputGroup):
            is_followed = bool(known.ids) and len(known.ids) <= few
            yield LineageStep("", depth, of, how, group=known, followed=is_followed)
            if is_followed:
                waiting += [(member, depth + 1, of, how) for member in reversed(known.ids)]
            continue
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
            sure = [(cause, depth + 1, known, kind) for cause, kind in node.causes if kind not in COULD]
            heard = [(cause, depth + 1, known, kind) for cause, kind in node.causes if kind in COULD]
            groups = [(group, depth + 1, known, group.how) for group in node.groups]
            waiting += [*reversed(heard), *reversed(groups), *reversed(sure)]


def _why_again(nodes: Mapping[str, _Node], known: str, of: str) -> str:
    """The note for a record that stands elsewhere in the tree: it is a loop where it is on the way to itself."""
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
    """The log records that belong to a record: those that its source made while it handled the record's parents, or the
    record itself. For the record that the user asked for, also those of other instances that handled it."""
    found = {log.row: log for log in logs_of(record.id) if asked or log.source == record.source}
    for parent in record.parents:
        found |= {log.row: log for log in logs_of(parent) if log.source == record.source}
    return [found[row] for row in sorted(found)]


def _log_line(record: StoredRecord) -> LineageLog:
    try:
        value = record.value
    except (PayloadError, LedgerDamaged) as error:
        return LineageLog(record.time, record.source, "?", f"this log record cannot be read: {error}")
    if not isinstance(value, Mapping):
        return LineageLog(record.time, record.source, "?", str(value))
    parts = [str(value.get(key, "")) for key in ("level", "message", "exception")]
    return LineageLog(record.time, record.source, *parts)
