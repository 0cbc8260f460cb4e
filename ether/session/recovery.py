"""Sessions that a broker has forgotten and that are about to be back on it.

A broker that was started again knows nothing. Its members come back one by one, each within `RETURN_S`, and announce
themselves anew; until the program that leads the session has done so, the directory does not show it. Whoever looked in
that moment would begin a second session of the same name.

Promise: nobody waits who has no reason to. A reason is a session's record on this machine whose program lives, or
instances on the broker which live and whose keeper is not there. The wait ends as soon as every such session is back,
or its instances have died with their keeper. The trap: a session of another machine that has left no trace on the
broker yet cannot be waited for; which of two leads is settled when they meet (`ether.session.leadership`).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from ether.connection.deadline import Deadline
from ether.errors import DecodeError
from ether.log import get_ether_logger
from ether.protocol.presence import Announcement
from ether.session.discovery.directory import SessionInfo, note_entry
from ether.session.discovery.local_sessions import SessionRecord
from ether.session.stale_rules import find_orphans, keepers_among
from ether.transport import open_transport
from ether.transport.base import Delivery, Transport
from ether.transport.endpoint import Endpoint
from ether.wire.envelope import unpack
from ether.wire.topics import ROOT

logger = get_ether_logger("Ether")

RETURN_S = 3.0
"""By then whoever lives is back, once the broker is."""

_ASK_S = 2.0
_ECHO = f"{ROOT}$returning/"


def recorded_at(endpoint: Endpoint, session: str | None, records: Sequence[SessionRecord]) -> frozenset[str]:
    """The sessions of this machine that say of themselves that they are on this broker; `session` narrows them down."""
    there = (record for record in records if session in (None, record.session))
    return frozenset(record.session for record in there if Endpoint.from_url(record.url).address == endpoint.address)


def sessions_returning(endpoint: Endpoint, session: str | None, recorded: Collection[str]) -> list[SessionInfo]:
    """The sessions that have come back to the broker, after a wait for those that are expected there: the `recorded`
    ones, and those of living instances without a keeper. Raises `TransportError`s."""
    transport = open_transport(endpoint, client_id="returning")
    try:
        transport.connect(_ASK_S)
        return _Watch(transport, session, recorded).until_back()
    finally:
        transport.close(0.2)


class _Watch:
    """One look at a broker's sessions and their members, kept up to date while it lasts."""

    def __init__(self, transport: Transport, session: str | None, recorded: Collection[str]) -> None:
        self._transport = transport
        self._session = session
        self._recorded = frozenset(recorded)
        self._found: dict[str, SessionInfo] = {}
        self._members: dict[str, dict[str, Announcement]] = {}
        self._echo = f"{_ECHO}{os.urandom(8).hex()}"
        self._told = False

    def until_back(self) -> list[SessionInfo]:
        which = self._session or "+"
        filters = [f"{ROOT}{which}/session", f"{ROOT}{which}/state/+", self._echo]
        self._transport.subscribe(filters, timeout_s=_ASK_S)
        self._transport.publish(self._echo, b"", timeout_s=_ASK_S)
        deadline, echoed = Deadline(RETURN_S), False
        while not deadline.passed and not (echoed and not self._awaited()):
            item = self._transport.receive(deadline.left())
            if isinstance(item, Delivery):
                self._transport.consumed(item)
                echoed = echoed or item.topic == self._echo
                self._note(item)
        return sorted(self._found.values(), key=lambda info: info.session)

    def _awaited(self) -> bool:
        """Whether somebody is expected and not back; said once."""
        expected = self._recorded | {name for name, members in self._members.items() if _runs_on(members.values())}
        away = sorted(expected - self._found.keys())
        if away and not self._told:
            self._told = True
            logger.info("waiting for %s, which the broker has forgotten, to come back...", ", ".join(away))
        return bool(away)

    def _note(self, item: Delivery) -> None:
        session, _, place = item.topic[len(ROOT) :].partition("/")
        if place == "session":
            note_entry(item, self._found)
        elif place.startswith("state/"):
            members = self._members.setdefault(session, {})
            announcement = _read(item)
            if announcement is None:
                members.pop(place.removeprefix("state/"), None)
            else:
                members[announcement.name] = announcement


def _read(item: Delivery) -> Announcement | None:
    """None for a member that has left, and for what is no announcement."""
    try:
        return Announcement.from_value(unpack(item.payload, item.properties).value) if item.payload else None
    except DecodeError:
        return None


def _runs_on(members: Collection[Announcement]) -> bool:
    """Whether instances live whose keeper is neither there nor said to be dead with them."""
    return bool(find_orphans(members, keepers_among(members), "", ()).dying)
