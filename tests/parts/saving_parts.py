"""Classes for tests of saving; instances import them by name."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from ether import ether, ether_get, ether_pub, ether_sub


class Saving:
    """Saves what it is asked to."""

    @ether_get
    def save(self, value: int) -> str:
        saved = ether.record(value, "dose")
        saved.wait()
        return saved.id

    @ether_get
    def keep(self, value: int) -> str:
        return ether.record(value, "kept").id

    @ether_sub(topic="in")
    @ether_pub(topic="out")
    def double(self, value: int) -> int:
        return 2 * value

    @ether_get
    def burden(self) -> dict[str, object]:
        """What it carries for saving."""
        names = [thread.name for thread in threading.enumerate()]
        opened = [os.readlink(link) for link in Path("/proc/self/fd").glob("*") if link.exists()]
        return {
            "sqlite": "sqlite3" in sys.modules,
            "threads": [name for name in names if "outbox" in name],
            "files": [path for path in opened if "outbox" in path or "ledger" in path],
        }
