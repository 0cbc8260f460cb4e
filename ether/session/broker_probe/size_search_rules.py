"""Which message size to try next, so that the largest one that passes is found in few attempts. Pure.

First a ladder of sizes, each four times the one before; between the last that passed and the first that failed the
interval is halved, until its ends differ by less than a sixteenth. An attempt that fails may cost a connection, one
that passes costs the time of its bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

SMALLEST, LARGEST = 4 << 10, 16 << 20
_STEP = 4
_CLOSE_ENOUGH = 16


@dataclass(frozen=True, slots=True)
class SizeSearch:
    """What is known: `passed` is the largest payload that came back (0: none yet), `failed` the smallest that did not.
    `largest` is never exceeded."""

    passed: int = 0
    failed: int | None = None
    largest: int = LARGEST

    @property
    def next_size(self) -> int | None:
        """The payload to try next; None where enough is known."""
        if self.failed is None:
            step = max(SMALLEST, self.passed * _STEP)
            return None if self.passed >= self.largest else min(step, self.largest)
        if self.failed - self.passed <= max(1, self.failed // _CLOSE_ENOUGH):
            return None
        return (self.passed + self.failed) // 2

    def after(self, size: int, *, passed: bool) -> SizeSearch:
        """What is known after one more attempt."""
        return replace(self, passed=size) if passed else replace(self, failed=size)
