"""Which copy of a message counts, where several subscriptions of one client select it. Decisions only.

A broker may send a message once for each subscription that selects it (Mosquitto over MQTT 5 does). The copies of a
program without Ether have no ids, and two equal messages in a row are two messages, so nothing in them tells copies
apart. MQTT 5 can: each subscription has a number, which the broker writes into the copy. Of the subscriptions that
select a topic one counts, and the other copies are left out.

Promises: exactly one copy counts for each set of subscriptions; a copy without a number counts, as does every message
where no two subscriptions overlap. The trap: a broker may write several numbers into one copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import NamedTuple

_SUBSCRIPTION_ID = 0x0B
_REMEMBERED_TOPICS = 4096


class Numbered(NamedTuple):
    """A subscription: its number, its QoS, and whether the broker has confirmed it."""

    number: int
    qos: int
    confirmed: bool


class Copies:
    """The numbered subscriptions of one client. Not locked: `subscriptions` is replaced, never changed."""

    def __init__(self, matches: Callable[[str, str], bool], numbers_in: Callable[[bytes], frozenset[int]]) -> None:
        """`numbers_in` reads the numbers in a packet's properties."""
        self._matches, self._numbers_in = matches, numbers_in
        self.overlap = False
        """Whether any two of them overlap, so that `surplus` has to be asked."""
        self._subscriptions: Mapping[str, Numbered] = {}
        self._counting: dict[str, int] = {}
        """For each of the latest topics the number that counts; 0 where one subscription at most selects it."""

    def set(self, subscriptions: Mapping[str, Numbered]) -> None:
        """These are subscribed to from now on."""
        self._subscriptions, self._counting = dict(subscriptions), {}
        names = list(subscriptions)
        self.overlap = any(overlap(one, other) for place, one in enumerate(names) for other in names[:place])

    def surplus(self, topic: str, properties: bytes) -> bool:
        """Whether this is a copy that does not count: another one comes, or has come."""
        counting, found = self._counting, self._counting.get(topic)
        if found is None:
            found = self._find(topic)
            if len(counting) < _REMEMBERED_TOPICS:
                counting[topic] = found
        if not found:
            return False
        numbers = self._numbers_in(properties)
        return bool(numbers) and found not in numbers

    def _find(self, topic: str) -> int:
        """One that is confirmed counts, of these the best QoS, and among equals the oldest."""
        selecting = [each for name, each in self._subscriptions.items() if self._matches(name, topic)]
        best = max(selecting, key=lambda each: (each.confirmed, each.qos, -each.number), default=None)
        return 0 if best is None or len(selecting) < 2 else best.number


def overlap(one: str, other: str) -> bool:
    """Whether two filters may select the same topic."""
    for left, right in zip_longest(one.split("/"), other.split("/")):
        if "#" in (left, right):
            return True
        if left is None or right is None or not (left == right or "+" in (left, right)):
            return False
    return True


def packed_number(number: int) -> bytes:
    """The property that gives a subscription its number."""
    packed = bytearray((_SUBSCRIPTION_ID,))
    while number > 127:
        packed.append(number & 127 | 128)
        number >>= 7
    packed.append(number)
    return bytes(packed)
