"""The values that the outbox and the journal of durable calls keep on disk.

This module stays free of I/O, so that a process can talk about durable calls without loading SQLite.
"""

from __future__ import annotations

import enum
import os
from typing import NamedTuple

from ether.wire.codec import Body
from ether.wire.origin import mark_of

RESENT_DAYS = 30.0
"""An unanswered call is sent again for this long, counted in days in which its caller's machine ran."""

_NOTED_EVERY_S = 3600.0

CALL_ID_BYTES = 16
_TIME_BYTES = 6


def new_call_id(unix_ms: int) -> bytes:
    """An id for a call made at `unix_ms` milliseconds since 1970: 6 bytes of time, then 10 unguessable bytes."""
    return max(0, unix_ms).to_bytes(_TIME_BYTES, "big") + os.urandom(CALL_ID_BYTES - _TIME_BYTES)


def time_of(call_id: bytes) -> bytes:
    """The bytes of a call's id that say when it was made; they compare like the times."""
    return call_id[:_TIME_BYTES]


class SavedCall(NamedTuple):
    """A durable call that is not answered yet, as the outbox stores it."""

    call_id: str
    """32 hexadecimal digits; the same however often the call is sent."""
    service: str
    """The instance or class that the caller named."""
    method: str
    instance: str
    """The instance that the call was sent to; "" before. It may have begun there, so no other instance may run it."""
    journal: str
    """The id of that instance's journal; "" where it is not known."""
    made: float
    """Unix seconds, for people."""
    caller: str
    """The instance or program that made the call; behind its name, after a space, the mark of a replay that has caused
    it (`ether.wire.origin.mark_of`), so that it counts for whoever sends the call again. No name contains a `$`."""

    @property
    def mark(self) -> str | None:
        """The mark of the replay that has caused the call; None where none has."""
        return mark_of(self.caller.rpartition(" ")[2])


class Age:
    """How long a call has waited, by a clock that nobody can set. `now`: seconds of a clock that runs on while this
    process lives, also while the machine is asleep (`ether.system.clock.uptime`)."""

    __slots__ = ("_noted", "_since")

    def __init__(self, now: float, age_s: float = 0.0) -> None:
        """`age_s`: what an earlier process has counted."""
        self._since, self._noted = now - age_s, now

    def seconds(self, now: float) -> float:
        """The age."""
        return now - self._since

    def is_too_old(self, now: float) -> bool:
        """Whether the call is given up."""
        return self.seconds(now) > RESENT_DAYS * 86_400

    def is_to_be_noted(self, now: float) -> bool:
        """Whether the age is due to be written down, for the process that goes on with the call. True once an hour."""
        due = now - self._noted >= _NOTED_EVERY_S
        if due:
            self._noted = now
        return due


class JournalEntry(enum.Enum):
    """What a journal says about a call for which it has no answer."""

    NEW = "new"
    """The journal has just noted its begin: run it, then call `finish`."""
    RUNNING = "running"
    """This very process is running it."""
    INTERRUPTED = "interrupted"
    """It was begun in an earlier incarnation of the instance and not finished."""
    FORGOTTEN = "forgotten"
    """It was made so long ago that it may have been run and forgotten."""


class JournaledResult(NamedTuple):
    """The answer to a call that was run. `body` is None where the answer has been dropped to save space."""

    body: Body | None
    error: str | None
    """The class name of the exception; None where the call returned."""
    finished: float
    """Unix seconds."""
