"""Instances that are restarted while messages come; imported by name."""

from __future__ import annotations

import os
import time
from typing import Any

from ether import ether, ether_get, ether_pub, ether_sub


class Counter:
    """Notes every number that it is given, and passes it on."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s

    @ether_sub(topic="number")
    @ether_pub(topic="counted")
    def count(self, n: int) -> dict[str, int]:
        time.sleep(self.pause_s)
        return {"n": n, "pid": os.getpid()}

    @ether_sub(topic="die")
    def die(self) -> None:
        os._exit(3)

    @ether_get
    def pid(self) -> int:
        return os.getpid()


class SlowStart(Counter):
    """Imports for a while, as one with a large library does."""

    def __init__(self) -> None:
        super().__init__()
        time.sleep(1.8)


class Wild(Counter):
    """Hears every topic below `numbers`."""

    @ether_sub(topic="numbers/+")
    @ether_pub(topic="counted")
    def count(self, n: int, topic: str = "") -> dict[str, Any]:
        return {"n": n, "topic": topic, "pid": os.getpid()}


class Pair:
    """Two methods on one topic: a quick one, and one that lags behind."""

    @ether_sub(topic="number")
    @ether_pub(topic="quick")
    def quick(self, n: int) -> dict[str, int]:
        return {"n": n}

    @ether_sub(topic="number")
    @ether_pub(topic="lagging")
    @ether_get(concurrency=2)
    def lagging(self, n: int) -> dict[str, int]:
        time.sleep(0.05)
        return {"n": n}


class Fragile(Counter):
    """Ends its process at some numbers."""

    def __init__(self, ends_at: list[int]) -> None:
        super().__init__()
        self.ends_at = ends_at

    @ether_sub(topic="number")
    @ether_pub(topic="counted")
    def count(self, n: int) -> dict[str, int]:
        if n in self.ends_at:
            os._exit(9)
        return {"n": n, "pid": os.getpid()}


class Talker:
    """Publishes numbers at a rate, from an instance of its own."""

    def __init__(self, topic: str = "number", hz: float = 50.0) -> None:
        self.topic, self.hz = topic, hz

    @ether_sub(topic="talk")
    def talk(self, first: int, last: int) -> None:
        for n in range(first, last + 1):
            ether.pub({"n": n}, topic=self.topic)
            time.sleep(1 / self.hz)
