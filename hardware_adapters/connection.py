"""What an adapter needs of the thing that carries its bytes: a medium opens ports, a connection is one open port.

Serial ports and VISA are the two media. `Adapter` knows nothing else of either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from hardware_adapters.errors import AdapterError
from hardware_adapters.identity import PortInfo


@dataclass(frozen=True, slots=True)
class PortEvents:
    """Whom a connection tells: of a frame that nobody asked for, and of its own end. Called from its reading thread."""

    on_input: Callable[[bytes], None]
    on_lost: Callable[[], None]


class LineCounts(NamedTuple):
    """What happened on a line: bytes that belonged to no frame, how often which fault, answers that came too late."""

    skipped_bytes: int = 0
    faults: Mapping[str, int] = {}
    late: int = 0


class PortConnection(Protocol):
    """One open port. Only one thread at a time asks or tells; `close` may come from any."""

    @property
    def counts(self) -> LineCounts:
        """What happened on the line since it was opened."""

    @property
    def lost(self) -> AdapterError | None:
        """Why the connection has ended by itself; None: it has not. Set before `on_lost` is called."""

    def ask(self, command: bytes, timeout_s: float) -> bytes:
        """Send, and return the next answer. Raises NoAnswer, BadAnswer, Disconnected and what the medium says."""

    def tell(self, command: bytes) -> None:
        """Send. Raises Disconnected and what the medium says."""

    def close(self) -> None:
        """Free the port; harmless twice."""


class Medium(Protocol):
    """A way to reach instruments."""

    def open(self, port: str, events: PortEvents, holder: str) -> PortConnection:
        """Open a port in `holder`'s name. Raises PortNotFound, PermissionDenied, PortBusy and what the medium says."""

    def ports(self) -> Sequence[PortInfo]:
        """The ports that are there now."""
