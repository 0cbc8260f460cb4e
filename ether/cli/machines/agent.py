"""`ether agent`: the daemon of one machine, which runs instances there for sessions elsewhere (docs/agents.md)."""

from __future__ import annotations

from typing import Annotated

import typer

from ether.agents.daemon import Agent
from ether.cli.options import Where


def agent(
    name: Annotated[
        str | None, typer.Option("--name", help="What `host:` calls it; default: this machine's name.")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="ROOT", help="A package or folder whose classes may run here; repeat it."),
    ] = None,
    allow_file: Annotated[
        str | None,
        typer.Option("--allow-file", help="A file with one root on each line; default: ~/.config/ether/allowed."),
    ] = None,
    allow_registry: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-registry",
            metavar="ROOT",
            help="A package or folder whose classes a registry from elsewhere may mark; repeat it.",
        ),
    ] = None,
    *,
    where: Where,
) -> int:
    """Run instances here for sessions elsewhere, until SIGTERM or Ctrl-C."""
    return Agent(
        name,
        allow=allow or (),
        allow_file=allow_file,
        allow_registry=allow_registry or (),
        session=where.session,
        broker=where.broker,
    ).run()
