"""`ether revoke NAME`: takes a machine's certificate back. Brokers of this machine that run end its connections."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ether.cli.exits import Exit
from ether.cli.options import Json
from ether.cli.output import print_json, print_line
from ether.session.trust.lab import LabAuthority, LabRefused
from ether.system.clock import wall_time

MemberName = Annotated[str, typer.Argument(metavar="NAME", help="The member, as `ether members` shows it.")]


def revoke(name: MemberName, json: Json = False) -> int:
    """Put a machine out of the lab: its connections end within a second, and it does not come in again."""
    lab = LabAuthority.load(os.environ)
    if lab is None:
        raise LabRefused(
            "this machine has made no lab, so it can put nobody out: type it on the one that runs `ether pair`."
        )
    member = lab.revoke(name, wall_time())
    if json:
        print_json({"name": member.name, "fingerprint": member.fingerprint, "revoked": member.revoked})
    else:
        print_line(f"{member.name} ({member.fingerprint}) is out; `ether pair {member.name}` would let it in again")
    return Exit.OK
