"""Objects of this very process that are instances of the session: those of a notebook, or of a main program.

Promise: a name that is given back is free, and a call that arrives for it is told at once that the instance has left.

The trap: the news that another process has taken over a name arrives on a thread that must not wait, so the instance is
removed on a thread of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ether.calls.durable_server import InstanceJournal
from ether.connection.assembly import Registry, death_notice, describe_with_registry
from ether.connection.deadline import Deadline
from ether.connection.link import Link
from ether.connection.worker import Worker
from ether.instance.hosted import HostedInstance
from ether.instance.registry import RegistryOptions, registry_marks
from ether.protocol.presence import BEHIND_BRIDGE, Announcement, State
from ether.recording.writer import RecordWriter
from ether.session.heartbeat import HeartbeatSender
from ether.session.session import Session
from ether.spec.marks import MarkKind
from ether.spec.methods import class_path_of
from ether.system.folders import journal_path
from ether.system.process_owner import is_dead_here
from ether.transport.base import Will
from ether.wire.topics import SessionTopics, check_instance_name

OpenLink = Callable[[str, Will | None], Link]
"""Makes and opens a link for a source, with a will."""

MakeWriter = Callable[[Link, SessionTopics, str, str, int, "type | None"], RecordWriter]
"""Makes the record writer of an instance, from its link, the topics, its name, incarnation, epoch and class."""

SAVE_TIMEOUT_S = 5.0
SEND_TIMEOUT_S = 3.0
"""For sending what waits for the broker, at the end."""

_READY_TIMEOUT_S = 10.0
_CATCH_UP_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class HeldName:
    """A name that this process has claimed."""

    name: str
    incarnation: str
    epoch: int


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """What a program gives to each of its local instances."""

    topics: SessionTopics
    registry: Registry
    open_link: OpenLink
    make_writer: MakeWriter
    on_fenced: Callable[[str], None]
    """Called with the reason when another process has taken the name."""
    journal_at: Callable[[], Path]
    """Finds the file for the journal of durable calls."""
    behind_bridge: bool
    """Whether the way to other members strips MQTT 5 properties."""


class LocalInstance:
    """An object that is hosted in this process, until `close()`."""

    def __init__(self, held: HeldName, obj: object, settings: LocalSettings) -> None:
        """Returns when the instance is announced as ready. Raises `MarkError`, `InvalidName` and whatever `ether_init`
        raises."""
        check_instance_name(held.name)
        cls, topics = type(obj), settings.topics
        spec = describe_with_registry(cls, class_path_of(cls), settings.registry)
        holding: dict[str, object] = {"epoch": held.epoch, **(BEHIND_BRIDGE if settings.behind_bridge else {})}
        self._topics = topics
        lost = Announcement(held.name, State.LOST, held.incarnation, about=dict(holding))
        self._link = settings.open_link(held.name, death_notice(topics, lost))
        self._worker = Worker()
        self._journal = InstanceJournal(settings.journal_at) if spec.with_mark(MarkKind.SAVE) else None
        if self._journal is not None:
            holding["journal"] = self._journal.id
        try:
            self.instance = HostedInstance(
                held.name, obj, spec, self._link, topics, self._worker, held.incarnation, holding
            )
            self.instance.server.journal = self._journal
            self.instance.control.on_fenced = settings.on_fenced
            self.instance.record_writer = settings.make_writer(
                self._link, topics, held.name, held.incarnation, held.epoch, cls
            )
            self.instance.subscribe()
            self.instance.initialise()
        except BaseException:
            self._close_journal()
            self._link.close()
            raise
        self._start()

    def _start(self) -> None:
        """Announce the instance, then begin what other processes and the clock see of it."""
        self._worker.start()
        self.instance.announcer.show()
        self._heartbeat_sender = HeartbeatSender(
            self._link, self._topics.heartbeat(self.instance.name), self.instance.heartbeat,
            self.instance.guard.interval_s,
        )  # fmt: skip
        self._heartbeat_sender.start()
        self.instance.guard.start()
        self.instance.begin_times()

    def close(self) -> None:
        """Finish the queued jobs, leave the session and give the object back to the user."""
        self.instance.end_times()
        self._worker.stop()
        self._worker.join()
        self._heartbeat_sender.stop()
        self.instance.control.give_up_name()
        self.instance.close()
        if self.instance.record_writer is not None:
            self.instance.record_writer.close(SAVE_TIMEOUT_S)
        self._close_journal()
        self._link.finish(SEND_TIMEOUT_S)
        if self._link.transport.connected:
            self._link.withdraw(self._topics.state(self.instance.name))
        self._link.close()

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()


class LocalInstances:
    """The objects that one program hosts, by name."""

    def __init__(self) -> None:
        self._instances: dict[str, LocalInstance] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._instances))

    def __contains__(self, name: object) -> bool:
        return name in self._instances

    def __len__(self) -> int:
        return len(self._instances)

    def object_of(self, name: str) -> object | None:
        """The object that this process hosts under a name; None where it hosts none."""
        local = self._instances.get(name)
        return None if local is None else local.instance.object

    def add(
        self,
        session: Session,
        open_link: OpenLink,
        name: str,
        obj: object,
        registry: RegistryOptions,
        incarnation_and_epoch: tuple[str, int],
        make_writer: MakeWriter,
    ) -> None:
        """Host an object under a name that this program has claimed; returns when the instance is ready."""
        settings = LocalSettings(
            session.topics,
            registry_marks(registry),
            open_link,
            make_writer,
            on_fenced=lambda why: self._remove_soon(session, name),
            journal_at=lambda: journal_path(session.topics.session, name),
            behind_bridge=session.link.headers_twice,
        )
        local = LocalInstance(HeldName(name, *incarnation_and_epoch), obj, settings)
        local.instance.lease_server.is_dead = is_dead_here
        self._instances[name] = local
        session.calls.local_instances[name] = local.instance
        session.wait_ready([name], Deadline(_READY_TIMEOUT_S), dict)

    def remove(self, session: Session, name: str) -> None:
        """Let an object leave the session. Does nothing where this program does not host the name."""
        local = self._instances.pop(name, None)
        if local is not None:
            session.calls.local_instances.pop(name, None)
            local.close()
            if session.link.transport.connected:
                # So that this program's own next call to the name finds that the instance has left.
                session.catch_up(_CATCH_UP_TIMEOUT_S, among=name)

    def _remove_soon(self, session: Session, name: str) -> None:
        target = threading.Thread(target=self.remove, args=(session, name), name=f"ether-unhost-{name}", daemon=True)
        target.start()
