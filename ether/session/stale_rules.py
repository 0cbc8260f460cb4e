"""Decides which retained announcements are stale: no process is responsible for them any more.

Every instance names its supervisor: the program that started it and announces what becomes of it (wire key `keeper`).
When the supervisor dies, its instances end within a second. A broker that outlives them keeps their announcements,
which may say "restarting" of an instance that no program will restart.

Promise: an announcement of a living supervisor is never called stale, whatever its state. The trap: an instance is not
dead because its supervisor is. It has a moment for its last steps, and its own will reports its end; until then it is
dying.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from ether.protocol.presence import LIVES, Announcement, State


class StaleEntries(NamedTuple):
    """Instances without a supervisor: `dying` may still run, of `stale` only the announcement is left."""

    dying: tuple[Announcement, ...] = ()
    stale: tuple[Announcement, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.dying or self.stale)


def supervisors_among(members: Iterable[Announcement]) -> frozenset[str]:
    """The names of the programs and agents in the session. An agent counts also while it is disconnected, because it
    supervises its instances without the session."""
    return frozenset(member.name for member in members if member.kind != "instance")


def find_orphans(
    members: Iterable[Announcement], supervisors: Collection[str], program: str, supervised: Collection[str]
) -> StaleEntries:
    """The instances without a supervisor. `program` is the name of the program that asks, and `supervised` the
    instances that it supervises: any other instance that names this program was started by an earlier program of the
    same name."""
    orphans = [
        member for member in members
        if member.kind == "instance" and _is_orphan(member, supervisors, program, supervised)
    ]  # fmt: skip
    return StaleEntries(
        tuple(member for member in orphans if member.state in LIVES),
        tuple(member for member in orphans if member.state not in LIVES),
    )


def _is_orphan(member: Announcement, supervisors: Collection[str], program: str, supervised: Collection[str]) -> bool:
    if member.name in supervised:
        return False
    supervisor = member.about.get("keeper")
    if not isinstance(supervisor, str):  # a local instance of a program: it dies with its process
        return member.state is State.LOST
    return supervisor == program or supervisor not in supervisors
