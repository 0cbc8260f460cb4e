"""Classes for tests of what a broker refuses; instances import them by name."""

from __future__ import annotations

import logging
from typing import Any

from ether import ether, ether_get, ether_pub, ether_save, ether_sub, ether_sync


class Cam:
    """Gives as many bytes as it is asked for, in every way that there is."""

    def __init__(self) -> None:
        self._doses = 0

    @ether_get
    def snap(self, size: int = 1, given: Any = None) -> bytes:
        return bytes(size)

    @ether_save
    def dose(self, size: int = 0, given: Any = None) -> Any:
        self._doses += 1
        return bytes(size) if size else self._doses

    @ether_get
    def doses(self) -> int:
        return self._doses

    @ether_sync(topic="frame")
    def frame(self, size: int = 1) -> bytes:
        return bytes(size)

    @ether_sub(topic="go")
    @ether_pub(topic="images")
    def image(self, size: int = 1) -> bytes:
        return bytes(size)

    @ether_get
    def publish(self, topic: str, size: int) -> None:
        ether.pub(bytes(size), topic=topic)

    @ether_get
    def complain(self, length: int) -> None:
        try:
            raise ValueError("x" * length)
        except ValueError:
            logging.getLogger("cam").exception("it failed: %s", "y" * length)


class Wordy:
    """Cannot describe itself in a few bytes."""

    __doc__ = "A long story. " * 3000
