"""What processes note about themselves among what is recorded, as entries of the kind `state`, each on a topic of its
own: messages that a receiver has missed, and a clock that was set.

Promise: what cannot be read is None, never an error, so that a ledger of another version can be read.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

MISSED = "ether/missed"
"""The topic of `MissedNote`."""

CLOCK = "ether/clock"
"""The topic of `ClockNote`."""


@dataclass(frozen=True, slots=True)
class MissedNote:
    """Messages that a receiver has not got, and will not get."""

    by: str
    """The receiver."""
    source: str
    topic: str
    first: int
    last: int
    why: str

    def __str__(self) -> str:
        numbers = f"{self.first:,} to {self.last:,}" if self.last > self.first else f"{self.first:,}"
        return f"{self.by} never got {self.topic} of {self.source or 'an instance'}, number {numbers}: {self.why}"

    def to_value(self) -> dict[str, Any]:
        """As it is recorded."""
        return asdict(self)

    @classmethod
    def from_value(cls, value: object) -> MissedNote | None:
        """The inverse of `to_value`."""
        match value:
            case {
                "by": str(by), "source": str(source), "topic": str(topic), "first": int(first), "last": int(last),
                "why": str(why),
            }:  # fmt: skip
                return cls(by, source, topic, first, last, why)
        return None


@dataclass(frozen=True, slots=True)
class ClockNote:
    """How the clock of a process's machine stands: noted when the process begins to record, and when the clock was set.

    `uptime` is the machine's, in seconds since its boot `boot`; the wall clock is `ahead_s` ahead of it. Entries up to
    the number `upto` of the process's outbox were made before; of those between that and this note's own number, those
    whose time by the new clock lies between `after_uptime` and `uptime` were made since."""

    host: str
    boot: str
    uptime: float
    ahead_s: float
    set_by_s: float = 0.0
    """By how much it was set; 0 in a process's first note."""
    after_uptime: float = 0.0
    upto: int = 0

    def to_value(self) -> dict[str, Any]:
        """As it is recorded."""
        return asdict(self)

    @classmethod
    def from_value(cls, value: object) -> ClockNote | None:
        """The inverse of `to_value`."""
        match value:
            case {
                "host": str(host), "boot": str(boot), "uptime": float(uptime), "ahead_s": float(ahead),
                "set_by_s": float(set_by), "after_uptime": float(after), "upto": int(upto),
            }:  # fmt: skip
                return cls(host, boot, uptime, ahead, set_by, after, upto)
        return None
