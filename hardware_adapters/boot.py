"""Boards that are reset when their port is opened: how long they boot, and the line by which they say that they have.

Promise: until a board has said its line nothing is sent to it, and nothing that it says is an answer. The trap: a board
that was not reset by this opening (its DTR was left alone) never says the line.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from hardware_adapters.connection import PortEvents
from hardware_adapters.errors import BadAnswer, shown

_LOOK_S = 0.05
"""How soon a line that breaks, or an adapter that is closed, ends the wait."""


class BootRules(NamedTuple):
    """How long a device may boot after each opening, and what it says then; None where it says nothing."""

    boot_s: float = 0.0
    ready: str | bytes | re.Pattern[str] | None = None

    def is_ready(self, frame: bytes) -> bool:
        """Whether a message says that it has booted."""
        if isinstance(self.ready, re.Pattern):
            return self.ready.search(frame.decode("utf-8", "replace")) is not None
        ready = self.ready.encode() if isinstance(self.ready, str) else self.ready
        return ready is not None and ready in frame


class Booting:
    """One opening of a board: its messages until it is ready, which are for nobody."""

    def __init__(self, rules: BootRules, events: PortEvents) -> None:
        self._rules, self._events = rules, events
        self._over, self._last = threading.Event(), b""
        if rules.ready is None:
            self._over.set()

    @property
    def events(self) -> PortEvents:
        """The callbacks of the connection that is opened."""
        return PortEvents(self._take, self._events.on_lost)

    def wait(self, goes_on: Callable[[], bool]) -> bool:
        """Return when it has said that it is ready; False where it has not in time, or `goes_on` is False."""
        until = time.monotonic() + self._rules.boot_s
        while not self._over.wait(min(_LOOK_S, max(0.0, until - time.monotonic()))):
            if time.monotonic() >= until or not goes_on():
                return False
        return True

    def end(self) -> None:
        """What it says from now on is for the adapter."""
        self._over.set()

    def failure(self, port: str) -> BadAnswer:
        """The error of a board that did not say that it is ready."""
        ready = self._rules.ready
        said = f"pattern {ready.pattern!r}" if isinstance(ready, re.Pattern) else shown(ready)
        why = f"it did not say {said} within {self._rules.boot_s:g} s after its port was opened (boot_s=, ready=)"
        return BadAnswer(port, why, answer=self._last or None)

    def _take(self, frame: bytes) -> None:
        """On the connection's reading thread."""
        if self._over.is_set():
            self._events.on_input(frame)
        elif self._rules.is_ready(frame):
            self._over.set()
        else:
            self._last = frame
