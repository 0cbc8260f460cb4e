"""The answering side of calls, for one instance: a request becomes a job, and the job's outcome becomes an answer.

Promises: a request whose deadline has passed is not run. A request that is delivered twice is run once, and its second
delivery gets the first answer. A save of Ether's that has lost its id on the way is not run: its second delivery
could not be recognised. Whatever the method does, the caller gets an answer, in the form in which its request arrived:
with headers in the body where the properties were lost. An answer that was lost on its way is sent again to a caller
that asks for it. Requests about the instance itself (`ether-status`, `ether-cancel`, `ether-lease`, `ether-recall`) are
answered at once, on the dispatch thread, even while the worker is busy.

The trap: a request is first seen on the transport's thread (`CallServer.take`), which may only queue it. A request that
has to be answered there and then goes on to the dispatch thread (`CallServer.receive`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ether.calls.call_order import CallOrder
from ether.calls.durable_records import CALL_ID_BYTES
from ether.calls.durable_server import InstanceJournal, JournaledCall
from ether.calls.host import CallHost, CallRequest
from ether.calls.lease_server import LEASE
from ether.connection.causes import CallContext
from ether.connection.failure_text import text_of
from ether.connection.inputs import Lineage
from ether.connection.later import Later
from ether.connection.link import ExtraHeaders, Inbound, Link, lost_properties
from ether.connection.request_ages import RequestAges
from ether.connection.worker import FOREIGN
from ether.errors import (
    ArgumentProblem,
    Cancelled,
    DecodeError,
    EtherError,
    InstanceLeased,
    PayloadError,
    TransportError,
    ValidationFailed,
)
from ether.errors.tracebacks import lines_of
from ether.protocol.answers import (
    CANCELLED,
    INVALID,
    LEASED,
    LOG,
    NO_METHOD,
    PROGRESS,
    RAISED,
    SAVES,
    UNSENT,
    WATCHED,
    ErrorReport,
)
from ether.protocol.dedup_window import DedupWindow
from ether.protocol.request_table import Answered
from ether.spec.marks import MarkKind
from ether.transport.base import Refusal
from ether.wire.envelope import Headers
from ether.wire.head import node_of, unpack_properties
from ether.wire.topics import answer_topic, may_be_answered

STATUS, CANCEL, RECALL = "ether-status", "ether-cancel", "ether-recall"
"""Stand where a request names its method; a method's name cannot contain a hyphen, and NATS takes no topic with a dot.
`ether-recall` asks what became of calls: `{"calls": {correlation: age in seconds}}`."""

OWN = (STATUS, CANCEL, LEASE, RECALL)
"""Requests that the instance itself answers, at once."""

_HEX = frozenset("0123456789abcdef")

_STATUS_TIMEOUT_S = 0.2
"""Limits the wait for room in the outgoing queue: the dispatch thread must not wait longer."""

_ON_THE_WAY_S = 10.0
"""The longest that a question about calls may have been on its way: the calls are so much older than it says."""

_AGAIN_TIMEOUT_S = 2.0
"""The same for an answer that is sent again; a caller that does not get it asks once more, or has got the first one."""


Respond = Callable[[object, ErrorReport | None], None]
"""Called once: with the value and None, or with None and the error."""


class CallJob:
    """One call on its way through the worker."""

    def __init__(
        self,
        host: CallHost,
        request: CallRequest,
        payload: Callable[[], object],
        respond: Respond,
        tell: Callable[[str, object], None] | None = None,
        forget: Callable[[], None] = lambda: None,
        begin: Callable[[], bool] | None = None,
    ) -> None:
        """`forget` is called instead of `respond` where the request has expired: no caller waits for an answer.
        `begin` is called before the method runs; where it returns False, it has answered the request itself."""
        self.begun_at: float | None = None
        """When its turn came, on the monotonic clock."""
        self.method, self.caller_node = request.method, ""
        self._forget = forget
        self._begin = begin
        self._host = host
        self._request = request
        self._payload = payload
        self._respond = respond
        caller = "" if request.correlation is None else request.caller or "?"
        self.context = CallContext(f"{host.name}.{request.method}", tell, caller=caller)

    def run(self) -> None:
        request = self._request
        if request.deadline is not None and time.monotonic() >= request.deadline:
            self._host.count_expired()
            self._forget()
            return
        if self.context.cancelled:
            raise Cancelled(self.context.call)
        if (why := self._host.cannot_call(request.method)) is not None:
            self._answer(None, ErrorReport(NO_METHOD, "NoResponder", why))
            return
        if self._begin is not None and not self._begin():
            return
        # The lease was checked when the request arrived; another program may have taken it while the request waited.
        self.begun_at = time.monotonic()
        lease_server = self._host.lease_server
        if (refusal := lease_server.refusal(request.method, request.asker, request.trace)) is not None:
            raise refusal
        chain = lease_server.enter(request.trace)
        try:
            value = self._host.call(request, self._payload(), self.context)
        finally:
            lease_server.leave(chain)
        self._answer(value, None)
        if self._is_recorded():
            self._record({"result": value}, Lineage(request.parents, self.context.made_of, *self.context.begun))

    def failed(self, error: BaseException) -> None:
        method = f"{self._host.spec.name}.{self._request.method}"
        report = report_of(error, self._host.name, method)
        if report.kind in (RAISED, UNSENT):
            details = {"caller": self._request.caller, "message_id": self._request.message_id}
            what = "raised" if report.kind == RAISED else "ran, but its answer cannot travel"
            self._host.report(f"{method} {what}", error, details, answered=True)
        self._answer(None, report)
        if self._is_recorded():
            self._record(report.to_value(), Lineage(self._request.parents, described=False))

    def _answer(self, value: object, error: ErrorReport | None) -> None:
        """Answer. A method that has run has not failed because its answer finds no room or no connection."""
        try:
            self._respond(value, error)
        except TransportError as unsent:
            self._host.logger.warning("the answer of %s could not be sent: %s", self.context.call, unsent)

    def _is_recorded(self) -> bool:
        """Whether the session records calls of this method."""
        record_writer = self._host.record_writer
        return record_writer is not None and record_writer.wants(self.context.call)

    def _record(self, outcome: Mapping[str, object], lineage: Lineage) -> None:
        """Record the call. It has been answered, so no caller waits for this."""
        record_writer, request = self._host.record_writer, self._request
        assert record_writer is not None
        try:
            facts = {"params": self._payload(), **outcome}
            record_writer.keep_call(
                self.context.call, request.message_id, facts, lineage, request.caller, request.origin
            )
        except (EtherError, ValueError) as error:  # a value that cannot be sent cannot be recorded either
            self._host.logger.warning("the call of %s is not recorded: %s", self.context.call, error)


def report_of(error: BaseException, instance: str, method: str = "") -> ErrorReport:
    """The error that a caller of `instance` gets for an exception; `method` is the `Class.method` that was called."""
    name = type(error).__name__
    if isinstance(error, ValidationFailed):
        return ErrorReport(INVALID, name, str(error), problems=error.problems)
    if isinstance(error, DecodeError):
        return ErrorReport(INVALID, name, str(error), problems=[ArgumentProblem("payload", "bytes", str(error))])
    if isinstance(error, InstanceLeased) and error.instance == instance:  # otherwise the method called that instance
        return ErrorReport(LEASED, name, str(error), holder={"instance": instance, **error.holder})
    if isinstance(error, Cancelled):
        return ErrorReport(CANCELLED, name, str(error))
    kind = UNSENT if method and isinstance(error, EtherError) and error.after == method else RAISED
    return ErrorReport(kind, name, text_of(error), "".join(lines_of(error)))


class CallServer:
    """Answers the calls of one instance."""

    def __init__(self, host: CallHost, link: Link) -> None:
        self._host = host
        self._link = link
        self._lock = threading.Lock()
        self._answered: Answered[tuple[object, ErrorReport | None]] = Answered(time.monotonic)
        self._running: dict[tuple[str, bytes], CallJob] = {}
        """The calls that are queued or running, by caller and correlation, so that they can be cancelled."""
        self._latest: dict[bytes, tuple[_Head, bool]] = {}
        """The latest request of each durable call that was sent again while it was queued or running, and whether its
        properties were lost."""
        self._saves = frozenset(method.name for method in host.spec.with_mark(MarkKind.SAVE))
        self._lease_requests = DedupWindow()
        self.ages = RequestAges()
        self._later = Later(f"ether-order-{host.name}")
        self._order = CallOrder(link, self._later, host.serves)
        self.expired = 0
        self.refused = 0
        """Requests whose answers would have gone where no answers belong."""
        self.journal: InstanceJournal | None = None
        """Makes each durable call run once in all incarnations of this instance; None: once in this incarnation."""

    def close(self) -> None:
        """Hold no calls any more. A second call does nothing."""
        self._later.close()

    def receive(self, inbound: Inbound) -> None:
        """Take a request, on the dispatch thread: answer, refuse or queue it."""
        try:
            headers = _headers(inbound)
        except DecodeError as error:
            self._host.logger.warning("a request for %s cannot be read: %s", self._host.name, error)
            inbound.done()
            return
        if headers.reply_to is not None and not _may_be_answered(inbound, headers):
            self._refuse_way_back(inbound, headers.reply_to)
            return
        method = inbound.delivery.topic.rpartition("/")[2]
        refusal = None if method in OWN else self._refusal(method, headers)  # asked once, because a lease may end now
        if method in OWN or refusal is not None:
            self._answer_now(method, headers, inbound, refusal)
        elif headers.id is not None and headers.correlation is None and method in self._saves:
            self._host.logger.warning(
                "a save of %s.%s by %s is not run: its id was lost on the way, so that it could be run twice. Something"
                " between the brokers changes messages.", self._host.name, method, headers.source,
            )  # fmt: skip
            inbound.done()
        elif headers.id is None or headers.correlation is None or self._take_on(headers, inbound):
            self._queue(method, headers, inbound)
        else:
            inbound.done()

    def take(self, inbound: Inbound) -> bool:
        """Queue a request, on the transport's thread. False for a request that `receive` has to answer or refuse."""
        method = inbound.delivery.topic.rpartition("/")[2]
        headers = inbound.headers()
        if headers is None or headers.correlation is None or method in OWN:
            return False
        if headers.reply_to is not None and not _may_be_answered(inbound, headers):
            return False
        if self._host.cannot_call(method) is not None:
            return False
        if not self._host.lease_server.admits(headers.reply_to or "", headers.trace):
            return False
        with self._lock:
            first = self._answered.take_on(_asker(headers), headers.correlation, _do_not_answer)
        if first:
            self._queue(method, headers, inbound)
        return first

    def _refuse_way_back(self, inbound: Inbound, reply_to: str) -> None:
        """A request is not run whose answer would be a message of this instance's where no answers belong."""
        self.refused += 1
        self._host.logger.warning(
            "a request on %r is refused: its answer would go to %r, and answers go to reply/<client> of this session"
            " alone, those to other programs to nothing under ether/ (%d refused so far)",
            inbound.delivery.topic, reply_to, self.refused,
        )  # fmt: skip
        inbound.done()

    def _queue(self, method: str, headers: _Head, inbound: Inbound) -> None:
        request = _request(method, headers, self.ages.left_s(headers))
        key = (_asker(headers), headers.correlation or b"")

        def forget() -> None:
            self._running.pop(key, None)
            inbound.done()

        respond = self._responder(headers, inbound, forget)
        tell = self._teller(headers, request, twice=lost_properties(inbound))
        begin = None
        if self.journal is not None and headers.schema in SAVES and len(key[1]) == CALL_ID_BYTES:
            name = f"{self._host.name}.{method}"
            journaled = JournaledCall(self.journal, key[1], name, respond, inbound.done)
            respond, begin = journaled.respond, journaled.begin
        job = CallJob(self._host, request, lambda: inbound.unpack().value, respond, tell, forget, begin)
        if headers.correlation is not None:
            self._running[key] = job
        node = FOREIGN if headers.id is None else node_of(headers.id)
        job.caller_node = node
        submit = partial(self._host.submit_call, method, job, request.trace, node)
        if self._host.takes_turn(method):
            self._order.submit(node, headers.after, request.trace, request.deadline, job, submit)
            return
        if headers.after is not None:
            self._order.note(node, headers.after)
        submit()

    def _take_on(self, headers: _Head, inbound: Inbound) -> bool:
        """Whether this is a request's first delivery. A later delivery gets the stored answer, if there is one; it is
        sent without the lock, which the transport's thread takes in `take`."""
        correlation = headers.correlation or b""
        stored: list[tuple[object, ErrorReport | None]] = []
        with self._lock:
            first = self._answered.take_on(_asker(headers), correlation, stored.append)
            if not first and ("", correlation) in self._running:
                # A durable call was sent again, perhaps by the next run of its program: the answer goes to the latest
                # sender, because the earlier one may have ended.
                self._latest[correlation] = headers, lost_properties(inbound)
        for answer in stored:
            try:
                self._answer_or_say_why_not(headers, *answer, _AGAIN_TIMEOUT_S, twice=lost_properties(inbound))
            except EtherError as error:
                self._host.logger.warning("%s could not send an answer again: %s", self._host.name, error)
        return first

    def _responder(self, headers: _Head, inbound: Inbound, forget: Callable[[], None]) -> Respond:
        asked = headers, lost_properties(inbound)

        def respond(value: object, error: ErrorReport | None) -> None:
            head, twice = self._latest.pop(headers.correlation or b"", asked) if self._latest else asked
            try:
                value, error = self._answer_or_say_why_not(head, value, error, twice=twice)
            finally:
                forget()
                if headers.id is not None and headers.correlation is not None:
                    with self._lock:
                        self._answered.answered(_asker(headers), headers.correlation, (value, error), _size(value))

        return respond

    def _send(
        self, headers: _Head, value: object, error: ErrorReport | None, timeout_s: float = 10.0, *, twice: bool
    ) -> None:
        """Answer. `twice`: the request had lost its properties, so the answer, which goes the same way back, carries
        its headers in the body, too; a program that is not Ether's gets them as properties alone."""
        if headers.reply_to is None:
            return
        self._link.publish(
            self._way_back(headers, headers.reply_to),
            value if error is None else error.to_value(),
            parents=(headers.id,) if headers.id else (),
            extra=ExtraHeaders(
                correlation=headers.correlation,
                error=error.class_name if error else None,
                twice=twice and headers.id is not None,
            ),
            timeout_s=timeout_s,
        )

    def _way_back(self, headers: _Head, reply_to: str) -> str:
        """The topic of the answer. A stranger gets its answer where it asked for it."""
        return reply_to if headers.id is None and not headers.source else answer_topic(reply_to, self._host.name)

    def _answer_or_say_why_not(
        self, headers: _Head, value: object, error: ErrorReport | None, timeout_s: float = 10.0, *, twice: bool
    ) -> tuple[object, ErrorReport | None]:
        """Send an answer, or an error where the answer cannot be sent; returns what was sent."""
        try:
            self._send(headers, value, error, timeout_s, twice=twice)
        except PayloadError as unsendable:
            value, error = None, ErrorReport(UNSENT, type(unsendable).__name__, str(unsendable))
            self._host.logger.warning("%s: an answer cannot travel: %s", self._host.name, unsendable)
            self._send(headers, value, error, timeout_s, twice=twice)
        return value, error

    def on_refusal(self, refusal: Refusal, headers: Headers) -> bool:
        """The broker refuses an answer: an error that says so takes its place, on the dispatch thread. False for other
        messages, and for such an error itself."""
        if headers.correlation is None or headers.reply_to or headers.schema or headers.error is not None:
            return False
        report = ErrorReport(UNSENT, type(refusal.error).__name__, str(refusal.error))
        extra = ExtraHeaders(correlation=headers.correlation, error=report.class_name, twice=True)
        try:
            self._link.publish(
                refusal.topic, report.to_value(), parents=headers.parents, extra=extra, timeout_s=_STATUS_TIMEOUT_S
            )
        except EtherError as error:
            self._host.logger.warning("%s could not tell that an answer was refused: %s", self._host.name, error)
        return True

    def _teller(self, headers: _Head, request: CallRequest, *, twice: bool) -> Callable[[str, object], None] | None:
        reply_to = headers.reply_to
        if not request.watched or reply_to is None:
            return None

        def tell(schema: str, value: object) -> None:
            extra = ExtraHeaders(schema=schema, correlation=headers.correlation, twice=twice)
            self._link.publish(self._way_back(headers, reply_to), value, extra=extra)

        return tell

    def _answer_now(self, method: str, headers: _Head, inbound: Inbound, refusal: ErrorReport | None) -> None:
        twice = lost_properties(inbound)
        try:
            if refusal is not None:
                self._send(headers, None, refusal, _STATUS_TIMEOUT_S, twice=twice)
            elif method == LEASE:
                self._lease(headers, inbound.unpack().value, twice=twice)
            elif method == STATUS:
                status = {**self._host.status(), **self._about_call(headers, _asked(inbound))}
                self._send(headers, status, None, _STATUS_TIMEOUT_S, twice=twice)
            elif method == RECALL:
                self._recall(headers, inbound.unpack().value, twice=twice)
            else:
                self._cancel(headers.source, inbound.unpack().value)
        except EtherError as error:
            self._host.logger.warning("a question about %s was not answered: %s", self._host.name, error)
        finally:
            inbound.done()

    def _about_call(self, headers: _Head, asked: object) -> dict[str, object]:
        """What became of a call whose caller asks: since when it is being run, or how many messages and calls are to be
        handled before it. Empty for a call that was never received."""
        match asked:
            case {"call": str(name)} if len(name) % 2 == 0 and set(name) <= _HEX:
                correlation = bytes.fromhex(name)
            case _:
                return {}
        job = self._running.get((headers.source, correlation)) or self._running.get(("", correlation))
        if job is None:
            return {}
        if job.begun_at is not None:
            return {"before": 0, "runs_s": time.monotonic() - job.begun_at}
        if (held := self._order.before(job)) is not None:
            node, missing = held
            return {"before": missing + self._host.messages_of(node)}
        before = self._host.before(job.method, job, job.caller_node)
        return {} if before is None else {"before": before}

    def _refusal(self, method: str, head: _Head) -> ErrorReport | None:
        """Why a request is not even queued; None for one that is."""
        if (problem := self._host.cannot_call(method)) is not None:
            return ErrorReport(NO_METHOD, "NoResponder", problem)
        leased = self._host.lease_server.refusal(method, head.reply_to or "", head.trace)
        return None if leased is None else report_of(leased, self._host.name)

    def _recall(self, headers: _Head, asked: object, *, twice: bool) -> None:
        """A caller asks what became of its calls: send it the answers again that there are, and name the calls that
        were never received. Of the rest it will hear."""
        match asked:
            case {"calls": dict(calls)}:
                ages = {name: age for name, age in calls.items() if isinstance(age, int | float)}
            case _:
                return
        unknown: list[str] = []
        for name, age_s in ages.items():
            try:
                correlation = bytes.fromhex(name)
            except ValueError:
                continue
            stored: list[tuple[object, ErrorReport | None]] = []
            with self._lock:
                known = self._answered.recall(headers.source, correlation, stored.append)
                remembers = self._answered.remembers_since(time.monotonic() - age_s - _ON_THE_WAY_S)
            if not known and remembers:
                unknown.append(name)
            for answer in stored:
                self._send(_about(headers, correlation), *answer, _AGAIN_TIMEOUT_S, twice=twice)
        said = {"birth": self._host.incarnation, "unknown": unknown}
        self._send(headers, said, None, _STATUS_TIMEOUT_S, twice=twice)

    def _lease(self, headers: _Head, asked: object, *, twice: bool) -> None:
        """A program takes, renews or releases the lease. A request that is late, came before, or does not say who
        asks, changes nothing: the lease would be held by a program that does not know of it."""
        left_s = self.ages.left_s(headers)
        if headers.reply_to is None or self._lease_requests.before(headers.id) or (left_s is not None and left_s <= 0):
            self._host.logger.warning(
                "a request for the lease of %s is ignored: it is late, came before, or does not say who asks",
                self._host.name,
            )
            return

        def granted(value: object, error: EtherError | None) -> None:
            report = None if error is None else report_of(error, self._host.name)
            self._send(headers, value, report, _STATUS_TIMEOUT_S, twice=twice)

        self._host.lease_server.ask(headers.reply_to, asked, headers.trace, granted)

    def _cancel(self, caller: str, correlation: object) -> None:
        """A caller has lost interest in one of its calls."""
        if not isinstance(correlation, str):
            return
        try:
            call_id = bytes.fromhex(correlation)
        except ValueError:
            self._host.logger.warning(
                "%s was asked to cancel %.80r, which is no call's id", self._host.name, correlation
            )
            return
        job = self._running.get((caller, call_id)) or self._running.get(("", call_id))
        if job is not None:
            job.context.cancel()


def _asked(inbound: Inbound) -> object:
    try:
        return inbound.unpack().value
    except PayloadError:
        return None


def _do_not_answer(answer: object) -> None:
    """For `take`: a second delivery gets its answer in `receive`, on the dispatch thread, which may publish."""


@dataclass(frozen=True, slots=True)
class _ForeignHead:
    """The facts of a request without Ether headers that an answer needs."""

    source: str
    id: str | None
    reply_to: str | None
    correlation: bytes | None
    expiry_s: float | None
    trace: str | None
    schema: str | None
    time: float | None
    parents: tuple[str, ...] = ()
    origin: str | None = None
    after: str | None = None


_Head = Headers | _ForeignHead


def _headers(inbound: Inbound) -> _Head:
    """A request's headers. Any MQTT 5 program may call: its request has no Ether headers, but a Response Topic and
    perhaps Correlation Data."""
    headers = inbound.headers()
    if headers is not None:
        return headers
    properties = unpack_properties(inbound.delivery.properties)
    expiry = properties.message_expiry_s
    return _ForeignHead("", None, properties.response_topic, properties.correlation_data, expiry, None, None, None)


def _may_be_answered(inbound: Inbound, head: _Head) -> bool:
    return may_be_answered(inbound.delivery.topic, head.reply_to or "", stranger=isinstance(head, _ForeignHead))


def _about(head: _Head, correlation: bytes) -> _ForeignHead:
    """The head for an answer to another call of the same caller."""
    return _ForeignHead(head.source, None, head.reply_to, correlation, None, None, None, None)


def _asker(head: _Head) -> str:
    """The part of a request's identity beside its correlation: its source. It is empty for a durable call, which stays
    the same request when the next run of its program sends it again."""
    return "" if head.schema in SAVES else head.source


def _request(method: str, head: _Head, left_s: float | None) -> CallRequest:
    deadline = None if left_s is None else time.monotonic() + left_s
    watched = head.schema in WATCHED
    asker = head.reply_to or ""
    return CallRequest(
        method, head.source, head.correlation, head.id, head.trace, deadline, watched, head.parents, asker, head.origin
    )


def _size(value: object) -> int:
    """An estimate of the bytes that a stored answer takes."""
    return 200 + int(getattr(value, "nbytes", 0)) + (len(value) if isinstance(value, (bytes, str, list)) else 0)


def tell_progress(context: CallContext, fraction: float, text: str) -> None:
    """Send a progress report to a caller that watches; raises `Cancelled` where the caller has cancelled."""
    if context.cancelled:
        raise Cancelled(context.call)
    if context.tell is not None:
        context.tell(PROGRESS, {"fraction": float(fraction), "text": text})


def tell_log(context: CallContext, line: dict[str, Any]) -> None:
    """Send a log record to a caller that watches."""
    if context.tell is not None:
        context.tell(LOG, line)
