"""What the commands that look back have in common: which ledger, which records."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ether.cli.arguments import parse_since
from ether.cli.exits import CommandMistake

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ether.reading.data import Data
    from ether.reading.run_facts import WhichTrials

Ledger = Annotated[
    str | None,
    typer.Argument(metavar="LEDGER", help="A session's name, or a ledger's folder; else the one recorded last."),
]
Topic = Annotated[
    str | None, typer.Option("--topic", "-T", metavar="TOPIC", help="Of this topic; + and # are wildcards.")
]
Run = Annotated[
    str | None, typer.Option("--run", metavar="RUN", help="Of this run; of a named one its name means the last.")
]
Trials = Annotated[
    list[str] | None,
    typer.Option("--trial", metavar="N", help="Of this trial of --run; may be repeated; all: of those that are done."),
]
Instance = Annotated[str | None, typer.Option("--instance", "-i", metavar="NAME", help="Published by this one.")]
Since = Annotated[
    str | None, typer.Option("--since", metavar="WHEN", help="From then on: 10m, 2h, 1d ago, or a date and time.")
]
Until = Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Up to then.")]
Where = Annotated[
    list[str] | None, typer.Option("--where", "-w", metavar="CONDITION", help="'celsius > 21'; may be repeated.")
]


def asked(
    ledger: str | None,
    topic: str | None,
    run: str | None,
    instance: str | None,
    since: str | None,
    until: str | None,
    where: Sequence[str] | None,
    kinds: Sequence[str] = ("data", "record"),
    trials: Sequence[str] | None = None,
) -> Data:
    """The records that were asked for. Raises `NoLedger`, `SeveralLedgers`, `QueryMistake`, `InvalidName`."""
    from ether.reading.query import DataRequest, ask
    from ether.reading.run_facts import of_run

    now = time.time()
    chosen = _trials(trials)
    request = DataRequest(
        topic, run, instance, _moment(since, now), _moment(until, now), list(where) if where else None, kinds
    )
    return of_run(ask(request, ledger, now=now, environment=os.environ), chosen)


def _trials(given: Sequence[str] | None) -> WhichTrials | None:
    """`all`, or the numbers of trials."""
    if not given:
        return None
    if list(given) == ["all"]:
        return "all"
    for text in given:
        if not text.isdecimal():
            raise CommandMistake(f"found --trial {text}; expected the number of a trial, or all, once")
    return [int(text) for text in given]


def ledger_folder(ledger: str | None) -> Path:
    """Where it is. Raises `NoLedger`, `SeveralLedgers`."""
    from ether.ledger.places import find_ledger

    return find_ledger(ledger, os.environ)


def shown_time(seconds: float) -> str:
    """A moment in local time, to the millisecond."""
    whole = int(seconds // 1)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(whole))}.{int((seconds - whole) * 1000):03d}"


def _moment(text: str | None, now: float) -> float | str | None:
    """As `ether logs` reads it; what that cannot read may be in the words of `ether.data()`."""
    if text is None:
        return None
    try:
        return parse_since(text, now)
    except CommandMistake:
        if not text.strip().startswith("-"):
            raise
        return text
