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
from ether.provenance.inputs import COULD, FEW, left_out_of
from ether.provenance.lineage import LineageLog, LineageStep, Tree, find
from ether.provenance.lineage import why as tree_of
from ether.provenance.origins import KeptText, Origin, is_simulated, kept_texts, origin_of
from ether.reading.export.table_row import TableRow, table_row

_VALUE_WIDTH = 100
_DEEPEST_DRAWN = 30
_ALL = 1_000_000
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
    inputs: Annotated[bool, typer.Option("--inputs", help="Show all inputs of a group, one by one.")] = False,
    as_json: Json = False,
) -> None:
    """Where a recorded value came from: the messages that led to it, back to the first, with code and settings."""
    table = None if last else table_row(what)
    named = recorded.ledger_or_session
    folder = find_ledger(named, os.environ) if table is None or named else _ledger_of(table)
    with LedgerReader.open(folder) as reader:
        asked = find(reader, what if table is None else table.id, last=last)
        most_steps, few = (max(steps, _ALL), _ALL) if inputs else (steps, FEW)
        tree = tree_of(reader, asked, most_steps=most_steps, few=few)
        texts = kept_texts(reader, filter(None, tree.contexts.values()), sources=code)
        signer = reader.signers().get(asked.outbox, "")
        if as_json:
            print_json({**_as_json(tree, texts), **({"signed_by": signer} if signer else {})})
            return
        signed = [f"signed by {signer} (ether verify compares)"] if signer else []
        for line in (*_warned(tree), *tree_lines(tree), *signed, *_text_lines(texts, None if full else _LINES)):
            print_line(harmless(line))
    if tree.is_cut:
        remark(f"the tree goes on: --steps {steps * 10} follows more than {steps} records")


def _has(folder: Path, record_id: str) -> bool:
    with LedgerReader.open(folder) as reader:
        return reader.record(record_id) is not None


def _ledger_of(table: TableRow) -> Path:
    """The ledger that a table was exported from; where that folder is gone, the ledger of the table's session."""
    if table.ledger is not None and is_ledger(Path(table.ledger)):
        return Path(table.ledger)
    for folder in map(Path, table.ledgers):
        if is_ledger(folder) and _has(folder, table.id):
            return folder
    return find_ledger(table.session, os.environ)


def _warned(tree: Tree) -> Iterator[str]:
    if any(context is not None and is_simulated(context) for context in tree.contexts.values()):
        yield "SIMULATED: no hardware was used; these values come from a simulated lab"
        yield ""


# -- the tree


def tree_lines(tree: Tree) -> Iterator[str]:
    """The tree, what is not in it, and the origins of its values."""
    yield from _drawn(tree)
    yield from _left_out(tree)
    yield from _explained(tree)


def _drawn(tree: Tree) -> Iterator[str]:
    marks = {sha256: _mark(number) for number, sha256 in enumerate(tree.contexts)}
    open_after = _with_siblings(tree.steps)
    names = {step.id: _name(step.record) for step in tree.steps if step.record is not None}
    asked = tree.steps[0].id
    for step, later in zip(tree.steps, open_after, strict=True):
        if step.group is not None:
            since = f"its last {names.get(step.of, 'result')}"
            if step.of == asked and not tree.earlier.number:
                since = "its start"
            yield f"{_branch(step.depth, later)}{_group_line(step, since)}"
            continue
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


def _group_line(step: LineageStep, since: str) -> str:
    """Many inputs in one line; those that are followed stand below it."""
    group = step.group
    assert group is not None
    what = f"{_KINDS.get(group.kind, '')}{group.topic or 'of unknown topics'}"
    if group.source and group.kind != "call":  # which names its instance
        what += f" by {group.source}"
    if group.how in COULD:
        line = f"and {group.count:,} more {what} since {since}; it could have used them"
    else:
        line = f"made of {group.count:,} {what}"
    parts = [line]
    if group.rows:
        first, last = min(group.rows), max(group.rows)
        rows = f"row {first}" if len(group.rows) == 1 else f"rows {first} to {last}"
        parts.append(rows if step.followed else f"{rows}, {group.ids[0]} to {group.ids[-1]}")
    if group.about:
        parts.append(f"(which of these {len(group.ids):,} is not known)")
    if group.missing:
        parts.append(f"({group.missing:,} not recorded)")
    return "  ".join(parts)


_KINDS = {"call": "calls of ", "record": "recorded "}
_HOW = {"heard": "had heard before: ", "used": "made of: ", "trigger": "set off by: "}


def _headline(step: LineageStep, marks: Mapping[str, str]) -> str:
    how = _HOW.get(step.how, "")
    if step.record is None:
        return f"{how}{step.id}  ({step.note})"
    if step.note:
        return f"{how}{_name(step.record)}  {step.id}  ({step.note})"
    record = step.record
    parts = [f"{how}{_name(record)} = {_value_text(record)}", f"by {record.source} {_clock(record.time)}"]
    parts += [f"row {record.row}  {record.id}"]
    parts += [f"replay of {step.replay_of}"] if step.replay_of else []
    parts += _trial_of(record)
    parts += _lateness_of(record)
    parts += [marks[record.context] if record.context else "(nothing explains it)"]
    return "  ".join(parts)


def _trial_of(record: StoredRecord) -> list[str]:
    """The trial that caused a record, or in whose time it was made."""
    match record.more:
        case {"trial": int() as trial, "attempt": int() as attempt}:
            again = f", attempt {attempt}" if attempt > 1 else ""
            return [f"trial {trial}{again} of {record.run}{' by time' if record.more.get('by') else ''}"]
    return []


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


def _left_out(tree: Tree) -> Iterator[str]:
    """What is not in the tree: inputs that were too many for the record, and what was kept from before."""
    asked = tree.steps[0].record
    if asked is None:
        return
    lines = []
    left_out = left_out_of(asked)
    if number := left_out.get("messages"):
        lines.append(f"{number:,} more messages that it could have used are not named: they came from too many topics")
    if number := left_out.get("sources"):
        lines.append(f"of {number:,} more topics and sources it had heard something before, which is not named")
    if tree.could and asked.context and asked.kind in ("data", "record", "call"):
        name, context = _name(asked), tree.contexts.get(asked.context)
        if tree.earlier.number:
            lines.append(
                f"{asked.source} had made {tree.earlier.number:,} {name} before, the last in row {tree.earlier.row};"
                " Ether cannot see what it kept from then"
            )
        elif context is not None and origin_of(context).epoch > 1:
            lines.append(f"it is the first {name} since {asked.source} was started anew; what it kept from before then,"
                         " such as in a file, Ether cannot see")  # fmt: skip
    if lines:
        yield ""
        yield from lines


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
        "inputs": _inputs_of(tree),
        "left_out": {} if tree.steps[0].record is None else dict(left_out_of(tree.steps[0].record)),
        "earlier": tree.earlier._asdict(),
        "missing": tree.missing,
        "unnamed": tree.unnamed,
        "cut": tree.is_cut,
    }


def _inputs_of(tree: Tree) -> dict[str, list[str]]:
    """The ids of everything that the value was made of, or could have been made of, by how that is known."""
    asked = tree.steps[0].id
    found: dict[str, dict[str, None]] = {}
    for step in tree.steps[1:]:
        if step.of == asked:
            ids = [step.id] if step.group is None else [*step.group.ids, *step.group.named]
            found.setdefault(step.how, {}).update(dict.fromkeys(ids))
    return {how: list(ids) for how, ids in found.items()}


def _step_json(step: LineageStep) -> dict[str, Any]:
    facts: dict[str, Any] = {"id": step.id, "depth": step.depth, "of": step.of, "how": step.how, "note": step.note}
    if step.group is not None:
        # Not `asdict`, which would copy each of a day's ids and rows.
        group = {each.name: getattr(step.group, each.name) for each in dataclasses.fields(step.group)}
        group["missing"] = step.group.missing
        return {**facts, "group": group, "followed": step.followed}
    record = step.record
    if record is None or step.note:
        return facts
    return {
        **facts, "row": record.row, "kind": record.kind, "topic": record.topic, "source": record.source,
        "seq": record.seq, "time": record.time, "received": record.received, "run": record.run,
        "parents": list(record.parents), "context": record.context, "replay_of": step.replay_of,
        **{name: record.more[name] for name in ("trial", "attempt", "by") if name in record.more},
        "value": _value_of(record), "logs": [dataclasses.asdict(log) for log in step.logs],
    }  # fmt: skip
