"""Classes for the sessions over brokers that are not ours; instances import them by name."""

from __future__ import annotations

import time

from ether import ether_get, ether_pub, ether_save, ether_sub


class Pump:
    """Counts what it was asked to do."""

    def __init__(self) -> None:
        self.doses: list[float] = []

    @ether_get
    def item(self, number: int = 0) -> int:
        return number

    @ether_save
    def dose(self, ul: float) -> int:
        self.doses.append(ul)
        return len(self.doses)

    @ether_get
    def dosed(self) -> list[float]:
        return self.doses


class Stage:
    """One stage of a pipeline, and a method whose topic has its default name."""

    @ether_sub(topic="in")
    @ether_pub(topic="out")
    def double(self, value: int) -> int:
        return 2 * value

    @ether_sub(topic="named")
    @ether_pub
    def by_default(self, value: int) -> int:
        return value


class Reader:
    """Keeps the numbers that it is sent, each in its own time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.numbers: list[int] = []

    @ether_sub(topic="burst")
    def take(self, number: int) -> None:
        if self.seconds:
            time.sleep(self.seconds)
        self.numbers.append(number)

    @ether_get(concurrency=1)
    def taken(self) -> int:
        return len(self.numbers)

    @ether_get(concurrency=1)
    def in_order(self) -> bool:
        return self.numbers == list(range(len(self.numbers)))
