"""Replays a recording into a running session: the same bodies, in the recorded order and with the recorded timing.

Each message is a new one, with an id, a sequence number and a time of its own. Its schema (`ether/replay`) marks it as
a replay, and its first parent is the recorded message that it repeats. Messages that live classes publish because of
it name it as their parent, as usual. Its origin (`ether.wire.origin`) goes on to everything that it causes, through any
number of hops, and is refused where that could move a device, unless the replay is meant for devices.

Promises: bodies are sent as they were recorded, with their content types. Records that were added to the ledger after
the beginning of the replay are not played, so that a recorder that records the replay causes no loop. Messages that
are not sent are counted by reason. Where the session records a topic, the replay is recorded, too, with `replay_of`.

The trap: the recording contains results, too. Whoever replays inputs into live classes has to choose the inputs' topics
(`topic`); otherwise subscribers of the results receive the recorded and the new ones.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ether.connection import causes
from ether.connection.link import ExtraHeaders
from ether.errors import InvalidName
from ether.reading.data import Data, Record
from ether.runs.pacing_rules import ReplayPacing
from ether.session.client import Client
from ether.wire.head import REPLAY
from ether.wire.origin import replayed
from ether.wire.topics import OUTSIDE, check_topic

PUBLISH_TIMEOUT_S = 60.0
"""How long one message may wait for room in the send queue: at full speed the broker is slower than the ledger."""

IS_REPLAY = "replays themselves"
IS_UNREADABLE = "not to be understood"
IS_ELSEWHERE = "on topics that nobody may publish on"
IS_OUTSIDE = "on topics of other programs, which may be devices (--onto-devices)"
IS_UNHEARD = "recorded, but not sent: the broker took no more"

_AT_ONCE, _AT_ONCE_BYTES = 100, 1 << 20
"""How many messages and bytes may be on their way to the broker at once, where the replay is recorded, too."""


@dataclass(frozen=True, slots=True)
class Played:
    """The result of a replay."""

    messages: int
    topics: Mapping[str, int]
    """Number of messages that were sent, by topic."""
    skipped: Mapping[str, int]
    """Number of messages that were not sent, by reason."""
    took_s: float

    def __str__(self) -> str:
        topics = ", ".join(f"{topic} {count:,}" for topic, count in self.topics.items())
        left_out = "".join(f"; {count:,} left out: {why}" for why, count in self.skipped.items())
        return f"{self.messages:,} messages in {self.took_s:.1f} s{f' ({topics})' if topics else ''}{left_out}"


class Player:
    """Plays one recording once.

    `speed` is the number of recorded seconds that pass in one second (`math.inf`: no pauses). With `as_topic`, every
    message goes to that topic instead of its recorded one. `onto_devices`: what it causes may move devices, and topics
    of other programs are played, too. Raises `InvalidName`, `QueryMistake`."""

    def __init__(
        self, client: Client, data: Data, speed: float, as_topic: str | None = None, *, onto_devices: bool = False
    ) -> None:
        self._client = client
        self._onto_devices = onto_devices
        self._data = data.held()
        self._pace = ReplayPacing(speed)
        self._as_topic = None if as_topic is None else check_topic(as_topic)
        self._sent: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()
        self._mqtt_topics: dict[str, str | None] = {}
        self._never_set = threading.Event()
        self._began = time.monotonic()
        self._on_the_way = self._on_the_way_bytes = 0

    def play(self) -> Played:
        """Send all messages; returns when the broker has acknowledged them. Raises `PublishTimeout`,
        `TransportError`."""
        self._began = time.monotonic()
        for record in self._data:
            if (why := self._why_skipped(record)) is not None:
                self._skipped[why] += 1
                continue
            left_s = self._began + self._pace.due_s(record.time) - time.monotonic()
            if left_s > 0:
                self._never_set.wait(left_s)
            self._send(record)
        self._client.link.flush(PUBLISH_TIMEOUT_S)
        return self.played()

    def played(self) -> Played:
        """The result so far."""
        took_s = time.monotonic() - self._began
        return Played(self._sent.total(), dict(self._sent), dict(self._skipped), took_s)

    def _why_skipped(self, record: Record) -> str | None:
        if record.replay_of is not None:
            return IS_REPLAY
        if record.problem is not None:
            return IS_UNREADABLE
        topic = self._topic_of(record)
        if self._mqtt_topic(topic) is None:
            return IS_ELSEWHERE
        return IS_OUTSIDE if topic.startswith(OUTSIDE) and not self._onto_devices else None

    def _send(self, record: Record) -> None:
        topic = self._topic_of(record)
        mqtt_topic = self._mqtt_topic(topic)
        assert mqtt_topic is not None
        parents = (record.id,) if record.id else ()
        link, record_writer = self._client.link, self._client.record_writer
        extra = ExtraHeaders(schema=REPLAY, origin=replayed(causes.origin(), onto_devices=self._onto_devices))
        if record_writer is not None and record_writer.wants(topic):
            unheard = link.unheard  # counts recorded messages that the link could not send
            record_writer.publish(topic, mqtt_topic, record.body, 1, parents, {"replay_of": record.id}, extra)
            self._skipped.update({IS_UNHEARD: link.unheard - unheard} if link.unheard > unheard else {})
            self._make_room(len(record.body.payload))
        else:
            link.publish(mqtt_topic, record.body, parents=parents, extra=extra, timeout_s=PUBLISH_TIMEOUT_S)
        self._sent[topic] += 1

    def _make_room(self, sent_bytes: int) -> None:
        """Wait for the broker after a number of messages or bytes.

        Recorded publishing never waits for subscribers: when the broker falls behind, data goes to disk and is not
        sent. A replay is meant for the subscribers, so it waits for the broker instead."""
        self._on_the_way += 1
        self._on_the_way_bytes += sent_bytes
        if self._on_the_way >= _AT_ONCE or self._on_the_way_bytes >= _AT_ONCE_BYTES:
            self._client.link.flush(PUBLISH_TIMEOUT_S)
            self._on_the_way = self._on_the_way_bytes = 0

    def _topic_of(self, record: Record) -> str:
        return record.topic if self._as_topic is None else self._as_topic

    def _mqtt_topic(self, topic: str) -> str | None:
        """The MQTT topic, computed once for each topic; None where programs may not publish on it."""
        if topic not in self._mqtt_topics:
            try:
                self._mqtt_topics[topic] = self._client.topics.data(check_topic(topic))
            except InvalidName:
                self._mqtt_topics[topic] = None
        return self._mqtt_topics[topic]
