"""A live object of this very process as an instance of the session: a notebook's, or a main program's.

It has a connection of its own, so that its announcement and the notice of its death are its own, and a worker thread.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ether.calls.durable_server import InstanceJournal
from ether.connection.assembly import Registry, death_notice, describe_with_registry
from ether.connection.link import Link
from ether.connection.worker import Worker
from ether.instance.hosted import HostedInstance
from ether.protocol.presence import Announcement, State
from ether.recording.writer import RecordWriter
from ether.session.heartbeat import HeartbeatSender
from ether.spec.marks import MarkKind
from ether.spec.methods import class_path_of
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
        birth: str,
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
        self._link = open_link(name, death_notice(topics, Announcement(name, State.LOST, birth, about=holding)))
        self._worker = Worker()
        self._journal = InstanceJournal(journal_at) if spec.with_mark(MarkKind.SAVE) else None
        if self._journal is not None:
            holding["journal"] = self._journal.id
        try:
            self.instance = HostedInstance(name, obj, spec, self._link, topics, self._worker, birth, holding)
            self.instance.server.journal = self._journal
            self.instance.control.on_fenced = on_fenced
            self.instance.saver = make_saver(self._link, topics, name, birth, epoch, type(obj))
            self.instance.subscribe()
            self.instance.initialise()
        except BaseException:
            self._close_journal()
            self._link.close()
            raise
        self._worker.start()
        self.instance.appearance.show()
        self._heart = HeartbeatSender(
            self._link, topics.pulse(name), self.instance.pulse, self.instance.guard.interval_s
        )
        self._heart.start()
        self.instance.guard.start()
        self.instance.ticks.start()

    def close(self) -> None:
        """The object is the user's own again; what was queued is finished first."""
        self.instance.ticks.stop()
        self._worker.stop()
        self._worker.join()
        self._heart.stop()
        self.instance.control.give_up_name()
        self.instance.close()
        if self.instance.saver is not None:
            self.instance.saver.close(SAVE_TIMEOUT_S)
        self._close_journal()
        if self._link.transport.connected:
            self._link.withdraw(self._topics.state(self.instance.name))
        self._link.close()

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
