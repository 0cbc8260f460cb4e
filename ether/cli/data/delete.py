"""`ether ledger delete`: records of some runs, topics or ages are deleted, with a tombstone in their place."""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path
from typing import Annotated, Any

import typer

from ether.cli import completion
from ether.cli.data.archive import moment
from ether.cli.data.recorded import ledger_folder, shown_time
from ether.cli.exits import CommandMistake, Exit
from ether.cli.options import Json
from ether.cli.output import print_json, print_line
from ether.ledger.life.closing import close_current
from ether.ledger.life.delete import Amount, Maintenance, chosen_in
from ether.ledger.life.retention_rules import Choice, in_words
from ether.ledger.reader import LedgerReader
from ether.system.clock import wall_time

_CLOSE_S = 20.0

Source = Annotated[
    str,
    typer.Argument(metavar="LEDGER", help="A session's name, or a ledger's folder.", autocompletion=completion.ledgers),
]
Runs = Annotated[
    list[str] | None,
    typer.Option("--run", metavar="RUN", help="Of this run (dose/2); may be repeated.", autocompletion=completion.runs),
]
Topics = Annotated[
    list[str] | None,
    typer.Option(
        "--topic", "-T", metavar="TOPIC", help="Of this topic; + and #.", autocompletion=completion.recorded_topics
    ),
]
Before = Annotated[str | None, typer.Option("--before", metavar="WHEN", help="Older than 30d, 8w, 1y, or than a date.")]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the tombstone.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without this it is only shown.")]


def delete(
    ledger: Source, run: Runs = None, topic: Topics = None, before: Before = None, why: Why = "", yes: Yes = False,
    json: Json = False,
) -> int:  # fmt: skip
    """Delete what fits all of --run, --topic and --before. Code, settings and gaps stay; so does the chain."""
    folder, now = ledger_folder(ledger), wall_time()
    choice = Choice(tuple(run or ()), tuple(topic or ()), None if before is None else moment(before, now))
    if choice == Choice():
        raise CommandMistake("found nothing that says what to delete; expected --run, --topic or --before")
    what = in_words(choice, {}, "" if choice.before is None else shown_time(choice.before))
    amounts, in_current = _amounts(folder, choice)
    if yes and amounts:
        said = {"at": now, "by": _user(), "host": socket.gethostname(), "what": what, "why": why}
        if in_current:
            close_current(folder, now, _CLOSE_S)
        with Maintenance(folder) as maintenance:
            done = list(maintenance.delete(choice, said))
        amounts, freed = [each.amount for each in done], sum(each.freed_bytes for each in done)
    else:
        freed = 0
    _show(folder, what, amounts, freed, done=yes and bool(amounts), as_json=json)
    return Exit.OK


def _amounts(folder: Path, choice: Choice) -> tuple[list[Amount], bool]:
    """How much of each volume is chosen, and whether some of it is in the current one. Raises `CommandMistake` for a
    run that is not there."""
    with LedgerReader.open(folder) as reader:
        known = [summary.run for summary in reader.runs()]
        for run in choice.runs:
            if run not in known:
                nearest = [name for name in known if name.startswith(f"{run}/")] or known[-5:]
                raise CommandMistake(f"found --run {run}; {folder} has {', '.join(nearest) or 'no run'}")
        volumes = reader.volumes
        found = [chosen_in(volume.connect(), choice, volume.beginning.volume) for volume in volumes]
    return [amount for amount in found if amount.records], bool(found[-1].records)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a process without an account, as in some containers
        return str(os.getuid())


def _show(folder: Path, what: str, amounts: list[Amount], freed: int, *, done: bool, as_json: bool) -> None:
    records, size = sum(each.records for each in amounts), sum(each.bytes for each in amounts)
    topics: dict[str, int] = {}
    for name, count in (pair for each in amounts for pair in each.topics.items()):
        topics[name] = topics.get(name, 0) + count
    if as_json:
        facts: dict[str, Any] = {"ledger": str(folder), "what": what, "deleted": done, "records": records}
        volumes = [each.volume for each in amounts]
        print_json({**facts, "bytes": size, "freed_bytes": freed, "topics": topics, "volumes": volumes})
        return
    for name, count in sorted(topics.items()):
        print_line(f"  {count:,} of {name}")
    if not records:
        print_line(f"{folder} has nothing that fits: {what}")
    elif done:
        print_line(f"{records:,} records are deleted from {folder} ({what}); {freed:,} bytes are free again")
    else:
        print_line(f"{records:,} records of {folder} fit ({what}), {size:,} bytes. Nothing was deleted: --yes does it")
