"""Classes for tests of supervision: they die, hang and wait in every way."""

from __future__ import annotations

import os
import threading
import time

from ether import ether, ether_get, ether_init, ether_pub, ether_save, ether_sub


class Worker:
    """Answers, and does what kills or stops a process."""

    def __init__(self, note: str = "") -> None:
        self.note = note
        self.count = 0

    @ether_get
    def pid(self) -> int:
        return os.getpid()

    @ether_get
    def add(self, a: int, b: int) -> int:
        return a + b

    @ether_sub(topic="count")
    @ether_pub(topic="counted")
    def counted(self, n: int) -> dict[str, int]:
        self.count += 1
        return {"n": n, "count": self.count}

    @ether_sub(topic="die")
    def die(self, code: int = 1) -> None:
        os._exit(code)

    @ether_sub(topic="loop")
    def loop(self) -> None:
        """An endless loop in C, which never lets go of the interpreter."""
        sum(range(10**15))

    @ether_sub(topic="deadlock")
    def deadlock(self) -> None:
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()

    @ether_sub(topic="rest")
    def rest(self, seconds: float) -> None:
        time.sleep(seconds)


class Flood:
    """Writes without end, once told to: each message has a number."""

    @ether_sub(topic="flood")
    def flood(self, total: int) -> None:
        for n in range(total):
            ether.pub({"n": n, "pid": os.getpid()}, topic="late")
            time.sleep(0.001)

    @ether_get
    def slow_pid(self, seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()


class Fragile:
    """Works once: whoever builds it again gets an error."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        if os.path.exists(mark):
            raise RuntimeError("the shutter is stuck")

    @ether_sub(topic="break")
    def break_down(self) -> None:
        with open(self.mark, "w"):
            os._exit(3)


class Ordered:
    """Notes when it was built."""

    def __init__(self, name: str, file: str, seconds: float = 0.0, fail: bool = False) -> None:
        self.name, self.file, self.seconds, self.fail = name, file, seconds, fail

    @ether_init
    def begin(self) -> None:
        with open(self.file, "a") as file:
            file.write(f"{self.name} begins\n")
        threading.Event().wait(self.seconds)
        if self.fail:
            raise RuntimeError("no light source")
        with open(self.file, "a") as file:
            file.write(f"{self.name} is ready\n")

    @ether_save
    def name_of(self) -> str:
        return self.name
