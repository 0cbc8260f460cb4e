"""What the control plane asks of an instance: drain, save, clean up, stop; change a log level; give up its name.

Promises: a verb that runs user code waits for its turn on the worker, which comes before a backlog of messages; a verb
that a busy instance must hear, too, does not wait. From the cleanup of an end on, nothing runs but the end's own steps.
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
from functools import partial
from typing import Any

from ether.connection.caused_work import CausedWork
from ether.connection.causes import Cause, handling, origin_of
from ether.connection.link import ExtraHeaders, Inbound, Link, reply_headers
from ether.connection.request_ages import RequestAges
from ether.errors import EtherError, PayloadError
from ether.instance.announcer import Announcer
from ether.instance.host import ControlHost
from ether.logs.levels import VERB as LOG_LEVEL
from ether.logs.levels import level_answer
from ether.protocol.alarm_words import ALARM_VERB
from ether.protocol.barrier import BEHIND, DRAIN, QUESTION_BYTES, Answer
from ether.protocol.dedup_window import DedupWindow
from ether.protocol.safety import SAFE
from ether.recording.tags import SETTLE_S, TRIAL, TRIAL_NOW, TRIAL_WORK, TrialWork, tag_answer, work_answer
from ether.security.rights import is_of_agent
from ether.session.fencing import FENCE, NameClaim, NameHold
from ether.session.roll_call import ANNOUNCE, answer_roll_call
from ether.session.session import FOR_PROGRAMS
from ether.transport.base import Refusal
from ether.wire.envelope import Headers, unpack
from ether.wire.head import node_of

KEEPER = "keeper"
"""The control verb `{"births", "keeper"}`: the supervisor of these incarnations has another name from now on. It names
incarnations, because other instances may hold the same names."""

_AT_ONCE = (LOG_LEVEL, TRIAL_NOW, TRIAL_WORK, KEEPER, ANNOUNCE, SAFE)
Found = TrialWork | int
"""What is found out when a request arrives: of a trial its work, of a drain on how many topics something is on its way,
of all others 0."""

_IN_TURN = (DRAIN, "save_all", "cleanup", "stop", "sync", TRIAL)

_UNSENT = "the answer"
"""Stands among the failed methods of an answer that takes the place of one that could not be sent."""

_SAY_TIMEOUT_S = 0.2
"""Limits the wait for room in the outgoing queue: the dispatch thread must not wait longer."""
_REMEMBERED = 16
"""So many requests are remembered, with what their methods returned. Programs have fewer of them open at a time."""

_ALONE_TIMEOUT_S = 60.0
"""Limits the wait for methods that run beside the worker; the asking program has given up long before."""

_DRAIN_ALONE_S = 2.0
"""The same for the question whether there is anything to do: a method that runs is an answer, too."""


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
        self._arrived: dict[int, TrialWork] = {}
        """What was found out when a request arrived that the dispatch thread is to answer, by its id()."""
        self.refused = 0
        """Commands of agents of other machines."""
        self.on_fenced: Callable[[str], None] = lambda why: None
        """Called with the reason when another process has taken the name."""
        self.returns = False
        """True when the instance was told to stop in order to be started again: its announcement says so, and stays."""

    @property
    def caused(self) -> CausedWork:
        """What this process does because of trials."""
        return self._link.caused

    def listen(self) -> None:
        """Subscribe to the control plane and claim the name; returns when the broker has confirmed."""
        host = self._host
        hold = NameHold(host.name, host.incarnation, self._epoch, self._announcer.since, self._announcer.began)
        self._name_claim = NameClaim(self._link, host.topics, hold, lambda why: self.on_fenced(why))
        # Verb by verb: `control/+/+` would also bring what all processes say to one another on `control/missed/<node>`,
        # and from brokers that send a copy for each filter every question to this process twice.
        verbs = (FENCE, *_AT_ONCE, *_IN_TURN, *((ALARM_VERB,) if host.spec.alarms else ()))
        by_others = [host.topics.control_by(verb, "+") for verb in verbs]
        self._link.listen_to_each([host.topics.control("+"), *by_others], self._receive, now=self._take)

    def give_up_name(self) -> None:
        """Defend the announcement no longer; to be called before it is withdrawn. A second call does nothing."""
        name_claim, self._name_claim = self._name_claim, None
        if name_claim is not None and self._link.transport.connected:
            name_claim.release()

    def answer(self, inbound: Inbound, verb: str, value: object, found: Found) -> None:
        """Carry out a control message, if it is for this instance, and answer it; on the worker. `found` is what was
        found out when it arrived."""
        host, headers = self._host, inbound.unpack().headers
        asked = value if isinstance(value, dict) else {}
        if host.name not in asked.get("instances", [host.name]):
            return
        if not self._is_first(inbound):
            return
        # A sync runs user code for another program, as a call does, so a lease refuses it. The other verbs belong to
        # the lifecycle of the session, which a lease does not stop.
        asker = (headers.reply_to or "", headers.trace) if headers is not None else ("", None)
        if asked.get("ends") is True and verb in ("cleanup", "stop"):
            host.begin_end()
        refusal = host.lease_server.refusal("ether.sync", *asker) if verb == "sync" else None
        answer: Answer | None
        if refusal is not None:
            answer = Answer(failed={"lease": f"InstanceLeased: {refusal}"})
        elif verb == "sync" and host.closed:
            answer = Answer(failed={"end": f"{host.name} is ending"})
        elif verb == ALARM_VERB:
            answer = host.perform(verb, asked)
        else:
            alone = host.wait_alone(_ALONE_TIMEOUT_S if verb != DRAIN else _DRAIN_ALONE_S)
            if isinstance(found, TrialWork):
                answer = tag_answer(host.record_writer, value, SETTLE_S, found)
            else:
                answer = host.perform(verb, asked)
                if answer is not None and verb == DRAIN and not answer.failed:
                    answer = replace(answer, facts={**answer.facts, BEHIND: found + (not alone)})
                if answer is not None and (verb == DRAIN or asked.get("ends") is True):
                    answer = replace(answer, results={**answer.results, "heads": self._link.heads})
        if answer is not None and headers is not None and headers.reply_to:
            answer = self._sendable(answer)
            with self._answers_lock:
                self._answers[headers.reply_to, headers.correlation or b""] = answer
            self._reply(inbound, answer)
        if answer is not None and verb == "stop":
            # Only now: the worker ends after this job, and the answer has left.
            self.returns = asked.get("returns") is True
            host.worker.stop()

    def _sendable(self, answer: Answer) -> Answer:
        """The answer, without the results that cannot be sent: their methods have run, and failed in that."""
        results, failed = dict(answer.results), dict(answer.failed)
        for method, value in answer.results.items():
            try:
                self._link.prepare(value)
            except PayloadError as error:
                del results[method]
                failed[method] = f"ran, but its answer cannot travel: {type(error).__name__}: {error}"
        return answer if len(results) == len(answer.results) else replace(answer, results=results, failed=failed)

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
        if (reply := reply_headers(inbound, self._host.name)) is not None:
            to, extra = reply
            self._link.publish(to, answer.to_value(self._host.name), extra=extra)

    def _take(self, inbound: Inbound) -> bool:
        """Take a message, on the transport's thread; False for one that has to wait for the dispatch thread."""
        verb = _verb(inbound)
        _, by = self._host.topics.commanded(inbound.delivery.topic)
        if is_of_agent(by, self._announcer.machine):
            self.refused += 1
            inbound.done()
            return True
        if verb in (TRIAL_NOW, TRIAL_WORK):
            self._arrived[id(inbound)] = self._trial_work(inbound)
        if verb in _AT_ONCE:
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
            found = self._found(inbound, verb)
            job = _ControlJob(self._host, self, inbound, trace, deadline, found)
            self._host.worker.submit(job, trace, self._express(inbound, verb, headers))

    def _express(self, inbound: Inbound, verb: str, headers: Headers | None) -> str | None:
        """Behind whose messages a request goes before a backlog; None for one that keeps its turn: the tag of a trial,
        which belongs to what comes behind it, and the last step, before which what waits is counted."""
        asked = self._asked(inbound)
        ends = asked.get("ends") is True
        if ends and asked.get("drained") is False and self._host.name in asked.get("instances", ()):
            self._host.begin_no_message()
        if verb == TRIAL or (ends and verb == "stop"):
            return None
        return "" if headers is None or ends else node_of(headers.id)

    def _asked(self, inbound: Inbound) -> dict[str, Any]:
        try:
            value = inbound.unpack().value
        except PayloadError:
            return {}  # the worker reports it
        return value if isinstance(value, dict) else {}

    def _found(self, inbound: Inbound, verb: str) -> Found:
        """What has to be found out when a request arrives: what came before it is in the worker's queue before it."""
        if verb in (DRAIN, "stop"):  # what is missing is told at the end
            return self._behind(inbound)
        return self._trial_work(inbound) if verb == TRIAL else 0

    def _trial_work(self, inbound: Inbound) -> TrialWork:
        try:
            return TrialWork(self._link, inbound.unpack().value)
        except PayloadError:
            return TrialWork(self._link, None)

    def _behind(self, inbound: Inbound) -> int:
        """How much of what others say that they have published has not come yet."""
        return self._link.lacks(self._asked(inbound).get("heads"))

    def _answer_at_once(self, inbound: Inbound, verb: str) -> None:
        """Carry out a verb that a busy instance must hear, too; on the dispatch thread, not on the worker."""
        work = self._arrived.pop(id(inbound), None)
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
        if verb == SAFE and host.name in value.get("instances", ()):
            host.make_safe(str(value.get("why", "")), partial(self._reply, inbound))
        elif host.name in value.get("instances", [host.name]):
            self._reply(inbound, self._at_once(verb, value, work or TrialWork(self._link, value)))

    def _at_once(self, verb: str, value: dict[str, object], work: TrialWork) -> Answer:
        host = self._host
        if verb == LOG_LEVEL:
            return level_answer(value)
        if verb == TRIAL_WORK:
            return work_answer(host.record_writer, work)
        return tag_answer(host.record_writer, value, 0.0, work, busy=bool(host.status().get("busy")))

    def _before_a_restart(self, inbound: Inbound) -> None:
        """An instance that is drained in order to be started again leaves the messages that wait to the next
        incarnation. That takes effect at once: the question itself waits in line behind them."""
        asked, host = self._asked(inbound), self._host
        if asked.get("returns") is True and host.name in asked.get("instances", ()):
            host.pass_on()

    def _on_fence(self, inbound: Inbound) -> None:
        _, by = self._host.topics.commanded(inbound.delivery.topic)
        value = inbound.take()
        if self._name_claim is not None and (by is None or (isinstance(value, dict) and value.get("name") == by)):
            self._name_claim.hear_fence(value)


class _ControlJob:
    """One control message for the worker: drain, save_all, cleanup, stop, sync, trial. `deadline` is on the monotonic
    clock; `found` as in `Control.answer`."""

    __slots__ = ("_control", "_deadline", "_found", "_host", "_inbound", "_trace")

    def __init__(
        self, host: ControlHost, control: Control, inbound: Inbound, trace: str | None, deadline: float | None,
        found: Found,
    ) -> None:  # fmt: skip
        self._host, self._control, self._inbound, self._trace = host, control, inbound, trace
        self._deadline, self._found = deadline, found

    def run(self) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._host.logger.warning(
                "%s: %r came to its turn too late, and is not carried out: who asked has given up", self._host.name,
                _verb(self._inbound),
            )  # fmt: skip
            self._inbound.done()
            return
        unpacked = self._inbound.unpack()
        message_id, origin = None, None
        if (headers := unpacked.headers) is not None:
            message_id, origin = headers.id, origin_of(headers)
        with handling(Cause(message_id, self._trace, self._host.worker, None, origin, self._control.caused)):
            self._control.answer(self._inbound, _verb(self._inbound), unpacked.value, self._found)
        self._inbound.done()

    def failed(self, error: BaseException) -> None:
        try:
            self._host.report("a control message failed", error, {"topic": self._inbound.delivery.topic})
        finally:
            self._inbound.done()


def _verb(inbound: Inbound) -> str:
    """The fifth level of `ether/1/<session>/control/<verb>/<by>`; a verb of version 1 is the last one."""
    return inbound.delivery.topic.split("/")[4]
