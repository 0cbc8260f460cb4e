"""A call comes after what its own caller has published before it to the same instance.

The two may overtake each other on the way. A call goes before data in its sender's queue, and messages wait at their
source where the instance is behind. So a request says what its caller has published that the instance hears and no
answered call has said before: the last number on each topic (`PublishedBefore`, at the caller). The instance holds it
back until these messages are in the queue of its worker (`CallOrder`), and whatever the same caller calls meanwhile
behind it. Nothing is said, and nothing held, where nothing was published: most calls.

Only calls whose method takes its turn among messages are held; methods with threads of their own are not. Neither is a
call that comes back to a handler that waits for it.

The trap: requests arrive on the transport's thread, which may only enqueue. So what is held is looked at on a thread of
its own, every few milliseconds while there is any.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ether.connection.later import Later
from ether.connection.link import Link
from ether.log import get_ether_logger
from ether.protocol.presence import Announcement
from ether.transport.base import Receipt
from ether.wire.topics import SessionTopics, matches

logger = get_ether_logger("Ether")

_SAID_TOPICS = 64
"""So many topics fit into a request, at most; the next calls say the others."""
_REMEMBERED_TOPICS = 4096
_EXPECTED = 1000
"""Callers come and go, and one that calls such methods alone never has a call that is held."""

_LOOK_S, _LOOK_LATER_S = 0.003, 0.02
"""How often held calls are looked at: at first, and from a second on."""
_ON_THE_WAY_S = 0.1
"""For so long missing messages count as being on their way; then their source is asked for them."""
_UNKNOWN_S = 10.0
"""A caller that has not said for so long whether there is anything to wait for is not waited for."""


@dataclass(slots=True)
class _Callee:
    """What one incarnation of an instance was told."""

    incarnation: str
    filters: Sequence[str]
    """The topic filters that it listens to."""
    latest: Receipt | None = None
    """The latest message of this process that was taken into account."""
    told: dict[str, int] = field(default_factory=dict)
    """For each topic the last number that an answered call has told."""
    heard: dict[str, bool] = field(default_factory=dict)
    """Whether it listens to a topic."""


class PublishedBefore:
    """What the calls of one process say of its messages. May be used by several threads."""

    def __init__(self, link: Link, topics: SessionTopics) -> None:
        self._link, self._topics = link, topics
        self._callees: dict[str, _Callee] = {}

    def know(self, announcements: Sequence[Announcement]) -> None:
        """The announcements of all instances, whenever one has changed."""
        callees: dict[str, _Callee] = {}
        for announcement in announcements:
            name, earlier = announcement.name, self._callees.get(announcement.name)
            if earlier is not None and earlier.incarnation == announcement.incarnation:
                callees[name] = earlier
            elif filters := _filters_of(announcement, self._topics):
                callees[name] = _Callee(announcement.incarnation, filters)
        self._callees = callees

    def of(self, instance: str) -> tuple[str, Callable[[], None]] | None:
        """What a request to an instance has to say, and what is to be done when it was answered; None where it is
        nothing, as nothing was published since that it hears."""
        latest, callee = self._link.last_published, self._callees.get(instance)
        if latest is None or callee is None or callee.latest is latest:
            return None
        heads = {topic: last for topic, last in self._link.heads_here().items() if self._hears(callee, topic)}
        news = {topic: last for topic, last in heads.items() if callee.told.get(topic) != last}
        if not news:
            callee.latest = latest
            return None

        said = dict(list(news.items())[-_SAID_TOPICS:])

        def answered() -> None:
            callee.told.update(said)
            if len(said) == len(news):  # else the next call says the others
                callee.latest = latest

        return json.dumps(said, separators=(",", ":")), answered

    @staticmethod
    def _hears(callee: _Callee, topic: str) -> bool:
        known = callee.heard.get(topic)
        if known is None:
            known = any(matches(each, topic) for each in callee.filters)
            if len(callee.heard) < _REMEMBERED_TOPICS:
                callee.heard[topic] = known
        return known


def _filters_of(announcement: Announcement, topics: SessionTopics) -> list[str]:
    methods = announcement.about.get("methods")
    told = [each.get("subscribes") for each in (methods.values() if isinstance(methods, dict) else ()) if each]
    names = [name for each in told if isinstance(each, list) for name in each if isinstance(name, str)]
    return [topics.data_filter(name) for name in dict.fromkeys(names)]


class Incoming(Protocol):
    """What is asked of the link of an instance (`ether.connection.link.Link`)."""

    def lacking(self, node: str, heads: Mapping[str, int], *, ask: bool) -> tuple[int, int]:
        """How many messages up to these numbers have not come, and on how many topics it is not known."""

    def pull_first(self, nodes: frozenset[str]) -> None:
        """Where messages wait at their sources, get those of these nodes first."""


@dataclass(slots=True)
class _Held:
    heads: Mapping[str, int]
    trace: str | None
    deadline: float | None
    submit: Callable[[], None]
    job: object
    since: float = field(default_factory=time.monotonic)
    unknown_since: float | None = None
    seen_free: bool = False


class CallOrder:
    """The calls of one instance that have overtaken messages of their own callers."""

    def __init__(self, link: Incoming, later: Later, serves: Callable[[str | None], bool]) -> None:
        """`serves` tells whether a handler waits for a chain of calls."""
        self._link, self._later, self._serves = link, later, serves
        self._lock = threading.Lock()
        self._held: dict[str, deque[_Held]] = {}
        """For each caller its held calls, in their order."""
        self._expected: dict[str, dict[str, int]] = {}
        """What callers have said in calls whose method takes no turn; of the `_EXPECTED` callers who did so last."""
        self._looks = False

    def note(self, node: str, after: str) -> None:
        """A request has come whose method takes no turn: what it says counts for the caller's next call that does."""
        with self._lock:
            expected = self._expected.pop(node, {}) | _read(after)
            self._expected[node] = dict(list(expected.items())[-_REMEMBERED_TOPICS:])
            if len(self._expected) > _EXPECTED:
                del self._expected[next(iter(self._expected))]

    def submit(
        self, node: str, after: str | None, trace: str | None, deadline: float | None, job: object,
        submit: Callable[[], None],
    ) -> None:  # fmt: skip
        """Submit a call as soon as everything is here that its caller has published before it."""
        if after is None and not self._held and not self._expected:
            submit()
            return
        with self._lock:
            heads = self._expected.pop(node, {}) | (_read(after) if after is not None else {})
            held = _Held(heads, trace, deadline, submit, job)
            waits = self._held.get(node)
            must_wait = waits is not None or (bool(heads) and not self._is_free(node, held))
            if must_wait:
                self._held.setdefault(node, deque()).append(held)
                starts, self._looks = not self._looks, True
        if not must_wait:
            submit()
        elif starts:
            self._link.pull_first(frozenset(self._held))
            self._later.after(_LOOK_S, self._look)

    def before(self, job: object) -> tuple[str, int] | None:
        """The caller of a held call, and how many messages have not come that it waits for; None where it is not
        held."""
        with self._lock:
            for node, waits in self._held.items():
                for held in waits:
                    if held.job is job:
                        return node, self._link.lacking(node, held.heads, ask=False)[0]
        return None

    def _is_free(self, node: str, held: _Held) -> bool:
        now = time.monotonic()
        if self._serves(held.trace) or (held.deadline is not None and now >= held.deadline):
            return True
        missing, unknown = self._link.lacking(node, held.heads, ask=now - held.since > _ON_THE_WAY_S)
        if not unknown:
            held.unknown_since = None
        elif held.unknown_since is None:
            held.unknown_since = now
        elif now - held.unknown_since > _UNKNOWN_S:
            logger.warning("a call does not wait any longer for what its caller has published: nothing is known of it")
            unknown = 0
        return not missing and not unknown

    def _look(self) -> None:
        """On the thread of `Later`."""
        oldest = time.monotonic()
        try:
            for node in list(self._held):
                self._look_at(node)
                if (waits := self._held.get(node)) is not None:
                    oldest = min(oldest, waits[0].since)
        finally:  # whatever one look meets with: what is held must not be forgotten
            with self._lock:
                self._looks = goes_on = bool(self._held)
            self._link.pull_first(frozenset(self._held))
            if goes_on:
                self._later.after(_LOOK_S if time.monotonic() - oldest < 1.0 else _LOOK_LATER_S, self._look)

    def _look_at(self, node: str) -> None:
        for held in [each for each in list(self._held[node]) if self._serves(each.trace)]:
            self._release(node, held)
        while (waits := self._held.get(node)) is not None:
            held = waits[0]
            if not self._is_free(node, held):
                held.seen_free = False
                return
            # A message counts as here an instant before it is in the worker's queue. So a call is free the second time.
            if not held.seen_free:
                held.seen_free = True
                return
            self._release(node, held)

    def _release(self, node: str, held: _Held) -> None:
        held.submit()  # before it leaves the row: what comes meanwhile from the same caller stands behind it
        with self._lock:
            waits = self._held[node]
            waits.remove(held)
            if not waits:
                del self._held[node]


def _read(after: str) -> dict[str, int]:
    try:
        value = json.loads(after)
    except ValueError:
        return {}
    items = value.items() if isinstance(value, dict) else ()
    return {topic: number for topic, number in items if isinstance(topic, str) and type(number) is int}
