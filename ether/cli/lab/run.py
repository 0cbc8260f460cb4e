"""`ether run`: a session in the foreground.

It runs until Ctrl-C, until `ether down` asks it to end, or until every instance has ended by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ether import Ether
from ether.cli.config_file import ConfigFile, chosen_file
from ether.cli.exits import exit_code_of, sentence_of
from ether.cli.lab.foreground import Foreground, events_to_stdout, make_importable
from ether.cli.options import Json, Timeout, Where
from ether.config import load_config
from ether.errors import EtherError

Start = Annotated[bool, typer.Option("--start", help="Publish the topic `start` as soon as everything is ready.")]
Sim = Annotated[
    bool, typer.Option("--sim", help="Use the simulated lab of `simulate:` instead of the bench; records are marked.")
]


def run(
    file: ConfigFile = None,
    *,
    where: Where,
    start: Start = False,
    sim: Sim = False,
    timeout: Timeout = 30.0,
    json: Json = False,
) -> int:
    """Start a configuration here and show what its instances print and log.

    Ctrl-C drains the work in flight and stops everything in order; a second Ctrl-C kills at once. With --json standard
    output has one event a line, and everything else goes to standard error.
    """
    path = chosen_file(file, Path.cwd())
    config = load_config(path)
    make_importable(path)
    with events_to_stdout(json) as events:
        try:
            return Foreground(Ether(), config, events, sim=sim).run(where, timeout, start=start)
        except EtherError as error:
            events.say("failed", error=sentence_of(error), code=exit_code_of(error))
            raise
