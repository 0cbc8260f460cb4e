"""A session in one process, over a broker in memory, driven step by step: nothing happens between two calls of a test.

The parts are the real ones (links, envelopes, instances, workers); only the threads are missing. Each call of the lab
delivers messages and runs handlers, in a fixed order, until nothing is left to do. So a test is deterministic and
needs no waiting. The exception of a handler is raised in the test, with its own traceback, unless the lab collects
failures.

The trap: objects live in the test's process. State in their modules is shared between tests, and a handler that never
returns blocks the test.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ether import ether
from ether.calls.host import LocalCallee
from ether.config import EtherConfig, load_config
from ether.connection.assembly import describe_with_registry, new_incarnation
from ether.connection.link import Inbound, Link
from ether.connection.worker import Worker
from ether.errors import EtherError
from ether.instance.drivers.building import Builder, Recipe
from ether.instance.hosted import HostedInstance
from ether.instance.registry import registry_marks, registry_options
from ether.protocol.barrier import Answer
from ether.session.client import Client, Message, message_from
from ether.spec.marks import MarkKind
from ether.spec.methods import ClassSpec, class_path_of
from ether.system.clock import wall_time
from ether.transport.loopback import LoopbackBroker, LoopbackTransport
from ether.wire.topics import SessionTopics

_DEFAULT_LIMIT = 100_000
_SHORTEST_STEP_S = 1e-6


class LabNeverRests(EtherError, RuntimeError):
    """Messages go on causing messages: `handled` of them were handled, and there are still more. `topic` is the last
    one's. A `RuntimeError`."""

    def __init__(self, handled: int, topic: str) -> None:
        self.handled, self.topic = handled, topic
        super().__init__(
            f"after {handled:,} messages there are still more, the last on {topic!r}: does a method cause itself?"
        )


@dataclass(frozen=True, slots=True)
class _Member:
    instance: HostedInstance
    link: Link
    worker: Worker
    client: Client


class Lab:
    """A session in this process, with instances of your classes. A context manager; `lab["name"]` is your own
    object."""

    def __init__(
        self,
        config: str | os.PathLike[str] | Mapping[str, Any] | EtherConfig | None = None,
        *,
        objects: Mapping[str, object] | None = None,
        collect_failures: bool = False,
        limit: int = _DEFAULT_LIMIT,
    ) -> None:
        """`config` is as for `ether.tap()`; its autorun instances are made here. `objects` are your own objects, by
        instance name. With `collect_failures`, exceptions of handlers are added to `failures` instead of being raised.
        `limit` is the number of messages that one call may cause.

        Raises `ConfigError`, and whatever the constructors raise."""
        self.failures: list[BaseException] = []
        self._collect = collect_failures
        self._limit = limit
        self._broker = LoopbackBroker()
        self._messages: list[Message] = []
        self._members: dict[str, _Member] = {}
        self._began, self._now = False, wall_time()
        self._instances: dict[str, LocalCallee] = {}
        described = load_config(config)
        self._topics = SessionTopics(described.session or "lab")
        self._registry = registry_marks(registry_options(described))
        self._link = self._open_link("main")
        self._link.listen(self._topics.data_filter("#"), self._record)
        self._client = self._make_client(self._link)
        try:
            self._populate(described, objects or {})
        except BaseException:
            self.close()
            raise

    # -- what a test does

    def start(self) -> None:
        """Publish on the topic `start`, and handle everything that follows from it."""
        self.pub(None, topic="start")

    def pub(self, data: object = None, topic: str = "general", *, qos: int = 1) -> None:
        """Publish as `ether.pub` does, and handle everything that follows from it. Raises a handler's exception, unless
        failures are collected, and `LabNeverRests`."""
        self._client.publish(data, topic, qos)
        self.settle()

    def settle(self) -> None:
        """Deliver and handle messages until none is left. Needed only where the test or a thread publishes by itself.
        Raises as `pub`."""
        handled = 0
        while moved := self._deliver() + self._work():
            handled += moved
            if handled > self._limit:
                raise LabNeverRests(handled, self._messages[-1].topic if self._messages else "")
        if self.failures and not self._collect:
            raise self.failures.pop(0)

    def advance(self, seconds: float) -> None:
        """Let time pass, in seconds and without waiting, for all methods that are called at set times (`ether_every`).
        Each tick runs, and everything that follows from it is handled, before the next one. The first call of `advance`
        begins with the first tick of every period. Raises as `pub`."""
        end = self._now + seconds
        for member in self._members.values():
            if not self._began:
                member.instance.ticks.begin(self._now, self._now)
        self._began = True
        while True:
            waits = [member.instance.ticks.step(self._now, self._now) for member in self._members.values()]
            self.settle()
            step = max(min(waits, default=seconds), _SHORTEST_STEP_S)
            if self._now + step > end:
                break
            self._now += step
        self._now = end

    def save_all(self) -> dict[str, list[str]]:
        """Run every method marked `ether_save_all`. Returns the names of the methods that ran, by instance name."""
        return self._lifecycle(MarkKind.SAVE_ALL)

    def cleanup(self) -> dict[str, list[str]]:
        """Run every method marked `ether_cleanup`. Returns the names of the methods that ran, by instance name."""
        return self._lifecycle(MarkKind.CLEANUP)

    # -- what a test looks at

    def __getitem__(self, name: str) -> Any:
        """The object of an instance. Raises `KeyError`."""
        return self._members[name].instance.object

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def messages(self, topic: str | None = None) -> list[Message]:
        """All messages that were published so far, in order; with `topic`, those on that topic."""
        return [message for message in self._messages if topic in (None, message.topic)]

    def values(self, topic: str) -> list[Any]:
        """The payloads that were published on a topic so far, in order."""
        return [message.value for message in self.messages(topic)]

    # -- ends

    def shutdown(self) -> None:
        """End as a real session does: handle what is left, run the methods marked `ether_save_all`, `ether_cleanup` and
        `ether_shutdown`, then close."""
        self.settle()
        for kind in (MarkKind.SAVE_ALL, MarkKind.CLEANUP, MarkKind.SHUTDOWN):
            self._lifecycle(kind)
        self.close()

    def close(self) -> None:
        """Close the lab without running any of its objects' methods; the objects are as they were before. May be called
        twice."""
        ether.adopt(None)
        for member in self._members.values():
            member.instance.close()
            member.link.close()
        self._link.close()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # -- inside

    def _populate(self, config: EtherConfig, objects: Mapping[str, object]) -> None:
        ether.adopt(self._client)
        for name, described in config.named_instances().items():
            if described.autorun:
                registry = registry_marks(registry_options(config, described))
                build = None if described.build is None else described.build.model_dump(by_alias=True)
                kwargs = described.constructor_kwargs
                recipe = Recipe(name, described.class_path, described.args, kwargs, build, registry)
                built = recipe.made(Builder())
                self._add(name, built.obj, built.spec).take_over(built, Builder())
        for name, obj in objects.items():
            cls = type(obj)
            self._add(name, obj, describe_with_registry(cls, class_path_of(cls), self._registry))
        for member in self._members.values():
            member.instance.initialise()
        self.settle()

    def _add(self, name: str, obj: object, spec: ClassSpec) -> HostedInstance:
        link, worker = self._open_link(name), Worker()
        instance = HostedInstance(name, obj, spec, link, self._topics, worker, new_incarnation())
        instance.on_failure = self.failures.append
        self._members[name] = _Member(instance, link, worker, self._make_client(link))
        self._instances[name] = instance
        instance.subscribe()
        return instance

    def _make_client(self, link: Link) -> Client:
        """A client whose calls reach the instances of the lab directly, in this process."""
        client = Client(link, self._topics)
        client.session.close_in(self._instances)
        return client

    def _open_link(self, name: str) -> Link:
        link = Link(LoopbackTransport(self._broker, client_id=name), name)
        link.open(1.0, dispatch=False)
        return link

    def _record(self, inbound: Inbound) -> None:
        self._messages.append(message_from(self._topics, inbound))
        inbound.done()

    def _deliver(self) -> int:
        """Route all messages that the broker has for this lab's links; returns their number."""
        links = [self._link, *(member.link for member in self._members.values())]
        return sum(self._drain(link) for link in links)

    def _drain(self, link: Link) -> int:
        moved = 0
        while (item := link.transport.receive(0)) is not None:
            link.step(item)
            moved += 1
        return moved

    def _work(self) -> int:
        """Run the jobs of all workers; returns their number."""
        done = 0
        for member in self._members.values():
            ether.adopt(member.client)  # `ether.pub` inside of a handler publishes as its instance
            done += member.worker.run_pending()
        ether.adopt(self._client)
        return done

    def _lifecycle(self, kind: MarkKind) -> dict[str, list[str]]:
        answers: dict[str, Answer] = {name: member.instance.run_marked(kind) for name, member in self._members.items()}
        self.settle()
        return {name: list(answer.ran) for name, answer in answers.items()}
