"""Passive capture: what a recorder takes from the session by listening. Foreign messages (of programs that are not
Ether's), log records, changes of state.

Ether's own messages come through the outboxes of their sources. Their copies arrive here, too, and are dropped before
they are decoded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile, zip_longest

from ether.connection.link import Inbound, Link, TakeNow
from ether.errors import PayloadError
from ether.log import get_ether_logger
from ether.protocol.presence import is_notice
from ether.recording.receipt_rules import wanted
from ether.system.clock import wall_time
from ether.wire.codec import encode
from ether.wire.entries import Entry, Kind
from ether.wire.envelope import looks_like_ethers
from ether.wire.head import MessageIds
from ether.wire.topics import OUTSIDE, SessionTopics, matches

logger = get_ether_logger("Ether")

FOREIGN = "mqtt"
"""The source of messages without Ether's headers."""

Keep = Callable[[tuple[str, Entry]], object]
"""Takes a source and an entry; only queues them."""

_OF_STATES = ("name", "state", "birth", "error")
_ABOUT_STATES = ("class", "class_path", "host", "pid", "epoch", "kind")


class PassiveCapture:
    """Listens from its construction until `close()`."""

    def __init__(
        self,
        link: Link,
        topics: SessionTopics,
        filters: Sequence[str] | None,
        keep: Keep,
        *,
        logs: bool,
        strangers: bool = True,
    ) -> None:
        """`filters` of users' topics; None: all of the session's own. Without `strangers` it listens only to topics
        outside of the session: every sender inside has an outbox."""
        self._link, self._topics, self._keep = link, topics, keep
        self._ids = MessageIds(int.from_bytes(os.urandom(6), "big"))
        self._filters = filters
        self._listening: list[tuple[str, TakeNow]] = []
        on_data = self._on_data
        for topic_filter in self._data_filters(strangers):
            # QoS 0: nearly all of it is Ether's own and is dropped; acknowledging each would cost more than that.
            self._listen(topics.data_filter(topic_filter), on_data, qos=0)
        if logs:
            self._listen(topics.log("+"), partial(self._on_fact, "log"))
            self._listen(topics.state("+"), partial(self._on_fact, "state"))

    def _data_filters(self, strangers: bool) -> Sequence[str]:
        every = ("#",) if self._filters is None else disjoint(self._filters)
        return every if strangers else [one for one in every if one.startswith(OUTSIDE)]

    def _listen(self, topic_filter: str, take: TakeNow, qos: int = 1) -> None:
        self._listening.append((topic_filter, take))
        self._link.listen(topic_filter, take, now=take, qos=qos)

    def close(self) -> None:
        """End listening."""
        for topic_filter, take in self._listening:
            self._link.unlisten(topic_filter, take)
        self._listening = []

    def _on_data(self, inbound: Inbound) -> bool:
        """On the transport's thread."""
        delivery = inbound.delivery
        if not looks_like_ethers(delivery.payload, delivery.properties):
            topic = self._topics.user_topic(delivery.topic)
            if wanted(self._filters, topic, matches):
                self._put(FOREIGN, "data", topic, delivery.payload, (), wall_time(), None)
        inbound.done()
        return True

    def _on_fact(self, kind: Kind, inbound: Inbound) -> bool:
        try:
            value = inbound.unpack().value
        except PayloadError as error:
            logger.debug("a %s that is not recorded, because it cannot be read: %s", kind, error)
            return True
        finally:
            inbound.done()
        source = inbound.delivery.topic.rpartition("/")[2]
        if isinstance(value, dict) and not is_notice(value):
            self._keep_fact(kind, source, value)
        return True

    def _keep_fact(self, kind: Kind, source: str, value: dict[str, object]) -> None:
        stated = value.get("time")
        when = float(stated) if isinstance(stated, (int, float)) else wall_time()
        cause = value.get("message_id")
        if kind == "state":
            about = value.get("about")
            known = about if isinstance(about, dict) else {}
            value = {key: value.get(key) for key in _OF_STATES} | {key: known.get(key) for key in _ABOUT_STATES}
        body = encode(value)
        parents = (cause,) if isinstance(cause, str) else ()
        self._put(source, kind, source, body.payload, parents, when, body.content_type)

    def _put(
        self, source: str, kind: Kind, topic: str, payload: bytes, parents: tuple[str, ...], when: float,
        content_type: str | None,
    ) -> None:  # fmt: skip
        entry_id = self._ids.next(int(when * 1000))
        self._keep((source, Entry(0, kind, topic, entry_id, 0, when, parents, "", content_type, payload)))


def disjoint(filters: Sequence[str]) -> list[str]:
    """Filters of which no two cover the same topic, and which together cover at least the same topics: a broker may
    send a message once for each filter that covers it."""
    # A new filter is merged with each one that it overlaps; the union may overlap others, so it is compared again.
    found: list[str] = []
    for new in filters:
        while other := next((known for known in found if _overlap(known, new)), None):
            found.remove(other)
            new = _union(other, new)
        found.append(new)
    return found


def _overlap(one: str, other: str) -> bool:
    """Whether two filters may cover the same topic."""
    for left, right in zip_longest(one.split("/"), other.split("/")):
        if "#" in (left, right):
            return True
        if left is None or right is None or (left != right and "+" not in (left, right)):
            return False
    return True


def _union(one: str, other: str) -> str:
    """The filter that covers the other, where one does; otherwise the common beginning, with `#`."""
    if matches(one, other):
        return one
    if matches(other, one):
        return other
    common = [
        left
        for left, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one.split("/"), other.split("/"), strict=False))
    ]
    return "/".join([*common, "#"])
