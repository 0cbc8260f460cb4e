"""`ether run`: a session in the foreground.

It runs until Ctrl-C, until `ether down` asks it to end, or until every instance has ended by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ether import Ether
from ether.api.page_process import PageProcess
from ether.cli.config_file import ConfigFile, chosen_file
from ether.cli.exits import exit_code_of, sentence_of
from ether.cli.lab.foreground import Foreground, events_to_stdout, make_importable
from ether.cli.options import Json, Timeout, Where
from ether.config import EtherConfig, changed, load_config
from ether.config.record import ALL
from ether.errors import EtherError

Start = Annotated[bool, typer.Option("--start", help="Publish the topic `start` as soon as everything is ready.")]
Sim = Annotated[
    bool, typer.Option("--sim", help="Use the simulated lab of `simulate:` instead of the bench; records are marked.")
]
Record = Annotated[
    bool, typer.Option("--record", help="Record every message to disk, whatever `record:` says (as `record: all`).")
]
Page = Annotated[bool, typer.Option("--page", help="Open the session as a page in the browser, too.")]
View = Annotated[
    str, typer.Option("--view", help="With --page: open it at this view, what stands after # in its address: values.")
]
Watching = Annotated[
    bool, typer.Option("--watch", help="Give instances their new code when a file that they are made of is saved.")
]
Join = Annotated[bool, typer.Option("--join", help="Only join a session that runs; start none.")]


def recorded(config: EtherConfig, all_of_it: bool) -> EtherConfig:
    """The configuration, where asked for with everything recorded; folder and the like stay as they are described."""
    if not all_of_it:
        return config
    return changed(config, record=config.record.model_copy(update={"topics": ALL}) if config.record else ALL)


def run(
    file: ConfigFile = None,
    *,
    where: Where,
    start: Start = False,
    sim: Sim = False,
    join: Join = False,
    record: Record = False,
    page: Page = False,
    view: View = "",
    watch: Watching = False,
    timeout: Timeout = 30.0,
    json: Json = False,
) -> int:
    """Start a configuration here and show what its instances print and log.

    Ctrl-C drains the work in flight and stops everything in order; a second Ctrl-C kills at once. With --json standard
    output has one event a line, and everything else goes to standard error.
    """
    path = chosen_file(file, Path.cwd())
    config = recorded(load_config(path), record)
    make_importable(path)
    with events_to_stdout(json) as events:
        try:
            own = Ether()
            foreground = Foreground(own, config, events, sim=sim, join=join)
            with PageProcess() as shown:
                if page or view:
                    foreground.on_ready.append(lambda: shown.start(str(own.session_id), view=view))
                if watch:
                    foreground.watch(Path(path))
                return foreground.run(where, timeout, start=start)
        except EtherError as error:
            events.say("failed", error=sentence_of(error), code=exit_code_of(error))
            raise
