"""Who is there, in which state: a table made of the retained announcements.

Every birth of an instance has an id of its own, and so has the will that its connection leaves with the broker. The
trap that this cures: the broker may publish the will of an old, dead connection after the announcement of its
successor. A death therefore counts only for the birth that it names.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


class State(enum.Enum):
    """The states of an instance."""

    STARTING = "starting"
    READY = "ready"
    ERROR = "error"
    STOPPED = "stopped"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Announcement:
    """What an instance says of itself. `about` is the rest: class, host, pid, topics, methods."""

    name: str
    state: State
    birth: str
    error: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_value(self) -> dict[str, Any]:
        """As it is published."""
        said = {"name": self.name, "state": self.state.value, "birth": self.birth, **self.about}
        return {**said, "error": self.error} if self.error else said

    @classmethod
    def from_value(cls, value: object) -> Announcement | None:
        """As it was received; None for what is not an announcement (anybody can publish there)."""
        if not isinstance(value, dict):
            return None
        about = dict(value)
        name, state, birth = (about.pop(key, None) for key in ("name", "state", "birth"))
        error = about.pop("error", "")
        known = {member.value: member for member in State}
        if not (isinstance(name, str) and isinstance(birth, str) and isinstance(error, str)):
            return None
        return cls(name, known[state], birth, error, about) if state in known else None


class Presence:
    """The table. Feed it announcements; ask it who is ready. Not locked."""

    def __init__(self) -> None:
        self._members: dict[str, Announcement] = {}

    def apply(self, announcement: Announcement) -> bool:
        """Take note; False where the announcement is a late death of an earlier birth."""
        known = self._members.get(announcement.name)
        dead = announcement.state in (State.LOST, State.STOPPED)
        if known is not None and dead and known.birth != announcement.birth:
            return False
        self._members[announcement.name] = announcement
        return True

    def forget(self, name: str) -> None:
        """The announcement was cleared: the instance left."""
        self._members.pop(name, None)

    def get(self, name: str) -> Announcement | None:
        """What is known of one instance."""
        return self._members.get(name)

    def members(self) -> list[Announcement]:
        """What is known of everybody."""
        return list(self._members.values())

    def ready(self) -> frozenset[str]:
        """The names of the instances that are ready."""
        return frozenset(name for name, member in self._members.items() if member.state is State.READY)

    def not_ready(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that are not ready, in the order given."""
        ready = self.ready()
        return [name for name in names if name not in ready]
