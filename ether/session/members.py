"""The members of a session as one program knows them: its presence table, and waiting for changes of it.

Promises: the lists that `announcements()` and `members()` return are consistent snapshots, taken without a lock. And a
will is not believed at once: it says that a connection broke, not that a process died. A broker that stood still
publishes, when it goes on, the wills of all the connections that living processes have given up. A process whose end is
seen on this machine, or told by its supervisor, is lost at once; any other one where it does not announce itself again.

The trap: announcements arrive on the dispatch thread, while other threads wait. Every change of the table wakes all
waiting threads, and calls the watchers while the lock is held. So a watcher must only enqueue.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ether.connection.deadline import Deadline
from ether.connection.link import Inbound, Link
from ether.connection.worker import Nested
from ether.errors import PayloadError
from ether.log import get_ether_logger
from ether.protocol.presence import (
    CLAIM,
    ECHO,
    HOLDS_ITS_NAME,
    LIVES,
    TAKES_PART,
    Announcement,
    Claims,
    PresenceTable,
    State,
    is_notice,
)
from ether.session.leader_rules import RETURN_S
from ether.system.process_owner import has_ended
from ether.wire.topics import SessionTopics

logger = get_ether_logger("Ether")

Event = Callable[[Announcement], object]
"""Called with every change of the presence table, mostly on the dispatch thread, under the lock: it must only
enqueue."""

_BACK_S = 3.0
"""So long after its will, or after this program's own reconnect, a living process has announced itself again."""

_LOOK_S = 0.1
"""How often it is looked whether the process of a will has ended on this machine."""

_NOBODY_ANSWERS = (State.LOST, State.ERROR, State.FAILED, State.RESTARTING, State.STOPPED)


class Members(ABC):
    """The members of the session and their states, as far as this program has received their announcements."""

    def __init__(self, link: Link, topics: SessionTopics) -> None:
        self.link = link
        self.topics = topics
        self._presence = PresenceTable()
        self._claims = Claims()
        self._watchers: list[Event] = []
        self._fact_watchers: list[tuple[str, Event]] = []
        self._changed = threading.Condition()
        self._known: list[Announcement] = []
        """The members of the table. Replaced as a whole, never changed, so that it can be read without the lock."""
        self._nested: list[Nested] = []
        self._wills: dict[str, tuple[Announcement, float]] = {}
        """Wills that are not believed yet, by name, and until when."""
        self._awaited: set[str] = set()
        """The texts of this program's own claims and echoes that have not come back."""
        self._tests_seen: set[str] = set()
        """The self-tests (`ether.session.member_discovery`) that came as retained messages, by name."""
        self._receive_state = self._on_state

    @abstractmethod
    def _lose(self, name: str, why: str, *, returns: bool = False) -> None:
        """No process answers under this name any more: note whose waiting for its answers ends. `returns`: another one
        will. Called under the lock."""

    @abstractmethod
    def _end_waiting(self) -> None:
        """End the waiting that `_lose` has noted. Called without the lock, after each change of the table."""

    @abstractmethod
    def _heard(self, name: str) -> None:
        """An instance has announced that it answers, perhaps again. Called under the lock."""

    @abstractmethod
    def _after(self, pause_s: float, task: Callable[[], object]) -> None:
        """Run a task after a pause, on another thread and without the lock."""

    @abstractmethod
    def _on_own_notice(self, inbound: Inbound) -> None:
        """A notice of this program's own is back."""

    # -- the table now

    def ready(self) -> frozenset[str]:
        """The names of the instances that are ready."""
        with self._changed:
            return self._presence.ready()

    def settled(self) -> frozenset[str]:
        """The names of the members that are ready, or whose start has failed."""
        with self._changed:
            return frozenset(m.name for m in self._presence.members() if m.state in (*TAKES_PART, State.ERROR))

    def announcements(self) -> list[Announcement]:
        """The latest announcements of all members, programs included, sorted by name."""
        return sorted(self._known, key=lambda member: member.name)

    def announcement(self, name: str) -> Announcement | None:
        """The latest announcement of a member; None for an unknown name."""
        with self._changed:
            return self._presence.get(name)

    def members(self, service: str) -> list[Announcement]:
        """The latest announcements of the instance with this name, or of all instances of the class with this name."""
        return [member for member in self._known if service in (member.name, member.about.get("class"))]

    @property
    def tests_left(self) -> bool:
        """Whether the broker holds self-tests of other programs, which may have been killed meanwhile."""
        return bool(self._tests_seen)

    # -- waiting

    def wait_ready(
        self, names: Iterable[str], deadline: Deadline, ended: Callable[[], Mapping[str, str]]
    ) -> dict[str, str]:
        """Wait until every instance is ready or has failed. Returns the reason for each that is not ready; empty when
        all are.

        `ended` returns the instances whose processes have ended without an announcement, with the reasons; call
        `wake()` when that changes.
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
        """Wait until one instance is ready, or one has failed. Returns the reason for each that has failed; for each
        that is not ready where the time is over."""
        names = list(names)

        def failed() -> list[str]:
            over = ended()
            return [name for name in names if name in over or self._has_error(name)]

        with self._changed:
            self._changed.wait_for(lambda: failed() or not self._presence.ready().isdisjoint(names), deadline.left())
            late = names if deadline.passed and self._presence.ready().isdisjoint(names) else failed()
            over = ended()
            return {name: self._why_not(name, over.get(name), deadline.timeout_s) for name in late}

    def _is_settled(self, name: str) -> bool:
        known = self._presence.get(name)
        return known is not None and known.state in (*TAKES_PART, State.ERROR)

    def _has_error(self, name: str) -> bool:
        known = self._presence.get(name)
        return known is not None and known.state is State.ERROR

    def _why_not(self, name: str, ended: str | None, waited_s: float) -> str:
        known = self._presence.get(name)
        if known is not None and known.error:
            return known.error
        if ended is not None:
            return ended
        state = known.state.value if known else "not heard of"
        return f"not ready within {waited_s:g} s (state: {state})"

    def await_return(self, service: str, deadline: Deadline) -> bool:
        """Wait for a restart: where no instance of a name or class is ready, but at least one is about to be
        restarted, wait until one is ready, or none is about to be any more. Returns whether one is ready after a wait;
        False at once where there is nothing to wait for. Of a name that is not known at all it may not be told for a
        moment after a lost connection: its members are on their way back to the broker, too."""
        with self._changed:
            if not self.members(service) and (returning_s := self._returning_s()) > 0:
                known = self._changed.wait_for(lambda: bool(self.members(service)), min(returning_s, deadline.left()))
                if known and not self._coming_back(service):
                    return any(member.state in TAKES_PART for member in self.members(service))
            if not self._coming_back(service):
                return False
            self._changed.wait_for(lambda: not self._coming_back(service), deadline.left())
            return any(member.state in TAKES_PART for member in self.members(service))

    def _returning_s(self) -> float:
        """How many seconds from now on members may be on their way back to a broker that had lost this process."""
        if self.link.offline_since is not None:
            return 2 * RETURN_S
        return 0.0 if self.link.back_at is None else self.link.back_at + RETURN_S - time.monotonic()

    def _coming_back(self, service: str) -> bool:
        members = self.members(service)
        return any(member.returns for member in members) and all(m.state not in TAKES_PART for m in members)

    def await_change(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until a condition on this table holds; it is checked after every change. Returns whether it holds."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)

    def wake(self) -> None:
        """Make waiting threads check their conditions again, after a change outside of the table."""
        with self._changed:
            self._notify()

    # -- names

    def holder(self, name: str) -> Announcement | None:
        """The announcement of the process that holds a name, as far as is known; None where the name is free."""
        with self._changed:
            known = self._presence.get(name)
        return known if known is not None and known.state in HOLDS_ITS_NAME else None

    def next_epoch(self, name: str) -> int:
        """The epoch for the next incarnation under a name."""
        with self._changed:
            return self._presence.next_epoch(name)

    # -- changes

    def watch(self, event: Event) -> None:
        """Call `event` with every announcement that changes the table, on the dispatch thread."""
        self._watchers.append(event)

    def watch_fact(self, key: str, event: Event) -> None:
        """The same where what is announced under `key` has changed."""
        self._fact_watchers.append((key, event))

    def say(self, announcement: Announcement) -> None:
        """Publish an announcement in place of the instance itself. It is in this program's table at once."""
        with self._changed:
            self._note(announcement)
            self._known = self._presence.members()
            self._notify()
        self._end_waiting()
        self.link.announce(self.topics.state(announcement.name), announcement.to_value())

    def lost(self, name: str, incarnation: str, why: str) -> None:
        """The process of an incarnation has ended. The program that started it reports this sooner than the broker
        does."""
        with self._changed:
            known = self._presence.get(name)
            if known is None:
                self._lose(name, why)
            elif known.incarnation == incarnation and known.state is not State.ERROR:  # an error has the better reason
                self._note(replace(known, state=State.LOST, error=why))
                self._known = self._presence.members()
            self._notify()
        self._end_waiting()

    def forget(self, name: str) -> None:
        """Remove a member that is gone, and of which the broker holds no announcement either."""
        self._take(name, None)

    def _on_state(self, inbound: Inbound) -> None:
        try:
            name = self.topics.instance_of_state(inbound.delivery.topic)
            value = inbound.unpack().value
        except PayloadError as error:
            logger.warning("an announcement on %r cannot be read: %s", inbound.delivery.topic, error)
            return
        finally:
            inbound.done()
        if name is None:
            return
        if value is None:
            # Where the announcement is this program's own, somebody took it for dead; otherwise nothing is repeated.
            self.link.repeat(inbound.delivery.topic)
        if is_notice(value):
            self._on_notice(name, value, inbound)
        elif not name.startswith("$"):  # a self-test that is withdrawn
            self._take(name, value)

    def _on_notice(self, name: str, notice: Any, inbound: Inbound) -> None:
        """A claim, an echo or a self-test."""
        text = str(notice.get(CLAIM) or notice.get(ECHO))
        with self._changed:
            if inbound.delivery.retained:
                self._tests_seen.add(name)
                return
            if CLAIM in notice:
                self._claims.note(name, text, time.monotonic())
            own = text in self._awaited
            self._awaited.discard(text)
            self._notify()
        if own:
            self._on_own_notice(inbound)

    def _take(self, name: str, value: object) -> None:
        announcement = Announcement.from_value(value)
        with self._changed:
            if value is None:
                self._forget(name)
            elif announcement is not None and announcement.name == name:
                self._note(announcement)
            self._known = self._presence.members()
            self._notify()
        self._end_waiting()

    def _forget(self, name: str) -> None:
        """The announcement was cleared: the member has left, or the reaper has removed it."""
        known = self._presence.get(name)
        self._wills.pop(name, None)
        self._lose(name, "left")
        self._presence.forget(name)
        if known is not None and known.state is not State.LOST:
            self._call_watchers(replace(known, state=State.STOPPED, error=""))

    def _note(self, announcement: Announcement) -> None:
        """Apply an announcement to the table, and pass on what follows from it. Under the lock."""
        if announcement.is_will and self._is_in_doubt(announcement):
            self._wills[announcement.name] = announcement, time.monotonic() + _BACK_S
            self._after(_LOOK_S, partial(self._look_at_will, announcement))
        else:
            self._apply(announcement)

    def _is_in_doubt(self, will: Announcement) -> bool:
        """Whether the process of a will may live: it lived so far, and its end is not seen here."""
        known = self._presence.get(will.name)
        lived = known is not None and known.incarnation == will.incarnation and known.state in LIVES
        return known is not None and lived and not has_ended(known.about)

    def _look_at_will(self, will: Announcement) -> None:
        """Believe a will or wait on, unless the process has announced itself since. On the thread of `_after`."""
        with self._changed:
            waiting, until = self._wills.get(will.name, (None, 0.0))
            if waiting is not will:
                return
            now = time.monotonic()
            if not self.link.transport.connected:  # it may have announced itself unheard
                until = now + _BACK_S
                self._wills[will.name] = will, until
            if now < until and self._is_in_doubt(will):
                self._after(_LOOK_S, partial(self._look_at_will, will))
                return
            self._apply(will)
            self._known = self._presence.members()
            self._notify()
        self._end_waiting()

    def _apply(self, announcement: Announcement) -> None:
        announcement = announcement.believed
        name, before = announcement.name, self._presence.get(announcement.name)
        if not self._presence.apply(announcement):
            return
        self._wills.pop(name, None)
        if before is None or before.incarnation != announcement.incarnation:
            # The claim is settled. An announcement of the earlier holder, whose place may have been claimed meanwhile,
            # settles nothing.
            self._claims.release(name)
        # A planned restart, which has no error, lets the instance finish its calls first, so their answers still come.
        planned = announcement.state is State.RESTARTING and not announcement.error
        if announcement.state in _NOBODY_ANSWERS and not planned:
            self._lose(name, announcement.error or "its connection broke", returns=announcement.returns)
        elif before is not None and before.incarnation != announcement.incarnation:
            self._lose(name, "another process has taken its place", returns=True)
        if announcement.state in TAKES_PART:
            self._heard(name)
        if before is None or (before.incarnation, before.state) != (announcement.incarnation, announcement.state):
            self._call_watchers(announcement)
        for key, event in self._fact_watchers:
            if announcement.about.get(key) != (before.about.get(key) if before is not None else None):
                event(announcement)

    def _call_watchers(self, announcement: Announcement) -> None:
        for watcher in self._watchers:
            watcher(announcement)

    def _notify(self) -> None:
        """Wake all waiting threads. Called under the lock."""
        self._changed.notify_all()
        # A worker that waits inside of a handler waits on a queue of its own, so that it can serve nested jobs
        # meanwhile.
        for nested in self._nested:
            nested.put(None)
