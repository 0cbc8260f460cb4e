"""`ether ledger restore`: a ledger is put back from its backup.

A recorder that is started on it goes on from there: its sources send what they have kept since, and what they had been
told was saved, and is not in the backup, is named as a gap.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from ether.cli.exits import Exit
from ether.cli.options import Json
from ether.cli.output import print_json, print_line
from ether.ledger.life.backup import restore as put_back
from ether.system.clock import wall_time

Source = Annotated[Path, typer.Argument(metavar="BACKUP", help="The folder of a backup.")]
Target = Annotated[Path, typer.Argument(metavar="FOLDER", help="The ledger's folder.")]
Aside = Annotated[
    bool, typer.Option("--aside", help="Move what is in FOLDER aside, to FOLDER.before-DATE; nothing is deleted.")
]


def restore(backup: Source, folder: Target, aside: Aside = False, json: Json = False) -> int:
    """Put a ledger back from its backup, into a folder that is empty or not there."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(wall_time()))
    before = folder.absolute().with_name(f"{folder.absolute().name}.before-{stamp}")
    was_there = folder.is_dir() and any(folder.iterdir())
    done = put_back(backup, folder, aside=before if aside else None)
    moved = str(before) if aside and was_there else None
    if json:
        print_json({**done._asdict(), "folder": str(done.backup), "backup": str(done.folder), "aside": moved})
        return Exit.OK
    print_line(f"{done.backup} has everything up to row {done.last:,}, whose link is {done.link}")
    if moved:
        print_line(f"what was there is in {moved}")
    return Exit.OK
