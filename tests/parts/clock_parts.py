"""What runs while its clock is set: a camera that ticks, and a doser that writes down what it was told."""

from __future__ import annotations

import os

from ether import ether_every, ether_get, ether_save


class Camera:
    """Takes pictures by itself."""

    def __init__(self) -> None:
        self.pictures = 0

    @ether_every("0.2s")
    def take(self) -> None:
        self.pictures += 1

    @ether_get
    def count(self) -> int:
        return self.pictures


class Doser:
    """A dose must not be lost, nor given twice."""

    def __init__(self, file: str) -> None:
        self._file = file

    @ether_save
    def dose(self, n: int) -> int:
        with open(self._file, "a") as file:
            file.write(f"{n}\n")
        return n

    @ether_get
    def pid(self) -> int:
        return os.getpid()
