"""A simulated lab, for tests and for trying a bench out before it is there. See `lab.py` and docs/hardware.md."""

from hardware_adapters.simulate.clock import Clock, ManualClock, ScaledClock
from hardware_adapters.simulate.description import LabError
from hardware_adapters.simulate.faults import FAULTS, Fault
from hardware_adapters.simulate.instrument import DescribedInstrument, Property, SimulatedInstrument
from hardware_adapters.simulate.lab import SimulatedLab

__all__ = [
    "FAULTS",
    "Clock",
    "DescribedInstrument",
    "Fault",
    "LabError",
    "ManualClock",
    "Property",
    "ScaledClock",
    "SimulatedInstrument",
    "SimulatedLab",
]
