"""Classes for tests of leases."""

from __future__ import annotations

import os
import threading
import time

from patience import patience

from ether import ether, ether_get, ether_pub, ether_save, ether_sub, ether_sync


class Camera:
    """Has something to say to everybody who may ask."""

    def __init__(self) -> None:
        self.pause = threading.Event()
        self.heard: list[int] = []
        self.taken: list[str] = []

    @ether_get
    def snap(self, who: str = "") -> str:
        self.taken.append(who)
        return f"picture for {who}"

    @ether_get
    def log(self) -> list[str]:
        return self.taken

    @ether_get
    def wait_for_file(self, path: str) -> str:
        """Busy until the file is there, for half a minute at most."""
        open(f"{path}.began", "w").close()
        deadline = time.monotonic() + patience(30)
        while not os.path.exists(path) and time.monotonic() < deadline:
            self.pause.wait(0.02)
        return "seen" if os.path.exists(path) else "never came"

    @ether_save
    def keep(self, what: str) -> str:
        return what

    @ether_sync(topic="prepare")
    def prepare(self) -> str:
        return "prepared"

    @ether_sub(topic="light")
    @ether_pub(topic="seen")
    def see(self, number: int = 0) -> int:
        return number


class Neighbour:
    """Calls the camera, and takes it alone."""

    @ether_get
    def snap(self) -> str:
        return str(ether.get("camera", "snap", {"who": "neighbour"}))

    @ether_get
    def snap_alone(self) -> str:
        with ether.lease("camera", reason="the neighbour's turn"):
            return str(ether.get("camera", "snap", {"who": "neighbour"}))
