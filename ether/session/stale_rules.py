"""Announcements that nobody answers for any more.

Every instance names its keeper: the program that started it and says what becomes of it. When the keeper is gone, so
are its instances within a second, but what was announced about them stays where the broker outlives them, and says
"restarting" or "starts again" of something that nobody starts.

Promise: nothing of a living keeper is ever called a ghost, whatever state it is in. The trap: an instance is not dead
because its keeper is. It has a moment for its last steps, and its own will tells of its end; until then it is dying.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from ether.protocol.presence import LIVES, Announcement, State

_ALIVE = LIVES


class StaleEntries(NamedTuple):
    """Instances without a keeper: those that may still run, and those of which only the announcement is left."""

    dying: tuple[Announcement, ...] = ()
    ghosts: tuple[Announcement, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.dying or self.ghosts)


def keepers_among(members: Iterable[Announcement]) -> frozenset[str]:
    """The programs and agents that are there; an agent also while it is away, for it keeps its instances by itself."""
    return frozenset(member.name for member in members if member.kind != "instance")


def find_orphans(
    members: Iterable[Announcement], keepers: Collection[str], program: str, kept: Collection[str]
) -> StaleEntries:
    """Who of the members has no keeper. `program` is who asks, `kept` the instances that it keeps itself: what else
    names it as its keeper was started by an earlier program of that name."""
    orphans = [member for member in members if member.kind == "instance" and _is_orphan(member, keepers, program, kept)]
    return StaleEntries(
        tuple(member for member in orphans if member.state in _ALIVE),
        tuple(member for member in orphans if member.state not in _ALIVE),
    )


def _is_orphan(member: Announcement, keepers: Collection[str], program: str, kept: Collection[str]) -> bool:
    if member.name in kept:
        return False
    keeper = member.about.get("keeper")
    if not isinstance(keeper, str):  # an object of a program's own: it dies with that
        return member.state is State.LOST
    return keeper == program or keeper not in keepers
