"""A hosted instance: one object of the user's class, with its subscriptions, publications and lifecycle.

`HostedInstance` builds the parts (calls, lease, control, announcer, devices, safe state, schedule) and routes messages
to the object. Each part takes a Protocol of `ether.instance.host`, never this class.

Promise: whatever user code raises, the instance lives. A failure becomes one log record with the traceback, the
message's id, its topic and the arguments that failed, and the next message is handled.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ether.calls.host import CallRequest
from ether.calls.lease_server import LeaseServer
from ether.calls.server import CallServer
from ether.config.path_text import parse_path
from ether.config.topic_parts import parts_of
from ether.connection import causes as context
from ether.connection import fork_guard as forks
from ether.connection.causes import CallContext, Cause, handling, origin_of
from ether.connection.deadline import Deadline
from ether.connection.failure_text import describe_failure, failure_sentence, text_of
from ether.connection.inherited_causes import follow_threads
from ether.connection.input_rules import Input
from ether.connection.inputs import NAMED, Lineage, forget_named, lineage_of, named_parents
from ether.connection.link import ExtraHeaders, Inbound, Link, trace_of
from ether.connection.worker import Job, Stopped, Worker
from ether.errors import (
    EncodeError,
    EtherError,
    MarkError,
    PayloadError,
    PublishTimeout,
    ReplayRefused,
    ValidationFailed,
)
from ether.errors.tracebacks import line_of, user_traceback
from ether.instance.announcer import Announcer
from ether.instance.async_runner import CoroutineRunner
from ether.instance.binding import Overrides, publishing
from ether.instance.control import Control
from ether.instance.devices import DeviceCalls
from ether.instance.drivers.alarm_watch import AlarmWatch, TimeJob
from ether.instance.drivers.building import Builder, BuiltObject
from ether.instance.drivers.callbacks import Callbacks
from ether.instance.drivers.device_watch import ALIVE, DeviceWatch
from ether.instance.drivers.rate_guard import RateGuard
from ether.instance.drivers.stream_threads import StreamThreads
from ether.instance.failure_rules import Failure, Failures
from ether.instance.jobs import TickJob
from ether.instance.method_tables import method_tables, unchecked_text
from ether.instance.position_file import NO_ROW
from ether.instance.publications import PublishedTopic
from ether.instance.safe_state import make_guard
from ether.instance.streams import STREAMS, run_through
from ether.instance.subscriptions import InWork, MethodSubscriptions
from ether.instance.ticker import Ticker
from ether.log import get_ether_logger
from ether.protocol.alarm_words import ALARM_VERB, alarm_topic
from ether.protocol.barrier import OUTSTANDING, UNHANDLED, Answer, said_of_unhandled
from ether.protocol.dedup_window import DedupWindow
from ether.protocol.failure_detector import Heartbeat
from ether.protocol.presence import Announcement
from ether.spec.arguments import Arguments, check_needs_nothing
from ether.spec.lost_marks import lost_marks
from ether.spec.marks import Mark, MarkKind
from ether.spec.methods import ClassSpec, MethodSpec
from ether.spec.nothing import NOTHING
from ether.spec.path_methods import PathMethod
from ether.spec.paths import PathNotFound, check_there
from ether.spec.wrapping import Alive
from ether.system.clock import wall_time
from ether.system.processes import rss_mb
from ether.wire.head import Headers
from ether.wire.origin import may_not_move_devices
from ether.wire.topics import OUTSIDE, SessionTopics, matches

if TYPE_CHECKING:
    from ether.recording.writer import RecordWriter

_LIFECYCLE_VERBS = {"save_all": MarkKind.SAVE_ALL, "cleanup": MarkKind.CLEANUP, "stop": MarkKind.SHUTDOWN}
_DRAIN_WITHIN_S = 5.0
_SHARE_FOR_SENDING = 0.8
"""The part of the time for draining in which an instance sends what waits; in the rest its answer has to arrive."""

_FIND_DEVICES_EVERY = 4
"""Every fourth heartbeat the instance looks for devices that were made meanwhile."""
_OWN_THREADS_S = 1.0
"""For all methods on threads of their own that are still at work when the instance ends."""
_LATELY_S = 1.0
"""Between two messages none is in work. For so long the one before shows how late the instance is."""

_NOT_HANDED_OVER = (
    "%s: %s has named what %d values are made of, and has not handed these very values over, by returning, publishing "
    "or recording them. What they are made of is not recorded; call ether.made_of() last"
)


class HostedInstance:
    """One object in its session."""

    built: BuiltObject | None = None
    """How the object was made; None for one that its user has made."""

    on_end_for_restart: Callable[[], None] = staticmethod(lambda: None)
    """Ends the process as a failure; does nothing for an object of a program's own."""

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
        self.on_step: Callable[[str], None] = lambda step: None
        """Called when a step of the end begins, save_all for example, and with an empty text when it is over."""
        self.topics_used: Callable[[], Mapping[str, object]] = dict
        """What is announced of the topics that its code uses without a mark."""
        self.last_step = ""
        """The step that is being taken; empty where none is."""
        self.record_writer: RecordWriter | None = None
        """Brings records to disk; None where nothing is recorded."""
        self._link = link
        tables = method_tables(obj, spec, topics)
        self._originals, self._arguments, self._results = tables.originals, tables.arguments, tables.results
        self._publications, self._named_levels = tables.publications, tables.named_levels
        self.subscriptions = MethodSubscriptions(self, tables.subscriptions)
        self._dedup_windows = {method.name: DedupWindow() for method in spec.with_mark(MarkKind.SUB)}
        self._ignored = frozenset(method.name for method in spec.methods if method.ignores_result)
        if unchecked := unchecked_text(self._arguments.values()):
            self.logger.warning("%s: not checked, because these hints mean nothing at run time: %s", name, unchecked)
        for lost in lost_marks(type(obj), spec):
            self.logger.warning("%s: %s", name, lost)
        self._moves = _moves(spec)
        """The methods that may move the device, which no replay may call."""
        self._inputs = link.inputs
        self._inputs.in_work = self._in_work
        worker.behind = lambda: link.paused
        self._coroutines = CoroutineRunner(name)
        self._own_workers = {m.name: Worker(m.concurrency) for m in spec.methods if m.concurrency is not None}
        """For each method with threads of its own their worker."""
        self._takes_s = {m.name: m.takes_s for m in spec.methods if m.takes_s is not None}
        """How long calls of methods may take, where they say so."""
        self._busy: dict[int, InWork] = {}
        """What each thread that runs user code does."""
        self.closed = False
        """Whether the last steps have begun, after which no method is run that is not part of them."""
        self._suspended: list[InWork] = []
        """What threads had begun before, and go on with behind what they are doing."""
        self._latest: InWork = ("", 0.0, None)
        """The message that was begun last."""
        self._handled = self._published = 0
        self._failures = Failures()
        self._count_lock = threading.Lock()
        self._overrides, self._accessors = self._put_wrappers()
        follow_threads()
        self._build_parts(holding)

    def _put_wrappers(self) -> tuple[Overrides, dict[str, Callable[..., Any]]]:
        """Put publishing wrappers over the object's methods. Accessors of properties are no attributes of the object,
        so their wrappers are kept here instead."""
        wrappers = {
            name: publishing(name, self._originals[name], self._publish, self._begun)
            for name, publications in self._publications.items()
            if publications
        }
        accessors = {
            method.name: wrappers.pop(method.name, self._originals[method.name])
            for method in self.spec.methods
            if method.accessor is not None
        }
        try:
            return Overrides(self.object, wrappers), accessors
        except TypeError:  # an object of a class written in C takes no attributes: its own calls publish nothing
            return Overrides(self.object, {}), accessors | wrappers

    def _build_parts(self, holding: Mapping[str, object]) -> None:
        self.on_begin_end: Callable[[], None] = lambda: None
        """Called once, when every call that is to be answered has been."""
        link, epoch = self._link, holding.get("epoch", 0)
        self.watch = DeviceWatch(self, self.spec.care, lambda: self.announcer.changed())
        times = [*self._times(), *self.watch.times]
        self.ticks = Ticker(self.name, times, self._submit_tick, self.logger)
        if times and self.worker.threads == 1 and not any(method in self._own_workers for method, _ in times):
            self.ticks.helped, self.worker.turn = True, self.ticks.turn
        self.rates = RateGuard(self.name, self.spec, lambda name: self._originals[name], self._read_quietly)
        self.streams = StreamThreads(self)
        self.device = DeviceCalls(self)
        self.alarms = AlarmWatch(
            self, self.spec.alarms, self._tell_alarm, lambda: self.announcer.changed(), self.device.make
        )
        self.callbacks = Callbacks(self)
        self.guard = make_guard(self, self.device, self.ticks, link)
        self.lease_server = LeaseServer(self, link)
        self.announcer = Announcer(self, link, holding, self._changing)
        self.server = CallServer(self, link)
        self.control = Control(self, self.announcer, link, epoch if isinstance(epoch, int) else 0)
        link.on_refusal += [self.control.on_refusal, self.server.on_refusal]

    def _changing(self) -> dict[str, object]:
        return {**self.guard.offers(), **self.guard.about(), **self.lease_server.about(), **self.topics_used(),
                **self.watch.about(), **self.alarms.about()}  # fmt: skip

    def make_safe(self, why: str, tell: Callable[[Answer], object]) -> None:
        """A person asks for the safe state (`SafeStateGuard.demand`)."""
        self.guard.demand(why, tell)

    # -- start, status and end

    def take_over(self, built: BuiltObject, builder: Builder) -> None:
        """The object was made by Ether, which leaves it at the end. `builder` makes the arguments of device calls."""
        self.built, self._coroutines, self.device.builder = built, built.coroutines, builder
        self.callbacks.builder = builder

    def begin_times(self) -> None:
        """Begin what Ether calls by itself: ticks and streams."""
        self.ticks.start()
        self.streams.start()

    def end_times(self) -> None:
        """Begin nothing more by itself. A second call does nothing."""
        self.ticks.stop()
        self.streams.stop()
        self.watch.stop()

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
            self._call_by_itself(method.name)
        self.device.connect()
        self._settle_paths()
        self.device.check_paths()
        self.callbacks.hand_over()
        self.announcer.devices.find()

    def _settle_paths(self) -> None:
        """The device is connected: each path of the registry leads somewhere now, or it is wrong. Methods whose
        signature could not be told before get it. Raises `MarkError`."""
        for method in self.spec.methods:
            if method.path is None or method.is_callback:
                continue
            accessor = method.accessor
            try:
                check_there(self.object, method.path)
                if not isinstance(accessor, PathMethod):
                    continue
                live = self._originals[method.name] = accessor.live(self.object)
                if method.name in self._arguments:
                    self._arguments[method.name] = Arguments(
                        live,
                        f"{self.spec.name}.{method.name}",
                        method.limits,
                        method.from_topic,
                    )
            except PathNotFound as error:
                kind = "methods" if isinstance(accessor, PathMethod) else "properties"
                raise MarkError(f"{kind} {method.path.text!r}: {error.why}") from error

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
            if (takes_s := self._takes_s.get(method)) is not None:
                status["takes_s"] = takes_s
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
        self.tell_failures()
        self.subscriptions.note_zeros()
        if self.alarms.is_due:
            self.worker.submit(TimeJob(self.alarms), express="")
        status: dict[str, Any] = self.status()
        with self._count_lock:
            failures = self._failures.about()
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
            failures,
            status.get("takes_s"),
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
        self.end_times()
        self.guard.stop()
        self.announcer.hide()
        self.subscriptions.tell_skipped(last=True)
        self.tell_failures(last=True)
        if left := self.subscriptions.unhandled(self._link):
            self.logger.warning("%s: %s", self.name, said_of_unhandled(left), extra={"ether": {"unhandled": left}})
        self.server.close()
        for worker in self._own_workers.values():
            worker.stop()
        deadline = Deadline(_OWN_THREADS_S)
        for worker in self._own_workers.values():
            worker.join(deadline.left())
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
            if self.subscriptions.closed:
                self.subscriptions.leave(inbound)
                return
            self._inputs.note((inbound.delivery.topic, None))
            self._bind_and_call(
                name, inbound.unpack().value, Cause(None, os.urandom(16).hex(), worker, message=inbound)
            )
            return
        row = self.subscriptions.row_of(name, inbound, headers)
        if self._dedup_windows[name].before(headers.id) or row.leaves_out(headers.seq):
            return
        if row is not NO_ROW and self.subscriptions.passing_on:
            return
        if self.subscriptions.closed:
            self.subscriptions.leave(inbound)
            return
        row.begin(headers.seq)
        try:
            message, caused = (inbound.delivery.topic, headers), self._link.caused
            cause = Cause(
                headers.id, trace_of(headers.id), worker, None, origin_of(headers), caused, message=inbound
            )  # fmt: skip
            self._bind_and_call(name, inbound.unpack().value, cause, message)
        except Stopped:
            raise  # it was not finished: the next incarnation handles it again
        except BaseException:
            self.subscriptions.ended(row, headers.seq, self._link.last_published)
            raise
        self.subscriptions.ended(row, headers.seq, self._link.last_published)

    def call(self, request: CallRequest, payload: object, call: CallContext) -> Any:
        """Validate the payload of a request and call its method. Raises whatever goes wrong."""
        method, message_id = request.method, request.message_id
        if call.caller and message_id:
            upto = self._inputs.note(Input("call", call.call, self.name, 0, message_id))
        else:
            upto = self._inputs.upto
        call.begun = upto, self._in_work() if self._busy or self._suspended else ()
        cause = Cause(message_id, request.trace, self._worker_of(method), call, request.origin, self._link.caused)
        value = self._bind_and_call(method, payload, cause)
        return None if method in self._ignored else self._results[method].check(value)

    def _bind_and_call(
        self, method: str, payload: object, cause: Cause, message: tuple[str, Headers] | None = None
    ) -> Any:
        self.guard.check(method)
        self.watch.check()
        if method in self._moves and may_not_move_devices(cause.origin):
            raise ReplayRefused(self.name, f"{self.spec.name}.{method}")
        inbound = cause.message
        from_topic = self._from_topic(method, inbound) if inbound is not None and method in self._named_levels else None
        positional, named = self._arguments[method].bind(payload, from_topic)
        with handling(cause):
            wanted = cause.call is not None
            if method in self.rates.methods:
                with self.rates.setting(method, positional, named, checked=True):
                    result = self._call(method, positional, named, message, wanted=wanted)
            else:
                result = self._call(method, positional, named, message, wanted=wanted)
            if cause.call is not None and (made_of := named_parents(result)) is not None:
                cause.call.made_of = made_of
            if NAMED:
                self._forget_named(method)
            return result

    def _from_topic(self, method: str, inbound: Inbound) -> dict[str, str]:
        """What stands at the named levels of a message's topic, by the first filter of the method that selects it."""
        topic = inbound.delivery.topic
        for topic_filter, places in self._named_levels[method]:
            if matches(topic_filter, topic):
                return parts_of(places, self.topics.user_topic(topic))
        return {}

    def _forget_named(self, method: str) -> None:
        """A handler has returned: what it has named, and not handed over, is of no use any more."""
        if left := forget_named():
            self.logger.warning(_NOT_HANDED_OVER, self.name, f"{self.spec.name}.{method}", left)

    def tick(self, method: str) -> None:
        """Call a method because its time has come. Raises whatever goes wrong."""
        if self.closed:
            return
        if method == ALIVE:
            self.watch.ask()
            return
        self.watch.check()
        self.guard.check_tick(method)
        with handling(Cause(None, os.urandom(16).hex(), self._worker_of(method))):
            self._call_by_itself(method)
            if NAMED:
                self._forget_named(method)

    def _call_by_itself(self, method: str) -> None:
        """Call a method with its defaults. No limit of change refuses them, and they count."""
        with self.rates.around(method, [], {}, checked=False):
            self._call(method, [], {})

    def _times(self) -> list[tuple[str, str]]:
        for method in self.spec.methods:
            if method.times or method.streams:
                check_needs_nothing(self._originals[method.name], f"{self.spec.name}.{method.name}")
        return [(method.name, when) for method in self.spec.methods for when in method.times]

    def _submit_tick(self, method: str, when: str, finish: Callable[[bool], None]) -> None:
        self._worker_of(method).submit(TickJob(self, method, when, finish), express="")

    def cannot_call(self, method: str) -> str | None:
        """Why a method cannot be called from outside; None where it can. At an end nothing can, but what the last steps
        call themselves, on this thread."""
        if self.closed and threading.get_ident() not in self._busy:
            return f"{self.name} is ending, and takes no calls any more"
        if method in self._results:
            return None
        return f"{self.spec.name} has no method {method!r} that is marked ether_get or ether_save"

    def takes_turn(self, method: str) -> bool:
        """Whether a method runs in turn with messages: on the worker, or on threads that take messages, too."""
        return bool(self._dedup_windows) and (method not in self._own_workers or method in self._dedup_windows)

    def before(self, method: str, job: Job, node: str) -> int | None:
        """How many jobs are to be run before a call that waits; None where it does not wait."""
        return self._worker_of(method).before(job, node)

    def messages_of(self, node: str) -> int:
        """How many messages of a sender wait on the worker."""
        return self.worker.messages_of(node)

    def serves(self, trace: str | None) -> bool:
        """Whether a handler waits for this chain of calls."""
        return any(worker.serves(trace) for worker in (self.worker, *self._own_workers.values()))

    def submit_call(self, method: str, job: Job, trace: str | None, node: str) -> None:
        """Queue a call of that node: behind what it has published before, and before the backlog of others."""
        self._worker_of(method).submit(job, trace, node)

    def call_here(self, method: str, job: Job, trace: str | None, node: str) -> None:
        """Take a call that comes from this process. It runs at once where the caller is a job of the same worker (a
        call to oneself, which would wait for itself in the queue), or where no thread runs the worker (in a lab).
        Otherwise it is queued."""
        worker = self._worker_of(method)
        if worker.on_this_thread or not worker.running:
            worker.perform(job)
        else:
            worker.submit(job, trace, node)

    def count_expired(self) -> None:
        """Count a request that was not run, because its deadline had passed."""
        self.server.expired += 1

    def _worker_of(self, method: str) -> Worker:
        return self._own_workers.get(method, self.worker)

    def call_own(self, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a method that no message caused; `method` may be a path. Raises whatever goes wrong."""
        cause = Cause(None, os.urandom(16).hex(), self.worker)
        with handling(cause), self.rates.around_care(method, args, kwargs):
            return self._call(method, args, kwargs)

    def _read_quietly(self, name: str) -> Any:
        """Read a property without publishing it."""
        result = self._originals[name]()
        return self._coroutines.run(result) if inspect.iscoroutine(result) else result

    def stream(self, method: str, stopped: threading.Event) -> bool:
        """Call a streaming method once, and publish what it returns or yields until it is `stopped`. Returns whether it
        is to be called again at once: None means that nothing has come. Raises whatever goes wrong."""
        if self.watch.offline:
            return False
        with handling(Cause(None, os.urandom(16).hex(), self.worker)), self._watched(method):
            result = self._originals[method]()
            if inspect.iscoroutine(result):
                result = self._coroutines.run(result)
            if isinstance(result, STREAMS):
                self._coroutines.run_each(result, lambda value: self._publish(method, value), stopped)
                stopped.set()
            elif result is not None:
                self._publish(method, result)
            return result is not None

    @contextlib.contextmanager
    def _watched(self, method: str) -> Iterator[None]:
        """What the driver raises in a stream says as much of its device as in a call."""
        try:
            yield
        except BaseException as error:
            self.watch.failed(method, error)
            raise
        self.watch.went_well(method)

    def ask_device(self, alive: Alive) -> None:
        """Ask whether the device is there. Raises whatever goes wrong."""
        call = alive.call
        with (
            handling(Cause(None, os.urandom(16).hex(), self.worker)),
            self.rates.around(call.method, call.args, call.kwargs, checked=False),
        ):
            self._call(call.method, call.args, call.kwargs)

    def try_device(self, *, rebuild: bool) -> None:
        """Connect the device again, on the worker; with `rebuild` the object is made again before. What is left of the
        old one is ended first, because most devices can be open only once. Raises whatever goes wrong."""
        self.device.end_quietly()
        if rebuild and self.built is not None:
            self._overrides.remove()
            with contextlib.suppress(BaseException):
                self.built.leave()
            self.built = self.built.again()
            self.object = self.built.obj
            self._originals = {method.name: method.function_of(self.object) for method in self.spec.methods}
            self._overrides, self._accessors = self._put_wrappers()
            self.announcer.devices.look_below(self.object)
        self.rates.forget()
        self.device.connect()
        if rebuild:
            self._settle_paths()
            self.callbacks.hand_over()

    def end_for_restart(self, why: str) -> None:
        """End the process at once; its launcher starts it again, where `restart:` says so."""
        self.logger.error("%s: ends, to be started again: %s", self.name, why)
        self.on_end_for_restart()

    def taken_by_driver(self, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """The driver has called a function that was handed over to it, on any thread. Never raises."""
        try:
            with handling(Cause(None, os.urandom(16).hex(), self.worker)):
                self.function(method)(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001  on a thread of the driver's, which has no use for it
            self.report(f"{self.spec.name}.{method} (callback)", error, {})

    def _call(
        self,
        name: str,
        positional: Sequence[Any],
        named: Mapping[str, Any],
        message: tuple[str, Headers] | None = None,
        *,
        wanted: bool = False,
    ) -> Any:
        """Call a method, and note that this thread is busy with it. A handler that waits for an answer may run another
        job meanwhile, so the entry of the waiting handler is put back afterwards. The result of a method that yields is
        the list of what it yielded, where that is `wanted`, otherwise None."""
        me = threading.get_ident()
        outer = self._busy.get(me)
        work = self._busy[me] = (name, time.monotonic(), message)
        if message is not None:
            self._latest = work
            self._inputs.note(message)  # behind the line above: what is noted and not done with is in work
        if outer is not None:
            self._suspended.append(outer)
        forked = forks.times
        try:
            result = self.function(name)(*positional, **named)
            if inspect.iscoroutine(result):
                result = self._coroutines.run(result)
            if isinstance(result, STREAMS):
                result = run_through(result, wanted, self._coroutines.run)
            if name in self.alarms.states and not self._publications[name]:
                self.alarms.look(name, result)
            if forks.times != forked:
                forks.end_forked(None)  # its copy in the process of the instance returns the same, and is answered
            if self.watch.watches:
                self.watch.went_well(name)
            return result
        except BaseException as error:
            if forks.times != forked:
                forks.end_forked(error)
            self.watch.failed(name, error)
            raise
        finally:
            if outer is None:
                del self._busy[me]
            else:
                self._busy[me] = outer
                self._suspended.remove(outer)

    def function(self, name: str) -> Callable[..., Any]:
        """The function behind a name or a path: a property's reader or setter, or the object's own method."""
        if name in self._accessors:
            return self._accessors[name]
        if not name.isidentifier():
            return self._at_path(name)
        found: Callable[..., Any] = getattr(self.object, name)
        return found

    def _at_path(self, text: str) -> Callable[..., Any]:
        path = parse_path(text)
        known = next((m.name for m in self.spec.methods if m.stands_at(path)), None)
        if known is not None:
            return self._accessors[known]
        return PathMethod(type(self.object), path, text)(self.object)

    def _begun(self, method: str) -> tuple[int, tuple[str, ...]]:
        """How a publishing method begins: `Lineage.upto` and `Lineage.in_work` of what it returns."""
        upto, work = self._inputs.upto, self._busy.get(threading.get_ident())
        if work is not None and work[0] == method and len(self._busy) == 1 and not self._suspended:
            return upto, ()
        return upto, self._in_work(method)

    def _publish(self, method: str, value: object, begun: tuple[int, tuple[str, ...]] | None = None) -> None:
        """Publish what a method returned or yielded, on each of its topics that it is worth a message on; through the
        record writer where it is recorded. `begun`: how the method began, unless it has yielded, and goes on."""
        lineage = lineage_of(value, *(begun or (self._inputs.upto, self._in_work())))
        if lineage.made_of is not None:
            call = context.current().call
            if call is not None and call.call == f"{self.name}.{method}":
                call.made_of = lineage.made_of
        if method in self.alarms.states:  # first: a value that cannot be published may be an alarm all the same
            self.alarms.look(method, value)
        for published in self._publications[method]:
            if published.wants(value):
                self._publish_on(method, published, value, lineage)

    def _tell_alarm(self, alarm: str, event: dict[str, Any]) -> None:
        """Publish the change of an alarm, and record it where anything is recorded. Never raises: the value that has
        brought it about goes its way."""
        topic = alarm_topic(self.name, alarm)
        mqtt_topic, writer = self.topics.data(topic), self.record_writer
        try:
            if writer is not None:
                writer.publish_only(topic, mqtt_topic, event, 1, (), {"asked": True})
            else:
                self._link.publish(mqtt_topic, event, qos=1)
        except EtherError as error:
            self.report(f"{self.spec.name}.{alarm} (its alarm could not be told)", error, {"alarm": event})

    def _publish_on(self, method: str, published: PublishedTopic, value: object, lineage: Lineage) -> None:
        origin = context.origin()
        extra = None if origin is None else ExtraHeaders(origin=origin)
        writer, mark, topic = self.record_writer, published.mark, published.mark.topic or ""
        try:
            if extra is not None and topic.startswith(OUTSIDE):
                context.check_device(topic, f"publishing by {self.name}")
            if writer is not None and (mark.save or writer.wants(topic)):
                facts = self._record_facts(lineage, mark)
                writer.publish_only(topic, published.mqtt_topic, value, mark.qos, lineage, facts, extra)
            else:
                self._link.publish(published.mqtt_topic, value, qos=mark.qos, parents=lineage.parents, extra=extra)
        except EncodeError as error:
            published.forget()
            named = error.of(f"what {self.spec.name} publishes on {topic!r}")
            named.after = f"{self.spec.name}.{method}"
            raise named from None
        except BaseException as error:
            published.forget()
            if isinstance(error, PayloadError):
                error.after = f"{self.spec.name}.{method}"
            raise
        with self._count_lock:
            self._published += 1

    def _in_work(self, returned: str = "") -> tuple[str, ...]:
        """The ids of the messages that are being handled. `returned`: this thread's method of that name returns the
        result, and then has done with its message."""
        me = threading.get_ident()
        works = [work for thread, work in list(self._busy.items()) if thread != me or work[0] != returned]
        return tuple([message[1].id for _, _, message in (*works, *self._suspended) if message is not None])

    def _record_facts(self, lineage: Lineage, mark: Mark) -> dict[str, object]:
        """The facts in a record beside its value and its inputs: how late its message was, how many were skipped before
        it, whether the instance was in its safe state, and whether its method asked for the record."""
        facts: dict[str, object] = {}
        if self.guard.why:
            facts["safe"] = self.guard.why
        for work in list(self._busy.values()):
            if work[2] is not None and work[2][1].id in lineage.handled:
                facts |= self.subscriptions.facts(work, self.waiting)
        return facts | {"asked": True} if mark.save else facts

    # -- failures

    def report(self, what: str, error: BaseException, details: Mapping[str, object], *, answered: bool = False) -> None:
        """Log one failure; as a warning where a caller gets the error, too (`answered`)."""
        traceback = user_traceback(error)
        level = logging.WARNING if answered else logging.ERROR
        failure = Failure(what, type(error).__name__, text_of(error), details, level)
        unfit = tuple((p.argument, p.accepted) for p in error.problems) if isinstance(error, ValidationFailed) else ()
        key = (what, type(error), line_of(traceback), unfit)
        with self._count_lock:
            first = self._failures.note(key, failure, time.monotonic(), wall_time())
        self.logger.log(
            level if first else logging.DEBUG,
            "%s",
            describe_failure(f"{self.name}: {what}", error, details),
            exc_info=(type(error), error, traceback) if first and traceback is not None else None,
            extra={"ether": {**details, "instance": self.name}},
        )
        self.tell_failures()
        if self.on_failure is not None and not answered:
            self.on_failure(error)

    def tell_failures(self, *, last: bool = False) -> None:
        """Log the sums of failures that came again, where it is time to. `last`: the instance ends."""
        with self._count_lock:
            sums = self._failures.due(time.monotonic(), last=last)
        for each in sums:
            failure = each.failure
            self.logger.log(
                failure.level,
                "%s",
                failure_sentence(f"{self.name}: {failure.what}: {each.text}", failure.kind, failure.text,
                                 failure.details),
                extra={"ether": {**failure.details, "instance": self.name, "repeated": each.count}},
            )  # fmt: skip

    # -- lifecycle

    def pass_on(self) -> None:
        """Leave the messages that have not been begun to the next incarnation, where it can get them."""
        self.subscriptions.pass_on(self._link)

    def begin_no_message(self) -> None:
        """The end has come before all messages were handled: begin no more of them, so that the state that save_all
        saves is the last one. May be called on the transport's thread."""
        self.subscriptions.stop(self._link)

    def begin_end(self) -> None:
        """The cleanup begins: from now on nothing is run but the last steps."""
        if not self.closed:
            self.on_begin_end()
        self.subscriptions.stop(self._link)
        self.closed = True

    def perform(self, verb: str, asked: Mapping[str, Any]) -> Answer | None:
        """Carry out a control verb, on the worker; None for a verb that is not known."""
        if verb == ALARM_VERB:
            return self.alarms.answer(asked)
        if verb == "drain":
            self.end_times()  # so that nothing new begins; the instance is about to end
            return self._drained(asked.get("within_s"))
        if verb == "sync":
            return self._sync(asked)
        kind = _LIFECYCLE_VERBS.get(verb)
        if kind is None:
            return None
        answer = self.run_marked(kind)
        if verb == "stop" and (left := self.subscriptions.unhandled(self._link)):
            answer = replace(answer, results={**answer.results, UNHANDLED: left})
        return answer

    def wait_alone(self, timeout_s: float) -> bool:
        """Inside of a job of the worker: wait until no other job runs, neither here nor on the methods' own workers.
        False when the time is over, which holds for each of the workers."""
        workers = (self.worker, *self._own_workers.values())
        alone = [worker.wait_alone(timeout_s) for worker in workers]
        return all(alone)

    def run_marked(self, kind: MarkKind) -> Answer:
        """Run every method that carries a mark, even after one has failed. A shutdown also makes the device's calls."""
        self.last_step = kind.value
        self.on_step(kind.value)
        try:
            return self._run_marked(kind)
        finally:
            self.last_step = ""
            self.on_step("")

    def _run_marked(self, kind: MarkKind) -> Answer:
        ran: list[str] = []
        failed: dict[str, str] = {}
        for method in self.spec.with_mark(kind):
            try:
                self._call_by_itself(method.name)
                ran.append(method.name)
            except BaseException as error:  # noqa: BLE001  part of the worker loop: this is user code
                failed[method.name] = f"{type(error).__name__}: {text_of(error)}"
                self.report(f"{self.spec.name}.{method.name} ({kind.value})", error, {})
        if kind is MarkKind.SHUTDOWN:
            self.guard.stop()
            self.announcer.hide()
            calls_ran, calls_failed = self.device.stop()
            ran, failed = [*ran, *calls_ran], {**failed, **calls_failed}
            if self.built is not None and (why := self._left(self.built)):
                failed["__exit__"] = why
        return Answer(tuple(ran), failed)

    def _left(self, built: BuiltObject) -> str:
        """Leave the object; the reason where that fails."""
        try:
            built.leave()
        except BaseException as error:  # noqa: BLE001  part of the worker loop: this is user code
            self.report(f"{self.spec.name}.__exit__", error, {})
            return f"{type(error).__name__}: {text_of(error)}"
        return ""

    def _sync(self, asked: Mapping[str, Any]) -> Answer:
        """Run every method that is marked for a sync topic."""
        topic, arguments = asked.get("topic"), asked.get("arguments")
        results: dict[str, Any] = {}
        failed: dict[str, str] = {}
        for method in self.spec.with_mark(MarkKind.SYNC):
            if topic in method.topics(MarkKind.SYNC):
                try:
                    self.guard.check(method.name)
                    self.watch.check()
                    if method.name in self._moves:
                        context.check_device(self.name, f"{self.spec.name}.{method.name}")
                    positional, named = self._arguments[method.name].bind(arguments)
                    with self.rates.around(method.name, positional, named, checked=True):
                        result = self._call(method.name, positional, named, wanted=True)
                    results[method.name] = None if result is NOTHING or method.name in self._ignored else result
                except BaseException as error:  # noqa: BLE001  part of the worker loop: this is user code
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
        # With a backlog, the question has gone before it.
        return Answer(facts={"handled": self._handled, "published": self._published, OUTSTANDING: self.waiting()})

    def finished(self, inbound: Inbound, method: str) -> None:
        """Count a message that is done with, whatever became of it."""
        with self._count_lock:
            self._handled += 1
        if self._link.caused:
            self.subscriptions.finished(inbound, method)


def _moves(spec: ClassSpec) -> frozenset[str]:
    """The methods of a class that may move a device: those with limits; and of a class with a safe state all that do
    not only read and that its safe state does not allow."""
    safe = spec.care.safe_state
    limited = {method.name for method in spec.methods if method.limits}
    if safe is None:
        return frozenset(limited)
    return frozenset(limited | {m.name for m in spec.methods if not m.reads and m.name not in safe.allow})
