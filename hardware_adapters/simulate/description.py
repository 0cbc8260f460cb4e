"""The YAML of a simulated lab: its keys, and their checks.

    seed: 7
    instruments:
      heater:
        idn: ACME,Heater,0042,1.3
        twin_of: /dev/ttyUSB0
        properties:
          power: {get: "POW?", set: "POW {}", min: 0, max: 100}
      thermometer:
        twin_of: TCPIP0::10.0.0.7::5025::SOCKET
        properties:
          temperature: {get: "TEMP?", value: 21, noise: 0.02, form: "{:.3f}"}
    wiring:
      - {from: heater.power, to: thermometer.temperature, gain: 0.8, offset: 21, tau_s: 30}
    faults:
      - {instrument: thermometer, fault: disconnect, at_s: 60, for_s: 2}

`model: my_lab.Oven` names a Python class (a `SimulatedInstrument`) instead of properties. In a command,
`{}` is the place of the number (`POW {}`). Unknown keys are errors.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hardware_adapters.checksums import Checksum
from hardware_adapters.framing import Delimited, Framing, ScpiMessages
from hardware_adapters.simulate.faults import FAULTS, Fault, FaultName
from hardware_adapters.simulate.instrument import DescribedInstrument, Property, SimulatedInstrument, Stream
from hardware_adapters.simulate.world import Wire


class LabError(ValueError):
    """The description of a simulated lab cannot be used. Names the file and the place in it, which `path` keeps."""

    def __init__(self, problem: str, path: tuple[str | int, ...] = ()) -> None:
        self.path = path
        super().__init__(problem)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PropertyPart(_Part):
    """One property: see `Property`."""

    get: str | None = None
    set: str | None = None
    value: float = 0.0
    min: float | None = None
    max: float | None = None
    form: str = "{:g}"
    noise: float = 0.0
    drift_per_s: float = 0.0


class StreamPart(_Part):
    """The unsolicited messages of an instrument: see `Stream`."""

    every_s: float = Field(gt=0)
    property: str
    form: str = "{}"


class FramingPart(_Part):
    """Messages that are not plain lines: see `Delimited`."""

    end: str = "\n"
    start: str = ""
    separator: str = ""
    checksum: str | None = None

    def framing(self) -> Framing:
        """The framing that this describes."""
        checksum = Checksum(self.checksum, hex=True) if self.checksum else None
        end, start, separator = (text.encode("latin-1") for text in (self.end, self.start, self.separator))
        return Delimited(end, start, checksum=checksum, separator=separator)


class InstrumentPart(_Part):
    """One instrument: described by properties and dialogues, or a Python class with its arguments."""

    idn: str = ""
    twin_of: str | None = None
    usb_serial: str | None = None
    reached_by: Literal["pty", "socket"] | None = None
    model: str | None = None
    kwargs: Mapping[str, Any] = Field(default_factory=dict)
    properties: Mapping[str, PropertyPart] = Field(default_factory=dict)
    dialogues: Mapping[str, str | None] = Field(default_factory=dict)
    framing: FramingPart | None = None
    stream: StreamPart | None = None

    def instrument(self, name: str) -> SimulatedInstrument:
        """The instrument. Raises ValueError for a model that cannot be imported."""
        if self.model is not None:
            return _model(self.model)(name, self.idn, **self.kwargs)
        properties = [Property(key, **part.model_dump()) for key, part in self.properties.items()]
        identity = self.idn or f"ETHER,Simulated,{name},1"
        framing = self.framing.framing() if self.framing else ScpiMessages()
        if self.stream and self.stream.property not in self.properties:
            raise ValueError(f"stream: there is no property {self.stream.property!r}; there are: {[*self.properties]}")
        stream = Stream(**self.stream.model_dump()) if self.stream else None
        return DescribedInstrument(name, identity, properties, self.dialogues, framing, stream)


class WirePart(_Part):
    """One wire: see `Wire`."""

    source: str = Field(alias="from")
    to: str
    gain: float = 1.0
    offset: float = 0.0
    tau_s: float = Field(default=0.0, ge=0)


class FaultPart(_Part):
    """One fault: see `Fault`."""

    instrument: str
    fault: FaultName
    at_s: float = 0.0
    for_s: float | None = None
    amount: float | None = None
    chance: float | None = Field(default=None, ge=0, le=1)

    def value(self) -> Fault:
        """The fault."""
        return Fault(self.fault, self.at_s, self.for_s, self.amount, self.chance)


class LabDescription(_Part):
    """A whole lab."""

    seed: int = 0
    speed: float = Field(default=1.0, gt=0)
    instruments: Mapping[str, InstrumentPart]
    wiring: tuple[WirePart, ...] = ()
    faults: tuple[FaultPart, ...] = ()

    def wires(self) -> tuple[Wire, ...]:
        """The wires."""
        return tuple(Wire(**part.model_dump()) for part in self.wiring)


def read_description(source: str | Path | Mapping[str, Any]) -> LabDescription:
    """A description from a YAML file or a dict. Raises LabError with the place, the value found, and the valid ones."""
    where = "the description" if isinstance(source, Mapping) else str(source)
    try:
        data = source if isinstance(source, Mapping) else yaml.safe_load(Path(source).read_text("utf-8"))
        description = LabDescription.model_validate(data)
    except ValidationError as error:
        raise LabError(f"{where}: {'; '.join(_problems(error))}", error.errors()[0]["loc"]) from error
    except (OSError, yaml.YAMLError) as error:
        raise LabError(f"{where} cannot be read: {error}") from error
    unknown = {fault.instrument for fault in description.faults} - set(description.instruments)
    if unknown:
        known = ", ".join(description.instruments)
        raise LabError(f"{where}: faults: there is no instrument {min(unknown)!r}; there are: {known}", ("faults",))
    return description


def _problems(error: ValidationError) -> list[str]:
    found = []
    for problem in error.errors():
        place = ".".join(map(str, problem["loc"])) or "the top"
        valid = f" (valid: {', '.join(FAULTS)})" if place.endswith(".fault") else ""
        found.append(f"{place}: {problem['msg']}, found {problem['input']!r}{valid}")
    return found


def _model(path: str) -> type[SimulatedInstrument]:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise LabError(f"model {path!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, SimulatedInstrument)):
        raise LabError(f"model {path!r} is no SimulatedInstrument")
    return found
