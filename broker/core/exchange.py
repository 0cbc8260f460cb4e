"""Sessions, subscriptions and retained messages of one broker, and the rules by which messages are delivered. Pure.

How it works. A client (`broker.core.client`) decodes a packet and calls a method here, on the one thread. The method
puts packets into the outlets of the sessions concerned and enters their clients in `unflushed`. The loop writes these
sockets once all clients that had something to read were read: a burst of messages for one client costs one write.

Promise: a message reaches every matching session once, with the lower of the two QoS, in the order of arrival. A
retained message goes to a client at the moment at which it subscribes. Every connection that ends without a
DISCONNECT publishes its will, at once or after its delay.

The trap: ending a connection publishes its will, and that can overflow the queue of another client, whose connection
is then ended from inside the same call. So every method must leave the tables in order before it ends a client.
"""

from collections.abc import Callable
from typing import Protocol

from broker.core.held_acks import HeldAcks
from broker.core.outlet import Outlet
from broker.core.quotas import Quotas
from broker.core.retained import RetainedMessages
from broker.core.rights import Logins, Rights
from broker.core.routes import Grant, Recipient, RoutingTable, SharedGroup
from broker.core.session_queue import SessionQueue
from broker.core.timers import Timer, Timers
from broker.wire.message import ApplicationMessage
from broker.wire.packets import (
    INVALID_FILTER,
    NO_SUBSCRIBERS,
    NO_SUBSCRIPTION,
    NOT_AUTHORIZED,
    QUOTA_EXCEEDED,
    SUCCESS,
    TAKEN_OVER,
)
from broker.wire.requests import FOR_EVER, ConnectRequest, FilterRequest, SubscribePacket, WillRequest
from broker.wire.topics import is_valid_filter, shared_parts

LEVELS_OF_ONE, BYTES_OF_ONE = 8, 512
"""A filter that has more counts as several."""


class Receiver(Protocol):
    """What the exchange needs of a connected client."""

    outlet: Outlet

    def end(self, reason: int, why: str) -> None:
        """End the connection with this reason code; its will is published. `why` is a warning for people."""


class ClientSession:
    """One client id: its subscriptions, its queue, and its client while that is connected."""

    __slots__ = (
        "by_certificate", "client", "client_id", "ends", "expiry_s", "filters", "filters_cost", "outlet", "queue",
        "received", "rights", "user", "will", "will_due",
    )  # fmt: skip

    def __init__(self, client_id: bytes, user: bytes, by_certificate: bool = False) -> None:
        self.client_id, self.user, self.by_certificate = client_id, user, by_certificate
        self.rights: Rights | None = None  # everything
        self.client: Receiver | None = None
        self.outlet: Outlet | None = None
        self.queue = SessionQueue()
        self.filters: dict[bytes, Grant] = {}
        self.filters_cost = 0
        self.received: set[int] = set()  # ids of QoS 2 messages that were delivered, until their PUBREL
        self.expiry_s = 0
        self.will: WillRequest | None = None
        self.will_due: Timer | None = None
        self.ends: Timer | None = None

    @property
    def waiting_bytes(self) -> int:
        """What waits for this client."""
        return self.queue.bytes + (self.outlet.bytes if self.outlet is not None else 0)


def cost_of(text: bytes) -> int:
    """What a filter counts: 1, and more where it is long: each level is a table of its own."""
    return 1 + text.count(b"/") // LEVELS_OF_ONE + len(text) // BYTES_OF_ONE


class Exchange:
    """All sessions and retained messages. `now` is set by the loop before each round."""

    def __init__(
        self, warn: Callable[[str], None], logins: Logins, now: float = 0.0, quotas: Quotas | None = None
    ) -> None:
        self.warn, self.logins = warn, logins
        self.quotas = quotas or Quotas()
        self.now = now
        self.timers = Timers()
        self.unflushed: dict[Receiver, None] = {}  # a set that keeps its order
        self.held_acks = HeldAcks()
        self._limit_bytes = self.quotas.waiting_bytes
        self._sessions: dict[bytes, ClientSession] = {}
        self._routes: RoutingTable[ClientSession] = RoutingTable()
        self._retained = RetainedMessages(self.timers, self.quotas.retained_bytes)

    # -- sessions

    def reason_to_refuse(self, client_id: bytes, request: ConnectRequest) -> int:
        """0 where a client whose password is right may enter under this client id."""
        known = self._sessions.get(client_id)
        user = request.username or b""
        if known is not None and (known.user, known.by_certificate) != (user, request.by_certificate):
            return NOT_AUTHORIZED  # else one user could end, or take over, what is another's
        if known is None and len(self._sessions) >= self.quotas.sessions:
            return QUOTA_EXCEEDED
        rights = self.logins.rights_of(user, client_id, request.by_certificate)
        may = request.will is None or rights is None or rights.may_publish(request.will.message.topic)
        return SUCCESS if may else NOT_AUTHORIZED

    def change_logins(self, logins: Logins) -> None:
        """From now on these users and rights hold. Who is no user any more is ended, with all that is kept for it."""
        self.logins = logins
        for session in list(self._sessions.values()):
            if logins.knows(session.user, session.by_certificate):
                session.rights = logins.rights_of(session.user, session.client_id, session.by_certificate)
                continue
            session.will, session.expiry_s = None, 0
            if session.client is not None:
                name = session.client_id.decode()
                session.client.end(NOT_AUTHORIZED, f"client {name!r} was disconnected: its user is no longer let in")
            else:
                self._forget(session)

    def open(self, client_id: bytes, request: ConnectRequest, client: Receiver) -> tuple[ClientSession, bool]:
        """The session of an admitted client, and whether it continues an earlier one (session present). What waits in
        it is not sent before `resume`. An older connection of the same client id is ended first."""
        before = self._sessions.get(client_id)
        if before is not None and before.client is not None:
            name = client_id.decode()
            before.client.end(TAKEN_OVER, f"client {name!r} connected again: its older connection was closed")
            before = self._sessions.get(client_id)
        if before is not None and request.clean_start:
            self._forget(before)
            before = None
        session = before
        if session is None:
            session = ClientSession(client_id, request.username or b"", request.by_certificate)
            self._sessions[client_id] = session
        for timer in (session.will_due, session.ends):
            if timer is not None:
                timer.cancel()
        session.will_due = session.ends = None
        session.client, session.outlet = client, client.outlet
        session.rights = self.logins.rights_of(session.user, client_id, session.by_certificate)
        session.expiry_s, session.will = request.session_expiry_s, request.will
        return session, before is not None

    def resume(self, session: ClientSession, request: ConnectRequest) -> None:
        """Send what waits; call it once the CONNACK is on its way."""
        assert session.outlet is not None
        session.queue.connect(session.outlet, request.receive_maximum, self.now)
        self._check_limit(session)

    def close(self, session: ClientSession, with_will: bool) -> None:
        """The session's connection is over. The tables are put in order first, then the will is published."""
        client, session.client, session.outlet = session.client, None, None
        if client is not None:
            self.unflushed[client] = None
        session.queue.disconnect()
        if not with_will:
            session.will = None
        if session.expiry_s == 0:
            self._forget(session)
            return
        if session.expiry_s != FOR_EVER:
            session.ends = self.timers.at(self.now + session.expiry_s, lambda: self._forget(session))
        if session.will is not None and session.will.delay_s:
            due = self.now + session.will.delay_s
            session.will_due = self.timers.at(due, lambda: self._publish_will(session))
        else:
            self._publish_will(session)

    def _forget(self, session: ClientSession) -> None:
        """End a session: its subscriptions, its queue, and at last its will."""
        for text in session.filters:
            self._routes.remove(text, session)
        session.filters.clear()
        session.filters_cost = 0
        for timer in (session.will_due, session.ends):
            if timer is not None:
                timer.cancel()
        if self._sessions.get(session.client_id) is session:
            del self._sessions[session.client_id]
        self._publish_will(session)

    def _publish_will(self, session: ClientSession) -> None:
        will, session.will = session.will, None
        if will is None:
            return
        if will.expiry_s is not None:
            will.message.expire_in(will.expiry_s, self.now)
        if session.rights is None or session.rights.may_publish(will.message.topic):
            self.publish(will.message, None)

    # -- subscriptions

    def subscribe(self, session: ClientSession, request: SubscribePacket) -> tuple[list[int], list[FilterRequest]]:
        """Enter the filters. Gives the reason of each (the granted QoS, or a code of MQTT 5), and the filters whose
        retained messages are due: see `send_retained`."""
        reasons: list[int] = []
        due: list[FilterRequest] = []
        for each in request.filters:
            group, plain = shared_parts(each.text)
            if not is_valid_filter(plain):
                reasons.append(INVALID_FILTER)
                continue
            if session.rights is not None and not session.rights.may_subscribe(each.text):
                reasons.append(NOT_AUTHORIZED)
                continue
            new = each.text not in session.filters
            if new and session.filters_cost + cost_of(each.text) > self.quotas.filters:
                reasons.append(QUOTA_EXCEEDED)
                continue
            session.filters_cost += cost_of(each.text) if new else 0
            grant = Grant(each.qos, each.no_local, each.retain_as_published, request.identifier)
            session.filters[each.text] = grant
            self._routes.add(each.text, session, grant)
            reasons.append(each.qos)
            if group is None and (each.retain_handling == 0 or (each.retain_handling == 1 and new)):
                due.append(each)
        return reasons, due

    def send_retained(self, session: ClientSession, filters: list[FilterRequest], identifier: bytes) -> None:
        """Send the retained messages of these filters; call it after the SUBACK was queued."""
        for each in filters:
            for message in self._retained.under(each.text, self.now):
                if session.client is None:
                    return
                self._deliver(session, message, min(each.qos, message.qos), True, identifier)

    def unsubscribe(self, session: ClientSession, filters: list[bytes]) -> list[int]:
        """Remove the filters; the reason of each."""
        reasons = []
        for text in filters:
            known = session.filters.pop(text, None) is not None
            if known:
                session.filters_cost -= cost_of(text)
                self._routes.remove(text, session)
            reasons.append(SUCCESS if known else NO_SUBSCRIPTION)
        return reasons

    # -- messages

    def publish(self, message: ApplicationMessage, sender: ClientSession | None) -> int:
        """Deliver a message, and retain it if asked. Gives the reason code for its acknowledgement. Raises
        `MalformedPacket` for a bad topic."""
        route = self._routes.route(message.topic)
        if sender is not None and sender.rights is not None and not sender.rights.may_publish(message.topic):
            return NOT_AUTHORIZED
        reached = False
        retain, qos = message.retain, message.qos
        if retain and not self._retained.put(message):
            self.warn(f"more than {self.quotas.retained_bytes >> 20} MiB would be retained: a message was not")
            return QUOTA_EXCEEDED
        for target in route.targets:
            if route.own and target.session is sender and sender in route.own:
                own = route.own[sender]
                if own is None:
                    continue
                target = own
            reached = True
            session, granted, as_published, more = target
            self._deliver(session, message, min(qos, granted), retain and as_published, more)
        for group in route.groups:
            reached = self._deliver_to_one(group, message) or reached
        return SUCCESS if reached else NO_SUBSCRIBERS

    def _deliver_to_one(self, group: SharedGroup[ClientSession], message: ApplicationMessage) -> bool:
        """To the member whose turn it is; one that is away only where nobody else is there."""
        members = group.in_turn()
        target: Recipient[ClientSession] = next((each for each in members if each.session.client), members[0])
        retain = message.retain and target.retain_as_published
        self._deliver(target.session, message, min(target.qos, message.qos), retain, target.identifiers)
        return True

    def _deliver(
        self, session: ClientSession, message: ApplicationMessage, qos: int, retain: bool, more: bytes
    ) -> None:
        """Queue a message for one session. A client that is away gets QoS 1 and 2 later."""
        client, outlet = session.client, session.outlet
        if session.rights is not None and not session.rights.may_receive(message.topic):
            return
        if qos:
            session.queue.put(message, qos, retain, more, self.now)
        elif outlet is not None:
            outlet.send(message, retain, more, self.now)
        else:
            return
        if client is not None:
            self.unflushed[client] = None
        if session.queue.bytes + (outlet.bytes if outlet is not None else 0) > self._limit_bytes:
            self._check_limit(session)

    def _check_limit(self, session: ClientSession) -> None:
        """End a client for which too much waits. One message alone is never too much, whatever its size."""
        alone = len(session.queue) <= 1 and (session.outlet is None or len(session.outlet) <= 2)
        if session.waiting_bytes <= self._limit_bytes or alone:
            return
        name = session.client_id.decode()
        much = f"more than {self._limit_bytes >> 20} MiB of messages waited for client {name!r}"
        if session.client is not None:
            session.client.end(QUOTA_EXCEEDED, f"{much}: it is too slow and was disconnected")
        elif session.client_id in self._sessions:
            self.warn(f"{much}: it is away and its session was ended")
            self._forget(session)
