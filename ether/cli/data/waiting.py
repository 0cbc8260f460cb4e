"""What waits in outboxes on this machine, in words: of living programs why, of dead ones what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ether.recording.sources import Source


def waiting_lines(session: str, sources: Sequence[Source]) -> Iterator[str]:
    """A line for each living source of a session whose entries wait for a reason, and one for all of the dead."""
    for source in sources:
        if source.alive and source.why:
            who = f"{source.source!r} (pid {source.pid})"
            yield f"session {session}: {source.count:,} entries of {who} wait: {source.why}"
    dead = [source for source in sources if not source.alive]
    if dead:
        count = sum(source.count for source in dead)
        yield f"session {session}: {count:,} entries of ended programs wait on this machine; ether rescue {session}"
