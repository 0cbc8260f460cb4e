"""The interface between an adapter and its medium: a `Medium` opens ports, a `PortConnection` is one open port.

Serial ports and VISA are the two media. `Adapter` uses only what is written here. Which frame answers which question
is decided for both by `LineStep` (step_rules.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from hardware_adapters.errors import AdapterError, BadAnswer, NoAnswer, shown
from hardware_adapters.identity import PortInfo
from hardware_adapters.step_rules import LineStep, Owed


@dataclass(frozen=True, slots=True)
class PortEvents:
    """Callbacks of a connection, for an unsolicited frame and for its own end. Called from its reading thread."""

    on_input: Callable[[bytes], None]
    on_lost: Callable[[], None]


class LineCounts(NamedTuple):
    """Counts of a connection: bytes that belonged to no frame, how often each fault, answers after their time-out,
    how often the line came back in step, echoes of commands, frames too many for their question."""

    skipped_bytes: int = 0
    faults: Mapping[str, int] = {}
    late: int = 0
    resynchronised: int = 0
    echoes: int = 0
    surplus: int = 0


class PortConnection(Protocol):
    """One open port. Only one thread at a time calls `ask` or `tell`; `close` may be called from any thread."""

    @property
    def counts(self) -> LineCounts:
        """What happened on the line since it was opened."""

    @property
    def lost(self) -> AdapterError | None:
        """Why the connection has ended by itself; None where it has not. Set before `on_lost` is called."""

    @property
    def in_step(self) -> bool:
        """Whether no earlier question can spoil the next answer."""

    def owed(self) -> Sequence[Owed]:
        """The answers that the device may still send."""

    def ask(
        self, command: bytes, timeout_s: float, fits: Callable[[bytes], bool] | None = None, *, wait: bool = True
    ) -> bytes:
        """Wait until the line is in step, send, and return the answer. With `fits` it is a sync question, which may be
        sent at once (`wait=False`): late answers before its own are dropped. Raises NoAnswer, BadAnswer, Disconnected
        and the medium's own errors."""

    def refuse(self) -> None:
        """The last answer was not what was asked for: the true one may still come."""

    def tell(self, command: bytes) -> None:
        """Send. Raises Disconnected and the medium's own errors."""

    def close(self) -> None:
        """Free the port; harmless twice."""


class Medium(Protocol):
    """A way to reach instruments."""

    def open(self, port: str, events: PortEvents, holder: str, owed: Sequence[Owed] = ()) -> PortConnection:
        """Open a port in `holder`'s name; `owed` are answers to questions of an earlier connection. Raises
        PortNotFound, PermissionDenied, PortBusy and the medium's own errors."""

    def ports(self) -> Sequence[PortInfo]:
        """The ports that exist now."""


QUIET_LIMIT_S = 1.0
"""A line that does not fall silent is waited for so long, beyond the time of an owed answer."""


def two_answers(port: str, command: bytes, step: LineStep) -> BadAnswer:
    """The error where two different frames came for one question."""
    why = (
        f"two messages came for one question, {shown(step.answer)} and {shown(step.second)}, and which one is its"
        " answer cannot be told; neither was taken (unsolicited= says which messages are no answers; a command that is"
        " acknowledged is asked with query)"
    )
    return BadAnswer(port, why, command=command, answer=step.answer)


def unanswered(port: str, command: bytes, timeout_s: float, step: LineStep, rest: bytes, garbage: int) -> AdapterError:
    """The error where no answer came in time. Half an answer, garbage, an echo and late answers are told apart from
    silence, because they have different causes on the bench."""
    if rest:
        return BadAnswer(port, f"only a part came within {timeout_s:g} s", command=command, answer=rest)
    if step.dropped is not None:
        why = f"only what was no answer to this came within {timeout_s:g} s, and was dropped"
        return BadAnswer(port, why, command=command, answer=step.dropped)
    if step.echoed is not None:
        why = f"only the question itself came back within {timeout_s:g} s, an echo (echo=False if it is the answer)"
        return BadAnswer(port, why, command=command, answer=step.echoed)
    if garbage:
        return BadAnswer(port, f"only {garbage} bytes of garbage within {timeout_s:g} s", command=command)
    return NoAnswer(port, command, timeout_s, late_s=step.rules.late_s(timeout_s))


def not_quiet(port: str, command: bytes) -> BadAnswer:
    """The error where a question was not sent, because the line does not fall silent."""
    why = (
        "it was not sent: an earlier question was not answered in time, and the instrument goes on sending, so that the"
        " late answer cannot be told from others (unsolicited= says which messages are no answers)"
    )
    return BadAnswer(port, why, command=command)
