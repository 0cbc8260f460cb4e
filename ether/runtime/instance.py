"""An instance: one object of the user's class, its subscriptions, its publications, its part in the lifecycle.

Whatever goes wrong in user code, the instance lives: the failure is one log record with the traceback, the message's
id, topic and the arguments that failed, and the next message is handled.
"""

from __future__ import annotations

import inspect
import os
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from ether.errors import PayloadError
from ether.logs import get_ether_logger
from ether.protocol.barrier import Answer
from ether.runtime import context
from ether.runtime.coroutines import CoroutineRunner
from ether.runtime.failures import describe_failure, user_traceback
from ether.runtime.hosting import Overrides, publishing
from ether.runtime.link import Inbound, Link
from ether.runtime.worker import Worker
from ether.spec.arguments import Arguments, shown
from ether.spec.marks import MarkKind
from ether.spec.methods import ClassSpec, MethodSpec
from ether.wire.envelope import unpack_headers
from ether.wire.topics import SessionTopics, check_topic, check_topic_filter

_REMEMBERED_IDS = 8192
"""A message that the broker delivers twice (after a reconnect, or for overlapping subscriptions) is handled once,
if no more than this many others lie between."""

_LIFECYCLE_VERBS = {"save_all": MarkKind.SAVE_ALL, "cleanup": MarkKind.CLEANUP, "stop": MarkKind.SHUTDOWN}
_FLUSH_TIMEOUT_S = 5.0


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
        birth: str,
    ) -> None:
        """`birth` is the id under which this object's life is announced. Raises `MarkError` and `InvalidName`."""
        self.name = name
        self.object = obj
        self.spec = spec
        self.topics = topics
        self.birth = birth
        self.logger = get_ether_logger(name)
        self.on_failure: Callable[[BaseException], None] | None = None
        self._link = link
        self._worker = worker
        self._coroutines = CoroutineRunner(name)
        self._originals = {method.name: getattr(obj, method.name) for method in spec.methods}
        self._arguments = {
            method.name: Arguments(self._originals[method.name], f"{spec.name}.{method.name}")
            for method in spec.with_mark(MarkKind.SUB)
        }
        self._publications = {
            method.name: [
                (topics.data(check_topic(mark.topic or "")), mark.qos) for mark in method.of_kind(MarkKind.PUB)
            ]
            for method in spec.methods
        }
        self._subscriptions = {
            method.name: [
                (topics.data_filter(check_topic_filter(mark.topic or "")), mark.qos)
                for mark in method.of_kind(MarkKind.SUB)
            ]
            for method in spec.methods
        }
        self._overrides = Overrides(obj, self._publishing_methods())
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._handled = 0
        self._published = 0
        self._count_lock = threading.Lock()

    # -- coming and going

    def subscribe(self) -> None:
        """Subscribe to everything; returns when the broker has confirmed all of it."""
        self._link.listen(self.topics.control("+"), self._on_control)
        for method in self.spec.with_mark(MarkKind.SUB):
            receive = self._receiver(method)
            for topic_filter, qos in self._subscriptions[method.name]:
                self._link.listen(topic_filter, receive, qos=qos)

    def initialise(self) -> None:
        """Run the methods marked `ether_init`; what they raise is the caller's."""
        for method in self.spec.with_mark(MarkKind.INIT):
            self._call(method.name, [], {})

    def about(self) -> dict[str, object]:
        """What is announced about this instance beside its name and state."""
        return {
            "class": self.spec.name,
            "class_path": self.spec.class_path,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": time.time(),
            "methods": {method.name: _described(method) for method in self.spec.methods},
        }

    def close(self) -> None:
        """The object is the user's own again. Twice is fine."""
        self._overrides.remove()
        self._coroutines.close()

    # -- messages

    def handle(self, inbound: Inbound, method: MethodSpec) -> None:
        """Decode, validate, call. Runs on the worker and raises whatever went wrong."""
        unpacked = inbound.unpack()
        message_id = unpacked.headers.id if unpacked.headers else None
        if message_id and self._seen_before(message_id, method.name):
            return
        positional, named = self._arguments[method.name].bind(unpacked.value)
        token = context.enter(message_id)
        try:
            self._call(method.name, positional, named)
        finally:
            context.leave(token)

    def _receiver(self, method: MethodSpec) -> Callable[[Inbound], None]:
        """One receiver per method, so that a method with overlapping topics is called once per message."""

        def receive(inbound: Inbound) -> None:
            self._worker.submit(_MessageJob(self, inbound, method))

        return receive

    def _call(self, name: str, positional: list[Any], named: Mapping[str, Any]) -> Any:
        result = getattr(self.object, name)(*positional, **named)
        return self._coroutines.run(result) if inspect.iscoroutine(result) else result

    def _seen_before(self, message_id: str, method: str) -> bool:
        key = (message_id, method)
        if key in self._seen:
            return True
        self._seen[key] = None
        if len(self._seen) > _REMEMBERED_IDS:
            self._seen.popitem(last=False)
        return False

    def _publishing_methods(self) -> dict[str, Callable[..., Any]]:
        return {
            name: publishing(name, self._originals[name], self._publish)
            for name, publications in self._publications.items()
            if publications
        }

    def _publish(self, method: str, value: object) -> None:
        for topic, qos in self._publications[method]:
            self._link.publish(topic, value, qos=qos, parents=context.parents())
            with self._count_lock:
                self._published += 1

    # -- failures

    def report(self, what: str, error: BaseException, details: Mapping[str, object]) -> None:
        """One log record for one failure."""
        self.logger.error(
            "%s",
            describe_failure(f"{self.name}: {what}", error, details),
            exc_info=(type(error), error, user_traceback(error)),
            extra={"ether": {**details, "instance": self.name}},
        )
        if self.on_failure is not None:
            self.on_failure(error)

    # -- lifecycle

    def perform(self, verb: str) -> Answer | None:
        """Carry out a control verb on the worker and say how it went; None for a verb that is not known."""
        if verb == "drain":
            return Answer(facts=self._counters())
        kind = _LIFECYCLE_VERBS.get(verb)
        if kind is None:
            return None
        return self.run_marked(kind)

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
        return Answer(tuple(ran), failed)

    def _counters(self) -> dict[str, int]:
        self._link.flush(_FLUSH_TIMEOUT_S)
        return {"handled": self._handled, "published": self._published}

    def _on_control(self, inbound: Inbound) -> None:
        self._worker.submit(_ControlJob(self, inbound))

    def answer(self, inbound: Inbound, verb: str, value: object) -> None:
        """Answer a control message, if it is for this instance."""
        headers = inbound.unpack().headers
        if isinstance(value, dict) and self.name not in value.get("instances", [self.name]):
            return
        said = self.perform(verb)
        if said is not None and headers is not None and headers.reply_to:
            self._link.publish(headers.reply_to, said.to_value(self.name), correlation=headers.correlation)
        if said is not None and verb == "stop":
            self._worker.stop()

    def count_handled(self) -> None:
        """A message is done with, well or badly."""
        self._handled += 1


class _MessageJob:
    """One message for one method."""

    __slots__ = ("_inbound", "_instance", "_method")

    def __init__(self, instance: HostedInstance, inbound: Inbound, method: MethodSpec) -> None:
        self._instance, self._inbound, self._method = instance, inbound, method

    def run(self) -> None:
        self._instance.handle(self._inbound, self._method)
        self._finish()

    def failed(self, error: BaseException) -> None:
        delivery = self._inbound.delivery
        headers = unpack_headers(delivery.payload, delivery.properties)
        details: dict[str, object] = {
            "method": f"{self._instance.spec.name}.{self._method.name}",
            "topic": self._instance.topics.user_topic(delivery.topic),
            "message_id": headers.id if headers else None,
            "source": headers.source if headers else None,
            "payload": _payload_shown(self._inbound),
        }
        try:
            self._instance.report(f"{details['method']} failed", error, details)
        finally:
            self._finish()

    def _finish(self) -> None:
        self._instance.count_handled()
        self._inbound.done()


class _ControlJob:
    """One control message: drain, save_all, cleanup, stop."""

    __slots__ = ("_inbound", "_instance")

    def __init__(self, instance: HostedInstance, inbound: Inbound) -> None:
        self._instance, self._inbound = instance, inbound

    def run(self) -> None:
        verb = self._inbound.delivery.topic.rpartition("/")[2]
        self._instance.answer(self._inbound, verb, self._inbound.unpack().value)
        self._inbound.done()

    def failed(self, error: BaseException) -> None:
        try:
            self._instance.report("a control message failed", error, {"topic": self._inbound.delivery.topic})
        finally:
            self._inbound.done()


def _payload_shown(inbound: Inbound) -> str:
    try:
        return shown(inbound.unpack().value)
    except PayloadError:
        return f"{len(inbound.delivery.payload)} bytes: {shown(inbound.delivery.payload[:200])}"


def _described(method: MethodSpec) -> dict[str, object]:
    described: dict[str, object] = {}
    if method.doc:
        described["doc"] = method.doc
    for kind, key in ((MarkKind.SUB, "subscribes"), (MarkKind.PUB, "publishes")):
        if topics := method.topics(kind):
            described[key] = list(topics)
    return described
