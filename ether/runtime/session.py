"""A session as one of its programs sees it: who is there, and the lifecycle of all of them.

Every question to the instances goes out once, on the control plane, to those that are ready; each answers on this
program's own reply topic. One that dies meanwhile is not waited for.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping

from ether.errors import EtherError, PayloadError, TransportError
from ether.logs import get_ether_logger
from ether.protocol.barrier import Answer, Barrier
from ether.protocol.drain import Quiescence
from ether.protocol.presence import Announcement, Presence, State
from ether.runtime.deadline import Deadline
from ether.runtime.link import Inbound, Link
from ether.wire.topics import SessionTopics

logger = get_ether_logger("Ether")

_ECHO = b"echo"


class NeverAtRest(EtherError, TimeoutError):
    """The instances were still publishing or handling messages; `timeout_s` in seconds."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        super().__init__(f"messages were still being published or handled after {timeout_s:g} s")


class Session:
    """One program's view of its session, and its voice in it."""

    def __init__(self, link: Link, topics: SessionTopics) -> None:
        self.link = link
        self.topics = topics
        self._presence = Presence()
        self._questions: dict[bytes, Barrier] = {}
        self._changed = threading.Condition()
        self._echoed = False
        self._reply_topic = topics.reply(f"{link.source}-{os.urandom(8).hex()}")

    def open(self, timeout_s: float) -> None:
        """Listen to announcements and answers; returns when everything that was announced before is known.

        Brokers deliver in order: when a message to ourselves comes back, what was retained has come before it.
        """
        self.link.listen(self._reply_topic, self._on_reply, timeout_s=timeout_s)
        self.link.listen(self.topics.state("+"), self._on_state, timeout_s=timeout_s)
        self.link.publish(self._reply_topic, None, correlation=_ECHO)
        with self._changed:
            if not self._changed.wait_for(lambda: self._echoed, timeout_s):
                raise TransportError(f"the broker did not deliver a message to ourselves within {timeout_s:g} s")

    # -- presence

    def ready(self) -> frozenset[str]:
        """The names of the instances that are ready."""
        with self._changed:
            return self._presence.ready()

    def announcement(self, name: str) -> Announcement | None:
        """What is known of an instance."""
        with self._changed:
            return self._presence.get(name)

    def wait_ready(
        self, names: Iterable[str], deadline: Deadline, ended: Callable[[], Mapping[str, str]]
    ) -> dict[str, str]:
        """Wait until every instance is ready; returns why others are not, empty when all are.

        `ended` says which of their processes have ended without a word; call `wake()` when that may have changed.
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

    def wake(self) -> None:
        """Something outside of the session changed that a waiter looks at."""
        with self._changed:
            self._changed.notify_all()

    def _is_settled(self, name: str) -> bool:
        known = self._presence.get(name)
        return known is not None and known.state in (State.READY, State.ERROR)

    def _why_not(self, name: str, ended: str | None, waited_s: float) -> str:
        known = self._presence.get(name)
        if known is not None and known.error:
            return known.error
        if ended is not None:
            return ended
        state = known.state.value if known else "not heard of"
        return f"not ready within {waited_s:g} s (state: {state})"

    def _on_state(self, inbound: Inbound) -> None:
        try:
            name = self.topics.instance_of_state(inbound.delivery.topic)
            value = inbound.unpack().value
        except PayloadError as error:
            logger.warning("an announcement on %r cannot be read: %s", inbound.delivery.topic, error)
            return
        finally:
            inbound.done()
        if name is not None:
            self._take(name, value)

    def _take(self, name: str, value: object) -> None:
        announcement = Announcement.from_value(value)
        with self._changed:
            if value is None:
                self._lose(name, "left while it was asked")
                self._presence.forget(name)
            elif announcement is not None and announcement.name == name:
                self._note(announcement)
            self._changed.notify_all()

    def _note(self, announcement: Announcement) -> None:
        if self._presence.apply(announcement) and announcement.state in (State.LOST, State.ERROR):
            self._lose(announcement.name, announcement.error or "died while it was asked")

    def _lose(self, name: str, why: str) -> None:
        for barrier in self._questions.values():
            barrier.lose(name, why)

    # -- questions

    def ask(self, verb: str, participants: Iterable[str], timeout_s: float) -> Barrier:
        """Ask instances to do something, and wait for their answers, deaths, or the end of the time."""
        participants = list(participants)
        token = os.urandom(8)
        barrier = Barrier(participants)
        with self._changed:
            self._questions[token] = barrier
        try:
            self.link.publish(
                self.topics.control(verb),
                {"instances": participants},
                reply_to=self._reply_topic,
                correlation=token,
                expiry_s=timeout_s,
            )
            with self._changed:
                self._changed.wait_for(lambda: barrier.complete, timeout_s)
        finally:
            with self._changed:
                del self._questions[token]
        return barrier

    def lost(self, name: str, why: str) -> None:
        """An instance's process ended: told by whoever started it, sooner than the broker would."""
        with self._changed:
            self._lose(name, why)
            self._changed.notify_all()

    def drain(self, participants: Iterable[str], timeout_s: float) -> Barrier:
        """Wait until no message is in flight or being handled; returns the last wave.

        Raises `NeverAtRest` where messages go on causing messages, or a source goes on publishing.
        """
        participants = list(participants)
        deadline = Deadline(timeout_s)
        quiescence = Quiescence()
        self.link.flush(deadline.left())
        first = barrier = self.ask("drain", participants, deadline.left())
        while not (barrier.missing or barrier.lost or quiescence.at_rest(barrier.answers)):
            if deadline.passed:
                raise NeverAtRest(timeout_s)
            barrier = self.ask("drain", participants, deadline.left())
        if barrier is not first and deadline.passed and barrier.missing:  # the time ran out, not their patience
            raise NeverAtRest(timeout_s)
        return barrier

    def _on_reply(self, inbound: Inbound) -> None:
        try:
            unpacked = inbound.unpack()
        except PayloadError as error:
            logger.warning("an answer cannot be read: %s", error)
            return
        finally:
            inbound.done()
        correlation = unpacked.headers.correlation if unpacked.headers else None
        with self._changed:
            if correlation == _ECHO:
                self._echoed = True
            elif correlation in self._questions and (said := Answer.from_value(unpacked.value)):
                self._questions[correlation].answer(*said)
            self._changed.notify_all()
