"""What the control plane asks of an instance: drain, save, clean up, stop; change a log level; give up its name.

Promises: a verb that runs user code waits in line on the worker; a verb that a busy instance must hear, too, does not.
A request that is delivered twice (an asking program that was cut off asks again; a second path brings it, too) is
carried out once, and answered twice; one whose asker has given up is not carried out.

The trap: the transport's thread sees every control message first, and may only enqueue. A fence is the exception: it
costs nothing, and must take effect before the next message is taken in.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from ether.connection.causes import Cause, handling
from ether.connection.link import ExtraHeaders, Inbound, Link, reply_headers
from ether.connection.request_ages import RequestAges
from ether.errors import EtherError, PayloadError
from ether.instance.announcer import Announcer
from ether.instance.host import ControlHost
from ether.logs.levels import VERB as LOG_LEVEL
from ether.logs.levels import level_answer
from ether.protocol.barrier import BEHIND, DRAIN, QUESTION_BYTES, Answer
from ether.protocol.dedup_window import DedupWindow
from ether.recording.tags import SETTLE_S, TRIAL, TRIAL_NOW, tag_answer
from ether.session.fencing import FENCE, NameClaim, NameHold
from ether.session.roll_call import ANNOUNCE, answer_roll_call
from ether.session.session import FOR_PROGRAMS
from ether.transport.base import Refusal
from ether.wire.envelope import Headers, unpack

KEEPER = "keeper"
"""The control verb `{"births", "keeper"}`: the supervisor of these incarnations has another name from now on. It names
incarnations, because other instances may hold the same names."""

_AT_ONCE = (LOG_LEVEL, TRIAL_NOW, KEEPER, ANNOUNCE)
_UNSENT = "the answer"
"""Stands among the failed methods of an answer that takes the place of one that could not be sent."""

_SAY_TIMEOUT_S = 0.2
"""Limits the wait for room in the outgoing queue: the dispatch thread must not wait longer."""
_REMEMBERED = 16
"""So many requests are remembered, with what their methods returned. Programs have fewer of them open at a time."""

_ALONE_TIMEOUT_S = 60.0
"""Limits the wait for methods that run beside the worker; the asking program has given up long before."""


class Control:
    """One instance's subscription to the control plane, and its claim to its name."""

    def __init__(self, host: ControlHost, announcer: Announcer, link: Link, epoch: int) -> None:
        self._host = host
        self._announcer = announcer
        self._link = link
        self._epoch = epoch
        self._ages = RequestAges()
        self._seen = DedupWindow()
        """The requests that have come, by asker and correlation."""
        self._name_claim: NameClaim | None = None
        self._answers: OrderedDict[tuple[str, bytes], Answer | None] = OrderedDict()
        """The latest requests that were carried out, by asker and correlation; None while one is."""
        self._answers_lock = threading.Lock()
        self.on_fenced: Callable[[str], None] = lambda why: None
        """Called with the reason when another process has taken the name."""
        self.returns = False
        """True when the instance was told to stop in order to be started again: its announcement says so, and stays."""

    def listen(self) -> None:
        """Subscribe to the control plane and claim the name; returns when the broker has confirmed."""
        host = self._host
        hold = NameHold(host.name, host.incarnation, self._epoch, self._announcer.since, self._announcer.began)
        self._name_claim = NameClaim(self._link, host.topics, hold, lambda why: self.on_fenced(why))
        self._link.listen(host.topics.control("+"), self._receive, now=self._take)

    def give_up_name(self) -> None:
        """Defend the announcement no longer; to be called before it is withdrawn. A second call does nothing."""
        name_claim, self._name_claim = self._name_claim, None
        if name_claim is not None and self._link.transport.connected:
            name_claim.release()

    def answer(self, inbound: Inbound, verb: str, value: object, behind: int) -> None:
        """Carry out a control message, if it is for this instance, and answer it; on the worker. `behind` is what
        `_behind` has found, for a drain."""
        host, headers = self._host, inbound.unpack().headers
        asked = value if isinstance(value, dict) else {}
        if host.name not in asked.get("instances", [host.name]):
            return
        if not self._is_first(inbound):
            return
        # A sync runs user code for another program, as a call does, so a lease refuses it. The other verbs belong to
        # the lifecycle of the session, which a lease does not stop.
        asker = (headers.reply_to or "", headers.trace) if headers is not None else ("", None)
        refusal = host.lease_server.refusal("ether.sync", *asker) if verb == "sync" else None
        if refusal is not None:
            answer: Answer | None = Answer(failed={"lease": f"InstanceLeased: {refusal}"})
        else:
            host.wait_alone(_ALONE_TIMEOUT_S)
            answer = tag_answer(host.record_writer, value, SETTLE_S) if verb == TRIAL else host.perform(verb, asked)
            if answer is not None and verb == DRAIN and not answer.failed:
                answer = replace(answer, facts={**answer.facts, BEHIND: behind}, results={"heads": self._link.heads})
        if answer is not None and headers is not None and headers.reply_to:
            with self._answers_lock:
                self._answers[headers.reply_to, headers.correlation or b""] = answer
            self._reply(inbound, answer)
        if answer is not None and verb == "stop":
            # Only now: the worker ends after this job, and the answer has left.
            self.returns = asked.get("returns") is True
            host.worker.stop()

    def on_refusal(self, refusal: Refusal, headers: Headers) -> bool:
        """The broker refuses the answer to a control message: a shorter one, which says so, takes its place, on the
        dispatch thread. False for other messages, and for such an answer itself."""
        if headers.correlation is None or len(headers.correlation) != QUESTION_BYTES or headers.reply_to:
            return False
        try:
            found = Answer.from_value(unpack(refusal.payload, refusal.properties).value)
        except PayloadError:
            return False
        if found is None or found[0] != self._host.name or _UNSENT in found[1].failed:
            return False
        answer = Answer(ran=found[1].ran, failed={**found[1].failed, _UNSENT: str(refusal.error)})
        extra = ExtraHeaders(correlation=headers.correlation, twice=True)
        try:
            self._link.publish(refusal.topic, answer.to_value(self._host.name), extra=extra, timeout_s=_SAY_TIMEOUT_S)
        except EtherError as error:
            self._host.logger.warning("%s could not tell that an answer was refused: %s", self._host.name, error)
        return True

    def _is_first(self, inbound: Inbound) -> bool:
        """Whether a request has not come before. One that has been answered is answered again, if it is not too long
        ago."""
        headers = inbound.headers()
        if headers is None:
            return True
        if not headers.reply_to or headers.correlation is None:
            return not self._seen.before(headers.id)
        key = headers.reply_to, headers.correlation
        with self._answers_lock:
            first, answer = not self._seen.before(f"{key[0]} {key[1].hex()}"), self._answers.get(key)
            if first:
                self._answers[key] = None
                if len(self._answers) > _REMEMBERED:
                    self._answers.popitem(last=False)
        if answer is not None:
            self._reply(inbound, answer)
        return first

    def _reply(self, inbound: Inbound, answer: Answer) -> None:
        if (reply := reply_headers(inbound)) is not None:
            to, extra = reply
            self._link.publish(to, answer.to_value(self._host.name), extra=extra)

    def _take(self, inbound: Inbound) -> bool:
        """Take a message, on the transport's thread; False for one that has to wait for the dispatch thread."""
        if _verb(inbound) in _AT_ONCE:
            return False  # it is answered at once, and publishing an answer may wait
        self._receive(inbound)
        return True

    def _receive(self, inbound: Inbound) -> None:
        verb = _verb(inbound)
        if verb == DRAIN:
            self._before_a_restart(inbound)
        if verb == FENCE:
            self._on_fence(inbound)
        elif verb in _AT_ONCE:
            self._answer_at_once(inbound, verb)
        elif verb in FOR_PROGRAMS:
            inbound.done()
        else:
            headers = inbound.headers()
            trace = headers.trace if headers else None
            left_s = self._ages.left_s(headers) if headers else None
            deadline = None if left_s is None else time.monotonic() + left_s
            behind = self._behind(inbound) if verb == DRAIN else 0
            self._host.worker.submit(_ControlJob(self._host, self, inbound, trace, deadline, behind), trace)

    def _behind(self, inbound: Inbound) -> int:
        """How much of what others say that they have published has not come yet. Found out when the request arrives:
        what came before it is in the worker's queue before it."""
        try:
            value = inbound.unpack().value
        except PayloadError:
            return 0
        return self._link.lacks(value.get("heads")) if isinstance(value, dict) else 0

    def _answer_at_once(self, inbound: Inbound, verb: str) -> None:
        """Carry out a verb that a busy instance must hear, too; on the dispatch thread, not on the worker."""
        if verb == ANNOUNCE:
            answer_roll_call(self._link, inbound)
            return
        try:
            value, host = inbound.unpack().value, self._host
        except PayloadError:
            return
        finally:
            inbound.done()
        if not isinstance(value, dict):
            return
        if verb == KEEPER:
            if host.incarnation in value.get("births", ()):
                self._announcer.hold({"keeper": str(value.get("keeper"))})
            return
        if host.name in value.get("instances", [host.name]):
            busy = bool(host.status().get("busy"))
            answer = level_answer(value) if verb == LOG_LEVEL else tag_answer(host.record_writer, value, 0.0, busy=busy)
            self._reply(inbound, answer)

    def _before_a_restart(self, inbound: Inbound) -> None:
        """An instance that is drained in order to be started again leaves the messages that wait to the next
        incarnation. That takes effect at once: the question itself waits in line behind them."""
        try:
            asked = inbound.unpack().value
        except PayloadError:
            return  # the worker reports it
        host = self._host
        if isinstance(asked, dict) and asked.get("returns") is True and host.name in asked.get("instances", ()):
            host.pass_on()

    def _on_fence(self, inbound: Inbound) -> None:
        value = inbound.take()
        if self._name_claim is not None:
            self._name_claim.hear_fence(value)


class _ControlJob:
    """One control message for the worker: drain, save_all, cleanup, stop, sync, trial. `deadline` is on the monotonic
    clock; `behind` as in `Control.answer`."""

    __slots__ = ("_behind", "_control", "_deadline", "_host", "_inbound", "_trace")

    def __init__(
        self, host: ControlHost, control: Control, inbound: Inbound, trace: str | None, deadline: float | None,
        behind: int,
    ) -> None:  # fmt: skip
        self._host, self._control, self._inbound, self._trace = host, control, inbound, trace
        self._deadline, self._behind = deadline, behind

    def run(self) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._host.logger.warning(
                "%s: %r came to its turn too late, and is not carried out: who asked has given up", self._host.name,
                _verb(self._inbound),
            )  # fmt: skip
            self._inbound.done()
            return
        unpacked = self._inbound.unpack()
        message_id = unpacked.headers.id if unpacked.headers else None
        with handling(Cause(message_id, self._trace, self._host.worker)):
            self._control.answer(self._inbound, _verb(self._inbound), unpacked.value, self._behind)
        self._inbound.done()

    def failed(self, error: BaseException) -> None:
        try:
            self._host.report("a control message failed", error, {"topic": self._inbound.delivery.topic})
        finally:
            self._inbound.done()


def _verb(inbound: Inbound) -> str:
    return inbound.delivery.topic.rpartition("/")[2]
