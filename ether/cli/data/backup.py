"""`ether ledger backup`: a copy of a ledger in another folder, made while it is recorded to; repeated, it is brought up
to date."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ether.cli import completion
from ether.cli.data.recorded import ledger_folder
from ether.cli.exits import Exit
from ether.cli.options import Json
from ether.cli.output import print_json, print_line
from ether.ledger.life.backup import back_up
from ether.system.clock import wall_time

Source = Annotated[
    str,
    typer.Argument(metavar="LEDGER", help="A session's name, or a ledger's folder.", autocompletion=completion.ledgers),
]
Target = Annotated[Path, typer.Argument(metavar="DEST", help="The folder of the backup; best on another disk.")]


def backup(ledger: Source, dest: Target, json: Json = False) -> int:
    """Copy what DEST does not have yet, also while a recorder writes; DEST is a ledger itself, sealed."""
    done = back_up(ledger_folder(ledger), dest, wall_time())
    if json:
        print_json({**done._asdict(), "folder": str(done.folder), "backup": str(done.backup)})
        return Exit.OK
    copied = f"{done.volumes:,} closed volumes and {done.rows:,} rows, {done.bytes:,} bytes"
    print_line(f"{done.folder}: copied {copied}" if done.bytes or done.rows else f"{done.folder}: nothing is new")
    print_line(f"{done.backup} has everything up to row {done.last:,}, whose link is {done.link}")
    return Exit.OK
