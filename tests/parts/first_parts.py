"""Sources that publish from the first moment on, and a receiver that takes its time to be built."""

from __future__ import annotations

import threading
import time

from ether import ether, ether_every, ether_get, ether_init, ether_pub, ether_sub


class Camera:
    """Takes an image five times a second."""

    def __init__(self) -> None:
        self.n = 0

    @ether_every("5Hz")
    @ether_pub(topic="image")
    def snap(self) -> dict[str, int]:
        self.n += 1
        return {"n": self.n}


class Streamer:
    """Publishes from a thread that begins in `ether_init`, and a calibration once, in `ether_init` itself."""

    def __init__(self, images: int = 100, pause_s: float = 0.01) -> None:
        self._images, self._pause_s = images, pause_s

    @ether_init
    def begin(self) -> None:
        ether.pub({"offset": 3}, topic="calibration")
        threading.Thread(target=self._stream, daemon=True).start()

    def _stream(self) -> None:
        for n in range(1, self._images + 1):
            self.image(n)
            if self._pause_s:
                time.sleep(self._pause_s)

    @ether_pub(topic="image")
    def image(self, n: int) -> dict[str, int]:
        return {"n": n}


class Analysis:
    """Is built for some seconds, as one that loads a model."""

    def __init__(self, build_s: float = 1.5) -> None:
        time.sleep(build_s)
        self.seen: list[int] = []
        self.offsets: list[int] = []

    @ether_sub(topic="image")
    @ether_pub(topic="brightness")
    def analyse(self, n: int) -> int:
        self.seen.append(n)
        return n

    @ether_sub(topic="calibration")
    def calibrate(self, offset: int) -> None:
        self.offsets.append(offset)

    @ether_get
    def numbers(self) -> list[int]:
        return self.seen

    @ether_get
    def last(self) -> int:
        return self.seen[-1] if self.seen else 0

    @ether_get
    def calibrations(self) -> list[int]:
        return self.offsets
