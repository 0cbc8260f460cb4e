"""Starts instances in the order of their `after:`, on whichever machine they run.

Promise: an instance is begun as soon as all instances of its `after:` are ready, and instances that need not wait for
each other are begun together. Where an instance fails that others wait for, no further one is begun; those that run
stay, and each that was not begun is reported with the names that it waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ether.connection.deadline import Deadline
from ether.session.session import Session

Ended = Callable[[], Mapping[str, str]]
"""The instances that will not become ready any more without having announced it, and why. When this changes,
`session.wake()` has to be called."""


@dataclass(frozen=True, slots=True)
class Start:
    """One instance: the names that it comes after, and the call that lets it be built. `begin` returns before the
    instance is ready; a failure shows in the instance's announcements or in `Ended`."""

    after: Sequence[str]
    begin: Callable[[Deadline], None]


def start_in_order(session: Session, starts: Mapping[str, Start], deadline: Deadline, ended: Ended) -> dict[str, str]:
    """Begin all instances; returns when every one is ready or settled: why each of the rest is not ready.

    Runs on the caller's thread, which begins the instances one after the other; they are built side by side in their
    own processes. All waits are on the session's condition variable: every announcement wakes it, and so does
    `session.wake()` when a process has ended without a word.
    """
    waiting = dict(starts)

    def blockers(start: Start) -> list[str]:
        ready = session.ready()
        return [other for other in start.after if other not in ready]

    while waiting:
        # Begin every instance that nothing blocks any more.
        for name in [name for name, start in waiting.items() if not blockers(start)]:
            waiting.pop(name).begin(deadline)
        # For the rest: wait until at least one blocker is ready (then the loop begins what it has freed), or one of
        # them will never be ready, or the deadline has passed (then `wait_any` returns why).
        waited_for = {other for start in waiting.values() for other in blockers(start)}
        if waiting and session.wait_any(waited_for, deadline, ended):
            # A blocker has failed: no further instance is begun. Those begun already still get their time.
            late = {name: f"waits for {', '.join(blockers(start))}" for name, start in waiting.items()}
            begun = [name for name in starts if name not in late]
            return {**session.wait_ready(begun, deadline, ended), **late}
    return session.wait_ready(starts, deadline, ended)
