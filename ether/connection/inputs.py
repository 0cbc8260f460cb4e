"""What a process was handed, for the lineage of what it makes of it; and what the user's code says a value is made of.

An `InputLog` belongs to a link. Whoever hands something to user code notes it: messages, calls, answers, records that
are read. Whoever records a result asks what came since the last result of that name (`since`), and tells when it is
recorded (`made`).

Noting is on the path of every message, so it appends what is there already to a list, without a lock and without an
allocation. The list is looked at when a result is recorded, which mostly finds the one message that was being handled;
every `_FOLDED` items its older half is folded into windows (`ether.connection.input_rules`).

The traps. A result may be made in the middle of a handler, which stores its message afterwards: what was in work counts
as heard for the next result. And `made_of` returns the user's own value, which must never be wrapped, because a class
works the same without Ether: the value is recognised by its identity, by the thread and cause that named it, and once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple

from ether.connection import causes
from ether.connection.input_rules import Input, InputRow, Item, Key, Window, facts_of

MAX_INPUTS = 32
"""The number of pairs of topic and source whose latest message is remembered; the oldest pair is forgotten first."""

_FOLDED = 512
_FEW = 4
_MOST_OUTPUTS = 64
"""Names of results whose last one is remembered. Of others everything since the start counts."""

MOST_PARENTS = 1_000
"""Parents that stand in a message's headers and in its record. A longer list is kept beside the record."""


class Lineage(NamedTuple):
    """What a result is made of. (A tuple, because one is made for each result.)"""

    handled: tuple[str, ...] = ()
    """The message or call that is being handled."""
    made_of: tuple[str, ...] | None = None
    """What the user's code has named; None where it has named nothing."""
    upto: int = 0
    """`InputLog.upto`, when the code that makes the result had begun: what comes later may go into the next one."""
    in_work: tuple[str, ...] = ()
    """The messages that other handlers had begun then, and those that go on when the result is handed over."""
    described: bool = True
    """False for what is no result, such as the repetition of a message."""

    @property
    def parents(self) -> tuple[str, ...]:
        """The parents that stand in the headers and in the record."""
        named = self.made_of
        return self.handled if named is None or len(named) > MOST_PARENTS else named


NO_LINEAGE = Lineage(described=False)

Parents = tuple[str, ...] | Lineage
"""What stands as the parents of a record: their ids alone, for what is no result, or a lineage."""


def lineage_from(parents: Parents) -> Lineage:
    """The lineage that these parents are."""
    return parents if isinstance(parents, Lineage) else Lineage(parents, described=False)


class Heard(NamedTuple):
    """What a process could have used for a result, beside its parents."""

    before: list[str]
    """Ids of messages that it had heard before: the latest of each topic and source."""
    forgotten: int
    """How many topics and sources are not in `before`, because there were too many."""
    rows: list[tuple[Key, InputRow]]
    """What came since the last result of that name."""
    left_out: int
    """How many messages more came of further topics and sources."""


@dataclass(slots=True)
class _Output:
    """The results of one name. `mark`: up to which item they have been told; `window`: what came since and is folded;
    `carried`: what was in work when the last one was made."""

    mark: int
    window: Window | None = None
    carried: tuple[str, ...] = ()
    told: tuple[int, tuple[str, ...], Heard | None] | None = None
    """What `since` gave last: how many items there were, what was known, and what it gave. None after a change of the
    rest."""


class InputLog:
    """What one process was handed. Every method may be called from any thread."""

    def __init__(self) -> None:
        self.in_work: Callable[[], tuple[str, ...]] = tuple
        """Gives the ids of the messages that threads of this process are handling."""
        self._lock = threading.Lock()
        self._items: list[Item] = []
        self._base = 0
        """How many items were folded and taken out of the list."""
        self._since_start = Window()
        self._outputs: dict[str, _Output] = {}
        self._latest: OrderedDict[Key, str] = OrderedDict()
        self._latest_upto = 0
        self._forgotten: set[Key] = set()

    def note(self, item: Item) -> int:
        """Something is handed to user code; returns how many items were noted, as `upto`."""
        items = self._items
        items.append(item)
        if len(items) >= _FOLDED:
            self._fold()
        return self._base + len(items)

    def give(self, item: Item) -> None:
        """The same for what a program asked for itself; a block of `collecting` around it gets the id."""
        self.note(item)
        if (wanted := _collected.get()) is not None and (message_id := facts_of(item)[2]):
            wanted.append(message_id)

    def since(self, output: str, known: Sequence[str]) -> Heard | None:
        """What could have been used for a result of that name, beside `known`; None for nothing."""
        if not self._items:
            return None
        known, told = tuple(known), self._outputs.get(output)
        if told is not None and (last := told.told) is not None and last[:2] == (self.upto, known):
            return last[2]  # nothing has come since the same was asked: results that are made in a burst
        with self._lock:
            heard, upto = self._since(output, known)
            if (told := self._outputs.get(output)) is not None:
                told.told = upto, known, heard
        return heard

    def _since(self, output: str, known: tuple[str, ...]) -> tuple[Heard | None, int]:
        """Under the lock: the same, and how many items there are."""
        items, base, count = self._items, self._base, len(self._items)
        upto, told = base + count, self._outputs.get(output)
        is_stage = told is not None and told.mark == upto - 1 and not told.carried
        if is_stage and self._is_only(count - 1, known):
            return None, upto
        self._note_latest(count)
        begin = 0 if told is None else max(0, told.mark - base)
        folded = self._since_start if told is None else told.window
        carried = () if told is None else told.carried
        rows: list[tuple[Key, InputRow]] = []
        left_out, named = 0, frozenset[Key]()
        latest = self._latest
        if (folded is not None and folded.rows) or not _names_all(items, begin, count, known):
            window = Window()
            if folded is not None:
                window.merge(folded)
            window.add(items[begin:count])
            left_out, named = window.left_out, frozenset(window.rows)
            rows = [(key, row) for key, row in window.rows.items() if not _is_told(key, row, known, latest)]
        covered = {key for key, row in rows if row.runs}
        before = [each for key, each in latest.items() if key not in covered and each not in known]
        before += [each for each in carried if each not in known and each not in before]
        forgotten = len(self._forgotten - named) if self._forgotten else 0
        says = before or rows or forgotten or left_out
        return Heard(before, forgotten, rows, left_out) if says else None, upto

    def _is_only(self, at: int, known: Sequence[str]) -> bool:
        """Under the lock: whether this process has never been handed anything but the item at that place and others of
        its topic and source, as in most stages of a pipeline; and whether the item is known."""
        item, place = self._items[at], self._base + at
        if isinstance(item, Input) or self._latest_upto < place or len(self._latest) > 1:
            return False
        topic, headers = item
        if headers is None or headers.id not in known:
            return False
        key = ("data", topic, headers.source)
        if key not in self._latest:
            return False
        self._latest[key], self._latest_upto = headers.id, place + 1
        return True

    @property
    def upto(self) -> int:
        """How many items were noted."""
        return self._base + len(self._items)

    def made(self, output: str, upto: int, in_work: tuple[str, ...] = ()) -> None:
        """A result of that name was recorded; `upto` and `in_work` as in its `Lineage`."""
        told = self._outputs.get(output)
        if told is not None and told.mark == upto and told.window is None and told.carried == in_work:
            return
        with self._lock:
            told = self._outputs.get(output)
            if told is None:
                self._outputs[output] = told = _Output(0)
                if upto < self._base:  # folded meanwhile: rather too many than too few
                    told.window = Window()
                    told.window.merge(self._since_start)
                if len(self._outputs) > _MOST_OUTPUTS:
                    del self._outputs[next(iter(self._outputs))]
            if upto >= self._base:
                told.mark, told.window = upto, None
            told.carried, told.told = in_work, None

    def _note_latest(self, count: int) -> None:
        """Under the lock: bring `_latest` up to the first `count` items of the list."""
        latest = self._latest
        for item in self._items[self._latest_upto - self._base : count]:
            key, _, message_id = facts_of(item)
            if not message_id:
                continue
            latest[key] = message_id
            latest.move_to_end(key)
            if len(latest) > MAX_INPUTS:
                self._forgotten.add(latest.popitem(last=False)[0])
            if self._forgotten:
                self._forgotten.discard(key)
                if len(self._forgotten) > _FOLDED:
                    self._forgotten.pop()
        self._latest_upto = self._base + count

    def _fold(self) -> None:
        """Take the older half out of the list."""
        with self._lock:
            count = len(self._items) // 2
            if count < _FOLDED // 2:
                return  # another thread has done so
            self._note_latest(len(self._items))
            folded, base = self._items[:count], self._base
            self._since_start.add(folded)
            for told in self._outputs.values():
                if (begin := max(0, told.mark - base)) < count:
                    told.window = told.window or Window()
                    told.window.add(folded[begin:])
            self._base += count
            del self._items[:count]  # other threads may have appended meanwhile


def _names_all(items: Sequence[Item], begin: int, end: int, known: Sequence[str]) -> bool:
    """Whether all of these items are among the known ids; only looked at where they are few."""
    return end - begin <= _FEW and all(facts_of(item)[2] in known for item in items[begin:end])


def _is_told(key: Key, row: InputRow, known: Sequence[str], latest: Mapping[Key, str]) -> bool:
    """Whether a row has a single message that is known, or is told as the latest of its topic and source."""
    row.sort()
    if row.count != 1 or row.nameless:
        return False
    only = row.runs[0].last_id
    return only in known or latest.get(key) == only


# -- what the user's code names


@dataclass(slots=True, eq=False)
class _Named:
    value: object
    ids: tuple[str, ...]
    cause: causes.Cause
    thread: int = field(default_factory=threading.get_ident)


_MOST_NAMED = 16
NAMED: list[_Named] = []
"""Values that were given to `made_of` and not handed over yet, the latest last."""

_collected: ContextVar[list[str] | None] = ContextVar("ether_collected", default=None)


def name_parents(value: object, ids: tuple[str, ...]) -> None:
    """The value that is handed over next, if it is this very object, is made of these messages and nothing else."""
    NAMED.append(_Named(value, ids, causes.current()))
    if len(NAMED) > _MOST_NAMED:
        del NAMED[0]


def lineage_of(value: object, upto: int, in_work: tuple[str, ...]) -> Lineage:
    """What a value is made of that is handed over now, by the code that calls this."""
    return Lineage(causes.parents(), named_parents(value) if NAMED else None, upto, in_work)


def named_parents(value: object) -> tuple[str, ...] | None:
    """The ids that `name_parents` was given for this object under the present cause; asked once."""
    if not NAMED:
        return None
    cause, thread = causes.current(), threading.get_ident()
    for named in reversed(NAMED):
        if named.value is value and named.cause is cause and (cause.trace is not None or named.thread == thread):
            NAMED.remove(named)
            return named.ids
    return None


def forget_named() -> int:
    """A handler has returned: forget what it has named and not handed over; returns how many that were."""
    if not NAMED:
        return 0
    cause = causes.current()
    left = [named for named in NAMED if named.cause is cause]
    for named in left:
        if named in NAMED:
            NAMED.remove(named)
    return len(left)


class collecting:  # noqa: N801  used like a function
    """Within the block, `ids` gets the id of everything that this thread asks for: answers, messages, records."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def __enter__(self) -> list[str]:
        self._token = _collected.set(self.ids)
        return self.ids

    def __exit__(self, *_: object) -> None:
        _collected.reset(self._token)
