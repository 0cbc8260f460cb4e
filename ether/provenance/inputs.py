"""What one record is made of, as the ledger tells: each input by its id, with how it is known.

    parent    the message that its method was handling, or that a call was made from
    used      the user's code says so (`ether.made_of`); then nothing else is an input
    trigger   the message that its method was handling, where the user's code names others as its inputs
    since     its process was handed it since its last result of that name: it could have used it
    heard     its process had heard it before: it could have used it

Many inputs of one topic and source are a group (`InputGroup`), which a record tells in a few numbers: its ids are read
from the ledger. Promise: what the ledger does not have is counted (`missing`), and where the ids may be too many, the
group says `about`. The trap: an older ledger tells `parent` and `heard` only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ether.ledger.reader import LedgerReader, StoredRecord

How = Literal["asked", "parent", "used", "trigger", "since", "heard"]

COULD: frozenset[str] = frozenset(("since", "heard"))
"""What a record could have been made of. Of everything else it was."""

FEW = 12
"""So many inputs of one kind are told one by one, more as a group."""

_NODE_CHARS = 12


@dataclass(frozen=True, slots=True)
class InputGroup:
    """Inputs of one kind, topic and source, in the order of their ids. `count`: how many the record tells of, `ids` and
    `rows`: those that are in the ledger; `named`: ids of others that are known."""

    how: How
    kind: str
    topic: str
    source: str
    count: int
    ids: tuple[str, ...]
    rows: tuple[int, ...]
    named: tuple[str, ...] = ()
    about: bool = False
    """Whether some of `ids` may be no inputs: all that came between the first and the last are here."""

    @property
    def missing(self) -> int:
        """How many of them are not in the ledger."""
        return max(0, self.count - len(self.ids))


class Inputs(NamedTuple):
    """The inputs of one record: those that are told one by one, and groups."""

    single: list[tuple[str, How]]
    groups: list[InputGroup]

    def each(self) -> Iterator[tuple[str, How]]:
        """Every input that has an id, once; the surest way in which it is known."""
        told = dict(self.single)
        yield from self.single
        for group in self.groups:
            for known in (*group.ids, *group.named):
                if known not in told:
                    told[known] = group.how
                    yield known, group.how


def inputs_of(reader: LedgerReader, record: StoredRecord) -> Inputs:
    """The inputs of a record."""
    exact = record.more.get("made_of")
    if isinstance(exact, Mapping):
        return _exact(reader, record, exact)
    single: dict[str, How] = dict.fromkeys(record.parents, "parent")
    for known in heard_of(record):
        single.setdefault(known, "heard")
    single.pop(record.id, None)
    told = {record.id, *single}
    since = record.more.get("since")
    rows = since if isinstance(since, Sequence) and not isinstance(since, str) else ()
    groups = [group for row in rows if isinstance(row, Mapping) and (group := _since(reader, record, row, told)).count]
    return Inputs(list(single.items()), groups)


def heard_of(record: StoredRecord) -> list[str]:
    """The ids of its heard messages. The record has them as a list, or as a mapping by topic."""
    heard = record.more.get("heard")
    listed = heard.values() if isinstance(heard, Mapping) else heard if isinstance(heard, (list, tuple)) else ()
    return [known for known in listed if isinstance(known, str)]


def left_out_of(record: StoredRecord) -> Mapping[str, int]:
    """How many `sources` (pairs of topic and source) and `messages` its process had been handed beside these."""
    told = record.more.get("left_out")
    found = told if isinstance(told, Mapping) else {}
    return {key: number for key, number in found.items() if isinstance(number, int) and number}


# -- what the user's code has named


def _exact(reader: LedgerReader, record: StoredRecord, told: Mapping[str, Any]) -> Inputs:
    ids = list(record.parents)
    if isinstance(sha256 := told.get("list"), str):
        content = reader.artifact(sha256)
        if content is None:
            lost = InputGroup("used", "", "", "", int(told.get("n") or 0), (), ())
            return Inputs([(parent, "trigger") for parent in record.parents], [lost])
        ids = content.decode(errors="replace").split("\n")
    single: list[tuple[str, How]] = []
    groups: list[InputGroup] = []
    if len(ids) <= FEW:
        single += [(known, "used") for known in ids]
    else:
        groups = _grouped(reader, ids)
    if isinstance(trigger := told.get("trigger"), str):
        single.append((trigger, "trigger"))
    return Inputs(single, groups)


def _grouped(reader: LedgerReader, ids: Sequence[str]) -> list[InputGroup]:
    """Ids by kind, topic and source; those that are not in the ledger have none of these."""
    places = reader.places_of(ids)
    by_key: dict[tuple[str, str, str], list[tuple[str, int]]] = {}
    for known in ids:
        row, kind, topic, source = places.get(known, (0, "", "", ""))
        by_key.setdefault((kind, topic, source), []).append((known, row))
    groups = []
    for (kind, topic, source), listed in by_key.items():
        names, rows = zip(*listed, strict=True)
        there = (names, rows, ()) if kind else ((), (), names)
        groups.append(InputGroup("used", kind, topic, source, len(names), *there))
    return groups


# -- what came since the last result


def _since(reader: LedgerReader, record: StoredRecord, told: Mapping[str, Any], single: set[str]) -> InputGroup:
    """One row of `since`, without the ids that are told one by one."""
    kind, topic, source = (str(told.get(key, default)) for key, default in (
        ("kind", "data"), ("topic", ""), ("source", ""),
    ))  # fmt: skip
    about = bool(told.get("about"))
    count = int(told.get("nameless") or 0)
    ids: list[str] = []
    rows: list[int] = []
    named: list[str] = []
    for first, last, number in _runs(told.get("runs")):
        found = reader.between(kind, topic, source, first, last, number)
        if not about:
            found = [(row, known) for row, known in found if _node(known) == _node(first)]
            if kind == "call" and len(found) > number:
                found = [(row, known) for row, known in found if _has_result(reader, row)]
        inside = [known for known in single if first <= known <= last and (about or _node(known) == _node(first))]
        there = {known for _, known in found}
        about = about or len(found) > number
        named += [known for known in dict.fromkeys((first, last)) if known not in there and known not in single]
        count += number - (sum(known in there for known in inside) if there else len(inside))
        for row, known in found:
            if known not in single:
                ids.append(known)
                rows.append(row)
    return InputGroup("since", kind, topic, source, count, tuple(ids), tuple(rows), tuple(named), about)


def _runs(told: object) -> Iterator[tuple[str, str, int]]:
    """The runs of a row: first id, last id, number."""
    for run in told if isinstance(told, (list, tuple)) else ():
        match run:
            case [str(only)]:
                yield only, only, 1
            case [str(first), str(last), int(number)]:
                yield first, last, number


def _node(message_id: str) -> str:
    return message_id[-_NODE_CHARS:]


def _has_result(reader: LedgerReader, row: int) -> bool:
    """Whether a call in this row was answered with a value."""
    record = reader.by_row(row)
    return record is not None and isinstance(record.value, Mapping) and "result" in record.value
