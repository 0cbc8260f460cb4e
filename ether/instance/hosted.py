"""An instance: one object of the user's class, its subscriptions, its publications, its part in the lifecycle.

Whatever goes wrong in user code, the instance lives: the failure is one log record with the traceback, the message's
id, topic and the arguments that failed, and the next message is handled.
"""

from __future__ import annotations

import inspect
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ether.calls.lease_server import LeaseServer
from ether.calls.server import CallServer
from ether.connection import causes as context
from ether.connection.causes import CallContext, Cause, handling
from ether.connection.failure_text import describe_failure, text_of, user_traceback
from ether.connection.link import Inbound, Link, trace_of
from ether.connection.worker import Job, Worker
from ether.instance.announcer import TAKES_ARGUMENTS, Announcer
from ether.instance.async_runner import CoroutineRunner
from ether.instance.binding import Overrides, publishing
from ether.instance.control import Control
from ether.instance.devices import DeviceCalls
from ether.instance.jobs import MessageJob, TickJob
from ether.instance.recent_inputs import RecentInputs
from ether.instance.safe_state import guard
from ether.instance.ticker import Ticker
from ether.log import get_ether_logger
from ether.protocol.barrier import Answer
from ether.protocol.dedup_window import DedupWindow
from ether.protocol.failure_detector import Heartbeat
from ether.protocol.presence import Announcement
from ether.spec.accessors import check_property
from ether.spec.arguments import Arguments, check_needs_nothing
from ether.spec.marks import Mark, MarkKind
from ether.spec.methods import ClassSpec, MethodSpec
from ether.spec.results import Results
from ether.system.processes import rss_mb
from ether.wire.topics import SessionTopics, check_topic, check_topic_filter

if TYPE_CHECKING:
    from ether.recording.writer import RecordWriter

_CALLED = (MarkKind.GET, MarkKind.SAVE)
_LIFECYCLE_VERBS = {"save_all": MarkKind.SAVE_ALL, "cleanup": MarkKind.CLEANUP, "stop": MarkKind.SHUTDOWN}
_FLUSH_TIMEOUT_S = 5.0
_LOOK_AGAIN = 4
"""With every fourth sign of life devices are looked for that were made meanwhile."""
_ALONE_TIMEOUT_S = 60.0
"""For methods that run beside the worker; whoever asked has given up long before."""


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
        """`incarnation` is the id under which this object's life is announced; `holding` is announced beside it: its
        epoch, who supervises it. Raises `MarkError` and `InvalidName`."""
        self.name = name
        self.object = obj
        self.spec = spec
        self.topics = topics
        self.incarnation = incarnation
        self.logger = get_ether_logger(name)
        self.on_failure: Callable[[BaseException], None] | None = None
        self._link = link
        self.worker = worker
        self._coroutines = CoroutineRunner(name)
        for wanted in spec.properties:
            check_property(type(obj), wanted, obj)
        self._originals = {method.name: method.function_of(obj) for method in spec.methods}
        self._arguments = {
            method.name: Arguments(self._originals[method.name], f"{spec.name}.{method.name}", method.limits)
            for method in spec.methods
            if any(mark.kind in TAKES_ARGUMENTS for mark in method.marks)
        }
        self._results = {
            method.name: Results(self._originals[method.name], f"{spec.name}.{method.name}")
            for method in spec.methods
            if any(mark.kind in _CALLED for mark in method.marks)
        }
        self.record_writer: RecordWriter | None = None
        """Brings what is to be saved to disk; None where that is nobody's wish."""
        self._publications = {
            method.name: [(topics.data(check_topic(mark.topic or "")), mark) for mark in method.of_kind(MarkKind.PUB)]
            for method in spec.methods
        }
        self._heard = RecentInputs()
        self._subscriptions = {
            method.name: [
                (topics.data_filter(check_topic_filter(mark.topic or "")), mark.qos)
                for mark in method.of_kind(MarkKind.SUB)
            ]
            for method in spec.methods
        }
        functions = self._publishing_methods()
        self._accessors = {
            method.name: functions.pop(method.name, self._originals[method.name])
            for method in spec.methods
            if method.accessor is not None
        }
        self._overrides = Overrides(obj, functions)
        self._seen = {method.name: DedupWindow() for method in spec.with_mark(MarkKind.SUB)}
        self._handled = 0
        self._published = 0
        self._count_lock = threading.Lock()
        self._own_workers = {m.name: Worker(m.concurrency) for m in spec.methods if m.concurrency > 1}
        self._callable = {m.name for m in spec.methods if any(mark.kind in _CALLED for mark in m.marks)}
        self._busy: dict[int, tuple[str, float]] = {}
        self.ticks = Ticker(name, self._times(), self._submit_tick, self.logger)
        self.device = DeviceCalls(self)
        self.guard = guard(self, link)
        self.lease_server = LeaseServer(self, link)
        self.announcer = Announcer(self, link, holding)
        self.server = CallServer(self, link)
        epoch = holding.get("epoch", 0)
        self.control = Control(self, link, epoch if isinstance(epoch, int) else 0)

    # -- coming and going

    def subscribe(self) -> None:
        """Subscribe to everything; returns when the broker has confirmed all of it."""
        for worker in self._own_workers.values():
            worker.start()
        self.control.listen()
        self._link.listen(self.topics.call(self.name, "+"), self.server.receive, now=self.server.take)
        for method in self.spec.with_mark(MarkKind.SUB):
            receive = self._receiver(method)
            for topic_filter, qos in self._subscriptions[method.name]:
                self._link.listen(topic_filter, receive, now=receive, qos=qos)

    def initialise(self) -> None:
        """Run the methods marked `ether_init`; what they raise is the caller's."""
        for method in self.spec.with_mark(MarkKind.INIT):
            self._call(method.name, [], {})
        self.device.connect()
        self.announcer.devices.find()

    def status(self) -> dict[str, object]:
        """What it is doing right now, for whoever waits for it."""
        busy = list(self._busy.values())
        queued = self.worker.queued + sum(worker.queued for worker in self._own_workers.values())
        status: dict[str, object] = {
            "busy": None,
            "queued": queued,
            "expired": self.server.expired,
            **self.guard.about(),
        }
        if missed := self.ticks.missed:
            status["missed"] = missed
        if busy:
            method, since = min(busy, key=lambda entry: entry[1])
            status |= {"busy": method, "busy_s": time.monotonic() - since}
        return status

    def heartbeat(self, number: int) -> Heartbeat:
        """Its sign of life."""
        if number % _LOOK_AGAIN == 0:
            self.announcer.devices.find()
        self.lease_server.look()
        status = self.status()
        busy, busy_s, queued = status["busy"], status.get("busy_s", 0.0), status["queued"]
        assert busy is None or isinstance(busy, str)
        assert isinstance(busy_s, float)
        assert isinstance(queued, int)
        return Heartbeat(
            self.incarnation,
            number,
            busy,
            busy_s,
            queued,
            self._handled,
            self._published,
            time.process_time(),
            rss_mb() if number > 1 else None,  # its first reading loads psutil, 15 ms: not while a session starts
        )

    def about(self) -> dict[str, object]:
        """What is announced about this instance beside its name and state."""
        return self.announcer.about()

    def announcement(self) -> Announcement:
        """As it is announced when ready."""
        return self.announcer.announcement()

    def close(self) -> None:
        """The object is the user's own again. Twice is fine."""
        self.ticks.stop()
        self.guard.stop()
        self.announcer.hide()
        for worker in self._own_workers.values():
            worker.stop()
            worker.join()
        self._own_workers = {}
        self._overrides.remove()
        self._coroutines.close()

    # -- messages

    def handle(self, inbound: Inbound, method: MethodSpec) -> None:
        """Decode, validate, call. Runs on the worker and raises whatever went wrong."""
        unpacked = inbound.unpack()
        message_id = unpacked.headers.id if unpacked.headers else None
        if self._seen[method.name].before(message_id):
            return
        if unpacked.headers is not None:
            self._heard.note(inbound.delivery.topic, unpacked.headers.source, unpacked.headers.id)
        trace = trace_of(message_id) if message_id else os.urandom(16).hex()
        self.call(method.name, unpacked.value, message_id, trace, None)

    def call(
        self, method: str, payload: object, message_id: str | None, trace: str | None, call: CallContext | None
    ) -> Any:
        """Validate and call a method, as the handling of a message; raises whatever goes wrong."""
        self.guard.check(method)
        positional, named = self._arguments[method].bind(payload)
        with handling(Cause(message_id, trace, self._worker_of(method), call)):
            value = self._call(method, positional, named)
        return value if call is None else self._results[method].check(value)

    def tick(self, method: str) -> None:
        """Call a method because its time has come; raises whatever goes wrong."""
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
        if method in self._callable:
            return None
        return f"{self.spec.name} has no method {method!r} that is marked ether_get or ether_save"

    def submit_call(self, method: str, job: Job, trace: str | None) -> None:
        """Queue a call."""
        self._worker_of(method).submit(job, trace)

    def call_here(self, method: str, job: Job, trace: str | None) -> None:
        """Take a call from this process: at once from inside of a job of the same worker (a call to oneself), or where
        nobody runs the worker (in a lab); else in line."""
        worker = self._worker_of(method)
        if worker.on_this_thread or not worker.running:
            worker.perform(job)
        else:
            worker.submit(job, trace)

    def _worker_of(self, method: str) -> Worker:
        return self._own_workers.get(method, self.worker)

    def _receiver(self, method: MethodSpec) -> Callable[[Inbound], bool]:
        """One receiver per method, so that a method with overlapping topics is called once per message."""
        submit = self._worker_of(method.name).submit

        def receive(inbound: Inbound) -> bool:
            submit(MessageJob(self, inbound, method))
            return True

        return receive

    def call_own(self, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Call a method as the instance's own doing; raises whatever goes wrong."""
        with handling(Cause(None, os.urandom(16).hex(), self.worker)):
            self._call(method, args, kwargs)

    def _call(self, name: str, positional: Sequence[Any], named: Mapping[str, Any]) -> Any:
        me = threading.get_ident()
        outer = self._busy.get(me)
        self._busy[me] = (name, time.monotonic())
        try:
            result = self.function(name)(*positional, **named)
            return self._coroutines.run(result) if inspect.iscoroutine(result) else result
        finally:
            if outer is None:
                del self._busy[me]
            else:
                self._busy[me] = outer

    def function(self, name: str) -> Callable[..., Any]:
        """What a name stands for: a property's reader or setter, else the object's own method."""
        found: Callable[..., Any] = self._accessors[name] if name in self._accessors else getattr(self.object, name)
        return found

    def _publishing_methods(self) -> dict[str, Callable[..., Any]]:
        return {
            name: publishing(name, self._originals[name], self._publish)
            for name, publications in self._publications.items()
            if publications
        }

    def _publish(self, method: str, value: object) -> None:
        writer, parents = self.record_writer, context.parents()
        for mqtt_topic, mark in self._publications[method]:
            topic = mark.topic or ""
            if writer is not None and (mark.save or writer.wants(topic)):
                writer.publish_only(topic, mqtt_topic, value, mark.qos, parents, self._said_beside(parents, mark))
            else:
                self._link.publish(mqtt_topic, value, qos=mark.qos, parents=parents)
            with self._count_lock:
                self._published += 1

    def _said_beside(self, parents: tuple[str, ...], mark: Mark) -> dict[str, object]:
        heard = self._heard.beside(parents)
        told: dict[str, object] = {"heard": heard} if heard else {}
        return told | {"asked": True} if mark.save else told

    # -- failures

    def report(self, what: str, error: BaseException, details: Mapping[str, object], *, answered: bool = False) -> None:
        """One log record for one failure; a warning where a caller is told of it too (`answered`)."""
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

    def perform(self, verb: str, asked: Mapping[str, Any]) -> Answer | None:
        """Carry out a control verb on the worker, alone; None for a verb that is not known."""
        self.wait_alone(_ALONE_TIMEOUT_S)
        if verb == "drain":
            self.ticks.stop()  # nothing new begins; the instance is about to end
            return Answer(facts=self._counters())
        if verb == "sync":
            return self._sync(asked)
        kind = _LIFECYCLE_VERBS.get(verb)
        if kind is None:
            return None
        return self.run_marked(kind)

    def wait_alone(self, timeout_s: float) -> None:
        """On the worker: wait until nothing else runs, beside it neither."""
        for worker in (self.worker, *self._own_workers.values()):
            worker.wait_alone(timeout_s)

    def run_marked(self, kind: MarkKind) -> Answer:
        """Run every method that carries a mark; one that fails does not keep the next from running."""
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
            more, wrong = self.device.stop()
            ran, failed = [*ran, *more], {**failed, **wrong}
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

    def _counters(self) -> dict[str, int]:
        self._link.flush(_FLUSH_TIMEOUT_S)
        return {"handled": self._handled, "published": self._published}

    def count_handled(self) -> None:
        """A message is done with, well or badly."""
        with self._count_lock:
            self._handled += 1
