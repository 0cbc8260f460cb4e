"""What was found out about topics, remembered: bounded by bytes, and without a cliff where there are more topics.

A cache that is emptied when it is full, or forgets its oldest entry, has nothing left of topics that come in turn, as
soon as there is one more than it holds: each message is then the first of its topic. This one keeps what it has, so
that of twice as many topics half are found. It begins anew once it has not found so many that what it has must be of
yesterday.
"""

from __future__ import annotations

from typing import TypeVar

V = TypeVar("V")

MOST_BYTES = 2 << 20
ENTRY_BYTES = 150
"""What an entry costs beside the text of its topic: about 10,000 topics of ordinary length are remembered."""
PATIENCE = 4
"""So many times as many misses as there are entries, and the cache begins anew."""


class TopicCache(dict[str, V]):
    """Values by topic. Read it as any dict, and write with `remember` alone. Not locked: of two threads that write at
    the same moment each may count for itself."""

    __slots__ = ("_bytes", "_missed")

    def __init__(self) -> None:
        super().__init__()
        self._bytes = self._missed = 0

    def remember(self, topic: str, value: V) -> None:
        """Keep a value, if there is room. A topic of other characters than ASCII costs up to four times as much."""
        cost = ENTRY_BYTES + (len(topic) if topic.isascii() else 4 * len(topic))
        if self._bytes + cost > MOST_BYTES:
            self._missed += 1
            if self._missed < PATIENCE * len(self):
                return
            self.clear()
            self._bytes = self._missed = 0
        self[topic] = value
        self._bytes += cost
