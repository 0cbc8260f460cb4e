"""Which members there are: what a program has to do so that it knows them all, on any broker.

Announcements are retained, and subscribing shows them. On most brokers that is all. This module makes sure of it:

- *Echo*. A message to oneself that is published among the announcements comes back behind all that were accepted before
  it. A broker keeps the order of the messages on one topic, and in practice of one subscription; it keeps none across
  subscriptions. So an echo goes where the messages go that it is to follow, and proves nothing about others.
- *Self-test*. A message is retained on a topic of its own, and does or does not come to a subscription with a wildcard.
  Where it does not (RabbitMQ), all members are asked to announce themselves again.
- *Roster*. The leading program says whom it knows. Whom the asking program has not heard of then, it asks as well.

An echo and an answer to a roll call also show whether MQTT 5 properties survive: through the broker, and on the way to
another process. Where they do not, this link carries its headers in the bodies, too, and the user is told.

The trap: all of this takes a moment, and tells of that moment. "Known" means received by this program.
"""

from __future__ import annotations

import enum
import os
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ether.connection.deadline import Deadline
from ether.connection.link import ExtraHeaders, Inbound, Link, lost_properties
from ether.errors import NotDelivered, PublishRefused, TransportError
from ether.log import get_ether_logger
from ether.protocol.presence import ECHO, HOLDS_ITS_NAME, TAKES_PART, is_notice
from ether.session.leader_rules import RETURN_S
from ether.session.members import Members
from ether.session.roll_call import (
    ANNOUNCE,
    Present,
    answer_roll_call,
    broker_warning,
    keeps_properties,
    path_warning,
)
from ether.system.machine_mark import reply_client
from ether.transport.base import Delivery, ProtocolVersion, Receipt
from ether.wire.codec import encode
from ether.wire.topics import SessionTopics, is_data, is_event

logger = get_ether_logger("Ether")

_ECHO_PATIENCE_S = 0.5

_DELIVERS_S = 5.0
"""How long a broker may take to deliver the first message to ourselves after it took it."""

_MEET_S = 0.5
"""How long a program that joins waits for the leader's roster. A leader that is busy answers later."""

_EVERYBODY_S = 2.0
"""How long all members may take to announce themselves again, where the broker does not show who they are."""

_NOBODY_S = 0.4
"""The same where no program leads, so that nobody knows how many answers will come."""


class Opening(enum.Enum):
    """How a program begins its part in a session, which decides what it has to find out."""

    FRESH = "on a broker that it has just started: nobody else is there"
    STARTS = "on a broker of others, where it starts the session"
    JOINS = "as a guest of a session that another program leads"
    PART = "as a part of a program that has found everything out"


class MemberDiscovery(Members):
    """The members of the session, and the ways to hear of all of them."""

    def __init__(self, link: Link, topics: SessionTopics) -> None:
        super().__init__(link, topics)
        self._reply_topic = topics.reply(reply_client(link.source))
        self._info: dict[str, Any] = {}
        self._info_heard = -1.0
        self._rolls: dict[bytes, dict[str, Present]] = {}
        """The answers to each roll call under way, by name."""
        self._listening = self._meets = False
        self.opened = False
        """Set by `open`; every call asks for it, without the lock."""
        self._opening = threading.Lock()

    @abstractmethod
    def _listen(self, deadline: Deadline) -> None:
        """Subscribe to what other members send to this program."""

    @abstractmethod
    def _is_local(self, name: str) -> bool:
        """Whether this process hosts an instance of this name."""

    def open(self, timeout_s: float, opening: Opening = Opening.PART) -> bool:
        """Subscribe to announcements and answers; returns when all earlier announcements are known. May be called
        again: returns False where the session was open already."""
        with self._opening:
            if self.opened:
                return False
            self._open(Deadline(timeout_s), opening)
            self._listening = self.opened = True  # in this order: `opened` is read without the lock
            return True

    def _open(self, deadline: Deadline, opening: Opening) -> None:
        """Subscribe, test the broker, and hear who is there. The self-test is retained before the subscription that has
        to show it, and the echo follows on the same topic. So the test comes before the echo, or not at all."""
        link = self.link
        if opening is Opening.FRESH:
            link.wildcards_show_retained = True
        self._listen(deadline)
        link.listen(self.topics.control(ANNOUNCE), self._on_roll_call, timeout_s=deadline.left())
        link.listen(self.topics.session_info, self._on_info, timeout_s=deadline.left())
        tries = link.wildcards_show_retained is None and opening in (Opening.STARTS, Opening.JOINS)
        if not tries:
            link.listen(self.topics.state("+"), self._receive_state, timeout_s=deadline.left())
            self._hear_back(link.source, ECHO, os.urandom(8).hex(), deadline, gives_up_s=_DELIVERS_S)
            self._meet(opening, deadline)
            return
        try:
            self._test(f"$test-{os.urandom(6).hex()}", deadline)
        except (PublishRefused, NotDelivered):
            # A device with rights has one to a test of its own name. The name is not used otherwise: two programs of
            # one name that start at the same moment would take each other's tests back.
            self._test(f"$test-{link.source}", deadline)
        self._meet(opening, deadline)

    def _test(self, test: str, deadline: Deadline) -> None:
        """Find out whether the broker shows retained messages to wildcards."""
        link, extra = self.link, ExtraHeaders(urgent=True)
        link.publish(self.topics.state(test), {ECHO: test}, retain=True, extra=extra, timeout_s=deadline.left())
        link.listen(self.topics.state("+"), self._receive_state, timeout_s=deadline.left())
        try:
            self._hear_back(test, ECHO, os.urandom(8).hex(), deadline, gives_up_s=_DELIVERS_S)
        finally:
            link.withdraw(self.topics.state(test))
        link.wildcards_show_retained = test in self._tests_seen
        self._tests_seen.discard(test)

    def _meet(self, opening: Opening, deadline: Deadline) -> None:
        """Hear who is there, as far as retained announcements have not told it, and try the way to the others."""
        self._meets = opening in (Opening.STARTS, Opening.JOINS)
        patience = Deadline(min(deadline.left(), _MEET_S))
        if opening is Opening.JOINS and not self.await_change(lambda: bool(self._info), patience.left()):
            # The session was found, so it has a leader, which is just coming back to a broker that was restarted.
            self.await_change(lambda: bool(self._info), min(deadline.left(), RETURN_S))
            patience = Deadline(min(deadline.left(), _MEET_S))
        if self.link.wildcards_show_retained is False:
            self._hear_everybody(deadline)
        elif self._meets:
            self._hear_roster(patience, Deadline(min(deadline.left(), RETURN_S)))

    def withdraw_tests(self) -> None:
        """Clear the self-tests of programs that were killed while they tested; some time after they were seen."""
        while self._tests_seen:
            self.link.withdraw(self.topics.state(self._tests_seen.pop()))

    # -- echoes

    def catch_up(self, timeout_s: float, *, among: str | None = None, while_online: bool = False) -> None:
        """Return when every announcement is known that the broker has accepted before now; with `among`, those of this
        name are enough. Raises `TransportError` after `timeout_s` seconds, and `PublishRefused`; with `while_online`
        also when the connection is lost."""
        self._hear_back(among or self.link.source, ECHO, os.urandom(8).hex(), Deadline(timeout_s), while_online)

    def _hear_back(
        self,
        name: str,
        key: str,
        text: str,
        deadline: Deadline,
        while_online: bool = False,
        gives_up_s: float | None = None,
    ) -> None:
        """Send a notice to the topic of a name, and return when it has come back; raises `TransportError`. With
        `gives_up_s`, a broker that takes it, and has not delivered it so much later, does not let this program read."""
        with self._changed:
            self._awaited.add(text)
        came_back, receipt, taken_at = False, None, None
        while not came_back and not deadline.passed:  # sent again, in case the broker died with the first one
            if while_online and self.link.offline_since is not None:
                break
            topic, extra = self.topics.state(name), ExtraHeaders(urgent=True)
            receipt = self.link.publish(topic, {key: text}, extra=extra, timeout_s=deadline.left())
            receipt.when_done(partial(self._look_at, receipt))
            came_back = self._is_back(text, receipt, min(_ECHO_PATIENCE_S, deadline.left()))
            if receipt.error is not None and not came_back:
                break
            if receipt.done:
                taken_at = taken_at or time.monotonic()
            if gives_up_s and taken_at and not came_back and time.monotonic() - taken_at >= gives_up_s:
                raise NotDelivered(
                    topic, f"it took a message to ourselves, which did not come back in {gives_up_s:g} s"
                )
        with self._changed:
            self._awaited.discard(text)
        if not came_back and receipt is not None and receipt.error is not None:
            raise receipt.error
        if not came_back:
            raise TransportError(
                f"the broker did not deliver a message to ourselves within {deadline.timeout_s:g} s, on"
                f" {self.topics.state(name)!r}. It is cut off, very busy, or does not let this program read there"
                " (docs/brokers.md, under Rights)."
            )

    def _is_back(self, text: str, receipt: Receipt, timeout_s: float) -> bool:
        """Wait for a notice; ends early where the broker refuses it."""
        with self._changed:
            self._changed.wait_for(lambda: text not in self._awaited or receipt.error is not None, timeout_s)
            return text not in self._awaited

    def _look_at(self, receipt: Receipt) -> None:
        """Wake the thread that waits for what a message brings about, where the broker has refused it."""
        if receipt.error is not None:
            self.wake()

    def hear_the_latest(self, deadline: Deadline) -> bool:
        """Catch up within half a second, also with what the leading program knows. Returns False where no broker
        answers, or the session is not open."""
        if not self._listening:
            return False
        patience = Deadline(min(deadline.left(), _ECHO_PATIENCE_S))
        try:
            self.catch_up(patience.left())
            if self._leader():
                self._hear_roster(patience)
        except TransportError:
            return False
        return True

    def _on_own_notice(self, inbound: Inbound) -> None:
        """On the dispatch thread. A message to oneself shows whether the broker itself keeps properties."""
        speaks_v5 = self.link.transport.version is ProtocolVersion.V5
        if speaks_v5 and not self.link.headers_twice and lost_properties(inbound):
            self.link.put_headers_twice()
            logger.warning("%s", broker_warning(self.link.source))

    # -- the session's entry

    def info(self, timeout_s: float) -> dict[str, Any]:
        """The retained entry of the session; empty where no program leads it any more. Without a connection, the last
        known entry, at once."""
        try:
            if self.link.offline_since is None:
                self.catch_up(timeout_s, while_online=True)
        except TransportError:
            if self.link.offline_since is None:
                raise
        return dict(self._info)

    def leader_heard_since(self, since: float) -> bool:
        """Whether a leader has published the session's entry since a moment of the monotonic clock. What the broker has
        retained may be older than the broker's last start, and the leader may have died with it."""
        return self._info_heard >= since

    def _on_info(self, inbound: Inbound) -> None:
        """On the dispatch thread. A program that leads from now on may be behind another bridge."""
        value = inbound.take()
        if is_notice(value):
            return
        with self._changed:
            before, self._info = self._info, value if isinstance(value, dict) else {}
            if self._info and not inbound.delivery.retained:
                self._info_heard = time.monotonic()
            self._notify()
        leader = self._leader()
        is_news = leader not in ("", self.link.source) and before.get("run") != self._info.get("run")
        if is_news and self._meets and self._listening:
            self._ask_without_waiting([leader])

    def _leader(self) -> str:
        leader = self._info.get("program")
        return leader if isinstance(leader, str) else ""

    # -- from the members themselves

    def _hear_roster(self, patience: Deadline, returning: Deadline | None = None) -> None:
        """Return when every member is known that the leading program knows (where none leads: some other member).
        Members that are still unknown then are asked to announce again; they may be on their way back to a broker that
        was restarted, for which `returning` is the patience."""
        leader, own = self._leader(), self.link.source
        others = [member.name for member in self._known if member.state in TAKES_PART and member.name != own]
        if leader == own or not (leader or others):
            return
        asked = leader or others[0]
        present = self._call_roll([asked], patience, lambda roll: asked in roll).get(asked)
        if present is not None and self._unknown(present.roster):
            self._hear_everybody(returning or patience, present.roster)

    def _hear_everybody(self, deadline: Deadline, expected: frozenset[str] = frozenset()) -> None:
        """Ask all members to announce again. Returns when all of `expected`, and of the rosters in the answers, are
        known and the leading program has answered; where none leads, after a moment."""
        leader = self._leader()
        led = leader not in ("", self.link.source)
        counted = led or bool(expected)
        patience = Deadline(min(deadline.left(), _EVERYBODY_S if counted else _NOBODY_S))

        def enough(roll: Mapping[str, Present]) -> bool:
            rosters = (present.roster for present in roll.values())
            return counted and (not led or leader in roll) and not self._unknown(expected.union(*rosters))

        self._call_roll(None, patience, enough)

    def heard_again(self, timeout_s: float, names: Collection[str] | None = None) -> frozenset[str]:
        """Ask members (None: all) to announce again; the names that were announced within `timeout_s` seconds. Returns
        as soon as all of `names` were."""

        def enough(roll: Mapping[str, Present]) -> bool:
            return names is not None and self._announced_in(roll).issuperset(names)

        return self._announced_in(self._call_roll(None if names is None else list(names), Deadline(timeout_s), enough))

    def _announced_in(self, roll: Mapping[str, Present]) -> frozenset[str]:
        """Whose announcements the answers to a roll call hold."""
        topics = [topic for present in roll.values() for topic in present.announced]
        return frozenset(name for topic in topics if (name := self.topics.instance_of_state(topic)) is not None)

    def call_roll(self, names: Iterable[str]) -> None:
        """Ask members to publish their announcements again, for all; does not wait for them."""
        self.link.publish(self.topics.control(ANNOUNCE), {"instances": list(names)}, timeout_s=_EVERYBODY_S)

    def _unknown(self, names: Iterable[str]) -> bool:
        """Whether one of these names was never heard of; under the lock, or for a look."""
        return any(self._presence.get(name) is None for name in names if name != self.link.source)

    def _call_roll(
        self, names: Sequence[str] | None, patience: Deadline, enough: Callable[[Mapping[str, Present]], bool]
    ) -> Mapping[str, Present]:
        """Ask members (None: all) to announce again, and wait until `enough`, which is called under the lock, says so
        of the answers, or `patience` is over."""
        token = os.urandom(8)
        with self._changed:
            roll = self._rolls[token] = {}
        try:
            self._ask_for_roll(token, names, patience.left())
            with self._changed:
                self._changed.wait_for(lambda: enough(roll), patience.left())
                return dict(roll)
        except TransportError as error:
            logger.debug("the members could not be asked to announce again: %s", error)
            return {}
        finally:
            with self._changed:
                del self._rolls[token]

    def _ask_for_roll(self, token: bytes, names: Sequence[str] | None, timeout_s: float) -> None:
        extra = ExtraHeaders(reply_to=self._reply_topic, correlation=token, expiry_s=_EVERYBODY_S, twice=True)
        asked = {} if names is None else {"instances": list(names)}
        self.link.publish(self.topics.control(ANNOUNCE), asked, extra=extra, timeout_s=timeout_s)

    def _ask_without_waiting(self, names: Sequence[str] | None) -> None:
        """Ask members to announce again, on the dispatch thread; the answers are taken in when they come."""
        try:
            self._ask_for_roll(os.urandom(8), names, 0.0)
        except TransportError as error:
            logger.debug("the members could not be asked to announce again: %s", error)

    def _on_roll_call(self, inbound: Inbound) -> None:
        """On the dispatch thread. An instance's process answers in its `Control`."""
        headers = inbound.headers()
        own = headers is not None and headers.reply_to == self._reply_topic
        if own or self._is_local(self.link.source):
            inbound.done()
            return
        answer_roll_call(self.link, inbound, self._roster)

    def _roster(self) -> frozenset[str]:
        return frozenset(member.name for member in self._known if member.state in HOLDS_ITS_NAME)

    def _on_present(self, token: bytes | None, inbound: Inbound) -> None:
        """An answer to a roll call: each announcement in it goes where it would go if the broker had retained it. Data
        is no announcement: it would come past the rights that the broker knows."""
        present = Present.from_value(inbound.take())
        if present is None:
            return
        self._try_way(present, inbound)
        prefix = self.topics.session_info.removesuffix("session")
        by = self.topics.answered_by(inbound.delivery.topic) or present.name
        for topic, value in present.announced.items():
            if topic.startswith(prefix) and not (is_event(topic) or is_data(topic)) and self._may_say(by, topic):
                body = encode(value)
                self.link.hand_over(Delivery(topic, body.payload, 1, True), lambda delivery: None)
        with self._changed:
            if token in self._rolls:
                self._rolls[token][present.name] = present
            self._notify()

    def _may_say(self, by: str, topic: str) -> bool:
        """Whether a member's answer counts for what was announced on this topic. Where members have rights, the broker
        lets each announce in its own name alone; an answer comes past that. So it counts for its own announcements,
        for those of its own machine's instances, and, of the leader, for all: deaths are told by nobody else where the
        broker does not show what it retains. Who leads, and which run it is, nobody else says."""
        if "rights" not in self._info or by == self._leader():
            return True
        name = self.topics.instance_of_state(topic)
        if name is None:
            return topic in self.topics.retained_of(by)
        known = self._presence.get(name)
        return name == by or (known is not None and known.about.get("machine") == by)

    def _try_way(self, present: Present, answer: Inbound) -> None:
        """Notice that the way to another process strips properties. From then on this link puts headers into bodies,
        too, and the user is told, once."""
        if self.link.headers_twice or keeps_properties(self.link, present, answer):
            return
        self.link.put_headers_twice()
        known = self.announcement(present.name)
        host = known.about.get("host") if known is not None else self._info.get("host")
        logger.warning("%s", path_warning(self.link.source, present, host))
