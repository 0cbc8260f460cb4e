"""A pump whose doses can be counted, and others of its lab; instances import them by name."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from ether import ether, ether_get, ether_pub, ether_save, ether_save_all, ether_sub, ether_sync


class Pump:
    """Counts its doses: one too many is what must never happen."""

    def __init__(self) -> None:
        self.doses = 0
        self.syncs = 0

    @ether_save
    def dose(self, ul: float, take_s: float = 0.0) -> int:
        self.doses += 1
        time.sleep(take_s)
        return self.doses

    @ether_get
    def count(self) -> int:
        return self.doses

    @ether_get
    def pid(self) -> int:
        return os.getpid()

    @ether_get
    def busy(self, seconds: float) -> int:
        """Says on the topic `begun` that it has begun, and takes so long."""
        ether.pub({"pid": os.getpid()}, topic="begun")
        time.sleep(seconds)
        return self.doses

    @ether_sync(topic="prime")
    def prime(self) -> int:
        self.syncs += 1
        return self.syncs

    @ether_get
    def primed(self) -> int:
        return self.syncs


class Doubler:
    """A stage of a pipeline."""

    def __init__(self) -> None:
        self.handled: list[int] = []

    @ether_sub(topic="single")
    @ether_pub(topic="double")
    def double(self, n: int) -> dict[str, int]:
        self.handled.append(n)
        return {"n": 2 * n}

    @ether_get
    def all(self) -> list[int]:
        return self.handled


class Sink:
    """Writes down what it has handled, when everything is saved at the end."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.handled: list[int] = []

    @ether_sub(topic="double")
    def take(self, n: int) -> None:
        self.handled.append(n)

    @ether_save_all
    def write(self) -> None:
        Path(self.path).write_text(json.dumps(self.handled))
