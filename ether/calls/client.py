"""The asking side of calls: chooses the instance, sends the request, waits for the answer or for the reason of its
absence.

A caller waits on its own thread, on one lock, with a deadline that travels with the request. The event that ends the
wait takes the request out of the request table: the answer, the death of the instance (presence reports it within a
second), the broker's report that the topic has no subscriber or that it refuses the request, or the deadline. Shortly
before the deadline the client asks the instance what it is doing, so that the error can tell a busy instance from a
hung one.

Over MQTT 5 headers are properties, which some bridges strip. A save must run once whatever lies between, so its request
carries them in the body, too. So does every request to an instance that announces that the way to it strips them.

The trap: these events come on different threads and at the same time. The thread that takes the request out of the
table, under the client's lock, is the one that may settle the call.
"""

from __future__ import annotations

import difflib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from ether.calls.call_order import PublishedBefore
from ether.calls.host import CallRequest, LocalCallee
from ether.calls.lease_server import LEASE, mark_of
from ether.calls.reconciliation import Reconciliation
from ether.calls.server import CANCEL, RECALL, STATUS, CallJob
from ether.connection import causes as context
from ether.connection.input_rules import Input
from ether.connection.later import Later
from ether.connection.link import ExtraHeaders, Inbound, Link
from ether.connection.worker import Worker, next_job
from ether.errors import EtherError, InstanceLost, NoResponder, PayloadTooLarge, PublishRefused, RequestTimeout
from ether.protocol.answers import LATER, LOG, PROGRESS, WATCHED, ErrorReport
from ether.protocol.presence import LIVES, TAKES_PART, Announcement
from ether.protocol.request_table import RequestTable
from ether.spec.descriptions import MethodDescription
from ether.spec.marks import MarkKind
from ether.transport.base import Receipt
from ether.wire.topics import SessionTopics

Done = Callable[[], None]
Watch = Callable[[float, str], None]
Outcome = tuple[object, ErrorReport | EtherError | None]
"""The value and None, or None and the error."""


class _Request(NamedTuple):
    """What was sent for a call, to send it again."""

    topic: str
    params: object
    """As `Link.prepare` has made them."""
    parents: tuple[str, ...]
    extra: ExtraHeaders


class PendingCall:
    """A call under way. It is settled once; several threads may wait for it and watch its progress."""

    watched = False
    """Whether its progress is reported: its answer takes the way of the reports, so that it comes behind them."""
    request: _Request | None = None
    """None for a call within the process, and once the call is settled."""
    sent_at = 0.0
    receipt_known = undelivered = False
    """Whether the broker has taken the request; whether it has delivered it to nobody."""
    asks_at = 0.0
    """When the instance is asked next what became of it, on the monotonic clock; 0: not decided yet."""
    lost = ""
    """Why its instance was lost while the broker had not yet said whether it delivered the request: the dead one may
    have got it, or the next process under the name."""

    def __init__(
        self, call: str, instance: str, kind: MarkKind | None, timeout_s: float, correlation: bytes | None = None
    ) -> None:
        self.call = call
        self.instance = instance
        self.kind = kind
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s
        self.correlation = correlation or os.urandom(16)
        self.origin = context.origin()
        """The trial that the call belongs to, however often and by whichever thread it is sent."""
        self.progress: tuple[float, str] | None = None
        self.log: list[dict[str, Any]] = []
        self.status: Mapping[str, Any] | None = None
        self.cancel_local: Callable[[], None] | None = None
        """Cancels a call to an instance of this process."""
        self.when_cut: Callable[[EtherError], None] | None = None
        """Set for a durable call, which outlives the end of one attempt: called with the attempt's error, and the call
        goes on."""
        self.when_answered: Callable[[], None] | None = None
        """Called when a result has come, on the thread that reads it."""
        self.when_late: Callable[[], None] | None = None
        """Set for a durable call; called shortly before its deadline, to make the call durable in time."""
        self._take: Callable[[], Outcome] | None = None
        self._outcome: Outcome | None = None
        self._settled = False
        # Held until the call is settled. A waiter acquires it with a time-out and releases it for the next waiter: that
        # costs less than a `threading.Event`, which makes a lock for each wait.
        self._unsettled = threading.Lock()
        self._unsettled.acquire()
        self._callbacks: list[Done] = []
        self._watchers: list[Watch] = []
        self._lock = threading.Lock()

    @property
    def settled(self) -> bool:
        """True once there is an answer or an error."""
        return self._settled

    @property
    def began(self) -> float:
        """When the call was made, on the monotonic clock."""
        return self.deadline - self.timeout_s

    def settle(self, take: Callable[[], Outcome]) -> bool:
        """End the call; the thread that took it out of the request table calls this. `take` gives the value or the
        error; it is called once, by the first thread that reads the result. False where the call was settled before:
        a durable call may be answered twice, and its first answer counts."""
        if self.settled:  # without the lock: a thread may hold it while it decodes a large answer
            return False
        with self._lock:
            if self._settled:
                return False
            self._take, self._settled, self.request = take, True, None
            callbacks, self._callbacks = self._callbacks, []
        self._unsettled.release()
        for done in callbacks:
            done()
        return True

    def take_note(self, schema: str, value: object) -> None:
        """Take a progress report or log record, which the instance sends before the answer."""
        match value:
            case dict() if schema == LOG:
                self.log.append(value)
            case {"fraction": int(fraction) | float(fraction), "text": str(text)}:
                self.progress = (float(fraction), text)
                for watch in tuple(self._watchers):
                    watch(float(fraction), text)

    def fail(self, error: EtherError) -> None:
        """End the call without an answer."""
        self.settle(lambda: (None, error))

    def cut(self, error: EtherError) -> None:
        """This attempt will not be answered. That ends the call, unless it is durable."""
        if self.when_cut is None:
            self.fail(error)
        else:
            self.when_cut(error)

    def when_done(self, done: Done) -> None:
        """Call `done` when the call is settled, on the thread that settles it; at once where it is settled already."""
        with self._lock:
            if not self._settled:
                self._callbacks.append(done)
                return
        done()

    def watch(self, watch: Watch) -> None:
        """Call `watch` with every progress report from now on, on the dispatch thread, and now with the last one."""
        self._watchers.append(watch)
        if self.progress is not None:
            watch(*self.progress)

    def wait(self, until: float) -> bool:
        """Wait until the call is settled, or until a point on the monotonic clock; returns whether it is settled."""
        if self._settled:
            return True
        if not self._unsettled.acquire(timeout=max(0.0, until - time.monotonic())):
            return self._settled
        self._unsettled.release()
        return True

    def result(self) -> Any:
        """The value of a settled call; raises its error. The answer is decoded here, on the caller's thread."""
        with self._lock:
            if self._outcome is None:
                assert self._take is not None
                self._outcome, self._take = self._take(), None  # it holds this call: no garbage in a circle
            value, error = self._outcome
        if isinstance(error, ErrorReport):
            raise error.to_exception(self.call, self.call)
        if error is not None:
            raise error
        return value


_OPEN_INQUIRIES = 1000
_INQUIRY_S = 5.0
"""How long an instance may take to say what became of calls."""

_ROOM_S = 2.0
"""For room in the outgoing queue, where a call is sent again."""

_OVERDUE_S = 2.0
"""A call that has waited for so long is asked about. Most calls are over by then."""

_PROBE_LEAD_S = 0.3
"""The client asks a silent instance what it is doing this long before the deadline; at most a third of the time-out."""


class CallClient:
    """Makes calls for one process."""

    def __init__(
        self, link: Link, topics: SessionTopics, reply_topic: str, find: Callable[[], list[Announcement]]
    ) -> None:
        """`find` gives the last announcement of every instance; a new list whenever one has changed."""
        self._link = link
        self._topics = topics
        self._reply_topic = reply_topic
        self._find = find
        self._lock = threading.Lock()
        self.requests: RequestTable[PendingCall] = RequestTable()
        self.local_instances: dict[str, LocalCallee] = {}
        """The instances of this very process, by name; they are called without the broker."""
        self._known: list[Announcement] = []
        self._able: dict[tuple[str, str, str], list[str]] = {}
        """For service, method and kind the instances that can take the call, as long as `_known` is up to date."""
        self._behind_bridges: frozenset[str] = frozenset()
        """The instances to which requests have to carry their headers twice, as long as `_known` is up to date."""
        self._takes_known: list[Announcement] = []
        self._takes: dict[tuple[str, str], float] = {}
        """How long methods say that they take, by instance or class, as long as `_takes_known` is up to date."""
        self._turn = 0
        self._published_before = PublishedBefore(link, topics)
        self.later = Later(f"ether-later-{link.source}")
        self._inquiries: dict[bytes, Callable[[object], object]] = {}
        """What is to be done with the answers to open questions about calls."""
        self._reconciliation: Reconciliation[PendingCall] = Reconciliation(self, self.later)
        self._looks_after = False
        """Whether `_look_after` is due, because there may be calls under way."""
        link.on_connection.append(self._on_connection)

    # -- asking

    def begin(
        self, service: str, method: str, params: object, timeout_s: float, kind: MarkKind, *, later: bool = False
    ) -> PendingCall:
        """Send a request. `kind` is the decorator that the method must carry. Raises `NoResponder` and the errors of
        publishing."""
        instance = self.choose(service, method, kind)
        pending = PendingCall(f"{service}.{method}", instance, kind, timeout_s)
        if instance in self.local_instances:
            self._begin_local(pending, self.local_instances[instance], method, params)
            return pending
        schema, twice = LATER if later else None, kind is MarkKind.SAVE or instance in self._behind_bridges
        self._send(pending, self._topics.call(instance, method), params, schema, timeout_s, twice=twice)
        return pending

    def send(self, pending: PendingCall, method: str, params: object, schema: str, timeout_s: float) -> None:
        """Send the request of a durable call. It never expires at the instance; `timeout_s` limits the wait for room in
        the outgoing queue. Raises the errors of publishing."""
        topic = self._topics.call(pending.instance, method)
        self._send(pending, topic, params, schema, timeout_s, expires=False, twice=True)
        # An answer to an earlier request may have settled it just before this one entered the table.
        pending.when_done(partial(self._drop, pending))

    def wait(self, pending: PendingCall) -> Any:
        """Wait for the value; raises the reason where there is none, at the latest at the deadline."""
        self.await_end(pending)
        return pending.result()

    def await_end(self, pending: PendingCall) -> None:
        """Return when the call is settled: at the latest at its deadline, with an error. Only a durable call may still
        go on then."""
        waiting = context.current()
        if waiting.worker is not None and waiting.trace is not None and waiting.worker.on_this_thread:
            self._wait_working(pending, waiting.worker, waiting.trace)
        else:
            self._wait(pending)

    def expire(self, pending: PendingCall) -> None:
        """Settle a call whose deadline has passed, unless it was settled meanwhile, or is durable, and goes on."""
        if pending.when_cut is not None:
            return
        with self._lock:
            mine = self.requests.give_up(pending.correlation)
        if mine:
            why = "is not connected" if pending.undelivered else doing(pending.status)
            before = (pending.status or {}).get("before")
            pending.fail(RequestTimeout(pending.call, pending.instance, pending.timeout_s, why, before))
        else:
            pending.wait(time.monotonic() + 1.0)  # another thread has taken it out of the table, and is settling it now

    def probe(self, pending: PendingCall) -> None:
        """Shortly before the deadline: ask the instance what it is doing. The answer is put into `pending.status`."""
        if pending.instance:  # empty for a durable call that no instance could take yet
            self._ask(pending)
        if pending.when_late is not None:
            pending.when_late()

    def _ask(self, pending: PendingCall) -> None:
        if pending.instance in self.local_instances:
            pending.status = self.local_instances[pending.instance].status()
            return
        question = PendingCall(STATUS, pending.instance, None, _PROBE_LEAD_S)

        def note() -> None:
            try:
                value = question.result()
            except EtherError:
                return
            pending.status = value if isinstance(value, dict) else None

        question.when_done(note)
        try:
            asked = {"call": pending.correlation.hex()}
            self._send(question, self._topics.call(pending.instance, STATUS), asked, None, _PROBE_LEAD_S, twice=True)
        except EtherError:
            return
        # Behind the sending: the call may have been settled just before the question entered the table.
        pending.when_done(partial(self._drop, question))

    def lease(self, instance: str, asked: Mapping[str, Any], timeout_s: float) -> Any:
        """Take, renew or release the lease of an instance for this program, as `asked` says. Raises `InstanceLeased`,
        and the errors of calls."""
        pending = PendingCall(f"{instance}.{LEASE}", instance, None, timeout_s)
        if (local := self.local_instances.get(instance)) is not None:
            local.lease_server.ask(self._reply_topic, asked, context.current().trace, partial(_settle, pending))
        else:
            self._send(pending, self._topics.call(instance, LEASE), asked, None, timeout_s, twice=True)
        return self.wait(pending)

    def cancel(self, pending: PendingCall) -> None:
        """Tell the instance that the caller has lost interest; the method decides when to stop."""
        if pending.cancel_local is not None:
            pending.cancel_local()
            return
        topic = self._topics.call(pending.instance, CANCEL)
        self._link.publish(topic, pending.correlation.hex(), extra=ExtraHeaders(twice=True))

    def _send(
        self, pending: PendingCall, topic: str, params: object, schema: str | None, timeout_s: float,
        *, expires: bool = True, twice: bool,
    ) -> None:  # fmt: skip
        value, trace, origin = self._link.prepare(params, twice=twice), context.current().trace, pending.origin
        said, expiry_s = None, timeout_s if expires else None
        if pending.kind is not None and (after := self._published_before.of(pending.instance)) is not None:
            said, pending.when_answered = after
        extra = ExtraHeaders(
            schema, self._reply_topic, pending.correlation, expiry_s, None, trace, twice, False, origin, said
        )
        pending.request = request = _Request(topic, value, context.parents(), extra)
        pending.watched = schema in WATCHED
        with self._lock:
            self.requests.add(pending.correlation, pending.instance, pending)
        if origin is not None and pending.kind is not None:
            self._note_caused(pending, origin)
        try:
            self._publish(pending, request, timeout_s)
        except BaseException:
            self._drop(pending)
            if origin is not None:
                self._link.caused.end(origin, pending.correlation)
            raise

    def _note_caused(self, pending: PendingCall, origin: str) -> None:
        """A call of a trial is in work until it is settled."""
        caused, key = self._link.caused, pending.correlation
        caused.begin(origin, key, f"the call of {pending.call}")
        pending.when_done(lambda: caused.end(origin, key))

    def _publish(self, pending: PendingCall, request: _Request, room_s: float) -> None:
        """Publish a request; wait for room for at most `room_s` seconds."""
        topic, value, parents, extra = request
        pending.sent_at = time.monotonic()
        receipt = self._link.publish(topic, value, parents=parents, extra=extra, timeout_s=room_s)
        receipt.when_done(partial(self._on_receipt, pending, receipt))

    def _begin_local(self, pending: PendingCall, instance: LocalCallee, method: str, params: object) -> None:
        """Call an instance of this very process: without the broker, with the same checks and the same errors."""
        with self._lock:
            self.requests.add(pending.correlation, pending.instance, pending)
        if pending.origin is not None:
            self._link.caused.count(pending.origin, "calls within the process")
            self._note_caused(pending, pending.origin)

        def respond(value: object, error: ErrorReport | None) -> None:
            with self._lock:
                mine = self.requests.give_up(pending.correlation)
            if mine:
                pending.settle(lambda: self._given(pending, value, error))

        cause = context.current()
        trace = cause.trace or pending.correlation.hex()
        request = CallRequest(
            method, self._link.source, None, cause.message_id, trace, pending.deadline, watched=True,
            asker=self._reply_topic, origin=pending.origin,
        )  # fmt: skip
        job = CallJob(instance, request, lambda: params, respond, pending.take_note)
        pending.cancel_local = job.context.cancel
        instance.call_here(method, job, trace, self._link.node)

    def _given(self, pending: PendingCall, value: object, error: ErrorReport | None) -> Outcome:
        """The outcome of a call within this process, which has no id."""
        if error is None:
            call = f"{pending.instance}.{pending.call.rpartition('.')[2]}"
            self._link.inputs.give(Input("call", call, pending.instance, 0, ""))
        return value, error

    def give_up(self, pending: PendingCall) -> bool:
        """Accept no answer to a durable call any more; False where the call is settled already."""
        with self._lock:
            self.requests.give_up(pending.correlation)
            return not pending.settled

    def _drop(self, pending: PendingCall) -> None:
        with self._lock:
            self.requests.give_up(pending.correlation)

    def _on_receipt(self, pending: PendingCall, receipt: Receipt) -> None:
        """The broker has answered a request itself: it has taken it, delivered it to nobody, or refused it. On the
        network thread."""
        waits = receipt.no_subscribers and pending.when_cut is None and pending.kind is not None
        pending.undelivered = waits  # before `receipt_known`: `lose` takes a call for delivered that has only that
        pending.receipt_known = True  # before the look at `lost`; `lose` does the opposite
        if waits:
            self._reconciliation.undelivered(pending)
        elif receipt.no_subscribers:
            self.nobody_took(pending)
        elif isinstance(receipt.error, PublishRefused | PayloadTooLarge):
            self._cut(pending, receipt.error)
        elif pending.lost:
            self._reconciliation.in_doubt(pending)

    def _cut(self, pending: PendingCall, error: EtherError) -> None:
        with self._lock:
            mine = self.requests.give_up(pending.correlation)
        if mine:
            pending.cut(error)

    # -- after an outage (`ether.calls.reconciliation`)

    def _on_connection(self, up: bool) -> None:
        if up and self.requests:
            self._reconciliation.connected()

    def heard(self, instance: str) -> None:
        """An instance has announced that it answers calls. Only enqueues."""
        if self.requests:
            self._reconciliation.heard(instance)

    def open_calls(self, instance: str) -> list[PendingCall]:
        """The calls that wait for this instance and can be sent again; durable ones are looked after elsewhere."""
        with self._lock:
            asked = self.requests.asked_of(instance)
        return [call for call in asked if call.request is not None and call.kind is not None and call.when_cut is None]

    def asked(self) -> list[str]:
        """The instances that calls wait for."""
        with self._lock:
            return self.requests.asked()

    def member(self, instance: str) -> Announcement | None:
        """The last announcement of an instance."""
        return next((member for member in self._find() if member.name == instance), None)

    def inquire(self, instance: str, ages: Mapping[str, float], note: Callable[[object], object]) -> None:
        """Ask an instance about calls, by correlation; `note` gets its answer."""
        correlation = os.urandom(16)
        self._inquiries[correlation] = note
        if len(self._inquiries) > _OPEN_INQUIRIES:  # what is not answered belongs to an instance that is away again
            del self._inquiries[next(iter(self._inquiries))]
        extra = ExtraHeaders(reply_to=self._reply_topic, correlation=correlation, expiry_s=_INQUIRY_S, twice=True)
        self._link.publish(self._topics.call(instance, RECALL), {"calls": dict(ages)}, extra=extra, timeout_s=_ROOM_S)

    def send_again(self, call: PendingCall) -> None:
        """Send the request of a call again, with the time that is left."""
        left_s, request = call.deadline - time.monotonic(), call.request
        if request is not None and left_s > 0:
            call.receipt_known = call.undelivered = False
            call.lost = ""
            if request.extra.expiry_s is not None:
                request = request._replace(extra=request.extra._replace(expiry_s=left_s))
            self._publish(call, request, min(left_s, _ROOM_S))

    def _look_after(self) -> None:
        """Every `_OVERDUE_S` while there are calls, on the thread of `Later`: have the instances asked about calls that
        have waited for long, because a broker whose queue was full may have dropped a request or an answer. A call is
        asked about again after twice as long."""
        now = time.monotonic()
        self._looks_after = False  # before the look: a call that comes meanwhile begins the next one
        asked = self.asked()
        for instance in asked:
            overdue = False
            for call in self.open_calls(instance):
                call.asks_at = call.asks_at or call.sent_at + _OVERDUE_S
                if now >= call.asks_at:
                    overdue, call.asks_at = True, now + max(_OVERDUE_S, now - call.began)
            if overdue:
                self._reconciliation.overdue(instance)
        if asked and not self._looks_after:
            self._looks_after = True
            self.later.after(_OVERDUE_S, self._look_after)

    def nobody_took(self, call: PendingCall, why: str = "") -> None:
        """End a call that the broker has delivered to nobody."""
        gone = f"{call.instance} is not connected any more"
        self._cut(call, NoResponder(call.call, f"{gone}: {why}" if why else gone))

    def the_dead_had_it(self, call: PendingCall) -> None:
        """End a call whose instance has died, and that the next process under its name has not received."""
        self._cut(call, InstanceLost(call.call, call.instance, call.lost))

    # -- waiting

    def wait_until(self, pending: PendingCall, until: float) -> bool:
        """Wait until the call is settled, or until a point on the monotonic clock; returns whether it is settled. A
        call that waits for long is looked after from then on."""
        if pending.wait(min(until, time.monotonic() + _OVERDUE_S)):
            return True
        self._begin_to_look_after()
        return pending.wait(until)

    def _begin_to_look_after(self) -> None:
        if not self._looks_after:
            self._looks_after = True
            self.later.after(0.0, self._look_after)

    def _wait(self, pending: PendingCall) -> None:
        until = pending.deadline - min(_PROBE_LEAD_S, pending.timeout_s / 3)
        if self.wait_until(pending, until):
            return
        self.probe(pending)
        if not pending.wait(pending.deadline):
            self.expire(pending)

    def _wait_working(self, pending: PendingCall, worker: Worker, trace: str) -> None:
        """Wait inside of a handler, and meanwhile run the jobs that this very chain of calls brings to its worker.

        The worker puts such jobs into `nested`; the end of the call puts None there, so that one queue wakes this
        thread for both.
        """
        nested = worker.begin_wait(trace)
        probed, overdue_at = False, time.monotonic() + _OVERDUE_S
        try:
            pending.when_done(lambda: nested.put(None))
            while not pending.settled:
                until = pending.deadline if probed else pending.deadline - min(_PROBE_LEAD_S, pending.timeout_s / 3)
                job = next_job(nested, min(until, overdue_at) - time.monotonic())
                if job is not None:
                    worker.perform(job)
                elif time.monotonic() >= pending.deadline:
                    self.expire(pending)
                    if pending.when_cut is not None:
                        break
                elif not probed and not pending.settled and time.monotonic() >= until:
                    self.probe(pending)
                    probed = True
                elif time.monotonic() >= overdue_at:
                    overdue_at = pending.deadline
                    self._begin_to_look_after()
        finally:
            worker.end_wait(trace, nested)

    # -- what arrives, on the dispatch thread

    def receive(self, inbound: Inbound, by: str | None = None) -> None:
        """Take an answer, or a progress report or log record that comes before it. `by`: who answers; None: as its
        header says."""
        headers = inbound.headers()
        correlation = headers.correlation if headers else None
        if self._is_forged(correlation, by or (headers.source if headers else "")):
            inbound.done()
            return
        if headers is not None and headers.schema in (PROGRESS, LOG):
            self._take_note(headers.schema, correlation, inbound)
            return
        if correlation is not None and (note := self._inquiries.pop(correlation, None)) is not None:
            note(inbound.take())
            return
        with self._lock:
            pending = self.requests.settle(correlation)
        if pending is None or not pending.settle(lambda: self._read(pending, inbound)):
            inbound.done()

    def _is_forged(self, correlation: bytes | None, by: str) -> bool:
        """Whether an answer comes from somebody else than who was asked, which is counted."""
        with self._lock:
            asked = self.requests.asked_by(correlation)
            forged = asked is not None and asked != by
            self.requests.counts.forged += forged
        return forged

    def take(self, correlation: bytes | None, inbound: Inbound, by: str) -> bool:
        """Take an answer of `by`, on the transport's thread; False where no call of it waits for one, and for a call
        that is watched, whose reports may still wait for the dispatch thread."""
        with self._lock:
            pending = self.requests.get(correlation) if self.requests.asked_by(correlation) == by else None
            if pending is None or pending.watched:
                return False
            self.requests.take(correlation)
        if not pending.settle(lambda: self._read(pending, inbound)):
            inbound.done()
        return True

    def _read(self, pending: PendingCall, inbound: Inbound) -> Outcome:
        """Decode an answer, on the thread that asks for the result: what is made there may be made of it."""
        try:
            value, headers = inbound.unpack()
        finally:
            inbound.done()
        if headers is not None and headers.error is not None:
            return None, ErrorReport.from_value(value)
        if pending.when_answered is not None:  # who was refused may not have been heard out
            pending.when_answered()
        if headers is not None and headers.parents and pending.kind is not None:
            call = f"{headers.source}.{pending.call.rpartition('.')[2]}"
            self._link.inputs.give(Input("call", call, headers.source, 0, headers.parents[0]))
        return value, None

    def lose(self, instance: str, why: str, *, returns: bool = False) -> list[PendingCall]:
        """An instance has died: returns the calls that `cut` is to end when its last answers have come. They are not
        sent again. Where it `returns`, a call whose request has reached nobody waits for it. So does one of which the
        broker had not said yet whether anybody got it: where somebody did, the next process says whether it was that
        one."""
        lost: list[PendingCall] = []
        with self._lock:
            for pending in self.requests.asked_of(instance):
                if returns and pending.request is not None and pending.kind is not None and pending.when_cut is None:
                    in_doubt, pending.lost = bool(pending.lost), pending.lost or why
                    # `lost` before the look at `receipt_known`; `_on_receipt` does the opposite
                    if in_doubt or pending.undelivered or not pending.receipt_known:
                        continue
                pending.request = None
                lost.append(pending)
        return lost

    def cut(self, lost: Iterable[PendingCall], instance: str, why: str, at: float) -> None:
        """Cut those of these calls that were not answered: their instance has died, at the time `at` (monotonic). A
        durable call may have been sent again since."""
        with self._lock:
            lost = [it for it in lost if self.requests.get(it.correlation) is it and it.sent_at <= at]
            for pending in lost:
                self.requests.give_up(pending.correlation)
        for pending in lost:
            if pending.undelivered:
                pending.cut(NoResponder(pending.call, f"{instance} is not connected any more: {why}"))
            else:
                pending.cut(InstanceLost(pending.call, instance, why))

    def close(self) -> None:
        """Cut all calls: this process leaves the session. A second call does nothing."""
        self.later.close()
        with self._lock:
            left = self.requests.lose_all()
        for pending in left:
            pending.cut(InstanceLost(pending.call, pending.instance, "the session was left"))

    def _take_note(self, schema: str, correlation: bytes | None, inbound: Inbound) -> None:
        with self._lock:
            pending = self.requests.get(correlation)
        value = inbound.take()
        if pending is not None:
            pending.take_note(schema, value)

    # -- the choice of an instance

    def choose(self, service: str, method: str, marked: MarkKind) -> str:
        """The ready instance that a call goes to; raises `NoResponder`.

        Every call passes here, so the search is done once for each list of announcements: presence gives a new list
        when an announcement has changed, and comparing the lists' identity is enough.
        """
        known = self._find()
        if known is not self._known:
            self._know(known)
        key = (service, method, marked._value_)  # as `value`, without the two functions of `Enum` behind that
        able = self._able.get(key)
        if able is None:
            able = self._able[key] = self._able_to(*key, known)
        return able[0] if len(able) == 1 else self._least_busy(able)

    def _know(self, known: list[Announcement]) -> None:
        self._known, self._able = known, {}
        self._published_before.know(known)
        self._behind_bridges = frozenset(a.name for a in known if a.behind_bridge)

    def takes_s(self, service: str, method: str) -> float | None:
        """How many seconds a call may take, as the method says; None where it says nothing, or is not known."""
        known = self._find()
        if known is not self._takes_known:
            self._takes_known, self._takes = known, _said_to_take(known)
        return self._takes.get((service, method))

    def _able_to(self, service: str, method: str, kind: str, known: list[Announcement]) -> list[str]:
        """The ready instances that can take this call; raises `NoResponder`.

        The candidates are narrowed step by step, so that an error can name the step at which none was left.
        """
        call = f"{service}.{method}"
        # An instance's name counts before a class's.
        named = [a for a in known if a.name == service]
        candidates = named or [a for a in known if a.about.get("class") == service]
        # LIVES is in order of preference: the instances in the first state that any candidate is in.
        ready = next(filter(None, ([a for a in candidates if a.state is state] for state in LIVES)), [])
        if not ready:
            raise NoResponder(call, _why_none_ready(service, candidates), _nearest(service, _names(known)))
        able = [a for a in ready if kind in _kinds(a, method)]
        if not able:
            raise NoResponder(call, _why_not(ready[0], method, kind), _nearest(method, _methods(ready[0], kind)))
        # An instance that another program has leased is chosen only where no other is left: its refusal names the
        # holder.
        own_mark = mark_of(self._reply_topic)
        free = [a for a in able if not isinstance(lease := a.about.get("lease"), dict) or lease.get("of") == own_mark]
        return [a.name for a in free or able]

    def described(self, service: str, *, of_class: bool) -> Announcement:
        """The announcement of a ready instance, by the instance's name or (`of_class`) its class's."""
        known = self._find()
        candidates = [a for a in known if service == (a.about.get("class") if of_class else a.name)]
        ready = [a for a in candidates if a.state in TAKES_PART]
        if not ready:
            there = [a for a in known if a.state in TAKES_PART and a.kind == "instance"]
            names = [str(a.about.get("class")) if of_class else a.name for a in there]
            why = _why_none_ready(service, candidates)
            raise NoResponder(service, why, _nearest(service, list(dict.fromkeys(names))))
        return ready[0]

    def _least_busy(self, names: list[str]) -> str:
        """The instance with the fewest calls of this process under way; instances with equally few take turns."""
        with self._lock:
            load = self.requests.load(names)
            self._turn += 1
            turn = self._turn
        order = sorted(names)
        return min(order, key=lambda name: (load[name], (order.index(name) - turn) % len(order)))


def _settle(pending: PendingCall, value: object, error: EtherError | None) -> None:
    pending.settle(lambda: (value, error))


def doing(status: Mapping[str, Any] | None) -> str:
    """An instance's status, or that it sent none, as the end of a sentence that begins with the instance's name."""
    if status is None:
        return "stopped responding: it did not say what it is doing either"
    waiting = status.get("queued", 0)
    more = f", {waiting:,} more waiting" if waiting else ""
    if before := status.get("before"):
        more += f", {before:,} {'of them ' if waiting >= before else ''}before this call"
    if status.get("busy"):
        busy_s = status.get("busy_s", 0)
        return f"is still busy, since {busy_s:.1f} s in {status['busy']}{more}{_as_it_says(status, busy_s)}"
    return f"is not busy{more}: the request or its answer was lost"


def _as_it_says(status: Mapping[str, Any], busy_s: float) -> str:
    """Whether a method that runs takes as long as it says that it takes."""
    takes_s = status.get("takes_s")
    if not takes_s:
        usual = "; if that is its usual time, say so at its decorator, as in takes='5min', or wait longer: timeout_s"
        return usual if status.get("runs_s") else ""
    if busy_s <= takes_s:
        return f"; it says that it takes up to {takes_s:g} s"
    return f"; that is longer than the {takes_s:g} s that it says it takes: it may hang"


def callable_methods(announcement: Announcement) -> Iterator[tuple[str, tuple[str, MethodDescription]]]:
    """The methods that can be called, each with its mark (`ether_get` or `ether_save`) and its description."""
    methods = announcement.about.get("methods")
    for name, value in (methods if isinstance(methods, dict) else {}).items():
        kinds = [kind for kind in ("ether_get", "ether_save") if kind in _kinds(announcement, name)]
        description = MethodDescription.from_value(value)
        if kinds and description is not None:
            yield name, (kinds[0], description)


def _said_to_take(known: Iterable[Announcement]) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    for announcement in known:
        methods = announcement.about.get("methods")
        for name, described in methods.items() if isinstance(methods, dict) else ():
            takes_s = described.get("takes_s") if isinstance(described, dict) else None
            if isinstance(takes_s, int | float) and 0 < takes_s < threading.TIMEOUT_MAX:
                for service in (announcement.name, str(announcement.about.get("class"))):
                    found[service, name] = max(float(takes_s), found.get((service, name), 0.0))
    return found


def _methods(announcement: Announcement, kind: str) -> list[str]:
    methods = announcement.about.get("methods")
    names = methods if isinstance(methods, dict) else {}
    return [name for name in names if kind in _kinds(announcement, name)]


def _kinds(announcement: Announcement, method: str) -> list[str]:
    methods = announcement.about.get("methods")
    described = methods.get(method) if isinstance(methods, dict) else None
    kinds = described.get("kinds") if isinstance(described, dict) else None
    return kinds if isinstance(kinds, list) else []


def _why_none_ready(service: str, candidates: list[Announcement]) -> str:
    if candidates:
        return ", ".join(f"{a.name} is {a.state.value}" for a in candidates)
    return f"no instance and no class is named {service!r}"


def _why_not(announcement: Announcement, method: str, kind: str) -> str:
    kinds = _kinds(announcement, method)
    if kinds:
        told = f"{method!r} of {announcement.about.get('class')} is marked {' and '.join(kinds)}, not {kind}"
        return f"{told}{_instead(announcement, method, kinds)}"
    return f"{announcement.about.get('class')} has no method {method!r} marked {kind}"


def _instead(announcement: Announcement, method: str, kinds: list[str]) -> str:
    """What reaches a method that carries these marks."""
    for mark, call in (("ether_get", "ether.get"), ("ether_save", "ether.save")):
        if mark in kinds:
            return f": {call}({announcement.name!r}, {method!r}, …) calls it"
    methods = announcement.about.get("methods")
    described = methods.get(method) if isinstance(methods, dict) else None
    for key, call in (("subscribes", "ether.pub(…, topic={!r})"), ("syncs", "ether.sync({!r})")):
        topics = described.get(key) if isinstance(described, dict) else None
        if isinstance(topics, list) and topics:
            return f": {call.format(str(topics[0]))} reaches it"
    return ""


def _names(known: list[Announcement]) -> list[str]:
    ready = [a for a in known if a.state in TAKES_PART and a.kind == "instance"]
    return list(dict.fromkeys([*(a.name for a in ready), *(str(a.about.get("class")) for a in ready)]))


def _nearest(wanted: str, names: list[str]) -> list[str]:
    return sorted(names, key=lambda name: (-difflib.SequenceMatcher(None, wanted.lower(), name.lower()).ratio(), name))
