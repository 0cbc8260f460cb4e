"""One program's part in a session, from the first process that it starts to the last one that it ends.

The program either starts the session (then it leads it, usually with a broker of its own) or joins a running one.

Starting: broker and instances start side by side. Each instance gets its settings when the broker is ready, and counts
as started when it has announced `ready`. Stopping, always in this order, each step bounded and reported: drain the work
in flight, save_all, cleanup, stop, then the broker. What does not answer any more is killed.

An agent joins sessions, too, but under a name that it has claimed, and for other programs. It has a launcher, and hands
over its `Policies`.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ether.config import EtherConfig, EtherInstanceConfig
from ether.config import broker as config_broker
from ether.connection.assembly import open_link
from ether.connection.deadline import Deadline
from ether.connection.link import Link
from ether.errors import LifecycleFailed, PublishTimeout, StartFailed
from ether.instance.local_instances import LocalInstances, OpenLink
from ether.instance.registry import registry_options, warn_of_registry_typos
from ether.launch.broker import BrokerProcess, private_folder
from ether.launch.child_settings import Incarnation, InstanceSettings, SessionSettings, settings_of
from ether.launch.control_server import ControlServer, ProgramControl
from ether.launch.orderly_end import STEPS, OrderlyEnd
from ether.launch.process_group import ProcessGroup, make_group
from ether.launch.program_log import ProgramLog
from ether.launch.recording_setup import LEADER, RECORDER, RecordingSetup, is_recorder
from ether.launch.remote_instances import RemoteInstances
from ether.launch.simulated_lab import Simulation
from ether.launch.supervisor import Supervisor
from ether.log import get_ether_logger
from ether.protocol.presence import BEHIND_BRIDGE, Announcement
from ether.session.client import Client
from ether.session.discovery.directory import entry_of
from ether.session.leadership import Leadership, appear_as_guest, clear
from ether.session.members import Event
from ether.session.name_claim import program_name, take_name
from ether.session.offline import LastKnownFile, OfflineNotes
from ether.session.rights import check_that_it_comes_back
from ether.session.session import Opening, Session
from ether.system import processes
from ether.system.clock import uptime, wall_time
from ether.system.folders import file_name
from ether.transport.base import Will
from ether.transport.endpoint import Endpoint
from ether.wire.topics import SessionTopics, check_instance_name

if TYPE_CHECKING:
    from ether.session.discovery.search import FoundSession

logger = get_ether_logger("Ether")

STEP_TIMEOUT_S = 10.0
"""For each of drain, save_all, cleanup and stop."""

_LEAVE_TIMEOUT_S = 2.0
_HEAR_S = 2.0
"""How long a program that joins waits to know the session's recorders."""


@dataclass(frozen=True, slots=True)
class Policies:
    """How a program takes part in its session. The launcher has its own for programs; an agent gives others.

    All are called on the thread that starts or stops the program, except `yields` and `settings`, which are called on
    any thread that starts an instance.
    """

    program: str
    """The program's name in the session."""
    control: ProgramControl
    """Carries out what other programs ask of this one."""
    will: Callable[[OpenLink], Will]
    """What the broker is to say when this program dies. Called before the program connects; may connect by itself."""
    appear: Callable[[Link], None]
    """Announces the program, as soon as it is connected."""
    clear: Callable[[Link], None]
    """Takes back what was announced, before the program disconnects."""
    yields: Callable[[Announcement], bool]
    """Whether the living holder of a name has to give it up to an instance of this program."""
    settings: Callable[[InstanceSettings, EtherInstanceConfig], InstanceSettings]
    """Completes the settings for the process of an instance."""


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
        policies: Policies | None = None,
    ) -> None:
        """`found` is the running session to join, None to start one. `takeover`: living holders of the same names have
        to give them up. `sim`: the devices are simulated. Raises `ConfigError`."""
        self.config = config
        self.topics = SessionTopics(session)
        self.since, self.began = wall_time(), uptime()
        self._found = found
        self._takeover = takeover
        self._policies = policies or self._own_policies()
        self._program = self._policies.program
        self._folder = private_folder()
        self._group: ProcessGroup | None = None
        self._group_lock = threading.Lock()
        self._broker: BrokerProcess | None = None
        self._supervisor = Supervisor(self._own_group)
        self._remote_instances = RemoteInstances(config)
        self._local_instances = LocalInstances()
        self._endpoint: Endpoint | None = None
        self._limit: int | None = None
        self._open_link: OpenLink | None = None
        self._link: Link | None = None
        self._session: Session | None = None
        self._control_server: ControlServer | None = None
        self._offline: OfflineNotes | None = None
        self._last_known: LastKnownFile | None = None
        self._leadership: Leadership | None = None
        self._log: ProgramLog | None = None
        self._simulation = Simulation(config, wanted=sim)
        self._recording = RecordingSetup(config, session, self._simulation)

    def _own_policies(self) -> Policies:
        return Policies(
            program=LEADER if self._found is None else program_name(),
            control=self,
            will=self._will,
            appear=self._appear,
            clear=self._clear_announcements,
            yields=lambda holder: self._takeover,
            settings=lambda settings, instance: settings,
        )

    # -- what there is

    @property
    def session(self) -> Session:
        """This program's view of the session."""
        assert self._session is not None
        return self._session

    @property
    def supervisor(self) -> Supervisor:
        """The supervisor of this program's instances on this machine."""
        return self._supervisor

    @property
    def broker_url(self) -> str | None:
        """The embedded broker's URL for other programs, None where this program started no broker."""
        return self._broker.url if self._broker else None

    @property
    def joined(self) -> bool:
        """True where another program leads the session."""
        return self._leadership is None or not self._leadership.leads

    # -- starting

    def start(self, timeout_s: float, watch: Event | None = None) -> Client:
        """Start everything; returns when every autorun instance is ready. `watch` is told of every change in the table
        of members meanwhile. Raises `StartFailed`, `BrokerFailed` and `NameTaken`; nothing is left running then."""
        deadline = Deadline(timeout_s)
        try:
            self._start_processes()
            client = self._connect(deadline, watch)
            self._enter(client, deadline)
            self._start_instances(deadline)
        except BaseException:
            self._remote_instances.undo(self._remote_instances.names)
            self.abandon()
            raise
        return client

    def _start_processes(self) -> None:
        """Start what takes longest, side by side: the broker, the simulated lab, the interpreters of the instances."""
        warn_of_registry_typos(self.config)
        if self._found is None and isinstance(self.config.broker, config_broker.EmbeddedBroker):
            self._broker = BrokerProcess(self.config.broker, self._own_group(), self._folder)
        if self._simulation.wanted:
            self._simulation.begin(self._own_group(), self._folder)
        for name, instance in self._recording.instances(leads=self._found is None).items():
            if instance.autorun:
                (self._supervisor.prepare if instance.host is None else self._remote_instances.add)(name, instance)

    def _own_group(self) -> ProcessGroup:
        with self._group_lock:
            if self._group is None:
                self._group = make_group(self._folder)
            return self._group

    def _connect(self, deadline: Deadline, watch: Event | None) -> Client:
        """Connect to the broker as soon as it is ready; returns when the members of the session are known."""
        endpoint, self._limit = self._broker_address(deadline)
        self._endpoint = endpoint
        self._open_link = partial(open_link, endpoint, self._limit, STEP_TIMEOUT_S, self.topics)
        connect = partial(self._open_link, self._program, self._policies.will(self._open_link))
        link = self._link = connect() if self._broker is None else self._broker.connected(connect, deadline)
        client = Client(link, self.topics)
        session = self._session = client.session
        if watch is not None:
            session.watch(watch)
        session.open(deadline.left(), self._opening())
        self._log = ProgramLog(session, self._program, leads=self._found is None)
        return client

    def _opening(self) -> Opening:
        if self._broker is not None:
            return Opening.FRESH
        return Opening.STARTS if self._found is None else Opening.JOINS

    def _broker_address(self, deadline: Deadline) -> tuple[Endpoint, int | None]:
        """The broker's address, and how many bytes a packet may have; waits for a broker of our own."""
        if self._found is not None:
            return Endpoint.from_url(self._found.url), None
        if isinstance(self.config.broker, config_broker.ExternalBroker):
            return Endpoint.from_url(self.config.broker.url), None
        assert self._broker is not None
        processes.prepare()  # 15 ms in which there is nothing to do but wait for the broker
        facts = self._broker.wait_ready(deadline.left())
        logger.info("Broker: %s %s on %s:%s", facts.engine, facts.version, facts.host, facts.port)
        return self._broker.endpoint, facts.max_packet_bytes

    def _enter(self, client: Client, deadline: Deadline) -> None:
        """Take this program's place in the session, in an order that matters: it appears when its session fits it; it
        takes names when dead holders have been cleared away (`Supervisor.connect`); it takes requests, and defends its
        leadership, when it is able to carry out what follows from them."""
        assert self._endpoint is not None
        session, link = client.session, client.link
        self._simulation.check_session(session.info(deadline.left()), joined=self._found is not None)
        self._simulation.await_devices(self.topics.session, deadline)
        self._last_known = LastKnownFile(session, self._program, self._endpoint.address, self._folder)
        began = time.monotonic()
        self._policies.appear(link)
        self._check_rights(began)
        self._supervisor.connect(
            session, self._settings, leads=lambda: not self.joined, sweeps=self._found is None and self._broker is None
        )
        self._remote_instances.connect(session)
        if self._found is not None:
            self._recording.join(session.info(deadline.left()))
        self._recording.open(client, self._program)
        if self._found is not None:
            self._recording.hear_recorders(min(deadline.left(), _HEAR_S))
        if self._broker is None:  # with a broker that has just been started nobody else can hold a name
            for name in self._supervisor.names:
                self._supervisor.take_name(name, self.take_name(name, deadline))
        self._control_server = ControlServer(link, self.topics, self._program, self._policies.control)
        if self._leadership is not None:
            self._leadership.defend()

    def _check_rights(self, began: float) -> None:
        """Return when the entry of a session that this program leads since `began`, and the question whether it does,
        have come back to it: a leader whom nobody sees, or can ask, would be taken for dead."""
        leadership = self._leadership
        if leadership is not None and self._broker is None:
            leadership.ask_itself()
            announced: dict[str, Callable[[], bool]] = {
                self.topics.session_info: partial(self.session.leader_heard_since, began),
                self.topics.leader_probe: lambda: leadership.was_asked,
            }
            check_that_it_comes_back(self.session, announced)

    def _start_instances(self, deadline: Deadline) -> None:
        remote = self._remote_instances
        starts = remote.starts(remote.names, deadline.left())
        reasons = self._supervisor.start_and_wait(self._supervisor.names, deadline, starts, remote.failed)
        if reasons := {**reasons, **remote.refused(remote.names)}:
            raise StartFailed(self.topics.session, reasons)

    def take_name(self, name: str, deadline: Deadline) -> tuple[str, int]:
        """Become the holder of an instance's name: its incarnation and epoch. Raises `NameTaken`."""
        return take_name(self.session, name, deadline, yields=self._policies.yields)

    def _settings(
        self, name: str, instance: EtherInstanceConfig, incarnation: str, epoch: int, connect_timeout_s: float
    ) -> InstanceSettings:
        assert self._endpoint is not None
        announced: dict[str, Any] = {"keeper": self._program, "supervised": instance.restart != "never"}
        if self._simulation.wanted:
            announced["simulated"] = True
        link = self.session.link
        if link.headers_twice:
            announced |= BEHIND_BRIDGE
        common = SessionSettings(
            session=self.topics.session,
            endpoint=self._endpoint,
            max_packet_bytes=self._limit,
            saving=self._recording.options().to_value(),
            configuration=self._recording.configuration(),
            leader=self._recording.leader,
            environment=self._simulation.environment,
            simulated_devices=self._simulation.devices,
            broker_traits=link.traits,
        )
        started = Incarnation(name, incarnation, epoch, announced, connect_timeout_s, str(self._positions(name)))
        return self._policies.settings(settings_of(self.config, instance, started, common), instance)

    def _positions(self, name: str) -> Path:
        """Where an instance notes what it has handled, for its next incarnation under this program."""
        return Path(self._folder, f"{file_name(name)}.positions")

    # -- leading, or being a guest

    def _will(self, open_link: OpenLink) -> Will:
        """A leader's death takes its session off the broker's directory; a guest's death takes it off the list of
        members."""
        topic = self.topics.session_info if self._found is None else self.topics.state(self._program)
        return Will(topic, b"")

    def _appear(self, link: Link) -> None:
        if self._found is None:
            self._lead(link)
        else:
            appear_as_guest(link, self.topics, self._program, self.since)

    def _lead(self, link: Link) -> None:
        assert self._endpoint is not None
        self._offline = OfflineNotes(self.session)
        given, named = self.config.broker, self.config.session is not None
        broker = {"engine": "external"} if self._broker is None else self._broker.entry
        entry = entry_of(self.topics.session, self._program, self.since, self._endpoint, broker, named=named)
        self._own_group()  # its guard removes the folder, whatever becomes of this program
        url = given.url if isinstance(given, config_broker.ExternalBroker) else self.broker_url or ""
        entry |= {"run": self._recording.run} | self._simulation.entry
        self._leadership = Leadership(link, self.topics, entry, self.began, self._step_back)
        self._leadership.begin(self._folder, url)
        if self._broker is not None:
            self._broker.announce(self.topics.session, os.environ)

    def _step_back(self, entry: Mapping[str, Any]) -> None:
        """Another program has led the session for longer: from now on this one is a guest, under another name. On a
        thread of `Leadership`."""
        self._program = program_name()
        self._recording.join(entry)
        appear_as_guest(self.session.link, self.topics, self._program, self.since)
        self._supervisor.rename_program(self._program)
        if self._control_server is not None:
            self._control_server.program = self._program
        if RECORDER in self._supervisor.names:
            self.remove_all([RECORDER], None)

    def _clear_announcements(self, link: Link) -> None:
        """A broker of our own forgets everything when it ends; with any other one nothing of ours must stay."""
        if self._broker is None and link.transport.connected:
            own = self.topics.state(self._program) if self.joined else self.topics.session_info
            clear(link, [*self.retained_of(self._supervisor.held), own], _LEAVE_TIMEOUT_S)

    def retained_of(self, names: Sequence[str]) -> list[str]:
        """The topics on which messages of these instances are retained. A recorder that was killed could not take its
        description back."""
        recorders = [name for name in names if is_recorder(name, self._supervisor.config(name))]
        return [*map(self.topics.state, names), *map(self.topics.recorder, recorders)]

    # -- objects of this process

    def host(self, obj: object, name: str, *, takeover: bool = False) -> None:
        """Make an object of this process an instance of the session; raises `NameTaken`."""
        check_instance_name(name)
        self._takeover = takeover
        held = self.take_name(name, Deadline(STEP_TIMEOUT_S))
        options = registry_options(self.config)
        make_writer = self._recording.record_writer_of
        self._local_instances.add(self.session, self._open_further_link, name, obj, options, held, make_writer)

    def _open_further_link(self, source: str, will: Will | None) -> Link:
        assert self._open_link is not None
        link = self._open_link(source, will)
        link.take_on(self.session.link.traits)
        return link

    def unhost(self, name: str) -> None:
        """The object leaves the session; nothing where no object is hosted under this name."""
        self._local_instances.remove(self.session, name)

    # -- one instance, while everything runs

    def add(self, name: str, instance: EtherInstanceConfig, timeout_s: float) -> None:
        """Start an instance that was not there. Raises `NameTaken` and `StartFailed`."""
        instance = self._simulation.on_this_machine(instance)
        self._simulation.check(name, instance)
        if instance.host is not None:
            self._remote_instances.add(name, instance)
            self._remote_instances.start(name, timeout_s)
            return
        deadline = Deadline(timeout_s)
        held = self.take_name(name, deadline)
        self._positions(name).unlink(missing_ok=True)  # it begins anew: nothing that was sent before is for it
        self._supervisor.prepare(name, instance)
        self._supervisor.take_name(name, held)
        if reasons := self._supervisor.start_and_wait([name], deadline):
            self._supervisor.discard(name)
            raise StartFailed(self.topics.session, reasons)

    def remove(self, name: str) -> dict[str, str]:
        """Stop one instance in order; returns what went wrong. Raises `KeyError` where this program does not run it."""
        if name not in [*self._supervisor.names, *self._remote_instances.names]:
            raise KeyError(f"this program runs no instance {name!r}")
        return self.remove_all([name], None)

    def remove_all(self, names: Sequence[str], steps: Sequence[str] | None) -> dict[str, str]:
        """Stop the named instances that this program runs. `steps` are the steps of the end that are still to be taken,
        None for all. Returns what went wrong."""
        local = [name for name in names if name in self._supervisor.names]
        remote = [name for name in names if name in self._remote_instances.names]
        for name in local:
            self._supervisor.expect_end(name)
        problems = self._end().of([*local, *remote], STEPS if steps is None else steps)
        retained = self.retained_of(local)
        for name in local:
            self._supervisor.forget(name)
        if self.session.link.transport.connected:
            self.session.link.withdraw_all(retained)
        return problems

    def restart(self, name: str, timeout_s: float) -> None:
        """Stop one instance in order and start it again; calls to it wait meanwhile. Raises `StartFailed`."""
        if name in self._remote_instances.names:
            self._remote_instances.restart(name, timeout_s)
            return
        instance = self._supervisor.config(name)
        self._supervisor.expect_end(name)
        self._end(returns=True).of([name])
        self._supervisor.forget(name)
        deadline = Deadline(timeout_s)
        self._supervisor.prepare(name, instance)
        if reasons := self._supervisor.start_and_wait([name], deadline):
            raise StartFailed(self.topics.session, reasons)

    # -- asked by other programs (`ProgramControl`), beside `remove`, `remove_all` and `restart`

    def on_shutdown_asked(self, callback: Callable[[], object]) -> None:
        """Call `callback` when another program asks for the end of this one."""
        assert self._control_server is not None
        self._control_server.on_shutdown = callback

    def start_described(self, name: str, timeout_s: float) -> None:
        """Start an instance that the configuration describes, autorun or not. Raises `KeyError` where it describes
        none of this name, and as `add`."""
        instance = self.config.named_instances().get(name)
        if instance is None:
            raise KeyError(f"the configuration of {self._program} describes no instance {name!r}")
        self.add(name, instance, timeout_s)

    def run(self, name: str, asked: Mapping[str, Any], by: str) -> str:
        """Only an agent runs what is described over the network; raises `KeyError`."""
        raise KeyError(f"{self._program} is no agent: it runs only what its own configuration describes")

    def record(self) -> None:
        """Something is to be saved, and whoever asks knows of no recorder: start one, where this program leads and has
        none. Twice is fine. One that runs announces itself again, because the asking process may have missed it."""
        if self.joined:
            return
        if RECORDER not in self._supervisor.names:
            self._recording.adopt()
            self.add(RECORDER, self._recording.recorder(), STEP_TIMEOUT_S)
        else:
            self.session.call_roll([RECORDER])

    def refuse_requests(self) -> None:
        """Carry out no more requests of other programs; returns when the last one is done. Twice is fine."""
        if self._control_server is not None:
            self._control_server.close()

    # -- stopping

    def lifecycle(self, verb: str) -> dict[str, list[str]]:
        """Ask all ready instances to `save_all` or `cleanup`; returns which methods ran, by instance. The request goes
        before data, so the broker must first have what this program has published. Raises `LifecycleFailed`."""
        try:
            self.session.link.flush(STEP_TIMEOUT_S)
        except PublishTimeout:
            waiting = f"{self.session.link.transport.unsettled:,} messages still wait for the broker"
            raise LifecycleFailed(verb, {self._program: waiting}) from None
        barrier = self.session.ask(verb, sorted(self.session.ready()), STEP_TIMEOUT_S)
        if reasons := barrier.reasons(STEP_TIMEOUT_S):
            raise LifecycleFailed(verb, reasons)
        return {name: list(answer.ran) for name, answer in sorted(barrier.answers.items())}

    def stop(self) -> dict[str, str]:
        """Stop everything of this program in order. Returns what went wrong, by instance; empty when nothing did. Never
        raises for what an instance does."""
        if self._leadership is not None:
            self._leadership.close()
        supervisor = self._supervisor
        supervisor.no_more_starts()
        names = [*supervisor.names, *self._local_instances, *self._remote_instances.names]
        recorders = [name for name in supervisor.names if is_recorder(name, supervisor.config(name))]
        try:
            problems = self._end().of([name for name in names if name not in recorders])
            self._recording.close()
            problems |= self._end().of(recorders)  # last: until now others had something to record
            if dropped := self.session.link.finish(STEP_TIMEOUT_S):
                problems[self._program] = f"{dropped:,} messages were dropped: the broker did not take them in time"
            return problems
        finally:
            self.abandon()

    def stop_without_broker(self) -> None:
        """Stop the instances where the broker is gone: SIGTERM tells each of them. Then as `abandon`."""
        supervisor = self._supervisor
        supervisor.no_more_starts()
        for name in supervisor.alive:
            supervisor.child(name).terminate()
        for name in supervisor.end(supervisor.names, STEP_TIMEOUT_S):
            logger.error("instance %s did not end and was killed", name)
        self.abandon()

    def _end(self, *, returns: bool = False) -> OrderlyEnd:
        return OrderlyEnd(
            self.session, self._supervisor, self._remote_instances, self._local_instances, STEP_TIMEOUT_S, returns
        )

    def abandon(self) -> None:
        """End what is left, at once, and leave the session. Twice is fine."""
        self._supervisor.no_more_starts()
        self._supervisor.end(self._supervisor.names, 0)
        for name in self._local_instances:
            self.unhost(name)
        self._recording.close(0.0)
        for part in (
            self._leadership, self._control_server, self._offline, self._last_known, self._session, self._log,
        ):  # fmt: skip
            if part is not None:
                part.close()
        if self._link is not None:
            self._policies.clear(self._link)
            self._link.close()
        if self._broker is not None:
            self._broker.stop(_LEAVE_TIMEOUT_S)
        self._simulation.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._group is not None:
            self._group.close()
