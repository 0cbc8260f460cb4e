"""`ether report`: a run as one HTML file that opens anywhere: values, trials, proof, settings, where it came from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ether.cli import completion
from ether.cli.data.recorded import ledger_folder
from ether.cli.data.status import proof_of
from ether.cli.data.why import tree_lines
from ether.cli.exits import CommandMistake, Exit
from ether.cli.options import Json
from ether.cli.output import print_json, print_line
from ether.errors import ConfigError, PayloadError
from ether.ledger.reader import LedgerReader, RecordFilter
from ether.logs.lines import level_number
from ether.logs.session_file import read_back
from ether.provenance.lineage import why
from ether.reading.data import Data, Query
from ether.reading.report.content import LogText, Report, WhyTree, gather
from ether.reading.report.page import html
from ether.reading.run_facts import of_run, runs_in, status_now
from ether.recording.recorder_page import recorders_here, writing_to

_MOST_LOGS = 500
_MOST_TREES = 30
_TREE_STEPS = 200
_WARNING = level_number("warning")

Run = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="A named run: dose is the last of that name, dose/2 the second; else the last.",
        autocompletion=completion.runs,
    ),
]
LedgerOption = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        "-l",
        metavar="LEDGER",
        help="A session's name, or a ledger's folder; else the last.",
        autocompletion=completion.ledgers,
    ),
]
Target = Annotated[Path | None, typer.Option("--to", "-o", metavar="FILE", help="Where to; else RUN.html here.")]


def report(run: Run = None, ledger: LedgerOption = None, to: Target = None, json: Json = False) -> int:
    """Write a run as one HTML file. Without a named run it is about all that was recorded."""
    if to is not None and to.suffix.lower() not in (".html", ".htm"):
        raise CommandMistake(f"found --to {to}; a report is a file whose name ends in .html")
    folder = ledger_folder(ledger)
    made = _made(folder, run)
    path = to or Path(f"{re.sub('[^A-Za-z0-9._-]+', '-', made.title).strip('-.') or 'report'}.html")
    _write(path, html(made))
    if json:
        print_json({"path": str(path), "run": made.title, "records": made.records, "trials": len(made.trials)})
    else:
        print_line(f"{made.records:,} values of {made.title} are in {path}")
    return Exit.OK


def _made(folder: Path, run: str | None) -> Report:
    with LedgerReader.open(folder) as reader:
        states = runs_in(reader)
        wanted = run if run is not None else next(reversed(states), None)
        data = Data(folder, Query(run=wanted))
        if wanted is not None:
            data = of_run(data, None)
        state = states.get(data.query.run or "")
        if run is not None and state is None and not data:
            names = ", ".join(states) or "none"
            raise CommandMistake(f"found {run}; this ledger has the named runs: {names}. ether runs lists them")
        made = gather(data, state, "" if state is None else status_now(state))
        return replace(made, proof=_proof(reader), logs=_logs(reader, made), trees=list(_trees(reader, made)))


def _proof(reader: LedgerReader) -> list[str]:
    proof, _ = proof_of(reader, writing_to(reader.folder, recorders_here()))
    return str(proof).splitlines()


def _trees(reader: LedgerReader, made: Report) -> Iterator[WhyTree]:
    for topic in made.topics[:_MOST_TREES]:
        record = reader.record(topic.last_id)
        if record is not None:
            lines = tree_lines(why(reader, record, most_steps=_TREE_STEPS))
            yield WhyTree(topic.topic, topic.last_id, "\n".join(lines))


def _logs(reader: LedgerReader, made: Report) -> list[LogText]:
    """Warnings and errors of its time: those that were recorded, and those of the session's log on this machine."""
    found: dict[tuple[int, str, str], LogText] = {}
    for line in (*_recorded_logs(reader, made), *_filed_logs(made)):
        found.setdefault((round(line.time), line.source, line.message), line)
    return sorted(found.values(), key=lambda line: line.time)[-_MOST_LOGS:]


def _recorded_logs(reader: LedgerReader, made: Report) -> Iterator[LogText]:
    for record in reader.records(RecordFilter(kinds=("log",), since=made.begin, until=made.end)):
        try:
            said = record.value
        except PayloadError:
            continue
        if isinstance(said, dict):
            level = str(said.get("level", ""))
            with suppress(ConfigError):  # a level that only another program knows
                if level_number(level) >= _WARNING:
                    yield LogText(record.time, level, record.source, str(said.get("message", "")))


def _filed_logs(made: Report) -> Iterator[LogText]:
    try:
        for line in read_back(made.session, made.begin, level=_WARNING):
            if line.time <= made.end:
                yield LogText(line.time, line.level, line.instance, line.message)
    except (ConfigError, OSError):  # this user has no folder for logs, or may not read it
        return


def _write(path: Path, text: str) -> None:
    """Write the file whole, or leave what was there."""
    part = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise CommandMistake(f"cannot write {path}: {error.strerror or error}") from error
