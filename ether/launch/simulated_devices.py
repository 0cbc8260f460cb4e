"""What an instance is given for the bench, as what it is given in a simulated run: each real port or VISA resource
among its arguments becomes its twin's.

Promise: a text that stands for a device and has no twin is an error that says where it stands; nothing of the bench is
passed on. The trap: only whole texts count; a port inside of a longer text is not found here, and is then refused by
the adapter that is to open it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ether.errors import ConfigError

VARIABLE = "ETHER_SIMULATED_LAB"
"""Names the file in which adapters find their twins; `hardware_adapters.twins` reads it."""

_VISA = re.compile(r"(GPIB|ASRL|TCPIP|USB|VXI|PXI|VICP|PRLGX|FIREWIRE)[^:]*::.+", re.IGNORECASE)
_SERIAL = re.compile(r"COM\d+|/dev/(tty|cu\.|serial/|usbtmc|rfcomm).*|(rfc2217|socket|hwgrep|spy|alt|cp2110)://.+")


class SimulatedDevice(NamedTuple):
    """A simulated instrument: the real port or resource that it stands for, and how it is reached itself."""

    twin_of: str
    port: str
    resource: str


@dataclass(frozen=True, slots=True)
class SimulatedDevices:
    """The twins of one simulated lab; without any, everything stays as it is."""

    twins: tuple[SimulatedDevice, ...] = ()
    simulated: bool = False

    @classmethod
    def from_value(cls, value: Sequence[Mapping[str, Any]] | None) -> SimulatedDevices:
        """As the lab told them; None: nothing is simulated."""
        told = [SimulatedDevice(str(one["twin_of"]), str(one["port"]), str(one["resource"])) for one in value or ()]
        return cls(tuple(told), value is not None)

    def of(self, value: Any, path: str = "") -> Any:
        """The same value with twins in place of what is real. Raises `ConfigError` at the place below `path`."""
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
        is_visa = _VISA.fullmatch(text) is not None
        bare, _, library = text.partition("@") if is_visa else (text, "", "")
        found = next((twin for twin in self.twins if _same(twin.twin_of, bare)), None)
        if found is not None and is_visa:
            return found.resource if library else found.resource.partition("@")[0]
        if found is not None:
            return found.port
        if (is_visa and library != "sim" and not library.endswith("@sim")) or _SERIAL.fullmatch(text):
            there = ", ".join(sorted(twin.twin_of for twin in self.twins if twin.twin_of)) or "nothing"
            raise ConfigError(
                f"{text!r} has no twin in the simulated lab, and a simulated run touches no hardware; give an"
                f" instrument below `simulate:` the line `twin_of: {text}` (there are twins of {there}).",
                path=path,
            )
        return text


def _same(twin_of: str, bare: str) -> bool:
    """VISA's names mean the same in any case, with or without a library."""
    if "::" not in twin_of:
        return twin_of == bare
    return twin_of.partition("@")[0].upper() == bare.upper()
