"""A hosted instance: one object of the user's class, with its subscriptions, publications and lifecycle.

`HostedInstance` builds the parts (calls, lease, control, announcer, devices, safe state, schedule) and routes messages
to the object. Each part takes a Protocol of `ether.instance.host`, never this class.

Promise: whatever user code raises, the instance lives. A failure becomes one log record with the traceback, the
message's id, its topic and the arguments that failed, and the next message is handled.
"""

from __future__ import annotations

import inspect
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ether.calls.lease_server import LeaseServer
from ether.calls.server import CallServer
from ether.connection import causes as context
from ether.connection.causes import CallContext, Cause, handling
from ether.connection.failure_text import describe_failure, text_of, user_traceback
from ether.connection.link import Inbound, Link, trace_of
from ether.connection.worker import Job, Stopped, Worker
from ether.errors import PublishTimeout
from ether.instance.announcer import Announcer
from ether.instance.async_runner import CoroutineRunner
from ether.instance.binding import Overrides, publishing
from ether.instance.control import Control
from ether.instance.devices import DeviceCalls
from ether.instance.jobs import TickJob
from ether.instance.method_tables import method_tables
from ether.instance.position_file import NO_ROW
from ether.instance.recent_inputs import RecentInputs
from ether.instance.safe_state import make_guard
from ether.instance.subscriptions import InWork, MethodSubscriptions
from ether.instance.ticker import Ticker
from ether.log import get_ether_logger
from ether.protocol.barrier import OUTSTANDING, Answer
from ether.protocol.dedup_window import DedupWindow
from ether.protocol.failure_detector import Heartbeat
from ether.protocol.presence import Announcement
from ether.spec.arguments import check_needs_nothing
from ether.spec.marks import Mark, MarkKind
from ether.spec.methods import ClassSpec, MethodSpec
from ether.system.processes import rss_mb
from ether.wire.head import Headers
from ether.wire.topics import SessionTopics

if TYPE_CHECKING:
    from ether.recording.writer import RecordWriter

_LIFECYCLE_VERBS = {"save_all": MarkKind.SAVE_ALL, "cleanup": MarkKind.CLEANUP, "stop": MarkKind.SHUTDOWN}
_DRAIN_WITHIN_S = 5.0
_SHARE_FOR_SENDING = 0.8
"""The part of the time for draining in which an instance sends what waits; in the rest its answer has to arrive."""

_FIND_DEVICES_EVERY = 4
"""Every fourth heartbeat the instance looks for devices that were made meanwhile."""
_LATELY_S = 1.0
"""Between two messages none is in work. For so long the one before shows how late the instance is."""


class HostedInstance:
    """One object in its session."""

    def __init__(
        self,
        name: str,
        obj: object,
        spec: ClassSpec,
        link: Link,
        topics: SessionTopics,
        worker: Worker,
        incarnation: str,
        holding: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        """`incarnation` is the id under which this start of the instance is announced. `holding` is announced beside
        it: its epoch, its supervisor. Raises `MarkError` and `InvalidName`."""
        self.name, self.object, self.spec, self.topics, self.incarnation = name, obj, spec, topics, incarnation
        self.logger = get_ether_logger(name)
        self.worker = worker
        self.on_failure: Callable[[BaseException], None] | None = None
        self.record_writer: RecordWriter | None = None
        """Brings records to disk; None where nothing is recorded."""
        self._link = link
        tables = method_tables(obj, spec, topics)
        self._originals, self._arguments, self._results = tables.originals, tables.arguments, tables.results
        self._publications = tables.publications
        self.subscriptions = MethodSubscriptions(self, tables.subscriptions)
        self._dedup_windows = {method.name: DedupWindow() for method in spec.with_mark(MarkKind.SUB)}
        self._recent_inputs = RecentInputs()
        self._coroutines = CoroutineRunner(name)
        self._own_workers = {m.name: Worker(m.concurrency) for m in spec.methods if m.concurrency > 1}
        """For each method with a concurrency above 1 a worker of its own."""
        self._busy: dict[int, InWork] = {}
        """What each thread that runs user code does."""
        self._latest: InWork = ("", 0.0, None)
        """The message that was begun last."""
        self._handled = self._published = 0
        self._count_lock = threading.Lock()
        self._overrides, self._accessors = self._put_wrappers()
        self._build_parts(holding)

    def _put_wrappers(self) -> tuple[Overrides, dict[str, Callable[..., Any]]]:
        """Put publishing wrappers over the object's methods. Accessors of properties are no attributes of the object,
        so their wrappers are kept here instead."""
        wrappers = {
            name: publishing(name, self._originals[name], self._publish)
            for name, publications in self._publications.items()
            if publications
        }
        accessors = {
            method.name: wrappers.pop(method.name, self._originals[method.name])
            for method in self.spec.methods
            if method.accessor is not None
        }
        return Overrides(self.object, wrappers), accessors

    def _build_parts(self, holding: Mapping[str, object]) -> None:
        link, epoch = self._link, holding.get("epoch", 0)
        self.ticks = Ticker(self.name, self._times(), self._submit_tick, self.logger)
        self.device = DeviceCalls(self)
        self.guard = make_guard(self, self.device, self.ticks, link)
        self.lease_server = LeaseServer(self, link)
        self.announcer = Announcer(self, link, holding, lambda: {**self.guard.about(), **self.lease_server.about()})
        self.server = CallServer(self, link)
        self.control = Control(self, self.announcer, link, epoch if isinstance(epoch, int) else 0)
        link.on_refusal += [self.control.on_refusal, self.server.on_refusal]

    # -- start, status and end

    def subscribe(self) -> None:
        """Subscribe to all topics of the instance; returns when the broker has confirmed all of them."""
        for worker in self._own_workers.values():
            worker.start()
        self.control.listen()
        self._link.listen(self.topics.call(self.name, "+"), self.server.receive, now=self.server.take)
        methods = self.spec.with_mark(MarkKind.SUB)
        self.subscriptions.listen(self._link, methods, lambda method: self._worker_of(method).submit)

    def keep_positions(self, path: Path) -> None:
        """Note in a file which messages are handled, and go on where an earlier incarnation has stopped. To be called
        before `subscribe`. Without such a file the instance works the same, and a restart loses messages."""
        threads = {method.name: self._worker_of(method.name).threads for method in self.spec.with_mark(MarkKind.SUB)}
        try:
            self.subscriptions.keep_positions(path, self._link.node, threads)
        except OSError as error:
            self.logger.warning("%s: a restart will lose messages, because %s cannot be written: %s",
                                self.name, path, error)  # fmt: skip

    def initialise(self) -> None:
        """Run the methods marked `ether_init` and the device's `on_connect` calls; raises whatever they raise."""
        for method in self.spec.with_mark(MarkKind.INIT):
            self._call(method.name, [], {})
        self.device.connect()
        self.announcer.devices.find()

    def status(self) -> dict[str, object]:
        """What the instance is doing now; part of each heartbeat, and the answer to a caller that asks."""
        busy, now = list(self._busy.values()), time.monotonic()
        status: dict[str, object] = {
            "busy": None,
            "queued": self.waiting(),
            "expired": self.server.expired,
            **self.guard.about(),
        }
        if missed := self.ticks.missed:
            status["missed"] = missed
        if busy:
            method, since, _ = min(busy, key=lambda work: work[1])
            status |= {"busy": method, "busy_s": now - since}
        elif status["queued"] and now - self._latest[1] < _LATELY_S:
            busy = [self._latest]  # between two messages
        if (lateness := self.subscriptions.lateness(busy, now)) is not None:
            status |= lateness._asdict()
        if skipped := self.subscriptions.skipped():
            status["skipped"] = {name: {"keep": n.by_keep, "age": n.by_age} for name, n in skipped.items()}
        return status

    def waiting(self) -> int:
        """How many messages and calls wait for this instance: those in its process, and the messages of which it knows
        that they wait at their sources."""
        jobs = self.worker.queued + sum(worker.queued for worker in self._own_workers.values())
        return jobs - self.subscriptions.idle_turns + self.subscriptions.to_come(self._link)

    def heartbeat(self, number: int) -> Heartbeat:
        """The next heartbeat. Devices that were made late are found here, and leases of dead holders end here."""
        if number % _FIND_DEVICES_EVERY == 0:
            self.announcer.devices.find()
        self.lease_server.look()
        self.subscriptions.tell_skipped()
        self.subscriptions.note_zeros()
        status: dict[str, Any] = self.status()
        return Heartbeat(
            self.incarnation,
            number,
            status["busy"],
            status.get("busy_s", 0.0),
            status["queued"],
            self._handled,
            self._published,
            time.process_time(),
            rss_mb() if number > 1 else None,  # its first reading loads psutil, 15 ms: not while a session starts
            status.get("age_s"),
            status.get("behind_s"),
            status.get("skipped", {}),
        )

    def about(self) -> dict[str, object]:
        """What is announced about the instance beside its name and state."""
        return self.announcer.about()

    def announcement(self) -> Announcement:
        """The announcement of the instance while it is ready."""
        return self.announcer.announcement()

    def announce_changed(self) -> None:
        """Announce the instance again, because what is announced has changed."""
        self.announcer.changed()

    def close(self) -> None:
        """Give the object back to the user, without its wrappers. A second call does nothing."""
        self.ticks.stop()
        self.guard.stop()
        self.announcer.hide()
        self.subscriptions.tell_skipped(last=True)
        for worker in self._own_workers.values():
            worker.stop()
            worker.join()
        self._own_workers = {}
        self.subscriptions.close(self._link)
        self._overrides.remove()
        self._coroutines.close()

    # -- messages

    def handle(self, inbound: Inbound, method: MethodSpec) -> None:
        """Decode a message, validate its payload and call the method, on the worker. Raises whatever goes wrong. A
        message that was handled before is ignored."""
        headers = inbound.headers()
        name, worker = method.name, self._worker_of(method.name)
        if headers is None:
            self._bind_and_call(name, inbound.unpack().value, Cause(None, os.urandom(16).hex(), worker))
            return
        row = self.subscriptions.row_of(name, inbound, headers)
        if self._dedup_windows[name].before(headers.id) or row.leaves_out(headers.seq):
            return
        if row is not NO_ROW and self.subscriptions.passing_on:
            return
        row.begin(headers.seq)
        try:
            self._recent_inputs.note(inbound.delivery.topic, headers.source, headers.id)
            cause = Cause(headers.id, trace_of(headers.id), worker)
            self._bind_and_call(name, inbound.unpack().value, cause, (inbound.delivery.topic, headers))
        except Stopped:
            raise  # it was not finished: the next incarnation handles it again
        except BaseException:
            self.subscriptions.ended(row, headers.seq, self._link.last_published)
            raise
        self.subscriptions.ended(row, headers.seq, self._link.last_published)

    def call(
        self, method: str, payload: object, message_id: str | None, trace: str | None, call: CallContext | None
    ) -> Any:
        """Validate the payload and call a method, as the handling of a message. Raises whatever goes wrong. The value
        is checked only where a caller (`call`) gets it."""
        value = self._bind_and_call(method, payload, Cause(message_id, trace, self._worker_of(method), call))
        return value if call is None else self._results[method].check(value)

    def _bind_and_call(
        self, method: str, payload: object, cause: Cause, message: tuple[str, Headers] | None = None
    ) -> Any:
        self.guard.check(method)
        positional, named = self._arguments[method].bind(payload)
        with handling(cause):
            return self._call(method, positional, named, message)

    def tick(self, method: str) -> None:
        """Call a method because its time has come. Raises whatever goes wrong."""
        self.guard.check(method)
        with handling(Cause(None, os.urandom(16).hex(), self._worker_of(method))):
            self._call(method, [], {})

    def _times(self) -> list[tuple[str, str]]:
        for method in self.spec.methods:
            if method.times:
                check_needs_nothing(self._originals[method.name], f"{self.spec.name}.{method.name}")
        return [(method.name, when) for method in self.spec.methods for when in method.times]

    def _submit_tick(self, method: str, when: str, finish: Callable[[bool], None]) -> None:
        self._worker_of(method).submit(TickJob(self, method, when, finish))

    def cannot_call(self, method: str) -> str | None:
        """Why a method cannot be called from outside; None where it can."""
        if method in self._results:
            return None
        return f"{self.spec.name} has no method {method!r} that is marked ether_get or ether_save"

    def submit_call(self, method: str, job: Job, trace: str | None) -> None:
        """Queue a call."""
        self._worker_of(method).submit(job, trace)

    def call_here(self, method: str, job: Job, trace: str | None) -> None:
        """Take a call that comes from this process. It runs at once where the caller is a job of the same worker (a
        call to oneself, which would wait for itself in the queue), or where no thread runs the worker (in a lab).
        Otherwise it is queued."""
        worker = self._worker_of(method)
        if worker.on_this_thread or not worker.running:
            worker.perform(job)
        else:
            worker.submit(job, trace)

    def count_expired(self) -> None:
        """Count a request that was not run, because its deadline had passed."""
        self.server.expired += 1

    def _worker_of(self, method: str) -> Worker:
        return self._own_workers.get(method, self.worker)

    def call_own(self, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Call a method that no message caused. Raises whatever goes wrong."""
        with handling(Cause(None, os.urandom(16).hex(), self.worker)):
            self._call(method, args, kwargs)

    def _call(
        self,
        name: str,
        positional: Sequence[Any],
        named: Mapping[str, Any],
        message: tuple[str, Headers] | None = None,
    ) -> Any:
        """Call a method, and note that this thread is busy with it. A handler that waits for an answer may run another
        job meanwhile, so the entry of the waiting handler is put back afterwards."""
        me = threading.get_ident()
        outer = self._busy.get(me)
        work = self._busy[me] = (name, time.monotonic(), message)
        if message is not None:
            self._latest = work
        try:
            result = self.function(name)(*positional, **named)
            return self._coroutines.run(result) if inspect.iscoroutine(result) else result
        finally:
            if outer is None:
                del self._busy[me]
            else:
                self._busy[me] = outer

    def function(self, name: str) -> Callable[..., Any]:
        """The function behind a name: a property's reader or setter, or the object's own method."""
        found: Callable[..., Any] = self._accessors[name] if name in self._accessors else getattr(self.object, name)
        return found

    def _publish(self, method: str, value: object) -> None:
        """Publish what a method returned, on each of its topics; through the record writer where it is recorded."""
        writer, parents = self.record_writer, context.parents()
        for mqtt_topic, mark in self._publications[method]:
            topic = mark.topic or ""
            if writer is not None and (mark.save or writer.wants(topic)):
                writer.publish_only(topic, mqtt_topic, value, mark.qos, parents, self._record_facts(parents, mark))
            else:
                self._link.publish(mqtt_topic, value, qos=mark.qos, parents=parents)
            with self._count_lock:
                self._published += 1

    def _record_facts(self, parents: tuple[str, ...], mark: Mark) -> dict[str, object]:
        """The facts in a record beside its value: recent inputs, how late its message was, how many were skipped before
        it, and whether its method asked for the record."""
        heard = self._recent_inputs.beside(parents)
        facts: dict[str, object] = {"heard": heard} if heard else {}
        for work in list(self._busy.values()):
            if work[2] is not None and work[2][1].id in parents:
                facts |= self.subscriptions.facts(work, self.waiting)
        return facts | {"asked": True} if mark.save else facts

    # -- failures

    def report(self, what: str, error: BaseException, details: Mapping[str, object], *, answered: bool = False) -> None:
        """Log one failure; as a warning where a caller gets the error, too (`answered`)."""
        self.logger.log(
            logging.WARNING if answered else logging.ERROR,
            "%s",
            describe_failure(f"{self.name}: {what}", error, details),
            exc_info=(type(error), error, user_traceback(error)),
            extra={"ether": {**details, "instance": self.name}},
        )
        if self.on_failure is not None and not answered:
            self.on_failure(error)

    # -- lifecycle

    def pass_on(self) -> None:
        """Leave the messages that have not been begun to the next incarnation, where it can get them."""
        self.subscriptions.pass_on(self._link)

    def perform(self, verb: str, asked: Mapping[str, Any]) -> Answer | None:
        """Carry out a control verb, on the worker; None for a verb that is not known."""
        if verb == "drain":
            self.ticks.stop()  # so that nothing new begins; the instance is about to end
            return self._drained(asked.get("within_s"))
        if verb == "sync":
            return self._sync(asked)
        kind = _LIFECYCLE_VERBS.get(verb)
        if kind is None:
            return None
        return self.run_marked(kind)

    def wait_alone(self, timeout_s: float) -> None:
        """Inside of a job of the worker: wait until no other job runs, neither here nor on the methods' own workers."""
        for worker in (self.worker, *self._own_workers.values()):
            worker.wait_alone(timeout_s)

    def run_marked(self, kind: MarkKind) -> Answer:
        """Run every method that carries a mark, even after one has failed. A shutdown also makes the device's calls."""
        ran: list[str] = []
        failed: dict[str, str] = {}
        for method in self.spec.with_mark(kind):
            try:
                self._call(method.name, [], {})
                ran.append(method.name)
            except (Exception, SystemExit) as error:  # noqa: BLE001  part of the worker loop: this is user code
                failed[method.name] = f"{type(error).__name__}: {error}"
                self.report(f"{self.spec.name}.{method.name} ({kind.value})", error, {})
        if kind is MarkKind.SHUTDOWN:
            self.guard.stop()
            self.announcer.hide()
            calls_ran, calls_failed = self.device.stop()
            ran, failed = [*ran, *calls_ran], {**failed, **calls_failed}
        return Answer(tuple(ran), failed)

    def _sync(self, asked: Mapping[str, Any]) -> Answer:
        """Run every method that is marked for a sync topic."""
        topic, arguments = asked.get("topic"), asked.get("arguments")
        results: dict[str, Any] = {}
        failed: dict[str, str] = {}
        for method in self.spec.with_mark(MarkKind.SYNC):
            if topic in method.topics(MarkKind.SYNC):
                try:
                    self.guard.check(method.name)
                    positional, named = self._arguments[method.name].bind(arguments)
                    results[method.name] = self._call(method.name, positional, named)
                except (Exception, SystemExit) as error:  # noqa: BLE001  part of the worker loop: this is user code
                    failed[method.name] = f"{type(error).__name__}: {text_of(error)}"
                    self.report(f"{self.spec.name}.{method.name} (sync {topic!r})", error, {})
        return Answer(tuple(results), failed, results=results)

    def _drained(self, within_s: object) -> Answer:
        """The counters, once the broker has what was published; without them where it has not taken that in time.
        `within_s` is how long the asking program waits for the answer."""
        patience_s = within_s if isinstance(within_s, int | float) else _DRAIN_WITHIN_S
        try:
            self._link.flush(patience_s * _SHARE_FOR_SENDING)
        except PublishTimeout:
            return Answer(failed={"sending": f"{self._link.transport.unsettled:,} messages still wait for the broker"})
        to_come = self.subscriptions.to_come(self._link)
        return Answer(facts={"handled": self._handled, "published": self._published, OUTSTANDING: to_come})

    def count_handled(self) -> None:
        """Count a message that is done with, whatever became of it."""
        with self._count_lock:
            self._handled += 1
