"""`ether instance FILE NAME`: one instance of a configuration, in the foreground, as a service runs it.

Under systemd it sends `READY=1` when the instance is ready, and feeds systemd's watchdog as long as the instance is not
hung.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from ether import Ether
from ether.cli import completion
from ether.cli.exits import CommandMistake
from ether.cli.lab.foreground import Foreground, events_to_stdout, make_importable
from ether.cli.options import Json, Timeout, Where
from ether.config import EtherConfig, changed, load_config
from ether.system.systemd import Notifier, Watchdog


def instance(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A YAML file.")],
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The instance in it that is to run here.", autocompletion=completion.described
        ),
    ],
    where: Where,
    timeout: Timeout = 30.0,
    json: Json = False,
) -> int:
    """Run one instance of a configuration here, in the session that is found, until Ctrl-C."""
    config = _only(load_config(file), name)
    make_importable(str(Path(file)))
    notifier = Notifier.from_environment(os.environ)
    ether = Ether()
    watchdog = Watchdog(notifier, lambda: _is_alive(ether, name))  # started by `tell_ready`
    with events_to_stdout(json) as events, closing(watchdog):
        foreground = Foreground(ether, config, events)

        def tell_ready() -> None:
            if notifier is not None:
                notifier.ready(f"{name} is ready in session {ether.session_id}")
            watchdog.start()

        def tell_stop() -> None:
            if notifier is not None:
                notifier.stopping()

        foreground.on_ready.append(tell_ready)
        foreground.on_stop.append(tell_stop)
        return foreground.run(where, timeout, start=False)


def _only(config: EtherConfig, name: str) -> EtherConfig:
    """The configuration with this instance alone, started with the session, on this machine, after no other."""
    described = config.named_instances()
    if name not in described:
        raise CommandMistake(f"there is no instance {name!r} in this file; there are: {', '.join(described) or 'none'}")
    chosen = described[name].model_copy(update={"autorun": True, "after": (), "host": None})
    return changed(config, instances={name: chosen})


def _is_alive(ether: Ether, name: str) -> bool:
    states = [member["state"] for member in ether.instances() if member["name"] == name]
    return states != ["hung"]
