"""Instruments on serial lines, over pyserial: real ports, ptys, and every URL that it knows (`loop://`,
`socket://host:port`, `rfc2217://host:port`, `hwgrep://pattern`).

    heater = SerialPort("/dev/ttyUSB0", identity=Identity("ACME,Heater,0042,1.3"))
    heater.query("TEMP?")                                        # "21.5"

`SerialPort` is an `Adapter` (retries, identity, reconnect, leases: see there) over a serial line.

How it works. A thread reads each open port (`_read`) and puts the bytes through a `Framer`. It decides for each frame
whether that answers the query that is waiting (`ask`), is the late answer to an earlier query, or is unsolicited and
goes to `on_input`. `ask` sends, then waits on the condition `_changed` until the reading thread has set `_answer`,
`_bad` or `_lost`. Because a thread always reads, a pulled plug is noticed at once.

The trap: a serial line has no ids, so an answer that arrives after its time-out could be taken for the answer to the
next query. Therefore, after a time-out, `ask` first waits until the line has been quiet for `settle_s`; frames that
arrive until then are counted as late and dropped.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Unpack

import serial
from serial.tools import list_ports

from hardware_adapters.adapter import Adapter
from hardware_adapters.connection import LineCounts, PortEvents
from hardware_adapters.errors import BadAnswer, Disconnected, NoAnswer
from hardware_adapters.framing import Framer, Framing, lines
from hardware_adapters.identity import PortInfo
from hardware_adapters.options import AdapterOptions
from hardware_adapters.port_access import PORT_FAULTS, hold, opening_error, release
from hardware_adapters.twins import simulated_bench

_READ_S = 0.2
"""The time-out of a read. Where a read cannot be interrupted (sockets), closing waits so long."""

OPENING_FAULTS: tuple[type[Exception], ...] = (*PORT_FAULTS, ValueError)
"""Pyserial raises ValueError for a URL that it does not know."""

_SETTLE_LIMIT_S = 1.0
"""The longest wait for a quiet line; then the command is sent all the same."""

_JOIN_S = 2.0
_WRITE_S = 2.0


class SerialPort(Adapter):
    """An instrument on a serial line.

    `port` is searched first (None: the device is found by its identity alone). `candidates` are further ports: names,
    patterns (`/dev/ttyUSB*`), or a function that lists `PortInfo`; by default the ports of this machine, where `port`
    is one of them. `framing` is the form of its messages. `unsolicited(frame)` tells input from answers (by default,
    a frame is input where no query waits). `line` goes to pyserial (`parity="E"`, `rtscts=True`). The other options:
    see `Adapter`.
    """

    def __init__(
        self,
        port: str | None = None,
        baudrate: int = 9600,
        *,
        framing: Framing | None = None,
        unsolicited: Callable[[bytes], bool] | None = None,
        candidates: Sequence[str] | Callable[[], Sequence[PortInfo]] | None = None,
        settle_s: float = 0.05,
        line: dict[str, Any] | None = None,
        **options: Unpack[AdapterOptions],
    ) -> None:
        framing = framing or lines()
        bench = simulated_bench()
        if bench is not None:
            options.setdefault("name", port or "")
            port, candidates = port and bench.port(port), partial(bench.serial_ports, candidates)
        settings = {"baudrate": baudrate, **(line or {})}
        self.medium = SerialMedium(settings, framing, unsolicited, _lister(port, candidates), settle_s)
        super().__init__(self.medium, port, encode=framing.encode, **options)


def _lister(
    port: str | None, candidates: Sequence[str] | Callable[[], Sequence[PortInfo]] | None
) -> Callable[[], Sequence[PortInfo]]:
    if callable(candidates):
        return candidates
    if candidates is not None:
        patterns = tuple(candidates)
        return lambda: _matching(patterns)
    if port is None or port in {info.device for info in system_ports()}:
        return system_ports
    return lambda: [PortInfo(port)]


def system_ports() -> list[PortInfo]:
    """The serial ports of this machine, with their USB facts."""
    return [
        PortInfo(found.device, found.serial_number, found.vid, found.pid, found.description)
        for found in sorted(list_ports.comports())
    ]


def _matching(patterns: Sequence[str]) -> list[PortInfo]:
    """Ports that match a pattern: those of this machine with their USB facts, other files (ptys, links) and URLs by
    name."""
    known = {os.path.realpath(info.device): info for info in system_ports()}
    names = [name for pattern in patterns for name in _names(pattern, known)]
    return [known.get(os.path.realpath(name), PortInfo(name))._replace(device=name) for name in dict.fromkeys(names)]


def _names(pattern: str, known: dict[str, PortInfo]) -> list[str]:
    if "://" in pattern:
        return [pattern]
    there = [info.device for info in known.values() if fnmatch.fnmatch(info.device, pattern)]
    return sorted({*there, *glob.glob(pattern)})


class SerialMedium:
    """Opens serial ports, with the line's settings, the framing, and the test for unsolicited frames."""

    def __init__(
        self,
        settings: dict[str, Any],
        framing: Framing,
        unsolicited: Callable[[bytes], bool] | None,
        lister: Callable[[], Sequence[PortInfo]],
        settle_s: float,
    ) -> None:
        self._settings, self._framing, self._unsolicited = settings, framing, unsolicited
        self._lister, self._settle_s = lister, settle_s

    def ports(self) -> Sequence[PortInfo]:
        """See `Medium`."""
        return self._lister()

    def open(self, port: str, events: PortEvents, holder: str) -> SerialConnection:
        """See `Medium`."""
        try:
            opened = serial.serial_for_url(port, do_not_open=True, **self._settings)
            opened.timeout = _READ_S
            if not port.startswith("rfc2217://"):  # pyserial has no time limit for writing there
                opened.write_timeout = _WRITE_S
            if "://" not in port and os.name == "posix":
                opened.exclusive = True
            opened.open()
        except OPENING_FAULTS as error:
            raise opening_error(port, error) from error
        return SerialConnection(
            hold(port, holder), port, opened, Framer(self._framing), events, self._unsolicited, self._settle_s
        )


class SerialConnection:
    """One open serial port and the thread that reads it."""

    def __init__(
        self,
        held: str,
        port: str,
        opened: serial.Serial,
        framer: Framer,
        events: PortEvents,
        unsolicited: Callable[[bytes], bool] | None,
        settle_s: float,
    ) -> None:
        self._held, self.port = held, port
        self._serial, self._framer, self._events = opened, framer, events
        self._unsolicited, self._settle_s = unsolicited, settle_s
        self._changed = threading.Condition()
        self._asking = False  # a query waits for its answer
        self._stale = False  # a query has failed: an answer to it may still arrive
        self._owed, self._late = 0, 0  # answers that may still arrive; those that did, after their time-out
        self._skipped_before = 0
        self._answer: bytes | None = None
        self._last_answer = 0.0
        self._bad: BadAnswer | None = None
        self._lost: Disconnected | None = None
        self._closing = False
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._read, name=f"serial {port}", daemon=True)
        self._thread.start()

    @property
    def counts(self) -> LineCounts:
        """See `Connection`."""
        with self._changed:
            return LineCounts(self._framer.skipped, self._framer.faults, self._late)

    @property
    def lost(self) -> Disconnected | None:
        """See `Connection`."""
        return self._lost

    def tell(self, command: bytes) -> None:
        """See `Connection`. Raises NoAnswer where the line takes nothing (flow control)."""
        with self._writing:
            if self._lost is not None:
                raise Disconnected(self.port, self._lost.problem, command=command)
            try:
                self._serial.write(command)
            except serial.SerialTimeoutException as error:
                raise NoAnswer(self.port, command, float(self._serial.write_timeout or 0)) from error
            except PORT_FAULTS as error:
                raise Disconnected(self.port, f"the line broke: {error}", command=command) from error

    def ask(self, command: bytes, timeout_s: float) -> bytes:
        """See `Connection`."""
        deadline = time.monotonic() + timeout_s
        self._wait_until_quiet(min(deadline, time.monotonic() + _SETTLE_LIMIT_S))
        with self._changed:
            self._answer, self._bad, self._asking = None, None, True
            self._skipped_before = self._framer.skipped
        try:
            self.tell(command)
            with self._changed:
                self._changed.wait_for(self._is_decided, max(deadline - time.monotonic(), 0))
                return self._outcome(command, timeout_s)
        finally:
            with self._changed:
                self._asking = False

    def close(self) -> None:
        """See `Connection`."""
        with self._changed:
            self._closing = True
            self._lost = self._lost or Disconnected(self.port, "the adapter has closed this port")
            self._changed.notify_all()
        cancel = getattr(self._serial, "cancel_read", None)
        if cancel is not None and self._thread.is_alive():
            cancel()
        if self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)
        sock = getattr(self._serial, "_socket", None)
        with self._writing:
            self._serial.close()
        release(self._held)
        if sock is not None:
            sock.close()  # pyserial leaves it open where the other side was closed first

    def _is_decided(self) -> bool:
        return self._answer is not None or self._bad is not None or self._lost is not None

    def _outcome(self, command: bytes, timeout_s: float) -> bytes:
        """Return the answer, or raise why there is none. The condition is held.

        A damaged or incomplete answer is told apart from silence, because they have different causes on the bench.
        """
        if self._answer is not None:
            return self._answer
        if self._lost is not None:
            raise Disconnected(self.port, self._lost.problem, command=command)
        self._stale, self._owed = True, self._owed + 1
        if self._bad is not None:
            raise BadAnswer(self.port, self._bad.why, command=command, answer=self._bad.answer)
        if rest := self._framer.discard():
            raise BadAnswer(self.port, f"only a part came within {timeout_s:g} s", command=command, answer=rest)
        if garbage := self._framer.skipped - self._skipped_before:
            raise BadAnswer(self.port, f"only {garbage} bytes of garbage within {timeout_s:g} s", command=command)
        raise NoAnswer(self.port, command, timeout_s)

    def _wait_until_quiet(self, deadline: float) -> None:
        """After a failed query, wait until the line has been quiet for `settle_s`, or the deadline has passed.

        `_last_answer` moves on with every frame that is no unsolicited one, so that input which streams in does not
        count as noise.
        """
        with self._changed:
            quiet_from = time.monotonic()
            while self._stale and self._lost is None:
                quiet_until = max(self._last_answer, quiet_from) + self._settle_s
                now = time.monotonic()
                if now >= min(quiet_until, deadline):
                    break
                self._changed.wait(min(quiet_until, deadline) - now)
            if self._stale:
                self._framer.discard()
            self._stale, self._owed = False, 0

    def _read(self) -> None:
        """The reading thread: blocks for one byte, then takes all that have arrived."""
        try:
            while not self._closing:
                if data := self._serial.read(max(1, self._serial.in_waiting)):
                    self._take(data)
        except PORT_FAULTS as error:
            self._end(error)

    def _end(self, error: Exception) -> None:
        """The line broke: set `_lost`, wake the waiting query, then tell the adapter, without the lock held."""
        with self._changed:
            if self._closing:
                return
            self._lost = Disconnected(self.port, f"the device was unplugged or the line broke: {error}")
            self._framer.discard()
            self._changed.notify_all()
        self._events.on_lost()

    def _take(self, data: bytes) -> None:
        """Sort the frames of these bytes into answers and input. `on_input` is called without the lock held."""
        with self._changed:
            rejections = self._framer.rejections
            frames = self._framer.feed(data)
            inputs = [frame for frame in frames if not self._is_answer(frame)]
            if not frames or len(inputs) < len(frames):
                self._last_answer = time.monotonic()  # unsolicited frames alone do not count
            if self._asking and self._answer is None and self._framer.rejections > rejections:
                self._bad = BadAnswer(self.port, "a damaged message", answer=self._framer.rejected)
            self._changed.notify_all()
        for frame in inputs:
            self._events.on_input(frame)

    def _is_answer(self, frame: bytes) -> bool:
        """Whether the frame is an answer, and to which query: an earlier one that failed (late), or the waiting one.

        The order matters: answers come in the order of their queries. The condition is held.
        """
        if self._unsolicited is not None and self._unsolicited(frame):
            return False
        if self._owed:
            self._owed, self._late = self._owed - 1, self._late + 1
            return True
        if self._asking and self._answer is None:
            self._answer = frame
            return True
        return False
