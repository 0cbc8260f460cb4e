"""The opening of what one program starts: ticks begin when everybody is ready who may want to hear them.

A source with `ether_every` that began as soon as it is ready itself would publish its first values to receivers that
are still being built. So its process waits for a word of the launcher, which comes through its standard input and
needs no broker. Receivers get what was published before they listened from the source itself, which keeps it for a
while (`Retransmitter.expect`): values from threads that begin in `ether_init`, and of instances on other machines,
which wait for nobody.

The trap: an instance that is started later, or again, has nobody to wait for, and begins at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from functools import partial
from typing import Protocol

from ether.launch.opening_rules import OpeningRules
from ether.log import get_ether_logger
from ether.session.session import Session

logger = get_ether_logger("Ether")

_LOOK_S = 0.5
"""How often it is looked at least whether somebody is ready; every announcement wakes the thread before."""


class BeginsTicks(Protocol):
    """Tells an instance that its ticks begin."""

    def begin_ticks(self, name: str) -> None: ...


class LaunchOpening:
    """One start of several instances, from `begin()` to `end()`."""

    def __init__(self, own: Collection[str], everybody: Collection[str], wait_s: float, teller: BeginsTicks) -> None:
        """`own` are the instances of this machine, `everybody` those of other machines, too. `wait_s`: how long each
        waits for others after it is ready."""
        self.began = time.monotonic()
        self._everybody, self._wait_s, self._teller = tuple(everybody), wait_s, teller
        self._not_begun = set(own)
        self._waits = wait_s > 0 and len(self._everybody) > 1
        self._rules = OpeningRules(self._everybody, tuple(own) if self._waits else (), wait_s)
        self._session: Session | None = None
        self._over = False
        self._thread = threading.Thread(target=self._run, name="ether-opening", daemon=True)

    def take(self, name: str) -> tuple[list[str], bool]:
        """For an instance that is being started: whose first values it is to get, and whether it waits to be told. One
        that is started again has its place in the session already."""
        if name not in self._not_begun:
            return [], False
        self._not_begun.discard(name)
        return [other for other in self._everybody if other != name], self._waits

    def begin(self, session: Session) -> None:
        """Tell the instances as they become due, on a thread."""
        self._session = session
        self._thread.start()

    def end(self, *, ready: bool) -> None:
        """The start is over. `ready`: everybody is ready; then those that have not been told are told before this
        returns, and what was published before anybody listened is asked for."""
        session = self._session
        assert session is not None
        self._over = True
        session.wake()
        self._thread.join()
        if ready and len(self._everybody) > 1:
            self._tell(frozenset(self._everybody))
            session.link.have_heads_told(self._everybody)

    def _run(self) -> None:
        session = self._session
        assert session is not None
        while not self._over and not self._rules.over:
            now = time.monotonic()
            self._tell(session.ready())
            due_s = self._rules.next_s(now)
            session.await_change(partial(self._moved, session.ready()), min(_LOOK_S, due_s or _LOOK_S))

    def _moved(self, known: frozenset[str]) -> bool:
        assert self._session is not None
        return self._over or self._session.ready() != known

    def _tell(self, ready: Collection[str]) -> None:
        begins = self._rules.look(ready, time.monotonic())
        if begins.names and begins.without:
            logger.warning(
                "%s: ticks begin without %s, not ready after %g s (begin_within_s)",
                ", ".join(begins.names), ", ".join(begins.without), self._wait_s,
            )  # fmt: skip
        for name in begins.names:
            self._teller.begin_ticks(name)
