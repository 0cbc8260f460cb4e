"""The answering side of calls, for one instance: a request becomes a job, what the job does becomes an answer.

Promises: a request whose deadline has passed is not run; one that is delivered twice is run once, and its second
delivery gets the first answer; whatever the method does, the caller is told. Questions about the instance itself
(`ether.status`, `ether.cancel`) are answered at once, on the dispatch thread, however busy the worker is.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ether.calls.durable_journal import InstanceJournal, JournaledCall
from ether.calls.lease_server import LEASE
from ether.connection.causes import CallContext
from ether.connection.failure_text import text_of, user_traceback
from ether.connection.link import ExtraHeaders, Inbound, Link
from ether.errors import (
    ArgumentProblem,
    Cancelled,
    DecodeError,
    EtherError,
    InstanceLeased,
    PayloadError,
    ValidationFailed,
)
from ether.protocol.answers import (
    CANCELLED,
    INVALID,
    LEASED,
    LOG,
    NO_METHOD,
    PROGRESS,
    RAISED,
    SAVES,
    WATCHED,
    ErrorReport,
)
from ether.protocol.one_way_delay import OneWayDelay
from ether.protocol.request_table import Answered
from ether.system.machine_mark import is_of_this_machine
from ether.wire.envelope import Headers
from ether.wire.head import unpack_properties

if TYPE_CHECKING:
    from ether.instance.hosted import HostedInstance

STATUS, CANCEL = "ether.status", "ether.cancel"
"""In place of a method's name, which cannot contain a dot."""

OWN = (STATUS, CANCEL, LEASE)
"""Answered by the instance itself, at once."""

_SAVE_ID_BYTES = 16
_STATUS_TIMEOUT_S = 0.2
"""For room in the outgoing queue; the dispatch thread must not wait longer."""


class CallRequest(NamedTuple):
    """A call as it arrived, or as it is made within the process. `deadline` is on the monotonic clock."""

    method: str
    caller: str
    correlation: bytes | None
    message_id: str | None
    trace: str | None
    deadline: float | None
    watched: bool
    parents: tuple[str, ...] = ()
    asker: str = ""
    """Where the answer goes: which program it is that asks."""


Respond = Callable[[object, ErrorReport | None], None]
"""Called once with the value, or None and why there is none."""


class CallJob:
    """One call on its way through the worker."""

    def __init__(
        self,
        instance: HostedInstance,
        request: CallRequest,
        payload: Callable[[], object],
        respond: Respond,
        tell: Callable[[str, object], None] | None = None,
        forget: Callable[[], None] = lambda: None,
        begin: Callable[[], bool] | None = None,
    ) -> None:
        """`forget` is called instead of `respond` where the request has expired: nobody waits for an answer. `begin` is
        asked before the method runs; where it says no, it has answered."""
        self._forget = forget
        self._begin = begin
        self._instance = instance
        self._request = request
        self._payload = payload
        self._respond = respond
        self.context = CallContext(f"{instance.name}.{request.method}", tell)

    def run(self) -> None:
        request = self._request
        if request.deadline is not None and time.monotonic() >= request.deadline:
            self._instance.server.expired += 1
            self._forget()
            return
        if self.context.cancelled:
            raise Cancelled(self.context.call)
        if self._begin is not None and not self._begin():
            return
        lease_server = self._instance.lease_server
        if (refusal := lease_server.refusal(request.method, request.asker, request.trace)) is not None:
            raise refusal
        chain = lease_server.enter(request.trace)
        try:
            value = self._instance.call(
                request.method, self._payload(), request.message_id, request.trace, self.context
            )
        finally:
            lease_server.leave(chain)
        self._respond(value, None)
        self._note({"result": value})

    def failed(self, error: BaseException) -> None:
        report = report_of(error, self._instance.name)
        if report.kind == RAISED:
            details = {"caller": self._request.caller, "message_id": self._request.message_id}
            self._instance.report(
                f"{self._instance.spec.name}.{self._request.method} raised", error, details, answered=True
            )
        self._respond(None, report)
        self._note(report.to_value())

    def _note(self, outcome: Mapping[str, object]) -> None:
        """Have the call recorded, where the session records calls. It has been answered: nobody waits for this."""
        record_writer, request = self._instance.record_writer, self._request
        if record_writer is None or not record_writer.wants(self.context.call):
            return
        try:
            told = {"params": self._payload(), **outcome}
            record_writer.keep_call(self.context.call, request.message_id, told, request.parents, request.caller)
        except (EtherError, ValueError) as error:  # what cannot be sent cannot be recorded either
            self._instance.logger.warning("the call of %s is not recorded: %s", self.context.call, error)


def report_of(error: BaseException, instance: str) -> ErrorReport:
    """An exception of a method of `instance`, for its caller."""
    name = type(error).__name__
    if isinstance(error, ValidationFailed):
        return ErrorReport(INVALID, name, str(error), problems=error.problems)
    if isinstance(error, DecodeError):
        return ErrorReport(INVALID, name, str(error), problems=[ArgumentProblem("payload", "bytes", str(error))])
    if isinstance(error, InstanceLeased) and error.instance == instance:  # else it is of one that the method called
        return ErrorReport(LEASED, name, str(error), holder={"instance": instance, **error.holder})
    if isinstance(error, Cancelled):
        return ErrorReport(CANCELLED, name, str(error))
    lines = traceback.format_exception(type(error), error, user_traceback(error))
    return ErrorReport(RAISED, name, text_of(error), "".join(lines))


class CallServer:
    """Answers the calls of one instance."""

    def __init__(self, instance: HostedInstance, link: Link) -> None:
        self._instance = instance
        self._link = link
        self._lock = threading.Lock()
        self._answered: Answered[tuple[object, ErrorReport | None]] = Answered()
        self._running: dict[tuple[str, bytes], CallContext] = {}
        self._latest: dict[bytes, _Head] = {}
        self._transit = OneWayDelay()
        self.expired = 0
        self.journal: InstanceJournal | None = None
        """Where saves are noted, so that each is run once in all lives of this instance; None: in this one."""

    def receive(self, inbound: Inbound) -> None:
        """A request arrived; called on the dispatch thread."""
        try:
            headers = _headers(inbound)
        except DecodeError as error:
            self._instance.logger.warning("a request for %s cannot be read: %s", self._instance.name, error)
            inbound.done()
            return
        method = inbound.delivery.topic.rpartition("/")[2]
        refusal = None if method in OWN else self._refusal(method, headers)  # once: a lease may end this very moment
        if method in OWN or refusal is not None:
            self._answer_now(method, headers, inbound, refusal)
        elif headers.id is None or headers.correlation is None or self._take_on(headers):
            self._queue(method, headers, inbound)
        else:
            inbound.done()

    def take(self, inbound: Inbound) -> bool:
        """A request arrived, on the transport's thread: queue it. False for what has to be answered or refused."""
        method = inbound.delivery.topic.rpartition("/")[2]
        own = inbound.headers()
        if own is None or own.correlation is None or method in OWN or self._refusal(method, own) is not None:
            return False
        with self._lock:
            first = self._answered.take_on(_asker(own), own.correlation, _say_nothing)
        if first:
            self._queue(method, own, inbound)
        return first

    def _queue(self, method: str, headers: _Head, inbound: Inbound) -> None:
        request = _request(method, headers, self._left(headers))
        key = (_asker(headers), headers.correlation or b"")

        def forget() -> None:
            self._running.pop(key, None)
            inbound.done()

        respond = self._responder(headers, inbound, forget)
        tell = self._teller(headers, request)
        begin = None
        if self.journal is not None and headers.schema in SAVES and len(key[1]) == _SAVE_ID_BYTES:
            name = f"{self._instance.name}.{method}"
            journaled = JournaledCall(self.journal, key[1], name, respond, inbound.done)
            respond, begin = journaled.respond, journaled.begin
        job = CallJob(self._instance, request, lambda: inbound.unpack().value, respond, tell, forget, begin)
        if headers.correlation is not None:
            self._running[key] = job.context
        self._instance.submit_call(method, job, request.trace)

    def _take_on(self, headers: _Head) -> bool:
        correlation = headers.correlation or b""
        with self._lock:
            first = self._answered.take_on(_asker(headers), correlation, lambda kept: self._send(headers, *kept))
            if not first and ("", correlation) in self._running:
                self._latest[correlation] = headers  # whoever sent a save again is where its answer is wanted now
            return first

    def _left(self, headers: _Head) -> float | None:
        """Seconds until the deadline; what the request spent on its way and in queues has passed."""
        if headers.expiry_s is None or headers.time is None:
            return headers.expiry_s
        same_clock = is_of_this_machine(headers.reply_to)
        with self._lock:
            spent = self._transit.seconds(headers.source, headers.time, time.time(), same_clock=same_clock)
        return headers.expiry_s - spent

    def _responder(self, headers: _Head, inbound: Inbound, forget: Callable[[], None]) -> Respond:
        def respond(value: object, error: ErrorReport | None) -> None:
            head = self._latest.pop(headers.correlation or b"", headers) if self._latest else headers
            try:
                self._send(head, value, error)
            except PayloadError as unsendable:
                value, error = None, report_of(unsendable, self._instance.name)
                self._send(head, value, error)
            finally:
                forget()
                if headers.id is not None and headers.correlation is not None:
                    with self._lock:
                        self._answered.answered(_asker(headers), headers.correlation, (value, error), _size(value))

        return respond

    def _send(self, headers: _Head, value: object, error: ErrorReport | None, timeout_s: float = 10.0) -> None:
        if headers.reply_to is None:
            return
        self._link.publish(
            headers.reply_to,
            value if error is None else error.to_value(),
            parents=(headers.id,) if headers.id else (),
            extra=ExtraHeaders(correlation=headers.correlation, error=error.class_name if error else None),
            timeout_s=timeout_s,
        )

    def _teller(self, headers: _Head, request: CallRequest) -> Callable[[str, object], None] | None:
        reply_to = headers.reply_to
        if not request.watched or reply_to is None:
            return None

        def tell(schema: str, value: object) -> None:
            self._link.publish(reply_to, value, extra=ExtraHeaders(schema=schema, correlation=headers.correlation))

        return tell

    def _answer_now(self, method: str, headers: _Head, inbound: Inbound, refusal: ErrorReport | None) -> None:
        try:
            if refusal is not None:
                self._send(headers, None, refusal, _STATUS_TIMEOUT_S)
            elif method == LEASE:
                self._lease(headers, inbound.unpack().value)
            elif method == STATUS:
                self._send(headers, self._instance.status(), None, _STATUS_TIMEOUT_S)
            else:
                self._cancel(headers.source, inbound.unpack().value)
        except EtherError as error:
            self._instance.logger.warning("a question about %s was not answered: %s", self._instance.name, error)
        finally:
            inbound.done()

    def _refusal(self, method: str, head: _Head) -> ErrorReport | None:
        """Why this is not even queued."""
        if (problem := self._instance.cannot_call(method)) is not None:
            return ErrorReport(NO_METHOD, "NoResponder", problem)
        leased = self._instance.lease_server.refusal(method, head.reply_to or "", head.trace)
        return None if leased is None else report_of(leased, self._instance.name)

    def _lease(self, headers: _Head, asked: object) -> None:
        """Somebody wants the instance alone, still does, or does no more."""

        def granted(value: object, error: EtherError | None) -> None:
            report = None if error is None else report_of(error, self._instance.name)
            self._send(headers, value, report, _STATUS_TIMEOUT_S)

        self._instance.lease_server.ask(headers.reply_to or "", asked, headers.trace, granted)

    def _cancel(self, caller: str, correlation: object) -> None:
        """A caller has lost interest in a call of its own."""
        if not isinstance(correlation, str):
            return
        number = bytes.fromhex(correlation)
        context = self._running.get((caller, number)) or self._running.get(("", number))
        if context is not None:
            context.cancel()


def _say_nothing(answer: object) -> None:
    """A second delivery is answered on the dispatch thread."""


@dataclass(frozen=True, slots=True)
class _StrangersHead:
    """What an answer needs to know of a request that has no headers of ours."""

    source: str
    id: str | None
    reply_to: str | None
    correlation: bytes | None
    expiry_s: float | None
    trace: str | None
    schema: str | None
    time: float | None
    parents: tuple[str, ...] = ()


_Head = Headers | _StrangersHead


def _headers(inbound: Inbound) -> _Head:
    """Any MQTT 5 program can call: it has no headers of ours, but a Response Topic and perhaps Correlation Data."""
    own = inbound.headers()
    if own is not None:
        return own
    properties = unpack_properties(inbound.delivery.properties)
    expiry = properties.message_expiry_s
    return _StrangersHead("", None, properties.response_topic, properties.correlation_data, expiry, None, None, None)


def _asker(head: _Head) -> str:
    """Whose request it is, beside its correlation. A save is the same whoever sends it: perhaps the next run."""
    return "" if head.schema in SAVES else head.source


def _request(method: str, head: _Head, left_s: float | None) -> CallRequest:
    deadline = None if left_s is None else time.monotonic() + left_s
    watched = head.schema in WATCHED
    asker = head.reply_to or ""
    return CallRequest(
        method, head.source, head.correlation, head.id, head.trace, deadline, watched, head.parents, asker
    )


def _size(value: object) -> int:
    """A guess at what keeping an answer costs."""
    return 200 + int(getattr(value, "nbytes", 0)) + (len(value) if isinstance(value, (bytes, str, list)) else 0)


def tell_progress(context: CallContext, fraction: float, text: str) -> None:
    """Report progress to whoever watches; raises `Cancelled` where the caller has cancelled."""
    if context.cancelled:
        raise Cancelled(context.call)
    if context.tell is not None:
        context.tell(PROGRESS, {"fraction": float(fraction), "text": text})


def tell_log(context: CallContext, line: dict[str, Any]) -> None:
    """Pass a log record on to whoever watches."""
    if context.tell is not None:
        context.tell(LOG, line)
