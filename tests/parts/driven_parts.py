"""A heater that knows nothing of Ether, and who controls it; instances import them by name."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from patience import patience

from ether import ether, ether_every, ether_get, ether_pub


class Heater:
    """Writes down what the device is told, with the machine's steady clock."""

    def __init__(self, log: str) -> None:
        self._log = Path(log)
        self._broken = 0

    def _tell(self, word: str) -> None:
        with self._log.open("a") as log:
            log.write(f"{time.monotonic()} {word}\n")

    def connect(self) -> None:
        self._tell("connect")

    def set_power(self, watts: float) -> float:
        if self._broken:
            self._broken -= 1
            raise OSError("no answer")
        self._tell(f"power {watts:g}")
        return watts

    def break_down(self, times: int) -> None:
        """The next orders are not answered."""
        self._broken = times

    def hang(self, seconds: float) -> None:
        self._tell("hang")
        threading.Event().wait(seconds)

    def read(self) -> str:
        return "here"

    def disconnect(self) -> None:
        self._tell("disconnect")


class Plc:
    """Measures by itself, and does something by itself."""

    def __init__(self) -> None:
        self.n = self.turns = 0

    @ether_pub(topic="night", every="50ms")
    def poll(self) -> int:
        self.n += 1
        return self.n

    @ether_pub(topic="level", every="50ms")
    def level(self) -> int:
        return self.n

    @ether_every("50ms")
    def turn(self) -> None:
        self.turns += 1

    @ether_get
    def set(self, value: int) -> int:
        return value

    def off(self) -> None:
        """What the safe state calls."""


class Controller:
    """Keeps a heater on."""

    def regulate(self) -> None:
        ether.get("heater", "set_power", 40, timeout_s=patience(2))
