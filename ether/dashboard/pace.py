"""How often a question is asked that costs who answers it: the longer the answer takes, the rarer.

Promise: one question takes at most one part in `share` of the time of who answers, however large the ledger has become
that it reads. The trap: an answer that does not come at all has cost the most.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Asks `every_s` at most. The block of `with` is the question, with its answer or what it raises."""

    def __init__(self, every_s: float, *, share: float = 100.0, now: Callable[[], float] = time.monotonic) -> None:
        self._every_s, self._share, self._now = every_s, share, now
        self._began = self._next = float("-inf")

    def due(self) -> bool:
        """Whether it is time to ask."""
        return self._now() >= self._next

    def __enter__(self) -> None:
        self._began = self._now()

    def __exit__(self, *_: object) -> None:
        ended = self._now()
        self._next = max(self._began + self._every_s, ended + self._share * (ended - self._began))
