"""Instruments of a simulated lab inside pyvisa-sim: GPIB and USB names that any VISA code of this process can open.

pyvisa-sim's own devices are read from a file and do not influence each other. Here its library gets devices that
answer for the lab's instruments, with their wires and faults.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

from hardware_adapters.simulate.endpoints import Dialogue
from hardware_adapters.simulate.instrument import SimulatedInstrument
from hardware_adapters.visa import canonical_name, manager_of

_EMPTY = 'spec: "1.0"\ndevices: {}\nresources: {}\n'


class LiveDevice:
    """A device as pyvisa-sim needs it: bytes in, and bytes out one at a time, the last of a message marked."""

    def __init__(self, instrument: SimulatedInstrument) -> None:
        self.resource_name: str | None = None
        self._dialogue = Dialogue(instrument)
        self._answers: deque[bytearray] = deque()

    def write(self, data: bytes) -> None:
        """Bytes from the program. What it has not read is forgotten, as IEEE 488.2 demands."""
        self._answers.clear()
        self._dialogue.receive(data)

    def read(self) -> tuple[bytes, bool]:
        """The next byte, and whether it is the last of a message; no byte where nothing is due."""
        self._answers.extend(bytearray(sent) for sent in self._dialogue.due() if sent)
        if not self._answers:
            return b"", False
        answer = self._answers[0]
        byte = bytes([answer.pop(0)])
        if answer:
            return byte, False
        self._answers.popleft()
        return byte, True


class VisaBench:
    """A pyvisa-sim library for one lab, described by an (empty) file in `folder`."""

    def __init__(self, folder: Path) -> None:
        file = folder / "visa-bench.yaml"
        file.write_text(_EMPTY)
        self._library = f"{file}@sim"
        self._manager = manager_of(self._library, "the simulated bench")

    def add(self, resource: str, instrument: SimulatedInstrument) -> str:
        """Make this instrument known as `resource`; returns the name with its library."""
        devices = self._manager.visalib.devices  # type: ignore[attr-defined]  # pyvisa-sim's own
        devices.add_device(canonical_name(resource), LiveDevice(instrument))
        return f"{resource}@{self._library}"
