"""An instrument that is asked and answers, whichever medium carries the bytes.

    with SerialPort("/dev/ttyUSB0", identity=Identity("ACME,Heater,0042,1.3"), on_connect=restore) as heater:
        heater.query_value("TEMP?", float)

How it works. A call passes three steps: the port's lock (`PortLock`, so that commands of several threads never mix),
the check that the right device is still there (`_verify`, only after a pause or a failure), and the connection of the
medium (serial port or VISA), which sends and waits. `_connection` is None while the device is away.

    offline ──find()──> setting up ──on_connect──> online ──lost──> offline
            a search thread          only its thread may send

`_drop` is the only way from a connection to offline, whoever notices the loss: a caller, the reading thread, or
`close()`. The first one that takes `_connection` away does the rest, and later ones return at once.

Promise: each call returns an answer to its own command, or raises one `AdapterError` that says what happened, within
its time-out (with retries: each attempt's). After a failed one, the next one first waits until the owed answer has come
or its time is over, or asks a sync question (step_rules.py). A device that is unplugged and plugged in again is found
by its identity, at whatever port. `on_connect` restores its settings before any other thread may send; until then every
call raises `Disconnected` at once. Another device is never mistaken for it.

The trap: `retries` repeats a command. Reading twice is harmless, dosing twice is not: the default is 0, and `write`
never repeats. `on_connect`, `on_input` and `on_presence` are called from threads of the adapter.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar, Unpack

from hardware_adapters.connection import LineCounts, Medium, PortConnection, PortEvents
from hardware_adapters.counts import AdapterCounts, Counters
from hardware_adapters.errors import AdapterError, BadAnswer, Disconnected, NoAnswer, WrongDevice, shown
from hardware_adapters.identity import Fingerprint, Identity, SyncQuestion
from hardware_adapters.lease import Lease, PortLock
from hardware_adapters.listeners import CallbackThread, late_bound
from hardware_adapters.options import AdapterOptions, boot_rules, check_options
from hardware_adapters.replays import check_command
from hardware_adapters.search import AskTimes, FoundPort, Search

logger = logging.getLogger("Ether.hardware")

SEARCH_EVERY_S, SEARCH_RARELY_S = 0.1, 0.5
"""The pause between two attempts of the search: at first, and at most after many."""

VERIFY_AFTER_S = 2.0
"""A person needs longer to swap two cables. After a longer pause the device is asked for its identity before it is
used."""

_JOIN_S = 5.0
_REASONS_LIMIT = 20
"""So many different reasons of one search are logged."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Presence:
    """Whether the device is there: at which port, or why not; since when (seconds of the epoch)."""

    online: bool
    port: str
    reason: str
    since: float = field(default_factory=time.time)


class Adapter:
    """One instrument. Connects when it is made; raises why it cannot. Use it as a context, or call `close()`."""

    def __init__(
        self, medium: Medium, port: str | None, *, encode: Callable[[bytes], bytes], **options: Unpack[AdapterOptions]
    ) -> None:
        check_options(options)
        identity = options.get("identity")
        self._identity = Identity(identity) if isinstance(identity, str) else identity
        sync = options.get("sync")
        self._sync = SyncQuestion(*sync) if sync else None
        self.name = options.get("name") or port or str(self._identity)
        self.timeout_s, self.retries = options.get("timeout_s", 1.0), options.get("retries", 0)
        self.encoding = options.get("encoding", "utf-8")
        self._on_connect = late_bound(options.get("on_connect"))
        self._on_input = late_bound(options.get("on_input"))
        self._knows_input = options.get("unsolicited") is not None
        on_presence = late_bound(options.get("on_presence"))
        self._watchers: tuple[Callable[[Any], object], ...] = (on_presence,) if on_presence else ()
        self._reconnects = options.get("reconnect", True)
        self._verify_after_s = options.get("verify_after_s", VERIFY_AFTER_S)
        self._encode, self._counters, self._callbacks = encode, Counters(), CallbackThread(self.name)
        self._lock = PortLock(self.name)
        self._changed = threading.Condition()  # guards _connection, _found and _presence
        self._connection: PortConnection | None = None
        self._found: FoundPort | None = None
        self._setting_up: int | None = None  # the thread that runs on_connect: it passes all checks of other threads
        self._last_success, self._doubtful, self._said_out_of_step = 0.0, False, False
        self._closing = threading.Event()
        self._search = Search(
            medium, port, self._identity, encode, events=PortEvents(self._input, self._lost), holder=self.name,
            times=AskTimes(self.timeout_s, boot_rules(options)), closing=self._closing,
        )  # fmt: skip
        self._searcher: threading.Thread | None = None
        self._presence = Presence(False, port or "", "not connected yet")
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    @property
    def presence(self) -> Presence:
        """Whether the device is there now."""
        return self._presence

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closing.is_set()

    @property
    def port(self) -> str:
        """The port where the device is, or was last."""
        return self._presence.port

    @property
    def fingerprint(self) -> Fingerprint | None:
        """The device's identity as it was found; it stays the same for the life of the adapter."""
        return self._search.known

    @property
    def counts(self) -> AdapterCounts:
        """What happened so far."""
        connection = self._connection
        line = connection.counts if connection else LineCounts()
        return self._counters.counts(line, self._callbacks.dropped, self._callbacks.failed)

    def query(self, command: str, *, timeout_s: float | None = None, retries: int | None = None) -> str:
        """Send, and return the answer as text. Raises NoAnswer, BadAnswer, Disconnected, WrongDevice, PortBusy."""
        return self.query_value(command, str, timeout_s=timeout_s, retries=retries)

    def query_value(
        self, command: str, parse: Callable[[str], T], *, timeout_s: float | None = None, retries: int | None = None
    ) -> T:
        """Send, and return `parse(answer)`. A ValueError of `parse` becomes `BadAnswer`, which is retried, too."""
        sent = command.encode(self.encoding)
        return self._repeated(sent, lambda data: parse(data.decode(self.encoding)), timeout_s, retries)

    def query_bytes(self, command: bytes, *, timeout_s: float | None = None, retries: int | None = None) -> bytes:
        """Send the payload in a frame, and return the payload of the answer. Raises like `query`."""
        return self._repeated(command, bytes, timeout_s, retries)

    def write(self, command: str) -> None:
        """Send without waiting for an answer; never repeated. Raises Disconnected, or NoAnswer where the line takes
        nothing."""
        self.write_bytes(command.encode(self.encoding))

    def write_bytes(self, command: bytes) -> None:
        """Send the payload in a frame; never repeated."""
        self.send_raw(self._encode(command), command)

    def send_raw(self, message: bytes, command: bytes | None = None) -> None:
        """Send bytes as they are, already framed: binary blocks, wake-up characters."""
        with self._exclusive(command or message) as connection:
            self._verify(connection)
            self._counters.sent += 1
            self._watched(connection, lambda: connection.tell(message))

    def lease(self, holder: str, reason: str = "", timeout_s: float = 5.0) -> Lease:
        """Take the port for the calling thread alone: see `lease.py`. Raises PortBusy, which names the holder."""
        if self._setting_up == threading.get_ident():
            # `on_connect` has the port already: a lease of a lock that nothing else uses.
            return PortLock(self.name).lease(holder, reason)
        return self._lock.lease(holder, reason, timeout_s)

    @property
    def lock(self) -> PortLock:
        """The port's lock: `lock.holding` names its holder."""
        return self._lock

    def watch_presence(self, callback: Callable[[Presence], object]) -> Callable[[], None]:
        """Call back, as `on_presence`, when the device goes or returns. The returned function ends it."""
        self._watchers = (*self._watchers, callback)

        def end() -> None:
            self._watchers = tuple(watcher for watcher in self._watchers if watcher is not callback)

        return end

    def wait_online(self, timeout_s: float) -> bool:
        """Wait until the device is there and set up; False after `timeout_s` seconds, or once the adapter is closed."""
        with self._changed:
            return self._changed.wait_for(lambda: self._presence.online or self._closing.is_set(), timeout_s) and (
                self._presence.online
            )

    def close(self) -> None:
        """Free the port and end every thread; harmless twice."""
        self._closing.set()
        self._drop(self._connection, Disconnected(self.name, "the adapter was closed"))
        searcher = self._searcher
        if searcher is not None and searcher is not threading.current_thread():
            searcher.join(_JOIN_S)
        self._callbacks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Commands

    def _repeated(self, command: bytes, parse: Callable[[bytes], T], timeout_s: float | None, retries: int | None) -> T:
        """One command with its retries, under one lease, so that no other command comes between two attempts."""
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        attempts = 1 + (self.retries if retries is None else retries)
        with self._lease_for(command):
            for attempt in range(1, attempts + 1):
                try:
                    return self._once(command, parse, timeout_s)
                except (NoAnswer, BadAnswer) as error:
                    self._counters.count_failure(error)
                    self._say_out_of_step(error)
                    if attempt == attempts:
                        self._raise_last(error, attempts)
                    self._counters.retried += 1
        raise ValueError(f"retries must be 0 or more, not {attempts - 1}")

    def _raise_last(self, error: NoAnswer | BadAnswer, attempts: int) -> NoReturn:
        if isinstance(error, NoAnswer) and attempts > 1:
            raise NoAnswer(error.port, error.command, error.timeout_s, attempts, error.late_s) from error
        raise error

    def _say_out_of_step(self, error: AdapterError) -> None:
        connection = self._connection
        if not self._said_out_of_step and connection is not None and not connection.in_step:
            self._said_out_of_step = True
            logger.warning(
                "%s%s. Until its answer can no longer be taken for another's, nothing else is asked. This is said once;"
                " counts.late and counts.resynchronised go on counting",
                "" if self.name == error.port else f"{self.name}: ",
                error,
            )

    def _once(self, command: bytes, parse: Callable[[bytes], T], timeout_s: float) -> T:
        with self._exclusive(command) as connection:
            message = self._encode(command)
            if not self._verify(connection) and self._sync is not None and not connection.in_step:
                self._resynchronise(connection, self._sync, command, timeout_s)
            self._counters.sent += 1
            answer = self._watched(connection, lambda: connection.ask(message, timeout_s))
            try:
                value = parse(answer)
            except ValueError as error:
                connection.refuse()
                self._doubtful = True
                why = f"not what was expected ({error})"
                raise BadAnswer(self.port, why, command=command, answer=answer) from error
        self._counters.answered += 1
        return value

    def _lease_for(self, command: bytes) -> AbstractContextManager[object]:
        """The port's lock for one command.

        The thread that runs `on_connect` needs none, because all others are refused meanwhile. A lease that the calling
        thread holds already is entered once more; where the device was lost during it, the command is refused, so
        that the holder notices that its sequence was interrupted.
        """
        if self._setting_up == threading.get_ident():
            return nullcontext()
        check_command(self.name, command)
        self._usable_connection(command)
        lease = self._lock.lease(self.name, f"{command[:40]!r}")
        if lease.interrupted:
            lease.release()
            why = f"the device was lost during the lease of {lease.holding}; what was begun must begin again"
            raise Disconnected(self.name, why, command=command)
        return lease

    @contextmanager
    def _exclusive(self, command: bytes) -> Iterator[PortConnection]:
        """One command: take the lock, and give out the connection."""
        with self._lease_for(command):
            yield self._usable_connection(command)

    def _usable_connection(self, command: bytes) -> PortConnection:
        """The connection, where this thread may use it now. Raises Disconnected."""
        connection = self._connection
        if connection is not None and (self._presence.online or self._setting_up == threading.get_ident()):
            return connection
        raise Disconnected(self.name, f"the device is not there: {self._presence.reason}", command=command)

    def _watched(self, connection: PortConnection, action: Callable[[], T]) -> T:
        """Run the action. A Disconnected drops the connection; after another failure the device is asked for its
        identity first."""
        try:
            value = action()
        except Disconnected as error:
            self._drop(connection, error)
            raise
        except AdapterError:
            self._doubtful = True
            raise
        self._last_success = time.monotonic()
        return value

    def _resynchronise(self, connection: PortConnection, sync: SyncQuestion, command: bytes, timeout_s: float) -> None:
        """Ask the sync question, and drop what comes before its answer. Raises why the command is not sent."""
        query = sync.query.encode(self.encoding) if isinstance(sync.query, str) else sync.query
        message = self._encode(query)
        try:
            answer = self._watched(connection, lambda: connection.ask(message, timeout_s, sync.fits, wait=False))
        except (NoAnswer, BadAnswer) as error:
            why = f"it was not sent: an earlier question was not answered, and {query!r}, asked to be in step, neither"
            raise BadAnswer(self.port, f"{why}: {error.problem}", command=command, answer=error.answer) from error
        if not sync.fits(answer):
            connection.refuse()
            why = f"it was not sent: to be in step {query!r} was asked, and not answered with {shown(sync.pattern)}"
            raise BadAnswer(self.port, why, command=command, answer=answer)

    def _verify(self, connection: PortConnection) -> bool:
        """Ask the device for its identity where the last success is too long ago, or the last command failed; whether
        it was asked.

        A pulled and exchanged plug is not always noticed by the medium; this is what finds it.
        """
        asked, found = self._identity is not None and self._identity.is_asked, self._found
        if not asked or found is None or self._verify_after_s is None or self._setting_up == threading.get_ident():
            return False
        if not self._doubtful and time.monotonic() - self._last_success < self._verify_after_s:
            return False
        try:
            self._watched(connection, lambda: self._search.verify(connection, found))
        except WrongDevice as error:
            self._drop(connection, Disconnected(self.port, str(error)))
            raise
        self._doubtful = False
        return True

    # Connecting

    def _input(self, frame: bytes) -> None:
        """Take an unsolicited frame. Without a connection it is ignored: during a search it may be another device's."""
        if self._connection is None:
            return
        self._counters.inputs += 1
        if self._counters.inputs == 1 and not self._knows_input:
            logger.warning(
                "%s sent %s, which nobody asked for. While a question waits, such a message cannot be told from its"
                " answer: unsolicited= says which messages are no answers (said once)", self.name, shown(frame),
            )  # fmt: skip
        if self._on_input is not None:
            self._callbacks.put(self._on_input, frame)

    def _lost(self) -> None:
        """A connection has ended by itself. It may be an older one than the present: `lost` of the present one
        decides."""
        connection = self._connection
        if connection is not None and (error := connection.lost) is not None:
            self._drop(connection, error)

    def _connect(self) -> None:
        """Find the device, run `on_connect`, and go online. Raises why it cannot; then there is no connection.

        `_connection` is set before `on_connect` runs, so that a loss during it is noticed, and `_setting_up` lets
        only this thread use it. The identity is remembered once the set-up has succeeded.
        """
        found = self._search.find()
        with self._changed:
            self._connection, self._found, self._setting_up = found.connection, found, threading.get_ident()
            self._last_success, self._doubtful = time.monotonic(), False
        try:
            if self._on_connect is not None:
                self._on_connect(self)
            self._search.known = found.fingerprint
            self._online(found)
        except BaseException:
            self._drop(found.connection, Disconnected(found.port, "it could not be set up"))
            raise
        finally:
            self._setting_up = None

    def _online(self, found: FoundPort) -> None:
        with self._changed:
            if self._connection is not found.connection or found.connection.lost:
                raise Disconnected(found.port, "the device went away while it was set up")
            self._counters.connections += 1
            self._change_presence(Presence(True, found.port, "connected"))

    def _change_presence(self, presence: Presence) -> None:
        """Set the presence, wake the waiting threads, and call the watchers. The condition is held."""
        self._presence = presence
        self._changed.notify_all()
        for watcher in self._watchers:
            self._callbacks.put(watcher, presence)

    def _drop(self, connection: PortConnection | None, error: AdapterError) -> None:
        """End this connection: offline, the lease is marked as interrupted, and the search begins.

        Called from several threads for one loss; only the first call for a connection finds it in `_connection`. The
        connection is closed outside the lock, because closing joins its reading thread, which may be waiting for this
        lock.
        """
        with self._changed:
            if connection is None or self._connection is not connection:
                return
            self._connection = None
            self._counters.add_connection(connection.counts)
            self._search.owed = connection.owed()
            if self._presence.online:
                self._lock.interrupt(error.problem)
                self._change_presence(Presence(False, self.port, error.problem))
                self._begin_search()
        connection.close()

    def _begin_search(self) -> None:
        if self._reconnects and not self._closing.is_set():
            self._searcher = threading.Thread(
                target=self._search_until_found, name=f"search for {self.name}", daemon=True
            )
            self._searcher.start()

    def _search_until_found(self) -> None:
        """Search until the device is online again, or the adapter is closed."""
        logged: set[str] = set()
        pause_s = SEARCH_EVERY_S
        while not self._closing.is_set():
            try:
                self._connect()
                break
            except AdapterError as error:
                self._note_reason(str(error), logged)
            except Exception as error:
                if self._note_reason(f"{type(error).__name__}: {error}", logged):
                    logger.exception("%s: its on_connect or candidates failed; it is tried again", self.name)
            self._closing.wait(pause_s)
            pause_s = min(pause_s * 1.2, SEARCH_RARELY_S)
        if self._closing.is_set():  # `close` may have come between the search and the new connection
            self._drop(self._connection, Disconnected(self.name, "the adapter was closed"))

    def _note_reason(self, reason: str, logged: set[str]) -> bool:
        """Put the reason into the presence, and into the log where it is new; whether it was new."""
        with self._changed:
            self._presence = Presence(False, self.port, reason, self._presence.since)
        if reason in logged or len(logged) >= _REASONS_LIMIT:
            return False
        logged.add(reason)
        logger.info("%s: still offline: %s", self.name, reason)
        return True
