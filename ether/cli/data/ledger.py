"""`ether ledger`: the life of a ledger, from its first backup to the deletion of what is too old. One module a verb."""

from __future__ import annotations

import typer

from ether.cli.data.archive import archive
from ether.cli.data.backup import backup
from ether.cli.data.delete import delete
from ether.cli.data.restore import restore
from ether.cli.data.volumes import volumes

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
for verb in (volumes, backup, restore, archive, delete):
    app.command()(verb)
