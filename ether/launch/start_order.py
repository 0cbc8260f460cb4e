"""Starts instances in the order of their `after:`, wherever they live.

Promise: an instance is begun when all that it comes after are ready, and those that need not wait for each other are
begun together. Who fails takes nobody along but those who wait for it, and they are named, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ether.connection.deadline import Deadline
from ether.session.session import Session

Ended = Callable[[], Mapping[str, str]]
"""Who will not become ready any more without having announced it, and why. Call `session.wake()` when that changes."""


@dataclass(frozen=True, slots=True)
class Start:
    """One instance: whom it comes after, and what lets it be built. `begin` does not wait until it is ready; what goes
    wrong then is seen in its announcements or in `Ended`."""

    after: Sequence[str]
    begin: Callable[[Deadline], None]


def start_in_order(session: Session, starts: Mapping[str, Start], deadline: Deadline, ended: Ended) -> dict[str, str]:
    """Begin all; returns when all are ready or settled: why each of the others is not."""
    waiting = dict(starts)

    def blockers(start: Start) -> list[str]:
        ready = session.ready()
        return [other for other in start.after if other not in ready]

    while waiting:
        for name in [name for name, start in waiting.items() if not blockers(start)]:
            waiting.pop(name).begin(deadline)
        waited_for = {other for start in waiting.values() for other in blockers(start)}
        if waiting and session.wait_any(waited_for, deadline, ended):
            late = {name: f"waits for {', '.join(blockers(start))}" for name, start in waiting.items()}
            begun = [name for name in starts if name not in late]
            return {**session.wait_ready(begun, deadline, ended), **late}
    return session.wait_ready(starts, deadline, ended)
