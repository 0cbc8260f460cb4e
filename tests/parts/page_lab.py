"""Classes for the lab that the tests of the page look at; instances import them by name."""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import Any, Literal

from ether import ether_get, ether_init, ether_pub, ether_save, ether_sub

MARKUP = "<img src=x onerror=\"window.marked='yes'\"><script>window.marked='yes'</script>"


class Ticking:
    """Does something again and again, on a thread of its own."""

    period_s = 0.1

    @ether_init
    def begin(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(self.period_s):
            self.tick()

    def tick(self) -> object:
        raise NotImplementedError


class Thermometer(Ticking):
    """The bath's thermometer."""

    @ether_pub(topic="temperature")
    def tick(self) -> float:
        return 37 + 0.3 * math.sin(time.time() * 2)


class Stage(Ticking):
    __doc__ = f"Moves the plate. {MARKUP}"

    def __init__(self) -> None:
        self.x = 0.0

    @ether_pub(topic="position")
    def tick(self) -> dict[str, float]:
        return {"x": self.x, "y": math.cos(time.time()), "tilt": math.nan}

    @ether_get
    def move(self, x: float, speed: Literal["fast", "slow"] = "fast", settle: bool = True, note: str = "") -> float:
        """Move to a place, and return it."""
        if note == "stuck":
            logging.getLogger("stage").error("the stage is stuck %s", MARKUP)
            raise RuntimeError(f"the stage is stuck at {self.x} {MARKUP}")
        self.x = x
        return x

    @ether_get
    def halt(self) -> str:
        self.x = 0.0
        return "halted"

    @ether_save
    def keep(self, name: str) -> dict[str, str]:
        return {"kept": name}


class Camera(Ticking):
    """Takes pictures of a square that moves."""

    def __init__(self) -> None:
        import numpy as np

        self.frame = np.zeros((240, 320), np.uint16)
        self.number = 0

    @ether_pub(topic="image")
    def tick(self) -> Any:
        self.number += 1
        frame = self.frame.copy()
        frame[:, :] = 100 + self.number % 7
        at = 20 + self.number * 4 % 240
        frame[80:160, at : at + 60] = 3000
        return frame


class Segmenter:
    """Counts what is bright."""

    @ether_sub(topic="image")
    @ether_pub(topic="cells")
    def segment(self, root: Any) -> dict[str, float]:
        return {"count": int((root > 1000).sum()), "mean": float(root.mean())}


class Presence:
    """Whether a device is there."""

    def __init__(self, reason: str = "") -> None:
        self.online, self.reason, self.since = not reason, reason, time.time()


class PhMeter:
    """The driver of a device that can be pulled out."""

    def __init__(self) -> None:
        self.name, self.closed, self.presence = "HI98", False, Presence()
        self.tell: list[Any] = []

    def watch_presence(self, callback: Any) -> Any:
        self.tell.append(callback)
        return lambda: None


class Probe:
    """Measures pH."""

    def __init__(self) -> None:
        self.device = PhMeter()

    @ether_get
    def unplug(self, reason: str = "") -> None:
        self.device.presence = Presence(reason)
        for tell in self.device.tell:
            tell(self.device.presence)


class Wild:
    """Says what no screen likes."""

    @ether_get
    def shout(self, what: str) -> str:
        logging.getLogger("wild").error("%s %s", what, MARKUP)
        return MARKUP
