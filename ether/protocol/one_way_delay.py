"""How long a message was on its way, although the clocks of two machines never agree.

On one machine sender and receiver use the same clock, and the difference of the two times is the delay. Between
machines the difference also contains the offset of the clocks. The smallest difference ever seen from a source is taken
as that offset, and what a message took beyond it as its delay. The trap: the fastest message counts as if it had taken
no time at all.
"""

from __future__ import annotations

from collections import OrderedDict

_SOURCES = 1024


class OneWayDelay:
    """Estimates the delay of messages from each source. Not locked."""

    def __init__(self) -> None:
        self._offsets: OrderedDict[str, float] = OrderedDict()

    def seconds(self, source: str, sent: float, now: float, *, same_clock: bool) -> float:
        """The delay in seconds of a message that was sent at `sent`, by the source's clock, and arrived at `now`, by
        this machine's; both in unix seconds."""
        difference = now - sent
        if same_clock:
            return max(0.0, difference)
        offset = min(difference, self._offsets.get(source, difference))
        self._offsets[source] = offset
        self._offsets.move_to_end(source)
        if len(self._offsets) > _SOURCES:
            self._offsets.popitem(last=False)
        return difference - offset
