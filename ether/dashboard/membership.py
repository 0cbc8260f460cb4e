"""The page's place in its session: joined as a guest, kept through outages, found again when the session comes back.

Promise: `client` is always the newest guest, or None while there is no session; nobody else waits for it. The trap: a
broker that is started again with the session has another address, so an outage that lasts is looked into.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from ether.errors import EtherError
from ether.launch.guest import Guest, join
from ether.launch.recording_setup import saving
from ether.log import get_ether_logger
from ether.session.discovery.search import LOOK_PATIENCE_S, FoundSession, find
from ether.system.clock import wall_time

logger = get_ether_logger("dashboard")

NAME = "page-"
"""What the name of every page in a session begins with."""

_LOOK_S = 1.0
_OUTAGE_S = 2.0
"""An outage that lasts longer is looked into: the session may be somewhere else."""


class PageMembership:
    """Joined from `start()` until `close()`."""

    def __init__(self, session: str | None, broker: str | None, on_join: Callable[[Guest], object]) -> None:
        self._session, self._broker, self._on_join = session, broker, on_join
        self.client: Guest | None = None
        self.lost_since: float | None = None
        """Since when there is no connection, in unix seconds."""
        self._away_since: float | None = None
        """The same by a clock that cannot be set, from the first look on."""
        self.url = ""
        self._found: FoundSession | None = None
        self._recording = ExitStack()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="ether-page-membership", daemon=True)

    @property
    def session(self) -> str:
        """The session's name."""
        return self._session or ""

    def start(self, found: FoundSession) -> None:
        """Join a session that was found; raises what joining raises."""
        self._session = found.name
        self._join(found)
        self._thread.start()

    def close(self) -> None:
        """Leave."""
        self._over.set()
        self._thread.join()
        self._leave()

    def _join(self, found: FoundSession) -> None:
        guest = join(found, f"{NAME}{os.getpid()}-{os.urandom(3).hex()}")
        self._found, self.url = found, found.address
        self.client, self.lost_since = guest, None
        try:
            self._recording.enter_context(saving(guest, {"pid": os.getpid()}, "ether.dashboard"))
            self._on_join(guest)
        except BaseException:
            self._leave()
            raise

    def _leave(self) -> None:
        guest, self.client = self.client, None
        with ExitStack() as ending:
            if guest is not None:
                ending.callback(guest.close)
            ending.push(self._recording.pop_all())

    def _keep(self) -> None:
        while not self._over.wait(_LOOK_S):
            try:
                self._look()
            except EtherError as error:
                logger.debug("session %s is not back: %s", self._session, error)
            except Exception:  # this loop must go on: nobody else finds the session again
                logger.exception("the page could not look for session %s", self._session)

    def _look(self) -> None:
        guest = self.client
        since = None if guest is None else guest.link.offline_since
        if guest is not None and since is None:
            self.lost_since = self._away_since = None
            return
        self.lost_since = self.lost_since or since or wall_time()
        now = time.monotonic()  # the wall clock may be set meanwhile
        if self._away_since is None:
            self._away_since = now
        if now - self._away_since < _OUTAGE_S:
            return
        found = find(session=self._session, broker=self._broker, environment=os.environ, patience_s=LOOK_PATIENCE_S)
        if found is None or self._over.is_set():
            return
        if guest is not None and guest.link.offline_since is None:
            return  # it has come back meanwhile
        began = time.monotonic()
        self._leave()
        self._join(found)
        logger.info("back in session %s after %.1f s", self._session, time.monotonic() - began)
