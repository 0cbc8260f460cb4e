"""What a program does on the data plane: publish, and listen."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from ether.runtime import context
from ether.runtime.link import Inbound, Link
from ether.wire.topics import SessionTopics, check_topic, check_topic_filter

_REMEMBERED_TOPICS = 4096


@dataclass(frozen=True, slots=True)
class Message:
    """A message as a program receives it.

    `time` is in unix seconds at the source. `id`, `source`, `time` are None, and `parents` empty, where a stranger
    sent it (a microcontroller, `mosquitto_pub`).
    """

    topic: str
    value: object
    id: str | None
    source: str | None
    time: float | None
    parents: tuple[str, ...]


class Subscription:
    """Messages on a topic, from the moment it was made, in order. A context manager; iterating waits for ever.

    What has not been read counts as unread for the sender, too: nothing is dropped, a full queue slows it down.
    """

    def __init__(self, link: Link, topics: SessionTopics, topic: str, qos: int) -> None:
        self._link = link
        self._topics = topics
        self._filter = topics.data_filter(check_topic_filter(topic))
        self._arrived: queue.SimpleQueue[Inbound | None] = queue.SimpleQueue()
        self._receive = self._arrived.put
        self._closed = False
        link.listen(self._filter, self._receive, qos=qos)

    def get(self, timeout_s: float | None = 10.0) -> Message:
        """The next message. Raises `TimeoutError` after `timeout_s` seconds (None: never), `DecodeError` for one
        that cannot be understood, `EOFError` once closed."""
        try:
            inbound = self._arrived.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError(f"no message on {self._filter!r} within {timeout_s:g} s") from None
        if inbound is None:
            raise EOFError("the subscription was closed")
        try:
            return message_from(self._topics, inbound)
        finally:
            inbound.done()

    def __iter__(self) -> Iterator[Message]:
        while not self._closed:
            try:
                yield self.get(timeout_s=None)
            except EOFError:
                return

    def close(self) -> None:
        """Stop listening and let go of what was not read. Twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._link.unlisten(self._filter, self._receive)
        while not self._arrived.empty():
            unread = self._arrived.get()
            if unread is not None:
                unread.done()
        self._arrived.put(None)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class Client:
    """Publishing and listening by the user's own topic names."""

    def __init__(self, link: Link, topics: SessionTopics) -> None:
        self.link = link
        self.topics = topics
        self._resolved: dict[str, str] = {}

    def publish(self, value: object, topic: str, qos: int = 1) -> None:
        """Publish a value; a publish inside a handler names the handled message as its parent."""
        mqtt_topic = self._resolved.get(topic) or self._resolve(topic)
        self.link.publish(mqtt_topic, value, qos=qos, parents=context.parents())

    def _resolve(self, topic: str) -> str:
        """Checked once for each topic; a program that invents topics without end fills no memory."""
        mqtt_topic = self.topics.data(check_topic(topic))
        if len(self._resolved) < _REMEMBERED_TOPICS:
            self._resolved[topic] = mqtt_topic
        return mqtt_topic

    def subscribe(self, topic: str, qos: int = 1) -> Subscription:
        """Listen to a topic (wildcards allowed); returns when the broker has confirmed."""
        return Subscription(self.link, self.topics, topic, qos)


def message_from(topics: SessionTopics, inbound: Inbound) -> Message:
    """Decode; raises `DecodeError`."""
    unpacked = inbound.unpack()
    topic = topics.user_topic(inbound.delivery.topic)
    head = unpacked.headers
    if head is None:
        return Message(topic, unpacked.value, None, None, None, ())
    return Message(topic, unpacked.value, head.id, head.source, head.time, head.parents)
