"""What one instance's code has started, and its end with the instance.

Promise: when `end` returns, no process is left that the instance, or a process of it, has started: whether it was
forked or executed, is in the instance's process group or has called `setsid`, has a living parent or not. They are
first asked to end, by SIGTERM, so that a camera's server can close its camera.

The trap: a process in a session of its own that was given an empty environment has no mark; it is found while its
parent lives. Hence `look`, before an instance ends.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from ether.log import get_ether_logger
from ether.system.descendants import Process, descendants, process_table

logger = get_ether_logger("Ether")

_BY_THEMSELVES_S = 0.15
"""For those that are about to end: helpers of `multiprocessing` end when they notice that their process has."""
_AFTER_TERM_S = 0.4
_AFTER_KILL_S = 2.0
_LOOK_EVERY_S = 0.02
_NAMED = 5


class ProcessFamily:
    """The processes of one instance, beside its own."""

    def __init__(self, name: str, leader: int, mark: str) -> None:
        """`leader` is the instance's process, which leads a process group; `mark` stands in its environment."""
        self._name, self._leader, self._mark = name, leader, mark
        self._known: tuple[Process, ...] = ()

    def look(self) -> None:
        """Note who is there, while the instance lives."""
        self._known = tuple(self._members().values())

    def end(self) -> None:
        """The instance has ended: end the others."""
        if self._gone_within(_BY_THEMSELVES_S):
            return
        left = self._members(anew=True)
        what = ", ".join(f"{p.pid} ({p.command()[:80]})" for p in list(left.values())[:_NAMED])
        logger.warning(
            "instance %s has ended, and %s that its code has started has not: %s. Ended by Ether; `detach: true` lets"
            " such processes live",
            self._name, f"{len(left)} processes" if len(left) > 1 else "a process", what or "one of its group",
        )  # fmt: skip
        self._signal(signal.SIGTERM, left)
        if self._gone_within(_AFTER_TERM_S):
            return
        until = time.monotonic() + _AFTER_KILL_S
        while time.monotonic() < until:  # again, because one may have been started meanwhile
            self._signal(signal.SIGKILL, self._members(anew=True))
            if self._gone_within(_LOOK_EVERY_S):
                return
        logger.error("instance %s: a process that its code has started cannot be ended", self._name)

    def _members(self, *, anew: bool = False) -> dict[int, Process]:
        """Who is there now; without `anew`, who was there a moment ago."""
        found = descendants(process_table(anew=anew), self._mark, self._leader, self._known)
        found.pop(self._leader, None)
        return found

    def _signal(self, number: int, members: dict[int, Process]) -> None:
        if not members:  # this system shows no processes: the group is all there is
            with suppress(OSError):
                os.killpg(self._leader, number)
        for process in members.values():
            process.signal(number)

    def _gone(self) -> bool:
        if process_table(anew=True):
            return not self._members()  # of the table that was just made
        try:
            os.killpg(self._leader, 0)
        except OSError:
            return True
        return False

    def _gone_within(self, timeout_s: float) -> bool:
        return _becomes_so(self._gone, timeout_s)


def _becomes_so(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether it becomes so in time. Nothing tells of the end of a process that is not our child."""
    until, never = time.monotonic() + timeout_s, threading.Event()
    while not condition():
        if time.monotonic() >= until:
            return False
        never.wait(_LOOK_EVERY_S)
    return True
