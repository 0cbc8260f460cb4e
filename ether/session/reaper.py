"""The reaper: clears the announcements that killed programs have left behind in the session.

A killed program cannot clear anything. The broker publishes its will, its instances end and are announced as lost, and
then no program is responsible for their announcements. Every living program runs a reaper, and a program that joins
looks before anything else. They do not agree on one of them, because clearing twice does no harm.

Promise: within 5 s of a program's death nothing of it is left, as long as one program lives or joins.

The traps: a short cut of the network looks like a death. So an announcement has to look stale twice before it is
cleared, and an instance whose announcement was cleared by mistake announces itself again as soon as it is back. And a
broker that was restarted has forgotten the dead without notice. So after each reconnect the presence table is
compared with the announcements that the broker holds. A member that the broker does not hold, as far as it shows, is
asked before it is forgotten: not every broker shows retained messages to wildcards.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable

from ether.connection.link import Inbound
from ether.errors import EtherError
from ether.log import get_ether_logger
from ether.protocol.presence import LIVES, Announcement, State, is_notice
from ether.session.session import Session
from ether.session.stale_rules import StaleEntries, find_orphans, supervisors_among

logger = get_ether_logger("Ether")

LOOK_AGAIN_S = 1.2
"""Between two looks: longer than an instance lives after its supervisor has died."""

_RECONNECT_S = 2.4
"""Every living process has reconnected and announced itself this long after the broker is back."""

_ASK_TIMEOUT_S = 2.0
_SPEAK_UP_S = 1.0
"""How long a member that the broker does not show may take to answer."""


class Reaper:
    """The reaper of one program, from `start()` to `stop()`."""

    def __init__(self, session: Session, supervised: Callable[[], Collection[str]], program: Callable[[], str]) -> None:
        """`supervised` returns the names of the instances that this program supervises, `program` the name by which
        they know it."""
        self._session = session
        self._supervised = supervised
        self._program = program
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self._reconnected_at: float | None = None
        self._suspects: frozenset[tuple[str, str, State]] = frozenset()
        self._thread = threading.Thread(target=self._run, name="ether-reaper", daemon=True)

    def start(self, timeout_s: float) -> None:
        """Look at once, and then whenever the session changes. Where orphans that are about to die hold names that this
        program wants for its own instances, wait for their end, for at most `timeout_s` seconds."""
        session = self._session
        session.watch(self._on_change)
        session.link.listen(session.topics.session_info, self._on_own_entry, timeout_s=_ASK_TIMEOUT_S)
        session.link.listen(session.topics.state(session.link.source), self._on_own_entry, timeout_s=_ASK_TIMEOUT_S)
        # This program has started no instance yet, so those with the names that it wants are not its own.
        wanted = self._supervised()
        orphans = self._look(supervises_none=True)
        in_the_way = {member.name for member in orphans.dying if member.name in wanted}
        if in_the_way:
            session.await_change(lambda: in_the_way.isdisjoint(_alive(session.announcements())), timeout_s)
            orphans = self._look(supervises_none=True)
        self._clear(orphans.stale)
        if session.tests_left:
            self._wanted.set()
        self._thread.start()

    def stop(self) -> None:
        """Look no more. May be called twice."""
        self._stopped.set()
        self._wanted.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _on_change(self, announcement: Announcement) -> None:
        """On the dispatch thread."""
        if announcement.state not in LIVES:
            self._wanted.set()

    def _on_own_entry(self, inbound: Inbound) -> None:
        """On the dispatch thread. The session's entry is cleared when its leader leaves or dies. An own announcement
        that comes back as a live message, not as a retained one, was published again: the link has reconnected."""
        delivery, value = inbound.delivery, inbound.take()
        if is_notice(value):
            return
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
                self._reap()
            except EtherError as error:  # no connection: the next look follows the reconnect
                logger.debug("could not look for what killed programs left: %s", error)

    def _reap(self) -> None:
        """Clear what looks stale now and looked so at the last look; ask for another look at the rest."""
        self._session.withdraw_tests()
        if self._reconnected_at is not None:
            self._compare_in_time(self._reconnected_at)
        stale = self._look().stale
        confirmed = [member for member in stale if _key(member) in self._suspects]
        self._suspects = frozenset(map(_key, stale)) - frozenset(map(_key, confirmed))
        if self._suspects:
            self._wanted.set()
        self._clear(confirmed)

    def _look(self, *, supervises_none: bool = False) -> StaleEntries:
        """The orphans of the session now."""
        session = self._session
        members = session.announcements()
        supervisors, program = supervisors_among(members), self._program()
        supervised = () if supervises_none else self._supervised()
        orphans = find_orphans(members, supervisors, program, supervised)
        if not orphans:
            return orphans
        # The leader has no announcement of its own, only the session's entry. To ask for that costs a round trip, so it
        # is done only where there are orphans without it.
        leader = session.info(_ASK_TIMEOUT_S).get("program")
        if isinstance(leader, str):
            supervisors |= {leader}
        return find_orphans(members, supervisors, program, supervised)

    def _clear(self, stale: Iterable[Announcement]) -> None:
        """Withdraw these announcements, except any that has changed since the look."""
        session = self._session
        for member in stale:
            known = session.announcement(member.name)
            if known is not None and _key(known) == _key(member):
                logger.info("clearing %s (%s): nobody keeps it any more", member.name, member.state.value)
                session.link.withdraw(session.topics.state(member.name), _ASK_TIMEOUT_S)

    def _compare_in_time(self, reconnected_at: float) -> None:
        """Compare with the broker, but not before every living process has had the time to come back to it."""
        if time.monotonic() - reconnected_at < _RECONNECT_S:
            self._wanted.set()
        else:
            self._reconnected_at = None
            self._compare(self._held())

    def _compare(self, held: Collection[str]) -> None:
        """Correct the presence table after an outage. A member that the broker does not hold (`held`) died while this
        program, or every process, was disconnected."""
        session = self._session
        leader = session.info(_ASK_TIMEOUT_S).get("program")
        ours = {*self._supervised(), *session.calls.local_instances}
        if any(member.name not in held and member.name not in ours for member in session.announcements()):
            held = {*held, *session.heard_again(_SPEAK_UP_S)}
        for member in session.announcements():
            if member.name in held or member.name in ours:
                continue
            supervisor = member.about.get("keeper")
            if member.state in LIVES and supervisor is not None and (supervisor in held or supervisor == leader):
                # Its supervisor lives and will restart it, so it stays in the table, as lost.
                session.lost(member.name, member.incarnation, "it has not come back since the broker was away")
            else:
                session.forget(member.name)

    def _held(self) -> frozenset[str]:
        """The names whose announcements the broker holds."""
        session, held = self._session, set[str]()

        def receive(inbound: Inbound) -> None:
            name, value = session.topics.instance_of_state(inbound.delivery.topic), inbound.take()
            if name is not None and value is not None and not is_notice(value):
                held.add(name)

        # A new subscription makes the broker send all retained messages again; the echo of `catch_up` comes after them.
        all_states = session.topics.state("+")
        session.link.listen(all_states, receive, timeout_s=_ASK_TIMEOUT_S)
        try:
            session.catch_up(_ASK_TIMEOUT_S)
        finally:
            session.link.unlisten(all_states, receive)
        return frozenset(held)


def _alive(members: Iterable[Announcement]) -> set[str]:
    return {member.name for member in members if member.state in LIVES}


def _key(member: Announcement) -> tuple[str, str, State]:
    return member.name, member.incarnation, member.state
