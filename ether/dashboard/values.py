"""Every topic of a session: its last value, type, rate and age; and of the numbers that somebody plots, all of them.

The transport's thread only counts and keeps the newest message of each topic. Decoding is done by `read`, on the thread
that calls it: of topics that somebody plots every message, of all others the newest one twice a second, and nothing
while nobody looks. So 1 kHz costs the page what it shows, and a camera one frame at a time.

The trap: what waits to be decoded has bounds. What falls out of them is counted, and the page says so.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from ether.connection.link import Inbound
from ether.dashboard.pictures import picture_in
from ether.dashboard.shown import number_text, table_of, text_of, type_text
from ether.errors import PayloadError
from ether.reading.plots.numbers import numbers_in
from ether.reading.plots.series import Point, Series
from ether.session.client import Client
from ether.system.clock import wall_time
from ether.wire.topics import OUTSIDE, ROOT

MOST_TOPICS = 2000
MOST_SERIES = 2000
MOST_OUTSIDE = 100
"""Filters of topics outside of the session."""
BETWEEN = "\x1f"
"""Between a topic and the place of a number in its message, in the key of a series."""
_QUEUED = 8000
_LARGE = 65_536
"""Bytes from which on only the newest message is ever decoded."""
_LOOK_S = 0.5
_SHARE = 20.0
"""At most one part in so many of the time goes into decoding one topic that nobody plots."""
_RATE_S = 10.0
_FAST_HZ = 4.0
"""From here on the rate is that of the last two seconds."""


def is_outside(topic_filter: str) -> bool:
    """Whether a user's filter is of topics outside of every session. The trap: members announce these filters, and
    `mqtt:#` or `mqtt:ether/…` would be what sessions say among themselves."""
    if not topic_filter.startswith(OUTSIDE):
        return False
    first = topic_filter[len(OUTSIDE) :].partition("/")[0]
    return first not in ("", "#", "+", ROOT.partition("/")[0])


@dataclass(slots=True)
class Topic:
    """One topic. Counters are written by the transport's thread alone."""

    name: str
    count: int = 0
    bytes: int = 0
    newest: Inbound | None = None
    at: float = 0.0
    """When the newest message came, in unix seconds."""
    waiting: deque[tuple[Inbound, float]] = field(default_factory=lambda: deque(maxlen=_QUEUED))
    watched: bool = False
    dropped: int = 0
    decoded: int = 0
    """The number of the message that was decoded last."""
    looked_at: float = 0.0
    rests_until: float = 0.0
    """What takes long to decode is decoded rarely."""
    counts: deque[tuple[float, int, int]] = field(default_factory=lambda: deque(maxlen=int(_RATE_S / _LOOK_S)))
    value: Any = None
    id: str = ""
    source: str = ""
    numbers: dict[str, float] = field(default_factory=dict)
    left_out: int = 0
    problem: str = ""
    was_hz: float = 0.0


class Values:
    """The topics of the session that a client is in."""

    def __init__(self) -> None:
        self._topics: dict[str, Topic] = {}
        self._series: dict[str, Series] = {}
        self._lock = threading.Lock()
        """Guards the series and what was decoded."""
        self._client: Client | None = None
        self._filter = ""
        self._outside: frozenset[str] = frozenset()
        self.left_out = 0
        """Messages on topics beyond `MOST_TOPICS`."""

    # -- listening

    def listen(self, client: Client) -> None:
        """Watch the session of this client from now on. What was known of an earlier one stays, with its age."""
        self._client, self._filter = client, client.topics.data_filter("#")
        client.link.listen(self._filter, self._receive, now=self._receive, qos=0)
        with self._lock:
            self._outside = frozenset()

    def listen_outside(self, filters: Iterable[str]) -> None:
        """Watch these topics outside of the session, too, those of programs without Ether: as users write them, with
        `mqtt:` in front. Others than such are passed over, and so are those beyond a bound."""
        client = self._client
        if client is None:
            return
        wanted = {each for each in filters if is_outside(each)}
        for each in sorted(wanted - self._outside)[: max(0, MOST_OUTSIDE - len(self._outside))]:
            client.link.listen(client.topics.data_filter(each), self._receive, now=self._receive, qos=0)
            with self._lock:
                self._outside |= {each}

    def _receive(self, inbound: Inbound) -> bool:
        """On the transport's thread: only count, and keep."""
        name = inbound.delivery.topic
        topic = self._topics.get(name)
        if topic is None:
            topic = self._new(name)
        if topic is not None:
            now, size = wall_time(), len(inbound.delivery.payload)
            topic.count += 1
            topic.bytes += size
            topic.newest, topic.at = inbound, now
            if topic.watched and size < _LARGE:
                if len(topic.waiting) == _QUEUED:
                    topic.dropped += 1
                topic.waiting.append((inbound, now))
        inbound.done()
        return True

    def _new(self, mqtt_topic: str) -> Topic | None:
        if len(self._topics) >= MOST_TOPICS or self._client is None:
            self.left_out += 1
            return None
        name = self._client.topics.user_topic(mqtt_topic)
        topic = self._topics[mqtt_topic] = Topic(name, watched=name in self._plotted)
        return topic

    # -- decoding

    def watch(self, plotted: Collection[str], shown: Collection[str]) -> None:
        """Which series are plotted, and which topics are shown whole, by any browser."""
        self._plotted = frozenset(key.partition(BETWEEN)[0] for key in plotted)
        for topic in list(self._topics.values()):
            topic.watched = topic.name in self._plotted
            if not topic.watched:
                topic.waiting.clear()
        self._shown = frozenset(shown)

    _shown: frozenset[str] = frozenset()
    _plotted: frozenset[str] = frozenset()
    """The topics of the plotted series, those included that nobody has published on yet."""

    def read(self) -> list[Topic]:
        """Decode what is due; returns the topics that have changed or whose rate has to be looked at. For one thread,
        about 20 times a second."""
        now, changed = time.monotonic(), []
        for topic in list(self._topics.values()):
            for _ in range(len(topic.waiting)):  # what comes meanwhile waits for the next round: others have a turn
                try:
                    came, at = topic.waiting.popleft()
                except IndexError:  # `watch` has just emptied it
                    break
                self._decode(topic, came, at)
            due = now - topic.looked_at >= (0.1 if topic.watched or topic.name in self._shown else _LOOK_S)
            if not due:
                continue
            topic.looked_at = now
            topic.counts.append((now, topic.count, topic.bytes))
            if topic.decoded != topic.count and topic.newest is not None and now >= topic.rests_until:
                if not topic.watched or len(topic.newest.delivery.payload) >= _LARGE:
                    self._decode(topic, topic.newest, topic.at)
                    topic.rests_until = now + _SHARE * (time.monotonic() - now)
                topic.decoded = topic.count
            changed.append(topic)
        return changed

    def _decode(self, topic: Topic, inbound: Inbound, at: float) -> None:
        try:
            unpacked = inbound.unpack()
        except PayloadError as error:
            topic.problem = str(error)
            return
        head, value = unpacked.headers, unpacked.value
        sent = at if head is None or abs(head.time - at) > 5.0 else head.time
        numbers, left_out = numbers_in(value)
        with self._lock:
            topic.value, topic.problem, topic.numbers, topic.left_out = value, "", numbers, left_out
            topic.id, topic.source = (head.id, head.source) if head is not None else ("", "")
            for place, number in numbers.items():
                series = self._series_of(f"{topic.name}{BETWEEN}{place}")
                if series is not None:
                    series.add(sent, number)

    def _series_of(self, key: str) -> Series | None:
        series = self._series.get(key)
        if series is None and len(self._series) < MOST_SERIES:
            series = self._series[key] = Series()
        return series

    # -- what is shown

    def row(self, topic: Topic) -> dict[str, Any]:
        """One topic for the list."""
        hz, bytes_per_s = self._rate(topic)
        if hz > 0:
            topic.was_hz = hz
        with self._lock:
            value, numbers = topic.value, dict(topic.numbers)
            return {
                "topic": topic.name, "by": topic.source, "type": type_text(value), "text": text_of(value),
                "numbers": {place: number_text(number) for place, number in numbers.items()},
                "left_out": topic.left_out, "hz": round(hz, 2), "was_hz": round(topic.was_hz, 2),
                "bytes_per_s": round(bytes_per_s), "count": topic.count, "at": round(topic.at, 3), "id": topic.id,
                "dropped": topic.dropped, "problem": topic.problem,
                "picture": picture_in(value) is not None,
            }  # fmt: skip

    @staticmethod
    def _rate(topic: Topic) -> tuple[float, float]:
        """Messages and bytes a second: over two seconds where it is fast, over ten where it is slow."""
        counts = topic.counts
        if len(counts) < 2:
            return 0.0, 0.0
        now, last, last_bytes = counts[-1]
        recent = next((each for each in counts if now - each[0] <= 2.2), counts[-1])
        for begin in (recent, counts[0]):
            seconds = now - begin[0]
            if seconds > 0 and (begin is counts[0] or (last - begin[1]) / seconds >= _FAST_HZ):
                return (last - begin[1]) / seconds, (last_bytes - begin[2]) / seconds
        return 0.0, 0.0

    def points(self, key: str, since: float) -> list[Point]:
        """Of one series, after a moment in unix seconds."""
        with self._lock:
            series = self._series.get(key)
            if series is None:
                return []
            series.settle(wall_time())
            return series.since(since)

    def topic(self, name: str) -> Topic | None:
        """A topic by its user's name."""
        if self._client is None:
            return None
        return self._topics.get(self._client.topics.data(name))

    def table(self, name: str) -> dict[str, Any] | None:
        """The newest value of a topic as rows; None where it has none."""
        topic = self.topic(name)
        with self._lock:
            return None if topic is None else table_of(topic.value)
