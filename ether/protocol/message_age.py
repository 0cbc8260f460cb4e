"""How old a message is, although the clocks of two machines never agree, and any clock may be set.

The difference between this process's steady clock and the time in a message is the message's age plus a constant, which
is unknown. The smallest difference with which messages of a source have arrived on a topic is taken as that constant,
and what a message has more than that as its age: the fastest message counts as new when it arrives.

That constant has to follow the sender's clock:
- a clock that is set forward makes the difference smaller, which takes effect at once;
- a clock that is set back shows in a message that was sent before the one with the number before it, and the constant
  is taken anew; so it is where another process takes over the source's name;
- where neither shows (a source was silent while its clock was set back), a difference that has stayed the same for
  `STEADY_S` is the constant: messages that wait in queues do not wait equally long to within `SAME_S`;
- clocks that drift are followed by `DRIFT` of the time that has passed.

The trap: of a source that is heard for the first time while its messages are late, nobody can tell how late they are.
They count as new until one comes that is faster.
"""

from __future__ import annotations

from dataclasses import dataclass

from ether.wire.head import Headers, node_of

SAME_S = 0.1
"""Differences of the same clocks without a queue between them are closer together than this."""

STEADY_S, STEADY_MESSAGES = 30.0, 5
"""After so long, and so many messages, a difference that has stayed the same is that of the clocks."""

SET_BACK_S = 0.5
"""A message that was sent before its predecessor by more than this shows that a clock was set back."""

DRIFT = 1e-4
"""Two clocks drift apart by less than this share of the time."""

SOURCES = 4096
"""Pairs of topic and source that are remembered; the one that was first heard is forgotten first."""


@dataclass(slots=True)
class _Clock:
    """One source's clock, as its messages on one topic show it."""

    node: str
    number: int
    sent: float
    """The number and the time of the latest message."""
    zero: float
    """The smallest difference, noted at the time `at`."""
    at: float
    low: float
    high: float
    """The bounds of the differences since `since`, when `late` messages came late by nearly the same time."""
    since: float
    late: int = 0


class MessageAges:
    """The ages of the messages of all sources; `now` is by any steady clock of this process, in seconds. Not locked:
    where two threads note a message at once, one of the two may not be taken into account."""

    def __init__(self) -> None:
        self._clocks: dict[tuple[str, str], _Clock] = {}

    def note(self, topic: str, headers: Headers, now: float) -> float:
        """A message has arrived, of each source and topic in their order. Returns its age in seconds."""
        clock = self._clocks.get((topic, headers.source))
        if clock is None:
            return self._begin(topic, headers, now)
        if headers.seq <= clock.number:  # noted before, for another receiver; or sent by another process
            if node_of(headers.id) != clock.node:
                return self._begin(topic, headers, now)
        elif headers.time < clock.sent - SET_BACK_S:
            return self._begin(topic, headers, now)
        else:
            clock.number, clock.sent = headers.seq, headers.time
        difference = now - headers.time
        age_s = difference - clock.zero
        if age_s < SAME_S:
            clock.late = 0
            if age_s <= 0.0:
                clock.zero, clock.at = difference, now
                return 0.0
            return age_s
        return self._late(clock, difference, now)

    def age_s(self, topic: str, headers: Headers, now: float) -> float | None:
        """The age of a message that was noted when it arrived; None where its source was forgotten."""
        clock = self._clocks.get((topic, headers.source))
        return None if clock is None else max(0.0, now - headers.time - _zero(clock, now))

    def zeros(self) -> dict[tuple[str, str], float]:
        """The smallest difference of each topic and source, as it is to be handed on to another process of this machine
        (`inherit`)."""
        return {key: clock.zero for key, clock in list(self._clocks.items())}

    def inherit(self, topic: str, source: str, node: str, number: int, zero: float) -> None:
        """Begin with what another process has learned of a source, up to the message with this number. The `now` of
        both goes by the same clock."""
        self._clocks[topic, source] = _Clock(node, number, float("-inf"), zero, 0.0, zero, zero, 0.0)

    def _begin(self, topic: str, headers: Headers, now: float) -> float:
        if len(self._clocks) >= SOURCES:
            self._clocks.pop(next(iter(list(self._clocks))), None)
        zero = now - headers.time
        self._clocks[topic, headers.source] = _Clock(
            node_of(headers.id), headers.seq, headers.time, zero, now, zero, zero, now
        )
        return 0.0

    def _late(self, clock: _Clock, difference: float, now: float) -> float:
        """A message is late, or the clocks are no longer what they were."""
        if clock.late and clock.high - SAME_S < difference < clock.low + SAME_S:
            clock.low, clock.high = min(clock.low, difference), max(clock.high, difference)
            clock.late += 1
            if clock.late >= STEADY_MESSAGES and now - clock.since >= STEADY_S:
                clock.zero, clock.at = clock.low, now
        else:
            clock.low = clock.high = difference
            clock.since, clock.late = now, 1
        return max(0.0, difference - _zero(clock, now))


def _zero(clock: _Clock, now: float) -> float:
    return clock.zero + DRIFT * (now - clock.at)
