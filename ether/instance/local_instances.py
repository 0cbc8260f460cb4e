"""Objects of this very process that are instances of the session: a notebook's, or a main program's.

Promise: a name that is given back is free, and calls that come for it are told at once that it has left. The trap: one
whose name another process takes over is told on a thread that must not wait, so it leaves on a thread of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from ether.calls.durable_journal import InstanceJournal
from ether.connection.assembly import Registry, death_notice, describe_with_registry
from ether.connection.deadline import Deadline
from ether.connection.link import Link
from ether.connection.worker import Worker
from ether.instance.hosted import HostedInstance
from ether.instance.registry import RegistryOptions, registry_marks
from ether.protocol.presence import Announcement, State
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

MakeSaver = Callable[[Link, SessionTopics, str, str, int, "type | None"], RecordWriter]
"""Makes the saving side of an instance: its link, name, birth, epoch and class."""

SAVE_TIMEOUT_S = 5.0


class LocalInstance:
    """An object that is hosted in this process, until `close()`."""

    def __init__(
        self,
        name: str,
        obj: object,
        topics: SessionTopics,
        open_link: OpenLink,
        registry: Registry,
        *,
        incarnation: str,
        epoch: int,
        make_saver: MakeSaver,
        on_fenced: Callable[[str], None],
        journal_at: Callable[[], Path],
    ) -> None:
        """Returns when it is announced as ready. `on_fenced` is told when another process has taken the name;
        `journal_at` finds the file for its saves. Raises `MarkError`, `InvalidName` and what `ether_init` raises."""
        check_instance_name(name)
        spec = describe_with_registry(type(obj), class_path_of(type(obj)), registry)
        holding: dict[str, object] = {"epoch": epoch}
        self._topics = topics
        self._link = open_link(name, death_notice(topics, Announcement(name, State.LOST, incarnation, about=holding)))
        self._worker = Worker()
        self._journal = InstanceJournal(journal_at) if spec.with_mark(MarkKind.SAVE) else None
        if self._journal is not None:
            holding["journal"] = self._journal.id
        try:
            self.instance = HostedInstance(name, obj, spec, self._link, topics, self._worker, incarnation, holding)
            self.instance.server.journal = self._journal
            self.instance.control.on_fenced = on_fenced
            self.instance.record_writer = make_saver(self._link, topics, name, incarnation, epoch, type(obj))
            self.instance.subscribe()
            self.instance.initialise()
        except BaseException:
            self._close_journal()
            self._link.close()
            raise
        self._worker.start()
        self.instance.announcer.show()
        self._heartbeat_sender = HeartbeatSender(
            self._link, topics.heartbeat(name), self.instance.heartbeat, self.instance.guard.interval_s
        )
        self._heartbeat_sender.start()
        self.instance.guard.start()
        self.instance.ticks.start()

    def close(self) -> None:
        """The object is the user's own again; what was queued is finished first."""
        self.instance.ticks.stop()
        self._worker.stop()
        self._worker.join()
        self._heartbeat_sender.stop()
        self.instance.control.give_up_name()
        self.instance.close()
        if self.instance.record_writer is not None:
            self.instance.record_writer.close(SAVE_TIMEOUT_S)
        self._close_journal()
        if self._link.transport.connected:
            self._link.withdraw(self._topics.state(self.instance.name))
        self._link.close()

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()


_READY_TIMEOUT_S = 10.0
_LAST_WORDS_TIMEOUT_S = 2.0


class LocalInstances:
    """The objects that one program hosts, by name."""

    def __init__(self) -> None:
        self._guests: dict[str, LocalInstance] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._guests))

    def __contains__(self, name: object) -> bool:
        return name in self._guests

    def __len__(self) -> int:
        return len(self._guests)

    def add(
        self,
        session: Session,
        open_link: OpenLink,
        name: str,
        obj: object,
        registry: RegistryOptions,
        birth_and_epoch: tuple[str, int],
        make_saver: MakeSaver,
    ) -> None:
        """Returns when it is ready; its name has been taken."""
        here = LocalInstance(
            name,
            obj,
            session.topics,
            open_link,
            registry_marks(registry),
            incarnation=birth_and_epoch[0],
            epoch=birth_and_epoch[1],
            make_saver=make_saver,
            on_fenced=lambda why: self._remove_soon(session, name),
            journal_at=lambda: journal_path(session.topics.session, name),
        )
        here.instance.lease_server.is_dead = is_dead_here
        self._guests[name] = here
        session.calls.here[name] = here.instance
        session.wait_ready([name], Deadline(_READY_TIMEOUT_S), dict)

    def remove(self, session: Session, name: str) -> None:
        """The object leaves the session; nothing where it is not there."""
        here = self._guests.pop(name, None)
        if here is not None:
            session.calls.here.pop(name, None)
            here.close()
            if session.link.transport.connected:
                session.catch_up(_LAST_WORDS_TIMEOUT_S)  # whoever calls it next is told that it has left

    def _remove_soon(self, session: Session, name: str) -> None:
        target = threading.Thread(target=self.remove, args=(session, name), name=f"ether-unhost-{name}", daemon=True)
        target.start()
