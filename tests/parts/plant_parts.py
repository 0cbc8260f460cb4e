"""A plant with a heater, who controls it by what is measured, and a device on a serial port."""

from __future__ import annotations

import threading
from collections.abc import Callable

from patience import patience

from ether import ether, ether_get, ether_pub, ether_sub
from hardware_adapters import SerialPort


class Heater:
    """Its power has limits, by the registry."""

    def __init__(self) -> None:
        self.powers: list[float] = []

    def set_power(self, watts: float) -> float:
        self.powers.append(watts)
        return watts

    def log(self) -> list[float]:
        return self.powers


class Valve:
    """Has a safe state, by the registry, and hears a topic."""

    def __init__(self) -> None:
        self.moves: list[float] = []

    def move(self, percent: float) -> None:
        self.moves.append(percent)

    def close(self) -> None:
        """What the safe state calls."""

    def log(self) -> list[float]:
        return self.moves


class Filter:
    """The first hop of three."""

    @ether_sub(topic="temp")
    @ether_pub(topic="smooth")
    def smooth(self, celsius: float) -> dict[str, float]:
        return {"celsius": celsius}


class Controller:
    """Moves everything that there is because of what it hears, from its handler and from a thread of it."""

    def __init__(self, port: str = "") -> None:
        self.refusals: list[str] = []
        self.heard = 0
        self._device = SerialPort(port, timeout_s=patience(5.0)) if port else None

    @ether_sub(topic="smooth")
    def control(self, celsius: float) -> None:
        thread = threading.Thread(target=self._attempt, args=(self.by_call, celsius))
        thread.start()
        thread.join()
        for way in (self.by_call, self.by_message, self.elsewhere, self.by_port, self.question):
            self._attempt(way, celsius)
        self.heard += 1

    def _attempt(self, way: Callable[[float], object], celsius: float) -> None:
        try:
            way(celsius)
        except Exception as error:
            self.refusals.append(f"{way.__name__}: {error}")

    def by_call(self, celsius: float) -> None:
        ether.get("heater", "set_power", {"watts": celsius})

    def by_message(self, celsius: float) -> None:
        ether.pub({"percent": celsius}, topic="valve")

    def elsewhere(self, celsius: float) -> None:
        ether.pub(celsius, topic="mqtt:plant/fan")

    def by_port(self, celsius: float) -> None:
        if self._device is not None:
            self._device.write(f"POW {celsius:g}")

    def question(self, celsius: float) -> None:
        if self._device is not None:
            self._device.query("POW?")

    @ether_get
    def seen(self) -> dict[str, object]:
        return {"heard": self.heard, "refusals": self.refusals}
