"""Simulated devices in place of real ports, in a process of a simulated run (`ether run --sim`).

The program that starts a simulated run writes a small file, which says which simulated device (twin) stands for which
real port or VISA resource, and puts its path into the environment variable `ETHER_SIMULATED_LAB`. Each adapter reads
the file when it is made, and opens the twin.

Promise: with that variable set no adapter opens a real port. A port without a twin is refused with `NoTwin`; only
ports that are no hardware (`loop://`, pyvisa-sim) are opened as they are. The trap: adapters that were made before
the variable was set.
"""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from hardware_adapters.errors import AdapterError
from hardware_adapters.identity import PortInfo

VARIABLE = "ETHER_SIMULATED_LAB"


class NoTwin(AdapterError, LookupError):
    """A simulated run asks for a port or resource that has no twin in the simulated lab. `there` are those that do."""

    def __init__(self, port: str, there: Sequence[str]) -> None:
        self.there = tuple(there)
        listed = ", ".join(self.there) or "nothing"
        super().__init__(
            port,
            "it has no twin in the simulated lab of this run, and hardware is not touched; give an instrument of the"
            f" lab `twin_of: {port}` (there are twins of {listed})",
        )


class Twin(NamedTuple):
    """One simulated device: the real port it stands for (empty: none), and its names for both adapters."""

    name: str
    twin_of: str
    port: str
    resource: str
    usb_serial: str | None = None


class Twins:
    """The twins of one lab."""

    def __init__(self, twins: Sequence[Twin]) -> None:
        self._twins = tuple(twins)
        self._real = {_bare(twin.twin_of): twin for twin in twins if twin.twin_of}

    def port(self, real: str) -> str:
        """The twin of a serial port or URL. Raises NoTwin."""
        if real.startswith("loop://") or any(real == twin.port for twin in self._twins):
            return real
        return self._of(real).port

    def resource(self, real: str) -> str:
        """The twin of a VISA resource, with its library. Raises NoTwin."""
        if real.endswith("@sim"):
            return real
        bare = _bare(real)
        same = next((twin for twin in self._twins if _bare(twin.resource) == bare), None)
        return (same or self._of(real)).resource

    def serial_ports(self, wanted: Sequence[str] | Callable[..., object] | None = None) -> list[PortInfo]:
        """The serial ports of the simulated machine; those that stand for one of these names or patterns, if given."""
        patterns = None if wanted is None or callable(wanted) else tuple(wanted)
        return [
            PortInfo(twin.port, twin.usb_serial)
            for twin in self._twins
            if not _is_visa(twin.twin_of) and (patterns is None or _fits(twin, patterns))
        ]

    def resources(self, wanted: Sequence[str] | None) -> list[str]:
        """The VISA resources of the simulated machine; those that stand for one of these names, if given."""
        if wanted is not None:
            return [self.resource(name) for name in wanted if _bare(name) in self._real]
        return [twin.resource for twin in self._twins if _is_visa(twin.twin_of)]

    def _of(self, real: str) -> Twin:
        found = self._real.get(_bare(real))
        if found is None:
            raise NoTwin(real, sorted(twin.twin_of for twin in self._real.values()))
        return found

    def save(self, path: Path) -> None:
        """Write them where adapters of other processes can read them."""
        path.write_text(json.dumps([twin._asdict() for twin in self._twins]), "utf-8")

    def to_value(self) -> list[dict[str, str | None]]:
        """As JSON can carry them."""
        return [twin._asdict() for twin in self._twins]


def simulated_bench() -> Twins | None:
    """The twins that this process must use; None: the real bench. Raises AdapterError where their file cannot be read,
    because the simulated lab has ended."""
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    try:
        return Twins([Twin(**told) for told in json.loads(Path(path).read_text("utf-8"))])
    except (OSError, ValueError, TypeError) as error:
        raise AdapterError(path, f"the simulated lab of this run ({VARIABLE}) cannot be read: {error}") from error


def _bare(name: str) -> str:
    """A name without its VISA library, for comparison; the case of VISA names does not count."""
    bare = name.partition("@")[0] if _is_visa(name) else name
    return bare.upper() if _is_visa(bare) else bare


def _is_visa(name: str) -> bool:
    return "::" in name


def _fits(twin: Twin, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(twin.twin_of, pattern) or twin.port == pattern for pattern in patterns)
