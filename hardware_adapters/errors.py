"""Every error of the adapters, in one tree.

    AdapterError (OSError)                    a failure between this program and an instrument
    ├── PortNotFound (FileNotFoundError)      there is no such port, or no port with this device
    ├── PermissionDenied (PermissionError)    this user may not open the port: names the group to join
    ├── PortBusy (BlockingIOError)            another holder has the port: names it, where it is known
    ├── NoAnswer (TimeoutError)               nothing came back in time
    ├── BadAnswer (ValueError)                the answer is damaged: checksum, garbage, half an answer
    ├── WrongDevice (LookupError)             another device answers than the one that was named
    ├── Disconnected (ConnectionError)        the device is gone, or the adapter was closed
    ├── VisaFailure (RuntimeError)            VISA refuses for another reason; `status` is VISA's name of it
    ├── NoTwin (LookupError)                  a simulated run, and no simulated instrument for this port (in twins.py)
    └── InstrumentError (RuntimeError)        the instrument's own error queue reports it (in scpi.py)

Each keeps `port`, `command` and `answer` (what came back, bytes), so that a caller can decide without reading the
sentence. Each inherits the builtin that a caller would already catch.
"""

from __future__ import annotations

_SHOWN_BYTES = 60


def shown(data: bytes | str | None) -> str:
    """Bytes as a person reads them, cut where they are long."""
    if data is None:
        return "nothing"
    text = repr(data if isinstance(data, str) else bytes(data))
    return text if len(text) <= _SHOWN_BYTES else f"{text[:_SHOWN_BYTES]}… ({len(data):,} bytes)"


class AdapterError(OSError):
    """A failure between this program and an instrument.

    `port` is the place, `command` the bytes or text that were sent (None: none), `answer` the bytes that came back
    (None: none).
    """

    def __init__(
        self, port: str, problem: str, *, command: bytes | str | None = None, answer: bytes | None = None
    ) -> None:
        self.port, self.problem, self.command, self.answer = port, problem, command, answer
        asked = "" if command is None else f" asked for {shown(command)}:"
        super().__init__(f"{port}:{asked} {problem}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuilt, (type(self), self.args, dict(self.__dict__))


def _rebuilt(kind: type[AdapterError], args: tuple[object, ...], state: dict[str, object]) -> AdapterError:
    """An unpickled error with its attributes; the constructors of the subclasses take other arguments than `args`."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class PortNotFound(AdapterError, FileNotFoundError):
    """There is no such port, or no port at which the device that was named answers."""


class PermissionDenied(AdapterError, PermissionError):
    """This user may not open the port. `group` is the group to join, None where that does not help."""

    def __init__(
        self, port: str, *, group: str | None = None, user: str = "", command: bytes | str | None = None
    ) -> None:
        self.group = group
        if group:
            advice = (
                f" Its group is {group!r}: add yourself with `sudo usermod -aG {group} {user or '$USER'}`,"
                " then log out and in again."
            )
        else:
            advice = " Ask who administers this machine for access to it."
        super().__init__(port, "this user may not open it." + advice, command=command)


class PortBusy(AdapterError, BlockingIOError):
    """Another holder has the port. `holder` names it, None where it is not known."""

    def __init__(
        self, port: str, *, holder: str | None = None, reason: str = "", command: bytes | str | None = None
    ) -> None:
        self.holder, self.reason = holder, reason
        who = holder or "another program (which one cannot be seen by this user)"
        super().__init__(port, f"it is held by {who}" + (f": {reason}" if reason else ""), command=command)


class NoAnswer(AdapterError, TimeoutError):
    """Nothing came back within `timeout_s` seconds, in each of `attempts` attempts. An answer that comes within the
    next `late_s` seconds is dropped, and never given to another question."""

    def __init__(
        self, port: str, command: bytes | str | None, timeout_s: float, attempts: int = 1, late_s: float = 0.0
    ) -> None:
        self.timeout_s, self.attempts, self.late_s = timeout_s, attempts, late_s
        tried = f", {attempts} times" if attempts > 1 else ""
        late = f"; if it comes in the next {late_s:g} s, it is dropped" if late_s else ""
        super().__init__(port, f"no answer within {timeout_s:g} s{tried}{late}", command=command)


class BadAnswer(AdapterError, ValueError):
    """The answer is damaged (a wrong checksum, garbage, half an answer), or the caller's `parse` refused it."""

    def __init__(self, port: str, why: str, *, command: bytes | str | None = None, answer: bytes | None = None) -> None:
        self.why = why
        super().__init__(port, f"{why}; what came back: {shown(answer)}", command=command, answer=answer)


class WrongDevice(AdapterError, LookupError):
    """Another device is at the port than the one that was named. `wanted` and `found` describe both."""

    def __init__(self, port: str, wanted: str, found: str) -> None:
        self.wanted, self.found = wanted, found
        super().__init__(port, f"wanted {wanted}, but there is {found}; nothing was sent to it but this question")


class Disconnected(AdapterError, ConnectionError):
    """The device was unplugged, the connection broke, or the adapter was closed."""


class VisaFailure(AdapterError, RuntimeError):
    """VISA refuses for a reason that no other error covers. `status` is VISA's name of it, such as
    `error_invalid_mode`."""

    def __init__(self, port: str, problem: str, *, command: bytes | str | None = None, status: str = "") -> None:
        self.status = status
        super().__init__(port, problem + (f" ({status})" if status else ""), command=command)
