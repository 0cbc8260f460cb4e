"""The interface between an adapter and its medium: a `Medium` opens ports, a `PortConnection` is one open port.

Serial ports and VISA are the two media. `Adapter` uses only what is written here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from hardware_adapters.errors import AdapterError
from hardware_adapters.identity import PortInfo


@dataclass(frozen=True, slots=True)
class PortEvents:
    """Callbacks of a connection, for an unsolicited frame and for its own end. Called from its reading thread."""

    on_input: Callable[[bytes], None]
    on_lost: Callable[[], None]


class LineCounts(NamedTuple):
    """Counts of a connection: bytes that belonged to no frame, how often each fault, answers after their time-out."""

    skipped_bytes: int = 0
    faults: Mapping[str, int] = {}
    late: int = 0


class PortConnection(Protocol):
    """One open port. Only one thread at a time calls `ask` or `tell`; `close` may be called from any thread."""

    @property
    def counts(self) -> LineCounts:
        """What happened on the line since it was opened."""

    @property
    def lost(self) -> AdapterError | None:
        """Why the connection has ended by itself; None where it has not. Set before `on_lost` is called."""

    def ask(self, command: bytes, timeout_s: float) -> bytes:
        """Send, and return the next answer. Raises NoAnswer, BadAnswer, Disconnected and the medium's own errors."""

    def tell(self, command: bytes) -> None:
        """Send. Raises Disconnected and the medium's own errors."""

    def close(self) -> None:
        """Free the port; harmless twice."""


class Medium(Protocol):
    """A way to reach instruments."""

    def open(self, port: str, events: PortEvents, holder: str) -> PortConnection:
        """Open a port in `holder`'s name. Raises PortNotFound, PermissionDenied, PortBusy and the medium's own
        errors."""

    def ports(self) -> Sequence[PortInfo]:
        """The ports that exist now."""
