"""What the commands that read a ledger share: which ledger, which records of it, how a time is shown."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ether.cli.arguments import parse_since
from ether.cli.exits import CommandMistake
from ether.cli.options import OptionGroup
from ether.ledger.places import find_ledger
from ether.reading.data import Data
from ether.reading.query import DataRequest, ask
from ether.reading.run_facts import WhichTrials, of_run
from ether.system.clock import wall_time

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
Conditions = Annotated[
    list[str] | None, typer.Option("--where", "-w", metavar="CONDITION", help="'celsius > 21'; may be repeated.")
]


@dataclass(frozen=True)
class RecordQuery(OptionGroup):
    """Which records are wanted; None selects everything."""

    ledger: Ledger = None
    topic: Topic = None
    run: Run = None
    trial: Trials = None
    instance: Instance = None
    since: Since = None
    until: Until = None
    where: Conditions = None

    def records(self, kinds: Sequence[str] = ("data", "record")) -> Data:
        """The records of these kinds. Raises `NoLedger`, `SeveralLedgers`, `QueryMistake`, `InvalidName`."""
        now = wall_time()
        trials = _trials(self.trial)
        request = DataRequest(
            self.topic,
            self.run,
            self.instance,
            _moment(self.since, now),
            _moment(self.until, now),
            list(self.where) if self.where else None,
            kinds,
        )
        return of_run(ask(request, self.ledger, now=now, environment=os.environ), trials)


def _trials(words: Sequence[str] | None) -> WhichTrials | None:
    """`all`, or the numbers of trials."""
    if not words:
        return None
    if list(words) == ["all"]:
        return "all"
    for word in words:
        if not word.isdecimal():
            raise CommandMistake(f"found --trial {word}; expected the number of a trial, or all, once")
    return [int(word) for word in words]


def _moment(text: str | None, now: float) -> float | str | None:
    """A time as `ether logs` reads it; a text with a leading minus (`-1h`) as it is, which `ether.data()` reads."""
    if text is None:
        return None
    try:
        return parse_since(text, now)
    except CommandMistake:
        if not text.strip().startswith("-"):
            raise
        return text


def ledger_folder(ledger: str | None) -> Path:
    """The folder of a ledger. Raises `NoLedger`, `SeveralLedgers`."""
    return find_ledger(ledger, os.environ)


def shown_time(seconds: float) -> str:
    """A unix time as local date and time, to the millisecond."""
    whole = int(seconds // 1)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(whole))}.{int((seconds - whole) * 1000):03d}"
