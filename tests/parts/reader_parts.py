"""A reader that is slower than its source; instances import them by name."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ether import ether_every, ether_get, ether_pub, ether_start, ether_sub


class Camera:
    """640 x 480 pixels, 15 times a second, as many frames as it is told; each with its number and time."""

    def __init__(self, frames: int) -> None:
        self.frames, self.n = frames, 0
        self.going = False

    @ether_start
    def go(self) -> None:
        self.going = True

    @ether_every("15Hz")
    def grab(self) -> None:
        if self.going and self.n < self.frames:
            self.n += 1
            self.frame()

    @ether_pub(topic="frame")
    def frame(self) -> dict[str, Any]:
        return {"n": self.n, "sent": time.time(), "image": np.zeros((480, 640, 3), np.uint8)}

    @ether_get
    def shot(self) -> int:
        return self.n


class Model:
    """Takes 150 ms for each frame."""

    @ether_sub(topic="frame")
    @ether_pub(topic="boxes")
    def detect(self, n: int, sent: float, image: np.ndarray) -> dict[str, Any]:
        time.sleep(0.15)
        return {"n": n, "age_s": time.time() - sent}
