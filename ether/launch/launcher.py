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
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ether.config import EtherConfig, EtherInstanceConfig
from ether.config import broker as config_broker
from ether.config.problems import nearest_of
from ether.connection.assembly import open_link
from ether.connection.deadline import Deadline
from ether.connection.link import Link
from ether.errors import EtherError, LifecycleFailed, NameTaken, NotReloaded, PublishTimeout, StartFailed
from ether.instance.local_instances import LocalInstances, OpenLink
from ether.instance.registry import registry_options
from ether.launch.broker import RETURNS_S, BrokerProcess, Rules
from ether.launch.child_ends import shown
from ether.launch.child_settings import Incarnation, InstanceSettings, SessionSettings, settings_of
from ether.launch.control_server import ControlServer, ProgramControl
from ether.launch.end_limits import EndLimits
from ether.launch.opening import LaunchOpening
from ether.launch.orderly_end import STEPS, OrderlyEnd
from ether.launch.program_log import ProgramLog
from ether.launch.recording_setup import LEADER, RECORDER, RecordingSetup, is_recorder
from ether.launch.reload.code_change import CodeChange, Displaced
from ether.launch.remote_instances import RemoteInstances
from ether.launch.simulated.lab import Simulation
from ether.launch.start_reasons import check_sources, placed
from ether.launch.supervisor import Supervisor
from ether.launch.template.ground import Ground
from ether.log import get_ether_logger
from ether.protocol.presence import BEHIND_BRIDGE, Announcement
from ether.runs.plan.device_rights import device_table, guest_rights, source_topics
from ether.security.rights import DeviceRights, rights_of_guest, rules_of
from ether.session.client import Client
from ether.session.discovery.directory import entry_of
from ether.session.discovery.elsewhere import SearchElsewhere
from ether.session.joining import connected
from ether.session.leadership import Leadership, appear_as_guest, clear
from ether.session.members import Event
from ether.session.name_claim import program_name, take_name
from ether.session.offline import LastKnownFile, OfflineNotes
from ether.session.renewal import DeviceRenewal, RenewalDesk
from ether.session.rights import check_that_it_comes_back
from ether.session.session import Opening, Session
from ether.spec.methods import class_path_of
from ether.system import processes
from ether.system.clock import uptime, wall_time
from ether.system.folders import file_name
from ether.system.process_owner import process_facts
from ether.transport.base import Will
from ether.transport.endpoint import OVER_TLS, Endpoint
from ether.wire.topics import SessionTopics, check_instance_name

if TYPE_CHECKING:
    from ether.session.discovery.search import FoundSession

logger = get_ether_logger("Ether")

STEP_TIMEOUT_S = 10.0
"""For the broker to take what was published, and for others to answer. (`EtherConfig.end` is for the end's steps.)"""

_LEAVE_TIMEOUT_S = 2.0
_UNBUILT_S = 2.0
"""For the end of an instance that is not built: its constructor may hold a device."""
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


def _like(name: str, names: Sequence[str]) -> str:
    """The nearest of some names, else all of them, as the end of an error."""
    near = nearest_of(name, names)
    return f" Did you mean {near!r}?" if near else f" There are: {', '.join(names) or 'none'}."


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
        elsewhere: SearchElsewhere | None = None,
        ground: Ground | None = None,
    ) -> None:
        """`found` is the running session to join, None to start one; then `elsewhere` may still find one on another
        machine. `takeover`: living holders of the same names have to give them up. `sim`: the devices are simulated.
        `ground`: what was begun before. Raises `ConfigError`."""
        self.config = config
        self.topics = SessionTopics(session)
        self.since, self.began = wall_time(), uptime()
        self._found, self._elsewhere = found, elsewhere
        self.configuration = ""
        """The digest of the configuration, for the session's record: by that one is known that is started twice."""
        self._takeover = takeover
        self._policies = policies or self._own_policies()
        self._program = self._policies.program
        self._ground = ground or Ground(config.preload)
        self._folder = self._ground.folder
        self._broker: BrokerProcess | None = None
        self._renewal_desk: RenewalDesk | None = None
        self._supervisor = Supervisor(self._ground.group, self._ground.template)
        self._remote_instances = RemoteInstances(config)
        self._local_instances = LocalInstances()
        self._endpoint: Endpoint | None = None
        self._limit: int | None = None
        self._open_link: OpenLink | None = None
        self._link: Link | None = None
        self._session: Session | None = None
        self._client: Client | None = None
        self._control_server: ControlServer | None = None
        self._offline: OfflineNotes | None = None
        self._last_known: LastKnownFile | None = None
        self._leadership: Leadership | None = None
        self._together: LaunchOpening | None = None
        """While the instances of the configuration start together."""
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
    def found(self) -> FoundSession | None:
        """The running session that this program has joined when it started; None where it has started one."""
        return self._found

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
            check_sources(self.config, self.topics.session)  # while the broker starts, and nothing of the user's runs
            client = self._connect(deadline, watch)
            if self._elsewhere is not None and (found := self._elsewhere.found(deadline)) is not None:
                client = self._join_instead(found, deadline, watch)
            self._enter(client, deadline)
            if self._found is not None:
                self._settle_guest_configuration(deadline)
            self._start_instances(deadline)
        except BaseException:
            self._remote_instances.undo(self._remote_instances.names)
            self.abandon()
            raise
        return client

    def _start_processes(self) -> None:
        """Start what takes longest, side by side: the broker, the simulated lab, the interpreters of the instances."""
        if self._found is None and isinstance(self.config.broker, config_broker.EmbeddedBroker):
            self._broker = BrokerProcess(
                self.config.broker, self._ground.group(), self._folder, self._rules(self.config.broker)
            )
        if self._simulation.wanted:
            self._simulation.begin(self._ground.group(), self._folder)
        for name, instance in self._recording.instances(leads=self._found is None).items():
            if instance.autorun:
                (self._supervisor.prepare if instance.host is None else self._remote_instances.add)(name, instance)

    def _connect(self, deadline: Deadline, watch: Event | None) -> Client:
        """Connect to the broker as soon as it is ready; returns when the members of the session are known."""
        endpoint, self._limit = self._broker_address(deadline)
        self._endpoint = endpoint
        self._open_link = partial(open_link, endpoint, self._limit, STEP_TIMEOUT_S, self.topics)
        connect = partial(self._open_link, self._program, self._policies.will(self._open_link))
        link = self._link = self._linked(connect, deadline)
        client = self._client = Client(link, self.topics)
        session = self._session = client.session
        if watch is not None:
            session.watch(watch)
        session.open(deadline.left(), self._opening())
        self._log = ProgramLog(session, self._program, leads=self._found is None)
        return client

    def _join_instead(self, found: FoundSession, deadline: Deadline, watch: Event | None) -> Client:
        """The name is another machine's: give up the broker that was started for it, and join that session. Nothing of
        this program was announced yet, and the processes of its instances still wait for their settings."""
        logger.info("Joining Ether session: %s on %s (%s)...", found.name, found.host, found.how)
        self._found = found
        self._policies = self._own_policies()
        self._program = self._policies.program
        self._close_connection()
        kept = self._recording.instances(leads=False)
        for name in [name for name in self._supervisor.names if name not in kept]:
            self._supervisor.discard(name)
        return self._connect(deadline, watch)

    def _close_connection(self) -> None:
        """Leave the broker, and end it where it is this program's own. Twice is fine."""
        if self._renewal_desk is not None:
            self._renewal_desk.close()
            self._renewal_desk = None
        for part in (self._session, self._log):
            if part is not None:
                part.close()
        if self._link is not None:
            self._link.close()
        if self._broker is not None:
            self._broker.stop(_LEAVE_TIMEOUT_S)
            self._broker = None

    def _linked(self, connect: Callable[[], Link], deadline: Deadline) -> Link:
        """The result of `connect`, also where the session's broker is just being started again."""
        if self._broker is not None:
            return self._broker.connected(connect, deadline)
        if self._found is None:
            return connect()
        return connected(self._found, connect, Deadline(min(deadline.left(), RETURNS_S)))

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
        self._renew_certificates(link)
        self._control_server = ControlServer(link, self.topics, self._program, self._policies.control)
        if self._leadership is not None:
            self._leadership.defend()

    def _renew_certificates(self, link: Link) -> None:
        """Renew the certificates of other machines, or this machine's own one."""
        if self._broker is not None and (lab := self._broker.renews) is not None:
            self._renewal_desk = RenewalDesk(link, self.topics, lab)
        elif self._endpoint is not None and self._endpoint.kind in OVER_TLS and self._endpoint.username is None:
            self._own_renewal = DeviceRenewal(link, self.topics, os.environ)

    def _settle_guest_configuration(self, deadline: Deadline) -> None:
        """What the configuration of a program that joins asks of its session is done, refused, or said aloud."""
        assert self._found is not None
        broker = self.config.broker
        if isinstance(broker, config_broker.EmbeddedBroker) and broker != config_broker.EmbeddedBroker():
            logger.warning(
                "broker: is not used: session %s runs already, led from %s, on the broker at %s",
                self._found.name, self._found.host, self._found.address,
            )  # fmt: skip
        holds = self.session.info(deadline.left()).get("rights")
        if (asked := self._rights_entry.get("rights")) and asked != holds:
            logger.warning(
                "security: %s is not used: what guests of session %s may do is said by the program that leads it, from"
                " %s: %s", asked, self._found.name, self._found.host, holds or "everything, for it has no security:",
            )  # fmt: skip
        if (recorder := self._recording.own_recorder()) is not None:
            name, instance = recorder
            self.add(name, instance, deadline.left())
            self._recording.await_recorder(name, deadline.left())

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
        remote, supervisor = self._remote_instances, self._supervisor
        everybody = [*supervisor.names, *remote.names]
        opening = LaunchOpening(supervisor.names, everybody, self.config.begin_within_s, supervisor)
        self._together, reasons = opening, {"": "cut off"}
        opening.begin(self.session)
        try:
            starts = remote.starts(remote.names, deadline.left())
            reasons = supervisor.start_and_wait(supervisor.names, deadline, starts, remote.failed)
            reasons |= remote.refused(remote.names)
        finally:
            self._together = None
            opening.end(ready=not reasons)
        if reasons:
            raise StartFailed(self.topics.session, placed(reasons, self.config))
        self._check_topics(everybody)
        if self._client is not None:
            self._client.topic_check.follow(self._runs, self.session.calls.later.after)

    def _runs(self, name: str) -> bool:
        return name in self._supervisor.names or name in self._remote_instances.names

    def _check_topics(self, names: Sequence[str]) -> None:
        """Say which topics of these instances, which are ready, are probably misspelt."""
        if names and self._client is not None:
            self._client.topic_check.session(names)

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
        opening = self._together
        together, waits = ([], False) if opening is None else opening.take(name)
        began = 0.0 if opening is None else opening.began
        started = Incarnation(
            name, incarnation, epoch, announced, connect_timeout_s, str(self._positions(name)), together, began, waits
        )
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
        self._ground.group()  # its guard removes the folder, whatever becomes of this program
        url = given.url if isinstance(given, config_broker.ExternalBroker) else self.broker_url or ""
        entry |= {"run": self._recording.run} | self._simulation.entry | self._rights_entry
        self._leadership = Leadership(link, self.topics, entry, self.began, self._step_back)
        self._leadership.begin(self._folder, url, self.configuration)
        if self._broker is not None:
            self._broker.announce(self.topics.session, os.environ)

    def _rules(self, broker: config_broker.EmbeddedBroker) -> Rules | None:
        """What each device may do at this session's own broker; None where other machines may do everything. Where
        devices have no identities of their own, the broker cannot tell them apart, and only their own code keeps to
        their rights."""
        config, session = self.config, self.topics.session
        if not broker.encrypted or (config.security is None and broker.password_port is None):
            return None
        table = device_table(config, session, source_topics(config))
        for name in table.missing:
            logger.warning(
                "%s: its class is not here; its device may publish and hear what `publishes` and `hears` say", name
            )
        taken = {*config.named_instances(), self._program, RECORDER}

        def rights_of(name: str, *, by_password: bool) -> DeviceRights:
            if name in taken:
                return rights_of_guest(session, name, "none")
            if config.security is None and not by_password:
                return rights_of_guest(session, name, "all")
            known = None if by_password else table.rights.get(name)
            return known or guest_rights(config, session, name, by_password=by_password)

        def rules(devices: Sequence[str], passwords: Collection[str]) -> dict[str, dict[str, list[str]]]:
            for name in taken.intersection(devices):
                logger.error(
                    "the device %s has the name of an instance of this machine, and may do nothing: pair it under"
                    " another one (ether revoke %s, ether pair …)", name, name,
                )  # fmt: skip
            names = dict.fromkeys((*devices, *(() if config.security is None else table.rights)))
            return rules_of({name: rights_of(name, by_password=name in passwords) for name in names})

        return rules

    @property
    def _rights_entry(self) -> dict[str, str]:
        """What the session's entry says of other machines' rights; empty where they have all."""
        security = self.config.security
        return {} if security is None else {"rights": f"guests: {security.guests}"}

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
        """Make an object of this process an instance of the session; raises `NameTaken`. Another object of the same
        class that this process hosts under this name is replaced (a cell that is run again), the same one stays."""
        check_instance_name(name)
        if (hosted := self._local_instances.object_of(name)) is not None:
            if hosted is obj:
                return
            if not takeover and class_path_of(type(hosted)) != class_path_of(type(obj)):
                advice = f"that is this program: ether.unhost({name!r}) takes it out, takeover=True replaces it"
                facts = process_facts()
                raise NameTaken("instance", name, host=str(facts["host"]), pid=os.getpid(), advice=advice)
            self.unhost(name)
        before, self._takeover = self._takeover, takeover
        try:
            held = self.take_name(name, Deadline(STEP_TIMEOUT_S))
        finally:
            self._takeover = before
        options = registry_options(self.config)
        make_writer = self._recording.record_writer_of
        self._local_instances.add(self.session, self._open_further_link, name, obj, options, held, make_writer)
        self._check_topics([name])

    def _open_further_link(self, source: str, will: Will | None) -> Link:
        assert self._open_link is not None
        link = self._linked(partial(self._open_link, source, will), Deadline(STEP_TIMEOUT_S))
        link.take_on(self.session.link.traits)
        return link

    def unhost(self, name: str) -> None:
        """The object leaves the session; a warning where no object is hosted under this name."""
        if name not in self._local_instances:
            logger.warning("ether.unhost(): this program hosts no object as %r.%s", name, _like(name, self._hosted))
        self._local_instances.remove(self.session, name)

    @property
    def _hosted(self) -> list[str]:
        return list(self._local_instances)

    def _not_run_here(self, name: str) -> KeyError:
        """The error for a name that is none of this program's instances."""
        mine = [*self._supervisor.names, *self._remote_instances.names]
        if name in self._hosted:
            return KeyError(f"{name!r} is an object that this program hosts: ether.unhost({name!r}) takes it out")
        return KeyError(f"this program runs no instance {name!r}.{_like(name, mine)}")

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
            raise StartFailed(self.topics.session, reasons, instance=True)
        self._check_topics([name])

    def remove(self, name: str) -> dict[str, str]:
        """Stop one instance in order; returns what went wrong. Raises `KeyError` where this program does not run it."""
        if name not in [*self._supervisor.names, *self._remote_instances.names]:
            raise self._not_run_here(name)
        return self.remove_all([name], None)

    def remove_all(
        self, names: Sequence[str], steps: Sequence[str] | None, limits: EndLimits | None = None
    ) -> dict[str, str]:
        """Stop the named instances that this program runs. `steps` are the steps of the end that are still to be taken,
        None for all; `limits` None: those of the configuration. Returns what went wrong."""
        local = [name for name in names if name in self._supervisor.names]
        remote = [name for name in names if name in self._remote_instances.names]
        for name in local:
            self._supervisor.expect_end(name)
        problems = self._end(limits=limits).of([*local, *remote], STEPS if steps is None else steps)
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
        if name not in self._supervisor.names:
            raise self._not_run_here(name)
        supervisor, deadline = self._supervisor, Deadline(timeout_s)
        instance, serves = supervisor.config(name), supervisor.was_ready(name)
        supervisor.expect_end(name)
        if serves:
            self._end(returns=True).of([name])
        else:  # its last start failed, or is not over: there is no work in flight, and nobody who would answer
            supervisor.end([name], _UNBUILT_S)
        supervisor.forget(name)
        supervisor.prepare(name, instance)
        supervisor.take_name(name, supervisor.next_incarnation(name))  # no word of the one before counts from now on
        if reasons := supervisor.start_and_wait([name], deadline):
            raise StartFailed(self.topics.session, reasons, instance=True)
        self._check_topics([name])

    def reload(self, name: str, timeout_s: float) -> None:
        """Give one instance the code that is in its files now: its successor is ready before it lets go. Raises
        `NotReloaded`, and the instance goes on then. One that does not run is started."""
        if name in self._remote_instances.names:
            host = self.config.named_instances()[name].host
            raise NotReloaded(name, f"it runs on {host}, with the code that is there: `ether restart {name}`")
        if name not in self._supervisor.names:
            raise self._not_run_here(name)
        if name not in self._supervisor.alive or not self._supervisor.was_ready(name):
            self.restart(name, timeout_s)
            return
        change = CodeChange(self.session, self._supervisor, name, str(self._positions(name)), Deadline(timeout_s))
        try:
            change.make(lambda: self._end(returns=True).of([name]))
        except Displaced as crash:
            logger.error("%s\nIt is started again.", crash)
            self.restart(name, timeout_s)
        self._check_topics([name])

    # -- asked by other programs (`ProgramControl`), beside `remove`, `remove_all` and `restart`

    def on_shutdown_asked(self, callback: Callable[[], object]) -> None:
        """Call `callback` when another program asks for the end of this one."""
        assert self._control_server is not None
        self._control_server.on_shutdown = callback

    def hear_alone(self) -> None:
        """Take also requests that nobody else may hear, as an agent does."""
        assert self._control_server is not None
        self._control_server.hear_alone()

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
        supervisor = self._supervisor
        if recorders := [name for name in supervisor.names if is_recorder(name, supervisor.config(name))]:
            self.session.call_roll(recorders)
        else:
            self._recording.adopt()
            self.add(RECORDER, self._recording.recorder(), STEP_TIMEOUT_S)

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
        save_s = self.config.end.save_s
        barrier = self.session.ask(verb, sorted(self.session.ready()), save_s)
        if reasons := barrier.reasons(save_s):
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
            for source, left in self._bring_home().items():
                problems[source] = "; ".join(filter(None, (problems.get(source), left)))
            recorders = [name for name in supervisor.names if is_recorder(name, supervisor.config(name))]
            self._recording.close()
            problems |= self._end().of(recorders)  # last: until now others had something to record
            if dropped := self.session.link.finish(STEP_TIMEOUT_S):
                problems[self._program] = f"{dropped:,} messages were dropped: the broker did not take them in time"
            return problems
        finally:
            self.abandon()

    def _bring_home(self) -> dict[str, str]:
        """Bring to disk what was saved, also where nothing has recorded so far: the first value may have come just
        before the end. Returns what could not be brought there, by source."""
        recording = self._recording
        if not recording.has_unsaved():
            return {}
        if not recording.has_recorder and self.session.link.transport.connected:
            try:
                self.record()
            except EtherError as error:
                logger.error("no recorder could be started at the end: %s", error)
        began = time.monotonic()
        with shown(lambda: [f"bringing to disk what was saved goes on ({time.monotonic() - began:.0f} s)"]):
            left = recording.bring_home()
        for source, why in left.items():
            logger.error("%s: %s", source, why)
        return left

    def stop_without_broker(self) -> None:
        """Stop the instances where the broker is gone: SIGTERM tells each of them. Then as `abandon`."""
        supervisor = self._supervisor
        supervisor.no_more_starts()
        for name in supervisor.alive:
            supervisor.child(name).terminate()
        for name in supervisor.end(supervisor.names, self.config.end.work_s, self.config.end.save_s):
            logger.error("instance %s did not end and was killed", name)
        self.abandon()

    def _end(self, *, returns: bool = False, limits: EndLimits | None = None) -> OrderlyEnd:
        return OrderlyEnd(
            self.session,
            self._supervisor,
            self._remote_instances,
            self._local_instances,
            limits or EndLimits(self.config.end.work_s, self.config.end.save_s),
            returns,
        )

    def abandon(self) -> None:
        """End what is left, at once, and leave the session. Twice is fine."""
        if self._elsewhere is not None:
            self._elsewhere.close()
        self._supervisor.no_more_starts()
        self._supervisor.end(self._supervisor.names, 0)
        for name in self._local_instances:
            self.unhost(name)
        self._recording.close(0.0)
        for part in (
            self._renewal_desk, self._leadership, self._control_server, self._offline, self._last_known, self._session,
            self._log,
        ):  # fmt: skip
            if part is not None:
                part.close()
        if self._link is not None:
            self._policies.clear(self._link)
            self._link.close()
        if self._broker is not None:
            self._broker.stop(_LEAVE_TIMEOUT_S)
        self._simulation.close()
        self._ground.close()
