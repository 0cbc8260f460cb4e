"""An instrument that is asked and answers, whichever medium carries the bytes.

    with SerialPort("/dev/ttyUSB0", identity=Identity("ACME,Heater,0042,1.3"), on_connect=restore) as heater:
        heater.query_value("TEMP?", float)

What it promises: each call returns an answer to its own command, or raises one `AdapterError` that says what
happened, within its time-out (with retries: each attempt's). Commands of several threads never mix. A device that is
unplugged and plugged in again is found by its identity, on whatever port; `on_connect` brings its settings back
before anybody else may speak to it; until then every call raises `Disconnected` at once. Another device is never
taken for it.

The trap: `retries` repeats a command. Reading twice is harmless, dosing twice is not: it is 0 unless you say so, and
`write` never repeats. `on_connect`, `on_input` and `on_presence` are called from threads of the adapter.
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
from hardware_adapters.counts import AdapterCounts, Tally
from hardware_adapters.errors import AdapterError, BadAnswer, Disconnected, NoAnswer, WrongDevice
from hardware_adapters.identity import Fingerprint, Identity
from hardware_adapters.lease import Lease, PortLock
from hardware_adapters.listeners import Calls, late_bound
from hardware_adapters.options import AdapterOptions, check_options
from hardware_adapters.search import FoundPort, Search

logger = logging.getLogger("Ether.hardware")

SEARCH_EVERY_S, SEARCH_RARELY_S = 0.1, 0.5
VERIFY_AFTER_S = 2.0
"""Nobody swaps two cables in less; a line that was idle for longer is asked who it is before it is used."""

_JOIN_S = 5.0
_REASONS_LIMIT = 20
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
        self.name = options.get("name") or port or str(self._identity)
        self.timeout_s, self.retries = options.get("timeout_s", 1.0), options.get("retries", 0)
        self.encoding = options.get("encoding", "utf-8")
        self._on_connect = late_bound(options.get("on_connect"))
        self._on_input = late_bound(options.get("on_input"))
        told = late_bound(options.get("on_presence"))
        self._watchers: tuple[Callable[[Any], object], ...] = (told,) if told else ()
        self._reconnects = options.get("reconnect", True)
        self._verify_after_s = options.get("verify_after_s", VERIFY_AFTER_S)
        self._encode, self._tally, self._calls = encode, Tally(), Calls(self.name)
        self._lock = PortLock(self.name)
        self._changed = threading.Condition()
        self._connection: PortConnection | None = None
        self._found: FoundPort | None = None
        self._setting_up: int | None = None
        self._used, self._doubted = 0.0, False
        self._closing = threading.Event()
        self._search = Search(
            medium, port, self._identity, encode, events=PortEvents(self._input, self._lost), holder=self.name,
            timeout_s=self.timeout_s, closing=self._closing,
        )  # fmt: skip
        self._keeper: threading.Thread | None = None
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
        """Who the device is, as far as it is known; it stays the same for the life of the adapter."""
        return self._search.known

    @property
    def counts(self) -> AdapterCounts:
        """What happened so far."""
        connection = self._connection
        line = connection.counts if connection else LineCounts()
        return self._tally.counts(line, self._calls.dropped, self._calls.failed)

    def query(self, command: str, *, timeout_s: float | None = None, retries: int | None = None) -> str:
        """Send, and return the answer as text. Raises NoAnswer, BadAnswer, Disconnected, WrongDevice, PortBusy."""
        return self.query_value(command, str, timeout_s=timeout_s, retries=retries)

    def query_value(
        self, command: str, parse: Callable[[str], T], *, timeout_s: float | None = None, retries: int | None = None
    ) -> T:
        """Send, and return what `parse` makes of the answer. Its ValueError means `BadAnswer`, which is retried too."""
        sent = command.encode(self.encoding)
        return self._repeated(sent, lambda data: parse(data.decode(self.encoding)), timeout_s, retries)

    def query_bytes(self, command: bytes, *, timeout_s: float | None = None, retries: int | None = None) -> bytes:
        """Send the payload in a frame, and return the payload of the answer. Raises like `query`."""
        return self._repeated(command, bytes, timeout_s, retries)

    def write(self, command: str) -> None:
        """Send without waiting for an answer; never repeated. Raises Disconnected, NoAnswer where the line is stuck."""
        self.write_bytes(command.encode(self.encoding))

    def write_bytes(self, command: bytes) -> None:
        """Send the payload in a frame; never repeated."""
        self.send_raw(self._encode(command), command)

    def send_raw(self, message: bytes, command: bytes | None = None) -> None:
        """Send bytes as they are, already framed: binary blocks, wake-up characters."""
        with self._turn(command or message) as connection:
            self._tally.sent += 1
            self._guarded(connection, lambda: connection.tell(message))

    def lease(self, holder: str, reason: str = "", timeout_s: float = 5.0) -> Lease:
        """Have the port for oneself: see `lease.py`. Raises PortBusy, which names who has it."""
        if self._setting_up == threading.get_ident():  # on_connect has the port anyway, whoever else waits for it
            return PortLock(self.name).lease(holder, reason)
        return self._lock.lease(holder, reason, timeout_s)

    @property
    def lock(self) -> PortLock:
        """The port's lock: `lock.holding` says who has it."""
        return self._lock

    def watch_presence(self, callback: Callable[[Presence], object]) -> Callable[[], None]:
        """Call back, as `on_presence`, whenever the device goes or returns; returns what ends it."""
        self._watchers = (*self._watchers, callback)

        def end() -> None:
            self._watchers = tuple(watcher for watcher in self._watchers if watcher is not callback)

        return end

    def wait_online(self, timeout_s: float) -> bool:
        """Wait until the device is there and set up; False where it is not within `timeout_s` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._presence.online or self._closing.is_set(), timeout_s) and (
                self._presence.online
            )

    def close(self) -> None:
        """Free the port and end every thread; harmless twice."""
        self._closing.set()
        self._drop(self._connection, Disconnected(self.name, "the adapter was closed"))
        keeper = self._keeper
        if keeper is not None and keeper is not threading.current_thread():
            keeper.join(_JOIN_S)
        self._calls.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Asking

    def _repeated(self, command: bytes, parse: Callable[[bytes], T], timeout_s: float | None, retries: int | None) -> T:
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        attempts = 1 + (self.retries if retries is None else retries)
        with self._lease_for(command):
            for attempt in range(1, attempts + 1):
                try:
                    return self._once(command, parse, timeout_s)
                except (NoAnswer, BadAnswer) as error:
                    self._tally.note(error)
                    if attempt == attempts:
                        self._give_up(error, attempts)
                    self._tally.retried += 1
        raise ValueError(f"retries must be 0 or more, not {attempts - 1}")

    def _give_up(self, error: NoAnswer | BadAnswer, attempts: int) -> NoReturn:
        if isinstance(error, NoAnswer) and attempts > 1:
            raise NoAnswer(error.port, error.command, error.timeout_s, attempts) from error
        raise error

    def _once(self, command: bytes, parse: Callable[[bytes], T], timeout_s: float) -> T:
        with self._turn(command) as connection:
            self._tally.sent += 1
            message = self._encode(command)
            answer = self._guarded(connection, lambda: connection.ask(message, timeout_s))
            try:
                value = parse(answer)
            except ValueError as error:
                why = f"not what was expected ({error})"
                raise BadAnswer(self.port, why, command=command, answer=answer) from error
        self._tally.answered += 1
        return value

    def _lease_for(self, command: bytes) -> AbstractContextManager[object]:
        """The port for one command. Who sets the device up needs none: everybody else is refused meanwhile."""
        if self._setting_up == threading.get_ident():
            return nullcontext()
        self._present(command)
        lease = self._lock.lease(self.name, f"{command[:40]!r}")
        if lease.interrupted:
            lease.release()
            why = f"the device was lost during the lease of {lease.holding}; what was begun must begin again"
            raise Disconnected(self.name, why, command=command)
        return lease

    @contextmanager
    def _turn(self, command: bytes) -> Iterator[PortConnection]:
        """One command's turn: the lease, and the connection after it was made sure who is there."""
        with self._lease_for(command):
            connection = self._present(command)
            self._verify(connection)
            yield connection

    def _present(self, command: bytes) -> PortConnection:
        """The connection, if this thread may use it now."""
        connection = self._connection
        if connection is not None and (self._presence.online or self._setting_up == threading.get_ident()):
            return connection
        raise Disconnected(self.name, f"the device is not there: {self._presence.reason}", command=command)

    def _guarded(self, connection: PortConnection, action: Callable[[], T]) -> T:
        """The action; what it raises is kept in mind: a lost device, a doubtful one."""
        try:
            value = action()
        except Disconnected as error:
            self._drop(connection, error)
            raise
        except AdapterError:
            self._doubted = True
            raise
        self._used = time.monotonic()
        return value

    def _verify(self, connection: PortConnection) -> None:
        """Ask who it is, where too long was nothing heard or the last command went wrong."""
        asked, found = self._identity is not None and self._identity.is_asked, self._found
        if not asked or found is None or self._verify_after_s is None or self._setting_up == threading.get_ident():
            return
        if not self._doubted and time.monotonic() - self._used < self._verify_after_s:
            return
        try:
            self._guarded(connection, lambda: self._search.verify(connection, found))
        except WrongDevice as error:
            self._drop(connection, Disconnected(self.port, str(error)))
            raise
        self._doubted = False

    # Connecting

    def _input(self, frame: bytes) -> None:
        """A frame that nobody asked for. What comes while ports are searched may be a stranger's."""
        if self._connection is None:
            return
        self._tally.inputs += 1
        if self._on_input is not None:
            self._calls.put(self._on_input, frame)

    def _lost(self) -> None:
        """A connection has ended by itself, perhaps the present one."""
        connection = self._connection
        if connection is not None and (error := connection.lost) is not None:
            self._drop(connection, error)

    def _connect(self) -> None:
        """Find the device, set it up, and let everybody use it."""
        found = self._search.find()
        with self._changed:
            self._connection, self._found, self._setting_up = found.connection, found, threading.get_ident()
            self._used, self._doubted = time.monotonic(), False
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
            self._tally.connections += 1
            self._tell(Presence(True, found.port, "connected"))

    def _tell(self, presence: Presence) -> None:
        """Everybody hears of it. The condition is held."""
        self._presence = presence
        self._changed.notify_all()
        for watcher in self._watchers:
            self._calls.put(watcher, presence)

    def _drop(self, connection: PortConnection | None, error: AdapterError) -> None:
        """A connection ends: offline for everybody, and the search begins. Once for each connection."""
        with self._changed:
            if connection is None or self._connection is not connection:
                return
            self._connection = None
            self._tally.add_line(connection.counts)
            if self._presence.online:
                self._lock.interrupt(error.problem)
                self._tell(Presence(False, self.port, error.problem))
                self._begin_search()
        connection.close()

    def _begin_search(self) -> None:
        if self._reconnects and not self._closing.is_set():
            self._keeper = threading.Thread(target=self._keep, name=f"search for {self.name}", daemon=True)
            self._keeper.start()

    def _keep(self) -> None:
        """Search until the device is there again, or the adapter is closed."""
        told: set[str] = set()
        pause_s = SEARCH_EVERY_S
        while not self._closing.is_set():
            try:
                self._connect()
                break
            except AdapterError as error:
                self._explain(str(error), told)
            except Exception as error:
                if self._explain(f"{type(error).__name__}: {error}", told):
                    logger.exception("%s: its on_connect or candidates failed; it is tried again", self.name)
            self._closing.wait(pause_s)
            pause_s = min(pause_s * 1.2, SEARCH_RARELY_S)
        if self._closing.is_set():
            self._drop(self._connection, Disconnected(self.name, "the adapter was closed"))

    def _explain(self, reason: str, told: set[str]) -> bool:
        """Why it is still offline, in the log when it is new; whether it was."""
        with self._changed:
            self._presence = Presence(False, self.port, reason, self._presence.since)
        if reason in told or len(told) >= _REASONS_LIMIT:
            return False
        told.add(reason)
        logger.info("%s: still offline: %s", self.name, reason)
        return True
