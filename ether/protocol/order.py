"""Puts the messages of each source and topic into their order, and notices what is missing.

Numbers of one process on one topic follow one another. A number that jumps leaves a hole: what came behind it is held
until the source has sent the missing again, or has said that there is nothing to send. Promises: within a source and a
topic nothing is handed on twice, out of order, or across a hole that was not filled, unless the hole is reported as a
`Gap`. Holding is bounded, in count, in bytes and in time.

Three things make a receiver ask: its own connection was away (`went_deaf`, `came_back`), a source was away and says how
far it had got (`heard_heads`), or a number jumps.

The trap: the first number that is ever heard of a source on a topic may be any, and nothing is missing; but not after
an outage, when earlier ones may be on their way. Then it, too, is held until the source has answered.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from ether.protocol.history import Ask, Resent

T = TypeVar("T")

HOLD_COUNT, HOLD_BYTES = 10_000, 32 << 20
"""As much as a source keeps; a hole behind which more waits is given up."""

PATIENCE_S = 3.0
"""How long a hole waits for a sign of its source. A source whose own queue is full answers within 1 s (measured:
10,000 messages a second)."""

ATTEMPTS = 5
"""How often a hole is asked for without a single message coming of it."""

TRACKS = 10_000
"""Pairs of source and topic that are remembered."""

NO_ANSWER = "its sender does not answer"
TOO_OLD = "its sender keeps no more than its latest messages"
TOO_MUCH = "too many messages wait behind it"
AGAIN = "it was lost each time that it was sent again"


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


class _Held(NamedTuple, Generic[T]):
    item: T
    size: int


@dataclass(slots=True)
class _Track(Generic[T]):
    """One source's numbers on one topic. `last` is the last that was handed on, None while that is being asked."""

    topic: str
    node: str
    source: str
    last: int | None
    target: int = 0
    held: dict[int, _Held[T]] = field(default_factory=dict)
    waiting: bool = False
    asked: float | None = None
    attempts: int = 0


class Order(Generic[T]):
    """The numbers of everybody on every topic that is listened to. Not locked; `now` in seconds of a steady clock."""

    def __init__(self, *, count: int = HOLD_COUNT, size: int = HOLD_BYTES) -> None:
        self._count, self._size = count, size
        self.room = count
        """How many may be held just now, where that is less."""
        self._tracks: dict[tuple[str, str], _Track[T]] = {}
        self._waiting: dict[tuple[str, str], _Track[T]] = {}
        self._held_count = self._held_bytes = 0
        self._filters: dict[str, float] = {}
        self._forgot_at = float("-inf")
        self._online = True
        self._catching_since: float | None = None
        self._answered: set[str] = set()

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
            unknown = self._catching_since is not None and node not in self._answered and number > 1
            track = self._begin(key, source, None if unknown else number - 1, now)
        track.source = source
        if number in track.held or (track.last is not None and number <= track.last):
            return None
        track.held[number] = _Held(item, size)
        self._held_count += 1
        self._held_bytes += size
        if track.asked is not None:
            track.asked = now
        result = Sorted[T]([], [])
        self._hand_on(track, result)
        self._wait_on(key, track)
        if self._held_count > min(self._count, self.room) or self._held_bytes > self._size:
            self._give_up(key, track, TOO_MUCH, result)
        return result

    def _begin(self, key: tuple[str, str], source: str, last: int | None, now: float) -> _Track[T]:
        if len(self._tracks) >= TRACKS:
            self._forget_one(now)
        topic, node = key
        track = self._tracks[key] = _Track[T](topic, node, source, last)
        if last is None:
            track.asked = now
            self._wait_on(key, track)
        return track

    def _forget_one(self, now: float) -> None:
        oldest = next((key for key, track in self._tracks.items() if not track.waiting), None)
        if oldest is not None:
            self._drop(oldest)
            self._forgot_at = now

    def _hand_on(self, track: _Track[T], result: Sorted[T]) -> None:
        """Whatever follows without a hole."""
        while track.last is not None and track.last + 1 in track.held:
            track.last += 1
            result.ready.append(self._take(track, track.last))
            track.attempts = 0

    def _take(self, track: _Track[T], number: int) -> T:
        held = track.held.pop(number)
        self._held_count -= 1
        self._held_bytes -= held.size
        return held.item

    def _wait_on(self, key: tuple[str, str], track: _Track[T]) -> None:
        track.waiting = bool(track.held) or track.last is None or track.last < track.target
        if track.waiting:
            self._waiting[key] = track
        else:
            self._waiting.pop(key, None)
            track.asked, track.attempts = None, 0

    # -- outages

    def went_deaf(self, now: float) -> None:
        """The connection is lost."""
        self._online = False
        self._catching_since = now
        self._answered = set()
        for track in self._waiting.values():
            track.asked = None

    def came_back(self, by: str, now: float) -> Ask:
        """It is there again; what everybody is to be asked."""
        self._online = True
        self._catching_since = now
        for track in self._waiting.values():
            track.asked = now
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
                behind, track.asked = True, now
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

    def _apply(self, key: tuple[str, str], track: _Track[T], answer: Resent, result: Sorted[T]) -> None:
        if track.last is None:
            track.last = min([answer.after, *(number - 1 for number in track.held)])
        before = track.last
        track.target = max(track.target, answer.total)
        self._hand_on(track, result)
        self._skip(track, answer, result)
        track.attempts = 0 if track.last > before else track.attempts + 1
        track.asked = None
        self._wait_on(key, track)
        if track.attempts >= ATTEMPTS:
            self._give_up(key, track, AGAIN, result)

    def _skip(self, track: _Track[T], answer: Resent, result: Sorted[T]) -> None:
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
        return bool(self._waiting) or self._catching_since is not None

    def questions(self, by: str, now: float) -> dict[str, Ask]:
        """For each source what it is to be asked now; it counts as asked."""
        holes: dict[str, dict[str, tuple[int, int]]] = {}
        for track in self._waiting.values() if self._online else ():
            if track.asked is None and track.last is not None:
                track.asked = now
                upto = min(track.held) - 1 if track.held else track.target
                holes.setdefault(track.node, {})[track.topic] = track.last, upto
        return {node: Ask(by, {}, {}, wanted) for node, wanted in holes.items()}

    def overdue(self, now: float) -> bool:
        """Whether somebody has not answered for too long, as far as can be told: our own connection may be slow."""
        if not self._online:
            return False
        oldest = min((track.asked for track in self._waiting.values() if track.asked is not None), default=now)
        catching = now if self._catching_since is None else self._catching_since
        return min(oldest, catching) <= now - PATIENCE_S

    def left(self, node: str) -> None:
        """A source has left, in peace: it needs no more asking."""
        for key in [key for key, track in self._tracks.items() if track.node == node and not track.waiting]:
            self._drop(key)

    def silent(self, before: float) -> list[str]:
        """The sources that were asked before then, after an outage, and have not answered at all: whether they sent
        anything meanwhile cannot be known. They are asked no more."""
        if not self._online or self._catching_since is None or self._catching_since > before:
            return []
        self._catching_since = None
        silent = [key for key, t in self._tracks.items() if t.node not in self._answered and not t.waiting]
        sources = {self._tracks[key].source for key in silent}
        for key in silent:
            self._drop(key)
        return sorted(sources)

    def give_up(self, before: float) -> Sorted[T]:
        """Whoever was asked before then and has not answered does not answer: wait for it no more."""
        result = Sorted[T]([], [])
        if not self._online:
            return result
        for key, track in list(self._waiting.items()):
            if track.asked is not None and track.asked <= before:
                self._give_up(key, track, NO_ANSWER, result)
        return result

    def _give_up(self, key: tuple[str, str], track: _Track[T], why: str, result: Sorted[T]) -> None:
        for number in sorted(track.held):
            if track.last is not None and number > track.last + 1:
                result.gaps.append(Gap(track.source, track.topic, track.last + 1, number - 1, why))
            track.last = number
            result.ready.append(self._take(track, number))
        if track.last is not None and track.last < track.target:
            result.gaps.append(Gap(track.source, track.topic, track.last + 1, track.target, why))
            track.last = track.target
        if track.last is None:
            del self._tracks[key]
        self._wait_on(key, track)
        if track.last is None:
            self._waiting.pop(key, None)
