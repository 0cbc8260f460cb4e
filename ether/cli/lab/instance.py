"""`ether instance FILE NAME`: one instance of a configuration, in the foreground, as a service runs it.

Under systemd it says when it is ready, and is vouched for as long as the instance is not hung.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ether.cli.exits import CommandMistake
from ether.cli.lab.foreground import Foreground, events_to_stdout, make_importable
from ether.cli.options import BrokerUrl, Json, SessionName, Timeout

if TYPE_CHECKING:
    from ether import Ether
    from ether.config import EtherConfig


def instance(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A YAML file.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The instance in it that is to run here.")],
    session: SessionName = None,
    broker: BrokerUrl = None,
    timeout: Timeout = 30.0,
    json: Json = False,
) -> int:
    """Run one instance of a configuration here, in the session that is found, until Ctrl-C."""
    from ether import Ether
    from ether.config import load_config
    from ether.system.systemd import Notifier, Watchdog

    config = _only(load_config(file), name)
    make_importable(str(Path(file)))
    notifier = Notifier.from_environment(os.environ)
    ether = Ether()
    watchdog = Watchdog(notifier, lambda: _is_alive(ether, name))  # started when ready, not before
    with events_to_stdout(json) as events, closing(watchdog):
        foreground = Foreground(ether, config, events)

        def tell_ready() -> None:
            if notifier is not None:
                notifier.ready(f"{name} is ready in session {ether.session_id}")
            watchdog.start()

        def tell_stop() -> None:
            if notifier is not None:
                notifier.stopping()

        foreground.on_ready, foreground.on_stop = tell_ready, tell_stop
        return foreground.run(session, broker, timeout, start=False)


def _only(config: EtherConfig, name: str) -> EtherConfig:
    """The configuration with that instance alone."""
    from ether.config import changed

    described = config.named_instances()
    if name not in described:
        raise CommandMistake(f"there is no instance {name!r} in this file; there are: {', '.join(described) or 'none'}")
    chosen = described[name].model_copy(update={"autorun": True, "after": (), "host": None})
    return changed(config, instances={name: chosen})


def _is_alive(ether: Ether, name: str) -> bool:
    states = [member["state"] for member in ether.instances() if member["name"] == name]
    return states != ["hung"]
