"""Puts the messages of each source on each topic into their order, and notices missing ones.

The numbers of one process on one topic follow one another. A number that jumps leaves a hole. The messages behind the
hole are held until the source has sent the missing ones again, or has said that there is nothing to send. Promises:
within one source and topic no message is handed on twice, out of order, or across a hole, unless that hole is reported
as a `Gap`. Holding is bounded in count, in bytes and in time: a hole ends, whichever question, answer or echo is lost.
What comes while no more can be held is asked for later.

A receiver asks in three cases: its own connection was lost (`went_deaf`, `came_back`), a source lost its connection and
tells its last numbers (`heard_heads`), or a number jumps (`arrived`, then `questions`).

A receiver asks for no more than it has room for (`questions`). So a slow one, which has ended its subscriptions for the
time being (`pause`), takes what it has missed at its own pace.

How a hole ends. Its source is asked `ASKS` times within `PATIENCE_S`. Meanwhile the receiver sends itself a message,
the echo. When an echo comes back that was sent well after the last question, the connection works, and the source is
given up (`echoed`). Without echoes the connection itself may be slow, and the source is given up only `LONGEST_S`
after the last question (`expired`).

The traps. The first number that is ever heard of a source on a topic may be any number, and nothing is missing. After
an outage this does not hold, as earlier messages may still be on their way: then the first one is held, too, until the
source has answered. And new messages of a source are no answer to a question: only missing numbers that arrive are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

from ether.protocol.retransmit_buffer import Ask, Resent
from ether.wire.topics import matches

T = TypeVar("T")

HOLD_COUNT, HOLD_BYTES = 10_000, 32 << 20
"""The most that is held behind holes. What arrives beyond that is asked for again later."""

PATIENCE_S = 5.0
"""How long a hole waits for its source, over all of its questions. A source whose own queue is full answers within 1 s
(measured: 10,000 messages a second); one that several slow readers ask at the same time takes longer."""

ASKS = 3
"""How often a source is asked within that time, because a question or an answer may be lost."""

LONGEST_S = 60.0
"""How long a hole waits after the last question where no echo comes back either. Longer than a busy broker stands
still."""

ATTEMPTS = 5
"""After how many answers in a row that fill nothing a hole is given up."""

LONGEST_JUMP = 10_000_000
"""By so many a number may be higher than the last known one: more than any source sends while a receiver is away. A
message with a higher one is nobody's. If it counted, all that its source really sends would be taken for old."""

MAX_ROWS = 10_000
"""The most pairs of source and topic that are remembered."""

NO_ANSWER = "its sender does not answer"
TOO_OLD = "its sender keeps no more than its latest messages"
AGAIN = "it was lost each time that it was sent again"


class Gap(NamedTuple):
    """Numbers that will not come, from `first` to `last`, both included."""

    source: str
    topic: str
    first: int
    last: int
    why: str


class Sorted(NamedTuple, Generic[T]):
    """The result of an arrival or an answer: messages to hand on now, in this order, and numbers that are given up."""

    ready: list[T]
    gaps: list[Gap]


class Verdict(NamedTuple, Generic[T]):
    """The result of time that has passed. `doubtful` names sources that have not answered, and of which it cannot be
    known whether they sent anything."""

    sorted: Sorted[T]
    doubtful: list[str]


class Held(NamedTuple, Generic[T]):
    """A message that waits behind a hole, and its size in bytes."""

    item: T
    size: int


@dataclass(slots=True)
class SourceRow(Generic[T]):
    """One source's numbers on one topic. A row waits while something is missing before a held or known number."""

    topic: str
    node: str
    """The end of the source's message ids, which tells processes of one name apart."""
    source: str
    last: int | None
    """The last number that was handed on or given up. None while the source is being asked where to begin."""
    target: int = 0
    """The highest number that is known to exist, as long as the row waits."""
    held: dict[int, Held[T]] = field(default_factory=dict)
    """Messages behind a hole, by number."""
    waiting: bool = False
    """Whether the row is in the buffer's `_waiting`; read by `passes` without a lock."""
    asked: float | None = None
    """When the source was asked last, or a missing number arrived last. None when the source is to be asked."""
    asks: int = 0
    """How often the source was asked since its last answer."""
    asked_from: int | None = None
    """`last` when the source was asked last; None where it was to say where to begin."""
    attempts: int = 0
    """Answers in a row that filled nothing."""
    passed: tuple[int, int] | None = None
    """The first and the last number that were given up; while the latter is `last`, nothing was handed on since."""
    silent_at: int | None = None
    """`last` when the source was reported as not answering."""
    reported: int | None = None
    """The number that was last reported to the source."""
    told: int = 0
    """The number up to which gaps were told: what is given up again, because a message has come behind it after all,
    is not told again."""
    pulled: bool = False
    """Whether no live message comes, because all filters that match are paused."""

    def pass_over(self, upto: int) -> None:
        """Give up the numbers up to this one."""
        assert self.last is not None
        begins = self.passed[0] if self.passed is not None and self.passed[1] == self.last else self.last + 1
        self.passed, self.last = (begins, upto), upto

    def gap(self, upto: int, why: str) -> list[Gap]:
        """What is missing up to this number and was not told before; nothing, or one gap."""
        assert self.last is not None
        begins, self.told = max(self.last, self.told) + 1, max(self.told, upto)
        return [Gap(self.source, self.topic, begins, upto, why)] if begins <= upto else []

    def takes_back(self, number: int) -> bool:
        """A number that was given up has come all the same, and nothing was handed on since: it is the next one.
        Whoever says that numbers will not come may be mistaken, or lie; without this it would silence a source."""
        if self.passed is None or self.passed[1] != self.last or not self.passed[0] <= number <= self.passed[1]:
            return False
        if self.target <= self.passed[1]:  # else it waits for more, which is still asked for
            self.target = max(self.held, default=number)
        self.passed, self.last = (self.passed[0], number - 1), number - 1
        return True

    def ask(self, now: float) -> None:
        """The source is asked for the first time, or about everything."""
        self.asked, self.asks, self.asked_from = now, 1, self.last

    def is_late(self, after: int) -> bool:
        """Whether an answer about the numbers above `after` answers an earlier question than the one that is open."""
        return self.asked is not None and self.asked_from is not None and after < self.asked_from


@dataclass(slots=True)
class CatchUp:
    """The time after an outage, until every source had the time to answer: when all were asked, and how often."""

    asked: float
    asks: int = 1


class ReorderBuffer(Generic[T]):
    """The numbers of each source on each topic that is listened to. Not locked; `now` in seconds of a steady clock."""

    def __init__(self, *, count: int = HOLD_COUNT, size: int = HOLD_BYTES) -> None:
        self._count, self._size = count, size
        self.room = count
        """How many messages may be held now, where that is fewer than `count`; set by the owner."""
        self.jumped = 0
        """How many messages were refused because of a number that cannot have come."""
        self.sources = 0
        """How many pairs of source and topic were ever heard of."""
        self._rows: dict[tuple[str, str], SourceRow[T]] = {}
        self._waiting: dict[tuple[str, str], SourceRow[T]] = {}
        self._held_count = self._held_bytes = 0
        self._filters: dict[str, float] = {}
        """Each topic filter, with the time since when it is listened to."""
        self._paused: set[str] = set()
        self._forgot_at = float("-inf")
        self._taken_over_since: float | None = None
        self._expected: frozenset[str] = frozenset()
        """The sources of which everything is wanted, from their first message."""
        self._online = True
        self._catch_up: CatchUp | None = None
        self._answered: set[str] = set()
        """Nodes that have answered since the last outage."""
        self._again: set[str | None] = set()
        """Nodes that are to be asked about everything once more; None for all of them."""
        self._said_at = float("-inf")

    # -- what is listened to

    def listen(self, topic_filter: str, now: float) -> None:
        """Order and complete what matches this filter, from now on; after `take_over`, from when the predecessor
        listened on."""
        self._filters.setdefault(topic_filter, now if self._taken_over_since is None else self._taken_over_since)

    def take_over(self, numbers: Mapping[tuple[str, str], tuple[str, int]], since: float, now: float) -> None:
        """Go on in the place of a predecessor that has listened since the time `since`: for each topic and node the
        source's name, and the last number that needs not come again. To be called before everything else; then listen,
        and ask all sources (`came_back`)."""
        self._taken_over_since = since
        self._catch_up = CatchUp(now)
        for (topic, node), (source, last) in numbers.items():
            row = self._rows[topic, node] = SourceRow[T](topic, node, source, last)
            # A source that has ended meanwhile does not answer; that its end was noticed says enough.
            row.silent_at = last

    def taken_over(self) -> None:
        """All filters of the predecessor, or of the start, are listened to: others begin when they begin."""
        self._taken_over_since = None

    def expect(self, sources: Iterable[str], since: float) -> None:
        """These sources are started together with this receiver, none before the time `since`: what they publish before
        it listens is wanted, too. To be called before everything else; then listen (`taken_over`)."""
        self._expected = frozenset(sources)
        self._taken_over_since = since

    def unlisten(self, topic_filter: str, still: Iterable[tuple[str, bool]]) -> dict[str, list[str]]:
        """Stop doing so; `still` says of each topic with a row whether another filter matches it. Returns for each
        source the topics that are not listened to any more."""
        self._filters.pop(topic_filter, None)
        self._paused.discard(topic_filter)
        ends: dict[str, list[str]] = {}
        for topic, wanted in still:
            if not wanted:
                for key in [key for key in self._rows if key[0] == topic]:
                    self._drop(key)
                    ends.setdefault(key[1], []).append(topic)
        return ends

    @property
    def filters(self) -> list[str]:
        """The topic filters that are listened to."""
        return list(self._filters)

    @property
    def topics(self) -> set[str]:
        """The topics on which messages arrived."""
        return {topic for topic, _ in self._rows}

    def _drop(self, key: tuple[str, str]) -> None:
        row = self._rows.pop(key)
        self._waiting.pop(key, None)
        for number in list(row.held):
            self._take(row, number)

    # -- messages

    def passes(self, topic: str, node: str, number: int) -> bool:
        """True for the next message in order, in a row that does not wait: hand it on. Every other message must go to
        `arrived()`. Called for each message, without the owner's lock."""
        row = self._rows.get((topic, node))
        if row is None or row.waiting or row.last != number - 1:
            return False
        row.last = number
        return True

    def arrived(
        self, topic: str, node: str, source: str, number: int, item: T, size: int, now: float, *, full: bool = False
    ) -> Sorted[T] | None:
        """Take any other message. None: it is a duplicate. The result's `ready` may include `item` itself. `full`: the
        receivers can take no more of what comes by itself, so it is left, and asked for when there is room."""
        key = topic, node
        row = self._rows.get(key)
        if row is None:
            # A new row begins with whatever number comes first. Not after an outage, before the source has answered:
            # then earlier numbers may have been missed, and only the source can say where to begin (last None).
            unknown = self._catch_up is not None and node not in self._answered and number > 1
            if number > 1 and source in self._expected:  # the source says what there was before
                unknown = True
                self._again.add(node)
            row = self._begin(key, source, None if unknown else number - 1, now)
        row.source = source
        if number in row.held or (row.last is not None and number <= row.last and not row.takes_back(number)):
            return None
        if _cannot_be(row, number):
            self.jumped += 1
            return None
        result = Sorted[T]([], [])
        if number > row.target:
            row.target = number
        elif row.asked is not None:  # a missing number: an answer is coming, which extends the patience
            row.asked = now
        # Every message is held first, also one that fills a hole; `_hand_on` then takes out what is in order.
        if not full and (row.last == number - 1 or self._has_room(size)):
            row.held[number] = Held(item, size)
            self._held_count += 1
            self._held_bytes += size
            self._hand_on(row, result)
        # Else it is asked for again, after what comes before it: `target` is not below its number.
        self._settle(key)
        return result

    def _has_room(self, size: int) -> bool:
        """Whether one more message may be held behind a hole; the limit is one for all rows."""
        return self._held_count < min(self._count, self.room) and self._held_bytes + size <= self._size

    def _begin(self, key: tuple[str, str], source: str, last: int | None, now: float) -> SourceRow[T]:
        if len(self._rows) >= MAX_ROWS:
            self._forget_one(now)
        topic, node = key
        self.sources += 1
        row = self._rows[key] = SourceRow[T](topic, node, source, last, pulled=self._is_pulled(topic))
        if last is None:
            row.ask(now)
            self._settle(key)
        return row

    def _forget_one(self, now: float) -> None:
        oldest = next((key for key, row in self._rows.items() if not row.waiting), None)
        if oldest is not None:
            self._drop(oldest)
            self._forgot_at = now

    def _hand_on(self, row: SourceRow[T], result: Sorted[T]) -> None:
        """Move what follows `last` without a hole from `held` into the result."""
        while row.last is not None and row.last + 1 in row.held:
            row.last += 1
            result.ready.append(self._take(row, row.last))
            row.attempts = 0

    def _take(self, row: SourceRow[T], number: int) -> T:
        held = row.held.pop(number)
        self._held_count -= 1
        self._held_bytes -= held.size
        return held.item

    def _settle(self, key: tuple[str, str]) -> None:
        """Note whether a row waits. `waiting` is cleared last: from then on `passes()`, on another thread, may hand on
        what follows."""
        row = self._rows.get(key)
        if row is None:
            return
        if row.held or row.last is None or row.last < row.target:
            row.waiting, self._waiting[key] = True, row
        else:
            self._waiting.pop(key, None)
            row.asked, row.asks, row.attempts = None, 0, 0
            row.waiting = False

    # -- outages

    def went_deaf(self, now: float) -> None:
        """The connection was lost."""
        self._online = False
        self._catch_up = CatchUp(now)
        self._answered, self._again = set(), set()
        for row in self._waiting.values():
            row.asked, row.asks = None, 0

    def came_back(self, by: str, now: float) -> Ask:
        """The connection is back; the question to all sources."""
        self._online = True
        self._catch_up = CatchUp(now)
        self._said_at = float("-inf")
        for row in self._waiting.values():
            row.ask(now)
        return self._ask_for(by, None, now)

    def heard_heads(
        self, node: str, heads: Mapping[str, int], wanted: Iterable[str], by: str, now: float, source: str = ""
    ) -> Ask | None:
        """A source tells its last number on each topic in `heads`, of which `wanted` are listened to; `source` is its
        name, where that is known. Returns the question where to begin on the topics that are new; None where there is
        none."""
        unknown = False
        for topic in wanted:
            row = self._rows.get((topic, node)) or self._begin((topic, node), source, None, now)
            if _cannot_be(row, heads[topic]):
                self.jumped += 1
            elif row.last is None or row.last < heads[topic]:
                row.target = max(row.target, heads[topic])
                unknown = unknown or row.last is None
                self._settle((topic, node))  # where it knows where to begin, the next `questions` asks for the hole
            else:
                row.reported = None  # the source does not know that everything is here
        if unknown:
            self._answered.discard(node)
        return self._ask_for(by, node, now) if unknown else None

    def behind(self, node: str, heads: Mapping[str, int]) -> dict[str, bool]:
        """The topics on which not everything of a source was handed on up to these numbers, and whether it has been
        asked for that."""
        rows = {topic: self._rows.get((topic, node)) for topic in heads}
        late = {topic: row for topic, row in rows.items() if row is None or row.last is None or row.last < heads[topic]}
        return {topic: row is not None and row.asked is not None for topic, row in late.items()}

    def lacking(self, node: str, heads: Mapping[str, int], *, ask: bool) -> tuple[int, int, list[str]]:
        """How many messages of a source up to these numbers were not handed on; on how many topics it is not known, as
        it has not said where to begin; and the topics that are to be told to `heard_heads`: those of which nothing has
        come yet or nothing comes by itself, and with `ask` all."""
        missing, unknown, untold = 0, 0, list[str]()
        for topic, number in heads.items():
            row = self._rows.get((topic, node))
            if row is None or row.last is None:
                unknown += 1
                if row is None:
                    untold.append(topic)
            elif row.last < number:
                missing += number - row.last
                if row.target < number and (ask or row.pulled):
                    untold.append(topic)
        return missing, unknown, untold

    def _ask_for(self, by: str, node: str | None, now: float) -> Ask:
        """The question about everything that was missed, to one source or to all (None). Where rows were forgotten, a
        filter counts as listened to only since then: what came before may have been handed on already."""
        last: dict[str, dict[str, int]] = {}
        for row in self._rows.values():
            if row.last is not None and node in (None, row.node):
                last.setdefault(row.topic, {})[row.node] = row.last
        return Ask(by, last, {name: now - max(since, self._forgot_at) for name, since in self._filters.items()}, {})

    def answered(self, node: str, answers: Iterable[Resent], now: float) -> Sorted[T]:
        """A source's answer has arrived. It comes over the same connection as the repeated messages, behind them."""
        self._answered.add(node)
        result = Sorted[T]([], [])
        for answer in answers:
            key = answer.topic, node
            row = self._rows.get(key) or self._begin(key, "", answer.after, now)
            if _cannot_be(row, max(answer.head, answer.total, answer.latest)):
                self.jumped += 1
            else:
                self._apply(key, row, answer, result, now)
        return result

    def _apply(self, key: tuple[str, str], row: SourceRow[T], answer: Resent, result: Sorted[T], now: float) -> None:
        late = row.is_late(answer.after)
        if row.last is None:  # the answer says where to begin
            row.last = min([answer.after, *(number - 1 for number in row.held)])
        before = row.last
        row.target = max(row.target, answer.total, answer.latest if row.pulled else 0)
        self._hand_on(row, result)
        self._skip(row, answer, result)
        if late:
            # The answer to the open question is still to come. To ask again now would double what is sent again, with
            # each late answer once more.
            row.asked, row.asks = now, 1
        else:
            row.attempts = 0 if row.last > before else row.attempts + 1
            row.asked, row.asks = None, 0
        if row.attempts >= ATTEMPTS:
            self._go_over(row, answer.head, AGAIN, result)
            row.attempts = 0
        self._settle(key)

    def _go_over(self, row: SourceRow[T], upto: int, why: str, result: Sorted[T]) -> None:
        """Report what is missing up to a number as a gap, and hand on what follows it."""
        assert row.last is not None
        upto = min(upto, min(row.held, default=upto + 1) - 1)
        if upto > row.last:
            result.gaps.extend(row.gap(upto, why))
            row.pass_over(upto)
            self._hand_on(row, result)

    def _skip(self, row: SourceRow[T], answer: Resent, result: Sorted[T]) -> None:
        """Move on over numbers that will not come: lost at QoS 0, which is allowed, or too old, which is reported. Each
        turn of the loop goes to the end of such a range or to the next held message, whichever comes first."""
        assert row.last is not None
        held = sorted(row.held)
        starts = [first for first, _ in answer.unconfirmed]
        while row.last < answer.head:
            following = held[at] if (at := bisect_right(held, row.last)) < len(held) else answer.head + 1
            index = bisect_right(starts, row.last + 1) - 1  # the last QoS 0 range that begins at or before that number
            if row.last < answer.gone:
                self._go_over(row, answer.gone, TOO_OLD, result)
                continue
            if index >= 0 and answer.unconfirmed[index][1] > row.last:
                upto = min(answer.unconfirmed[index][1], following - 1)
            else:
                return
            row.pass_over(upto)
            self._hand_on(row, result)

    # -- slow receivers

    def positions(self) -> dict[str, dict[str, int]]:
        """For each source and topic the last number that was handed on."""
        found: dict[str, dict[str, int]] = {}
        for row in list(self._rows.values()):
            if row.last is not None:
                found.setdefault(row.node, {})[row.topic] = row.last
        return found

    def news(self, taken: Callable[[str, str, int], int] = lambda topic, node, last: last) -> dict[str, dict[str, int]]:
        """Of the positions those that each source has to be told: they have changed, or the source is to answer how
        far it is, because nothing comes by itself. `taken` says of a topic and node how much of what was handed on,
        up to the given number, the source needs not keep."""
        found: dict[str, dict[str, int]] = {}
        for row in list(self._rows.values()):
            if row.last is None:
                continue
            number = taken(row.topic, row.node, row.last)
            if row.pulled or number != row.reported:
                row.reported = number
                found.setdefault(row.node, {})[row.topic] = number
        return found

    def missing(self) -> dict[str, int]:
        """For each topic how many messages are known to exist at their sources and were not handed on."""
        found: dict[str, int] = {}
        for row in list(self._waiting.values()):
            if row.last is not None and row.last < row.target:
                found[row.topic] = found.get(row.topic, 0) + row.target - row.last
        return found

    @property
    def held(self) -> int:
        """How many messages are held behind holes."""
        return self._held_count

    @property
    def held_bytes(self) -> int:
        """Their bytes."""
        return self._held_bytes

    @property
    def is_paused(self) -> bool:
        """Whether any topic filter is paused."""
        return bool(self._paused)

    @property
    def paused(self) -> list[str]:
        """The topic filters that are paused."""
        return list(self._paused)

    def pause(self, topics: Iterable[str]) -> list[str]:
        """Live messages of these topics come too fast. Returns the filters to be unsubscribed, which match them. What
        exists from now on is asked for as there is room."""
        names = [name for name in self._filters if name not in self._paused]
        ends = [name for name in names if any(matches(name, topic) for topic in topics)]
        self._paused.update(ends)
        self._note_pulled()
        return ends

    def caught_up(self) -> list[str]:
        """The paused filters of which everything is here that is known to exist."""
        waiting = {row.topic for row in self._waiting.values()}
        return [name for name in self._paused if not any(matches(name, topic) for topic in waiting)]

    def resume(self, filters: Iterable[str], by: str, now: float) -> Ask | None:
        """These filters are subscribed again. Returns the question to all sources about what was sent meanwhile."""
        names = self._paused & set(filters)
        if not names:
            return None
        self._paused -= names
        self._note_pulled()
        ask = self._ask_for(by, None, now)
        return replace(
            ask,
            last={topic: last for topic, last in ask.last.items() if any(matches(name, topic) for name in names)},
            filters={name: age_s for name, age_s in ask.filters.items() if name in names},
        )

    def _note_pulled(self) -> None:
        for row in self._rows.values():
            row.pulled = self._is_pulled(row.topic)

    def _is_pulled(self, topic: str) -> bool:
        return bool(self._paused) and not any(
            matches(name, topic) for name in self._filters if name not in self._paused
        )

    @property
    def pulled(self) -> set[str]:
        """The topics of which no live message comes."""
        return {row.topic for row in list(self._rows.values()) if row.pulled}

    # -- time

    @property
    def busy(self) -> bool:
        """Whether something waits, so that `questions`, `says` and `expired` must be called from time to time."""
        return bool(self._waiting) or self._catch_up is not None or bool(self._paused)

    @property
    def heard(self) -> bool:
        """Whether there are sources to report to."""
        return bool(self._rows)

    def questions(
        self,
        by: str,
        now: float,
        room: Callable[[str], int] = lambda topic: HOLD_COUNT,
        first: Mapping[str, int] = MappingProxyType({}),
    ) -> dict[str | None, Ask]:
        """The questions that are due, to each source, or to all of them (None); they count as asked. `room` says of a
        topic how many more of its messages the receivers can take now; `first` how many of some nodes in any case."""
        # What `expired` decided takes effect here: only now may `passes` hand on the next messages of those rows.
        for key in list(self._waiting):
            self._settle(key)
        if not self._online:
            return {}
        asks = {node: self._ask_for(by, node, now) for node in self._again}
        self._again = set()
        for node, holes in self._holes(now, room, first).items():
            asks[node] = replace(asks.get(node) or Ask(by, {}, {}, {}), holes=holes)
        return asks

    def _holes(
        self, now: float, room: Callable[[str], int], first: Mapping[str, int]
    ) -> dict[str, dict[str, tuple[int, int]]]:
        """For each node and topic the first hole that is to be asked for: numbers above the first, up to the second.
        The sources of one topic share its room."""
        due: dict[str, list[SourceRow[T]]] = {}
        for row in self._waiting.values():
            if row.asked is None and row.last is not None:
                due.setdefault(row.topic, []).append(row)
        holes: dict[str, dict[str, tuple[int, int]]] = {}
        for topic, rows in due.items():
            share = room(topic) // len(rows)
            for row in rows:
                most = max(share, first.get(row.node, 0))
                if most <= 0:
                    continue
                assert row.last is not None
                row.asked, row.asks, row.asked_from = now, row.asks + 1, row.last
                upto = min(row.held) - 1 if row.held else row.target
                holes.setdefault(row.node, {})[topic] = row.last, min(upto, row.last + most)
        return holes

    def says(self, now: float) -> bool:
        """Whether to send an echo now: a source has not answered for some time, and the own connection may be the
        reason. It counts as sent; a lost one is followed by another."""
        due = now - PATIENCE_S / ASKS
        asked = [row.asked for row in self._waiting.values() if row.asked is not None]
        asked += [self._catch_up.asked] if self._catch_up is not None else []
        if not self._online or self._said_at > due or min(asked, default=now) > due:
            return False
        self._said_at = now
        return True

    def left(self, node: str) -> None:
        """A source has left in order, with nothing missing: forget its rows that do not wait."""
        for key in [key for key, row in self._rows.items() if row.node == node and not row.waiting]:
            self._drop(key)

    def echoed(self, said_at: float, now: float) -> Verdict[T]:
        """An echo that was sent at `said_at` is back, so the connection works. A source that was asked well before that
        (by one question's share of the patience) and has not answered is asked again, or given up after its last
        question."""
        verdict = self._judge(min(said_at, now) - PATIENCE_S / ASKS, ASKS, now)
        for key in list(self._waiting):
            self._settle(key)
        return verdict

    def expired(self, now: float) -> Verdict[T]:
        """Give up the sources that were asked longer than `LONGEST_S` ago, although no echo came back. Rows are settled
        by the next `questions()` only, so that `passes()` on another thread hands on nothing of theirs before."""
        return self._judge(now - LONGEST_S, 0, now)

    def _judge(self, before: float, asks: int, now: float) -> Verdict[T]:
        """Decide about every source that was asked before the time `before` and has not answered since.

        A source that was asked fewer than `asks` times is asked again (with `asks` 0, none is). Any other is given up:
        what its row holds goes to the receivers, and the holes become gaps. A row that does not know where to begin has
        no hole that could be reported; unless its source has answered for other topics, it is named as doubtful. While
        offline no source can answer, and nothing is decided.
        """
        result, doubtful = Sorted[T]([], []), set[str]()
        if not self._online:
            return Verdict(result, [])
        for key, row in list(self._waiting.items()):
            if row.asked is None or row.asked > before:
                continue
            if row.asks < asks:
                self._ask_again(row, now)
                continue
            if row.last is None and row.node not in self._answered:
                doubtful.add(row.source)
            self._give_up(key, row, NO_ANSWER, result)
        if self._catch_up is not None and self._catch_up.asked <= before:
            doubtful |= self._ask_the_silent(self._catch_up, asks, now)
        return Verdict(result, sorted(doubtful))

    def _ask_again(self, row: SourceRow[T], now: float) -> None:
        if row.last is None:  # about everything, as the row has no hole with known ends
            self._again.add(row.node)
            row.asked, row.asks, row.asked_from = now, row.asks + 1, None
        else:
            row.asked = None  # the next `questions()` asks for the hole

    def _ask_the_silent(self, catch_up: CatchUp, asks: int, now: float) -> set[str]:
        """Ask the sources that have not answered at all since an outage once more; then name them.

        Whether such a source sent anything meanwhile cannot be known before its next message. It is asked twice and
        named once. If it has still sent nothing at the end of the next outage, its row is forgotten."""
        silent = {key: row for key, row in self._rows.items() if row.node not in self._answered and not row.waiting}
        if catch_up.asks < asks:
            catch_up.asked, catch_up.asks = now, catch_up.asks + 1
            self._again |= {node for _, node in silent} if self._answered else {None}
            return set()
        self._catch_up = None
        named = {row.source for row in silent.values() if row.silent_at != row.last}
        for key, row in silent.items():
            if row.silent_at == row.last:
                self._drop(key)
            row.silent_at = row.last
        return named

    def _give_up(self, key: tuple[str, str], row: SourceRow[T], why: str, result: Sorted[T]) -> None:
        """Hand on everything that a row holds, and report each hole before and between as a gap."""
        for number in sorted(row.held):
            if row.last is not None and number > row.last + 1:
                result.gaps.extend(row.gap(number - 1, why))
            row.last = number
            result.ready.append(self._take(row, number))
        if row.last is None:
            self._drop(key)
        elif row.last < row.target:
            result.gaps.extend(row.gap(row.target, why))
            row.last = row.target


def _cannot_be(row: SourceRow[T], number: int) -> bool:
    return row.last is not None and number - row.last > LONGEST_JUMP
