"""Counters of an adapter, so that no failure passes unnoticed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from hardware_adapters.connection import LineCounts
from hardware_adapters.errors import AdapterError, NoAnswer


@dataclass(frozen=True, slots=True)
class AdapterCounts:
    """Commands sent and answered, attempts repeated, answers missing (`unanswered`) and damaged (`bad`), unsolicited
    frames (`inputs`), connections made, callbacks dropped and failed, answers after their time-out (`late`), bytes
    that belonged to no frame (`skipped_bytes`), how often each fault of the line occurred, how often the line came back
    in step after a failed question (`resynchronised`), commands that were sent back (`echoes`), and messages too many
    for their question (`surplus`)."""

    sent: int
    answered: int
    retried: int
    unanswered: int
    bad: int
    inputs: int
    connections: int
    dropped: int
    failed_callbacks: int
    late: int
    skipped_bytes: int
    faults: Mapping[str, int]
    resynchronised: int = 0
    echoes: int = 0
    surplus: int = 0


@dataclass(slots=True)
class Counters:
    """The counters of an adapter, over all its connections."""

    sent: int = 0
    answered: int = 0
    retried: int = 0
    unanswered: int = 0
    bad: int = 0
    inputs: int = 0
    connections: int = 0
    _ended: LineCounts = field(default_factory=LineCounts)

    def count_failure(self, error: AdapterError) -> None:
        """Count a query that failed."""
        if isinstance(error, NoAnswer):
            self.unanswered += 1
        else:
            self.bad += 1

    def add_connection(self, line: LineCounts) -> None:
        """Add the counts of a connection that ends."""
        self._ended = _sum(self._ended, line)

    def counts(self, line: LineCounts, dropped: int, failed: int) -> AdapterCounts:
        """The sum, with the counts of the present connection."""
        total = _sum(self._ended, line)
        return AdapterCounts(
            self.sent, self.answered, self.retried, self.unanswered, self.bad, self.inputs, self.connections,
            dropped, failed, total.late, total.skipped_bytes, total.faults, total.resynchronised, total.echoes,
            total.surplus,
        )  # fmt: skip


def _sum(one: LineCounts, other: LineCounts) -> LineCounts:
    return LineCounts(
        one.skipped_bytes + other.skipped_bytes, dict(Counter(one.faults) + Counter(other.faults)),
        one.late + other.late, one.resynchronised + other.resynchronised, one.echoes + other.echoes,
        one.surplus + other.surplus,
    )  # fmt: skip
