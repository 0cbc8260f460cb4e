"""Classes for the tests of outages, of distance and of orderly ends; instances import them by name."""

from __future__ import annotations

import atexit
import os
import time
from pathlib import Path

from ether import ether, ether_get, ether_pub, ether_save_all, ether_shutdown, ether_sub


class Cam:
    """Scans for a while, and tells from a thread of its own how many scans have ended."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds, self.n = seconds, 0

    @ether_get
    def scan(self) -> int:
        time.sleep(self.seconds)
        self.n += 1
        return 42

    @ether_get(concurrency=1)
    def scans(self) -> int:
        return self.n

    @ether_get
    def pid(self) -> int:
        return os.getpid()


class Source:
    """Publishes in bursts, and counts what it hears."""

    def __init__(self) -> None:
        self.n = 0

    @ether_get
    def burst(self, count: int) -> int:
        for number in range(count):
            self.measure(number)
        return count

    @ether_pub(topic="burst")
    def measure(self, number: int) -> int:
        return number

    @ether_sub(topic="load")
    def hear(self, root: int) -> None:
        self.n += 1

    @ether_get(concurrency=1)
    def heard(self) -> int:
        return self.n

    @ether_save_all
    def save(self) -> None:
        print(f"heard {self.n}", flush=True)


class Ending:
    """Ends in another way than it was told to: with an exit code, by a failure in its last step, or late."""

    def __init__(self, code: int = 0, fails: bool = False, late_s: float = 0.0) -> None:
        self.code, self.fails, self.late_s = code, fails, late_s

    @ether_get
    def ping(self) -> int:
        return 1

    @ether_shutdown
    def end(self) -> None:
        if self.code:
            atexit.register(os._exit, self.code)  # the process ends by itself; this changes how
        time.sleep(self.late_s)
        if self.fails:
            raise OSError("the shutter is stuck")


class Slow:
    """Takes its time for each message."""

    @ether_sub(topic="load")
    def take(self, root: int) -> None:
        time.sleep(0.3)


class Once:
    """Notes each call that it runs in a file, by process."""

    def __init__(self, folder: str) -> None:
        self._file = Path(folder) / f"{os.getpid()}"

    @ether_get
    def work(self, call: str, seconds: float = 0.0) -> str:
        with self._file.open("a") as file:
            file.write(f"{call}\n")
        ether.pub(call, topic="working")
        time.sleep(seconds)
        return f"{call} is done"
