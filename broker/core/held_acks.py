"""PUBACKs that wait a moment, so that they leave with the next delivery to the same client in one write. Pure.

For: who calls publishes a request and is sent the answer a moment later; who serves publishes the answer and is sent
the next request. A PUBACK of its own costs a write here, and wakes a thread there that has nothing to do yet.
How it works. The client's packets wait in its outlet as always; here it is noted since when. Whatever else is written
to that client takes the PUBACK along. If nothing is, the loop writes it after `HOLD_S`, and of this client the next
PUBACKs leave at once: twice as many each time, up to `MOST_AT_ONCE`, so that one that only publishes hardly waits.

Promise: a PUBACK waits no longer than `HOLD_S` and a round of the loop, and at most `MOST_HELD` of one client do.
"""

import math
from typing import Protocol

from broker.core.outlet import Outlet

HOLD_S = 0.001
MOST_HELD = 8
"""Some clients have no more than 20 messages unacknowledged: they must not wait for what we keep."""
MOST_AT_ONCE = 256


class Publisher(Protocol):
    """A client that is owed PUBACKs. Of `acks_at_once` further ones none is held; `acks_in_vain` is how many that were
    the last time."""

    outlet: Outlet
    acks_at_once: int
    acks_in_vain: int


class HeldAcks:
    """Those of all clients. `due` is when the next look is due; infinity where none waits."""

    def __init__(self) -> None:
        self.due = math.inf
        self._since: dict[Publisher, float] = {}

    def hold(self, publisher: Publisher, now: float) -> bool:
        """Whether the PUBACK that was put into the client's outlet last may wait."""
        if publisher.acks_at_once:
            publisher.acks_at_once -= 1
            return False
        waiting = len(publisher.outlet)
        if waiting > 1:
            return waiting <= MOST_HELD
        if publisher in self._since:  # the one before has left with something else
            publisher.acks_in_vain >>= 1
        self._since[publisher] = now
        self.due = min(self.due, now + HOLD_S)
        return True

    def released(self, now: float) -> list[Publisher]:
        """Those that have waited long enough, and have to be written now."""
        over = [publisher for publisher, since in self._since.items() if since + HOLD_S <= now]
        for publisher in over:
            del self._since[publisher]
            if publisher.outlet.bytes:
                publisher.acks_in_vain = publisher.acks_at_once = min(MOST_AT_ONCE, publisher.acks_in_vain * 2 or 1)
            else:  # it has left with something else
                publisher.acks_in_vain >>= 1
        self.due = min(self._since.values()) + HOLD_S if self._since else math.inf
        return over
