"""How long a message was on its way, although the clocks of two machines never agree, and any clock may be set.

On one machine sender and receiver use the same clock, and the difference of the two times is the delay, unless the
clock was set in between. So the receiver remembers by how much its wall clock was ahead of its steady clock, now and
before it was set: one of these is what the sender's time goes by, and of the delays that follow from them the shortest
one that is not negative counts.

Between machines the difference also contains the offset of the clocks. The smallest difference of the last minutes from
a source is taken as that offset, and what a message took beyond it as its delay. The receiver's part of the difference
goes by its steady clock. Where the sender's clock is set back, its messages seem to take longer: by more than
`LONGEST_S`, and the offset is taken anew at once; by less, and it is taken anew some minutes later.

The trap: the fastest message of a source counts as if it had taken no time at all.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

LONGEST_S = 600.0
"""No message is on its way for longer: what seems to be is a clock that was set."""

WINDOW_S = 300.0
"""The smallest difference counts for one to two times this long."""

_SOURCES = 1024
_SAME_S = 0.5
"""Two offsets of the own clock that differ by less are the same one: the clock was slewed, or read a bit late."""

_EARLY_S = 0.01
"""By so much a message may arrive before it was sent: clocks are read with limited precision."""


@dataclass(slots=True)
class _Offset:
    """The smallest difference in the window that began at `began`, and in the one before."""

    began: float
    smallest: float
    before: float


class OneWayDelay:
    """Estimates the delay of messages from each source. Not locked. `now` is by this machine's wall clock, `steady` by
    a clock of it that cannot be set and runs on while the machine is asleep."""

    def __init__(self, now: float, steady: float) -> None:
        self._offsets: OrderedDict[str, _Offset] = OrderedDict()
        self._ahead: deque[float] = deque([now - steady], maxlen=8)
        """By how much the wall clock was ahead of the steady one; the present value comes last."""

    def seconds(self, source: str, sent: float, now: float, steady: float, *, same_clock: bool) -> float:
        """The delay in seconds of a message that was sent at `sent`, by the source's wall clock, and arrives now."""
        ahead = self._ahead
        if not -_SAME_S < now - steady - ahead[-1] < _SAME_S:
            ahead.append(now - steady)  # the clock was set
        if same_clock:
            difference = now - sent
            if len(ahead) > 1:
                known = (steady + each - sent for each in ahead)
                difference = min((each for each in known if each >= -_EARLY_S), default=0.0)
            return max(0.0, difference)
        return self._beyond_offset(source, steady - sent, steady)

    def _beyond_offset(self, source: str, difference: float, steady: float) -> float:
        offset = self._offsets.get(source)
        if offset is None or difference - min(offset.smallest, offset.before) > LONGEST_S:
            offset = self._offsets[source] = _Offset(steady, difference, difference)
        elif steady - offset.began >= WINDOW_S:
            offset.began, offset.before, offset.smallest = steady, offset.smallest, difference
        else:
            offset.smallest = min(offset.smallest, difference)
        self._offsets.move_to_end(source)
        if len(self._offsets) > _SOURCES:
            self._offsets.popitem(last=False)
        return difference - min(offset.smallest, offset.before)
