"""How an outbox stands, in the words of the process that holds it: a page beside the outbox's file.

The file itself is locked while its process lives, so nobody else can read it. The page says how many numbers were given
out, what each recorder has acknowledged, and what keeps the rest back. `ether.recording.sources` reads the pages.

Promise: saving does not depend on it. Where the page cannot be made or written, that is all that is lost.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ether.log import get_ether_logger
from ether.recording.outbox_file import PAGE
from ether.recording.outbox_queue import OutboxQueue
from ether.system.clock import wall_time
from ether.system.status_page import StatusPage

logger = get_ether_logger("Ether")

_WHY_CHARS = 400
_FOLDER_CHARS = 800
_RECORDERS = 32
"""So many fit into a page at most."""


class SourcePage:
    """The page of one outbox. For the sender's thread."""

    def __init__(self, outbox: OutboxQueue) -> None:
        self._settled = -1
        self._moved, self._moved_at = 0.0, 0.0
        self._page: StatusPage | None = None
        try:
            self._page = StatusPage(Path(f"{outbox.file.path}{PAGE}"))
        except OSError as error:
            logger.debug("%s cannot say how its outbox stands: %s", outbox.source, error)

    def say(self, outbox: OutboxQueue, now: float, why: str, problems: Mapping[str, str], head: int) -> None:
        """Write how the outbox stands. `why` and `problems` (by recorder) say what keeps back what waits; `head` is the
        highest number that was given out."""
        if self._page is None:
            return
        if outbox.settled != self._settled or outbox.settled >= head:
            self._settled = outbox.settled
            self._moved, self._moved_at = round(now, 1), round(wall_time(), 1)
        value: dict[str, Any] = {
            "outbox": outbox.outbox, "source": outbox.source, "pid": os.getpid(), "given": max(head, outbox.head),
            "base": outbox.base, "settled": outbox.settled,
            "bytes": outbox.stored_bytes, "moved": self._moved, "moved_at": self._moved_at,
            "why": why, "recorders": [
                [name, host, folder[:_FOLDER_CHARS], given, problems.get(name, "")[:_WHY_CHARS]]
                for name, host, folder, given in outbox.receipts[:_RECORDERS]
            ],
        }  # fmt: skip
        try:
            while not self._page.write(value) and value["recorders"]:
                value["recorders"].pop()
        except OSError as error:
            logger.debug("%s cannot say how its outbox stands: %s", outbox.source, error)

    def close(self) -> None:
        """Close the page; it is removed with its outbox."""
        if self._page is not None:
            self._page.close()
