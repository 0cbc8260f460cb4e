"""Recovery after a restart of the broker: waits for sessions that the broker has forgotten and that are about to
return.

A broker that was restarted knows nothing. The members of its sessions reconnect one by one, each within `RETURN_S`, and
announce themselves again. Until the program that leads a session has done so, the broker's directory does not show the
session, and a program that looks in that moment would start a second session of the same name.

Promise: a program waits only for a reason. A reason is a record of a session on this machine whose program lives, or
living instances on the broker whose supervisor is not there. The wait ends as soon as every such session is back, or
its instances have died with their supervisor.

The traps: a broker that keeps its messages over a restart shows instances that died with it, so those whose process is
seen to have ended here are no reason. And a session of another machine that has left no trace on the broker yet cannot
be awaited; if there are two sessions afterwards, `ether.session.leadership` settles which one leads.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from ether.connection.deadline import Deadline
from ether.errors import DecodeError
from ether.log import get_ether_logger
from ether.protocol.presence import Announcement, is_notice
from ether.session.discovery.directory import SessionInfo, echo_payload, echo_topic, note_entry
from ether.session.discovery.local_sessions import SessionRecord
from ether.session.leader_rules import RETURN_S as RETURN_S
from ether.session.stale_rules import find_orphans, supervisors_among
from ether.system.process_owner import has_ended
from ether.transport import open_transport
from ether.transport.base import Delivery, Refusal, Transport
from ether.transport.endpoint import Endpoint
from ether.wire.envelope import unpack
from ether.wire.topics import ROOT

logger = get_ether_logger("Ether")

_ASK_S = 2.0


def recorded_at(endpoint: Endpoint, session: str | None, records: Sequence[SessionRecord]) -> frozenset[str]:
    """The sessions of this machine that are on this broker by their records; with `session`, that one alone."""
    wanted = (record for record in records if session in (None, record.session))
    return frozenset(record.session for record in wanted if Endpoint.from_url(record.url).address == endpoint.address)


def sessions_returning(
    endpoint: Endpoint, session: str | None, recorded: Collection[str], dead: Collection[str] = ()
) -> list[SessionInfo]:
    """The sessions that are on the broker, after a wait for the expected ones: those in `recorded`, and those of living
    instances without a supervisor. With `session`, that one alone. `dead`: sessions whose leaders are known to have
    died; nobody waits for them. Raises `TransportError`s."""
    transport = open_transport(endpoint, client_id="returning")
    try:
        transport.connect(_ASK_S)
        return _Watch(transport, session, recorded, dead).until_back()
    finally:
        transport.close(0.2)


class _Watch:
    """The sessions of a broker and their members, followed over one connection."""

    def __init__(
        self, transport: Transport, session: str | None, recorded: Collection[str], dead: Collection[str]
    ) -> None:
        self._transport = transport
        self._session = session
        self._recorded = frozenset(recorded)
        self._dead = frozenset(dead)
        self._found: dict[str, SessionInfo] = {}
        self._members: dict[str, dict[str, Announcement]] = {}
        self._mark = f"returning-{os.urandom(6).hex()}"
        self._wait_logged = False

    def until_back(self) -> list[SessionInfo]:
        which = self._session or "+"
        filters = [f"{ROOT}{which}/session", f"{ROOT}{which}/state/+"]
        self._transport.subscribe(filters, timeout_s=_ASK_S)
        # An echo for each filter: the broker keeps no order between two subscriptions.
        echoes = {echo_topic(each, self._mark): echo_payload() for each in filters}
        for topic, payload in echoes.items():
            self._transport.publish(topic, payload, timeout_s=_ASK_S)
        deadline = Deadline(RETURN_S)
        while not deadline.passed and (echoes or self._awaited()):
            item = self._transport.receive(deadline.left())
            if isinstance(item, Refusal):
                raise item.error
            if isinstance(item, Delivery):
                self._transport.consumed(item)
                if echoes.get(item.topic) == item.payload:
                    del echoes[item.topic]
                else:
                    self._note(item)
        return sorted(self._found.values(), key=lambda info: info.session)

    def _awaited(self) -> bool:
        """Whether an expected session is not back yet; the first time, log which."""
        expected = self._recorded | {name for name, members in self._members.items() if _runs_on(members.values())}
        away = sorted(expected - self._found.keys() - self._dead)
        if away and not self._wait_logged:
            self._wait_logged = True
            logger.info("waiting for %s, which the broker has forgotten, to come back...", ", ".join(away))
        return bool(away)

    def _note(self, item: Delivery) -> None:
        """Take in a retained or live message: a session's entry, or an announcement of a member."""
        session, _, place = item.topic[len(ROOT) :].partition("/")
        if place == "session":
            note_entry(item, self._found)
        elif place.startswith("state/"):
            self._note_member(session, place.removeprefix("state/"), item)

    def _note_member(self, session: str, name: str, item: Delivery) -> None:
        try:
            value = unpack(item.payload, item.properties).value if item.payload else None
        except DecodeError:
            value = None
        announcement = Announcement.from_value(value)
        if announcement is not None and not has_ended(announcement.about):
            self._members.setdefault(session, {})[announcement.name] = announcement
        elif not is_notice(value):  # cleared, or dead
            self._members.get(session, {}).pop(name, None)


def _runs_on(members: Collection[Announcement]) -> bool:
    """Whether instances live whose supervisor is not there: the session's leader, which has not come back yet."""
    return bool(find_orphans(members, supervisors_among(members), "", ()).dying)
