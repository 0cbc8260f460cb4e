"""`ether agent`: a daemon that runs instances on this machine for sessions that are led elsewhere.

It looks for a session every 2 s, joins it under its own name, runs what it is asked to run there, and keeps that in a
file. After its own restart, or a reboot, it starts all of it again, also when nobody leads the session any more.

Promises: it never gives up because a session, a broker or the network is away. It stays with the session whose
instances it runs, and moves after it where that is found elsewhere. SIGTERM stops its instances in order; at its own
death by force they die within a second. It takes part in one session at a time: idle, it goes where one is led.

The traps: moving means starting the instances anew, because a process knows one broker for all its life. And a signal
handler may interrupt this thread while it holds any lock, so it only puts into a queue.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ether.agents.agent_session import AgentSession
from ether.agents.allowed import read_roots, roots_of
from ether.agents.wanted_file import AgentFile, NotKept, agent_path, read_agent_file
from ether.errors import EtherError, NameTaken
from ether.log import get_ether_logger, install_console
from ether.security.lab_key import key_file
from ether.system.journald import write_for_journal
from ether.system.systemd import Notifier, Watchdog
from ether.wire.topics import check_instance_name, check_session_name

if TYPE_CHECKING:
    from ether.session.discovery.search import FoundSession


@contextmanager
def only_agent(name: str, path: str) -> Iterator[None]:
    """Hold the lock in the file; raises `NameTaken` where another process holds it."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NotKept(f"agent {name!r} cannot keep its state: {error}. Is the folder writable?") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise NameTaken("agent", name, host=socket.gethostname(), pid=_pid_in(descriptor)) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def _pid_in(descriptor: int) -> int | None:
    told = os.read(descriptor, 20)
    return int(told) if told.isdigit() else None


logger = get_ether_logger("Ether")

LOOK_S = 2.0
TICK_S = 0.25
JOIN_S = 10.0
GONE_S = 5.0
"""So long without a broker, and the session is looked for again."""

NAMELESS_PATIENCE_S = 60.0
"""So long without a broker, and a session without a name is over: it could not be found again."""

HEALTH_EVERY_S = 10.0
_STUCK_S = 25.0
"""Without a turn of the loop: systemd's watchdog is not fed any more."""

EXIT_OK, EXIT_INTERRUPTED = 0, 130


class Agent:
    """One agent, for one process: `run()` is its whole life."""

    def __init__(
        self,
        name: str | None = None,
        *,
        allow: Sequence[str] = (),
        allow_file: str | None = None,
        session: str | None = None,
        broker: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`name` defaults to the host's; `allow` are roots, to which those in `allow_file` are added (default:
        `ether/allowed` in the user's configuration folder, where that exists). `session` and `broker` narrow down where
        it takes part. Raises `ConfigError` and `InvalidName`."""
        self._environment = os.environ if environment is None else environment
        self.name = check_instance_name(name or socket.gethostname())
        wanted = session or self._environment.get("ETHER_SESSION") or None
        self._session = None if wanted is None else check_session_name(wanted)
        self._broker = broker
        self.roots = roots_of([*allow, *_roots_in(allow_file, self._environment)])
        self.path = agent_path(self.name, self._environment)
        self._stop = threading.Event()
        self._events: queue.SimpleQueue[BaseException | str] = queue.SimpleQueue()
        self._file: AgentFile | None = None
        self._stay: AgentSession | None = None
        self._turned = time.monotonic()
        self._said = ""

    # -- the process

    def run(self) -> int:
        """Live until SIGTERM or Ctrl-C; returns the exit code. To be called on the main thread. Raises `NameTaken`."""
        write_for_journal(os.environ)
        install_console(f"agent {self.name}")
        notifier = Notifier.from_environment(os.environ)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._events.put("stop"))
        with only_agent(self.name, f"{self.path}.lock"):
            self._file = read_agent_file(self.path, self._environment)
            logger.info("Agent %s runs classes under: %s", self.name, self.roots)
            threading.Thread(target=self._live, name="ether-agent", daemon=True).start()
            if notifier is not None:
                notifier.ready(f"agent {self.name}")
            with Watchdog(notifier, lambda: time.monotonic() - self._turned < _STUCK_S):
                return self._wait(notifier)

    def _wait(self, notifier: Notifier | None) -> int:
        event = self._next_event()
        if event == "stop":
            if notifier is not None:
                notifier.stopping()
            self._stop.set()
            if self._stay is None:
                return EXIT_OK
            logger.info("Agent %s stops its instances in order; a second signal ends it at once", self.name)
            event = self._next_event()
        if isinstance(event, BaseException):
            raise event
        return EXIT_INTERRUPTED if event == "stop" else EXIT_OK

    def _next_event(self) -> BaseException | str:
        while True:  # in short waits: where there are no signals that interrupt one (Windows), Ctrl-C comes in between
            try:
                return self._events.get(timeout=0.5)
            except queue.Empty:
                continue

    def _live(self) -> None:
        """On a thread of its own."""
        try:
            while not self._stop.is_set():
                self._turned = time.monotonic()
                found = self._look()
                if found is None or not self._take_part(found):
                    self._stop.wait(LOOK_S)
        except BaseException as error:  # noqa: BLE001  the main thread raises it
            self._events.put(error)
        else:
            self._events.put("ended")

    # -- where to

    @property
    def _kept(self) -> AgentFile:
        assert self._file is not None
        return self._file

    def _look(self) -> FoundSession | None:
        """The session to take part in."""
        wish = self._session or (self._kept.session if self._kept.instances else None)
        return self._find(wish) or self._known_place()

    def _find(self, session: str | None) -> FoundSession | None:
        from ether.session.discovery.search import find

        try:
            return find(session=session, broker=self._broker, environment=self._environment)
        except EtherError as error:
            self._say_once(f"looking for a session: {error}")
            return None

    def _known_place(self) -> FoundSession | None:
        """Where its instances were running, or where it was sent: a broker that nobody leads a session at."""
        from ether.session.discovery.search import FoundSession

        kept = self._kept
        if kept.instances and kept.session and kept.url and self._session in (None, kept.session):
            return FoundSession(kept.session, kept.url, "kept by this agent", "", None, None)
        return None

    def _say_once(self, text: str) -> None:
        if text != self._said:
            logger.warning("%s\nTrying again...", text)
        self._said = text

    # -- taking part

    def _take_part(self, found: FoundSession) -> bool:
        """Join, stay as long as it goes, and leave. False where it could not be joined."""
        stay = self._stay = self._joined(found)
        if stay is None:
            return False
        self._said = ""
        logger.info("Agent %s is in session %s (%s)", self.name, found.name, found.how)
        _remember(found, self._environment)
        try:
            self._attend(stay)
        finally:
            if stay.connected:
                stay.leave()
            else:
                stay.flee()
            self._stay = None
        stay.check_name()
        return True

    def _joined(self, found: FoundSession) -> AgentSession | None:
        kept = self._kept
        if kept.instances and kept.session != found.name:
            kept.set_aside(f"it is of session {kept.session!r}, and the agent was sent to {found.name!r}")
        stay = self._stay = AgentSession(self.name, found, self.roots, kept)
        try:
            stay.start(JOIN_S)
        except NameTaken:
            raise
        except EtherError as error:
            self._say_once(f"session {found.name!r} could not be joined: {error}")
            return None
        try:
            kept.place(found.name, found.url)
        except NotKept as error:  # a full disk is no reason to stop
            logger.error("%s. After a reboot the session will be looked for where it was before.", error)
        return stay

    def _attend(self, stay: AgentSession) -> None:
        """Returns when it is time to leave."""
        health_at = look_at = 0.0
        gone_at: float | None = None
        while not self._stop.wait(TICK_S):
            now = self._turned = time.monotonic()
            gone_at = None if stay.connected else gone_at or now
            if stay.connected and now >= health_at:
                health_at = now + HEALTH_EVERY_S
                stay.tell_health()
            if stay.connected:
                stay.check_name()
                stay.tend()
            if now >= look_at and self._is_restless(stay, gone_at, now):
                if self._goes_elsewhere(stay, None if gone_at is None else now - gone_at):
                    return
                look_at = time.monotonic() + LOOK_S

    def _is_restless(self, stay: AgentSession, gone_at: float | None, now: float) -> bool:
        if gone_at is not None:
            return now - gone_at >= GONE_S
        return stay.idle and not stay.led

    def _goes_elsewhere(self, stay: AgentSession, gone_s: float | None) -> bool:
        """Whether this stay is over: its session is elsewhere, or has ended, or it is idle and another one is led."""
        own = stay.topics.session
        wish = self._session or (None if stay.idle else own)
        found = self._find(wish)
        if found is not None and (found.name, found.url) != (own, stay.url):
            logger.info("Agent %s goes to session %s at %s", self.name, found.name, found.address)
            return True
        if gone_s is None:
            return False
        if not stay.idle and not stay.named and gone_s > NAMELESS_PATIENCE_S:
            logger.warning("session %s is over: its broker has gone, and it has no name to be found by", own)
            stay.want_nothing()
            return True
        return stay.idle


def _roots_in(allow_file: str | None, environment: Mapping[str, str]) -> list[str]:
    default = os.path.join(os.path.dirname(key_file(environment)), "allowed")
    if allow_file is None and not os.path.exists(default):
        return []
    return read_roots(default if allow_file is None else allow_file)


def _remember(found: FoundSession, environment: Mapping[str, str]) -> None:
    from ether.session.discovery.search import remember

    remember(found, environment)
