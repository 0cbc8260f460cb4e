"""Instruments on serial lines, over pyserial: real ports, ptys, and every URL that it knows (`loop://`,
`socket://host:port`, `rfc2217://host:port`, `hwgrep://pattern`).

    heater = SerialPort("/dev/ttyUSB0", identity=Identity("ACME,Heater,0042,1.3"))
    heater.query("TEMP?")                                        # "21.5"

`SerialPort` is an `Adapter` (retries, identity, reconnect, leases: see there) over a serial line.

How it works. A thread reads each open port (`_read`) and puts the bytes through a `Framer`. `LineStep` decides for each
frame whether that answers the query that is waiting (`ask`), is the late answer to an earlier one, or is unsolicited
and goes to `on_input`. `ask` waits until the line is in step, sends, then waits on the condition `_changed` until the
reading thread has found the answer, or set `_bad` or `_lost`. Because a thread always reads, a pulled plug is noticed
at once.

The trap: a serial line has no ids, so an answer that arrives after its time-out could be taken for the answer to the
next query; see step_rules.py.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import serial
from serial.tools import list_ports

from hardware_adapters.adapter import Adapter
from hardware_adapters.connection import (
    QUIET_LIMIT_S,
    LineCounts,
    PortEvents,
    not_quiet,
    two_answers,
    unanswered,
)
from hardware_adapters.errors import BadAnswer, Disconnected, NoAnswer, PortNotFound
from hardware_adapters.framing import Framer, Framing, lines
from hardware_adapters.identity import PortInfo
from hardware_adapters.options import AdapterOptions, line_rules
from hardware_adapters.port_access import PORT_FAULTS, hold, opening_error, release
from hardware_adapters.sockets import PROBE_S, connection_fault, send_at_once
from hardware_adapters.step_rules import Fate, LineRules, LineStep, Owed
from hardware_adapters.twins import simulated_bench

_READ_S = 0.2
"""The time-out of a read. Where a read cannot be interrupted (sockets), closing waits so long."""

OPENING_FAULTS: tuple[type[Exception], ...] = (*PORT_FAULTS, ValueError)
"""Pyserial raises ValueError for a URL that it does not know."""

_READ_BYTES = 65536
_JOIN_S = 2.0
_WRITE_S = 2.0
_INPUTS = (Fate.INPUT, Fate.SURPLUS)


class SerialPort(Adapter):
    """An instrument on a serial line.

    `port` is searched first (None: the device is found by its identity alone). `candidates` are further ports: names,
    patterns (`/dev/ttyUSB*`), or a function that lists `PortInfo`; by default the ports of this machine, where `port`
    is one of them. `framing` is the form of its messages. `line` goes to pyserial (`parity="E"`, `rtscts=True`);
    `dtr=False` and `rts=False` are set before the port is opened, which keeps some boards from being reset. The other
    options: see `AdapterOptions`.
    """

    def __init__(
        self,
        port: str | None = None,
        baudrate: int = 9600,
        *,
        framing: Framing | None = None,
        candidates: Sequence[str] | Callable[[], Sequence[PortInfo]] | None = None,
        line: dict[str, Any] | None = None,
        **options: Unpack[AdapterOptions],
    ) -> None:
        framing = framing or lines()
        bench = simulated_bench()
        if bench is not None:
            options.setdefault("name", port or "")
            port, candidates = port and bench.port(port), partial(bench.serial_ports, candidates)
        settings = {"baudrate": baudrate, **(line or {})}
        self.medium = SerialMedium(settings, framing, line_rules(options), _lister(port, candidates))
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
    """Opens serial ports, with the line's settings, the framing, and what is known of the instrument."""

    def __init__(
        self, settings: dict[str, Any], framing: Framing, rules: LineRules, lister: Callable[[], Sequence[PortInfo]]
    ) -> None:
        self._signals = {name: settings[name] for name in ("dtr", "rts") if name in settings}
        self._settings = {name: value for name, value in settings.items() if name not in self._signals}
        self._framing, self._rules, self._lister = framing, rules, lister
        try:
            serial.Serial(None, **self._settings)
        except (ValueError, TypeError) as error:
            raise ValueError(f"line= has a setting that pyserial does not take: {error}") from error

    def ports(self) -> Sequence[PortInfo]:
        """See `Medium`."""
        return self._lister()

    def open(self, port: str, events: PortEvents, holder: str, owed: Sequence[Owed] = ()) -> SerialConnection:
        """See `Medium`."""
        try:
            opened = serial.serial_for_url(port, do_not_open=True, **self._settings)
            for signal, level in self._signals.items():
                setattr(opened, signal, level)
            opened.timeout = _READ_S
            if not port.startswith("rfc2217://"):  # pyserial has no time limit for writing there
                opened.write_timeout = _WRITE_S
            if "://" not in port and os.name == "posix":
                opened.exclusive = True
            opened.open()
        except OPENING_FAULTS as error:
            raise opening_error(port, error) from error
        connected = getattr(opened, "_socket", None)
        if connected is not None and (fault := connection_fault(connected, PROBE_S)):
            opened.close()
            connected.close()  # pyserial leaves it open where the other side was closed first
            raise PortNotFound(port, f"nobody answers there: {fault}")
        if connected is not None:
            send_at_once(connected)
        rules = self._rules
        if port.startswith("loop://") and rules.echo is None:  # what comes back there is all there is
            rules = replace(rules, echo=False)
        return SerialConnection(hold(port, holder), port, opened, Framer(self._framing), events, LineStep(rules, owed))


def _file_of(opened: serial.Serial, port: str) -> int:
    """The file descriptor that can be waited for; -1 where there is none (Windows, URLs of pyserial's own)."""
    waits = hasattr(select, "poll") and (type(opened) is serial.Serial or port.startswith("socket://"))
    return int(opened.fileno()) if waits else -1


class SerialConnection:
    """One open serial port and the thread that reads it."""

    def __init__(
        self, held: str, port: str, opened: serial.Serial, framer: Framer, events: PortEvents, step: LineStep
    ) -> None:
        self._held, self.port = held, port
        self._serial, self._framer, self._events = opened, framer, events
        self._file, self._wakers = (
            _file_of(opened, port),
            [fd] if (fd := getattr(opened, "pipe_abort_read_r", None)) else [],
        )
        self._poll = select.poll() if self._file >= 0 else None
        if self._poll is not None:
            self._poll.register(self._file, select.POLLIN)
        self._changed = threading.Condition()  # guards the framer, the step, and what follows
        self._step = step
        self._asked, self._deadline, self._skipped_before = b"", 0.0, 0
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
            return LineCounts(self._framer.skipped, self._framer.faults, *self._step.counts)

    @property
    def lost(self) -> Disconnected | None:
        """See `Connection`."""
        return self._lost

    @property
    def in_step(self) -> bool:
        """See `Connection`."""
        return self._step.in_step

    def owed(self) -> Sequence[Owed]:
        """See `Connection`."""
        with self._changed:
            return self._step.owed(time.monotonic())

    def tell(self, command: bytes) -> None:
        """See `Connection`. Raises NoAnswer where the line takes nothing (flow control)."""
        with self._changed:
            self._step.wrote(command, time.monotonic())
        self._send(command)

    def ask(
        self, command: bytes, timeout_s: float, fits: Callable[[bytes], bool] | None = None, *, wait: bool = True
    ) -> bytes:
        """See `Connection`."""
        with self._changed:
            if wait:
                self._wait_in_step(command)
            self._bad, self._skipped_before = None, self._framer.skipped
            self._asked, self._deadline = command, time.monotonic() + timeout_s
            self._step.begin(command, timeout_s, self._deadline, fits)
        try:
            self._send(command)
            with self._changed:
                self._changed.wait_for(self._is_decided, max(self._deadline - time.monotonic(), 0))
                if not self._is_decided() and self._waiting():  # in time, but the machine is too busy to read it
                    self._changed.wait_for(self._is_decided, self._step.rules.settle_s)
                self._hold()
                return self._outcome(command, timeout_s)
        finally:
            if self._step.asks:  # the outcome is no answer
                with self._changed:
                    self._step.failed(time.monotonic())

    def refuse(self) -> None:
        """See `Connection`."""
        with self._changed:
            self._step.refused(self._asked, time.monotonic(), self._deadline)

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

    def _send(self, command: bytes) -> None:
        with self._writing:
            if self._lost is not None:
                raise Disconnected(self.port, self._lost.problem, command=command)
            try:
                self._serial.write(command)
            except serial.SerialTimeoutException as error:
                raise NoAnswer(self.port, command, float(self._serial.write_timeout or 0)) from error
            except PORT_FAULTS as error:
                raise Disconnected(self.port, f"the line broke: {error}", command=command) from error

    def _is_decided(self) -> bool:
        return self._step.answer is not None or self._bad is not None or self._lost is not None

    def _is_unspoilt(self) -> bool:
        return self._step.answer is not None and self._step.second is None and self._lost is None

    def _hold(self) -> None:
        """Wait for a second frame, where there is a reason to expect one, or its bytes are there. The condition is
        held."""
        if self._step.needs_no_hold and not self._framer.pending and not self._waiting():
            return
        answered = time.monotonic()
        while self._is_unspoilt():
            now = time.monotonic()
            until = self._step.hold_until(now)
            if self._framer.pending or self._waiting():
                until = max(until, min(self._step.quiet_at, answered + QUIET_LIMIT_S))
            if now >= until:
                return
            self._changed.wait(until - now)

    def _outcome(self, command: bytes, timeout_s: float) -> bytes:
        """Return the answer, or raise why there is none. The condition is held.

        A damaged frame was the answer, most likely; on a line of a device that also speaks unasked it may have been
        something else.
        """
        step = self._step
        if step.second is None and (answer := step.answer) is not None:
            step.answered()
            return answer
        now = time.monotonic()
        if step.second is not None:
            error = two_answers(self.port, command, step)
            step.refused(command, now, 0.0)
            raise error
        if self._lost is not None:
            raise Disconnected(self.port, self._lost.problem, command=command)
        if self._bad is not None:
            step.refused(command, now, self._deadline if step.speaks else 0.0)
            raise BadAnswer(self.port, self._bad.why, command=command, answer=self._bad.answer)
        garbage = self._framer.skipped - self._skipped_before
        raise unanswered(self.port, command, timeout_s, step, self._framer.pending, garbage)

    def _wait_in_step(self, command: bytes) -> None:
        """Wait until the line is in step, and nothing is on its way. The condition is held.

        Bytes that are there before the question begin a frame that is not its answer: its end is awaited. The rest of
        a frame whose end does not come is dropped, so that it is not the beginning of the next one.
        """
        step = self._step
        if step.in_step and not self._framer.pending and not self._waiting():
            return
        began = time.monotonic()
        limit = max(step.ready_at(began), began + step.rules.settle_s) + QUIET_LIMIT_S
        while self._lost is None:
            now = time.monotonic()
            ready = step.ready_at(now)
            if self._framer.pending:
                ready = max(ready, step.quiet_at)
            elif self._waiting():  # the reading thread has not come to it yet
                ready = max(ready, began + step.rules.settle_s)
            if now >= ready:
                break
            if now >= limit:
                raise not_quiet(self.port, command)
            self._changed.wait(min(ready, limit) - now)
        self._framer.discard()
        step.settled()

    def _waiting(self) -> bool:
        """Whether bytes have come that the reading thread has not taken yet."""
        if self._poll is not None:
            return bool(self._poll.poll(0))
        try:
            return bool(self._serial.in_waiting)
        except PORT_FAULTS:
            return False  # the line broke: sending into it says so

    def _read(self) -> None:
        """The reading thread: blocks for one byte, then takes all that have arrived."""
        read = self._read_port if self._poll is None else self._read_file
        try:
            while not self._closing:
                if data := read():
                    self._take(data)
        except PORT_FAULTS as error:
            self._end(error)

    def _read_port(self) -> bytes:
        """What has come, after a wait."""
        return bytes(self._serial.read(max(1, self._serial.in_waiting)))

    def _read_file(self) -> bytes:
        """The same of a POSIX port, or a socket, all at once. Pyserial would read the first byte alone, and a socket
        byte by byte, and so tear apart what came as one."""
        ready = select.select([self._file, *self._wakers], [], [], _READ_S)[0]
        if self._file not in ready:
            return b""
        try:
            data = os.read(self._file, _READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return b""
        if not data:
            raise ConnectionError("the other side has hung up")
        return data

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
            step, now, rejections = self._step, time.monotonic(), self._framer.rejections
            frames = self._framer.feed(data)
            inputs = [frame for frame in frames if step.take(frame, now) in _INPUTS]
            if not frames:  # unsolicited frames alone do not count as movement
                step.moved(now)
            if step.asks and step.answer is None and self._framer.rejections > rejections:
                self._bad = BadAnswer(self.port, "a damaged message", answer=self._framer.rejected)
            self._changed.notify_all()
        for frame in inputs:
            self._events.on_input(frame)
