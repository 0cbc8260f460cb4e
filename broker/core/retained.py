"""The retained messages of one broker.

Promise: at most one a topic, within a bound of bytes; an expired one is never given out, and does not stay in memory.
"""

from collections.abc import Iterator

from broker.core.timers import Timer, Timers
from broker.wire.message import ApplicationMessage
from broker.wire.topics import TopicTree


class RetainedMessages:
    """Messages by topic."""

    def __init__(self, timers: Timers, limit_bytes: int) -> None:
        self._timers, self._limit_bytes = timers, limit_bytes
        self._tree: TopicTree[ApplicationMessage] = TopicTree()
        self._bytes = 0
        self._ends: dict[bytes, Timer] = {}

    def put(self, message: ApplicationMessage) -> bool:
        """Retain a message, or clear its topic where it has no payload; False where there is no room for it."""
        before = self._tree.get(message.topic)
        freed = 0 if before is None else _size(before)
        if not message.payload_bytes:
            self._forget_end(message.topic)
            self._tree.remove(message.topic)
            self._bytes -= freed
            return True
        if self._bytes - freed + _size(message) > self._limit_bytes:
            return False
        self._bytes += _size(message) - freed
        self._forget_end(message.topic)
        self._tree.put(message.topic, message)
        if message.expires_at is not None:
            self._ends[message.topic] = self._timers.at(message.expires_at, lambda: self._expire(message))
        return True

    def _forget_end(self, topic: bytes) -> None:
        """The message of this topic is replaced: its timer would keep it in memory until its time is over."""
        if (timer := self._ends.pop(topic, None)) is not None:
            timer.cancel()

    def under(self, text: bytes, now: float) -> Iterator[ApplicationMessage]:
        """The messages that a filter matches."""
        return (message for message in self._tree.under(text) if not message.is_expired(now))

    def _expire(self, message: ApplicationMessage) -> None:
        del self._ends[message.topic]
        self._tree.remove(message.topic)
        self._bytes -= _size(message)


def _size(message: ApplicationMessage) -> int:
    """What it costs: the message, and the levels of its topic in the tree."""
    return message.size + 400 * (1 + message.topic.count(b"/"))
