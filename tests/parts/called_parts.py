"""Classes for tests of calls; instances import them by name."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from patience import patience
from pydantic import BaseModel

from ether import ether, ether_get, ether_save, ether_sync


class Special(Exception):
    """Somebody's own exception."""


class Box(BaseModel):
    width: float
    height: float


def fail(how: str) -> None:
    """Raise an exception by name."""
    special = {
        "UnicodeDecodeError": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        "ExceptionGroup": ExceptionGroup("both", [ValueError(1)]),
        "Special": Special("why"),
        "OSError": OSError(5, "why"),
        "KeyError": KeyError("why"),
        "StopIteration": StopIteration("why"),
        "SystemExit": SystemExit(3),
    }
    raise special[how]


class Store:
    """Answers with values and errors of every kind."""

    @ether_get
    def same(self, root: Any) -> Any:
        return root

    @ether_save
    def keep(self, root: Any) -> Any:
        return root

    @ether_save
    def keep_number(self, number: int) -> int:
        return number

    @ether_get
    def area(self, box: Box) -> float:
        assert isinstance(box, Box)
        return box.width * box.height

    @ether_get
    def fail(self, how: str) -> None:
        fail(how)

    @ether_save
    def fail_to_save(self, how: str) -> None:
        fail(how)

    @ether_get
    def unsendable(self) -> Any:
        return {"lock": threading.Lock()}

    @ether_get
    def promise(self) -> float:
        return "much"  # type: ignore[return-value]

    @ether_get
    def ask(self, service: str, method: str, params: Any) -> Any:
        return ether.get(service, method, params)

    def _private(self) -> None: ...


class Ping:
    """Two of them call each other."""

    def __init__(self, other: str) -> None:
        self.other = other
        self.own = {"one": "two", "two": "one"}[other]

    @ether_get
    def name(self) -> str:
        return self.own

    @ether_get
    def hold(self, gate: str) -> None:
        """Busy until somebody has written into the named pipe."""
        Path(gate).read_text()

    @ether_get
    def rally(self, n: int) -> list[str]:
        return [self.own, *(ether.get(self.other, "rally", {"n": n - 1}) if n else [])]

    @ether_get
    def rally_alone(self, n: int) -> list[str]:
        return [self.own, *(ether.get(self.own, "rally_alone", {"n": n - 1}) if n else [])]

    @ether_sync(topic="prepare")
    def prepare(self, level: float) -> list[Any]:
        return [self.own, level]


class Slow:
    """Takes its time, and counts."""

    def __init__(self) -> None:
        self.calls = 0
        self.inside = self.most = 0
        self.changed = threading.Condition()

    @ether_get
    def count(self) -> int:
        return self.calls

    @ether_get
    def sleep(self, seconds: float) -> float:
        self.calls += 1
        time.sleep(seconds)
        return seconds

    @ether_get
    def hold(self, call: str, gate: str) -> str:
        """Busy until somebody has written into the named pipe."""
        self.calls += 1
        Path(gate).read_text()
        return call

    def _overlap(self, together: int) -> int:
        """Stay until that many have been inside at the same time, and a moment longer, in which one too many would come
        in; returns the most that there were."""
        with self.changed:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.most >= together, patience(10))
        time.sleep(0.1)
        with self.changed:
            self.inside -= 1
            return self.most

    @ether_get
    def overlap(self, together: int) -> int:
        return self._overlap(together)

    @ether_get(concurrency=3)
    def overlap_by_decorator(self, together: int) -> int:
        return self._overlap(together)

    @ether_get
    def steps(self, count: int) -> int:
        for number in range(count):
            logging.getLogger(__name__).info("step %d", number)
            ether.progress(number / count, f"step {number} of {count}")
            time.sleep(0.01)
        return count

    @ether_get
    def die(self) -> None:
        os.kill(os.getpid(), 9)


class Member:
    """Takes part in a trial."""

    def __init__(self, name: str) -> None:
        self.name = name

    @ether_sync(topic="trial")
    def trial(self, failing: str, waiting: str) -> str:
        if self.name == failing:
            raise ValueError(f"{self.name} would not")
        if self.name == waiting:
            ether.pub(self.name, topic="begun")
            time.sleep(600)
        return self.name
