"""Instruments that VISA reaches: GPIB, USB, LAN, serial; over pyvisa, with pyvisa-py or a vendor's library.

    scope = VisaInstrument("TCPIP::10.0.0.7::INSTR", identity="ACME,Scope,7,2.0")
    scope.query("MEAS:VPP?")

The library is part of the resource string: `…@py` is pyvisa-py, `…@sim` pyvisa-sim, `…@bench.yaml@sim` pyvisa-sim
with that file; without it pyvisa takes a vendor's library where there is one, else pyvisa-py. Every status code that
pyvisa defines becomes exactly one typed error (`error_kind`). After each of them the port's lock is free, and the
session can be used.

How it works. There is no reading thread: `ask` writes and reads in the caller's thread, one caller at a time
(`_using`). Message-based interfaces (GPIB, USBTMC, VXI-11) mark the end of a message, so one read is one answer.
Plain sockets and serial lines (`_is_stream`) do not, so their bytes go through a `Framer`. After a failed query the
session is `_stale`: before the next command the late answer is cleared away, by a device clear or, on a stream, by
reading until nothing comes.

The trap: VISA over a plain socket or serial line notices a pulled plug only at the next query.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Unpack

from hardware_adapters.adapter import Adapter
from hardware_adapters.connection import LineCounts, PortEvents
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
from hardware_adapters.options import AdapterOptions
from hardware_adapters.twins import simulated_bench

try:
    import pyvisa
    from pyvisa import constants, errors, resources, rname
except ImportError as missing:
    raise ImportError("VISA instruments need pyvisa: pip install 'ether-medium[visa]'", name="pyvisa") from missing

Status = constants.StatusCode
_OPEN_S = 5.0
_CLEAR_S = 1.0
_SETTLE_S, _SETTLE_READS = 0.05, 50

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
    options: see `Adapter`.
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
        bench = simulated_bench()
        if bench is not None:
            options.setdefault("name", resource or "")
            resource = resource and bench.resource(resource)
            candidates = bench.resources(candidates) if resource is None or candidates is not None else None
        if resource is not None:
            library = resource.partition("@")[2] or library
        medium = VisaMedium(library, settings or {}, end, resource, candidates)
        ends_with = end if command_end is None else command_end
        super().__init__(medium, resource, encode=lambda payload: payload + ends_with, **options)


class VisaMedium:
    """Opens VISA resources."""

    def __init__(
        self, library: str, settings: dict[str, Any], end: bytes, named: str | None, candidates: Sequence[str] | None
    ) -> None:
        self._library, self._settings, self._end = library, settings, end
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

    def open(self, port: str, events: PortEvents, holder: str) -> VisaConnection:
        """See `Medium`."""
        name, _, library = port.partition("@")
        manager = manager_of(library or self._library, port)
        resource = _translated(port, lambda: manager.open_resource(name, open_timeout=int(_OPEN_S * 1000)))
        if not isinstance(resource, resources.MessageBasedResource):
            known = resource.session != constants.VI_NULL and _is_name(name)
            resource.close()
            if not known:
                raise PortNotFound(port, _description(Status.error_invalid_resource_name))
            raise VisaFailure(port, "this resource takes no messages (register-based)")
        if resource.session == constants.VI_NULL:  # pyvisa-sim reports a missing resource only so
            raise PortNotFound(port, _description(Status.error_resource_not_found))
        try:
            if _is_stream(name):
                resource.read_termination = self._end.decode("latin-1")
            for setting, value in self._settings.items():
                setattr(resource, setting, value)
        except errors.VisaIOError as error:
            resource.close()
            raise visa_error(port, error.error_code) from error
        return VisaConnection(port, resource, events, self._end)


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

    def __init__(self, port: str, resource: resources.MessageBasedResource, events: PortEvents, end: bytes) -> None:
        self.port, self._resource, self._events, self._end = port, resource, events, end
        self._framer = Framer(ScpiMessages(end))
        self._stream = _is_stream(port.partition("@")[0])
        self._using = threading.RLock()
        self._stale, self._closed, self._late = False, False, 0
        self._timeout_s = 0.0
        self._lost: AdapterError | None = None

    @property
    def counts(self) -> LineCounts:
        """See `Connection`."""
        return LineCounts(self._framer.skipped, self._framer.faults, self._late)

    @property
    def lost(self) -> AdapterError | None:
        """See `Connection`."""
        return self._lost

    def ask(self, command: bytes, timeout_s: float) -> bytes:
        """See `Connection`."""
        with self._using:
            self._ready(command, timeout_s)
            try:
                self._do(lambda: self._resource.write_raw(command), command, timeout_s)
                return self._answer(command, timeout_s)
            except (NoAnswer, BadAnswer):
                self._stale = True
                raise

    def tell(self, command: bytes) -> None:
        """See `Connection`."""
        with self._using:
            self._ready(command, _OPEN_S)
            self._do(lambda: self._resource.write_raw(command), command, _OPEN_S)

    def close(self) -> None:
        """See `Connection`."""
        with self._using:
            if not self._closed:
                self._closed = True
                try:
                    _translated(self.port, self._resource.close)
                except AdapterError:
                    pass  # the session was broken already; VISA has freed it all the same

    def _ready(self, command: bytes, timeout_s: float) -> None:
        """Prepare the session for a command: after a failed query clear its late answer away; set the time-out."""
        if self._closed:
            raise Disconnected(self.port, "the adapter has closed this session", command=command)
        if self._stale:
            self._timeout_s = 0.0
            self._clear(command)
            self._framer.discard()
            self._stale = False
        if timeout_s != self._timeout_s:  # only where it changes: setting it configures a serial line anew
            self._do(lambda: setattr(self._resource, "timeout", timeout_s * 1000), command, timeout_s)
            self._timeout_s = timeout_s

    def _clear(self, command: bytes) -> None:
        """Clear a late answer away: a stream is read until nothing comes, other interfaces send a device clear."""
        try:
            if not self._stream:
                self._do(self._resource.clear, command, _CLEAR_S)
                return
            self._resource.timeout = _SETTLE_S * 1000
            for _ in range(_SETTLE_READS):  # pyvisa-py's own clear never returns where the other side has gone
                self._do(self._resource.read_raw, command, _SETTLE_S)
                self._late += 1
        except (VisaFailure, NoAnswer, BadAnswer):
            pass  # the stream is empty, or this interface has no device clear

    def _answer(self, command: bytes, timeout_s: float) -> bytes:
        """Read one message. On a stream, VISA ends a read at the first byte of `end`, also inside of a binary block:
        then the next read brings the rest, until the framer has a whole message."""
        while True:
            data = bytes(self._do(self._resource.read_raw, command, timeout_s))
            if not self._stream:
                return self._message(data, command)
            skipped = self._framer.skipped
            if frames := self._framer.feed(data):
                return frames[0]
            if self._framer.skipped > skipped:
                raise BadAnswer(self.port, "garbage instead of a message", command=command, answer=data)

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
