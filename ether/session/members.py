"""The members of a session as one program knows them: the presence table, and waiting for it to change.

The trap: announcements come in on the dispatch thread, and everybody else waits on other threads. Whatever changes the
table wakes all of them, and tells the watchers while the lock is held: a watcher only enqueues.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from ether.connection.deadline import Deadline
from ether.connection.link import Inbound, Link
from ether.connection.worker import Nested
from ether.errors import PayloadError
from ether.log import get_ether_logger
from ether.protocol.presence import HOLDS_ITS_NAME, TAKES_PART, Announcement, Claims, PresenceTable, State
from ether.wire.topics import SessionTopics

logger = get_ether_logger("Ether")

Event = Callable[[Announcement], object]
"""Told of every change in the presence table, on the dispatch thread: it must only enqueue."""

_NOBODY_ANSWERS = (State.LOST, State.ERROR, State.FAILED, State.RESTARTING, State.STOPPED)


class Members(ABC):
    """Who is there, in which state, as far as this program has heard."""

    def __init__(self, link: Link, topics: SessionTopics) -> None:
        self.link = link
        self.topics = topics
        self._presence = PresenceTable()
        self._claims = Claims()
        self._watchers: list[Event] = []
        self._changed = threading.Condition()
        self._known: list[Announcement] = []
        self._nested: list[Nested] = []

    @abstractmethod
    def _lose(self, name: str, why: str) -> None:
        """Nobody answers under this name any more: whoever waits for it is told; under the lock."""

    def ready(self) -> frozenset[str]:
        """The names of the instances that are ready."""
        with self._changed:
            return self._presence.ready()

    def announcements(self) -> list[Announcement]:
        """What is known of everybody, programs included, by name."""
        return sorted(self._known, key=lambda member: member.name)

    def watch(self, event: Event) -> None:
        """Call `event` with every announcement that changes the table, on the dispatch thread."""
        self._watchers.append(event)

    def announcement(self, name: str) -> Announcement | None:
        """What is known of an instance."""
        with self._changed:
            return self._presence.get(name)

    def members(self, service: str) -> list[Announcement]:
        """What is known of the instance of this name, or of those of the class of this name."""
        return [member for member in self._known if service in (member.name, member.about.get("class"))]

    def wait_ready(
        self, names: Iterable[str], deadline: Deadline, ended: Callable[[], Mapping[str, str]]
    ) -> dict[str, str]:
        """Wait until every instance is ready; returns why others are not, empty when all are.

        `ended` says which of their processes have ended without a word; call `wake()` when that may have changed.
        """
        names = list(names)

        def settled() -> bool:
            over = ended()
            return all(name in over or self._is_settled(name) for name in names)

        with self._changed:
            self._changed.wait_for(settled, deadline.left())
            missing = self._presence.not_ready(names)
            over = ended()
            return {name: self._why_not(name, over.get(name), deadline.timeout_s) for name in missing}

    def wait_any(
        self, names: Iterable[str], deadline: Deadline, ended: Callable[[], Mapping[str, str]]
    ) -> dict[str, str]:
        """Wait until one of these is ready, or will not be; returns why those that will not are not."""
        names = list(names)

        def failed() -> list[str]:
            over = ended()
            return [name for name in names if name in over or self._has_error(name)]

        with self._changed:
            self._changed.wait_for(lambda: failed() or not self._presence.ready().isdisjoint(names), deadline.left())
            late = names if deadline.passed and self._presence.ready().isdisjoint(names) else failed()
            over = ended()
            return {name: self._why_not(name, over.get(name), deadline.timeout_s) for name in late}

    def _has_error(self, name: str) -> bool:
        known = self._presence.get(name)
        return known is not None and known.state is State.ERROR

    def await_return(self, service: str, deadline: Deadline) -> bool:
        """Where everybody of a name or class is away and at least one of them comes back: wait until one is ready, or
        nobody comes any more. False where that is so already, or when the time is over."""
        with self._changed:
            if not self._coming_back(service):
                return False
            self._changed.wait_for(lambda: not self._coming_back(service), deadline.left())
            return any(member.state in TAKES_PART for member in self.members(service))

    def _coming_back(self, service: str) -> bool:
        members = self.members(service)
        return any(member.returns for member in members) and all(m.state not in TAKES_PART for m in members)

    def wake(self) -> None:
        """Something outside of the session changed that a waiter looks at."""
        with self._changed:
            self._notify()

    def _is_settled(self, name: str) -> bool:
        known = self._presence.get(name)
        return known is not None and known.state in (*TAKES_PART, State.ERROR)

    def _why_not(self, name: str, ended: str | None, waited_s: float) -> str:
        known = self._presence.get(name)
        if known is not None and known.error:
            return known.error
        if ended is not None:
            return ended
        state = known.state.value if known else "not heard of"
        return f"not ready within {waited_s:g} s (state: {state})"

    def holder(self, name: str) -> Announcement | None:
        """Who holds a name, as far as is known; None where it is free."""
        with self._changed:
            known = self._presence.get(name)
        return known if known is not None and known.state in HOLDS_ITS_NAME else None

    def next_epoch(self, name: str) -> int:
        """For the next birth under a name."""
        with self._changed:
            return self._presence.next_epoch(name)

    def say(self, announcement: Announcement) -> None:
        """Announce something of an instance in its stead; it counts here at once."""
        with self._changed:
            self._note(announcement)
            self._known = self._presence.members()
            self._notify()
        self.link.announce(self.topics.state(announcement.name), announcement.to_value())

    def lost(self, name: str, incarnation: str, why: str) -> None:
        """An instance's process ended: told by whoever started it, sooner than the broker would."""
        with self._changed:
            known = self._presence.get(name)
            if known is None:
                self._lose(name, why)
            elif known.incarnation == incarnation and known.state is not State.ERROR:  # which says why, and better
                self._note(replace(known, state=State.LOST, error=why))
                self._known = self._presence.members()
            self._notify()

    def _on_state(self, inbound: Inbound) -> None:
        try:
            name = self.topics.instance_of_state(inbound.delivery.topic)
            value = inbound.unpack().value
        except PayloadError as error:
            logger.warning("an announcement on %r cannot be read: %s", inbound.delivery.topic, error)
            return
        finally:
            inbound.done()
        if name is not None:
            self._take(name, value)

    def _take(self, name: str, value: object) -> None:
        announcement = Announcement.from_value(value)
        with self._changed:
            if value is None:
                self._forget(name)
            elif announcement is not None and announcement.name == name:
                self._note(announcement)
            self._known = self._presence.members()
            self._notify()

    def _forget(self, name: str) -> None:
        known = self._presence.get(name)
        self._lose(name, "left")
        self._presence.forget(name)
        if known is not None and known.state is not State.LOST:
            self._tell(replace(known, state=State.STOPPED, error=""))

    def _note(self, announcement: Announcement) -> None:
        name, before = announcement.name, self._presence.get(announcement.name)
        if not self._presence.apply(announcement):
            return
        self._claims.release(name)
        planned = announcement.state is State.RESTARTING and not announcement.error  # it finishes what it has begun
        if announcement.state in _NOBODY_ANSWERS and not planned:
            self._lose(name, announcement.error or "its connection broke")
        elif before is not None and before.incarnation != announcement.incarnation:
            self._lose(name, "another process has taken its place")
        if before is None or (before.incarnation, before.state) != (announcement.incarnation, announcement.state):
            self._tell(announcement)

    def _tell(self, announcement: Announcement) -> None:
        for watcher in self._watchers:
            watcher(announcement)

    def _notify(self) -> None:
        """Wake everybody who waits; under the lock."""
        self._changed.notify_all()
        for nested in self._nested:
            nested.put(None)

    def settled(self) -> frozenset[str]:
        """The names of those who are ready, or whose start has failed."""
        with self._changed:
            return frozenset(m.name for m in self._presence.members() if m.state in (*TAKES_PART, State.ERROR))

    def forget(self, name: str) -> None:
        """Somebody is not there any more, and the broker holds nothing of it either."""
        self._take(name, None)

    def await_change(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something is so that follows from what is known of the others."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)
