"""What the commands that read a ledger share: which ledger, which records of it, how a time is shown."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ether.cli import completion
from ether.cli.arguments import parse_since
from ether.cli.exits import CommandMistake
from ether.cli.options import OptionGroup
from ether.errors import QueryMistake
from ether.ledger.places import find_ledger
from ether.reading.data import Data
from ether.reading.filter_rules import Predicate, moment_of, predicate_of
from ether.reading.find_runs import Runs, find_runs
from ether.reading.query import DataRequest
from ether.reading.run_facts import WhichTrials
from ether.reading.several import ask_any
from ether.system.clock import wall_time

Ledger = Annotated[
    str | None,
    typer.Argument(
        metavar="LEDGER",
        help="A session's name, or a ledger's folder; else the one recorded last.",
        autocompletion=completion.ledgers,
    ),
]
Find = Annotated[
    list[str] | None,
    typer.Option("--find", metavar="KEY=VALUE", help="Of runs with this metadata, in all ledgers; may be repeated."),
]
Topic = Annotated[
    str | None,
    typer.Option(
        "--topic",
        "-T",
        metavar="TOPIC",
        help="Of this topic; + and # are wildcards.",
        autocompletion=completion.recorded_topics,
    ),
]
Run = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="RUN",
        help="Of this run; of a named one its name means the last.",
        autocompletion=completion.runs,
    ),
]
Trials = Annotated[
    list[str] | None,
    typer.Option("--trial", metavar="N", help="Of this trial of --run; may be repeated; all: of those that are done."),
]
Instance = Annotated[
    str | None,
    typer.Option("--instance", "-i", metavar="NAME", help="Published by this one.", autocompletion=completion.sources),
]
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
    find: Find = None

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
        runs = None if self.find is None else find_by_words(self.find, self.ledger, now)
        return ask_any(request, self.ledger, runs, trials, None, now=now, environment=os.environ)


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


def find_by_words(words: Sequence[str], ledger: str | None, now: float) -> Runs:
    """The runs that fit all words: `animal=7`, `dose>2`, `since=3w`, `until=2026-01-16`. Raises `CommandMistake`,
    `QueryMistake`, `NoLedger`."""
    times: dict[str, float | None] = {"since": None, "until": None}
    conditions: list[Predicate] = []
    for word in words:
        name, equals, text = word.partition("=")
        if equals and name in times:
            times[name] = _long_ago(text, now, name)
        else:
            conditions.append(_as_number_or_text(word))
    return find_runs(
        ledger, lambda facts: all(fits(facts) for fits in conditions), times["since"], times["until"],
        now=now, environment=os.environ,
    )  # fmt: skip


def _long_ago(text: str, now: float, name: str) -> float | None:
    """`3w` is three weeks ago; anything else a moment as `ether.data()` reads it."""
    try:
        return moment_of(f"-{text}", now, name)
    except QueryMistake:
        return moment_of(text, now, name)


def _as_number_or_text(word: str) -> Predicate:
    """A condition of which `animal=7` fits the number 7 and the text "7": a shell cannot tell them apart."""
    fits = predicate_of(word)
    assert fits is not None
    name, equals, text = word.partition("=")
    if not equals or not name or not name[-1].isalnum() or text.startswith("="):
        return fits
    as_text = predicate_of({name.strip(): text})
    assert as_text is not None
    return lambda facts: fits(facts) or as_text(facts)


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
