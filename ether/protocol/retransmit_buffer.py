"""What a process has published lately, to be sent again to a receiver that missed it.

No part of Ether relies on a broker's queue. A message that a broker lost, or dropped for a receiver that was cut off,
is still here, at its source. Promise: of every number that was given on a topic the buffer can say one of three things:
it has the message; the message went out at QoS 0, where a loss is allowed; or it is older than what is kept.

Telling QoS 0 from QoS 1, which share one sequence of numbers, costs nothing. Only QoS 1 is noted, and the notes are
forgotten in the order of sending. So a number that is not noted, above the last forgotten one of its topic, was QoS 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

KEEP_COUNT = 10_000
"""As many as a sender's own queue holds, which is what a sender can publish during an outage of its own. At 80 messages
a second these are two minutes."""

KEEP_BYTES = 32 << 20
"""Memory that each of ten instances on a Raspberry Pi can spare."""

KEEP_S = 120.0
"""Longer than a restart of a broker, a router or a Raspberry Pi's network takes."""

ANSWER_COUNT, ANSWER_BYTES = 500, 8 << 20
"""The most that is sent for one question; the receiver then asks for the rest. Less than the 1,000 messages that a
mosquitto with default settings queues."""

MOST_ON_THE_WAY_S = 30.0
GUESSED_ON_THE_WAY_S = 2.0
"""A question's time on the way, by the clocks of two machines: the most that is believed, and what is assumed else."""

_SNAPSHOTS = 100
"""How often a copy of the buffer is tried, where another thread may change it meanwhile."""


class SentMessage(NamedTuple):
    """One message as it left. `time` is in seconds of a steady clock."""

    time: float
    topic: str
    sequence: int
    payload: bytes
    properties: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """A receiver's question."""

    by: str
    """The node that asks."""
    last: Mapping[str, Mapping[str, int]]
    """For each topic, the last number that the receiver has of each node."""
    filters: Mapping[str, float]
    """Topic filters, each with the seconds since when the receiver listens to it. On a topic that matches and is not in
    `last`, the receiver has missed everything since then."""
    holes: Mapping[str, tuple[int, int]]
    """For each topic a hole: the numbers above the first and up to the second."""

    def to_value(self) -> dict[str, Any]:
        """As it is published."""
        holes = {topic: list(hole) for topic, hole in self.holes.items()}
        return {"by": self.by, "last": dict(self.last), "filters": dict(self.filters), "holes": holes}

    @classmethod
    def from_value(cls, value: object) -> Ask | None:
        """Read what was received; None where it is not one."""
        match value:
            case {"by": str(by), "last": dict(last), "filters": dict(filters), "holes": dict(holes)}:
                pairs = {topic: _pair(hole) for topic, hole in holes.items()}
                ages = {name: float(age) for name, age in filters.items() if isinstance(age, int | float)}
                heard = {topic: _numbers(nodes) for topic, nodes in last.items()}
                return cls(by, heard, ages, {topic: pair for topic, pair in pairs.items() if pair is not None})
        return None

    def older(self, seconds: float) -> Ask:
        """The same question, `seconds` after it was asked: the receiver has listened for that much longer."""
        return replace(self, filters={name: age_s + seconds for name, age_s in self.filters.items()})


def seconds_on_the_way(asked: object, now: float) -> float:
    """How long a question took to arrive. `asked` is by the clock of the asking machine, `now` by this one's, both in
    unix seconds. Where the clocks cannot both be right, a long time is assumed: to send a message from before the
    receiver listened does less harm than to leave one out."""
    took = now - asked if isinstance(asked, int | float) else -1.0
    return took if 0 <= took <= MOST_ON_THE_WAY_S else GUESSED_ON_THE_WAY_S


@dataclass(frozen=True, slots=True)
class Resent:
    """The answer to a question, for one topic. It covers the numbers above `after` and up to `head`."""

    topic: str
    after: int
    gone: int
    """Numbers up to this one are older than what is kept."""
    head: int
    total: int
    """The highest number that was asked for. Where it is above `head`, the receiver asks again for the rest."""
    unconfirmed: Sequence[tuple[int, int]]
    """Ranges of numbers, both ends included, that went out at QoS 0."""
    messages: Sequence[SentMessage] = ()
    """What is sent again; travels as messages of its own, before the answer."""

    def to_value(self) -> dict[str, Any]:
        """As it is published behind the messages."""
        ranges = [list(pair) for pair in self.unconfirmed]
        numbers = {"after": self.after, "gone": self.gone, "head": self.head, "total": self.total}
        return {**numbers, "unconfirmed": ranges}

    @classmethod
    def from_value(cls, topic: str, value: object) -> Resent | None:
        """Read what was received; None where it is not one."""
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

    One thread at a time may call `note` and `pass_over`, and another one `answer` meanwhile. There is no lock, because
    it would cost each message more than the rest of `note`. An answer may therefore lack the newest message."""

    def __init__(self, *, count: int = KEEP_COUNT, size: int = KEEP_BYTES, age_s: float = KEEP_S) -> None:
        self._count, self._size, self._age_s = count, size, age_s
        # Tuples, because a SentMessage takes four times as long to make.
        self._kept: deque[tuple[float, str, int, bytes, bytes]] = deque()
        self._bytes = 0
        self._heads: dict[str, int] = {}
        self._gone: dict[str, tuple[int, float]] = {}
        """For each topic the number and time of its last message that is not kept any more."""

    def note(self, topic: str, sequence: int, payload: bytes, properties: bytes, now: float) -> None:
        """Note a message that has left at QoS 1. Called for each one."""
        kept = self._kept
        kept.append((now, topic, sequence, payload, properties))
        self._heads[topic] = sequence
        self._bytes += len(payload) + len(properties)
        if len(kept) > self._count or self._bytes > self._size or now - kept[0][0] > self._age_s:
            self._forget(now)

    def pass_over(self, topic: str, sequence: int, payload: bytes, properties: bytes, now: float) -> None:
        """Note a message that has left and cannot be sent again."""
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
        """A copy of what is kept, while another thread may go on publishing."""
        for _ in range(_SNAPSHOTS):
            try:
                return [SentMessage._make(message) for message in list(self._kept)]
            except RuntimeError:  # changed during the copy, which happens in a Python without an interpreter lock
                continue
        return []

    def heads(self) -> dict[str, int]:
        """The number of the last message on each topic."""
        return dict(self._heads)

    def answer(self, ask: Ask, node: str, matches: Callable[[str, str], bool], now: float) -> list[Resent]:
        """The answers of this process, whose node is `node`, one for each topic that `ask` concerns. All of them
        together carry no more than `ANSWER_COUNT` messages and `ANSWER_BYTES`."""
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
        """Each topic that is asked for, with its numbers: above the first, up to the second.

        A topic is asked for in one of three ways: by a hole, whose ends are known; by the last number of a topic on
        which this process has sent only QoS 0; or by a filter, which covers every topic of this process that it
        matches. A hole outweighs the others, so that no topic comes twice.
        """
        for topic, (after, upto) in ask.holes.items():
            yield topic, (after, upto)
        heads = self.heads()
        for topic, nodes in ask.last.items():
            if node in nodes and topic not in heads and topic not in ask.holes:
                # Everything there was QoS 0. The empty answer tells the receiver that this process lives.
                yield topic, (nodes[node], nodes[node])
        for topic, head in heads.items():
            ages = [age for name, age in ask.filters.items() if topic not in ask.holes and matches(name, topic)]
            if ages:
                # Without a last number, from the first message since the receiver has listened the longest.
                last = ask.last.get(topic, {}).get(node)
                yield topic, (self._before(topic, now - max(ages), kept, head) if last is None else last, head)

    def _before(self, topic: str, since: float, kept: Sequence[SentMessage], head: int) -> int:
        """The number before the first message on a topic that was sent at the time `since` or later."""
        gone, time = self._gone.get(topic, (0, since - 1.0))
        if time >= since:
            return gone - 1
        return next((m.sequence - 1 for m in kept if m.topic == topic and m.time >= since), head)

    def _resent(self, topic: str, after: int, upto: int, sent: Sequence[SentMessage], *, cut: bool) -> Resent:
        """The answer for one topic. `cut`: there is more than may be sent at once, so it ends at the last of `sent`.
        Each number between two that are sent, and above those that are gone, was QoS 0."""
        gone = min(upto, self._gone.get(topic, (0, 0.0))[0])
        head = (sent[-1].sequence if sent else max(after, gone)) if cut else max(after, upto)
        unconfirmed, expected = [], max(after, gone) + 1
        for number in [*(message.sequence for message in sent), head + 1]:
            if number > expected:
                unconfirmed.append((expected, number - 1))
            expected = max(expected, number + 1)
        return Resent(topic, after, gone, head, max(after, upto), unconfirmed, sent)


def _first(messages: Sequence[SentMessage], count: int, size: int) -> Sequence[SentMessage]:
    """As many messages from the front as may be sent at once; the first one whatever its size."""
    for index, message in enumerate(messages):
        size -= len(message.payload)
        if index >= count or (size < 0 and index):
            return messages[:index]
    return messages if count > 0 else messages[:0]
