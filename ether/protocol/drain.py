"""When is nothing in flight any more? Decided from waves of counters.

Every instance is asked, in line with its ordinary messages, how many messages it has handled and published. Brokers
deliver in order, so whatever was published before an instance's answer stands in its receivers' queues before the
next wave's question. Two waves with the same counters therefore mean that nothing was handled or published in
between, and that nothing is on its way.
"""

from __future__ import annotations

from collections.abc import Mapping

from ether.protocol.barrier import Answer


class Quiescence:
    """Compares waves. Feed it each wave's answers; it says when the system is at rest."""

    def __init__(self) -> None:
        self._previous: dict[str, Mapping[str, int]] | None = None

    def at_rest(self, answers: Mapping[str, Answer]) -> bool:
        """True when this wave counted what the wave before counted."""
        wave = {name: answer.facts for name, answer in answers.items()}
        same = wave == self._previous
        self._previous = wave
        return same
