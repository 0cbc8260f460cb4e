"""A session as one of its programs sees it: its members, claims of names, and requests to many instances at once.

A request to several instances (sync, drain, save_all, …) is one message on the control plane. Each instance answers on
this program's own reply topic, and a `Barrier` collects the answers. Promises: an instance that dies meanwhile is not
awaited. A broker that was away may have lost the request or an answer; so an instance that has not answered is asked
again when it, or this program, is back. It carries out each request once.

The trap: a broker keeps the order of one topic, not across topics. The news of a death may come before the last answer.
So a death ends the waiting only when an echo on the own reply topic has come back, behind that answer.
"""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from ether.calls.client import CallClient, PendingCall
from ether.calls.durable import DurableCalls
from ether.calls.host import LocalCallee
from ether.connection import causes as context
from ether.connection.causes import Cause
from ether.connection.deadline import Deadline
from ether.connection.link import ExtraHeaders, Inbound, Link
from ether.connection.worker import next_job
from ether.errors import EtherError, NoResponder, PayloadError, PublishTimeout, SyncError, TransportError
from ether.log import get_ether_logger
from ether.protocol.barrier import DRAIN, OUTSTANDING, QUESTION_BYTES, Answer, Barrier, Quiescence, heads_of
from ether.protocol.presence import CLAIM, HOLDS_ITS_NAME, TAKES_PART, Announcement, is_notice
from ether.session.fencing import FENCE, fence_of
from ether.session.member_discovery import MemberDiscovery
from ether.session.member_discovery import Opening as Opening
from ether.session.roll_call import ANNOUNCED
from ether.transport.base import Receipt, Refusal
from ether.version import WIRE
from ether.wire.envelope import unpack
from ether.wire.head import Headers
from ether.wire.topics import SessionTopics, answer_topic

logger = get_ether_logger("Ether")

KEEP = "keep"
SECRETS = "secrets"
"""The key of a command that holds secrets: the values."""
"""The control verb that asks programs to start, stop or restart instances that they supervise: `{"instances":
[program], "do": "restart", "name": "camera1"}`."""

FOR_PROGRAMS = frozenset({KEEP, "run"})
"""The control verbs that programs answer, not instances."""

UNREACHABLE = "unreachable"
"""The state, for people, of a member that this program cannot reach: this program itself has no connection."""

_ECHO = b"echo "
"""Prefix of the correlation of this program's messages to its own reply topic."""
_NEXT_ROUND_S = 0.05
_LAST_ROUND_S = 1.0
"""A round of draining that would have less time is not begun where an instance still waits for the broker."""


class NeverAtRest(EtherError, TimeoutError):
    """There were still messages under way after `timeout_s` seconds; `what` says which. A `TimeoutError`."""

    def __init__(self, timeout_s: float, what: str = "messages were still being published or handled") -> None:
        self.timeout_s, self.what = timeout_s, what
        super().__init__(f"{what} after {timeout_s:g} s")


@dataclass(frozen=True, slots=True)
class _Question:
    """A request to several instances that waits for answers."""

    verb: str
    asked: Mapping[str, Any]
    cause: Cause
    barrier: Barrier
    deadline: Deadline


class _Loss(NamedTuple):
    """A death: the calls and the questions that waited for that instance then."""

    name: str
    why: str
    calls: Sequence[PendingCall]
    questions: Sequence[Barrier]
    at: float
    """When it was noted, on the monotonic clock."""


class Session(MemberDiscovery):
    """One program's view of its session, and its requests to the other members."""

    def __init__(self, link: Link, topics: SessionTopics) -> None:
        super().__init__(link, topics)
        self._questions: dict[bytes, _Question] = {}
        self.is_limited = False
        """Whether this program may do less than the one that leads: it is on another device."""
        self.commands_as = ""
        """Stands in the topics of commands in place of this program's name: an agent's sign."""
        self._losses: list[_Loss] = []
        """Deaths whose waiting calls and questions are to end."""
        self._ending: dict[bytes, list[_Loss]] = {}
        """The same, as soon as an echo on the reply topic is back, by its correlation."""
        self._claimed: set[str] = set()
        """The names whose own topic is listened to."""
        self.calls = CallClient(link, topics, self._reply_topic, lambda: self._known)
        self.saves = DurableCalls(self)
        link.on_refusal.insert(0, self._is_told)
        link.on_connection.append(self._on_connection)

    def close(self) -> None:
        """End all calls. Durable calls without an answer stay on disk for the next run."""
        self.saves.close()
        self.calls.close()

    def close_in(self, local_instances: dict[str, LocalCallee]) -> None:
        """Make `local_instances`, of this process, the only members, so that no call needs the broker. For `Lab`."""
        self.opened = True
        self.calls = CallClient(
            self.link, self.topics, self._reply_topic, lambda: [i.announcement() for i in local_instances.values()]
        )
        self.calls.local_instances = local_instances

    def _listen(self, deadline: Deadline) -> None:
        reply = self.topics.answers(self._reply_topic)
        self.link.listen(reply, self._on_reply, now=self._take_reply, timeout_s=deadline.left())
        for fence in (self.topics.control(FENCE), self.topics.control_by(FENCE, "+")):
            self.link.listen(fence, self._on_fence, now=self._on_fence, timeout_s=deadline.left())

    def _is_local(self, name: str) -> bool:
        return name in self.calls.local_instances

    def reach_of(self, member: Announcement) -> dict[str, str]:
        """A member's `state`, for people. Without a connection nothing but objects of this process can be reached: then
        a member that lived is `unreachable`, and `last_state` is its state from before."""
        state = member.state.value
        if self.link.offline_since is None or self._is_local(member.name) or member.state not in HOLDS_ITS_NAME:
            return {"state": state}
        return {"state": UNREACHABLE, "last_state": state}

    def _is_told(self, refusal: Refusal, headers: Headers) -> bool:
        """Whether a thread of this program waits for what the message was to bring about, and is told of the refusal: a
        request, or a claim or echo."""
        own = headers.reply_to == self._reply_topic or refusal.topic.startswith(self._reply_topic)
        name = self.topics.instance_of_state(refusal.topic)
        return own or (name is not None and is_notice(unpack(refusal.payload, refusal.properties).value))

    # -- names

    def claim(self, name: str, incarnation: str, timeout_s: float) -> bool:
        """Claim a name; returns whether this claim came first. The claim stands on the topic of the name's
        announcements, where all claimants receive the claims and the announcements in the same order, and this one
        returns when its own claim has come back. Where retained announcements are not shown to wildcards, the topic
        itself is subscribed to, which shows the present holder's. Raises `PublishRefused`."""
        deadline = Deadline(timeout_s)
        if self.link.wildcards_show_retained is not True and name not in self._claimed:
            self._claimed.add(name)
            self.link.listen(self.topics.state(name), self._receive_state, timeout_s=deadline.left())
        self._hear_back(name, CLAIM, incarnation, deadline)
        with self._changed:
            return self._claims.holder(name, time.monotonic()) == incarnation

    def fence(self, holder: Announcement, epoch: int, timeout_s: float) -> None:
        """Take over a name: from now on every process refuses messages of its earlier holder, which stops itself."""
        fence = fence_of(holder, epoch)
        self.link.publish(self.topics.control_by(FENCE, holder.name), fence, timeout_s=timeout_s)
        if self._has_version_1():
            self.link.publish(self.topics.control(FENCE), fence, timeout_s=timeout_s)

    def command_topic(self, verb: str) -> str:
        """The topic of a command to members: with this program's name in it, unless one of them speaks version 1 of the
        wire, and hears commands without one alone."""
        if self._has_version_1():
            return self.topics.control(verb)
        return self.topics.control_by(verb, self.commands_as or self.link.source)

    def _private_topic(self, question: _Question) -> str:
        """The topic of a command with secrets, to one member: what all hear, every device may hear."""
        (to,) = question.asked["instances"]
        return self.topics.control_to(question.verb, self.commands_as or self.link.source, to)

    def _has_version_1(self) -> bool:
        return any(member.wire < WIRE and member.state in HOLDS_ITS_NAME for member in self._known)

    def _on_fence(self, inbound: Inbound) -> bool:
        _, by = self.topics.commanded(inbound.delivery.topic)
        match _value_of(inbound):
            case {"name": str(name), "nodes": list(nodes)} if by in (None, name):
                self.link.fence((node for node in nodes if isinstance(node, str)), name)
        return True

    # -- deaths

    def _lose(self, name: str, why: str, *, returns: bool = False) -> None:
        calls = self.calls.lose(name, why, returns=returns)
        questions = [each.barrier for each in self._questions.values() if each.barrier.lose(name, why)]
        if calls or questions:
            self._losses.append(_Loss(name, why, calls, questions, time.monotonic()))

    def _end_waiting(self) -> None:
        """End the waiting for instances that have died, as soon as their last answers have come: an echo on the reply
        topic follows whatever they have sent there."""
        if not self._losses:
            return
        with self._changed:
            losses, self._losses = self._losses, []
        by_name: dict[str, list[_Loss]] = {}
        for loss in losses:
            by_name.setdefault(loss.name, []).append(loss)
        for name, own in by_name.items():  # an echo each, behind what that instance has sent on its own topic
            self._end_behind_echo(name, own)

    def _end_behind_echo(self, name: str, losses: list[_Loss]) -> None:
        if self._listening and self.link.transport.connected:
            echo = _ECHO + os.urandom(8)
            with self._changed:
                self._ending[echo] = losses
            try:
                # One with rights of its own has none to another's topic, on a broker that keeps the order of all.
                topic = answer_topic(self._reply_topic, self.link.source if self.is_limited else name)
                self.link.publish(topic, None, extra=ExtraHeaders(correlation=echo), timeout_s=0.0)
                return
            except TransportError:
                with self._changed:
                    losses = self._ending.pop(echo, [])
        self._end(losses)

    def _end(self, losses: Iterable[_Loss]) -> None:
        for loss in losses:
            with self._changed:
                for question in loss.questions:
                    question.bury(loss.name)
                self._notify()
            self.calls.cut(loss.calls, loss.name, loss.why, loss.at)

    def _heard(self, name: str) -> None:
        self.calls.heard(name)
        for token, question in self._questions.items():
            if name in question.barrier.missing:
                self._after(0.0, partial(self._ask_again, token, [name]))

    def _on_connection(self, up: bool) -> None:
        """On the dispatch thread."""
        with self._changed:
            for token, question in self._questions.items() if up else ():
                self._after(0.0, partial(self._ask_again, token, question.barrier.missing))
            ending, self._ending = ({}, self._ending) if up else (self._ending, {})
        for losses in ending.values():  # no answer comes any more
            self._end(losses)
        if up and self.link.wildcards_show_retained is False:
            self._ask_without_waiting(None)

    def _after(self, pause_s: float, task: Callable[[], object]) -> None:
        self.calls.later.after(pause_s, task)

    # -- requests to several instances

    def ask(
        self, verb: str, participants: Iterable[str], timeout_s: float, more: Mapping[str, Any] | None = None
    ) -> Barrier:
        """Send a request to instances, and wait until each has answered or died, for at most `timeout_s` seconds.
        `more` are the request's other fields. Raises `PublishRefused`, at once, where the broker does not take it."""
        participants = list(participants)
        token, barrier = os.urandom(QUESTION_BYTES), Barrier(participants)
        asked = {"instances": participants, **(more or {})}
        question = _Question(verb, asked, context.current(), barrier, Deadline(timeout_s))
        with self._changed:
            self._questions[token] = question
        try:
            self._publish(token, question, asked, timeout_s)
            self._wait_for(barrier, Deadline(timeout_s))
        finally:
            with self._changed:
                del self._questions[token]
        if barrier.error is not None:
            raise barrier.error
        return barrier

    def _publish(self, token: bytes, question: _Question, asked: Mapping[str, Any], timeout_s: float) -> None:
        cause = question.cause
        extra = ExtraHeaders(
            reply_to=self._reply_topic, correlation=token, expiry_s=timeout_s, trace=cause.trace, twice=True,
            origin=cause.origin,
        )  # fmt: skip
        parents = (cause.message_id,) if cause.message_id else ()
        topic = self.command_topic(question.verb) if SECRETS not in asked else self._private_topic(question)
        receipt = self.link.publish(topic, asked, parents=parents, extra=extra)
        receipt.when_done(partial(self._end_if_refused, question.barrier, receipt))

    def _end_if_refused(self, barrier: Barrier, receipt: Receipt) -> None:
        if receipt.error is not None:
            with self._changed:
                barrier.error = receipt.error
                self._notify()

    def _ask_again(self, token: bytes, names: Iterable[str]) -> None:
        """Ask those again that have not answered. What programs are asked for, they may not do twice."""
        with self._changed:
            question = self._questions.get(token)
            missing = [name for name in names if question is not None and name in question.barrier.missing]
        if question is not None and missing and question.verb not in FOR_PROGRAMS:
            self._publish(token, question, {**question.asked, "instances": missing}, question.deadline.left())

    def _wait_for(self, barrier: Barrier, deadline: Deadline) -> None:
        cause = context.current()
        # A handler that asks several instances, its own among them, would wait for itself: its worker is busy here. So
        # a worker that waits serves the jobs of the same trace meanwhile.
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

        Returns the result of each instance's method by instance name; a dict by method name where an instance has
        several such methods. Raises `NoResponder` where no ready instance has one, `SyncError` where a method fails or
        an instance dies or does not answer.
        """
        with self._changed:
            ready = [member for member in self._known if member.state in TAKES_PART]
        participants = [member.name for member in ready if topic in _sync_topics(member)]
        if not participants:
            marked = sorted({known for member in ready for known in _sync_topics(member)})
            marked.sort(key=lambda known: -difflib.SequenceMatcher(None, known, topic).ratio())
            raise NoResponder(f"sync {topic!r}", "no ready instance has a method marked ether_sync for it", marked)
        barrier = self.ask("sync", participants, timeout_s, {"topic": topic, "arguments": dict(arguments)})
        results = {name: _sole(answer.results) for name, answer in barrier.answers.items() if not answer.failed}
        if len(results) < len(participants):
            failed = {name: "; ".join(each.failed.values()) for name, each in barrier.answers.items() if each.failed}
            missing = dict.fromkeys(barrier.missing, f"did not answer within {timeout_s:g} s")
            raise SyncError(topic, results, failed, barrier.lost, missing)
        return results

    def drain(self, participants: Iterable[str], timeout_s: float, more: Mapping[str, Any] | None = None) -> Barrier:
        """Wait until no message is under way or being handled. Returns the answers of the last round. `more` are the
        other fields of each question.

        Each round asks every instance for the numbers of messages that it has sent and received. Two rounds with the
        same numbers mean rest. The question goes before data, so each side first waits until the broker has the data
        that it has published; an instance whose data cannot leave in time says so in its answer. And it may overtake
        data at the broker, so each round carries the last numbers of what was published before it.

        Raises `NeverAtRest` where messages go on causing messages, a source goes on publishing, or the broker has not
        taken all messages of this program in time.
        """
        participants = list(participants)
        deadline = Deadline(timeout_s)
        quiescence = Quiescence()
        rounds, told, latest = 0, dict[str, Any](), dict[str, Answer]()
        while True:
            self._send_everything(deadline)
            left_s = deadline.left()
            heads = {**told, **self.link.heads}
            barrier = self.ask(DRAIN, participants, left_s, {**(more or {}), "within_s": left_s, "heads": heads})
            rounds, told = rounds + 1, heads_of(barrier.answers)
            latest = {**latest, **barrier.answers}
            if barrier.missing and rounds > 1 and deadline.passed:  # the time limit ended this round, not an instance
                raise NeverAtRest(timeout_s, _still_waiting(latest))
            if barrier.missing or barrier.lost:
                return barrier
            if any(answer.failed for answer in barrier.answers.values()):
                if deadline.left() < _LAST_ROUND_S:
                    return barrier
            elif quiescence.at_rest(barrier.answers):
                return barrier
            elif deadline.left() < 2 * _NEXT_ROUND_S:
                raise NeverAtRest(timeout_s, _still_waiting(barrier.answers))
            elif any(answer.facts.get(OUTSTANDING) for answer in barrier.answers.values()):
                with self._changed:  # the question goes before a backlog, so its answers come at once
                    self._changed.wait(min(_NEXT_ROUND_S, deadline.left()))

    def _send_everything(self, deadline: Deadline) -> None:
        """Wait until the broker has taken everything that this program has published."""
        try:
            self.link.flush(deadline.left())
        except PublishTimeout:
            waiting = self.link.transport.unsettled
            what = f"{waiting:,} messages of {self.link.source} were still waiting for the broker"
            raise NeverAtRest(deadline.timeout_s, what) from None

    def _take_reply(self, inbound: Inbound) -> bool:
        """On the transport's thread: hand a plain answer directly to the call that waits for it. Returns False for all
        other messages, which go to the dispatch thread: echoes, answers to requests of `ask`, and reports on a
        call's progress, which have a schema."""
        headers = inbound.headers()
        if headers is None or headers.schema is not None:
            return False
        if headers.correlation in self._questions:
            return False
        return self.calls.take(headers.correlation, inbound, self._answers_as(inbound, headers.source))

    def _on_reply(self, inbound: Inbound) -> None:
        headers = inbound.headers()
        correlation = headers.correlation if headers else None
        if correlation is not None and correlation.startswith(_ECHO):
            self._on_echo(correlation, inbound)
            return
        if headers is not None and headers.schema == ANNOUNCED:
            self._on_present(correlation, inbound)
            return
        by = self._answers_as(inbound, headers.source if headers is not None else "")
        if correlation not in self._questions:
            self.calls.receive(inbound, by)
            return
        try:
            answer = Answer.from_value(inbound.unpack().value)
        except PayloadError as error:
            logger.warning("an answer cannot be read: %s", error)
            return
        finally:
            inbound.done()
        with self._changed:
            if correlation in self._questions and answer is not None and answer[0] == by:
                self._questions[correlation].barrier.answer(*answer)
            self._notify()

    def _answers_as(self, inbound: Inbound, source: str) -> str:
        """Who answers: as the topic says, on which a broker with rights lets nobody else publish. A member of the
        wire's version 1 is known by the header alone."""
        by = self.topics.answered_by(inbound.delivery.topic)
        return source if by is None else by

    def _on_echo(self, echo: bytes, inbound: Inbound) -> None:
        """All answers that were sent before a death have come. An echo that comes back twice is simply ignored."""
        inbound.done()
        with self._changed:
            losses = self._ending.pop(echo, [])
        self._end(losses)


def _still_waiting(answers: Mapping[str, Answer]) -> str:
    """What a system that is not at rest still has to do, by the latest answers of its instances."""
    said = "messages were still being published or handled"
    waits = [f"{name} had {n:,} waiting" for name, answer in answers.items() if (n := answer.facts.get(OUTSTANDING, 0))]
    return f"{said} ({', '.join(waits)})" if waits else said


def _value_of(inbound: Inbound) -> object:
    """The value of a short message, None where it cannot be read. Marks the message as handled."""
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
    """The result of the only method; all results by method name where there are several."""
    return next(iter(results.values())) if len(results) == 1 else dict(results)
