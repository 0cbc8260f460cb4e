"""A simulated lab: instruments wired to one another, each at a port that an adapter can open.

    with SimulatedLab("bench.yaml") as lab:
        heater = SerialPort(lab.port("heater"))
        lab.unplug("heater"); lab.plug("heater")
        lab.fault("thermometer", "garbage", for_s=5)

Ports are real ptys where the system has them, and TCP ports elsewhere and for resources that VISA reaches over a
network. `twin_kwargs` replaces the real ports in a class's arguments by those of the simulated lab, so that no code
changes.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hardware_adapters.simulate.clock import Clock, ScaledClock
from hardware_adapters.simulate.description import InstrumentPart, LabDescription, LabError, read_description
from hardware_adapters.simulate.endpoints import PtyEndpoint, SimulatedEndpoint, SocketEndpoint
from hardware_adapters.simulate.faults import Fault, FaultName, Faults
from hardware_adapters.simulate.instrument import SimulatedInstrument
from hardware_adapters.simulate.world import World
from hardware_adapters.twins import Twin, Twins

if TYPE_CHECKING:
    from hardware_adapters.simulate.visa_bench import VisaBench

_JOIN_S = 5.0


class SimulatedLab:
    """The lab that a YAML file or a dict describes. Use it as a context, or call `start()` and `close()`.

    `clock` is its time (by default `speed` times real time). Raises LabError for a description that cannot be used.
    """

    def __init__(
        self, description: str | Path | Mapping[str, Any], *, clock: Clock | None = None, folder: Path | None = None
    ) -> None:
        """`folder` is where the ports appear; the caller removes it. By default the lab has a folder of its own."""
        self.description: LabDescription = read_description(description)
        self.clock: Clock = clock or ScaledClock(self.description.speed)
        self.world = World(self.description.wires())
        self.instruments: dict[str, SimulatedInstrument] = {}
        self._faults: dict[str, Faults] = {}
        for name, part in self.description.instruments.items():
            self._place(name, part)
        try:
            self.world.check()
        except ValueError as error:
            raise LabError(f"wiring: {error}", ("wiring",)) from error
        self._own_folder: tempfile.TemporaryDirectory[str] | None = None
        self._folder = folder
        self._endpoints: dict[str, SimulatedEndpoint] = {}
        self._at: dict[str, str] = {}  # instrument: the place (named after an instrument) where it is plugged in
        self._pulled: dict[str, str] = {}  # instruments that a fault has unplugged, with their places
        self._bench: VisaBench | None = None
        self._guard = threading.RLock()
        self._changed, self._closing = threading.Event(), False
        self._thread: threading.Thread | None = None

    def _place(self, name: str, part: InstrumentPart) -> None:
        try:
            instrument = part.instrument(name)
        except ValueError as error:
            raise LabError(f"instruments.{name}: {error}", ("instruments", name)) from error
        scheduled = tuple(each.value() for each in self.description.faults if each.instrument == name)
        self._faults[name] = Faults(f"{self.description.seed} {name}", scheduled)
        instrument.place(self.world, self.clock, self._faults[name])
        self.instruments[name] = instrument

    def start(self) -> SimulatedLab:
        """Plug every instrument in."""
        if self._folder is None:
            self._own_folder = tempfile.TemporaryDirectory(prefix="lab-")
            self._folder = Path(self._own_folder.name)
        self._folder.mkdir(exist_ok=True)
        for name, part in self.description.instruments.items():
            self._endpoints[name] = self._endpoint(name, part)
            self.plug(name)
        self.clock.on_advance(self._tick)
        self._follow_faults()
        self._thread = threading.Thread(target=self._run, name="simulated lab", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Unplug everything and end every thread; harmless twice."""
        self._closing = True
        self._changed.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
        for endpoint in self._endpoints.values():
            endpoint.unplug()
        if self._own_folder is not None:
            self._own_folder.cleanup()
            self._folder = self._own_folder = None

    def __enter__(self) -> SimulatedLab:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def port(self, name: str) -> str:
        """The name with which `SerialPort` opens the place of this instrument. Raises KeyError for an unknown name."""
        return self._endpoint_of(name).port

    def resource(self, name: str) -> str:
        """The name with which `VisaInstrument` opens it, by pyvisa-py: over TCP, or the pty as a serial resource."""
        endpoint = self._endpoint_of(name)
        if isinstance(endpoint, SocketEndpoint):
            return f"TCPIP::127.0.0.1::{endpoint.number}::SOCKET@py"
        return f"ASRL{endpoint.port}::INSTR@py"

    def visa_resource(self, name: str, resource: str) -> str:
        """Put this instrument into pyvisa-sim, too, under a VISA name (`GPIB0::8::INSTR`); returns it with its library.

        Only code of this process can open that name. It is never unplugged; the other faults act.
        """
        # late, because pyvisa is optional
        from hardware_adapters.simulate.visa_bench import VisaBench

        if self._bench is None:
            assert self._folder is not None, "start the lab first"
            self._bench = VisaBench(self._folder)
        return self._bench.add(resource, self.instruments[name])

    def unplug(self, name: str) -> None:
        """Unplug this instrument, at whatever place it is."""
        with self._guard:
            place = self._at.pop(name, None)
            if place is not None:
                self._endpoint_of(place).unplug()

    def plug(self, name: str, place: str | None = None) -> None:
        """Plug the instrument in: at its own place, or at that of another instrument, which must be unplugged."""
        with self._guard:
            self.unplug(name)
            place = place or name
            if place in self._at.values():
                raise ValueError(f"the place of {place!r} is taken; unplug what is there first")
            self.instruments[name].powered()
            self._at[name] = place
            self._endpoint_of(place).plug(self.instruments[name])

    def swap(self, one: str, other: str) -> None:
        """Let two instruments exchange their ports."""
        with self._guard:
            first, second = self._at[one], self._at[other]
            self.unplug(one)
            self.unplug(other)
            self.plug(one, second)
            self.plug(other, first)

    def fault(
        self,
        name: str,
        fault: FaultName,
        *,
        for_s: float | None = None,
        amount: float | None = None,
        chance: float | None = None,
        in_s: float = 0.0,
    ) -> None:
        """Begin a fault of this instrument, now or `in_s` seconds (of the lab) later."""
        self._faults[name].add(Fault(fault, self.clock.now() + in_s, for_s, amount, chance))
        self._changed.set()

    def mend(self, name: str) -> None:
        """End every fault of this instrument."""
        self._faults[name].clear()
        self._changed.set()

    def value(self, quantity: str) -> float:
        """A quantity of the lab (`heater.power`) as it is now, without noise."""
        return self.world.value(quantity, self.clock.now())

    def twins(self) -> Twins:
        """The simulated devices of this lab, for adapters of this process and of others."""
        parts = self.description.instruments.items()
        return Twins(
            [
                Twin(name, part.twin_of or "", self.port(name), self.resource(name), part.usb_serial)
                for name, part in parts
            ]
        )

    def twin_kwargs(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a class with each real port or VISA resource replaced by its twin's.

        A value is real where it is the `twin_of` of an instrument. A `port` or `resource` that has no twin raises
        LabError: a simulated run must not touch the bench.
        """
        twins = {part.twin_of: name for name, part in self.description.instruments.items() if part.twin_of}
        found = {key: self._twin(key, value, twins) for key, value in kwargs.items()}
        strange = [key for key in ("port", "resource") if key in kwargs and kwargs[key] not in twins]
        if strange and kwargs[strange[0]] is not None:
            raise LabError(
                f"{strange[0]}={kwargs[strange[0]]!r} has no twin in this lab; twin_of is there for:"
                f" {', '.join(sorted(twins)) or 'nothing'}"
            )
        return found

    def _twin(self, key: str, value: object, twins: Mapping[str, str]) -> object:
        if not isinstance(value, str) or value not in twins:
            return value
        return self.resource(twins[value]) if "::" in value else self.port(twins[value])

    def _endpoint(self, name: str, part: InstrumentPart) -> SimulatedEndpoint:
        over_network = part.twin_of is not None and part.twin_of.upper().startswith(("TCPIP", "SOCKET://"))
        if part.reached_by == "socket" or over_network or os.name != "posix":
            return SocketEndpoint()
        assert self._folder is not None
        return PtyEndpoint(self._folder / name)

    def _endpoint_of(self, name: str) -> SimulatedEndpoint:
        if name not in self._endpoints:
            raise KeyError(f"there is no instrument {name!r} in this lab; there are: {', '.join(self._endpoints)}")
        return self._endpoints[name]

    def _tick(self) -> None:
        """Called when the lab's time has jumped."""
        self._follow_faults()
        for endpoint in self._endpoints.values():
            endpoint.tick()

    def _run(self) -> None:
        """The lab's thread: unplugs and plugs when a `disconnect` begins and ends."""
        while not self._closing:
            now = self.clock.now()
            times = [time for faults in self._faults.values() if (time := faults.next_change(now)) is not None]
            self._changed.wait(self.clock.wall_s(min(times) - now) if times else None)
            self._changed.clear()
            if not self._closing:
                self._follow_faults()

    def _follow_faults(self) -> None:
        with self._guard:
            for name, faults in self._faults.items():
                pulled = faults.on("disconnect", self.clock.now()) is not None
                if pulled and name in self._at:
                    self._pulled[name] = self._at[name]
                    self.unplug(name)
                elif not pulled and name in self._pulled:
                    self.plug(name, self._pulled.pop(name))
