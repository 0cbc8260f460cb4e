"""`ether members`: the machines of this machine's lab; where it has none, the labs of which it is a member."""

from __future__ import annotations

import os
import time
from typing import Any

from ether.cli.exits import Exit
from ether.cli.options import Json
from ether.cli.output import harmless, print_json, print_table
from ether.security.certificates import GRACE_DAYS, NotSigned, facts_of
from ether.session.trust.lab import LabAuthority, Member
from ether.system.lab_folders import Membership, memberships

_COLUMNS = {"name": "MEMBER", "state": "STATE", "host": "HOST", "fingerprint": "KEY", "since": "SINCE", "ends": "UNTIL"}
_LABS = {"name": "HERE CALLED", "host": "LAB OF", "ends": "UNTIL", "lab": "LAB"}


def members(json: Json = False) -> int:
    """Show the machines of the lab that this machine has made, with what they were when they joined. On a machine that
    has made none: the labs of which it is a member."""
    lab = LabAuthority.load(os.environ)
    rows = [] if lab is None else [_member_row(member) for member in lab.members().values()]
    own = [_own_row(known) for known in memberships(os.environ)] if lab is None else []
    if json:
        print_json({"members": rows, "member_of": own})
    elif lab is not None:
        print_table([_shown(row) for row in rows], _COLUMNS, nothing="this lab has no members")
    else:
        nothing = "this machine has no lab and is a member of none: `ether pair NAME` makes one"
        print_table([_shown(row) for row in own], _LABS, nothing=nothing)
    return Exit.OK


def _member_row(member: Member) -> dict[str, Any]:
    state = ("password" if member.has_password else "member") if member.revoked is None else "revoked"
    ends = member.ends if member.revoked is None else member.revoked
    facts = {"host": harmless(member.host), "fingerprint": member.fingerprint, "since": member.since, "ends": ends}
    return {"name": member.name, "state": state, **facts}


def _own_row(known: Membership) -> dict[str, Any]:
    try:
        with open(known.certificate, "rb") as file:
            ends = facts_of(file.read()).ends - GRACE_DAYS * 86_400
    except (OSError, NotSigned):
        ends = None
    return {"name": known.name, "host": harmless(known.host), "lab": known.lab, "ends": ends}


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    days = {key: time.strftime("%Y-%m-%d", time.localtime(row[key])) for key in ("since", "ends") if row.get(key)}
    return {**row, **days}
