"""The values that the outbox and the journal of durable calls keep on disk.

This module stays free of I/O, so that a process can talk about durable calls without loading SQLite.
"""

from __future__ import annotations

import enum
import os
from typing import NamedTuple

from ether.wire.codec import Body

RESENT_DAYS = 30.0
"""An unanswered call is sent again for this long. A journal remembers a call for twice as long (`JOURNALED_DAYS`)."""

JOURNALED_DAYS = 60.0
"""A journal forgets a call after this time, when no caller can send it again any more."""

CALL_ID_BYTES = 16
_TIME_BYTES = 6
_CLOCK_IS_SET = 1.6e9
"""Unix seconds. A call with an earlier time comes from a machine whose clock was not set yet: its age is unknown."""


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
    """Unix seconds."""
    caller: str
    """The instance or program that made the call."""

    def is_too_old(self, now: float) -> bool:
        """Whether the call is given up; `now` in Unix seconds."""
        return self.made > _CLOCK_IS_SET and now - self.made > RESENT_DAYS * 86_400


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
