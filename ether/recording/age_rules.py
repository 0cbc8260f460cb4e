"""How long entries of an outbox have waited, by a clock that cannot be set. Decisions only: `now` is an argument.

An entry has the time of day of its making, and that is no age: on a machine whose clock was last week's until the
network set it, an entry of a second ago seems to be a week old. So the outbox notes now and then which number was its
highest, and when, by the steady clock of the process. All entries up to that number are at least as old as the note.

The trap: a note is made after the entry, so an entry counts as younger than it is by up to a thousandth of the limit.
"""

from __future__ import annotations

from collections import deque

_NOTES = 1000
"""About how many notes fall into the time of the limit: the precision, and what bounds the memory."""


class WaitingTimes:
    """Which entries of an outbox have waited for longer than `max_age_s`. `now` is in seconds of any steady clock."""

    def __init__(self, max_age_s: float) -> None:
        self._max_age_s = max_age_s
        self._notes: deque[tuple[float, int]] = deque()
        self._too_old = 0

    def too_old(self, head: int, now: float) -> int:
        """The highest number whose entry has waited too long; `head` is the highest number that was given out."""
        notes = self._notes
        if not notes or (head > notes[-1][1] and now - notes[-1][0] >= self._max_age_s / _NOTES):
            notes.append((now, head))
        while notes and now - notes[0][0] > self._max_age_s:
            self._too_old = notes.popleft()[1]
        return self._too_old
