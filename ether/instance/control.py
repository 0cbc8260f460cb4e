"""What an instance is asked on the control plane: to drain, save, clean up, stop; to change a log level; to give up its
name.

Promise: what runs user code waits in line on the worker; what must not wait for a busy worker does not. The trap: the
transport's thread hears all of this first, and may only enqueue. A fence is the exception, which costs nothing and must
count before the next message is taken in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ether.connection.causes import Cause, handling
from ether.connection.link import ExtraHeaders, Inbound, Link
from ether.errors import PayloadError
from ether.logs.levels import VERB as LOG_LEVEL
from ether.logs.levels import level_answer
from ether.protocol.barrier import Answer
from ether.recording.tags import SETTLE_S, TRIAL, TRIAL_NOW, tag_answer
from ether.session.fencing import FENCE, NameClaim, NameHold

if TYPE_CHECKING:
    from ether.instance.hosted import HostedInstance

KEEPER = "keeper"
"""The control verb: `{"births", "keeper"}`. The program that keeps these has another name from now on. By birth: others
may hold the same names."""

_FOR_PROGRAMS = ("claim", "keep", "run")
_AT_ONCE = (LOG_LEVEL, TRIAL_NOW, KEEPER)


class Control:
    """One instance's ear on the control plane, and its hold on its name."""

    def __init__(self, instance: HostedInstance, link: Link, epoch: int) -> None:
        self._instance = instance
        self._link = link
        self._epoch = epoch
        self._own_name: NameClaim | None = None
        self.on_fenced: Callable[[str], None] = lambda why: None
        self.returns = False
        """Told to stop, and to be started again: its announcement says so, and stays."""

    def listen(self) -> None:
        """From now on it hears; returns when the broker has confirmed."""
        instance = self._instance
        hold = NameHold(instance.name, instance.incarnation, self._epoch, instance.announcer.since)
        self._own_name = NameClaim(self._link, instance.topics, hold, lambda why: self.on_fenced(why))
        self._link.listen(instance.topics.control("+"), self._receive, now=self._take)

    def give_up_name(self) -> None:
        """The announcement is no longer defended: before it is withdrawn. Twice is fine."""
        own_name, self._own_name = self._own_name, None
        if own_name is not None and self._link.transport.connected:
            own_name.release()

    def answer(self, inbound: Inbound, verb: str, value: object) -> None:
        """Answer a control message, if it is for this instance; on the worker."""
        instance, headers = self._instance, inbound.unpack().headers
        if isinstance(value, dict) and instance.name not in value.get("instances", [instance.name]):
            return
        asker = (headers.reply_to or "", headers.trace) if headers is not None else ("", None)
        refusal = instance.lease_server.refusal("ether.sync", *asker) if verb == "sync" else None
        if refusal is not None:
            said: Answer | None = Answer(failed={"lease": f"InstanceLeased: {refusal}"})
        else:
            said = instance.perform(verb, value if isinstance(value, dict) else {})
        if verb == TRIAL:
            said = tag_answer(instance.record_writer, value, SETTLE_S)
        if said is not None and headers is not None and headers.reply_to:
            extra = ExtraHeaders(correlation=headers.correlation)
            self._link.publish(headers.reply_to, said.to_value(instance.name), extra=extra)
        if said is not None and verb == "stop":
            self.returns = isinstance(value, dict) and value.get("returns") is True
            instance.worker.stop()

    def _take(self, inbound: Inbound) -> bool:
        """On the transport's thread."""
        if _verb(inbound) in _AT_ONCE:
            return False  # it is answered at once, and to publish is to wait
        self._receive(inbound)
        return True

    def _receive(self, inbound: Inbound) -> None:
        verb = _verb(inbound)
        if verb == FENCE:
            self._on_fence(inbound)
        elif verb in _AT_ONCE:
            self._answer_at_once(inbound, verb)
        elif verb in _FOR_PROGRAMS:
            inbound.done()
        else:
            headers = inbound.headers()
            trace = headers.trace if headers else None
            self._instance.worker.submit(_ControlJob(self._instance, self, inbound, trace), trace)

    def _answer_at_once(self, inbound: Inbound, verb: str) -> None:
        """On the dispatch thread: what must be heard by a busy instance, too, cannot wait for its worker."""
        try:
            unpacked = inbound.unpack()
        except PayloadError:
            return
        finally:
            inbound.done()
        value, headers, name = unpacked.value, unpacked.headers, self._instance.name
        if verb == KEEPER:
            if isinstance(value, dict) and self._instance.incarnation in value.get("births", ()):
                self._instance.announcer.hold({"keeper": str(value.get("keeper"))})
            return
        if isinstance(value, dict) and name in value.get("instances", [name]):
            busy = bool(self._instance.status().get("busy"))
            said = (
                level_answer(value)
                if verb == LOG_LEVEL
                else tag_answer(self._instance.record_writer, value, 0.0, busy=busy)
            )
            if headers is not None and headers.reply_to:
                extra = ExtraHeaders(correlation=headers.correlation)
                self._link.publish(headers.reply_to, said.to_value(name), extra=extra)

    def _on_fence(self, inbound: Inbound) -> None:
        value = inbound.take()
        if self._own_name is not None:
            self._own_name.hear_fence(value)


class _ControlJob:
    """One control message: drain, save_all, cleanup, stop, sync."""

    __slots__ = ("_control", "_inbound", "_instance", "_trace")

    def __init__(self, instance: HostedInstance, control: Control, inbound: Inbound, trace: str | None) -> None:
        self._instance, self._control, self._inbound, self._trace = instance, control, inbound, trace

    def run(self) -> None:
        unpacked = self._inbound.unpack()
        message_id = unpacked.headers.id if unpacked.headers else None
        with handling(Cause(message_id, self._trace, self._instance.worker)):
            self._control.answer(self._inbound, _verb(self._inbound), unpacked.value)
        self._inbound.done()

    def failed(self, error: BaseException) -> None:
        try:
            self._instance.report("a control message failed", error, {"topic": self._inbound.delivery.topic})
        finally:
            self._inbound.done()


def _verb(inbound: Inbound) -> str:
    return inbound.delivery.topic.rpartition("/")[2]
