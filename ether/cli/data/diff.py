"""`ether diff`: what differed between two recorded runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from ether.cli import completion
from ether.cli.options import Json, RecordedSession
from ether.cli.output import colours, harmless, print_json, print_line
from ether.ledger.places import find_ledger
from ether.ledger.reader import LedgerReader
from ether.provenance.compare_code import CodeDifference, Revision
from ether.provenance.compare_runs import ABSENT, Change, Differences, RunFacts, compare

_GROUPS = ("run", "instances", "code", "configuration", "arguments", "packages", "machines", "counts")
_VALUE_WIDTH = 100
_CODE = "    "
_RED, _GREEN, _END = "\x1b[31m", "\x1b[32m", "\x1b[0m"


def diff(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="The run before.", autocompletion=completion.runs)],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="The run after.", autocompletion=completion.runs)],
    recorded: RecordedSession,
    ledger_b: Annotated[
        str | None, typer.Option("--ledger-b", metavar="FOLDER", help="Where RUN_B is, if not in the same ledger.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What differed between two runs: code by line, settings, arguments, packages, machines, instances, counts."""
    folder = find_ledger(recorded.ledger_or_session, os.environ)
    folder_b = folder if ledger_b is None else find_ledger(ledger_b, os.environ)
    with LedgerReader.open(folder) as reader_a, LedgerReader.open(folder_b) as reader_b:
        found = compare(reader_a, run_a, reader_b, run_b)
    if as_json:
        print_json(_as_json(found))
        return
    coloured = colours(sys.stdout)
    for line in _lines(found):
        print_line(_painted(harmless(line), coloured), escaped=True)


def _lines(found: Differences) -> Iterator[str]:
    yield f"{_run_line(found.before)}  ->  {_run_line(found.after)}"
    if found.nothing:
        yield "nothing that was recorded of them differs"
    for group in _GROUPS:
        listed = getattr(found, group)
        if listed:
            yield ""
            yield group
            yield from _code_lines(listed) if group == "code" else _change_lines(listed)


def _run_line(run: RunFacts) -> str:
    return f"{run.run} ({run.status}, {sum(run.counts.values()):,} records)"


def _change_lines(listed: Sequence[Change]) -> Iterator[str]:
    for change in listed:
        yield f"  {change.what}: {_short(change.before)} -> {_short(change.after)}"


def _short(value: object) -> str:
    text = ABSENT if value is ABSENT or value == ABSENT else repr(value)
    return text if len(text) <= _VALUE_WIDTH else f"{text[:_VALUE_WIDTH]}…"


def _code_lines(listed: Sequence[CodeDifference]) -> Iterator[str]:
    for difference in listed:
        yield f"  of {', '.join(difference.instances)}: {difference.before} -> {difference.after}"
        yield from (f"{_CODE}{line}" for line in difference.diff.splitlines())
        if difference.hint:
            yield f"    {difference.hint}"


def _painted(line: str, coloured: bool) -> str:
    colour = {f"{_CODE}+": _GREEN, f"{_CODE}-": _RED}.get(line[: len(_CODE) + 1]) if coloured else None
    return f"{colour}{line}{_END}" if colour else line


def _as_json(found: Differences) -> dict[str, Any]:
    changes = {group: [change._asdict() for change in getattr(found, group)] for group in _GROUPS if group != "code"}
    code = [
        {
            "instances": list(each.instances), "before": _revision(each.before), "after": _revision(each.after),
            "diff": each.diff, "hint": each.hint,
        }
        for each in found.code
    ]  # fmt: skip
    runs = {"before": _run(found.before), "after": _run(found.after)}
    return {**runs, "same": found.nothing, "code": code, **changes}


def _run(run: RunFacts) -> dict[str, Any]:
    return {"run": run.run, "name": run.name, "status": run.status, "counts": dict(run.counts)}


def _revision(revision: Revision) -> dict[str, Any]:
    return {
        "commit": revision.commit, "dirty": revision.dirty, "branch": revision.branch, "remote": revision.remote,
    }  # fmt: skip
