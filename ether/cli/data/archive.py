"""`ether ledger archive`: closed volumes are compressed, and stay readable."""

from __future__ import annotations

from typing import Annotated

import typer

from ether.cli import completion
from ether.cli.arguments import parse_since
from ether.cli.data.recorded import ledger_folder
from ether.cli.exits import Exit
from ether.cli.options import Json
from ether.cli.output import print_json, print_line
from ether.config.volumes import parse_age_s
from ether.errors import ConfigError
from ether.ledger.life.archive import Archived
from ether.ledger.life.archive import archive as compress
from ether.ledger.life.closing import close_current
from ether.ledger.life.delete import Maintenance
from ether.system.clock import wall_time

_CLOSE_S = 20.0

Source = Annotated[
    str,
    typer.Argument(metavar="LEDGER", help="A session's name, or a ledger's folder.", autocompletion=completion.ledgers),
]
Before = Annotated[
    str | None, typer.Option("--before", metavar="WHEN", help="Volumes that were closed 30d, 8w, 1y ago, or at a date.")
]
All = Annotated[bool, typer.Option("--current", help="Close the current volume first, and compress it, too.")]


def archive(ledger: Source, before: Before = None, current: All = False, json: Json = False) -> int:
    """Compress closed volumes; data, why, verify and export read them as before, a little slower."""
    folder, now = ledger_folder(ledger), wall_time()
    upto = None if before is None else moment(before, now)
    if current:
        close_current(folder, now, _CLOSE_S)
    with Maintenance(folder) as maintenance:
        done = list(compress(maintenance, upto))
    _show(done, as_json=json)
    return Exit.OK


def moment(text: str, now: float) -> float:
    """A point in time in unix seconds: `30d`, `8w` or `1y` ago, or a date. Raises `CommandMistake`."""
    try:
        return now - parse_age_s(text)
    except ConfigError:
        return parse_since(text, now)


def _show(done: list[Archived], *, as_json: bool) -> None:
    before, after = sum(each.before for each in done), sum(each.after for each in done)
    if as_json:
        print_json({"volumes": [each._asdict() for each in done], "before": before, "after": after})
    elif not done:
        print_line("there is no closed volume to compress; --current closes the current one first")
    else:
        print_line(f"{len(done):,} volumes are compressed, from {before:,} to {after:,} bytes")
