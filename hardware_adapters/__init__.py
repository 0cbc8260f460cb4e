"""Serial and VISA instruments: ordinary classes, with Ether and without it.

    from hardware_adapters import Identity, SerialPort, VisaInstrument, Scpi

Names are loaded at their first use, so that a program without VISA instruments needs no pyvisa. See docs/hardware.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hardware_adapters.adapter import Adapter, Presence
    from hardware_adapters.checksums import Checksum
    from hardware_adapters.errors import (
        AdapterError,
        BadAnswer,
        Disconnected,
        NoAnswer,
        PermissionDenied,
        PortBusy,
        PortNotFound,
        VisaFailure,
        WrongDevice,
    )
    from hardware_adapters.framing import Delimited, Fixed, Framer, LengthPrefixed, ScpiMessages, lines
    from hardware_adapters.identity import Identity, PortInfo
    from hardware_adapters.lease import Lease
    from hardware_adapters.scpi import Scpi
    from hardware_adapters.serial_port import SerialPort
    from hardware_adapters.twins import NoTwin
    from hardware_adapters.visa import VisaInstrument

_MODULES = {
    "adapter": ("Adapter", "Presence"),
    "checksums": ("Checksum",),
    "errors": (
        "AdapterError", "BadAnswer", "Disconnected", "NoAnswer", "PermissionDenied", "PortBusy", "PortNotFound",
        "VisaFailure", "WrongDevice",
    ),
    "framing": ("Delimited", "Fixed", "Framer", "LengthPrefixed", "ScpiMessages", "lines"),
    "identity": ("Identity", "PortInfo"),
    "lease": ("Lease",),
    "scpi": ("Scpi",),
    "serial_port": ("SerialPort",),
    "twins": ("NoTwin",),
    "visa": ("VisaInstrument",),
}  # fmt: skip

__all__ = [
    "Adapter",
    "AdapterError",
    "BadAnswer",
    "Checksum",
    "Delimited",
    "Disconnected",
    "Fixed",
    "Framer",
    "Identity",
    "Lease",
    "LengthPrefixed",
    "NoAnswer",
    "NoTwin",
    "PermissionDenied",
    "PortBusy",
    "PortInfo",
    "PortNotFound",
    "Presence",
    "Scpi",
    "ScpiMessages",
    "SerialPort",
    "VisaFailure",
    "VisaInstrument",
    "WrongDevice",
    "lines",
]


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"hardware_adapters.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
