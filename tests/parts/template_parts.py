"""Instances that say what they have in common with others: for the template process."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

from ether import ether_get, ether_start

kept: list[object] = []


def open_files() -> list[str]:
    """What the descriptors of this process stand for; no file by whose name nothing is told."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue  # the descriptor of this very listing
    return [target for target in found if target.startswith(("socket:", "pipe:"))]


class Born:
    """Says how it came into the world."""

    def __init__(self, dies: bool = False) -> None:
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)

    @ether_start
    def start(self) -> None:
        """So that there is a topic."""

    @ether_get
    def facts(self) -> dict[str, Any]:
        """What other processes could see of this one, and what it would draw by chance."""
        environ = Path("/proc/self/environ").read_bytes().split(b"\0")
        return {
            "parent": os.getppid(),
            "leads": os.getpgrp() == os.getpid(),
            "folder": os.getcwd(),
            "words": sys.argv[1:],
            "command": Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").split(b"\0")[-2:],
            "mark": os.environ.get("ETHER_PROCESS_OF", ""),
            "shown": [each.decode() for each in environ if each.startswith(b"ETHER_PROCESS_OF=")],
            "told": os.environ.get("TOLD_BY_THE_LAUNCHER", ""),
            "chance": [random.random(), str(uuid.uuid4()), random.SystemRandom().random(), self.drawn_by_numpy()],
            "files": open_files(),
            "main": getattr(sys.modules["__main__"], "__file__", "")[-17:],
            "child_signal": signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL,
            "threads": sorted(thread.name for thread in threading.enumerate() if "template" in thread.name),
        }

    def drawn_by_numpy(self) -> float:
        """A number of NumPy's old generator, where NumPy is there; else of no generator."""
        numpy = sys.modules.get("numpy")
        return float(numpy.random.rand()) if numpy is not None else random.random()

    @ether_get
    def keep(self, value: str) -> int:
        """Remember something in the module, not in the object; returns how much is remembered."""
        kept.append(value)
        return len(kept)

    @ether_get
    def pid(self) -> int:
        return os.getpid()
