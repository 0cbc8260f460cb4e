"""Decides which retained announcements are stale: no process is responsible for them any more.

Every instance names its supervisor: the program that started it and announces what becomes of it (wire key `keeper`).
When the supervisor dies, its instances end within a second. A broker that outlives them keeps their announcements,
which may say "restarting" of an instance that no program will restart.

A broker that keeps its messages over its own restart does worse. The wills of all that died with it died, too, so their
announcements say "ready" for ever, those of programs included. Two things tell: on the same machine their processes are
seen to have ended (`is_dead`), and from any machine they do not answer when the roll is called (`unanswered`).

Promise: an announcement of a living supervisor is never called stale, whatever its state. The trap: an instance is not
dead because its supervisor is. It has a moment for its last steps, and its own will reports its end; until then it is
dying.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from ether.protocol.presence import HOLDS_ITS_NAME, LIVES, Announcement, State

IsDead = Callable[[Announcement], bool]
"""Whether the process that made an announcement is seen to have ended."""


def nobody(member: Announcement) -> bool:
    """No process is seen to have ended."""
    return False


class StaleEntries(NamedTuple):
    """Instances without a supervisor: `dying` may still run, of `stale` only the announcement is left. Programs whose
    processes have ended are `stale`, too."""

    dying: tuple[Announcement, ...] = ()
    stale: tuple[Announcement, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.dying or self.stale)


def supervisors_among(members: Iterable[Announcement], is_dead: IsDead = nobody) -> frozenset[str]:
    """The names of the programs and agents in the session. An agent counts also while it is disconnected, because it
    supervises its instances without the session."""
    return frozenset(member.name for member in members if member.kind != "instance" and not is_dead(member))


def find_orphans(
    members: Iterable[Announcement],
    supervisors: Collection[str],
    program: str,
    supervised: Collection[str],
    is_dead: IsDead = nobody,
) -> StaleEntries:
    """The instances without a supervisor, and the programs that have ended. `program` is the name of the program that
    asks, and `supervised` the instances that it supervises: any other instance that names this program was started by
    an earlier program of the same name."""
    members = list(members)
    orphans = [
        member for member in members
        if member.kind == "instance" and _is_orphan(member, supervisors, program, supervised, is_dead)
    ]  # fmt: skip
    programs = (member for member in members if member.kind != "instance" and is_dead(member))
    dead = {member.name for member in orphans if member.state not in LIVES or is_dead(member)}
    return StaleEntries(
        tuple(member for member in orphans if member.name not in dead),
        (*(member for member in orphans if member.name in dead), *programs),
    )


def _is_orphan(
    member: Announcement, supervisors: Collection[str], program: str, supervised: Collection[str], is_dead: IsDead
) -> bool:
    if member.name in supervised:
        return False
    supervisor = member.about.get("keeper")
    if not isinstance(supervisor, str):  # a local instance of a program: it dies with its process
        return member.state is State.LOST or is_dead(member)
    return supervisor == program or supervisor not in supervisors


def unanswered(
    members: Iterable[Announcement],
    answered: Collection[str],
    program: str,
    supervised: Collection[str],
    *,
    lost_too: bool,
) -> tuple[Announcement, ...]:
    """The members that have to answer when the roll is called, and have not: all that claim to live, except those whose
    supervisor has `answered`, which announces what becomes of them. `program` and `supervised` are those of the program
    that asks. `lost_too`: also programs and agents that are known to be lost, which an earlier leader of the session
    may have kept as offline."""
    members = list(members)
    there = {member.name for member in members if member.kind != "instance" and member.name in answered} - {program}
    claiming = (*HOLDS_ITS_NAME, State.LOST) if lost_too else HOLDS_ITS_NAME
    return tuple(
        member for member in members
        if member.name != program and member.name not in supervised and member.name not in answered
        and member.state in (HOLDS_ITS_NAME if member.kind == "instance" else claiming)
        and member.about.get("keeper") not in there
    )  # fmt: skip
