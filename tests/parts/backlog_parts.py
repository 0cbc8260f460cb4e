"""A slow reader of a fast source, which keeps a list of what it has handled."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

from ether import ether_cleanup, ether_get, ether_pub, ether_save_all, ether_sub

FILES = ("handled", "late")


class Source:
    """Publishes as fast as it can."""

    @ether_pub(topic="fast")
    def one(self, n: int, size: int = 1000) -> dict[str, object]:
        return {"n": n, "pad": "x" * size}

    @ether_pub(topic="fast", qos=0)
    def one_at_qos_0(self, n: int, size: int = 1000) -> dict[str, object]:
        return {"n": n, "pad": "x" * size}

    @ether_get(concurrency=1)
    def burst(self, count: int, qos: int = 1, size: int = 1000) -> int:
        for n in range(count):
            (self.one if qos else self.one_at_qos_0)(n, size)
        return count

    @ether_save_all
    def last_word(self) -> None:
        self.one(-2)


class Slow:
    """Takes `ms` for each message. What it has handled, and what after its cleanup, stands in two files of `folder`, a
    byte for each message."""

    def __init__(self, folder: str, ms: float = 5.0) -> None:
        self.folder, self.ms, self.closed, self.handled = Path(folder), ms, False, 0
        self.latest = -1
        self.files = {name: os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for name in FILES}

    @ether_sub(topic="fast")
    def got(self, n: int) -> None:
        self.handled += 1
        os.write(self.files["late" if self.closed else "handled"], b".")
        time.sleep(self.ms / 1000)

    @ether_sub(topic="setpoint")
    def set(self, n: int) -> None:
        self.latest = n

    @ether_get
    def last(self) -> int:
        """On the worker: behind what its caller has published."""
        return self.latest

    @ether_get(concurrency=1)
    def now(self) -> int:
        """On a thread of its own."""
        return self.handled

    @ether_get
    def busy(self, seconds: float) -> None:
        time.sleep(seconds)

    @ether_get(takes="2s")
    def expose(self, seconds: float) -> None:
        """Says how long it takes."""
        time.sleep(seconds)

    @ether_cleanup
    def clean(self) -> None:
        self.closed = True


def peak_mb(pid: int) -> float:
    """The most memory that a process has had, in MB; NaN where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found.group(1)) / 1024 if found else float("nan")


def peaks_mb() -> dict[str, float]:
    """The most memory, in MB, of each process that this one has started, or that one of these has: by its number and
    its name. Nothing where the system does not tell."""
    parents: dict[int, list[tuple[int, str]]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            before, _, behind = stat.read_text().rpartition(")")
            number, _, name = before.partition(" (")
            parents.setdefault(int(behind.split()[1]), []).append((int(number), name))
    found, waiting = dict[str, float](), [os.getpid()]
    while waiting:
        for pid, name in parents.get(waiting.pop(), []):
            waiting.append(pid)
            found[f"{pid} {name}"] = peak_mb(pid)
    return found


def read(folder: Path, name: str) -> int:
    """How many messages stand in a file of `Slow`."""
    path = folder / name
    return path.stat().st_size if path.exists() else 0
