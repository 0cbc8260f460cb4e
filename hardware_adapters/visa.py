"""Instruments that VISA reaches: GPIB, USB, LAN, serial; over pyvisa, with pyvisa-py or a vendor's library.

    scope = VisaInstrument("TCPIP::10.0.0.7::INSTR", identity="ACME,Scope,7,2.0")
    scope.query("MEAS:VPP?")

The library is part of the resource string: `…@py` is pyvisa-py, `…@sim` pyvisa-sim, `…@bench.yaml@sim` pyvisa-sim
with that file; without it pyvisa takes a vendor's library where there is one, else pyvisa-py. Every status code that
pyvisa defines becomes exactly one typed error (`error_kind`). After each of them the port's lock is free, and the
session can be used.

How it works. There is no reading thread: `ask` writes and reads in the caller's thread, one caller at a time
(`_using`). Message-based interfaces (GPIB, USBTMC, VXI-11) mark the end of a message, so one read is one answer.
Plain sockets and serial lines (`_is_stream`) do not, so their bytes go through a `Framer`. `LineStep` decides which
message answers which query. After a failed query the session is out of step: before the next command the late answer
is cleared away by a device clear, or, where there is none, waited for. What has come before a query is read and dropped
first, or goes to `on_input`.

The trap: VISA over a serial line, and with a vendor's library over a plain socket, notices a pulled plug only at the
next query.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Unpack

from hardware_adapters.adapter import Adapter
from hardware_adapters.connection import (
    QUIET_LIMIT_S,
    LineCounts,
    PortEvents,
    not_quiet,
    two_answers,
    unanswered,
)
from hardware_adapters.errors import (
    AdapterError,
    BadAnswer,
    Disconnected,
    NoAnswer,
    PermissionDenied,
    PortBusy,
    PortNotFound,
    VisaFailure,
)
from hardware_adapters.framing import Framer, ScpiMessages, unblocked
from hardware_adapters.identity import PortInfo
from hardware_adapters.options import AdapterOptions, line_rules
from hardware_adapters.sockets import PROBE_S, HangUpWatch, connection_fault, send_at_once
from hardware_adapters.step_rules import Fate, LineRules, LineStep, Owed
from hardware_adapters.twins import simulated_bench

try:
    import pyvisa
    from pyvisa import constants, errors, resources, rname
except ImportError as missing:
    raise ImportError("VISA instruments need pyvisa: pip install 'ether-medium[visa]'", name="pyvisa") from missing

Status = constants.StatusCode
_OPEN_S = 5.0
_CLEAR_S = 1.0
_INPUTS = (Fate.INPUT, Fate.SURPLUS)
_SHORTEST_S = 0.001
"""VISA counts in milliseconds, and 0 is no waiting, or (libusb) for ever."""

_SIM_READ_S = 0.005
"""Pyvisa-sim gives out one byte at a time, and an immediate read would lose the first one of a message."""

_KINDS: dict[type[AdapterError], tuple[Status, ...]] = {
    PortNotFound: (
        Status.error_resource_not_found, Status.error_invalid_resource_name, Status.error_machine_not_available,
        Status.error_interface_number_not_configured,
    ),
    PermissionDenied: (Status.error_no_permission, Status.error_invalid_access_key),
    PortBusy: (
        Status.error_resource_busy, Status.error_resource_locked, Status.error_line_in_use, Status.error_in_progress,
    ),
    NoAnswer: (Status.error_timeout, Status.error_no_listeners),
    BadAnswer: (
        Status.error_serial_framing, Status.error_serial_overrun, Status.error_serial_parity, Status.error_bus_error,
        Status.error_input_protocol_violation, Status.error_output_protocol_violation,
        Status.error_raw_read_protocol_violation, Status.error_raw_write_protocol_violation,
        Status.error_response_pending,
    ),
    Disconnected: (Status.error_connection_lost, Status.error_invalid_object, Status.error_io),
}  # fmt: skip
_KIND_OF = {status: kind for kind, statuses in _KINDS.items() for status in statuses}


def error_kind(status: Status) -> type[AdapterError] | None:
    """The typed error for a status code of VISA; None for codes of success and warnings.

    Codes that concern neither the port nor the device's answer (a wrong mode, an unsupported attribute, a failed
    library) become `VisaFailure`, which keeps the code's name.
    """
    return _KIND_OF.get(status, VisaFailure) if status < 0 else None


def visa_error(port: str, status: int, command: bytes | None = None, timeout_s: float = 0.0) -> AdapterError:
    """The typed error for a status code that VISA returned; `VisaFailure` for one that pyvisa does not know."""
    try:
        code = Status(status)
    except ValueError:
        return VisaFailure(port, f"unknown status code {status}", command=command)
    kind, problem = error_kind(code) or VisaFailure, _description(code)
    if kind is NoAnswer:
        return NoAnswer(port, command, timeout_s)
    if kind is PortBusy:
        return PortBusy(port, reason=problem, command=command)
    if kind is PermissionDenied:
        return PermissionDenied(port, command=command)
    if kind is BadAnswer:
        return BadAnswer(port, problem, command=command)
    if kind is VisaFailure:
        return VisaFailure(port, problem, command=command, status=code.name)
    return kind(port, problem, command=command)


def _description(code: Status) -> str:
    return str(errors.completion_and_error_messages.get(code, ("", code.name))[1]).rstrip(".")


class VisaInstrument(Adapter):
    """An instrument that VISA reaches.

    `resource` is its VISA name, with the library after `@` (None: it is found by its identity, in `library`).
    `candidates` are further names. `settings` are set on the pyvisa resource (`{"baud_rate": 9600}`). `end` terminates
    commands (`command_end`, where that differs), and answers on interfaces without an end of message. The other
    options: see `AdapterOptions`.
    """

    def __init__(
        self,
        resource: str | None = None,
        *,
        library: str = "",
        candidates: Sequence[str] | None = None,
        settings: dict[str, Any] | None = None,
        end: bytes = b"\n",
        command_end: bytes | None = None,
        **options: Unpack[AdapterOptions],
    ) -> None:
        if options.get("ready") is not None:  # nobody reads a VISA resource before it is asked something
            raise TypeError("ready= is an option of SerialPort; over VISA say how long the device boots, boot_s=2")
        bench = simulated_bench()
        if bench is not None:
            options.setdefault("name", resource or "")
            resource = resource and bench.resource(resource)
            candidates = bench.resources(candidates) if resource is None or candidates is not None else None
        if resource is not None:
            library = resource.partition("@")[2] or library
        medium = VisaMedium(library, settings or {}, end, line_rules(options), resource, candidates)
        ends_with = end if command_end is None else command_end
        super().__init__(medium, resource, encode=lambda payload: payload + ends_with, **options)


class VisaMedium:
    """Opens VISA resources."""

    def __init__(
        self,
        library: str,
        settings: dict[str, Any],
        end: bytes,
        rules: LineRules,
        named: str | None,
        candidates: Sequence[str] | None,
    ) -> None:
        self._library, self._settings, self._end, self._rules = library, settings, end, rules
        self._named, self._candidates = named, candidates

    def ports(self) -> Sequence[PortInfo]:
        """See `Medium`. Without candidates: the named resource alone, or all on USB where it is one on USB (which may
        come back under another name); where none is named, all resources that the library lists."""
        if self._candidates is not None:
            return [resource_info(name) for name in self._candidates]
        if self._named is not None and not self._named.upper().startswith("USB"):
            return [resource_info(self._named)]
        suffix = f"@{self._library}" if self._library else ""
        pattern = "USB?*" if self._named is not None else "?*"  # one on USB does not move to GPIB
        try:
            listed = manager_of(self._library, pattern).list_resources(pattern)
        except errors.VisaIOError:  # some libraries report an empty list so
            return []
        return [resource_info(name + suffix) for name in listed]

    def open(self, port: str, events: PortEvents, holder: str, owed: Sequence[Owed] = ()) -> VisaConnection:
        """See `Medium`."""
        name, _, library = port.partition("@")
        manager = manager_of(library or self._library, port)
        resource = _opened(port, lambda: manager.open_resource(name, open_timeout=int(_OPEN_S * 1000)))
        if not isinstance(resource, resources.MessageBasedResource):
            known = resource.session != constants.VI_NULL and _is_name(name)
            resource.close()
            if not known:
                raise PortNotFound(port, _description(Status.error_invalid_resource_name))
            raise VisaFailure(port, "this resource takes no messages (register-based)")
        if resource.session == constants.VI_NULL:  # pyvisa-sim reports a missing resource only so
            raise PortNotFound(port, _description(Status.error_resource_not_found))
        connected = _socket_of(resource)
        if connected is not None and (fault := connection_fault(connected, PROBE_S)):
            resource.close()  # pyvisa-py opens a socket without a look at whether anybody answers
            raise PortNotFound(port, f"nobody answers there: {fault}")
        if connected is not None:
            send_at_once(connected)
        try:
            if _is_stream(name):
                resource.read_termination = self._end.decode("latin-1")
            for setting, value in self._settings.items():
                setattr(resource, setting, value)
        except errors.VisaIOError as error:
            resource.close()
            raise visa_error(port, error.error_code) from error
        return VisaConnection(port, resource, events, self._end, LineStep(self._rules, owed))


def _opened(port: str, action: Callable[[], Any]) -> Any:
    """What opening gives. A connection that breaks while it is made is a port that is not there."""
    try:
        return _translated(port, action)
    except (Disconnected, NoAnswer) as error:
        raise PortNotFound(port, f"it does not open: {error.problem}") from error


def _io_of(resource: resources.MessageBasedResource) -> Any:
    """The socket or serial line below a session of pyvisa-py; None where another library has it."""
    return getattr(_session_of(resource), "interface", None)


def _session_of(resource: resources.MessageBasedResource) -> Any:
    return getattr(resource.visalib, "sessions", {}).get(resource.session)


def _socket_of(resource: resources.MessageBasedResource) -> socket.socket | None:
    found = _io_of(resource)
    return found if isinstance(found, socket.socket) else None


def manager_of(library: str, port: str) -> pyvisa.ResourceManager:
    """Pyvisa's manager for a library; one for all, as pyvisa keeps it. Raises VisaFailure where there is none."""
    try:
        return pyvisa.ResourceManager(f"{'' if '@' in library or not library else '@'}{library}")
    except (OSError, ValueError) as error:
        advice = "install the library, or pyvisa-py: pip install 'ether-medium[visa]'"
        raise VisaFailure(port, f"there is no VISA library {library or '(default)'!r}: {error}; {advice}") from error


def _is_stream(name: str) -> bool:
    """Whether the interface has no end of message: a serial line or a plain socket."""
    return name.upper().startswith("ASRL") or name.upper().endswith("SOCKET")


def canonical_name(name: str) -> str:
    """The resource's name with nothing left out, as libraries keep it."""
    return rname.to_canonical_name(name)


def _is_name(name: str) -> bool:
    try:
        rname.parse_resource_name(name)
    except rname.InvalidResourceName:
        return False
    return True


def resource_info(name: str) -> PortInfo:
    """The facts in a resource's name: `USB0::0x1AB1::0x0588::DS1K00001::INSTR` holds vendor, model, serial number."""
    try:
        parsed = rname.parse_resource_name(name.partition("@")[0])
    except rname.InvalidResourceName:
        return PortInfo(name)
    if not isinstance(parsed, rname.USBInstr):
        return PortInfo(name)
    return PortInfo(name, parsed.serial_number, int(parsed.manufacturer_id, 0), int(parsed.model_code, 0))


def _translated(port: str, action: Callable[[], Any], command: bytes | None = None, timeout_s: float = 0.0) -> Any:
    """The action's value. Every exception of pyvisa and its libraries becomes one typed error here, and only here."""
    try:
        return action()
    except errors.VisaIOError as error:
        raise visa_error(port, error.error_code, command, timeout_s) from error
    except errors.InvalidSession as error:
        raise Disconnected(port, "VISA has closed this session", command=command) from error
    except OSError as error:  # pyvisa-py passes on the exceptions of sockets and serial lines
        raise Disconnected(port, f"the connection broke: {error}", command=command) from error
    except (errors.Error, NotImplementedError) as error:
        raise VisaFailure(port, str(error), command=command) from error
    except Exception as error:
        if type(error) is not Exception and not isinstance(error, ValueError):
            raise  # pyvisa-py and pyvisa-sim raise bare Exceptions where a resource does not open; others are defects
        raise PortNotFound(port, f"it does not open: {error}", command=command) from error


class VisaConnection:
    """One open VISA resource; the calling thread itself writes and reads."""

    def __init__(
        self, port: str, resource: resources.MessageBasedResource, events: PortEvents, end: bytes, step: LineStep
    ) -> None:
        self.port, self._resource, self._events, self._end, self._step = port, resource, events, end, step
        self._framer = Framer(ScpiMessages(end))
        self._stream = _is_stream(port.partition("@")[0])
        self._session, self._io, self._socket = _session_of(resource), _io_of(resource), _socket_of(resource)
        self._poll = select.poll() if self._socket is not None and hasattr(select, "poll") else None
        if self._poll is not None and self._socket is not None:
            self._poll.register(self._socket, select.POLLIN)
        self._blind_s = _SIM_READ_S if port.endswith("sim") else 0.0  # where only a read tells whether bytes have come
        self._using = threading.RLock()
        self._clears = not self._stream  # whether the interface has a device clear, as far as is known
        self._closed, self._timeout_s = False, 0.0
        self._asked, self._deadline = b"", 0.0
        self._lost: AdapterError | None = None
        self._watch = HangUpWatch(self._socket, self._hung_up) if self._socket is not None else None

    @property
    def counts(self) -> LineCounts:
        """See `Connection`."""
        return LineCounts(self._framer.skipped, self._framer.faults, *self._step.counts)

    @property
    def lost(self) -> AdapterError | None:
        """See `Connection`."""
        return self._lost

    @property
    def in_step(self) -> bool:
        """See `Connection`."""
        return self._step.in_step

    def owed(self) -> Sequence[Owed]:
        """See `Connection`."""
        return self._step.owed(time.monotonic())

    def ask(
        self, command: bytes, timeout_s: float, fits: Callable[[bytes], bool] | None = None, *, wait: bool = True
    ) -> bytes:
        """See `Connection`."""
        with self._using:
            if self._closed:
                self._check_open(command)
            self._get_ready(command, wait)
            if self._lost is not None:
                self._check_open(command)
            self._asked, self._deadline = command, time.monotonic() + timeout_s
            self._step.begin(command, timeout_s, self._deadline, fits)
            try:
                self._set_timeout(timeout_s, command)
                self._do(lambda: self._resource.write_raw(command), command, timeout_s)
                return self._answer(command, timeout_s)
            finally:
                self._step.failed(time.monotonic())  # nothing, where there is an answer

    def refuse(self) -> None:
        """See `Connection`. Where messages have an end, the answer was that to the query, whatever it says."""
        if self._stream:
            with self._using:
                self._step.refused(self._asked, time.monotonic(), self._deadline)

    def tell(self, command: bytes) -> None:
        """See `Connection`."""
        with self._using:
            self._check_open(command)
            if self._stream:
                self._step.wrote(command, time.monotonic())
            elif not self._step.in_step and self._clears:
                self._clear(command)
            self._set_timeout(_OPEN_S, command)
            self._do(lambda: self._resource.write_raw(command), command, _OPEN_S)

    def close(self) -> None:
        """See `Connection`."""
        if self._watch is not None:
            self._watch.close()
        with self._using:
            if not self._closed:
                self._closed = True
                try:
                    _translated(self.port, self._resource.close)
                except AdapterError:
                    pass  # the session was broken already; VISA has freed it all the same

    def _hung_up(self, fault: str) -> None:
        """The other side of a socket has gone. Bytes of it that came before may still be unread."""
        self._lost = self._lost or Disconnected(self.port, f"the connection broke: {fault}")
        self._events.on_lost()

    def _check_open(self, command: bytes) -> None:
        """Raise Disconnected where the session is closed, or the other side of a socket has hung up: pyvisa-py would
        learn of that from the second command on."""
        if self._closed:
            raise Disconnected(self.port, "the adapter has closed this session", command=command)
        if self._socket is not None:
            self._waiting()
            if self._lost is not None:
                raise Disconnected(self.port, self._lost.problem, command=command)

    def _set_timeout(self, timeout_s: float, command: bytes) -> None:
        if timeout_s != self._timeout_s:  # only where it changes: setting it configures a serial line anew
            self._do(lambda: setattr(self._resource, "timeout", timeout_s * 1000), command, timeout_s)
            self._timeout_s = timeout_s

    def _get_ready(self, command: bytes, wait: bool) -> None:
        """Read what has come before the query, and wait until the line is in step."""
        step = self._step
        if not self._stream and self._clears and (step.in_step or self._clear(command)):
            return
        if self._waiting() is not False:
            limit = time.monotonic() + QUIET_LIMIT_S
            while self._hear(self._blind_s, command):
                if time.monotonic() >= limit:
                    raise not_quiet(self.port, command)
        if wait and not step.in_step:
            self._wait_in_step(command)

    def _wait_in_step(self, command: bytes) -> None:
        """Read until the owed answer has come, or its time has passed, and the line is quiet."""
        step, began = self._step, time.monotonic()
        limit = max(step.ready_at(began), began) + QUIET_LIMIT_S
        while (now := time.monotonic()) < (ready := step.ready_at(now)):
            if now >= limit:
                raise not_quiet(self.port, command)
            self._hear(min(ready, limit) - now, command)
        self._framer.discard()
        step.settled()

    def _clear(self, command: bytes) -> bool:
        """Send a device clear, which makes the instrument forget what it was asked; whether the interface has one."""
        try:
            self._set_timeout(_CLEAR_S, command)
            self._do(self._resource.clear, command, _CLEAR_S)
        except (VisaFailure, NoAnswer, BadAnswer):
            self._clears = False
            return False
        self._step.proven()
        return True

    def _waiting(self) -> bool | None:
        """Whether bytes have come that were not read; None where only a read can tell."""
        if self._io is None:
            return None
        if self._socket is None:
            return bool(self._do(lambda: getattr(self._io, "in_waiting", 0), b"", 0.0))
        if self._session._pending_buffer:  # pyvisa-py has read more than it gave out
            return True
        readable = self._poll.poll(0) if self._poll is not None else select.select([self._socket], [], [], 0)[0]
        if readable and (fault := connection_fault(self._socket)):
            self._lost = self._lost or Disconnected(self.port, f"the connection broke: {fault}")
            return False
        return bool(readable)

    def _hear(self, within_s: float, command: bytes) -> bool:
        """Read once what comes within this time, and sort it; whether something came.

        A read that times out loses the beginning of a message, and its rest would be taken for a whole one. So it
        begins only when bytes have come, where that can be seen.
        """
        there = self._comes(within_s)
        if there is False:
            return False
        wait_s = self._step.rules.settle_s if there else within_s
        wait_s = max(wait_s, _SHORTEST_S) if wait_s else 0.0
        self._set_timeout(wait_s, command)
        try:
            data = bytes(self._do(self._resource.read_raw, command, wait_s))
        except (VisaFailure, NoAnswer, BadAnswer):
            if there:
                self._step.torn(time.monotonic())
            return False
        self._sort(data, command)
        return True

    def _comes(self, within_s: float) -> bool | None:
        """Whether bytes come within this time; None where only a read can tell."""
        waiting = self._waiting()
        if waiting is False and within_s > 0:
            readable = getattr(self._io, "fileno", None)
            if readable is None:
                return None
            return bool(select.select([readable()], [], [], within_s)[0]) and self._waiting()
        return waiting

    def _answer(self, command: bytes, timeout_s: float) -> bytes:
        """Read until the answer is there, and nothing else came where that is to be expected."""
        step = self._step
        rest = b""
        while step.answer is None:
            skipped = self._framer.skipped
            try:
                data = bytes(self._do(self._resource.read_raw, command, timeout_s))
            except NoAnswer as error:
                raise self._unanswered(command, timeout_s, rest) from error.__cause__
            self._sort(data, command)
            rest = self._framer.pending
            if self._framer.skipped > skipped:
                raise BadAnswer(self.port, "garbage instead of a message", command=command, answer=data)
            if step.answer is None and not rest:  # an echo, a late answer, or something unasked
                left = self._deadline - time.monotonic()
                if left <= 0:
                    raise self._unanswered(command, timeout_s, rest)
                self._set_timeout(left, command)
        while self._stream and step.second is None and self._hear_more(command):
            pass
        if step.second is not None:
            spoilt = two_answers(self.port, command, step)
            step.refused(command, time.monotonic(), 0.0)
            raise spoilt
        answer = step.answer
        step.answered()
        return answer

    def _unanswered(self, command: bytes, timeout_s: float, rest: bytes) -> AdapterError:
        self._check_open(command)
        return unanswered(self.port, command, timeout_s, self._step, rest, 0)

    def _hear_more(self, command: bytes) -> bool:
        """After the answer: read what is there already, and where the answer is held, what comes until then."""
        if not self._step.needs_no_hold:
            now = time.monotonic()
            if (until := self._step.hold_until(now)) > now:
                return self._hear(until - now, command)
        left_over = self._session._pending_buffer if self._socket is not None else self._waiting()
        return bool(left_over) and self._hear(0.0, command)

    def _sort(self, data: bytes, command: bytes) -> None:
        """Sort messages into answers and input. On a stream, VISA ends a read at the first byte of `end`, also inside
        of a binary block: then the next read brings the rest, until the framer has a whole message."""
        now = time.monotonic()
        frames = self._framer.feed(data) if self._stream else [self._message(data, command)]
        for frame in frames:
            if self._step.take(frame, now) in _INPUTS:
                self._events.on_input(frame)
        if not frames:
            self._step.moved(now)

    def _message(self, data: bytes, command: bytes) -> bytes:
        if data[:1] != b"#" or not data[1:2].isdigit():
            return data.removesuffix(self._end).removesuffix(b"\r")
        try:
            return unblocked(data)
        except ValueError as error:
            raise BadAnswer(self.port, str(error), command=command, answer=data) from error

    def _do(self, action: Callable[[], Any], command: bytes, timeout_s: float) -> Any:
        try:
            return _translated(self.port, action, command, timeout_s)
        except Disconnected as error:
            self._lost = error
            raise
