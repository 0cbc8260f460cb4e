"""An agent's part in one session, from joining it to leaving it.

The agent is a program that joins under a name of its own, and whose control server takes the request `run`: what it is
asked to run is checked against the roots, written down, started, and supervised as any other instance is. It has a
launcher for all that every program does, and gives it the policies in which an agent differs.

Promises: nothing is started that the roots do not cover, whoever asks and whatever the file says. What was written down
is started again by `tend()`, in the order of `after:` among this agent's own instances, and as often as it takes: a
camera may be plugged in later. The trap: `after:` may name an instance of another machine, which may be switched off.
The program that asks has waited for that instance before it asks; the agent, after a reboot, does not wait for it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ether.agents.allowed import NO_ROOTS, Roots
from ether.agents.registry_rules import named_objects, permitted_registry
from ether.agents.wanted_file import AgentFile, Wanted
from ether.config import EtherConfig, EtherInstanceConfig
from ether.connection.assembly import death_notice
from ether.connection.deadline import Deadline
from ether.connection.link import Inbound, Link
from ether.errors import EtherError, NameTaken
from ether.instance.local_instances import OpenLink
from ether.instance.registry import registry_options
from ether.launch.child_settings import InstanceSettings
from ether.launch.end_limits import EndLimits
from ether.launch.launcher import STEP_TIMEOUT_S, Launch, Policies
from ether.log import get_ether_logger
from ether.protocol.clock_offset import OffsetEstimator
from ether.protocol.presence import BEHIND_BRIDGE, Announcement, State, is_notice
from ether.security.rights import agent_sign
from ether.session.discovery.search import FoundSession
from ether.session.fencing import NameClaim, NameHold
from ether.session.name_claim import take_name, taken
from ether.session.own_rights import KEYS as RIGHTS
from ether.session.session import KEEP, Session
from ether.system.backoff import Backoff
from ether.system.clock import uptime, wall_time
from ether.system.health import read_health
from ether.system.process_owner import process_facts
from ether.system.processes import birth_of
from ether.transport.base import Will
from ether.version import VERSION

logger = get_ether_logger("Ether")

KIND = "agent"

CONNECT_S = 30.0
FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 60.0
"""Between two attempts to start an instance that was written down."""

ORPHANS_END_S = 1.5
"""By then the instances of a killed predecessor of this agent have ended, and have let go of their devices."""

CLOCK_TIMEOUT_S = 1.0


class AgentSession:
    """Made by `start()`, ended by `leave()` or `flee()`.

    Threads: requests are carried out on the control server's thread; `tend()`, `tell_health()` and `leave()` are called
    on the agent's. `_changing` is held by each of them while it starts or stops instances.
    """

    def __init__(self, name: str, found: FoundSession, roots: Roots, file: AgentFile, marks: Roots = NO_ROOTS) -> None:
        """`roots` cover the classes that may run here, `marks` those that a registry from elsewhere may mark. `file`
        says what is wanted; where that belongs to another session, the caller has set it aside."""
        policies = Policies(
            program=name,
            control=self,
            will=self._will,
            appear=self._appear,
            clear=self._clear_announcements,
            yields=self._yields,
            settings=self._settings,
        )
        self._launch = Launch(EtherConfig(), found.name, found, policies=policies)
        self._supervisor = self._launch.supervisor
        self.topics = self._launch.topics
        self.name = name
        self.url = found.url
        self._roots, self._marks = roots, marks
        self._file = file
        self._wanted = dict(file.instances)
        self._restored = set(self._wanted)
        """Those that were read from the file and have not been asked for again."""
        self._attempts: dict[str, tuple[float, Backoff]] = {}
        """When each may be tried again (monotonic clock), and the pauses after that."""
        self._logged_errors: dict[str, str] = {}
        self._changing = threading.RLock()
        self._began = time.monotonic()
        self._incarnation, self._epoch = "", 0
        self._name_claim: NameClaim | None = None
        self._fenced = False
        self._leader: Mapping[str, Any] = {}
        self._named = True
        self._clock = OffsetEstimator()

    # -- how it stands

    @property
    def _session(self) -> Session:
        return self._launch.session

    @property
    def connected(self) -> bool:
        """Whether the connection to the broker stands."""
        return self._session.link.transport.connected

    @property
    def idle(self) -> bool:
        """Whether no instance is wanted of this agent."""
        return not self._wanted

    @property
    def led(self) -> bool:
        """Whether a program leads the session."""
        return bool(self._leader)

    @property
    def named(self) -> bool:
        """Whether the session can be found again by its name after its end."""
        return self._named

    def check_name(self) -> None:
        """Raises `NameTaken` where another agent has taken this one's name."""
        if self._fenced:
            holder = self._session.announcement(self.name)
            raise taken(holder) if holder is not None else NameTaken(KIND, self.name)

    # -- joining

    def start(self, timeout_s: float) -> None:
        """Join the session, and announce the agent as ready. Raises `NameTaken` and `EtherError`."""
        deadline = Deadline(timeout_s)
        self._launch.start(timeout_s)
        self._session.commands_as, self._session.is_limited = agent_sign(self.name), True
        try:
            self._announce_ready(deadline)
        except BaseException:
            self._launch.abandon()
            raise

    def _will(self, open_link: OpenLink) -> Will:
        """The policy `will`. Claims the agent's name first, over a connection of its own: the will holds incarnation
        and epoch, and a will can be given only when a connection is made."""
        self._incarnation, self._epoch = self._claim_name(open_link)
        dead = Announcement(self.name, State.LOST, self._incarnation, "offline", self._about())
        return death_notice(self.topics, dead)

    def _claim_name(self, open_link: OpenLink) -> tuple[str, int]:
        link = open_link(self.name, None)
        session = Session(link, self.topics)
        deadline = Deadline(STEP_TIMEOUT_S)
        try:
            session.open(deadline.left())
            incarnation, epoch = take_name(session, self.name, deadline, kind=KIND)
            starting = Announcement(self.name, State.STARTING, incarnation, about={**self._about(), "epoch": epoch})
            link.announce(self.topics.state(self.name), starting.to_value())
            link.flush(deadline.left())
            return incarnation, epoch
        finally:
            session.calls.close()
            link.close()

    def _about(self) -> dict[str, Any]:
        return {
            "kind": KIND,
            **process_facts(),
            "pid_started": birth_of(os.getpid()),
            "since": self._launch.since,
            "held_s": round(uptime() - self._launch.began, 3),
            "version": VERSION,
            "epoch": self._epoch,
        }

    def _appear(self, link: Link) -> None:
        """The policy `appear`. Nothing yet: a program that sees a ready agent sends requests, and the control server
        does not listen yet. `start()` announces the agent when it does."""

    def _announce_ready(self, deadline: Deadline) -> None:
        link = self._session.link
        about = {**self._about(), "node": link.node, "health": self._health()}
        about |= BEHIND_BRIDGE if link.headers_twice else {}
        ready = Announcement(self.name, State.READY, self._incarnation, about=about)
        link.listen(self.topics.session_info, self._on_leader)
        self._launch.hear_alone()
        link.announce(self.topics.state(self.name), ready.to_value())
        hold = NameHold(self.name, self._incarnation, self._epoch, self._launch.since, self._launch.began)
        self._name_claim = NameClaim(link, self.topics, hold, self._on_fenced)
        self._session.catch_up(deadline.left(), among=self.name)

    def _on_fenced(self, why: str) -> None:
        """On the dispatch thread."""
        self._fenced = True

    def _on_leader(self, inbound: Inbound) -> None:
        """On the dispatch thread. The session's entry vanishes with the program that leads the session."""
        value = inbound.take()
        if is_notice(value):
            return
        before, self._leader = self._leader, value if isinstance(value, dict) else {}
        if self._leader:
            self._named = self._leader.get("named") is not False
        if self._leader != before:
            self._clock = OffsetEstimator()

    def _clear_announcements(self, link: Link) -> None:
        """The policy `clear`. Where another agent has taken this one's name, its announcement is left alone."""
        if not link.transport.connected:
            return
        try:
            link.withdraw_all(self._launch.retained_of(self._supervisor.names))
            if self._name_claim is not None and not self._fenced:
                self._name_claim.release()
                link.withdraw(self.topics.health(self.name))
                link.withdraw(self.topics.state(self.name))
        except EtherError as error:
            logger.warning("could not clear the announcements of agent %s: %s", self.name, error)

    # -- what other programs ask of it (`ProgramControl`)

    def run(self, name: str, asked: Mapping[str, Any], by: str) -> str:
        """Run the instance that the request describes: `runs` where it does already, else `started` or `replaced`.
        Raises `ClassNotAllowed`, `ConfigError`, `NameTaken`, `NotKept`."""
        wanted = Wanted.of(name, asked.get("instance"), asked.get("registry", {}), by, asked.get("secrets"))
        self._check(wanted)
        with self._changing:
            if self._wanted.get(name) == wanted and self._lives(name):
                logger.info("%s asks for %s, which runs", by, name)
                return "runs"
            was_there = name in self._supervisor.names
            if was_there:
                self._end_of([name], None)
            logger.info("%s asks for %s, a %s", by, name, wanted.config().class_path)
            self._note(name, wanted)
            try:
                self._start_one(name)
            except BaseException:
                self._forget([name])
                raise
            return "replaced" if was_there else "started"

    def remove(self, name: str) -> dict[str, str]:
        """Stop one instance in order, and want it no more. Raises `KeyError` where it is not wanted here."""
        self._check_wanted(name)
        return self.remove_all([name], None)

    def remove_all(
        self, names: Sequence[str], steps: Sequence[str] | None, limits: EndLimits | None = None
    ) -> dict[str, str]:
        """Stop the named instances that are wanted here, and want them no more; returns what went wrong."""
        with self._changing:
            mine = [name for name in names if name in self._wanted]
            self._forget(mine)  # first: what was asked to go must not come back after a power cut
            return self._end_of(mine, steps, limits)

    def restart(self, name: str, timeout_s: float) -> None:
        """Stop one instance in order and start it again. Raises `KeyError` where it is not wanted here."""
        self._check_wanted(name)
        with self._changing:
            if name in self._supervisor.names:
                self._launch.restart(name, timeout_s)
            else:
                self._start_one(name)

    def start_described(self, name: str, timeout_s: float) -> None:
        """Raises `KeyError`: an agent has no configuration, each request to it brings a description."""
        raise KeyError(f"the configuration of {self.name} describes no instance {name!r}")

    def record(self) -> None:
        """Nothing: the program that leads the session starts a recorder."""

    def _check_wanted(self, name: str) -> None:
        if name not in self._wanted:
            raise KeyError(f"agent {self.name} runs no instance {name!r}")

    def _end_of(
        self, names: Iterable[str], steps: Sequence[str] | None, limits: EndLimits | None = None
    ) -> dict[str, str]:
        return self._launch.remove_all([name for name in names if name in self._supervisor.names], steps, limits)

    def _note(self, name: str, wanted: Wanted) -> None:
        """Want an instance, on disk, too; except in a session without a name, which cannot be found again."""
        if self._named:
            self._file.place(self.topics.session, self.url)
            self._file.put(name, wanted)
        self._wanted[name] = wanted
        self._restored.discard(name)
        self._attempts.pop(name, None)

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            self._wanted.pop(name, None)
            self._file.drop(name)

    # -- starting an instance

    def _lives(self, name: str) -> bool:
        return name in self._supervisor.names and name not in self._supervisor.ended

    def _start_one(self, name: str) -> None:
        """Start a wanted instance; does not wait until it is ready. Its `after:` is cut down to instances of this
        agent: the others may be switched off (see the trap above)."""
        own = [other for other in self._wanted[name].config().after if other in self._wanted]
        config = self._wanted[name].config().model_copy(update={"after": tuple(own)})
        incarnation_and_epoch = self._launch.take_name(name, Deadline(STEP_TIMEOUT_S))
        self._supervisor.prepare(name, config)
        try:
            self._supervisor.take_name(name, incarnation_and_epoch)
            self._supervisor.start(name, CONNECT_S)
        except BaseException:
            self._supervisor.discard(name)
            raise

    def _yields(self, holder: Announcement) -> bool:
        """The policy `yields`. An instance that this agent's predecessor ran gives way: this agent holds the
        predecessor's name, so the predecessor is gone, and no other process has had the instance's name since."""
        return holder.about.get("machine") == self.name and not self._lives(holder.name)

    def _settings(self, settings: InstanceSettings, instance: EtherInstanceConfig) -> InstanceSettings:
        """The policy `settings`. The registry comes with the request, the import path has the allowed folders, and the
        agent's own program is no script of the instance's."""
        wanted = self._wanted[settings.name]
        places = [folder for folder in self._roots.folders if folder not in settings.import_path]
        return replace(
            settings,
            registry=registry_options(self._registry_of(wanted), instance),
            script=None,
            cells=None,
            rights=_rights_of(instance),
            import_path=[*settings.import_path, *places],
            announced={**settings.announced, "machine": self.name, "asked_by": wanted.by},
        )

    def _check(self, wanted: Wanted) -> None:
        """Return for what may run here, marked as it says. Raises `ClassNotAllowed`, `MarksNotAllowed`,
        `ConfigError`."""
        instance = wanted.config()
        self._roots.check(instance.class_path)
        registry = self._registry_of(wanted).registry
        for path in sorted(named_objects(instance, registry)):
            self._roots.check(path)

    def _registry_of(self, wanted: Wanted) -> EtherConfig:
        """The part of the request's registry that this machine's owner lets count."""
        config, instance = wanted.registry_config(), wanted.config()
        holds = permitted_registry(instance.class_path, config.registry, instance, self._marks.covers)
        return config.model_copy(update={"registry": {path: config.registry[path] for path in holds}})

    # -- tending

    def tend(self) -> None:
        """Start every wanted instance that does not run and is due. Nothing while a request is being carried out."""
        if not self._changing.acquire(blocking=False):
            return
        try:
            now = time.monotonic()
            for name in [name for name in self._wanted if self._is_due(name, now)]:
                self._attempt(name, now)
        finally:
            self._changing.release()

    def _is_due(self, name: str, now: float) -> bool:
        if self._lives(name) or (name in self._attempts and now < self._attempts[name][0]):
            return False
        # A killed predecessor's instance may still hold the name for a moment: let it end by itself.
        if self._session.holder(name) is not None and now - self._began < ORPHANS_END_S:
            return False
        # One whose start has failed is tried again only if it was read from the file and was never ready in this life
        # of the agent. One that was asked for just now has been reported as failed, and the asking program decides;
        # one that was ready has ended for good, by its restart policy.
        failed = name in self._supervisor.names
        again = name in self._restored and not self._supervisor.was_ready(name)
        after, ready = self._wanted[name].config().after, self._session.ready()
        return (again or not failed) and all(other in ready for other in after if other in self._wanted)

    def _attempt(self, name: str, now: float) -> None:
        backoff = self._attempts[name][1] if name in self._attempts else Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self._attempts[name] = (now + backoff.next_s(), backoff)
        if name in self._supervisor.names:
            self._supervisor.discard(name)
        try:
            self._check(self._wanted[name])
            self._start_one(name)
        except (EtherError, OSError) as error:
            if self._logged_errors.get(name) != str(error):
                logger.error("%s cannot be started again: %s\nIt is tried again and again.", name, error)
            self._logged_errors[name] = str(error)

    # -- health

    def tell_health(self) -> None:
        """Publish the health of this machine; nothing where the broker does not take it."""
        try:
            self._compare_clocks()
            health = self._health()
            self._session.link.publish(self.topics.health(self.name), health, qos=0, retain=True, timeout_s=0.5)
        except EtherError as error:
            logger.debug("could not tell how this machine is: %s", error)

    def _health(self) -> dict[str, Any]:
        return read_health(os.path.dirname(self._file.path), self._clock.offset()).to_value()

    def _compare_clocks(self) -> None:
        leader, clock = self._leader.get("program"), self._clock
        if not isinstance(leader, str):
            return
        asked = wall_time()
        barrier = self._session.ask(KEEP, [leader], CLOCK_TIMEOUT_S, {"do": "clock"})
        answered = wall_time()
        answer = barrier.answers.get(leader)
        theirs = answer.results.get("time") if answer is not None else None
        if isinstance(theirs, (int, float)):
            clock.note(asked, theirs, answered)

    # -- leaving

    def leave(self) -> dict[str, str]:
        """Stop all instances in order, and leave; what is wanted stays written down. Returns what went wrong."""
        self._launch.refuse_requests()
        with self._changing:
            return self._launch.stop()

    def flee(self) -> None:
        """Leave where the broker is gone: the instances are stopped by a signal."""
        self._launch.refuse_requests()
        with self._changing:
            self._launch.stop_without_broker()

    def want_nothing(self) -> None:
        """Forget what is wanted, on disk, too."""
        with self._changing:
            self._forget(list(self._wanted))


def _rights_of(instance: EtherInstanceConfig) -> dict[str, list[str]] | None:
    """What the configuration says that an instance may do; None where it says nothing of rights."""
    said = {key: getattr(instance, key) for key in RIGHTS}
    return None if all(value is None for value in said.values()) else {key: list(it or ()) for key, it in said.items()}
