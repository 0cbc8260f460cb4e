"""A session as one of its programs sees it: who is there, and the lifecycle of all of them.

Every question to the instances goes out once, on the control plane, to those that are ready; each answers on this
program's own reply topic. One that dies meanwhile is not waited for.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ether.errors import EtherError, NoResponder, PayloadError, SyncError, TransportError
from ether.logs import get_ether_logger
from ether.protocol.barrier import Answer, Barrier
from ether.protocol.drain import Quiescence
from ether.protocol.presence import HOLDS_ITS_NAME, Announcement, Claims, Presence, State
from ether.runtime import context
from ether.runtime.calls import Caller
from ether.runtime.deadline import Deadline
from ether.runtime.fencing import FENCE, fence_of
from ether.runtime.instance import HostedInstance
from ether.runtime.link import Inbound, Link
from ether.runtime.machine import reply_client
from ether.runtime.worker import Nested, next_job
from ether.wire.topics import SessionTopics

logger = get_ether_logger("Ether")

CLAIM = "claim"
"""The control verb by which a name is asked for: `{"name", "birth"}`."""

Event = Callable[[Announcement], object]
"""Told of every change in the presence table, on the dispatch thread: it must only enqueue."""

_ECHO = b"echo "
_ECHO_PATIENCE_S = 0.5


_NOBODY_ANSWERS = (State.LOST, State.ERROR, State.FAILED, State.RESTARTING, State.STOPPED)


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
        self._claims = Claims()
        self._watchers: list[Event] = []
        self._questions: dict[bytes, Barrier] = {}
        self._changed = threading.Condition()
        self._echoes: set[bytes] = set()
        self._opened = self._listening = False
        self._opening = threading.Lock()
        self._known: list[Announcement] = []
        self._nested: list[Nested] = []
        self._reply_topic = topics.reply(reply_client(link.source))
        self.calls = Caller(link, topics, self._reply_topic, lambda: self._known)

    def open(self, timeout_s: float) -> bool:
        """Listen to announcements and answers; returns when all that was announced before is known. Twice is fine:
        false where it was open already."""
        with self._opening:
            if self._opened:
                return False
            self._open(timeout_s)
            self._opened = self._listening = True
            return True

    def close_in(self, here: dict[str, HostedInstance]) -> None:
        """There is nobody but these, in this process: nothing is asked of the broker (in a lab)."""
        self._opened = True
        self.calls = Caller(
            self.link, self.topics, self._reply_topic, lambda: [i.announcement() for i in here.values()]
        )
        self.calls.here = here

    def _open(self, timeout_s: float) -> None:
        self.link.listen(self._reply_topic, self._on_reply, now=self._take_reply, timeout_s=timeout_s)
        self.link.listen(self.topics.control(FENCE), self._on_fence, now=self._on_fence, timeout_s=timeout_s)
        self.link.listen(self.topics.control(CLAIM), self._on_claim, now=self._on_claim, timeout_s=timeout_s)
        self.link.listen(self.topics.state("+"), self._on_state, timeout_s=timeout_s)
        self.catch_up(timeout_s)

    def catch_up(self, timeout_s: float) -> None:
        """Return when everything is known that the broker took before now: when a message to ourselves comes back,
        whatever was on its way to us has come before it."""
        echo = _ECHO + os.urandom(8)
        with self._changed:
            self._echoes.add(echo)
        deadline = Deadline(timeout_s)
        came_back = False
        while not came_back and not deadline.passed:  # asked again, in case the broker died with the first one
            self.link.publish(self._reply_topic, None, correlation=echo, timeout_s=deadline.left())
            with self._changed:
                patience = min(_ECHO_PATIENCE_S, deadline.left())
                came_back = self._changed.wait_for(lambda: echo not in self._echoes, patience)
        with self._changed:
            self._echoes.discard(echo)
        if not came_back:
            raise TransportError(f"the broker did not deliver a message to ourselves within {timeout_s:g} s")

    def hear_the_latest(self, deadline: Deadline) -> bool:
        """Catch up, where there is a broker that answers; false where there is none."""
        if not self._listening:
            return False
        try:
            self.catch_up(min(deadline.left(), _ECHO_PATIENCE_S))
        except TransportError:
            return False
        return True

    def _notify(self) -> None:
        """Wake everybody who waits; under the lock."""
        self._changed.notify_all()
        for nested in self._nested:
            nested.put(None)

    # -- presence

    def ready(self) -> frozenset[str]:
        """The names of the instances that are ready."""
        with self._changed:
            return self._presence.ready()

    def settled(self) -> frozenset[str]:
        """The names of those who are ready, or whose start has failed."""
        with self._changed:
            return frozenset(m.name for m in self._presence.members() if m.state in (State.READY, State.ERROR))

    def announcements(self) -> list[Announcement]:
        """What is known of everybody, programs included, by name."""
        return sorted(self._known, key=lambda member: member.name)

    def info(self, timeout_s: float) -> dict[str, Any]:
        """What is retained about the session itself; empty where it is led by nobody any more."""
        found: queue.SimpleQueue[object] = queue.SimpleQueue()

        def receive(inbound: Inbound) -> None:
            found.put(_value_of(inbound))

        self.link.listen(self.topics.session_info, receive, timeout_s=timeout_s)
        try:
            self.catch_up(timeout_s)
        finally:
            self.link.unlisten(self.topics.session_info, receive)
        value = None
        while not found.empty():
            value = found.get()
        return value if isinstance(value, dict) else {}

    def watch(self, event: Event) -> None:
        """Call `event` with every announcement that changes the table, on the dispatch thread."""
        self._watchers.append(event)

    def announcement(self, name: str) -> Announcement | None:
        """What is known of an instance."""
        with self._changed:
            return self._presence.get(name)

    def members(self, service: str) -> list[Announcement]:
        """What is known of the instance of this name, or of those of the class of this name."""
        return [member for member in self._known if service in (member.name, member.about.get("class"))]

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

    def wait_any(
        self, names: Iterable[str], deadline: Deadline, ended: Callable[[], Mapping[str, str]]
    ) -> dict[str, str]:
        """Wait until one of these is ready, or will not be; returns why those that will not are not."""
        names = list(names)

        def failed() -> list[str]:
            over = ended()
            return [name for name in names if name in over or self._has_error(name)]

        with self._changed:
            self._changed.wait_for(lambda: failed() or not self._presence.ready().isdisjoint(names), deadline.left())
            late = names if deadline.passed and self._presence.ready().isdisjoint(names) else failed()
            over = ended()
            return {name: self._why_not(name, over.get(name), deadline.timeout_s) for name in late}

    def _has_error(self, name: str) -> bool:
        known = self._presence.get(name)
        return known is not None and known.state is State.ERROR

    def await_return(self, service: str, deadline: Deadline) -> bool:
        """Where everybody of a name or class is away and at least one of them comes back: wait until one is ready, or
        nobody comes any more. False where that is so already, or when the time is over."""
        with self._changed:
            if not self._coming_back(service):
                return False
            self._changed.wait_for(lambda: not self._coming_back(service), deadline.left())
            return any(member.state is State.READY for member in self.members(service))

    def _coming_back(self, service: str) -> bool:
        members = self.members(service)
        return any(member.returns for member in members) and all(m.state is not State.READY for m in members)

    # -- names

    def holder(self, name: str) -> Announcement | None:
        """Who holds a name, as far as is known; None where it is free."""
        with self._changed:
            known = self._presence.get(name)
        return known if known is not None and known.state in HOLDS_ITS_NAME else None

    def claim(self, name: str, birth: str, timeout_s: float) -> bool:
        """Ask everybody for a name; True where nobody asked before. All who claim hear it in the same order."""
        self.link.publish(self.topics.control(CLAIM), {"name": name, "birth": birth}, timeout_s=timeout_s)
        self.catch_up(timeout_s)
        with self._changed:
            return self._claims.holder(name, time.monotonic()) == birth

    def fence(self, holder: Announcement, epoch: int, timeout_s: float) -> None:
        """Take a name over: from now on nothing that its earlier holder sends is heard, and it stops itself."""
        self.link.publish(self.topics.control(FENCE), fence_of(holder, epoch), timeout_s=timeout_s)

    def next_epoch(self, name: str) -> int:
        """For the next birth under a name."""
        with self._changed:
            known = self._presence.get(name)
        return known.epoch + 1 if known is not None else 1

    def say(self, announcement: Announcement) -> None:
        """Announce something of an instance in its stead; it counts here at once."""
        with self._changed:
            self._note(announcement)
            self._known = self._presence.members()
            self._notify()
        self.link.announce(self.topics.state(announcement.name), announcement.to_value())

    def forget(self, name: str) -> None:
        """Somebody is not there any more, and the broker holds nothing of it either."""
        self._take(name, None)

    def await_change(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something is so that follows from what is known of the others."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)

    def _on_fence(self, inbound: Inbound) -> bool:
        value = _value_of(inbound)
        nodes = value.get("nodes") if isinstance(value, dict) else None
        if isinstance(nodes, list):
            self.link.fence(node for node in nodes if isinstance(node, str))
        return True

    def _on_claim(self, inbound: Inbound) -> bool:
        match _value_of(inbound):
            case {"name": str(name), "birth": str(birth)}:
                with self._changed:
                    self._claims.note(name, birth, time.monotonic())
        return True

    def wake(self) -> None:
        """Something outside of the session changed that a waiter looks at."""
        with self._changed:
            self._notify()

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
                self._forget(name)
            elif announcement is not None and announcement.name == name:
                self._note(announcement)
            self._known = self._presence.members()
            self._notify()

    def _forget(self, name: str) -> None:
        known = self._presence.get(name)
        self._lose(name, "left")
        self._presence.forget(name)
        if known is not None and known.state is not State.LOST:
            self._tell(replace(known, state=State.STOPPED, error=""))

    def _note(self, announcement: Announcement) -> None:
        name, before = announcement.name, self._presence.get(announcement.name)
        if not self._presence.apply(announcement):
            return
        self._claims.release(name)
        planned = announcement.state is State.RESTARTING and not announcement.error  # it finishes what it has begun
        if announcement.state in _NOBODY_ANSWERS and not planned:
            self._lose(name, announcement.error or "its connection broke")
        elif before is not None and before.birth != announcement.birth:
            self._lose(name, "another process has taken its place")
        if before is None or (before.birth, before.state) != (announcement.birth, announcement.state):
            self._tell(announcement)

    def _tell(self, announcement: Announcement) -> None:
        for watcher in self._watchers:
            watcher(announcement)

    def _lose(self, name: str, why: str) -> None:
        for barrier in self._questions.values():
            barrier.lose(name, why)
        self.calls.lose(name, why)

    # -- questions

    def ask(
        self, verb: str, participants: Iterable[str], timeout_s: float, more: Mapping[str, Any] | None = None
    ) -> Barrier:
        """Ask instances to do something, and wait for their answers, deaths, or the end of the time."""
        participants = list(participants)
        token = os.urandom(8)
        barrier = Barrier(participants)
        with self._changed:
            self._questions[token] = barrier
        try:
            self.link.publish(
                self.topics.control(verb),
                {"instances": participants, **(more or {})},
                reply_to=self._reply_topic,
                correlation=token,
                expiry_s=timeout_s,
                trace=context.current().trace,
                parents=context.parents(),
            )
            self._wait_for(barrier, Deadline(timeout_s))
        finally:
            with self._changed:
                del self._questions[token]
        return barrier

    def _wait_for(self, barrier: Barrier, deadline: Deadline) -> None:
        cause = context.current()
        if cause.worker is None or cause.trace is None or not cause.worker.on_this_thread:
            with self._changed:
                self._changed.wait_for(lambda: barrier.complete, deadline.left())
            return
        nested = cause.worker.begin_wait(cause.trace)
        self._nested.append(nested)
        try:
            while not barrier.complete and not deadline.passed:
                if (job := next_job(nested, deadline.left())) is not None:
                    cause.worker.perform(job)
        finally:
            self._nested.remove(nested)
            cause.worker.end_wait(cause.trace, nested)

    def sync(self, topic: str, arguments: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Run every method that is marked for a sync topic, on all ready instances at the same time.

        Returns what each instance's method returned (a dict by method where it has several), raises `SyncError`, or
        `NoResponder` where nobody has such a method.
        """
        with self._changed:
            ready = [member for member in self._known if member.state is State.READY]
        participants = [member.name for member in ready if topic in _sync_topics(member)]
        if not participants:
            there = sorted({known for member in ready for known in _sync_topics(member)})
            raise NoResponder(f"sync {topic!r}", "no ready instance has a method marked ether_sync for it", there)
        barrier = self.ask("sync", participants, timeout_s, {"topic": topic, "arguments": dict(arguments)})
        results = {name: _sole(answer.results) for name, answer in barrier.answers.items() if not answer.failed}
        if len(results) < len(participants):
            failed = {name: "; ".join(said.failed.values()) for name, said in barrier.answers.items() if said.failed}
            missing = dict.fromkeys(barrier.missing, f"did not answer within {timeout_s:g} s")
            raise SyncError(topic, results, failed, barrier.lost, missing)
        return results

    def lost(self, name: str, birth: str, why: str) -> None:
        """An instance's process ended: told by whoever started it, sooner than the broker would."""
        with self._changed:
            known = self._presence.get(name)
            if known is None:
                self._lose(name, why)
            elif known.birth == birth and known.state is not State.ERROR:  # which says why, and better
                self._note(replace(known, state=State.LOST, error=why))
                self._known = self._presence.members()
            self._notify()

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

    def _take_reply(self, inbound: Inbound) -> bool:
        """A plain answer to a call, on the transport's thread: wake whoever waits for it."""
        headers = inbound.headers()
        if headers is None or headers.schema is not None:
            return False
        return headers.correlation not in self._questions and self.calls.take(headers.correlation, inbound)

    def _on_reply(self, inbound: Inbound) -> None:
        headers = inbound.headers()
        correlation = headers.correlation if headers else None
        if correlation not in self._questions and correlation not in self._echoes:
            self.calls.receive(inbound)
            return
        try:
            said = Answer.from_value(inbound.unpack().value)
        except PayloadError as error:
            logger.warning("an answer cannot be read: %s", error)
            return
        finally:
            inbound.done()
        with self._changed:
            if correlation in self._echoes:
                self._echoes.discard(correlation)
            elif correlation in self._questions and said is not None:
                self._questions[correlation].answer(*said)
            self._notify()


def _value_of(inbound: Inbound) -> object:
    """A short message's value, None where it cannot be read; it is done with."""
    try:
        return inbound.unpack().value
    except PayloadError:
        return None
    finally:
        inbound.done()


def _sync_topics(announcement: Announcement) -> set[str]:
    methods = announcement.about.get("methods")
    described = methods.values() if isinstance(methods, dict) else ()
    return {topic for method in described if isinstance(method, dict) for topic in method.get("syncs", ())}


def _sole(results: Mapping[str, Any]) -> Any:
    return next(iter(results.values())) if len(results) == 1 else dict(results)
