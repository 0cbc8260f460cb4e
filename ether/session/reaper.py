"""Clears what killed programs have left in the session: every living program sweeps, and whoever joins sweeps first.

A program that was killed cannot clear anything. The broker takes the program itself off the list, and its instances
die and are said to be lost; then nobody answers for what is announced of them. Promise: within 5 s of the death nothing
of it is left, as long as one program lives or joins. Nobody asks who is to do it: clearing twice does no harm.

The traps: a short cut of the network looks like a death, so what looks dead is looked at twice before it is cleared;
who was wrongly cleared is announced again as soon as it is back. And a broker that was started anew has forgotten the
dead and tells nobody, so after each reconnect the table is compared with what the broker holds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable

from ether.connection.link import Inbound
from ether.errors import EtherError
from ether.log import get_ether_logger
from ether.protocol.presence import LIVES, Announcement, State
from ether.session.session import Session
from ether.session.stale_rules import StaleEntries, find_orphans, keepers_among

logger = get_ether_logger("Ether")

LOOK_AGAIN_S = 1.2
"""Longer than an orphan lives."""

_RECONNECT_S = 2.4
"""By then whoever lives is back, once the broker is."""

_ASK_TIMEOUT_S = 2.0
_ALIVE = LIVES


class Reaper:
    """Looks after the table of one program's session, from `start()` to `stop()`."""

    def __init__(self, session: Session, kept: Callable[[], Collection[str]], program: Callable[[], str]) -> None:
        """`kept` gives the names of the instances that this program keeps, `program` the name that they know it by."""
        self._session = session
        self._kept = kept
        self._program = program
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self._reconnected_at: float | None = None
        self._suspects: frozenset[tuple[str, str, State]] = frozenset()
        self._thread = threading.Thread(target=self._run, name="ether-sweeper", daemon=True)

    def start(self, timeout_s: float) -> None:
        """Sweep, and go on sweeping. Where the names that this program wants for itself are held by processes that are
        about to die, it waits for that; returns all the same when the time is over."""
        session = self._session
        session.watch(self._on_change)
        session.link.listen(session.topics.session_info, self._on_own_entry, timeout_s=_ASK_TIMEOUT_S)
        session.link.listen(session.topics.state(session.link.source), self._on_own_entry, timeout_s=_ASK_TIMEOUT_S)
        kept = self._kept()
        orphans = self._look(nobody_kept=True)
        in_the_way = {member.name for member in orphans.dying if member.name in kept}
        if in_the_way:
            session.await_change(lambda: in_the_way.isdisjoint(_alive(session.announcements())), timeout_s)
            orphans = self._look(nobody_kept=True)
        self._clear(orphans.ghosts)
        self._thread.start()

    def stop(self) -> None:
        """Sweep no more. Twice is fine."""
        self._stopped.set()
        self._wanted.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _on_change(self, announcement: Announcement) -> None:
        """On the dispatch thread."""
        if announcement.state not in _ALIVE:
            self._wanted.set()

    def _on_own_entry(self, inbound: Inbound) -> None:
        """On the dispatch thread. The leader's entry vanishes with the leader; our own comes back to us, live, when we
        have announced it anew, which is after a reconnect."""
        delivery = inbound.delivery
        inbound.done()
        if not delivery.payload:
            self._wanted.set()
        elif not delivery.retained:
            self._reconnected_at = time.monotonic()
            self._wanted.set()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._stopped.wait(LOOK_AGAIN_S):
                return
            try:
                self._sweep()
            except EtherError as error:  # no connection: there will be another look when it is back
                logger.debug("could not look for what killed programs left: %s", error)

    def _sweep(self) -> None:
        if self._reconnected_at is not None:
            self._compare_in_time(self._reconnected_at)
        ghosts = self._look().ghosts
        confirmed = [ghost for ghost in ghosts if _mark(ghost) in self._suspects]
        self._suspects = frozenset(_mark(ghost) for ghost in ghosts) - {_mark(ghost) for ghost in confirmed}
        if self._suspects:
            self._wanted.set()
        self._clear(confirmed)

    def _look(self, *, nobody_kept: bool = False) -> StaleEntries:
        session = self._session
        members = session.announcements()
        keepers, me = keepers_among(members), self._program()
        kept = () if nobody_kept else self._kept()
        orphans = find_orphans(members, keepers, me, kept)
        if not orphans:
            return orphans
        leader = session.info(_ASK_TIMEOUT_S).get("program")
        return find_orphans(members, keepers | {leader} if isinstance(leader, str) else keepers, me, kept)

    def _clear(self, ghosts: Iterable[Announcement]) -> None:
        session = self._session
        for ghost in ghosts:
            known = session.announcement(ghost.name)
            if known is not None and _mark(known) == _mark(ghost):
                logger.info("clearing %s (%s): nobody keeps it any more", ghost.name, ghost.state.value)
                session.link.withdraw(session.topics.state(ghost.name), _ASK_TIMEOUT_S)

    def _compare_in_time(self, reconnected_at: float) -> None:
        if time.monotonic() - reconnected_at < _RECONNECT_S:
            self._wanted.set()
        else:
            self._reconnected_at = None
            self._compare(self._held())

    def _compare(self, held: Collection[str]) -> None:
        """Whoever is in the table and not with the broker died while we, or everybody, were away."""
        session = self._session
        leader = session.info(_ASK_TIMEOUT_S).get("program")
        ours = {*self._kept(), *session.calls.local_instances}
        for member in session.announcements():
            if member.name in held or member.name in ours:
                continue
            keeper = member.about.get("keeper")
            if member.state in _ALIVE and keeper is not None and (keeper in held or keeper == leader):
                session.lost(member.name, member.incarnation, "it has not come back since the broker was away")
            else:
                session.forget(member.name)

    def _held(self) -> frozenset[str]:
        """The names of those about whom the broker holds an announcement."""
        session, held = self._session, set[str]()

        def receive(inbound: Inbound) -> None:
            name = session.topics.instance_of_state(inbound.delivery.topic)
            if name is not None and inbound.delivery.payload:
                held.add(name)
            inbound.done()

        everybody = session.topics.state("+")
        session.link.listen(everybody, receive, timeout_s=_ASK_TIMEOUT_S)
        try:
            session.catch_up(_ASK_TIMEOUT_S)
        finally:
            session.link.unlisten(everybody, receive)
        return frozenset(held)


def _alive(members: Iterable[Announcement]) -> set[str]:
    return {member.name for member in members if member.state in _ALIVE}


def _mark(member: Announcement) -> tuple[str, str, State]:
    return member.name, member.incarnation, member.state
