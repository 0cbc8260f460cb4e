"""The simulated devices of a session, as an instance's process gets them: they replace the addresses of real devices in
the arguments of its object.

The trap: instances' processes import this module, so it imports nothing of the launcher
(`tests/launch/test_child_imports.py` weighs it). The lab itself is in `lab`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ether.errors import ConfigError

_VISA = re.compile(r"(GPIB|ASRL|TCPIP|USB|VXI|PXI|VICP|PRLGX|FIREWIRE)[^:]*::.+", re.IGNORECASE)
_SERIAL = re.compile(r"COM\d+|/dev/(tty|cu\.|serial/|usbtmc|rfcomm).*|(rfc2217|socket|hwgrep|spy|alt|cp2110)://.+")


class SimulatedDevice(NamedTuple):
    """A simulated instrument: the real port or resource that it stands for (empty: for nothing real), and its own
    addresses as a serial port and as a VISA resource."""

    twin_of: str
    port: str
    resource: str


@dataclass(frozen=True, slots=True)
class SimulatedDevices:
    """The devices of one simulated lab. Where nothing is `simulated`, every argument stays as it is."""

    devices: tuple[SimulatedDevice, ...] = ()
    simulated: bool = False

    @classmethod
    def from_value(cls, value: Sequence[Mapping[str, Any]] | None) -> SimulatedDevices:
        """From the lab's own list; None: nothing is simulated."""
        devices = [SimulatedDevice(str(one["twin_of"]), str(one["port"]), str(one["resource"])) for one in value or ()]
        return cls(tuple(devices), value is not None)

    def of(self, value: Any, path: str = "") -> Any:
        """The same value with simulated addresses in place of real ones. Raises `ConfigError` at the place below
        `path`."""
        if not self.simulated:
            return value
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, Mapping):
            return {key: self.of(each, f"{path}.{key}") for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self._each(value, path))
        return value

    def _each(self, values: Sequence[Any], path: str) -> Iterable[Any]:
        return [self.of(each, f"{path}[{number}]") for number, each in enumerate(values)]

    def _text(self, text: str, path: str) -> str:
        """A text that may be an address: replaced where a simulated device stands for it, refused where it is the
        address of a real device without one, else as it is. Pure: no lock, no I/O."""
        # A VISA address may be followed by the library that is to open it: `GPIB0::7::INSTR@py`.
        is_visa = _VISA.fullmatch(text) is not None
        bare, _, library = text.partition("@") if is_visa else (text, "", "")
        found = next((device for device in self.devices if _same(device.twin_of, bare)), None)
        if found is not None and is_visa:
            # An address without a library stays without one: the class chooses it, or gets it as another argument.
            return found.resource if library else found.resource.partition("@")[0]
        if found is not None:
            return found.port
        # Nothing stands for it. What pyvisa-sim opens (`@sim`, or `file.yaml@sim`) is simulated already, and a text
        # that has not the form of an address is none.
        if (is_visa and library != "sim" and not library.endswith("@sim")) or _SERIAL.fullmatch(text):
            there = ", ".join(sorted(device.twin_of for device in self.devices if device.twin_of)) or "nothing"
            raise ConfigError(
                f"{text!r} has no twin in the simulated lab, and a simulated run touches no hardware; give an"
                f" instrument below `simulate:` the line `twin_of: {text}` (there are twins of {there}).",
                path=path,
            )
        return text


def _same(twin_of: str, bare: str) -> bool:
    """VISA addresses mean the same in upper and lower case, with or without a library."""
    if "::" not in twin_of:
        return twin_of == bare
    return twin_of.partition("@")[0].upper() == bare.upper()
