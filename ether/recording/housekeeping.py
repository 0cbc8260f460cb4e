"""The recorder deletes what is too old, on a thread of its own: at its start, after each rotation, and once an hour.

Promise: the thread never holds up recording: it works on closed volumes only. What it cannot do now (the disk is full,
a command is at work on the volumes) is logged once, and tried again. The trap: a large volume takes long to be written
anew, and is not stopped in the middle; at the end of the process the thread is left behind, which leaves the volume as
it was.
"""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from ether.config.volumes import Retention
from ether.errors import LedgerError, LedgerLocked
from ether.ledger.life.retention import Sweeper, Swept
from ether.log import get_ether_logger
from ether.system.clock import wall_time

logger = get_ether_logger("Ether")

_EACH_S = 3600.0
_END_S = 5.0


class Housekeeping:
    """Deletes what is too old in one ledger, from `start` to `stop`. `by`: who, for the tombstones."""

    def __init__(self, folder: Path, retention: Retention, by: str) -> None:
        self._folder = folder
        self._sweeper = Sweeper(folder, retention)
        self._said = {"by": by, "host": socket.gethostname(), "why": "record: keep"}
        self._wake = threading.Event()
        self._ends = False
        self._told: object = None
        self._thread = threading.Thread(target=self._run, name="ether-ledger-housekeeping", daemon=True)

    def start(self) -> None:
        """Begin with a first look."""
        self._thread.start()

    def look(self) -> None:
        """A volume was closed: look again."""
        self._wake.set()

    def stop(self) -> None:
        """End after the volume that is in work, or leave that as it is."""
        self._ends = True
        self._wake.set()
        self._thread.join(_END_S)

    def _run(self) -> None:
        while not self._ends:
            self._sweep()
            self._wake.wait(_EACH_S)
            self._wake.clear()

    def _sweep(self) -> None:
        try:
            self._report(self._sweeper.sweep(wall_time(), self._said, lambda: self._ends))
        except LedgerLocked as error:
            logger.debug("what is too old in %s is deleted later: %s", self._folder, error)
        except LedgerError as error:
            self._tell("what is too old in %s cannot be deleted: %s", str(error))
        except Exception:  # this thread must outlive every look: nobody else deletes
            logger.exception("what is too old in %s cannot be deleted", self._folder)

    def _report(self, swept: Swept) -> None:
        for done in swept.deleted:
            logger.info(
                "deleted %d records that were too old from volume %d of %s: %d bytes are free again",
                done.amount.records, done.amount.volume, self._folder, done.freed_bytes,
            )  # fmt: skip
        if swept.without_backup:
            listed = ", ".join(map(str, swept.without_backup))
            self._tell("what is too old in %s stays until there is a backup of it: volumes %s", listed)
        else:
            self._told = None

    def _tell(self, text: str, what: str) -> None:
        """Once for each cause."""
        if self._told != (text, what):
            logger.warning(text, self._folder, what)
        self._told = text, what
