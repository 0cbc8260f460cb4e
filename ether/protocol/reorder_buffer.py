"""Puts the messages of each source and topic into their order, and notices what is missing.

Numbers of one process on one topic follow one another. A number that jumps leaves a hole: what came behind it is held
until the source has sent the missing again, or has said that there is nothing to send. Promises: within a source and a
topic nothing is handed on twice, out of order, or across a hole that was not filled, unless the hole is reported as a
`Gap`. Holding is bounded, in count, in bytes and in time: whatever gets lost of a question, its answer and our own
echo, each hole ends. Its source is asked `ASKS` times within `PATIENCE_S`, and is given up when our echo comes back
without its answer; where not even echoes come back, `LONGEST_S` after it was asked last.

Three things make a receiver ask: its own connection was away (`went_deaf`, `came_back`), a source was away and says how
far it had got (`heard_heads`), or a number jumps.

The trap: the first number that is ever heard of a source on a topic may be any, and nothing is missing; but not after
an outage, when earlier ones may be on their way. Then it, too, is held until the source has answered.

Another one: what a source publishes meanwhile is no answer. Only numbers that were missing are a sign that one comes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, NamedTuple, TypeVar

from ether.protocol.retransmit_buffer import Ask, Resent

T = TypeVar("T")


class Gap(NamedTuple):
    """Numbers that will not come, both ends included."""

    source: str
    topic: str
    first: int
    last: int
    why: str


class Sorted(NamedTuple, Generic[T]):
    """What follows from something that arrived: what may be handed on now, and what is given up."""

    ready: list[T]
    gaps: list[Gap]


class Verdict(NamedTuple, Generic[T]):
    """What follows from a time that is over. Of the `doubtful` sources it cannot be known whether they
    sent anything."""

    sorted: Sorted[T]
    doubtful: list[str]


class Held(NamedTuple, Generic[T]):
    """A message that waits behind a hole, and its size in bytes."""

    item: T
    size: int


@dataclass(slots=True)
class SourceRow(Generic[T]):
    """One source's numbers on one topic. `last` is the last that was handed on, None while that is being asked;
    `target` the highest that is known to exist, as long as something waits. `asked` is when its source was asked last,
    or gave its last sign, None when it is to be asked; `asks` how often it was since its last answer."""

    topic: str
    node: str
    source: str
    last: int | None
    target: int = 0
    held: dict[int, Held[T]] = field(default_factory=dict)
    waiting: bool = False
    asked: float | None = None
    asks: int = 0
    attempts: int = 0
    silent_at: int | None = None
    """`last` when its source was named as one that does not answer."""

    def ask(self, now: float) -> None:
        """Its source is asked for the first time, or about everything."""
        self.asked, self.asks = now, 1


@dataclass(slots=True)
class Catching:
    """After an outage, until everybody had the time to answer: when everybody was asked, and how often."""

    asked: float
    asks: int = 1


HOLD_COUNT, HOLD_BYTES = 10_000, 32 << 20
"""As much as a source keeps; a hole behind which more waits is given up."""

PATIENCE_S = 3.0
"""How long a hole waits for a sign of its source, all of its questions together. A source whose own queue is full
answers within 1 s (measured: 10,000 messages a second)."""

ASKS = 2
"""How often a source is asked within that time: a question or an answer may get lost."""

LONGEST_S = 60.0
"""How long a hole waits after the last question where our own echo does not come back either: longer than a broker
stands still that is only busy."""

ATTEMPTS = 5
"""How often a hole is asked for without a single message coming of it."""

TRACKS = 10_000
"""Pairs of source and topic that are remembered."""

NO_ANSWER = "its sender does not answer"
TOO_OLD = "its sender keeps no more than its latest messages"
TOO_MUCH = "too many messages wait behind it"
AGAIN = "it was lost each time that it was sent again"


class ReorderBuffer(Generic[T]):
    """The numbers of everybody on every topic that is listened to. Not locked; `now` in seconds of a steady clock."""

    def __init__(self, *, count: int = HOLD_COUNT, size: int = HOLD_BYTES) -> None:
        self._count, self._size = count, size
        self.room = count
        """How many may be held just now, where that is less."""
        self._tracks: dict[tuple[str, str], SourceRow[T]] = {}
        self._waiting: dict[tuple[str, str], SourceRow[T]] = {}
        self._held_count = self._held_bytes = 0
        self._filters: dict[str, float] = {}
        self._forgot_at = float("-inf")
        self._online = True
        self._catching: Catching | None = None
        self._answered: set[str] = set()
        self._again: set[str | None] = set()
        self._said_at = float("-inf")

    # -- what is listened to

    def listen(self, topic_filter: str, now: float) -> None:
        """From now on nothing that matches is to be missed."""
        self._filters.setdefault(topic_filter, now)

    def unlisten(self, topic_filter: str, still: Iterable[tuple[str, bool]]) -> None:
        """No more; `still` says of each topic that is tracked whether another filter wants it."""
        self._filters.pop(topic_filter, None)
        for topic, wanted in still:
            if not wanted:
                for key in [key for key in self._tracks if key[0] == topic]:
                    self._drop(key)

    @property
    def filters(self) -> list[str]:
        """What is listened to."""
        return list(self._filters)

    @property
    def topics(self) -> set[str]:
        """On which something was heard."""
        return {topic for topic, _ in self._tracks}

    def _drop(self, key: tuple[str, str]) -> None:
        track = self._tracks.pop(key)
        self._waiting.pop(key, None)
        for number in list(track.held):
            self._take(track, number)

    # -- messages

    def passes(self, topic: str, node: str, number: int) -> bool:
        """True for the very next one of its source and topic, with nothing held before it: hand it on. Runs for each
        message; whatever it refuses goes to `arrived()`."""
        track = self._tracks.get((topic, node))
        if track is None or track.waiting or track.last != number - 1:
            return False
        track.last = number
        return True

    def arrived(
        self, topic: str, node: str, source: str, number: int, item: T, size: int, now: float
    ) -> Sorted[T] | None:
        """Any other one. None: it came before. What is ready may include the item itself."""
        key = topic, node
        track = self._tracks.get(key)
        if track is None:
            unknown = self._catching is not None and node not in self._answered and number > 1
            track = self._begin(key, source, None if unknown else number - 1, now)
        track.source = source
        if number in track.held or (track.last is not None and number <= track.last):
            return None
        track.held[number] = Held(item, size)
        self._held_count += 1
        self._held_bytes += size
        if number > track.target:
            track.target = number
        elif track.asked is not None:
            track.asked = now
        result = Sorted[T]([], [])
        self._hand_on(track, result)
        if self._held_count > min(self._count, self.room) or self._held_bytes > self._size:
            self._give_up(key, track, TOO_MUCH, result)
        self._settle(key)
        return result

    def _begin(self, key: tuple[str, str], source: str, last: int | None, now: float) -> SourceRow[T]:
        if len(self._tracks) >= TRACKS:
            self._forget_one(now)
        topic, node = key
        track = self._tracks[key] = SourceRow[T](topic, node, source, last)
        if last is None:
            track.ask(now)
            self._settle(key)
        return track

    def _forget_one(self, now: float) -> None:
        oldest = next((key for key, track in self._tracks.items() if not track.waiting), None)
        if oldest is not None:
            self._drop(oldest)
            self._forgot_at = now

    def _hand_on(self, track: SourceRow[T], result: Sorted[T]) -> None:
        """Whatever follows without a hole."""
        while track.last is not None and track.last + 1 in track.held:
            track.last += 1
            result.ready.append(self._take(track, track.last))
            track.attempts = 0

    def _take(self, track: SourceRow[T], number: int) -> T:
        held = track.held.pop(number)
        self._held_count -= 1
        self._held_bytes -= held.size
        return held.item

    def _settle(self, key: tuple[str, str]) -> None:
        """Whether it waits; from the moment that it does not, `passes()` may hand on what follows."""
        track = self._tracks.get(key)
        if track is None:
            return
        if track.held or track.last is None or track.last < track.target:
            track.waiting, self._waiting[key] = True, track
        else:
            self._waiting.pop(key, None)
            track.asked, track.asks, track.attempts = None, 0, 0
            track.waiting = False

    # -- outages

    def went_deaf(self, now: float) -> None:
        """The connection is lost."""
        self._online = False
        self._catching = Catching(now)
        self._answered, self._again = set(), set()
        for track in self._waiting.values():
            track.asked, track.asks = None, 0

    def came_back(self, by: str, now: float) -> Ask:
        """It is there again; what everybody is to be asked."""
        self._online = True
        self._catching = Catching(now)
        self._said_at = float("-inf")
        for track in self._waiting.values():
            track.ask(now)
        return self._ask_for(by, None, now)

    def heard_heads(
        self, node: str, heads: Mapping[str, int], wanted: Iterable[str], by: str, now: float
    ) -> Ask | None:
        """A source says how far it had got, on the topics in `heads`, of which `wanted` are listened to; what it is to
        be asked, None where nothing is missing."""
        behind = False
        for topic in wanted:
            track = self._tracks.get((topic, node)) or self._begin((topic, node), "", None, now)
            if track.last is None or track.last < heads[topic]:
                behind, track.target = True, max(track.target, heads[topic])
                track.ask(now)
                self._settle((topic, node))
        if behind:
            self._answered.discard(node)
        return self._ask_for(by, node, now) if behind else None

    def _ask_for(self, by: str, node: str | None, now: float) -> Ask:
        last: dict[str, dict[str, int]] = {}
        for track in self._tracks.values():
            if track.last is not None and node in (None, track.node):
                last.setdefault(track.topic, {})[track.node] = track.last
        return Ask(by, last, {name: now - max(since, self._forgot_at) for name, since in self._filters.items()}, {})

    def answered(self, node: str, answers: Iterable[Resent], now: float) -> Sorted[T]:
        """A source has sent again what it had; in the order of its connection, behind those messages."""
        self._answered.add(node)
        result = Sorted[T]([], [])
        for answer in answers:
            key = answer.topic, node
            track = self._tracks.get(key) or self._begin(key, "", answer.after, now)
            self._apply(key, track, answer, result)
        return result

    def _apply(self, key: tuple[str, str], track: SourceRow[T], answer: Resent, result: Sorted[T]) -> None:
        if track.last is None:
            track.last = min([answer.after, *(number - 1 for number in track.held)])
        before = track.last
        track.target = max(track.target, answer.total)
        self._hand_on(track, result)
        self._skip(track, answer, result)
        track.attempts = 0 if track.last > before else track.attempts + 1
        track.asked, track.asks = None, 0
        self._settle(key)
        if track.attempts >= ATTEMPTS:
            self._give_up(key, track, AGAIN, result)
            self._settle(key)

    def _skip(self, track: SourceRow[T], answer: Resent, result: Sorted[T]) -> None:
        """Go over what was lost at QoS 0, which is allowed, and over what is too old, which is reported."""
        assert track.last is not None
        held = sorted(track.held)
        starts = [first for first, _ in answer.unconfirmed]
        while track.last < answer.head:
            following = held[at] if (at := bisect_right(held, track.last)) < len(held) else answer.head + 1
            index = bisect_right(starts, track.last + 1) - 1
            if track.last < answer.gone:
                upto = min(answer.gone, following - 1)
                result.gaps.append(Gap(track.source, track.topic, track.last + 1, upto, TOO_OLD))
            elif index >= 0 and answer.unconfirmed[index][1] > track.last:
                upto = min(answer.unconfirmed[index][1], following - 1)
            else:
                return
            track.last = upto
            self._hand_on(track, result)

    # -- time

    @property
    def busy(self) -> bool:
        """Whether time matters: something waits."""
        return bool(self._waiting) or self._catching is not None

    def questions(self, by: str, now: float) -> dict[str | None, Ask]:
        """For each source, or everybody (None), what is to be asked now; it counts as asked."""
        for key in list(self._waiting):
            self._settle(key)
        if not self._online:
            return {}
        asks = {node: self._ask_for(by, node, now) for node in self._again}
        self._again = set()
        for node, holes in self._holes(now).items():
            asks[node] = replace(asks.get(node) or Ask(by, {}, {}, {}), holes=holes)
        return asks

    def _holes(self, now: float) -> dict[str, dict[str, tuple[int, int]]]:
        holes: dict[str, dict[str, tuple[int, int]]] = {}
        for track in self._waiting.values():
            if track.asked is None and track.last is not None:
                track.asked, track.asks = now, track.asks + 1
                upto = min(track.held) - 1 if track.held else track.target
                holes.setdefault(track.node, {})[track.topic] = track.last, upto
        return holes

    def says(self, now: float) -> bool:
        """Whether to say something to ourselves now, as somebody has not answered for long: our own connection may be
        slow. It counts as said; what is lost is said again."""
        due = now - PATIENCE_S / ASKS
        asked = [track.asked for track in self._waiting.values() if track.asked is not None]
        asked += [self._catching.asked] if self._catching is not None else []
        if not self._online or self._said_at > due or min(asked, default=now) > due:
            return False
        self._said_at = now
        return True

    def left(self, node: str) -> None:
        """A source has left, in peace: it needs no more asking."""
        for key in [key for key, track in self._tracks.items() if track.node == node and not track.waiting]:
            self._drop(key)

    def echoed(self, said_at: float, now: float) -> Verdict[T]:
        """What we said to ourselves is back, so our connection brings what others say: who was asked long before it and
        has said nothing is asked again, or was for the last time and does not answer."""
        verdict = self._judge(min(said_at, now) - PATIENCE_S / ASKS, ASKS, now)
        for key in list(self._waiting):
            self._settle(key)
        return verdict

    def expired(self, now: float) -> Verdict[T]:
        """Not even what we say to ourselves comes back: for whom that has lasted too long. May be called beside
        `passes()`, which hands on nothing of theirs before the next `questions()`."""
        return self._judge(now - LONGEST_S, 0, now)

    def _judge(self, before: float, asks: int, now: float) -> Verdict[T]:
        """Who was asked before then, and so often, does not answer."""
        result, doubtful = Sorted[T]([], []), set[str]()
        if not self._online:
            return Verdict(result, [])
        for key, track in list(self._waiting.items()):
            if track.asked is None or track.asked > before:
                continue
            if track.asks < asks:
                self._ask_again(track, now)
                continue
            if track.last is None and track.node not in self._answered:
                doubtful.add(track.source)
            self._give_up(key, track, NO_ANSWER, result)
        if self._catching is not None and self._catching.asked <= before:
            doubtful |= self._catch_up(self._catching, asks, now)
        return Verdict(result, sorted(doubtful))

    def _ask_again(self, track: SourceRow[T], now: float) -> None:
        if track.last is None:
            self._again.add(track.node)
            track.asked, track.asks = now, track.asks + 1
        else:
            track.asked = None

    def _catch_up(self, catching: Catching, asks: int, now: float) -> set[str]:
        """The sources that were asked after an outage, and have not answered at all: whether they sent anything
        meanwhile cannot be known until they do again. They are asked twice, named once, and forgotten at the next
        outage if they have still said nothing."""
        silent = {key: t for key, t in self._tracks.items() if t.node not in self._answered and not t.waiting}
        if catching.asks < asks:
            catching.asked, catching.asks = now, catching.asks + 1
            self._again |= {node for _, node in silent} if self._answered else {None}
            return set()
        self._catching = None
        named = {track.source for track in silent.values() if track.silent_at != track.last}
        for key, track in silent.items():
            if track.silent_at == track.last:
                self._drop(key)
            track.silent_at = track.last
        return named

    def _give_up(self, key: tuple[str, str], track: SourceRow[T], why: str, result: Sorted[T]) -> None:
        for number in sorted(track.held):
            if track.last is not None and number > track.last + 1:
                result.gaps.append(Gap(track.source, track.topic, track.last + 1, number - 1, why))
            track.last = number
            result.ready.append(self._take(track, number))
        if track.last is None:
            self._drop(key)
        elif track.last < track.target:
            result.gaps.append(Gap(track.source, track.topic, track.last + 1, track.target, why))
            track.last = track.target
