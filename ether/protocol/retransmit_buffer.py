"""What a process has published of late, to be sent again to a receiver that missed it.

Brokers' queues are never relied on: what a broker took and then lost, or dropped for a receiver that was cut off, is
still here, at its source. Promise: of every number that was given on a topic the history can say one of three things:
here is the message; it went out at QoS 0, where a loss is allowed; or it is older than what is kept.

How QoS 0 is told from QoS 1, which count with the same numbers, costs nothing: only QoS 1 is noted, and forgotten in
the order of sending. So a number above the last that was forgotten on its topic, and not here, was QoS 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

KEEP_COUNT = 10_000
"""As many as a sender's own queue holds: a receiver that is back when the sender is has missed no more than that, or
two minutes of 80 messages a second."""

KEEP_BYTES = 32 << 20
"""Memory that every process can spare, ten instances on a Raspberry Pi included."""

KEEP_S = 120.0
"""Longer than a restart of a broker, a router or a Raspberry Pi's network takes."""

ANSWER_COUNT, ANSWER_BYTES = 500, 8 << 20
"""What is sent again at once, before the receiver asks on: less than a mosquitto with its defaults queues (1,000)."""


_SNAPSHOTS = 100


class SentMessage(NamedTuple):
    """One message as it left. `time` is of any steady clock."""

    time: float
    topic: str
    sequence: int
    payload: bytes
    properties: bytes


MOST_ON_THE_WAY_S = 30.0
GUESSED_ON_THE_WAY_S = 2.0


@dataclass(frozen=True, slots=True)
class Ask:
    """What a receiver asks for. `last`: for each topic the last number that it has of each node. `holes`: numbers above
    the first and up to the second. `filters`: for how many seconds it has listened to each; on a topic that it does
    not name it has missed all that was sent since then."""

    by: str
    last: Mapping[str, Mapping[str, int]]
    filters: Mapping[str, float]
    holes: Mapping[str, tuple[int, int]]

    def to_value(self) -> dict[str, Any]:
        """As it is published."""
        holes = {topic: list(hole) for topic, hole in self.holes.items()}
        return {"by": self.by, "last": dict(self.last), "filters": dict(self.filters), "holes": holes}

    @classmethod
    def from_value(cls, value: object) -> Ask | None:
        """As it was received; None for what is not one."""
        match value:
            case {"by": str(by), "last": dict(last), "filters": dict(filters), "holes": dict(holes)}:
                pairs = {topic: _pair(hole) for topic, hole in holes.items()}
                ages = {name: float(age) for name, age in filters.items() if isinstance(age, int | float)}
                heard = {topic: _numbers(nodes) for topic, nodes in last.items()}
                return cls(by, heard, ages, {topic: pair for topic, pair in pairs.items() if pair is not None})
        return None

    def older(self, seconds: float) -> Ask:
        """The same question after so long on its way: what happened before it was asked is that much longer ago."""
        return replace(self, filters={name: age_s + seconds for name, age_s in self.filters.items()})


def seconds_on_the_way(asked: object, now: float) -> float:
    """How long a question took, by the clocks of two machines, in unix seconds. Where they do not agree it is a guess
    that is rather too long: a message too many from before one listened is better than one that is missing."""
    took = now - asked if isinstance(asked, int | float) else -1.0
    return took if 0 <= took <= MOST_ON_THE_WAY_S else GUESSED_ON_THE_WAY_S


@dataclass(frozen=True, slots=True)
class Resent:
    """What the answer to a question says of one topic. Of the numbers above `after` and up to `head` the `messages` are
    sent again, those in `unconfirmed` (ranges, both ends included) went out at QoS 0, and those up to `gone` are older
    than what is kept. Above `head`, up to `total`, the receiver may ask on."""

    topic: str
    after: int
    gone: int
    head: int
    total: int
    unconfirmed: Sequence[tuple[int, int]]
    messages: Sequence[SentMessage] = ()

    def to_value(self) -> dict[str, Any]:
        """As it is published behind the messages."""
        ranges = [list(pair) for pair in self.unconfirmed]
        numbers = {"after": self.after, "gone": self.gone, "head": self.head, "total": self.total}
        return {**numbers, "unconfirmed": ranges}

    @classmethod
    def from_value(cls, topic: str, value: object) -> Resent | None:
        """As it was received; None for what is not one."""
        match value:
            case {"after": int(a), "gone": int(g), "head": int(h), "total": int(t), "unconfirmed": list(ranges)}:
                pairs = [pair for pair in map(_pair, ranges) if pair is not None]
                return cls(topic, a, g, h, t, sorted(pairs))
        return None


def _pair(value: object) -> tuple[int, int] | None:
    match value:
        case [int(first), int(last)]:
            return first, last
    return None


def _numbers(value: object) -> dict[str, int]:
    return {key: number for key, number in value.items() if type(number) is int} if isinstance(value, dict) else {}


class RetransmitBuffer:
    """The latest QoS 1 messages of one process on the data plane; `now` in seconds of a steady clock.

    One thread at a time notes, and answers may be asked for meanwhile: no lock, which would cost each message more than
    all the rest. An answer of a moment before is as good."""

    def __init__(self, *, count: int = KEEP_COUNT, size: int = KEEP_BYTES, age_s: float = KEEP_S) -> None:
        self._count, self._size, self._age_s = count, size, age_s
        self._kept: deque[tuple[float, str, int, bytes, bytes]] = (
            deque()
        )  # a SentMessage takes four times as long to make
        self._bytes = 0
        self._heads: dict[str, int] = {}
        self._gone: dict[str, tuple[int, float]] = {}

    def note(self, topic: str, sequence: int, payload: bytes, properties: bytes, now: float) -> None:
        """A message has left at QoS 1. Runs for each one."""
        kept = self._kept
        kept.append((now, topic, sequence, payload, properties))
        self._heads[topic] = sequence
        self._bytes += len(payload) + len(properties)
        if len(kept) > self._count or self._bytes > self._size or now - kept[0][0] > self._age_s:
            self._forget(now)

    def pass_over(self, topic: str, sequence: int, payload: bytes, properties: bytes, now: float) -> None:
        """A message has left that cannot be sent again."""
        self._heads[topic] = sequence
        self._gone[topic] = sequence, now

    def _forget(self, now: float) -> None:
        kept, size, since = self._kept, self._bytes, now - self._age_s
        while kept and (len(kept) > self._count or size > self._size or kept[0][0] < since):
            time, topic, sequence, payload, properties = kept.popleft()
            size -= len(payload) + len(properties)
            self._gone[topic] = sequence, time
        self._bytes = size

    def _latest(self) -> list[SentMessage]:
        """What is kept, as of now: whoever publishes goes on publishing meanwhile."""
        for _ in range(_SNAPSHOTS):
            try:
                return [SentMessage._make(message) for message in list(self._kept)]
            except RuntimeError:  # where no interpreter lock makes the copy in one step
                continue
        return []

    def heads(self) -> dict[str, int]:
        """The number of the last message on each topic."""
        return dict(self._heads)

    def answer(self, ask: Ask, node: str, matches: Callable[[str, str], bool], now: float) -> list[Resent]:
        """What `ask` means for this process, whose node this is; within what may be sent at once."""
        kept = self._latest()
        wanted = dict(self._wanted(ask, node, matches, kept, now))
        by_topic: dict[str, list[SentMessage]] = {topic: [] for topic in wanted}
        for message in kept:
            if message.topic in by_topic and wanted[message.topic][0] < message.sequence <= wanted[message.topic][1]:
                by_topic[message.topic].append(message)
        count, size, answers = ANSWER_COUNT, ANSWER_BYTES, []
        for topic, (after, upto) in wanted.items():
            sent = _first(by_topic[topic], count, size)
            count -= len(sent)
            size -= sum(len(message.payload) for message in sent)
            answers.append(self._resent(topic, after, upto, sent, cut=len(sent) < len(by_topic[topic])))
        return answers

    def _wanted(
        self, ask: Ask, node: str, matches: Callable[[str, str], bool], kept: Sequence[SentMessage], now: float
    ) -> Iterable[tuple[str, tuple[int, int]]]:
        """Topics, with the numbers that are asked for: above the first, up to the second."""
        for topic, (after, upto) in ask.holes.items():
            yield topic, (after, upto)
        heads = self.heads()
        for topic, nodes in ask.last.items():
            if node in nodes and topic not in heads and topic not in ask.holes:
                yield topic, (nodes[node], nodes[node])  # all of it was QoS 0: a sign of life
        for topic, head in heads.items():
            ages = [age for name, age in ask.filters.items() if topic not in ask.holes and matches(name, topic)]
            if ages:
                last = ask.last.get(topic, {}).get(node)
                yield topic, (self._before(topic, now - max(ages), kept, head) if last is None else last, head)

    def _before(self, topic: str, since: float, kept: Sequence[SentMessage], head: int) -> int:
        """The number before the first message that was sent since then."""
        gone, time = self._gone.get(topic, (0, since - 1.0))
        if time >= since:
            return gone - 1
        return next((m.sequence - 1 for m in kept if m.topic == topic and m.time >= since), head)

    def _resent(self, topic: str, after: int, upto: int, sent: Sequence[SentMessage], *, cut: bool) -> Resent:
        gone = min(upto, self._gone.get(topic, (0, 0.0))[0])
        head = (sent[-1].sequence if sent else max(after, gone)) if cut else max(after, upto)
        unconfirmed, expected = [], max(after, gone) + 1
        for number in [*(message.sequence for message in sent), head + 1]:
            if number > expected:
                unconfirmed.append((expected, number - 1))
            expected = max(expected, number + 1)
        return Resent(topic, after, gone, head, max(after, upto), unconfirmed, sent)


def _first(messages: Sequence[SentMessage], count: int, size: int) -> Sequence[SentMessage]:
    """As many from the front as may be sent at once."""
    for index, message in enumerate(messages):
        size -= len(message.payload)
        if index >= count or (size < 0 and index):
            return messages[:index]
    return messages if count > 0 else messages[:0]
