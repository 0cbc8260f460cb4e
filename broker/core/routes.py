"""Who receives a message: the subscriptions of all sessions, by filter, and the routes of topics, remembered.

How it works. Filters lie in a tree, so an unknown topic costs a walk of its levels, not a look at every filter. The
result is a `Route`, remembered by topic. The remembered topics lie in a tree, too: a new or removed filter finds those
that it matches and forgets exactly these.

Promise: a session whose filters overlap gets one copy, with the highest QoS and all subscription identifiers of the
filters that match. Of a shared group one member gets it, in turn, connected members first.
"""

from typing import Generic, NamedTuple, TypeVar

from broker.wire.topics import TopicTree, checked_topic, shared_parts

S = TypeVar("S")

REMEMBERED_TOPICS = 8_192
PATIENCE = 4
"""So many times as many topics are not found, and the table of those that are remembered begins anew."""
LONGEST_REMEMBERED = 512
MOST_LEVELS_REMEMBERED = 24
"""Longer topics are looked up each time: somebody who invents topics must not fill the memory with their routes."""


class Grant(NamedTuple):
    """What a session was granted for one filter; `identifier` is an encoded property, or empty."""

    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    identifier: bytes = b""


class Recipient(NamedTuple, Generic[S]):
    """One receiver of a topic."""

    session: S
    qos: int
    retain_as_published: bool
    identifiers: bytes


class SharedGroup(Generic[S]):
    """The members of one `$share/group/filter`."""

    __slots__ = ("_turn", "members")

    def __init__(self) -> None:
        self.members: dict[S, Grant] = {}
        self._turn = 0

    def in_turn(self) -> list[Recipient[S]]:
        """All members, beginning with the one whose turn it is."""
        members = list(self.members.items())
        self._turn = start = (self._turn + 1) % len(members)
        return [
            Recipient(session, grant.qos, grant.retain_as_published, grant.identifier)
            for session, grant in members[start:] + members[:start]
        ]


class Route(Generic[S]):
    """The receivers of one topic. `own` says what a session gets of its own messages where that differs."""

    __slots__ = ("groups", "own", "targets")

    def __init__(
        self, targets: list[Recipient[S]], own: dict[S, Recipient[S] | None], groups: list[SharedGroup[S]]
    ) -> None:
        self.targets, self.own, self.groups = targets, own, groups


class _Filter(Generic[S]):
    """Everybody who subscribed with one filter."""

    __slots__ = ("groups", "plain")

    def __init__(self) -> None:
        self.plain: dict[S, Grant] = {}
        self.groups: dict[bytes, SharedGroup[S]] = {}


class RoutingTable(Generic[S]):
    """The subscriptions of all sessions."""

    def __init__(self) -> None:
        self._filters: TopicTree[_Filter[S]] = TopicTree()
        self._routes: dict[bytes, Route[S]] = {}
        self._remembered: TopicTree[bytes] = TopicTree()
        self._missed = 0

    def add(self, text: bytes, session: S, grant: Grant) -> None:
        """Enter a subscription, shared ones included, or replace what was granted before."""
        group, plain = shared_parts(text)
        at = self._filters.get(plain)
        if at is None:
            at = _Filter()
            self._filters.put(plain, at)
        if group is None:
            at.plain[session] = grant
        else:
            at.groups.setdefault(group, SharedGroup()).members[session] = grant
        self._forget(plain)

    def remove(self, text: bytes, session: S) -> None:
        """Take a subscription out, if it is there."""
        group, plain = shared_parts(text)
        at = self._filters.get(plain)
        if at is None:
            return
        if group is None:
            at.plain.pop(session, None)
        elif group in at.groups:
            at.groups[group].members.pop(session, None)
            if not at.groups[group].members:
                del at.groups[group]
        if not at.plain and not at.groups:
            self._filters.remove(plain)
        self._forget(plain)

    def route(self, topic: bytes) -> Route[S]:
        """The receivers of a topic. Raises `MalformedPacket` where the bytes are no topic."""
        found = self._routes.get(topic)
        return self._look_up(checked_topic(topic)) if found is None else found

    def _look_up(self, topic: bytes) -> Route[S]:
        grants: dict[S, list[Grant]] = {}
        groups: list[SharedGroup[S]] = []
        for each in self._filters.matching(topic):
            for session, grant in each.plain.items():
                grants.setdefault(session, []).append(grant)
            groups += each.groups.values()
        own = {
            session: _merged(session, [grant for grant in granted if not grant.no_local])
            for session, granted in grants.items()
            if any(grant.no_local for grant in granted)
        }
        targets = [target for session, granted in grants.items() if (target := _merged(session, granted))]
        route = Route(targets, own, groups)
        self._remember(topic, route)
        return route

    def _remember(self, topic: bytes, route: Route[S]) -> None:
        if len(topic) > LONGEST_REMEMBERED or topic.count(b"/") >= MOST_LEVELS_REMEMBERED:
            return
        if len(self._routes) >= REMEMBERED_TOPICS:
            # What is there stays, so that of twice as many topics, in turn, half are found; until it is of yesterday.
            self._missed += 1
            if self._missed < PATIENCE * REMEMBERED_TOPICS:
                return
            self._missed = 0
            self._routes.clear()
            self._remembered.clear()
        self._routes[topic] = route
        self._remembered.put(topic, topic)

    def _forget(self, text: bytes) -> None:
        for topic in list(self._remembered.under(text)):
            del self._routes[topic]
            self._remembered.remove(topic)


def _merged(session: S, grants: list[Grant]) -> Recipient[S] | None:
    """What a session gets of a topic that these of its filters match."""
    if not grants:
        return None
    return Recipient(
        session,
        max(grant.qos for grant in grants),
        any(grant.retain_as_published for grant in grants),
        b"".join(grant.identifier for grant in grants),  # also those that are the same (MQTT 5, section 3.3.4)
    )
