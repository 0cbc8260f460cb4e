"""Machines that are paired already, without the two commands: what `ether pair` and `ether join` leave behind."""

from __future__ import annotations

from collections.abc import Mapping

from ether.security import certificates as certs
from ether.session.trust.lab import LabAuthority
from ether.system.clock import wall_time
from ether.system.lab_folders import AUTHORITY, CERTIFICATE, KEY, Membership, write_membership


def known(environment: Mapping[str, str | None]) -> dict[str, str]:
    """An environment without what is None."""
    return {name: value for name, value in environment.items() if value is not None}


def pair(
    pc: Mapping[str, str | None], device: Mapping[str, str | None], name: str, now: float | None = None
) -> Membership:
    """Make the user of the environment `device` a member of the lab of the user of `pc`, which is made where there is
    none. `now` is the moment at which it was let in."""
    lab = LabAuthority.load_or_make(known(pc), wall_time() if now is None else now)
    key = certs.make_key()
    signed = lab.admit(certs.signing_request(key), name, name, wall_time() if now is None else now)
    files = {AUTHORITY: lab.authority_pem, CERTIFICATE: signed, KEY: key}
    return write_membership(lab.id, name, "pc", files, known(device))
