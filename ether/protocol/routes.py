"""Which receivers a topic has. Pure: filters in, receivers out.

Filters are matched once for each topic, and the result is cached, because a lab has few topics and many messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ether.protocol.topic_cache import TopicCache

T = TypeVar("T")


class Routes(Generic[T]):
    """Topic filters and their receivers. Not locked: change it and read it under the owner's lock, or copy."""

    def __init__(self, matches: Callable[[str, str], bool]) -> None:
        self._matches = matches
        self._receivers: dict[str, list[T]] = {}
        self._found: TopicCache[tuple[T, ...]] = TopicCache()  # a foreign client may invent topics without end

    def add(self, topic_filter: str, receiver: T) -> bool:
        """Add a receiver; True where it is the filter's first (the filter must be subscribed)."""
        receivers = self._receivers.setdefault(topic_filter, [])
        receivers.append(receiver)
        self._found = TopicCache()
        return len(receivers) == 1

    def remove(self, topic_filter: str, receiver: T) -> bool:
        """Remove a receiver; True where it was the filter's last (the filter must be unsubscribed)."""
        receivers = self._receivers.get(topic_filter, [])
        if receiver not in receivers:
            return False
        receivers.remove(receiver)
        self._found = TopicCache()
        if receivers:
            return False
        del self._receivers[topic_filter]
        return True

    def match(self, topic: str) -> tuple[T, ...]:
        """The receivers of a topic, each once, in the order in which they were added."""
        found = self._found.get(topic)
        if found is None:
            found = self._search(topic)
            self._found.remember(topic, found)
        return found

    def _search(self, topic: str) -> tuple[T, ...]:
        found: dict[int, T] = {}
        for topic_filter, receivers in list(self._receivers.items()):
            if topic_filter == topic or self._matches(topic_filter, topic):
                found.update((id(receiver), receiver) for receiver in receivers)
        return tuple(found.values())
