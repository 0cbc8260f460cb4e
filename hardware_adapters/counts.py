"""What happened on an adapter, counted: nothing that went wrong is lost in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from hardware_adapters.connection import LineCounts
from hardware_adapters.errors import AdapterError, NoAnswer


@dataclass(frozen=True, slots=True)
class AdapterCounts:
    """So often: commands sent and answered, attempts repeated, answers missing and damaged, inputs that nobody asked
    for, times connected; callbacks dropped and failed; bytes that belonged to no frame, and the faults of the line."""

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


@dataclass(slots=True)
class Tally:
    """The counters of an adapter, over all its connections."""

    sent: int = 0
    answered: int = 0
    retried: int = 0
    unanswered: int = 0
    bad: int = 0
    inputs: int = 0
    connections: int = 0
    _late: int = 0
    _skipped: int = 0
    _faults: Counter[str] = field(default_factory=Counter)

    def note(self, error: AdapterError) -> None:
        """A question that failed."""
        if isinstance(error, NoAnswer):
            self.unanswered += 1
        else:
            self.bad += 1

    def add_line(self, line: LineCounts) -> None:
        """What a connection that ends had counted."""
        self._late += line.late
        self._skipped += line.skipped_bytes
        self._faults.update(line.faults)

    def counts(self, line: LineCounts, dropped: int, failed: int) -> AdapterCounts:
        """The sum, with what the present connection has counted so far."""
        faults = dict(self._faults + Counter(line.faults))
        return AdapterCounts(
            self.sent, self.answered, self.retried, self.unanswered, self.bad, self.inputs, self.connections,
            dropped, failed, self._late + line.late, self._skipped + line.skipped_bytes, faults,
        )  # fmt: skip
