"""A program's part in a session that another program runs, without instances of its own: to look, to call, to publish.

Promise: the program appears among the members, and vanishes when it leaves or dies; no process is started.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from ether.connection.assembly import make_link, new_incarnation
from ether.connection.deadline import Deadline
from ether.connection.link import Link
from ether.logs.shipping import LogShipper
from ether.protocol.presence import Announcement, State
from ether.session.client import Client
from ether.session.joining import connected
from ether.session.leader_rules import RETURN_S
from ether.session.session import Opening
from ether.system.clock import wall_time
from ether.system.process_owner import process_facts
from ether.transport.base import Will
from ether.transport.endpoint import Endpoint
from ether.wire.topics import SessionTopics, check_instance_name

if TYPE_CHECKING:
    from ether.session.discovery.search import FoundSession


class Guest(Client):
    """A client that is a member of its session until `close()`; a context manager."""

    def __init__(self, link: Link, topics: SessionTopics, incarnation: str) -> None:
        super().__init__(link, topics)
        about = {"kind": "program", **process_facts(), "since": wall_time()}
        self._announcement = Announcement(link.source, State.READY, incarnation, about=about)
        self._log: LogShipper | None = None

    def appear(self) -> None:
        """Announce it to the other members, and ship its log records from now on."""
        self._log = LogShipper(self.link, self.topics, self.link.source, own_process=False)
        self.link.announce(self.topics.state(self.link.source), self._announcement.to_value())

    def close(self) -> None:
        """Leave. Twice is fine."""
        self.session.calls.close()
        if self._log is not None:
            self._log.close()
        if self.link.transport.connected:
            self.link.withdraw(self.topics.state(self.link.source))
        self.link.close()

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def join(found: FoundSession, name: str, *, timeout_s: float = 10.0, returns_s: float = RETURN_S) -> Guest:
    """Join a session; returns when all its members are known. `name` should hold random bits, because the same program
    may join twice. A broker that cannot be reached is waited for, for `returns_s` seconds. Raises
    `BrokerUnreachable`, `NotAuthorized`, `InvalidName`."""
    guest = _opened(found, name, Deadline(timeout_s), min(returns_s, timeout_s))
    try:
        guest.appear()
    except BaseException:
        guest.link.close()
        raise
    return guest


def look(found: FoundSession, name: str, *, timeout_s: float) -> list[Announcement]:
    """The members of a session, without becoming one of them. Raises as `join`."""
    guest = _opened(found, name, Deadline(timeout_s), 0.0)
    try:
        return guest.session.announcements()
    finally:
        guest.session.calls.close()
        guest.link.close()


def _opened(found: FoundSession, name: str, deadline: Deadline, returns_s: float) -> Guest:
    """A guest that knows all members, and that none of them knows."""
    topics = SessionTopics(found.name)
    check_instance_name(name)
    endpoint, will = Endpoint.from_url(found.url), Will(topics.state(name), b"")

    def connect() -> Link:
        link = make_link(endpoint, name, will=will, max_packet_bytes=None)
        link.open(deadline.left())
        return link

    link = connected(found, connect, Deadline(returns_s))
    try:
        guest = Guest(link, topics, new_incarnation())
        guest.session.open(deadline.left(), Opening.JOINS)
    except BaseException:
        link.close()
        raise
    return guest
