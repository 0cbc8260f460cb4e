"""What a process has published lately, to be sent again to a receiver that missed it or fell behind.

No part of Ether relies on a broker's queue. A message that a broker lost, or dropped for a receiver that was cut off or
slow, is still here, at its source. Promise: of every number that was given on a topic the buffer can say one of three
things: it has the message; the message went out at QoS 0, where a loss is allowed; or it is older than what is kept.

Telling QoS 0 from QoS 1, which share one sequence of numbers, costs nothing. Only QoS 1 is noted, and the notes are
forgotten in the order of sending. So a number that is not noted, above the last forgotten one of its topic, was QoS 0.
The messages themselves are in `ether.protocol.sent_log`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ether.protocol.sent_log import Dropped, KeepLimits, SentLog, SentMessage, Spill

KEEP_COUNT = 10_000
"""As many as a sender's own queue holds, which is what a sender can publish during an outage of its own. At 80 messages
a second these are two minutes."""

KEEP_BYTES = 16 << 20
"""Memory that each of ten instances on a Raspberry Pi can spare. It is for readers that nobody knows yet: what a known
one lacks, also while its connection is away, is kept beyond it."""

KEEP_S = 120.0
"""Longer than a restart of a broker, a router or a Raspberry Pi's network takes."""

YOUNG_S = 2.0
"""Longer than a reader takes to say that it is there, and how far it is."""

BACKLOG_BYTES, BACKLOG_MEMORY_BYTES = 256 << 20, 8 << 20
"""What is kept beyond these for readers that are behind, and how much of it in memory. At 15 pictures of 0.9 MB a
second, of which a reader takes half, 256 MB are 38 s."""

ANSWER_COUNT, ANSWER_BYTES = 500, 8 << 20
"""The most that is sent for one question; the receiver then asks for the rest. Less than the 1,000 messages that a
mosquitto with default settings queues."""

MOST_ON_THE_WAY_S = 30.0
GUESSED_ON_THE_WAY_S = 2.0
"""A question's time on the way, by the clocks of two machines: the most that is believed, and what is assumed else."""


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

    def with_earlier(self, earlier: Ask) -> Ask:
        """One question for two of the same reader that name only holes. Of two holes of one topic the later begins
        behind the other: what is before it has arrived."""
        both = {topic: max(hole, earlier.holes.get(topic, hole)) for topic, hole in self.holes.items()}
        return replace(self, holes={**earlier.holes, **both})

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
    latest: int = 0
    """The number of the last message on the topic; 0 where the source does not say."""

    def to_value(self) -> dict[str, Any]:
        """As it is published behind the messages."""
        ranges = [list(pair) for pair in self.unconfirmed]
        numbers = {
            "after": self.after, "gone": self.gone, "head": self.head, "total": self.total, "latest": self.latest,
        }  # fmt: skip
        return {**numbers, "unconfirmed": ranges}

    @classmethod
    def from_value(cls, topic: str, value: object) -> Resent | None:
        """Read what was received; None where it is not one."""
        match value:
            case {"after": int(a), "gone": int(g), "head": int(h), "total": int(t), "unconfirmed": list(ranges)}:
                pairs = [pair for pair in map(_pair, ranges) if pair is not None]
                latest = value.get("latest") if isinstance(value, dict) else None
                return cls(topic, a, g, h, t, sorted(pairs), latest=latest if type(latest) is int else 0)
        return None


def _pair(value: object) -> tuple[int, int] | None:
    match value:
        case [int(first), int(last)]:
            return first, last
    return None


def _numbers(value: object) -> dict[str, int]:
    return {key: number for key, number in value.items() if type(number) is int} if isinstance(value, dict) else {}


class RetransmitBuffer:
    """The latest QoS 1 messages of one process on the data plane, and what its readers are behind; `now` in seconds of
    a steady clock.

    One thread at a time may call `note` and `pass_over`, and one at a time everything else meanwhile."""

    def __init__(
        self, *, count: int = KEEP_COUNT, size: int = KEEP_BYTES, age_s: float = KEEP_S,
        backlog_bytes: int = BACKLOG_BYTES, memory_bytes: int = BACKLOG_MEMORY_BYTES, young_s: float = 0.0,
        spill: Spill | None = None, began: float = float("-inf"),
    ) -> None:  # fmt: skip
        """The limits are those of `KeepLimits`. `began`: nothing was sent before that time."""
        self._began = began
        self._log = SentLog(KeepLimits(count, size, age_s, backlog_bytes, memory_bytes, young_s), spill)
        self._floors: Mapping[str, int] = {}
        self.note = self._log.note
        """Notes a message that has left at QoS 1; called for each one."""
        self.pass_over = self._log.pass_over
        """Notes a message that has left and cannot be sent again."""
        self._refused: dict[tuple[str, int], None] = {}
        """Messages that the broker will never take. Replaced, never changed: another thread may read it."""

    def refuse(self, topic: str, sequence: int) -> None:
        """The broker will never take this message: an answer says that it went out at QoS 0."""
        refused = {**self._refused, (topic, sequence): None}
        while len(refused) > KEEP_COUNT:
            del refused[next(iter(refused))]
        self._refused = refused

    def heads(self) -> dict[str, int]:
        """The number of the last message on each topic."""
        return dict(self._log.heads)

    def tend(self, floors: Mapping[str, int], now: float) -> Dropped:
        """Bring the buffer within its limits. `floors`: for each topic that has readers, the last number that all of
        them have got. Returns what readers will miss."""
        self._floors = floors
        return self._log.tend(floors, now)

    def answer(self, ask: Ask, node: str, matches: Callable[[str, str], bool], now: float) -> list[Resent]:
        """The answers of this process, whose node is `node`, one for each topic that `ask` concerns. All of them
        together carry no more than `ANSWER_COUNT` messages and `ANSWER_BYTES`."""
        heads = self.heads()  # before the messages are read, so that none of these numbers is missing for its youth
        wanted = dict(self._wanted(ask, node, matches, heads, now))
        sent = self._portions(wanted)
        return [
            self._resent(topic, after, upto, *sent[topic], latest=heads.get(topic, 0))
            for topic, (after, upto) in wanted.items()
        ]

    def _portions(self, wanted: Mapping[str, tuple[int, int]]) -> dict[str, tuple[list[SentMessage], bool]]:
        """For each topic the messages that are sent now, and whether there are more. All topics have equal shares, so
        that each of them gets on; of a topic the first message is sent whatever its size."""
        portions: dict[str, tuple[list[SentMessage], bool]] = {topic: ([], False) for topic in wanted}
        most, most_bytes = max(1, ANSWER_COUNT // max(1, len(wanted))), ANSWER_BYTES // max(1, len(wanted))
        left = dict(wanted)
        room = dict.fromkeys(wanted, most_bytes)
        refused = self._refused
        for message in self._log.messages(left):
            if (message.topic, message.sequence) in refused:
                continue
            topic, portion = message.topic, portions[message.topic][0]
            room[topic] -= len(message.payload)
            if portion and (len(portion) >= most or room[topic] < 0):
                portions[topic] = portion, True
                del left[topic]  # the log gives no more of this topic, and ends where it was the last one
            else:
                portion.append(message)
        return portions

    def _wanted(
        self, ask: Ask, node: str, matches: Callable[[str, str], bool], heads: Mapping[str, int], now: float
    ) -> Iterable[tuple[str, tuple[int, int]]]:
        """Each topic that is asked for, with its numbers: above the first, up to the second.

        A topic is asked for in one of three ways: by a hole, whose ends are known; by the last number of a topic on
        which this process has sent only QoS 0; or by a filter, which covers every topic of this process that it
        matches. A hole outweighs the others, so that no topic comes twice.
        """
        for topic, (after, upto) in ask.holes.items():
            yield topic, (after, upto)
        for topic, nodes in ask.last.items():
            if node in nodes and topic not in heads and topic not in ask.holes:
                # Everything there was QoS 0. The empty answer tells the receiver that this process lives.
                yield topic, (nodes[node], nodes[node])
        for topic, head in heads.items():
            ages = [age for name, age in ask.filters.items() if topic not in ask.holes and matches(name, topic)]
            if ages:
                # Without a last number, from the first message since the receiver has listened the longest.
                last = ask.last.get(topic, {}).get(node)
                yield topic, (self._before(topic, now - max(ages), head) if last is None else last, head)

    def _before(self, topic: str, since: float, head: int) -> int:
        """The number before the first message on a topic that was sent at the time `since` or later."""
        if self._began >= since:
            return 0
        gone, time = self._log.gone(topic) or (0, since - 1.0)
        if time >= since:
            return gone - 1
        kept = self._log.messages({topic: (gone, head)})
        return next((message.sequence - 1 for message in kept if message.time >= since), head)

    def _resent(
        self, topic: str, after: int, upto: int, sent: Sequence[SentMessage], cut: bool, *, latest: int
    ) -> Resent:
        """The answer for one topic. `cut`: there is more than may be sent at once, so it ends at the last of `sent`.
        Each number between two that are sent, and above those that are gone, was QoS 0."""
        gone = min(upto, (self._log.gone(topic) or (0, 0.0))[0])
        head = (sent[-1].sequence if sent else max(after, gone)) if cut else max(after, upto)
        unconfirmed, expected = [], max(after, gone) + 1
        for number in [*(message.sequence for message in sent), head + 1]:
            if number > expected:
                unconfirmed.append((expected, number - 1))
            expected = max(expected, number + 1)
        return Resent(topic, after, gone, head, max(after, upto), unconfirmed, sent, latest)
