"""`ether data`: recorded values as a table or as JSON lines; the topics of a ledger; the list of ledgers."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ether.cli.arguments import shown_value
from ether.cli.data.recorded import RecordQuery, ledger_folder, shown_time
from ether.cli.options import Json
from ether.cli.output import ago, print_json, print_table, remark, to_json
from ether.ledger.places import list_ledgers
from ether.ledger.reader import LedgerReader
from ether.reading.data import Data, Record

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
    elif topics:
        show_topics(topic_rows(query.ledger), as_json=json)
    else:
        kinds = tuple(kind or ("data", "record"))
        found = query.records(kinds)
        if json:
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
    columns = {"time": "TIME", "topic": "TOPIC", "source": "FROM", "trial": "TRIAL", "value": "VALUE"}
    if all(record.trial is None for record in rows):
        del columns["trial"]
    print_table([_row(record) for record in rows], columns, nothing="nothing was recorded that fits")


def _row(record: Record) -> dict[str, object]:
    value = shown_value(to_json(record.value), _VALUE_CHARS)
    return {
        "time": shown_time(record.time), "topic": record.topic, "source": record.source,
        "trial": _shown_trial(record), "value": value,
    }  # fmt: skip


def _shown_trial(record: Record) -> str:
    if record.trial is None:
        return ""
    return f"{record.trial}" if record.attempt in (None, 1) else f"{record.trial} (attempt {record.attempt})"


def record_to_json(record: Record) -> dict[str, Any]:
    """A record as one line of JSON."""
    facts = ("time", "topic", "source", "id", "run", "kind", "row")
    line = {name: getattr(record, name) for name in facts}
    line |= {"parents": list(record.parents), "value": to_json(record.value)}
    for name in ("trial", "attempt", "replay_of", "problem", "behind_s", "waiting", "skipped"):
        if getattr(record, name) is not None:
            line[name] = getattr(record, name)
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
