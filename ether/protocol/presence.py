"""Which instances there are, in which state: a table made of the retained announcements.

Every incarnation of an instance has an id and an epoch, a number that grows with each incarnation under the same name.
The will that its connection leaves with the broker carries both. Promise: the table shows the highest epoch that was
ever announced, and nothing that an earlier incarnation still says changes it, the notice of its death included.

A member's topic also carries messages that are no announcements and not retained (`is_notice`): claims of its name, and
echoes. They stand there because brokers keep the order of one topic, and of nothing else.

The traps that this avoids: the broker may publish the will of an old, dead connection after the announcement of its
successor. And a process that was frozen while another took its place wakes and goes on as if nothing had happened.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any


class State(enum.Enum):
    """The states of an instance. Offline: its process is there, its device is not. Restarting, hung and failed are
    announced by its supervisor."""

    STARTING = "starting"
    READY = "ready"
    OFFLINE = "offline"
    HUNG = "hung"
    RESTARTING = "restarting"
    ERROR = "error"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"


HOLDS_ITS_NAME = (State.STARTING, State.READY, State.OFFLINE, State.HUNG, State.RESTARTING)
"""States in which no other process can take the name."""

TAKES_PART = (State.READY, State.OFFLINE)
"""States in which an instance answers. What an absent device makes impossible, its methods report themselves."""

LIVES = (*TAKES_PART, State.HUNG)
"""States in which an instance's process is there."""

WILL = "will"
"""Marks, in an announcement, the will that a connection left with the broker."""

_REMEMBERED_EPOCHS = 4096
"""Of names that have left. What a process that is still dying says comes soon after it has left, so the latest names
are the ones that matter."""

_ENDED = (State.LOST, State.STOPPED)
_SUPERVISORS_WORD = (State.RESTARTING, State.FAILED, State.ERROR)
"""Announced after a death by the supervisor, which knows more than the will. The will may be published later."""


BEHIND_BRIDGE: Mapping[str, object] = MappingProxyType({"headers": "body"})
"""Announced by a member where the way to other members strips MQTT 5 properties: requests to it carry their headers in
the body, too."""

CLAIM, ECHO = "claim", "echo"
"""The sole keys of notices on a member's topic: the incarnation that claims the name; a random text that its sender
waits for."""


def is_notice(value: object) -> bool:
    """Whether a message on a member's topic is a claim or an echo, and no announcement."""
    return isinstance(value, dict) and len(value) == 1 and (CLAIM in value or ECHO in value)


@dataclass(frozen=True, slots=True)
class Announcement:
    """What an instance announces. `about` holds the rest: class, host, pid, epoch, topics, methods."""

    name: str
    state: State
    incarnation: str
    error: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """The number of this incarnation under its name, from 1; 0 where none is given."""
        epoch = self.about.get("epoch", 0)
        return epoch if type(epoch) is int else 0

    @property
    def kind(self) -> str:
        """`instance`, `program` (which has no methods) or `agent`."""
        return str(self.about.get("kind", "instance"))

    @property
    def wire(self) -> int:
        """The version of the wire that it speaks."""
        wire = self.about.get("wire", 1)
        return wire if type(wire) is int else 1

    @property
    def behind_bridge(self) -> bool:
        """Whether the way to this member strips MQTT 5 properties."""
        return self.about.get("headers") == BEHIND_BRIDGE["headers"]

    @property
    def returns(self) -> bool:
        """True where the instance is being started, or its supervisor will start it again."""
        coming = self.state in (State.STARTING, State.RESTARTING)
        return coming or (self.state is State.LOST and self.about.get("supervised") is True)

    def to_value(self) -> dict[str, Any]:
        """The JSON form, in which it is published."""
        said = {"name": self.name, "state": self.state.value, "birth": self.incarnation, **self.about}
        return {**said, "error": self.error} if self.error else said

    @property
    def is_will(self) -> bool:
        """True for the broker's word that a connection broke, which does not say that a process has died."""
        return self.state is State.LOST and self.about.get(WILL) is True

    @property
    def believed(self) -> Announcement:
        """The announcement without the mark of a will."""
        if WILL not in self.about:
            return self
        return replace(self, about={key: value for key, value in self.about.items() if key != WILL})

    @property
    def alive_again(self) -> Announcement:
        """The announcement of the same instance when it answers again after it had hung."""
        offline = self.about.get("offline")
        if isinstance(offline, Mapping):
            return replace(self, state=State.OFFLINE, error=str(offline.get("why", "")))
        return replace(self, state=State.READY, error="")

    @classmethod
    def from_value(cls, value: object) -> Announcement | None:
        """Read a received value; None where it is no announcement (any client may publish on that topic)."""
        if not isinstance(value, dict):
            return None
        about = dict(value)
        name, state, incarnation = (about.pop(key, None) for key in ("name", "state", "birth"))
        error = about.pop("error", "")
        known = {member.value: member for member in State}
        if not all(isinstance(each, str) for each in (name, state, incarnation, error)):
            return None
        return cls(name, known[state], incarnation, error, about) if state in known else None


_ANY = 1 << 40
"""In place of the last known epoch of a name of which nothing is known."""

MOST_LIVES = 1_000
"""By so many an epoch may be higher than the last known one: so often a name can have been taken while a process did
not hear of it."""


def can_follow(known: int, epoch: int) -> bool:
    """Whether an epoch may be that of a name's holder after `known`. One that is too high is nobody's: it would end
    every holder of the name for good."""
    return epoch <= known + MOST_LIVES


class PresenceTable:
    """The table of announcements. It grows with the names that are announced now, and with no others. Not locked."""

    def __init__(self) -> None:
        self._members: dict[str, Announcement] = {}
        self._last_epochs: dict[str, int] = {}

    def apply(self, announcement: Announcement) -> bool:
        """Take an announcement; False where it is outdated: from an earlier incarnation, or a will that tells of a
        death which is known already."""
        known = self._members.get(announcement.name)
        if known is not None and self._is_outdated(known, announcement):
            return False
        if not can_follow(
            known.epoch if known is not None else self._last_epochs.get(announcement.name, _ANY), announcement.epoch
        ):
            return False
        self._members[announcement.name] = announcement
        return True

    @staticmethod
    def _is_outdated(known: Announcement, new: Announcement) -> bool:
        if new.epoch != known.epoch:
            return new.epoch < known.epoch
        if new.incarnation == known.incarnation:
            more_is_known = known.state in _SUPERVISORS_WORD or (known.state is State.LOST and not new.error)
            return new.state is State.LOST and more_is_known
        return new.state in _ENDED

    def forget(self, name: str) -> None:
        """The announcement was cleared: the instance left. Its epoch is remembered and not used again; otherwise the
        will of a process that is still dying would outrank the next incarnation."""
        known = self._members.pop(name, None)
        if known is not None and known.epoch:
            self._last_epochs.pop(name, None)  # it counts as the latest again
            self._last_epochs[name] = known.epoch
            if len(self._last_epochs) > _REMEMBERED_EPOCHS:
                del self._last_epochs[next(iter(self._last_epochs))]

    def next_epoch(self, name: str) -> int:
        """The epoch of the next incarnation under a name."""
        known = self._members.get(name)
        return 1 + (known.epoch if known is not None else self._last_epochs.get(name, 0))

    def get(self, name: str) -> Announcement | None:
        """The latest announcement of one instance; None where there is none."""
        return self._members.get(name)

    def members(self) -> list[Announcement]:
        """The latest announcement of each instance, program and agent."""
        return list(self._members.values())

    def ready(self) -> frozenset[str]:
        """The names of the instances that answer. Programs, which have no methods, are not among them."""
        return frozenset(
            name for name, member in self._members.items() if member.state in TAKES_PART and member.kind == "instance"
        )

    def not_ready(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that are not ready, in the order given."""
        ready = self.ready()
        return [name for name in names if name not in ready]


class Claims:
    """Which process asked first for a name. Claims stand on the topic of the name, so all processes receive them in the
    same order, between the same announcements, and reach the same result. Not locked; `now` in seconds of any steady
    clock."""

    LAST_S = 30.0
    """How long a claim holds. By then the process that made it has announced itself under the name."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, float]] = {}

    def note(self, name: str, incarnation: str, now: float) -> None:
        """A claim was received."""
        while self._first:  # the oldest claims come first
            oldest = next(iter(self._first))
            if not self._is_over(self._first[oldest], now):
                break
            del self._first[oldest]
        self._first.setdefault(name, (incarnation, now))

    def _is_over(self, claim: tuple[str, float], now: float) -> bool:
        return now - claim[1] > self.LAST_S

    def holder(self, name: str, now: float) -> str | None:
        """The incarnation whose claim came first; None where there is none."""
        held = self._first.get(name)
        return None if held is None or self._is_over(held, now) else held[0]

    def release(self, name: str) -> None:
        """Forget a claim: the name was announced, or the claim was dropped."""
        self._first.pop(name, None)
