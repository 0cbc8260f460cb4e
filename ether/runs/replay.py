"""Sends a recording into a running session: the same bodies, in the recorded order and rhythm.

Each message is a new one, with an id, a number and a time of its own, and says by its schema (`ether/replay`) and its
first parent which recorded one it repeats. What live classes make of it names it as their parent, as ever.

Promises: bodies go out as they were kept, with their content types; what was added to the ledger since the beginning is
not played, so a recorder that records the replay feeds nothing back; what is not sent is counted, with why. Where the
session records a topic, the replay is recorded, too, with `replay_of`. The trap: results in the recording are messages,
too. Play the inputs (`topic`), or those who listen to results hear both.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ether.connection.link import ExtraHeaders
from ether.errors import InvalidName
from ether.reading.data import Data, Record
from ether.runs.pacing_rules import ReplayPacing
from ether.session.client import Client
from ether.wire.head import REPLAY
from ether.wire.topics import check_topic

PUBLISH_TIMEOUT_S = 60.0
"""How long one message may wait for room: at full speed the broker is the slower one."""

IS_REPLAY = "replays themselves"
IS_UNREADABLE = "not to be understood"
IS_ELSEWHERE = "on topics that nobody may publish on"
IS_UNHEARD = "recorded, but not sent: the broker took no more"

_AT_ONCE, _AT_ONCE_BYTES = 100, 1 << 20
"""How much may be on its way to the broker, where it is recorded, too."""


@dataclass(frozen=True, slots=True)
class Played:
    """What was sent."""

    messages: int
    topics: Mapping[str, int]
    """How many on each topic."""
    skipped: Mapping[str, int]
    """What was not sent: why, and how many."""
    took_s: float

    def __str__(self) -> str:
        topics = ", ".join(f"{topic} {count:,}" for topic, count in self.topics.items())
        left_out = "".join(f"; {count:,} left out: {why}" for why, count in self.skipped.items())
        return f"{self.messages:,} messages in {self.took_s:.1f} s{f' ({topics})' if topics else ''}{left_out}"


class Player:
    """Plays one recording once. `speed` is how many recorded seconds pass in one; `as_topic` takes the place of every
    recorded topic. Raises `InvalidName`, `QueryMistake`."""

    def __init__(self, client: Client, data: Data, speed: float, as_topic: str | None = None) -> None:
        self._client = client
        self._data = data.held()
        self._pace = ReplayPacing(speed)
        self._as_topic = None if as_topic is None else check_topic(as_topic)
        self._sent: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()
        self._mqtt_topics: dict[str, str | None] = {}
        self._never = threading.Event()
        self._began = time.monotonic()
        self._on_the_way = self._on_the_way_bytes = 0

    def play(self) -> Played:
        """Send everything; returns when the broker has acknowledged it. Raises `PublishTimeout`, `TransportError`."""
        self._began = time.monotonic()
        for record in self._data:
            if (why := self._why_not(record)) is not None:
                self._skipped[why] += 1
                continue
            left_s = self._began + self._pace.due_s(record.time) - time.monotonic()
            if left_s > 0:
                self._never.wait(left_s)
            self._send(record)
        self._client.link.flush(PUBLISH_TIMEOUT_S)
        return self.played()

    def played(self) -> Played:
        """What was sent so far."""
        took_s = time.monotonic() - self._began
        return Played(self._sent.total(), dict(self._sent), dict(self._skipped), took_s)

    def _why_not(self, record: Record) -> str | None:
        if record.replay_of is not None:
            return IS_REPLAY
        if record.problem is not None:
            return IS_UNREADABLE
        return IS_ELSEWHERE if self._mqtt_topic(self._topic_of(record)) is None else None

    def _send(self, record: Record) -> None:
        topic = self._topic_of(record)
        mqtt_topic = self._mqtt_topic(topic)
        assert mqtt_topic is not None
        parents = (record.id,) if record.id else ()
        link, record_writer = self._client.link, self._client.record_writer
        if record_writer is not None and record_writer.wants(topic):
            unheard = link.unheard
            record_writer.publish(topic, mqtt_topic, record.body, 1, parents, {"replay_of": record.id}, schema=REPLAY)
            self._skipped.update({IS_UNHEARD: link.unheard - unheard} if link.unheard > unheard else {})
            self._make_room(len(record.body.payload))
        else:
            extra = ExtraHeaders(schema=REPLAY)
            link.publish(mqtt_topic, record.body, parents=parents, extra=extra, timeout_s=PUBLISH_TIMEOUT_S)
        self._sent[topic] += 1

    def _make_room(self, sent_bytes: int) -> None:
        """What is recorded is never held up by who listens. Here it shall be, or who listens would miss some of it."""
        self._on_the_way += 1
        self._on_the_way_bytes += sent_bytes
        if self._on_the_way >= _AT_ONCE or self._on_the_way_bytes >= _AT_ONCE_BYTES:
            self._client.link.flush(PUBLISH_TIMEOUT_S)
            self._on_the_way = self._on_the_way_bytes = 0

    def _topic_of(self, record: Record) -> str:
        return record.topic if self._as_topic is None else self._as_topic

    def _mqtt_topic(self, topic: str) -> str | None:
        """Checked once for each topic; None where nobody may publish there."""
        if topic not in self._mqtt_topics:
            try:
                self._mqtt_topics[topic] = self._client.topics.data(check_topic(topic))
            except InvalidName:
                self._mqtt_topics[topic] = None
        return self._mqtt_topics[topic]
