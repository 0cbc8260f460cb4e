"""Classes for tests of runs: a stage that is prepared, a sensor that measures, an analysis that follows."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from ether import ether, ether_get, ether_pub, ether_save, ether_start, ether_sub, ether_sync


class Stage:
    """Is told its place by the preparation, and by a scan."""

    def __init__(self) -> None:
        self.trial = 0
        self.place = 0.0

    @ether_sync(topic="prepare_trial")
    def prepare(self, trial: int, **rest: Any) -> int:
        self.trial = trial
        return trial

    @ether_get
    @ether_pub(topic="stage")
    def whereabouts(self) -> dict[str, int]:
        return {"n": self.trial}

    @ether_get
    def move(self, x: float, y: float = 0.0) -> None:
        self.place = x + 10 * y

    @ether_get
    def read(self) -> float:
        return self.place + 0.001

    @ether_save
    def refuse(self, x: float) -> None:
        raise ValueError(f"{x} is beyond the end of the rail")

    @ether_get
    def die(self) -> None:
        os._exit(3)


class Sensor:
    """Measures when it is told to."""

    @ether_sync(topic="prepare_trial")
    def prepare(self, trial: int) -> None:
        self.trial = trial

    @ether_sub(topic="measure")
    @ether_pub(topic="reading")
    def measure(self, n: int) -> dict[str, int]:
        return {"n": n, "prepared": self.trial}


class Analysis:
    """Follows the sensor."""

    @ether_sub(topic="reading")
    @ether_pub(topic="result")
    def analyse(self, n: int) -> dict[str, int]:
        return {"n": n}


class Slow:
    """Its handler is still at work when the trial's body is over."""

    @ether_sub(topic="slow")
    @ether_pub(topic="late")
    def work(self, n: int, seconds: float) -> dict[str, int]:
        threading.Event().wait(seconds)
        return {"n": n}


class Stream:
    """A handler that never ends."""

    @ether_start
    def stream(self) -> None:
        never, number = threading.Event(), 0
        while not never.wait(0.01):
            number += 1
            ether.pub({"number": number}, topic="stream")


class Reader:
    """Answers, or dies in the call."""

    @ether_get
    def read(self, n: float, seconds: float = 0.0) -> float:
        threading.Event().wait(seconds)
        return n

    @ether_get
    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
