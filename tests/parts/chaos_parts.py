"""A class for tests of sudden ends: an instance that looks at the others by itself."""

from __future__ import annotations

import threading
import time

from patience import patience

from ether import ether, ether_get


class Asker:
    """Knows only what it is told when it asks."""

    @ether_get
    def sees(self) -> list[str]:
        return [member["name"] for member in ether.instances()]

    @ether_get
    def when_away(self, name: str, timeout_s: float = 10.0) -> float:
        """The moment, on this machine's monotonic clock, at which it first saw that an instance is not ready. It says
        on `looking` when it begins."""
        ether.pub(name, topic="looking")
        never, deadline = threading.Event(), time.monotonic() + patience(timeout_s)
        while time.monotonic() < deadline:
            if not any(member["name"] == name and member["state"] == "ready" for member in ether.instances()):
                return time.monotonic()
            never.wait(0.005)
        raise TimeoutError(f"{name} was ready all the time")
