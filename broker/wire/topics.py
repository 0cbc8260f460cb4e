"""Which subscription filter matches which topic.

Promise: the rules of MQTT 3.1.1 section 4.7, wildcards and `$` included; a repeated lookup costs one dict access.
The trap: the result of a look-up is cached until *any* subscription changes, so every change must go through this
class.
"""

from typing import Generic, TypeVar

from broker.wire.packets import decoded_topic

Subscriber = TypeVar("Subscriber")
CACHED_TOPICS = 4_096  # a session uses a few hundred


def is_valid_filter(text: str) -> bool:
    """Whether a filter may be granted: no shared subscription, wildcards only as whole levels, `#` only at the end."""
    levels = text.split("/")
    if not text or "\x00" in text or text.startswith("$share/"):
        return False
    if any(("+" in level or "#" in level) and len(level) > 1 for level in levels):
        return False
    return "#" not in levels[:-1]


def matches(levels: list[str], topic: list[str]) -> bool:
    """Whether a filter matches a topic, both split at the slashes. A leading wildcard matches no `$…` topic."""
    if topic[0].startswith("$") and levels[0] in ("+", "#"):
        return False
    for position, level in enumerate(levels):
        if level == "#":
            return True
        if position >= len(topic) or level not in ("+", topic[position]):
            return False
    return len(levels) == len(topic)


class SubscriptionTable(Generic[Subscriber]):
    """The subscriptions of all sessions; a subscriber with overlapping filters is found once, with their highest QoS.

    Filters without wildcards are looked up in a dict; filters with wildcards are tried one after the other, and the
    result is cached by topic.
    """

    def __init__(self) -> None:
        self._exact: dict[str, dict[Subscriber, int]] = {}
        self._wild: dict[str, dict[Subscriber, int]] = {}
        self._cache: dict[bytes, list[tuple[Subscriber, int]]] = {}

    def add(self, text: str, subscriber: Subscriber, qos: int) -> None:
        """Enter a subscription, or replace its QoS."""
        self._of(text).setdefault(text, {})[subscriber] = qos
        self._cache.clear()

    def remove(self, text: str, subscriber: Subscriber) -> None:
        """Take a subscription out, if it is there."""
        subscribers = self._of(text).get(text, {})
        subscribers.pop(subscriber, None)
        if not subscribers:
            self._of(text).pop(text, None)
        self._cache.clear()

    def subscribers_of(self, topic: bytes) -> list[tuple[Subscriber, int]]:
        """The subscribers of a topic, each with its QoS. Raises `MalformedPacket` where the bytes are no topic."""
        found = self._cache.get(topic)
        if found is None:
            found = self._look_up(decoded_topic(topic))
            if len(self._cache) >= CACHED_TOPICS:
                self._cache.clear()
            self._cache[topic] = found
        return found

    def _look_up(self, topic: str) -> list[tuple[Subscriber, int]]:
        levels = topic.split("/")
        found = dict(self._exact.get(topic, {}))
        for text, subscribers in self._wild.items():
            if matches(text.split("/"), levels):
                for subscriber, qos in subscribers.items():
                    found[subscriber] = max(qos, found.get(subscriber, 0))
        return list(found.items())

    def _of(self, text: str) -> dict[str, dict[Subscriber, int]]:
        return self._wild if "+" in text or "#" in text else self._exact
