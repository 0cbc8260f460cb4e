"""Which record of a ledger somebody means: by its id or the beginning of it, by its row, or as the last of a topic.

The trap: the beginning of an id is looked for among the records of its time, because an id begins with that. So it
needs eight characters, which say it to the minute.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ether.errors import NotRecorded
from ether.ledger.reader import LedgerReader
from ether.ledger.stored_record import StoredRecord

SHORTEST = 8
_ROW = re.compile(r"(?:row\s*|#)?(?P<row>[0-9]{1,18})", re.IGNORECASE)
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f-]{0,27})?", re.IGNORECASE)
_KINDS = ("data", "record", "call", "log")
_MARGIN_S = 60.0
_SHOWN = 5


def find(reader: LedgerReader, text: str, *, last: bool = False) -> StoredRecord:
    """The record that the text means. With `last` it is a topic (or filter) and its newest record is meant; else an id,
    at least `SHORTEST` characters of one, or a row as `17` or `row 17`. Raises `NotRecorded`."""
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
    for record in reader.records(topic=topic, newest_first=True, limit=1):
        return record
    raise NotRecorded(topic, f"nothing was recorded on this topic; {_topics(reader)}")


def _by_beginning(reader: LedgerReader, beginning: str) -> StoredRecord:
    digits = beginning.replace("-", "")[:12]
    first = int(digits.ljust(12, "0"), 16) / 1000
    last = int(digits.ljust(12, "f"), 16) / 1000
    near = reader.records(kinds=_KINDS, since=first - _MARGIN_S, until=last + _MARGIN_S)
    found = {record.id: record for record in near if record.id.startswith(beginning)}
    if len(found) == 1:
        return next(iter(found.values()))
    raise NotRecorded(
        beginning, f"{len(found)} ids begin with it: {_some(list(found))}" if found else "no id begins with it"
    )


def _hint(reader: LedgerReader, given: str, is_row: bool) -> str:
    if is_row:
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
