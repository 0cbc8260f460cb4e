"""How long a message was on its way, although the clocks of two machines never agree.

On one machine the sender's time stamp can be believed. Between machines only differences can: the shortest that was
ever seen from a source is taken for the offset of the clocks, and what a message took beyond that for time on its way.
"""

from __future__ import annotations

from collections import OrderedDict

_SOURCES = 1024


class OneWayDelay:
    """Estimates the time on the way. Not locked."""

    def __init__(self) -> None:
        self._offsets: OrderedDict[str, float] = OrderedDict()

    def seconds(self, source: str, sent: float, now: float, *, same_clock: bool) -> float:
        """Seconds between `sent`, by the source's clock, and `now`, by ours; both in unix seconds."""
        difference = now - sent
        if same_clock:
            return max(0.0, difference)
        offset = min(difference, self._offsets.get(source, difference))
        self._offsets[source] = offset
        self._offsets.move_to_end(source)
        if len(self._offsets) > _SOURCES:
            self._offsets.popitem(last=False)
        return difference - offset
