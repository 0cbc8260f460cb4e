"""The reaper: clears what killed programs have left behind in the session.

A killed program cannot clear anything. The broker publishes its will, its instances end and are announced as lost, and
then no program is responsible for their announcements. Every living program runs a reaper, and a program that joins
looks before anything else. They do not agree on one of them, because clearing twice does no harm.

Where a broker keeps its messages over its own restart, the wills of those that died with it are gone, and nothing tells
of their deaths. So a program that begins to lead on a broker that was there before, and every leader after each
reconnect, calls the roll (`ether.session.roll_call`): a member that does not answer is gone. All that Ether retains has
an owner among the members (`SessionTopics.retained_of`, and the tag of a run), and is cleared with it.

Promise: within 5 s of a program's death nothing of it is left, as long as one program lives or joins.

The traps: a short cut of the network looks like a death. So an announcement has to look stale twice before it is
cleared, a member has to miss two calls, and one whose announcement was cleared by mistake announces itself again as
soon as it is back. And a broker that was restarted has forgotten the dead without notice. So after each reconnect the
presence table is compared with the announcements that the broker holds. A member that the broker does not hold, as far
as it shows, is asked before it is forgotten: not every broker shows retained messages to wildcards.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from functools import partial

from ether.connection.link import Inbound
from ether.errors import EtherError
from ether.log import get_ether_logger
from ether.protocol.presence import LIVES, Announcement, State, is_notice
from ether.session.leader_check import LeaderCheck
from ether.session.leader_rules import ASK_EVERY_S, LeaderVerdict
from ether.session.session import Session
from ether.session.stale_rules import IsDead, StaleEntries, find_orphans, supervisors_among, unanswered
from ether.system.process_owner import has_ended, has_ended_here

logger = get_ether_logger("Ether")

LOOK_AGAIN_S = 1.2
"""Between two looks: longer than an instance lives after its supervisor has died."""

_RECONNECT_S = 2.4
"""Every living process has reconnected and announced itself this long after the broker is back."""

_ASK_TIMEOUT_S = 2.0
_SPEAK_UP_S = 1.0
"""How long a member that the broker does not show, or of which only retained words are known, may take to answer."""
_LOOKS = 2
"""At so many looks, one after the other, an announcement has to look stale."""
_CALLS = 2
"""So many calls of the roll a member has to miss."""


def _is_dead(member: Announcement) -> bool:
    """Whether its process has ended on this machine. An agent that was killed is offline, and about to come back."""
    return member.kind != "agent" and has_ended(member.about)


def _is_gone(member: Announcement) -> bool:
    """The same, agents included: for a leader that begins, and to which no agent has come yet."""
    return has_ended(member.about)


class Reaper:
    """The reaper of one program, from `start()` to `stop()`."""

    def __init__(
        self,
        session: Session,
        supervised: Callable[[], Collection[str]],
        program: Callable[[], str],
        leads: Callable[[], bool] = lambda: False,
    ) -> None:
        """`supervised` returns the names of the instances that this program supervises, `program` the name by which
        they know it, `leads` whether it leads the session."""
        self._session = session
        self._supervised = supervised
        self._program = program
        self._leads = leads
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self._reconnected_at: float | None = None
        self._suspects: Counter[tuple[str, str, State]] = Counter()
        """How often each announcement looked stale, or its member missed a call, at the last looks."""
        self._roll: set[str] | None = None
        """Who has answered the roll that is open; None while none is, because the broker tells of deaths."""
        self._begins = False
        """The open roll is that of a leader that begins: also those have to answer that are known to be lost."""
        self._run_owner = ""
        """The program that has retained the tag of a run."""
        self._thread = threading.Thread(target=self._run, name="ether-reaper", daemon=True)

    def start(self, timeout_s: float, *, sweeps: bool = False) -> None:
        """Look at once, and then whenever the session changes. Where orphans that are about to die hold names that this
        program wants for its own instances, wait for their end, for at most `timeout_s` seconds.

        `sweeps`: this program begins to lead on a broker that was there before, and may retain what died with an
        earlier leader."""
        session = self._session
        session.watch(self._on_change)
        session.link.on_connection.append(self._on_connection)
        session.link.listen(session.topics.session_info, self._on_entry, timeout_s=_ASK_TIMEOUT_S)
        # This program has started no instance yet, so those with the names that it wants are not its own.
        is_dead = _is_gone if sweeps else _is_dead
        orphans = self._look(is_dead, supervises_none=True)
        if in_the_way := self._in_the_way(orphans):
            session.await_change(lambda: in_the_way.isdisjoint(_alive(session.announcements())), timeout_s)
            orphans = self._look(is_dead, supervises_none=True)
        self._clear(orphans.stale)
        if sweeps:
            self._clear(self._silent(orphans))
            self._clear_unowned()
            self._open_roll(begins=True)
        if session.tests_left:
            self._wanted.set()
        self._thread.start()

    def stop(self) -> None:
        """Look no more. May be called twice."""
        self._stopped.set()
        self._wanted.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    # -- reasons to look

    def _on_change(self, announcement: Announcement) -> None:
        """On the dispatch thread."""
        if announcement.state not in LIVES:
            self._wanted.set()

    def _on_entry(self, inbound: Inbound) -> None:
        """On the dispatch thread. The session's entry is cleared when its leader leaves or dies."""
        if not inbound.delivery.payload:
            self._wanted.set()
        inbound.done()

    def _on_connection(self, up: bool) -> None:
        """On the dispatch thread."""
        if up:
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

    # -- looking and clearing

    def _reap(self) -> None:
        """Clear what looks stale now and looked so at the last look, and whoever has missed the roll too often; ask for
        another look at the rest."""
        self._session.withdraw_tests()
        if self._reconnected_at is not None:
            self._compare_in_time(self._reconnected_at)
        stale, absent = self._look().stale, self._call_the_roll()
        seen = Counter({_key(member): self._suspects[_key(member)] + 1 for member in (*stale, *absent)})
        confirmed = [member for member in stale if seen[_key(member)] >= _LOOKS]
        confirmed += [member for member in absent if seen[_key(member)] >= _CALLS]
        for member in confirmed:
            del seen[_key(member)]
        self._suspects = seen
        if seen:
            self._wanted.set()
        self._clear(confirmed)

    def _look(self, is_dead: IsDead = _is_dead, *, supervises_none: bool = False) -> StaleEntries:
        """The orphans of the session now."""
        session = self._session
        members = session.announcements()
        supervisors, program = supervisors_among(members, is_dead), self._program()
        supervised = () if supervises_none else self._supervised()
        orphans = find_orphans(members, supervisors, program, supervised, is_dead)
        if not orphans:
            return orphans
        # The leader has no announcement of its own, only the session's entry. To ask for that costs a round trip, so it
        # is done only where there are orphans without it.
        leader = session.info(_ASK_TIMEOUT_S).get("program")
        if isinstance(leader, str):
            supervisors |= {leader}
        return find_orphans(members, supervisors, program, supervised, is_dead)

    def _in_the_way(self, orphans: StaleEntries) -> set[str]:
        """The orphans that may still live and hold names that this program wants."""
        wanted = self._supervised()
        return {member.name for member in orphans.dying if member.name in wanted}

    def _silent(self, orphans: StaleEntries) -> list[Announcement]:
        """Those in the way that do not answer, and are not seen to run on this machine."""
        names = self._in_the_way(orphans)
        answered = self._session.heard_again(_SPEAK_UP_S, names) if names else frozenset()
        return [
            member for member in orphans.dying
            if member.name in names - answered and has_ended_here(member.about) is None
        ]  # fmt: skip

    def _clear(self, stale: Iterable[Announcement]) -> None:
        """Withdraw these announcements, and what is retained with them, except any that has changed since the look."""
        session = self._session
        for member in stale:
            known = session.announcement(member.name)
            if known is not None and _key(known) == _key(member):
                logger.info("clearing %s (%s): nobody keeps it any more", member.name, member.state.value)
                tag = (session.topics.run,) if self._run_owner == member.name else ()
                session.link.withdraw_all((*session.topics.retained_of(member.name), *tag), _ASK_TIMEOUT_S)

    # -- the roll

    def _open_roll(self, *, begins: bool) -> None:
        """From now on members have to answer. The reaper's thread calls them."""
        self._roll, self._begins, self._suspects = set(), begins, Counter()
        self._wanted.set()

    def _call_the_roll(self) -> tuple[Announcement, ...]:
        """Call those who have not answered the roll that is open; returns who does not answer this time either. It is
        for the leader to call; where none is there, for everybody."""
        session, answered = self._session, self._roll
        if answered is None or not (self._leads() or not session.info(_ASK_TIMEOUT_S)):
            return ()
        if absent := self._absent(answered):
            answered |= session.heard_again(_SPEAK_UP_S, [member.name for member in absent])
            absent = self._absent(answered)
        if not absent:
            self._roll = None  # all are accounted for; from here on the broker tells of deaths
        return absent

    def _absent(self, answered: Collection[str]) -> tuple[Announcement, ...]:
        session = self._session
        ours = {*self._supervised(), *session.calls.local_instances}
        return unanswered(session.announcements(), answered, self._program(), ours, lost_too=self._begins)

    def _clear_unowned(self) -> None:
        """Clear what is retained beside announcements, and whose owner is not among the members: descriptions of
        recorders, health of machines, the tag of a run. This program itself has published none of it yet."""
        session, topics, found = self._session, self._session.topics, dict[str, str]()

        def receive(inbound: Inbound) -> None:
            topic, value = inbound.delivery.topic, inbound.take()
            if value is not None and not is_notice(value):
                owner = value.get("program") if isinstance(value, dict) else ""
                found[topic] = topics.member_of(topic) or str(owner)

        session.link.listen(topics.run, self._on_tag, timeout_s=_ASK_TIMEOUT_S)
        filters = (topics.health("+"), topics.recorder("+"), topics.run)
        for topic_filter in filters:
            session.link.listen(topic_filter, receive, timeout_s=_ASK_TIMEOUT_S)
        try:
            session.catch_up(_ASK_TIMEOUT_S)
        finally:
            for topic_filter in filters:
                session.link.unlisten(topic_filter, receive)
        members = {member.name for member in session.announcements()} - {self._program()}
        unowned = sorted(topic for topic, owner in found.items() if owner not in members)
        for topic in unowned:
            logger.info("clearing %s: whoever published it is gone", topic)
        session.link.withdraw_all(unowned, _ASK_TIMEOUT_S)

    def _on_tag(self, inbound: Inbound) -> None:
        """On the dispatch thread: whose run goes on."""
        value = inbound.take()
        self._run_owner = str(value.get("program") or "") if isinstance(value, dict) else ""

    # -- after an outage

    def _compare_in_time(self, reconnected_at: float) -> None:
        """Compare with the broker, but not before every living process has had the time to come back to it."""
        if time.monotonic() - reconnected_at < _RECONNECT_S:
            self._wanted.set()
        else:
            self._reconnected_at = None
            self._check_leader(reconnected_at)
            self._compare(self._held())
            self._open_roll(begins=False)

    def _check_leader(self, since: float) -> None:
        """Clear the session's entry where the leader has not come back: a broker that keeps its messages shows it for
        ever, and everybody would go on as if it were there."""
        session, topics = self._session, self._session.topics
        entry = session.info(_ASK_TIMEOUT_S)
        if not entry or self._leads() or session.leader_heard_since(since):
            return
        publish = session.link.transport.publish
        check = LeaderCheck(topics, entry, partial(publish, timeout_s=_ASK_TIMEOUT_S, urgent=True))

        def receive(inbound: Inbound) -> None:
            value = inbound.take()
            if not is_notice(value):
                check.heard(cleared=value is None, retained=inbound.delivery.retained)

        session.link.listen(topics.session_info, receive, timeout_s=_ASK_TIMEOUT_S)
        try:
            while (verdict := check.turn()) is None and not self._stopped.wait(ASK_EVERY_S):
                continue
        finally:
            session.link.unlisten(topics.session_info, receive)
        if verdict is LeaderVerdict.DEAD and session.info(_ASK_TIMEOUT_S).get("run") == entry.get("run"):
            logger.warning("%s is dead; what the broker still says of it is cleared", check.leader)
            session.link.withdraw(topics.session_info, _ASK_TIMEOUT_S)

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
