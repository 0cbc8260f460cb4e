"""Drivers of the shapes that other libraries have: channels, parameters made at run time, factories, backends, nodes,
callbacks, blocking reads, quantities. They know nothing of Ether."""

from __future__ import annotations

import asyncio
import enum
import itertools
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any


class Thermometer:
    """Channels as attributes that the constructor makes (PyMeasure)."""

    class Channel:
        def __init__(self, kelvin: float) -> None:
            self._kelvin = kelvin
            self.heater = 0.0
            self.told: list[float] = []

        @property
        def kelvin(self) -> float:
            return self._kelvin

        @property
        def setpoint(self) -> float:
            return self.told[-1] if self.told else 0.0

        @setpoint.setter
        def setpoint(self, value: float) -> None:
            self.told.append(value)

        def off(self, how: str = "soft") -> str:
            self.told.append(-1.0)
            return how

        def ramp(self, target: float, rate: float = 1.0) -> float:
            self.told.append(target)
            return rate

    def __init__(self) -> None:
        for name, kelvin in (("A", 4.2), ("B", 77.0)):
            setattr(self, f"input_{name}", self.Channel(kelvin))
        self.ch = [self.Channel(1.0), self.Channel(2.0)]
        self.by_name = {"ch 1": self.Channel(3.0)}


class Dac:
    """Parameters that are callables, found by `__getattr__` (QCoDeS)."""

    class Parameter:
        def __init__(self) -> None:
            self.value = 0.0

        def __call__(self, *value: float) -> float | None:
            return self.set(*value) if value else self.get()

        def get(self) -> float:
            return self.value

        def set(self, value: float) -> None:
            self.value = value

    def __init__(self, *, channels: int = 2) -> None:
        self.parameters = {f"v{n}": self.Parameter() for n in range(channels)}

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["parameters"][name]
        except KeyError:
            raise AttributeError(name) from None


class Status:
    """What a move returns (ophyd)."""

    def __init__(self) -> None:
        self.waited = False

    def wait(self) -> None:
        self.waited = True


class Axis:
    def __init__(self) -> None:
        self.position = 0.0
        self.last = Status()

    def set(self, value: float) -> Status:
        self.position, self.last = value, Status()
        return self.last


class Backend:
    def __init__(self, channels: int = 8) -> None:
        self.channels = channels


class Deck:
    @classmethod
    def standard(cls, slots: int) -> Deck:
        deck = cls()
        deck.slots = slots
        return deck

    slots = 0


class Handler:
    """Gets objects as arguments (PyLabRobot)."""

    def __init__(self, backend: Backend, deck: Deck) -> None:
        assert isinstance(backend, Backend)
        assert isinstance(deck, Deck)
        self.backend, self.deck = backend, deck


class Button:
    """Calls what was set as `when_pressed` (gpiozero)."""

    def __init__(self, pin: int) -> None:
        self.pin = pin
        self._when: Callable[[], None] | None = None

    @property
    def when_pressed(self) -> Callable[[], None] | None:
        return self._when

    @when_pressed.setter
    def when_pressed(self, value: Callable[[], None] | None) -> None:
        self._when = value

    def press(self) -> None:
        if self._when is not None:
            self._when()


class Message:
    """A frame, which cannot travel (python-can)."""

    def __init__(self, number: int) -> None:
        self.arbitration_id, self.data = number, bytes([number])


class VirtualBus:
    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.speed = os.environ.get("CAN_SPEED")
        self.numbers = itertools.count(1)
        self.frames = [Message(1), Message(2)]
        self.listeners: list[Callable[[Message], None]] = []
        self.sent = threading.Event()

    def recv(self, timeout: float = 0.05) -> Message | None:
        if self.frames:
            return self.frames.pop(0)
        self.sent.wait(timeout)
        return Message(next(self.numbers)) if timeout else None

    def add_listener(self, function: Callable[[Message], None], *, first: bool = False) -> None:
        self.listeners.append(function)


class Bus:
    """A class whose constructor makes an object of another one."""

    def __new__(cls, channel: str) -> Any:
        return VirtualBus(channel)


class Supply:
    """Is opened by a factory of its own, never by its constructor."""

    def __init__(self, link: object) -> None:
        assert link is not None, "use open_tcpip"
        self.link = link

    @classmethod
    def open_tcpip(cls, host: str, port: int = 5025) -> Supply:
        return cls((host, port))

    def voltage(self) -> float:
        return 5.0


def open_supply(host: str) -> Supply:
    return Supply((host, 0))


class Manager:
    """Opens resources (pyvisa)."""

    def __init__(self, library: str = "") -> None:
        self.library = library

    def open_resource(self, name: str) -> Supply:
        return Supply((self.library, name))


class Node:
    def __init__(self, name: str) -> None:
        self.name, self.value = name, 20.0

    async def read_value(self) -> float:
        await asyncio.sleep(0)
        return self.value

    async def write_value(self, value: float) -> None:
        self.value = value


class Server:
    """Nodes are objects that are asked for (asyncua)."""

    def __init__(self, url: str) -> None:
        self.url, self.connected = url, False
        self.nodes: dict[str, Node] = {}

    async def connect(self) -> None:
        self.connected = True

    def get_node(self, name: str) -> Node:
        assert self.connected
        return self.nodes.setdefault(name, Node(name))


class Response:
    def __init__(self, registers: list[int]) -> None:
        self.registers = registers


class Modbus:
    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def read_holding_registers(self, address: int, *, count: int = 1) -> Response:
        return Response([address * 10 + n for n in range(count)])

    def write_register(self, address: int, value: int) -> Response:
        self.told.append((address, value))
        return Response([])

    def read_register(self, registeraddress: int, number_of_decimals: int = 0) -> float:
        return registeraddress / 10**number_of_decimals


class Camera:
    """A context manager that reads `(ok, frame)` (OpenCV, with a `with`)."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def __enter__(self) -> Camera:
        self.steps.append("enter")
        return self

    def __exit__(self, *error: object) -> None:
        self.steps.append("exit")

    def read(self) -> tuple[bool, list[int]]:
        return True, [1, 2]


class AsyncCamera(Camera):
    __enter__ = None  # type: ignore[assignment]

    async def __aenter__(self) -> str:
        return "opened"


class Quantity:
    """A number with a unit (pint, which is not needed for this)."""

    def __init__(self, magnitude: float, unit: str) -> None:
        self.magnitude, self.units = magnitude, unit

    def to(self, unit: str) -> Quantity:
        if (self.units, unit) == ("degC", "K"):
            return Quantity(self.magnitude + 273.15, unit)
        if self.units != unit:
            raise ValueError(f"Cannot convert from {self.units!r} to {unit!r}")
        return self


class Oven:
    @property
    def temperature(self) -> Quantity:
        return Quantity(20.0, "degC")


class Coupling(enum.Enum):
    AC = "ac"
    DC = "dc"


class Scope:
    def __init__(self, coupling: Coupling = Coupling.DC) -> None:
        self.coupling, self.pause = coupling, threading.Event()

    def couple(self, coupling: Coupling) -> str:
        self.coupling = coupling
        return coupling.name

    def frames(self) -> Iterator[int]:
        for number in itertools.count(1):
            yield number
            self.pause.wait(0.02)

    async def packets(self) -> AsyncIterator[int]:
        for number in itertools.count(1):
            yield number
            await asyncio.sleep(0.02)


class Vanishing:
    """Channels that the driver takes away."""

    def __init__(self) -> None:
        self.ch = [Thermometer.Channel(1.0)]

    def drop(self) -> None:
        self.ch.clear()


class Broken:
    @classmethod
    def open(cls, port: str) -> Broken:
        raise OSError(f"no answer on {port}")


class HasModule:
    asyncio = asyncio


class BareHeater:
    """A serial driver as most are: it opens its port once, and knows nothing of plugs. `opened` counts all of them."""

    opened = 0

    def __init__(self, port: str) -> None:
        import serial

        type(self).opened += 1
        self.link = serial.Serial(port, timeout=1.0)  # bare: its simulator may not get its turn

    def power(self) -> float:
        self.link.write(b"POW?\n")
        answer = self.link.readline()
        if not answer:
            raise TimeoutError("no answer to POW?")
        return float(answer)

    def set_power(self, watts: float) -> None:
        self.link.write(f"POW {watts}\n".encode())
        self.link.readline()

    def times_opened(self) -> int:
        return self.opened

    def close(self) -> None:
        self.link.close()


class Dead:
    """A device that is there while a file is, and whose driver raises an error of its own else. `log` is what was
    asked of it."""

    class NoAnswer(Exception):
        pass

    def __init__(self, path: str) -> None:
        self.path, self.log = path, list[str]()

    def identity(self) -> str:
        self.log.append("identity")
        if not os.path.exists(self.path):
            raise self.NoAnswer("nothing came back")
        return "ACME"

    def connect(self) -> None:
        self.log.append("connect")

    def disconnect(self) -> None:
        self.log.append("disconnect")

    def read(self) -> float:
        self.log.append("read")
        self.identity()
        return 1.0


class Gauge:
    """Measures what was set. `vented` counts the calls of `vent`."""

    def __init__(self) -> None:
        self.level = 20.0
        self.vented = 0

    def vent(self) -> None:
        self.vented += 1
