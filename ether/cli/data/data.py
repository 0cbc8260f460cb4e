"""`ether data`: recorded values as a table or as JSON lines; the topics of a ledger; the list of ledgers."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ether.cli.arguments import shown_value
from ether.cli.data.recorded import RecordQuery, ledger_folder, shown_time
from ether.cli.data.waiting import waiting_lines
from ether.cli.options import Json
from ether.cli.output import ago, print_json, print_table, remark, to_json
from ether.errors import NoLedger
from ether.ledger.places import list_ledgers
from ether.ledger.reader import LedgerReader
from ether.reading.data import Data, Record
from ether.reading.find_runs import is_pattern
from ether.recording.sources import Source, waiting_sessions

_SHOWN = 50
_VALUE_CHARS = 100

Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", metavar="KIND", help="data, record, call, log, state, run …; else data and record."),
]


def data(
    query: RecordQuery,
    kind: Kinds = None,
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", min=1, help="The last so many; else 50, with --json all.")
    ] = None,
    topics: Annotated[bool, typer.Option("--topics", help="Show what there is on each topic.")] = False,
    ledgers: Annotated[bool, typer.Option("--list", "-l", help="Show which ledgers there are.")] = False,
    json: Json = False,
) -> None:
    """Show what was recorded, oldest first. With --json one object a line."""
    if ledgers:
        _show_ledgers(as_json=json)
        return
    waiting = waiting_sessions()  # first: what is in the ledger by then does not wait
    try:
        _show_data(query, kind, lines, topics=topics, as_json=json)
    except NoLedger as error:
        _remark_waiting(waiting, error.wanted)
        raise
    if waiting and (query.find or is_pattern(query.ledger)):
        _remark_waiting(waiting, None)
    elif waiting:
        with LedgerReader.open(ledger_folder(query.ledger)) as reader:
            _remark_waiting(waiting, reader.session)


def _remark_waiting(waiting: Mapping[str, Sequence[Source]], wanted: str | None) -> None:
    """Say what was saved and is in no table yet: of one session, or of all."""
    for session, sources in waiting.items():
        if wanted in (None, session):
            for line in waiting_lines(session, sources):
                remark(line)


def _show_data(query: RecordQuery, kind: list[str] | None, lines: int | None, *, topics: bool, as_json: bool) -> None:
    if topics:
        show_topics(topic_rows(query.ledger), as_json=as_json)
        return
    found = query.records(tuple(kind or ("data", "record")))
    if as_json:
        for record in _last(found, lines):
            print_json(record_to_json(record), lines=True)
    else:
        _show_records(found, lines or _SHOWN)


def _last(found: Data, lines: int | None) -> Any:
    return found if lines is None else deque(found, maxlen=lines)


def _show_records(found: Data, lines: int) -> None:
    rows: deque[Record] = deque(maxlen=lines)
    count = 0
    for record in found:
        rows.append(record)
        count += 1
    remark(
        f"{found.folder}: {f'the last {len(rows):,} of {count:,} records' if count > lines else f'{count:,} records'}"
    )
    if moved := [record for record in rows if record.clock_set_s is not None]:
        remark(f"the clock was set after {len(moved):,} of these were made: their times are corrected here")
    columns = {
        "session": "SESSION", "run": "RUN", "time": "TIME", "topic": "TOPIC", "source": "FROM", "trial": "TRIAL",
        "value": "VALUE",
    }  # fmt: skip
    if all(record.session is None for record in rows):
        del columns["session"], columns["run"]
    if all(record.trial is None for record in rows):
        del columns["trial"]
    print_table([_row(record) for record in rows], columns, nothing="nothing was recorded that fits")


def _row(record: Record) -> dict[str, object]:
    value = shown_value(to_json(record.value), _VALUE_CHARS)
    return {
        "time": shown_time(record.corrected_time), "topic": record.topic, "source": record.source,
        "trial": _shown_trial(record), "value": value, "session": record.session, "run": record.run,
    }  # fmt: skip


def _shown_trial(record: Record) -> str:
    if record.trial is None:
        return ""
    notes = [] if record.attempt in (None, 1) else [f"attempt {record.attempt}"]
    notes += [f"by {record.by}"] if record.by else []
    return f"{record.trial} ({', '.join(notes)})" if notes else f"{record.trial}"


def record_to_json(record: Record) -> dict[str, Any]:
    """A record as one line of JSON."""
    facts = ("time", "topic", "source", "id", "run", "kind", "row")
    line = {name: getattr(record, name) for name in facts}
    line |= {"parents": list(record.parents), "value": to_json(record.value)}
    known = (
        "session",
        "trial",
        "attempt",
        "by",
        "replay_of",
        "problem",
        "behind_s",
        "waiting",
        "skipped",
        "safe",
        "clock_set_s",
    )
    for name in known:
        if getattr(record, name) is not None:
            line[name] = getattr(record, name)
    if record.clock_set_s is not None:
        line["corrected_time"] = record.corrected_time
    if record.metadata:
        line["metadata"] = to_json(dict(record.metadata))
    return line


def topic_rows(ledger: str | None) -> list[dict[str, Any]]:
    """What a ledger has on each topic. Raises `NoLedger`, `SeveralLedgers`, `LedgerError`."""
    with LedgerReader.open(ledger_folder(ledger)) as reader:
        return [asdict(summary) for summary in reader.topics()]


def show_topics(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print what a ledger has on each topic."""
    if as_json:
        print_json(rows)
        return
    shown = [
        {**row, "count": f"{row['count']:,}", "first": shown_time(row["first"]), "last": shown_time(row["last"])}
        for row in rows
    ]
    columns = {"topic": "TOPIC", "kind": "KIND", "count": "RECORDS", "first": "FIRST", "last": "LAST"}
    print_table(shown, columns, nothing="no values")


def _show_ledgers(*, as_json: bool) -> None:
    rows = [
        {"session": place.session, "folder": str(place.folder), "written": place.written}
        for place in list_ledgers(os.environ)
    ]
    if as_json:
        print_json(rows)
        return
    shown = [{**row, "written": ago(row["written"])} for row in rows]
    print_table(shown, {"session": "SESSION", "written": "WRITTEN", "folder": "FOLDER"}, nothing="no ledgers")
