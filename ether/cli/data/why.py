"""`ether why`: the tree from a value back to the messages that caused it, with the code and settings of each step.

It reads the ledger alone: no session, no broker, no network. A copy of the ledger on another machine will do.
"""

from __future__ import annotations

import dataclasses
import json
import os
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ether.cli.options import Json, RecordedSession
from ether.cli.output import harmless, print_json, print_line, remark, to_json
from ether.errors import DecodeError, LedgerDamaged
from ether.ledger.places import find_ledger, is_ledger
from ether.ledger.reader import LedgerReader, StoredRecord
from ether.provenance.lineage import LineageLog, LineageStep, Tree, find
from ether.provenance.lineage import why as tree_of
from ether.provenance.origins import KeptText, Origin, is_simulated, kept_texts, origin_of
from ether.reading.export.table_row import TableRow, table_row

_VALUE_WIDTH = 100
_DEEPEST_DRAWN = 30
_LINES = 60
"""The lines that are shown of one text without `--full`."""


def why(
    what: Annotated[
        str,
        typer.Argument(metavar="WHAT", help="An id (8 characters do), a row, a table's FILE:ROW, or a topic."),
    ],
    last: Annotated[bool, typer.Option("--last", help="WHAT is a topic: explain the newest value on it.")] = False,
    *,
    recorded: RecordedSession,
    steps: Annotated[int, typer.Option("--steps", metavar="N", min=1, help="Follow at most so many records.")] = 1000,
    code: Annotated[bool, typer.Option("--code", help="Show the source files that were kept, too.")] = False,
    full: Annotated[bool, typer.Option("--full", help=f"Show all of each text, not its first {_LINES} lines.")] = False,
    as_json: Json = False,
) -> None:
    """Where a recorded value came from: the messages that led to it, back to the first, with code and settings."""
    table = None if last else table_row(what)
    named = recorded.ledger_or_session
    folder = find_ledger(named, os.environ) if table is None or named else _ledger_of(table)
    with LedgerReader.open(folder) as reader:
        tree = tree_of(reader, find(reader, what if table is None else table.id, last=last), most_steps=steps)
        texts = kept_texts(reader, filter(None, tree.contexts.values()), sources=code)
        if as_json:
            print_json(_as_json(tree, texts))
            return
        for line in (*_warned(tree), *_drawn(tree), *_explained(tree), *_text_lines(texts, None if full else _LINES)):
            print_line(harmless(line))
    if tree.is_cut:
        remark(f"the tree goes on: --steps {steps * 10} follows more than {steps} records")


def _ledger_of(table: TableRow) -> Path:
    """The ledger that a table was exported from; where that folder is gone, the ledger of the table's session."""
    if table.ledger is not None and is_ledger(Path(table.ledger)):
        return Path(table.ledger)
    return find_ledger(table.session, os.environ)


def _warned(tree: Tree) -> Iterator[str]:
    if any(context is not None and is_simulated(context) for context in tree.contexts.values()):
        yield "SIMULATED: no hardware was used; these values come from a simulated lab"
        yield ""


# -- the tree


def _drawn(tree: Tree) -> Iterator[str]:
    marks = {sha256: _mark(number) for number, sha256 in enumerate(tree.contexts)}
    open_after = _with_siblings(tree.steps)
    for step, later in zip(tree.steps, open_after, strict=True):
        yield f"{_branch(step.depth, later)}{_headline(step, marks)}"
        beside = _beside(step.depth, later)
        for log in step.logs:
            who = "" if step.record is None or log.source == step.record.source else f"{log.source}: "
            yield from (f"{beside}   ! {line}" for line in f"{who}{_log_text(log)}".splitlines())


def _with_siblings(steps: Sequence[LineageStep]) -> list[list[bool]]:
    """For each step and each depth down to its own: whether a sibling at that depth comes after it, so that the branch
    goes on.

    How: the steps are in depth-first order. Read from the end, `later[d]` says whether a step at depth d was seen since
    the last step at a smaller depth; a step sets its own depth and clears the deeper ones, which belong to its own
    children."""
    found: list[list[bool]] = []
    later = [False] * (_DEEPEST_DRAWN + 1)
    for step in reversed(steps):
        found.append(later[: step.depth + 1])
        if step.depth <= _DEEPEST_DRAWN:
            later[step.depth] = True
            later[step.depth + 1 :] = [False] * (_DEEPEST_DRAWN - step.depth)
    return found[::-1]


def _branch(depth: int, later: Sequence[bool]) -> str:
    if depth == 0:
        return ""
    if depth > _DEEPEST_DRAWN:
        return f"{_beside(_DEEPEST_DRAWN, later)}({depth} back) "
    return "".join("│  " if more else "   " for more in later[1:depth]) + ("├─ " if later[depth] else "└─ ")


def _beside(depth: int, later: Sequence[bool]) -> str:
    return "".join("│  " if more else "   " for more in later[1 : min(depth, _DEEPEST_DRAWN) + 1])


def _headline(step: LineageStep, marks: Mapping[str, str]) -> str:
    how = "had heard before: " if step.how == "heard" else ""
    if step.record is None:
        return f"{how}{step.id}  ({step.note})"
    if step.note:
        return f"{how}{_name(step.record)}  {step.id}  ({step.note})"
    record = step.record
    parts = [f"{how}{_name(record)} = {_value_text(record)}", f"by {record.source} {_clock(record.time)}"]
    parts += [f"row {record.row}  {record.id}"]
    parts += [f"replay of {step.replay_of}"] if step.replay_of else []
    parts += _lateness_of(record)
    parts += [marks[record.context] if record.context else "(nothing explains it)"]
    return "  ".join(parts)


def _lateness_of(record: StoredRecord) -> list[str]:
    """That the message that led to a record was late, and that others were skipped before it."""
    parts = []
    match record.more:
        case {"behind_s": float() | int() as behind_s, "waiting": int() as waiting}:
            parts.append(f"{behind_s:.1f} s behind, {waiting:,} waiting")
    match record.more:
        case {"skipped": int() as skipped}:
            parts.append(f"{skipped:,} skipped before it")
    return parts


def _mark(number: int) -> str:
    return f"[{number + 1}]"


def _name(record: StoredRecord) -> str:
    return record.topic if record.kind == "data" else f"{record.kind} {record.topic}".rstrip()


def _value_text(record: StoredRecord) -> str:
    text = json.dumps(to_json(_value_of(record)), ensure_ascii=False)
    return text if len(text) <= _VALUE_WIDTH else f"{text[:_VALUE_WIDTH]}… ({record.size:,} bytes)"


def _value_of(record: StoredRecord) -> object:
    try:
        return record.value
    except (DecodeError, LedgerDamaged) as error:
        return f"(cannot be read: {error})"


def _clock(unix_s: float) -> str:
    whole = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s))
    return f"{whole}.{int(unix_s % 1 * 1000):03d}"


def _log_text(log: LineageLog) -> str:
    return f"{log.level} {log.message}" + (f"\n{log.exception}" if log.exception else "")


# -- the contexts: code, arguments and settings of each step


def _explained(tree: Tree) -> Iterator[str]:
    for number, (sha256, context) in enumerate(tree.contexts.items()):
        yield ""
        if context is None:
            yield f"{_mark(number)} context {sha256[:10]} is not in this ledger"
        else:
            yield from _origin_lines(_mark(number), origin_of(context))


def _origin_lines(mark: str, origin: Origin) -> Iterator[str]:
    yield f"{mark} {origin.instance}, a {origin.class_path} on {origin.host}, epoch {origin.epoch}"
    branch = f" (branch {origin.revision.branch})" if origin.revision.branch else ""
    why_not = f" ({origin.why_no_commit})" if origin.why_no_commit else ""
    yield f"    code       {origin.file or 'not known'} at {origin.revision}{branch}{why_not}"
    yield f"    arguments  {', '.join(f'{name}={value!r}' for name, value in origin.arguments.items()) or 'none'}"
    if origin.settings:
        yield f"    settings   {origin.settings}"
    if origin.simulated:
        yield f"    SIMULATED  its devices were those of a simulated lab ({origin.simulated})"
    yield f"    Python     {origin.python}, {origin.packages} packages"
    if origin.clock_offset_s is not None:
        yield f"    clock      {origin.clock_offset_s:+.6f} s from the session's"


def _text_lines(texts: Sequence[KeptText], most_lines: int | None) -> Iterator[str]:
    for kept in texts:
        yield ""
        yield f"{kept.kind}: {kept.name}  {kept.sha256[:10]}"
        lines = ["(not in this ledger)"] if kept.text is None else kept.text.splitlines()
        shown = lines if most_lines is None else lines[:most_lines]
        yield from (textwrap.indent(line, "    ") for line in shown)
        if len(lines) > len(shown):
            yield f"    … {len(lines) - len(shown)} more lines: --full shows them"


# -- as JSON


def _as_json(tree: Tree, texts: Sequence[KeptText]) -> dict[str, Any]:
    return {
        "asked": tree.steps[0].id,
        "simulated": any(_warned(tree)),
        "steps": [_step_json(step) for step in tree.steps],
        "contexts": dict(tree.contexts),
        "texts": {kept.sha256: {"kind": kept.kind, "name": kept.name, "text": kept.text} for kept in texts},
        "missing": tree.missing,
        "cut": tree.is_cut,
    }


def _step_json(step: LineageStep) -> dict[str, Any]:
    facts: dict[str, Any] = {"id": step.id, "depth": step.depth, "of": step.of, "how": step.how, "note": step.note}
    record = step.record
    if record is None or step.note:
        return facts
    return {
        **facts, "row": record.row, "kind": record.kind, "topic": record.topic, "source": record.source,
        "seq": record.seq, "time": record.time, "received": record.received, "run": record.run,
        "parents": list(record.parents), "context": record.context, "replay_of": step.replay_of,
        "value": _value_of(record), "logs": [dataclasses.asdict(log) for log in step.logs],
    }  # fmt: skip
