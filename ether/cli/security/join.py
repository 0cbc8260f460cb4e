"""`ether join TOKEN`: makes this machine a member of the lab of the machine that shows the token, or the code."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ether.cli.exits import Exit
from ether.cli.options import Json
from ether.cli.output import print_json, print_line
from ether.security.pairing_code import read_token_or_code
from ether.session.discovery import mdns
from ether.session.trust.joining import LOOK_S
from ether.session.trust.joining import join as join_lab

Secret = Annotated[str, typer.Argument(metavar="TOKEN", help="What `ether pair NAME` shows: the token, or the code.")]
At = Annotated[str | None, typer.Option("--at", metavar="HOST", help="Where that machine is, as HOST or HOST:PORT.")]


def join(token: Secret, at: At = None, json: Json = False) -> int:
    """Make this machine a member of a lab: from then on sessions of that lab are found and joined from here."""
    secret = read_token_or_code(token)
    new = join_lab(secret, os.environ, at, mdns_s=LOOK_S if mdns.browse_seconds(os.environ) else 0.0)
    known = new.membership
    if json:
        print_json({"name": known.name, "host": known.host, "lab": known.lab, "fingerprint": new.fingerprint})
    else:
        print_line(
            f"this machine is {known.name} now, a member of the lab of {known.host}; its key is {new.fingerprint}"
        )
    return Exit.OK
