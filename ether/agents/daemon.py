"""`ether agent`: a daemon that runs instances on this machine for sessions that are led on other machines.

It looks for a session every 2 s, joins it under its own name, runs what it is asked to run there, and writes that to a
file. After its own restart, or a reboot, it starts all of those instances again, even if no program leads the session
any more.

Promises: the agent never gives up because a session, a broker or the network is away. It stays with the session whose
instances it runs, and follows that session to another broker. SIGTERM stops its instances in order; when the agent is
killed, they die within a second. It takes part in one session at a time; an idle agent goes to a session that is led.
Of one name only one agent runs on a machine (`only_agent`).

Two threads: the main thread waits for signals (`_wait`); the agent's thread looks for sessions and takes part in them
(`_live`). The first trap: following a session to another broker means starting its instances anew, because a process
keeps one broker for all its life. The second: a signal handler may interrupt the main thread while that holds any lock,
so the handler only puts into a queue.
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

from ether.agents.agent_session import AgentSession
from ether.agents.allowed import REGISTRY, read_roots, roots_of
from ether.agents.wanted_file import AgentFile, NotKept, agent_path, read_agent_file
from ether.errors import EtherError, NameTaken
from ether.log import get_ether_logger, install_console
from ether.security.lab_key import key_file
from ether.session.discovery.search import LOOK_PATIENCE_S, FoundSession, find, remember
from ether.system.journald import write_for_journal
from ether.system.systemd import Notifier, Watchdog
from ether.wire.topics import check_instance_name, check_session_name

logger = get_ether_logger("Ether")

LOOK_S = 2.0
TICK_S = 0.25
JOIN_S = 10.0
GONE_S = 5.0
"""After so long without a broker the session is looked for again."""

NAMELESS_PATIENCE_S = 60.0
"""After so long without a broker a session without a name is over: it could not be found again."""

HEALTH_EVERY_S = 10.0
_STUCK_S = 25.0
"""After so long without a turn of the agent's loop systemd's watchdog gets no more pings."""

EXIT_OK, EXIT_INTERRUPTED = 0, 130


class Agent:
    """One agent, for one process: `run()` is its whole life."""

    def __init__(
        self,
        name: str | None = None,
        *,
        allow: Sequence[str] = (),
        allow_file: str | None = None,
        allow_registry: Sequence[str] = (),
        session: str | None = None,
        broker: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`name` defaults to the host's; `allow` are roots, to which those in `allow_file` are added (default:
        `ether/allowed` in the user's configuration folder, where that exists). `allow_registry` are the roots of the
        classes that registries from elsewhere may mark. `session` and `broker` narrow down where it takes part.
        Raises `ConfigError` and `InvalidName`."""
        self._environment = os.environ if environment is None else environment
        self.name = check_instance_name(name or socket.gethostname())
        named = session or self._environment.get("ETHER_SESSION") or None
        self._session = None if named is None else check_session_name(named)
        self._broker = broker
        listed = _roots_in(allow_file, self._environment)
        self.roots = roots_of([*allow, *(root for root in listed if not root.startswith(REGISTRY))])
        marks = [root.removeprefix(REGISTRY).strip() for root in listed if root.startswith(REGISTRY)]
        self.marks = roots_of([*allow_registry, *marks])
        self.path = agent_path(self.name, self._environment)
        self._stop = threading.Event()
        self._events: queue.SimpleQueue[BaseException | str] = queue.SimpleQueue()
        self._file: AgentFile | None = None
        self._joined: AgentSession | None = None
        """The session that the agent is in; None between two."""
        self._turned_at = time.monotonic()
        self._last_warning = ""

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
            with Watchdog(notifier, lambda: time.monotonic() - self._turned_at < _STUCK_S):
                return self._wait(notifier)

    def _wait(self, notifier: Notifier | None) -> int:
        """Wait for the first signal, then for the end of the agent's thread or the second signal. On the main thread;
        each wait is for an event in the queue: `stop` from a signal, `ended` or an exception from the agent's
        thread."""
        event = self._next_event()
        if event == "stop":
            if notifier is not None:
                notifier.stopping()
            self._stop.set()
            if self._joined is None:
                return EXIT_OK
            logger.info("Agent %s stops its instances in order; a second signal ends it at once", self.name)
            event = self._next_event()
        if isinstance(event, BaseException):
            raise event
        return EXIT_INTERRUPTED if event == "stop" else EXIT_OK

    def _next_event(self) -> BaseException | str:
        while True:  # in short waits: on Windows Ctrl-C does not interrupt one, and is handled between two
            try:
                return self._events.get(timeout=0.5)
            except queue.Empty:
                continue

    def _live(self) -> None:
        """The agent's thread: look for a session, take part in it, until told to stop."""
        try:
            while not self._stop.is_set():
                self._turned_at = time.monotonic()
                found = self._look()
                if found is None or not self._take_part(found):
                    self._stop.wait(LOOK_S)
        except BaseException as error:  # noqa: BLE001  the main thread raises it
            self._events.put(error)
        else:
            self._events.put("ended")

    # -- which session

    @property
    def _wanted(self) -> AgentFile:
        assert self._file is not None
        return self._file

    def _look(self) -> FoundSession | None:
        """The session to take part in; None where there is none yet."""
        session = self._session or (self._wanted.session if self._wanted.instances else None)
        return self._find(session) or self._known_place()

    def _find(self, session: str | None) -> FoundSession | None:
        try:
            return find(session=session, broker=self._broker, environment=self._environment, patience_s=LOOK_PATIENCE_S)
        except EtherError as error:
            self._warn_once(f"looking for a session: {error}")
            return None

    def _known_place(self) -> FoundSession | None:
        """The session and broker of the agent's file. Such a session is found even if no program leads it any more."""
        wanted = self._wanted
        if wanted.instances and wanted.session and wanted.url and self._session in (None, wanted.session):
            return FoundSession(wanted.session, wanted.url, "kept by this agent", "", None, None)
        return None

    def _warn_once(self, text: str) -> None:
        if text != self._last_warning:
            logger.warning("%s\nTrying again...", text)
        self._last_warning = text

    # -- taking part

    def _take_part(self, found: FoundSession) -> bool:
        """Join the session, attend to it until it is time to leave, and leave. False where it could not be joined."""
        joined = self._join(found)
        if joined is None:
            return False
        self._last_warning = ""
        logger.info("Agent %s is in session %s (%s)", self.name, found.name, found.how)
        remember(found, self._environment)
        try:
            self._attend(joined)
        finally:
            if joined.connected:
                joined.leave()
            else:
                joined.flee()
            self._joined = None
        joined.check_name()
        return True

    def _join(self, found: FoundSession) -> AgentSession | None:
        wanted = self._wanted
        if wanted.instances and wanted.session != found.name:
            wanted.set_aside(f"it is of session {wanted.session!r}, and the agent was sent to {found.name!r}")
        joined = self._joined = AgentSession(self.name, found, self.roots, wanted, self.marks)
        try:
            joined.start(JOIN_S)
        except NameTaken:
            raise
        except EtherError as error:
            self._joined = None
            self._warn_once(f"session {found.name!r} could not be joined: {error}")
            return None
        try:
            wanted.place(found.name, found.url)
        except NotKept as error:  # a full disk is no reason to stop
            logger.error("%s. After a reboot the session will be looked for where it was before.", error)
        return joined

    def _attend(self, joined: AgentSession) -> None:
        """Look after the session and its instances, on the agent's thread; returns when it is time to leave.

        A turn every `TICK_S`; the wait between two ends early only at `_stop`. Requests of other programs are carried
        out on another thread (the control server's), and `tend()` leaves the turn out while one is. Raises `NameTaken`
        where another agent has taken the name.
        """
        health_at = look_at = 0.0
        gone_at: float | None = None  # since when the broker has been away
        while not self._stop.wait(TICK_S):
            now = self._turned_at = time.monotonic()
            gone_at = None if joined.connected else gone_at or now
            # Asked anew for each step, because the connection may break in between.
            if joined.connected and now >= health_at:
                health_at = now + HEALTH_EVERY_S
                joined.tell_health()
            if joined.connected:
                joined.check_name()
                joined.tend()
            # A search asks the network and takes seconds, so it is made only where there may be a reason to leave, and
            # the next one counts from its end.
            if now >= look_at and self._may_leave(joined, gone_at, now):
                if self._has_to_leave(joined, None if gone_at is None else now - gone_at):
                    return
                look_at = time.monotonic() + LOOK_S

    def _may_leave(self, joined: AgentSession, gone_at: float | None, now: float) -> bool:
        """Whether there may be a reason to leave: the broker has been away for a while, or the agent is idle in a
        session that no program leads."""
        if gone_at is not None:
            return now - gone_at >= GONE_S
        return joined.idle and not joined.led

    def _has_to_leave(self, joined: AgentSession, gone_s: float | None) -> bool:
        """Whether to leave: the session is found at another broker, or has ended, or the agent is idle and another
        session is led. `gone_s`: how long the broker has been away, None where it is connected."""
        own = joined.topics.session
        found = self._find(self._session or (None if joined.idle else own))
        if found is not None and (found.name, found.url) != (own, joined.url):
            logger.info("Agent %s goes to session %s at %s", self.name, found.name, found.address)
            return True
        if gone_s is None:
            return False
        if not joined.idle and not joined.named and gone_s > NAMELESS_PATIENCE_S:
            logger.warning("session %s is over: its broker has gone, and it has no name to be found by", own)
            joined.want_nothing()
            return True
        return joined.idle


def _roots_in(allow_file: str | None, environment: Mapping[str, str]) -> list[str]:
    default = os.path.join(os.path.dirname(key_file(environment)), "allowed")
    if allow_file is None and not os.path.exists(default):
        return []
    return read_roots(default if allow_file is None else allow_file)


@contextmanager
def only_agent(name: str, path: str) -> Iterator[None]:
    """Within the block this process holds a lock on the file at `path`, which says its process id. The system drops the
    lock with the process, however that ends. Raises `NameTaken` where another agent of this name holds it, and
    `NotKept`. Without a lock where the system has no `flock` (Windows)."""
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
    written = os.read(descriptor, 20)
    return int(written) if written.isdigit() else None
