"""Options that several commands have, spelled once."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text for people.")]
SessionName = Annotated[
    str | None, typer.Option("--session", "-s", metavar="NAME", help="The session; else the one that runs.")
]
LedgerFolder = Annotated[
    str | None, typer.Option("--ledger", metavar="FOLDER", help="The folder of a ledger, instead of a session's name.")
]
BrokerUrl = Annotated[
    str | None, typer.Option("--broker", "-b", metavar="URL", help="Look for it at this broker, mqtt://host:port.")
]
Timeout = Annotated[float, typer.Option("--timeout", "-t", metavar="SECONDS", min=0.1, help="How long to wait.")]
