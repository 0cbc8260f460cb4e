"""Which receivers a retained message of users' is for. Decisions only.

A broker sends what it has retained once for each subscription that selects the topic, whatever the version of MQTT.
Where several subscriptions of a process do, the same message comes several times, and a command among them would be
carried out as often.

Promises: each receiver gets the first copy that comes when it listens, and no further copy that one of the
subscriptions explains. What differs from the copy before, and what comes oftener than there are subscriptions, is a
message of its own. The trap: after a reconnect the broker sends everything once more. What was published meanwhile is
among it, so it counts again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

from ether.wire.topics import matches

R = TypeVar("R", bound=Hashable)

_REMEMBERED_TOPICS = 4096


@dataclass(slots=True)
class _Told:
    """A retained message, how many copies of it have come, and which receivers have it."""

    payload: bytes
    copies: int = 0
    receivers: set[Hashable] = field(default_factory=set)


class RetainedOnce:
    """The subscriptions of one connection. Not locked."""

    def __init__(self, matches: Callable[[str, str], bool] = matches) -> None:
        self._matches = matches
        self._subscribed: Counter[str] = Counter()
        """How often each filter was subscribed to."""
        self._told: dict[str, _Told] = {}

    def subscribes(self, topic_filter: str) -> None:
        """A filter is about to be subscribed to."""
        self._subscribed[topic_filter] += 1

    def unsubscribes(self, topic_filter: str) -> None:
        """A filter is subscribed to no longer."""
        self._subscribed.pop(topic_filter, None)

    def went_down(self) -> None:
        """The connection was lost. With the next one each filter is subscribed to once."""
        self._subscribed = Counter(dict.fromkeys(self._subscribed, 1))
        self._told = {}

    def fresh(self, topic: str, payload: bytes, receivers: tuple[R, ...]) -> tuple[R, ...]:
        """Of the receivers of a retained message those that it is for."""
        copies = sum(times for name, times in self._subscribed.items() if self._matches(name, topic))
        told = self._told.get(topic)
        if told is None or told.payload != payload or told.copies >= copies:
            if len(self._told) >= _REMEMBERED_TOPICS:
                self._told.clear()
            told = self._told[topic] = _Told(payload)
        found = tuple(receiver for receiver in receivers if receiver not in told.receivers)
        told.copies += 1
        told.receivers.update(found)
        return found
