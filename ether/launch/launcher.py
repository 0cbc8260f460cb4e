"""A session that this program started: its broker, its instances, from the first process to the last.

Starting: broker and instances start side by side; each instance gets its settings when the broker is ready, and
counts when it has announced `ready`. Stopping, always in this order, each step bounded and reported: drain the
work in flight, save_all, cleanup, stop, then the broker. Whatever cannot be asked any more is killed.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ether.config import EtherConfig, EtherInstanceConfig
from ether.config import broker as config_broker
from ether.connection.assembly import open_link
from ether.connection.deadline import Deadline
from ether.connection.link import Link
from ether.errors import LifecycleFailed, StartFailed
from ether.instance.local_instances import LocalInstances, OpenLink
from ether.instance.registry import registry_options, warn_of_registry_typos
from ether.launch.broker import BrokerProcess, private_folder
from ether.launch.child_settings import InstanceSettings, Life, settings_of
from ether.launch.control_server import ControlServer
from ether.launch.orderly_end import STEPS, OrderlyEnd
from ether.launch.process_group import ProcessGroup, make_group
from ether.launch.program_log import ProgramLog
from ether.launch.recording_setup import LEADER, RECORDER, RecordingSetup, is_recorder
from ether.launch.remote_instances import RemoteInstances
from ether.launch.simulated_lab import Simulation
from ether.launch.supervisor import Supervisor
from ether.log import get_ether_logger
from ether.protocol.presence import Announcement
from ether.session.client import Client
from ether.session.discovery.directory import entry_of
from ether.session.leadership import Leadership, appear_as_guest, clear
from ether.session.members import Event
from ether.session.name_claim import program_name, take_name
from ether.session.offline import LastKnownFile, OfflineNotes
from ether.session.session import Session
from ether.system import processes
from ether.transport.base import Will
from ether.transport.endpoint import Endpoint
from ether.wire.topics import SessionTopics, check_instance_name

if TYPE_CHECKING:
    from ether.session.discovery.search import FoundSession

logger = get_ether_logger("Ether")

STEP_TIMEOUT_S = 10.0
"""For each of drain, save_all, cleanup and stop."""

_LEAVE_TIMEOUT_S = 2.0


class Launch:
    """One program's part in a session: one that it started, or one that it joined. Made by `start()`, ended by
    `stop()`."""

    def __init__(
        self,
        config: EtherConfig,
        session: str,
        found: FoundSession | None = None,
        *,
        takeover: bool = False,
        sim: bool = False,
    ) -> None:
        """`found` is the running session to join, None to start one; `takeover` replaces holders of the same names;
        `sim`: its devices are simulated. Raises `ConfigError`."""
        self.config = config
        self.topics = SessionTopics(session)
        self._found = found
        self._takeover = takeover
        self._program = LEADER if found is None else program_name()
        self._since = time.time()
        self._folder = private_folder()
        self._group: ProcessGroup | None = None
        self._group_lock = threading.Lock()
        self._broker: BrokerProcess | None = None
        self._supervisor = Supervisor(self._own_group)
        self._elsewhere = RemoteInstances(config)
        self._endpoint: Endpoint | None = None
        self._limit: int | None = None
        self._link: Link | None = None
        self._session: Session | None = None
        self._control_server: ControlServer | None = None
        self._offline: OfflineNotes | None = None
        self._last_known: LastKnownFile | None = None
        self._leading: Leadership | None = None
        self._log: ProgramLog | None = None
        self._open_link: OpenLink | None = None
        self._here = LocalInstances()
        self._simulation = Simulation(config, wanted=sim)
        self._saving = RecordingSetup(config, session, self._simulation)

    # -- starting

    def start(self, timeout_s: float, watch: Event | None = None) -> Client:
        """Start everything; returns when every autorun instance is ready. Raises `StartFailed`, `BrokerFailed` and
        `NameTaken`; nothing is left running then."""
        deadline = Deadline(timeout_s)
        try:
            self._start_processes()
            endpoint, self._limit = self._broker_address(deadline)
            self._endpoint = endpoint
            self._open_link = partial(open_link, endpoint, self._limit, STEP_TIMEOUT_S, self.topics)
            connect = partial(self._open_link, self._program, self._last_word())
            link = self._link = connect() if self._broker is None else self._broker.connected(connect, deadline)
            client = Client(link, self.topics)
            session = self._session = client.session
            if watch is not None:
                session.watch(watch)
            session.open(deadline.left())
            self._log = ProgramLog(session, self._program, leads=self._found is None)
            self._simulation.check_session(session.info(deadline.left()), joined=self._found is not None)
            self._simulation.await_twins(self.topics.session, deadline)
            self._last_known = LastKnownFile(session, self._program, endpoint.address, self._folder)
            self._appear(link, endpoint)
            self._supervisor.connect(session, self._settings)
            self._elsewhere.connect(session)
            self._begin_saving(client, deadline)
            self._take_names(session, deadline)
            self._control_server = ControlServer(link, self.topics, self._program, self)
            if self._leading is not None:
                self._leading.defend()
            self._begin(deadline)
        except BaseException:
            self._elsewhere.undo(self._elsewhere.names)
            self._abandon()
            raise
        return client

    def _begin_saving(self, client: Client, deadline: Deadline) -> None:
        """What this program saves, or has saved when it died the last time."""
        if self._found is not None:
            self._saving.join(self.session.info(deadline.left()))
        self._saving.open(client, self._program)

    def record(self) -> None:
        """Something is to be saved and nobody records: start a recorder. Twice is fine."""
        if not self.joined and RECORDER not in self._supervisor.names:
            self._saving.adopt()
            self.add(RECORDER, self._saving.recorder(), STEP_TIMEOUT_S)

    def _begin(self, deadline: Deadline) -> None:
        far = self._elsewhere
        starts = far.starts(far.names, deadline.left())
        reasons = self._supervisor.begin(self._supervisor.names, deadline, starts, far.failed)
        if reasons := {**reasons, **far.refused(far.names)}:
            raise StartFailed(self.topics.session, reasons)

    def on_shutdown_asked(self, callback: Callable[[], object]) -> None:
        """What to do when another program asks for the end of this one."""
        assert self._control_server is not None
        self._control_server.on_shutdown = callback

    @property
    def session(self) -> Session:
        """This program's view of the session."""
        assert self._session is not None
        return self._session

    @property
    def broker_url(self) -> str | None:
        """The embedded broker's URL for other programs, None where the broker is not ours."""
        return self._broker.url if self._broker else None

    @property
    def joined(self) -> bool:
        """True where the session is another program's."""
        return self._leading is None or not self._leading.leads

    def _own_group(self) -> ProcessGroup:
        with self._group_lock:
            if self._group is None:
                self._group = make_group(self._folder)
            return self._group

    def _start_processes(self) -> None:
        warn_of_registry_typos(self.config)
        if self._found is None and isinstance(self.config.broker, config_broker.EmbeddedBroker):
            self._broker = BrokerProcess(self.config.broker, self._own_group(), self._folder)
        if self._simulation.wanted:
            self._simulation.begin(self._own_group(), self._folder)
        for name, instance in self._saving.instances(leads=self._found is None).items():
            if instance.autorun:
                (self._supervisor.prepare if instance.host is None else self._elsewhere.add)(name, instance)

    def _broker_address(self, deadline: Deadline) -> tuple[Endpoint, int | None]:
        if self._found is not None:
            return Endpoint.from_url(self._found.url), None
        if isinstance(self.config.broker, config_broker.ExternalBroker):
            return Endpoint.from_url(self.config.broker.url), None
        assert self._broker is not None
        processes.prepare()  # 15 ms in which there is nothing to do but wait for the broker
        facts = self._broker.wait_ready(deadline.left())
        logger.info("Broker: %s %s on %s:%s", facts.engine, facts.version, facts.host, facts.port)
        return self._broker.endpoint, facts.max_packet_bytes

    def _settings(
        self, name: str, instance: EtherInstanceConfig, incarnation: str, epoch: int, connect_timeout_s: float
    ) -> InstanceSettings:
        assert self._endpoint is not None
        holding: dict[str, Any] = {"keeper": self._program, "supervised": instance.restart != "never"}
        life = Life(name, incarnation, epoch, holding, connect_timeout_s)
        broker = (self._endpoint, self._limit)
        return settings_of(self.config, instance, life, broker, self.topics.session, self._saving, self._simulation)

    # -- being seen

    def _last_word(self) -> Will:
        """What the broker does when this program dies: who leads a session takes it off the broker's directory, who
        merely joined takes itself off the list of members."""
        topic = self.topics.session_info if self._found is None else self.topics.state(self._program)
        return Will(topic, b"")

    def _appear(self, link: Link, endpoint: Endpoint) -> None:
        if self._found is not None:
            appear_as_guest(link, self.topics, self._program, self._since)
            return
        self._offline = OfflineNotes(self.session)
        given, named = self.config.broker, self.config.session is not None
        broker = {"engine": "external"} if self._broker is None else self._broker.entry
        entry = entry_of(self.topics.session, self._program, self._since, endpoint, broker, named=named)
        self._own_group()  # its guard removes the folder, whatever becomes of this program
        url = given.url if isinstance(given, config_broker.ExternalBroker) else self.broker_url or ""
        entry |= {"run": self._saving.run} | self._simulation.said
        self._leading = Leadership(link, self.topics, entry, self._step_back)
        self._leading.begin(self._folder, url)
        if self._broker is not None:
            self._broker.announce(self.topics.session, os.environ)

    def _step_back(self, entry: Mapping[str, Any]) -> None:
        """Another program has led the session for longer: from now on this one is a guest, under a name of its own."""
        self._program = program_name()
        self._saving.join(entry)
        appear_as_guest(self.session.link, self.topics, self._program, self._since)
        self._supervisor.keep_as(self._program)
        if self._control_server is not None:
            self._control_server.program = self._program
        if RECORDER in self._supervisor.names:
            self.remove_all([RECORDER], None)

    # -- names

    def _take_names(self, session: Session, deadline: Deadline) -> None:
        """Nobody else can hold a name where the broker has just been started."""
        if self._broker is None:
            for name in self._supervisor.names:
                self._supervisor.take_name(name, self.take_name(session, name, deadline))

    def take_name(self, session: Session, name: str, deadline: Deadline) -> tuple[str, int]:
        """Become the holder of an instance's name: its birth and epoch. Raises `NameTaken`."""
        return take_name(session, name, deadline, yields=self._yields)

    def _yields(self, holder: Announcement) -> bool:
        """Whether a holder gives way to us although it lives."""
        return self._takeover

    # -- objects of this process

    def host(self, obj: object, name: str, *, takeover: bool = False) -> None:
        """Make an object of this process an instance of the session; raises `NameTaken`."""
        check_instance_name(name)
        assert self._open_link is not None
        self._takeover = takeover
        holding = self.take_name(self.session, name, Deadline(STEP_TIMEOUT_S))
        options = registry_options(self.config)
        self._here.add(self.session, self._open_link, name, obj, options, holding, self._saving.record_writer_of)

    def unhost(self, name: str) -> None:
        """The object leaves the session; nothing where it is not hosted here."""
        self._here.remove(self.session, name)

    # -- one instance, while everything runs

    def add(self, name: str, instance: EtherInstanceConfig, timeout_s: float) -> None:
        """Start an instance that was not there. Raises `NameTaken` and `StartFailed`."""
        instance = self._simulation.here(instance)
        self._simulation.check(name, instance)
        if instance.host is not None:
            self._elsewhere.add(name, instance)
            self._elsewhere.start(name, timeout_s)
            return
        deadline = Deadline(timeout_s)
        holding = self.take_name(self.session, name, deadline)
        self._supervisor.prepare(name, instance)
        self._supervisor.take_name(name, holding)
        if reasons := self._supervisor.begin([name], deadline):
            self._supervisor.leave(name)
            self._supervisor.end([name], 0)
            self._supervisor.forget(name)
            raise StartFailed(self.topics.session, reasons)

    def remove(self, name: str) -> dict[str, str]:
        """Stop one instance in order; returns what went wrong. Raises `KeyError` for one that is not kept here."""
        if name not in [*self._supervisor.names, *self._elsewhere.names]:
            raise KeyError(f"no instance {name!r} is kept by this program")
        return self.remove_all([name], None)

    def remove_all(self, names: Sequence[str], steps: Sequence[str] | None) -> dict[str, str]:
        """Stop those of them that are kept here; `steps` are those of the end that are still to be taken, None for all.
        Returns what went wrong."""
        local = [name for name in names if name in self._supervisor.names]
        far = [name for name in names if name in self._elsewhere.names]
        for name in local:
            self._supervisor.leave(name)
        problems = self._end().of([*local, *far], STEPS if steps is None else steps)
        for name in local:
            self._supervisor.forget(name)
            if self.session.link.transport.connected:
                self.session.link.withdraw(self.topics.state(name))
        return problems

    def restart(self, name: str, timeout_s: float) -> None:
        """Stop one instance in order and start it again; calls to it wait meanwhile."""
        if name in self._elsewhere.names:
            self._elsewhere.restart(name, timeout_s)
            return
        instance = self._supervisor.config(name)
        self._supervisor.leave(name)
        self._end(returns=True).of([name])
        self._supervisor.forget(name)
        deadline = Deadline(timeout_s)
        self._supervisor.prepare(name, instance)
        if reasons := self._supervisor.begin([name], deadline):
            raise StartFailed(self.topics.session, reasons)

    def described(self, name: str) -> EtherInstanceConfig | None:
        """What the configuration says of an instance, started or not."""
        return self.config.named_instances().get(name)

    def run(self, name: str, asked: Mapping[str, Any], by: str) -> str:
        """Only an agent runs what it is told over the network; raises `KeyError`."""
        raise KeyError(f"{self._program} is no agent: it runs only what its own configuration describes")

    # -- stopping

    def lifecycle(self, verb: str) -> dict[str, list[str]]:
        """Ask all ready instances to `save_all` or `cleanup`; returns what ran where, raises `LifecycleFailed`."""
        barrier = self.session.ask(verb, sorted(self.session.ready()), STEP_TIMEOUT_S)
        if reasons := barrier.reasons(STEP_TIMEOUT_S):
            raise LifecycleFailed(verb, reasons)
        return {name: list(answer.ran) for name, answer in sorted(barrier.answers.items())}

    def stop(self) -> dict[str, str]:
        """Stop everything of this program in order; returns what went wrong, by instance, empty when nothing did. Never
        raises for what an instance does."""
        if self._leading is not None:
            self._leading.close()
        self._supervisor.no_more_starts()
        names = [*self._supervisor.names, *self._here, *self._elsewhere.names]
        recorders = [name for name in self._supervisor.names if is_recorder(name, self._supervisor.config(name))]
        try:
            problems = self._end().of([name for name in names if name not in recorders])
            self._saving.close()
            return problems | self._end().of(recorders)
        finally:
            self._abandon()

    def _end(self, *, returns: bool = False) -> OrderlyEnd:
        return OrderlyEnd(self.session, self._supervisor, self._elsewhere, self._here, STEP_TIMEOUT_S, returns)

    def _abandon(self) -> None:
        """End whatever is left, at once. Twice is fine."""
        self._supervisor.no_more_starts()
        self._supervisor.end(self._supervisor.names, 0)
        for name in self._here:
            self.unhost(name)
        self._saving.close(0.0)
        for part in (self._leading, self._control_server, self._offline, self._last_known, self._session, self._log):
            if part is not None:
                part.close()
        if self._link is not None:
            self._clear_announcements(self._link)
            self._link.close()
        if self._broker is not None:
            self._broker.stop(_LEAVE_TIMEOUT_S)
        self._simulation.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._group is not None:
            self._group.close()

    def _clear_announcements(self, link: Link) -> None:
        """An embedded broker of ours forgets with its end; on any other one nothing of ours must stay."""
        if self._broker is None and link.transport.connected:
            own = self.topics.state(self._program) if self.joined else self.topics.session_info
            clear(link, [*(self.topics.state(name) for name in self._supervisor.held), own], _LEAVE_TIMEOUT_S)
