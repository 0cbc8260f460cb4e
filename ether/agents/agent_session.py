"""An agent's part in one session, from joining it to leaving it.

It is a program that joins, with a name of its own, whose desk knows `run`: what it is asked to run is checked against
the roots, written down, started, and kept alive by a supervisor like anybody's.

Promises: nothing is started that the roots do not cover, whoever asks and whatever the file says. What was written down
is started again by `tend()`, in the order of `after:` among this agent's own, and for as long as it takes: a camera may
be plugged in later. The trap: `after:` may name an instance of another machine, which may be switched off. Who asks
waits for that one before it asks; the agent, after a reboot, does not.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ether.agents.allowed import Roots
from ether.agents.wanted_file import AgentFile, Wanted
from ether.config import EtherConfig, EtherInstanceConfig
from ether.connection.assembly import death_notice
from ether.connection.deadline import Deadline
from ether.connection.link import Inbound, Link
from ether.errors import EtherError, NameTaken
from ether.instance.registry import registry_options
from ether.launch.child_settings import InstanceSettings
from ether.launch.launcher import STEP_TIMEOUT_S, Launch
from ether.log import get_ether_logger
from ether.protocol.clock_offset import OffsetEstimator
from ether.protocol.presence import Announcement, State
from ether.session.fencing import NameClaim, NameHold
from ether.session.name_claim import take_name, taken
from ether.session.session import KEEP, Session
from ether.system.backoff import Backoff
from ether.system.health import read_health
from ether.system.processes import birth_of
from ether.transport.base import Will
from ether.transport.endpoint import Endpoint
from ether.version import VERSION

if TYPE_CHECKING:
    from ether.session.discovery.search import FoundSession

logger = get_ether_logger("Ether")

KIND = "agent"

CONNECT_S = 30.0
FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 60.0
"""Between two attempts to start what was written down."""

ORPHANS_END_S = 1.5
"""What a killed predecessor of this agent ran has ended by then, and has let go of its devices."""

CLOCK_TIMEOUT_S = 1.0


class AgentSession(Launch):
    """Made by `start()`, ended by `leave()` or `flee()`."""

    def __init__(self, name: str, found: FoundSession, roots: Roots, file: AgentFile) -> None:
        """`file` says what is wanted; where it is of another session, it is the caller's to have set it aside."""
        super().__init__(EtherConfig(), found.name, found)
        self._program = name
        self.url = found.url
        self._roots = roots
        self._file = file
        self._wanted = dict(file.instances)
        self._restored = set(self._wanted)
        self._attempts: dict[str, tuple[float, Backoff]] = {}
        self._said: dict[str, str] = {}
        self._changing = threading.RLock()
        self._began = time.monotonic()
        self._incarnation, self._epoch = "", 0
        self._scout: Link | None = None
        self._own_name: NameClaim | None = None
        self._fenced = False
        self._leader: Mapping[str, Any] = {}
        self._named = True
        self._clock = OffsetEstimator()

    # -- how it stands

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""
        return self.session.link.transport.connected

    @property
    def idle(self) -> bool:
        """Whether nothing is wanted of it."""
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
            holder = self.session.announcement(self._program)
            raise taken(holder) if holder is not None else NameTaken(KIND, self._program)

    # -- being seen

    def _last_word(self) -> Will:
        self._incarnation, self._epoch = self._claim_name()
        dead = Announcement(self._program, State.LOST, self._incarnation, "offline", self._about())
        return death_notice(self.topics, dead)

    def _claim_name(self) -> tuple[str, int]:
        """Over a connection of its own: what the broker says at our death holds the birth and epoch, and is given to it
        when the connection is made that is to last."""
        assert self._open_link is not None
        self._scout = self._open_link(f"{self._program}-{os.urandom(3).hex()}", None)
        session = Session(self._scout, self.topics)
        deadline = Deadline(STEP_TIMEOUT_S)
        try:
            session.open(deadline.left())
            incarnation, epoch = take_name(session, self._program, deadline, kind=KIND)
            starting = Announcement(self._program, State.STARTING, incarnation, about={**self._about(), "epoch": epoch})
            self._scout.announce(self.topics.state(self._program), starting.to_value())
            self._scout.flush(deadline.left())
            return incarnation, epoch
        finally:
            session.calls.close()
            self._scout.close()

    def _about(self) -> dict[str, Any]:
        pid = os.getpid()
        return {
            "kind": KIND,
            "host": socket.gethostname(),
            "pid": pid,
            "pid_started": birth_of(pid),
            "since": self._since,
            "version": VERSION,
            "epoch": self._epoch,
        }

    def _appear(self, link: Link, endpoint: Endpoint) -> None:
        """Nothing yet: who sees it, asks."""

    def _begin(self, deadline: Deadline) -> None:
        """The desk is open."""
        link = self.session.link
        about = {**self._about(), "node": link.node, "health": self._health()}
        ready = Announcement(self._program, State.READY, self._incarnation, about=about)
        link.listen(self.topics.session_info, self._on_leader)
        link.announce(self.topics.state(self._program), ready.to_value())
        hold = NameHold(self._program, self._incarnation, self._epoch, self._since)
        self._own_name = NameClaim(link, self.topics, hold, self._on_fenced)
        self.session.catch_up(deadline.left())

    def _on_fenced(self, why: str) -> None:
        """On the dispatch thread."""
        self._fenced = True

    def _on_leader(self, inbound: Inbound) -> None:
        """On the dispatch thread. The entry vanishes with who leads the session."""
        value = inbound.take()
        before, self._leader = self._leader, value if isinstance(value, dict) else {}
        if self._leader:
            self._named = self._leader.get("named") is not False
        if self._leader != before:
            self._clock = OffsetEstimator()

    def _clear_announcements(self, link: Link) -> None:
        if not link.transport.connected:
            return
        try:
            for name in self._supervisor.names:
                link.withdraw(self.topics.state(name))
            if self._own_name is not None and not self._fenced:
                self._own_name.release()
                link.withdraw(self.topics.health(self._program))
                link.withdraw(self.topics.state(self._program))
        except EtherError as error:
            logger.warning("could not clear the announcements of agent %s: %s", self._program, error)

    # -- what it is asked

    def run(self, name: str, asked: Mapping[str, Any], by: str) -> str:
        """Run an instance that somebody describes: `runs` where it does already, else `started` or `replaced`. Raises
        `ClassNotAllowed`, `ConfigError`, `NameTaken`, `NotKept`."""
        wanted = Wanted.of(name, asked.get("instance"), asked.get("registry", {}), by)
        self._roots.check(wanted.config().class_path)
        with self._changing:
            if self._wanted.get(name) == wanted and self._lives(name):
                logger.info("%s asks for %s, which runs", by, name)
                return "runs"
            there = name in self._supervisor.names
            if there:
                self._end_of([name], None)
            logger.info("%s asks for %s, a %s", by, name, wanted.config().class_path)
            self._note(name, wanted)
            try:
                self._start_one(name)
            except BaseException:
                self._forget([name])
                raise
            return "replaced" if there else "started"

    def remove(self, name: str) -> dict[str, str]:
        """Stop one in order, and want it no more. Raises `KeyError` for one that is not wanted here."""
        if name not in self._wanted:
            raise KeyError(f"agent {self._program} runs no instance {name!r}")
        return self.remove_all([name], None)

    def remove_all(self, names: Sequence[str], steps: Sequence[str] | None) -> dict[str, str]:
        """The same for those of them that are here."""
        with self._changing:
            mine = [name for name in names if name in self._wanted]
            self._forget(mine)  # first: what was asked to go must not come back after a power cut
            return self._end_of(mine, steps)

    def restart(self, name: str, timeout_s: float) -> None:
        """Stop one in order and start it again."""
        if name not in self._wanted:
            raise KeyError(f"agent {self._program} runs no instance {name!r}")
        with self._changing:
            if name in self._supervisor.names:
                super().restart(name, timeout_s)
            else:
                self._start_one(name)

    def described(self, name: str) -> EtherInstanceConfig | None:
        """Nothing can be started by its name alone: what an agent is told comes with its description."""
        return None

    def _end_of(self, names: Iterable[str], steps: Sequence[str] | None) -> dict[str, str]:
        return super().remove_all([name for name in names if name in self._supervisor.names], steps)

    def _note(self, name: str, wanted: Wanted) -> None:
        """A session without a name cannot be found again, and nothing of it is written down."""
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

    # -- starting

    def _lives(self, name: str) -> bool:
        return name in self._supervisor.names and name not in self._supervisor.ended

    def _start_one(self, name: str) -> None:
        own = [other for other in self._wanted[name].config().after if other in self._wanted]
        config = self._wanted[name].config().model_copy(update={"after": tuple(own)})
        birth_and_epoch = self.take_name(self.session, name, Deadline(STEP_TIMEOUT_S))
        self._supervisor.prepare(name, config)
        try:
            self._supervisor.take_name(name, birth_and_epoch)
            self._supervisor.start(name, CONNECT_S)
        except BaseException:
            self._discard(name)
            raise

    def _yields(self, holder: Announcement) -> bool:
        """What this agent's predecessor ran: nobody else has had its name since, and that one is gone."""
        return holder.about.get("machine") == self._program and not self._lives(holder.name)

    def _discard(self, name: str) -> None:
        self._supervisor.leave(name)
        self._supervisor.end([name], 0)
        self._supervisor.forget(name)

    def _settings(
        self, name: str, instance: EtherInstanceConfig, incarnation: str, epoch: int, connect_timeout_s: float
    ) -> InstanceSettings:
        settings = super()._settings(name, instance, incarnation, epoch, connect_timeout_s)
        wanted = self._wanted[name]
        places = [folder for folder in self._roots.folders if folder not in settings.import_path]
        return replace(
            settings,
            registry=registry_options(wanted.registry_config(), instance),
            script=None,
            import_path=[*settings.import_path, *places],
            holding={**settings.holding, "machine": self._program, "asked_by": wanted.by},
        )

    # -- tending

    def tend(self) -> None:
        """Start what is wanted and does not run, where it is its turn. Nothing while a request is being carried out."""
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
        if self.session.holder(name) is not None and now - self._began < ORPHANS_END_S:
            return False
        failed = name in self._supervisor.names
        again = name in self._restored and not self._supervisor.was_ready(name)
        after, ready = self._wanted[name].config().after, self.session.ready()
        return (again or not failed) and all(other in ready for other in after if other in self._wanted)

    def _attempt(self, name: str, now: float) -> None:
        backoff = self._attempts[name][1] if name in self._attempts else Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self._attempts[name] = (now + backoff.next_s(), backoff)
        if name in self._supervisor.names:
            self._discard(name)
        try:
            self._roots.check(self._wanted[name].config().class_path)
            self._start_one(name)
        except (EtherError, OSError) as error:
            if self._said.get(name) != str(error):
                logger.error("%s cannot be started again: %s\nIt is tried again and again.", name, error)
            self._said[name] = str(error)

    # -- health

    def tell_health(self) -> None:
        """Publish how this machine is; nothing where the broker does not take it."""
        try:
            self._compare_clocks()
            health = self._health()
            self.session.link.publish(self.topics.health(self._program), health, qos=0, retain=True, timeout_s=0.5)
        except EtherError as error:
            logger.debug("could not tell how this machine is: %s", error)

    def _health(self) -> dict[str, Any]:
        return read_health(os.path.dirname(self._file.path), self._clock.offset()).to_value()

    def _compare_clocks(self) -> None:
        leader, clock = self._leader.get("program"), self._clock
        if not isinstance(leader, str):
            return
        asked = time.time()
        barrier = self.session.ask(KEEP, [leader], CLOCK_TIMEOUT_S, {"do": "clock"})
        answered = time.time()
        answer = barrier.answers.get(leader)
        theirs = answer.results.get("time") if answer is not None else None
        if isinstance(theirs, (int, float)):
            clock.note(asked, theirs, answered)

    # -- leaving

    def leave(self) -> dict[str, str]:
        """Stop all in order, and leave; what is wanted stays written down. Returns what went wrong."""
        if self._control_server is not None:
            self._control_server.close()
        with self._changing:
            return self.stop()

    def flee(self) -> None:
        """The same where the broker is gone: the instances are told by a signal."""
        if self._control_server is not None:
            self._control_server.close()
        with self._changing:
            self._supervisor.no_more_starts()
            for name in self._supervisor.alive:
                self._supervisor.child(name).terminate()
            for name in self._supervisor.end(self._supervisor.names, STEP_TIMEOUT_S):
                logger.error("instance %s did not end and was killed", name)
            self._abandon()

    def want_nothing(self) -> None:
        """Forget what is wanted."""
        with self._changing:
            self._forget(list(self._wanted))
