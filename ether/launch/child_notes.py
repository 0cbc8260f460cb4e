"""What an instance's process says to its launcher about its end, and about its successor, between the lines of its
standard error.

The launcher has to tell an instance that saves for 20 s from one that hangs, also when the broker is gone. Standard
error is the one way that is there from the first moment to the last. A note begins with a character that no text has,
and the launcher takes it out (`ether.launch.child.Pump`).
"""

from __future__ import annotations

import os
from contextlib import suppress

from ether.spec.marks import MarkKind

NOTE = b"\x1eether: "
"""Begins a note; the end of its line ends it."""

FLUSH = "flush"
"""The step in which an instance hands over what it has recorded and published."""
LAST_STEPS = {kind.value: kind.value.removeprefix("ether_") for kind in (MarkKind.SAVE_ALL, MarkKind.CLEANUP)}
LAST_STEPS |= {MarkKind.SHUTDOWN.value: "shutdown", FLUSH: "sending what is recorded"}
"""The steps for which there is time of their own, each with its name for people."""

BUILT, HELD, RESTORED = "built", "held", "restored"
"""How far a change of code has come (`ether.launch.reload.succession`): the successor is built; the instance stands
still, and its state is written down; the successor has that state."""
STAGES = (BUILT, HELD, RESTORED)

_EXIT = "exit "


def exit_code_in(note: str) -> int | None:
    """The exit code that a process says it is about to end with; None for another note."""
    code = note.removeprefix(_EXIT)
    return int(code) if code != note and code.isdigit() else None


class Notes:
    """Writes notes; the process's own copy of its standard error, so that user code may redirect the other one."""

    def __init__(self) -> None:
        self._to = os.dup(2)

    def tell(self, step: str) -> None:
        """The process begins a step; an empty one: it is in none. Never raises: the launcher may be dead."""
        with suppress(OSError):
            os.write(self._to, NOTE + step.encode() + b"\n")

    def tell_exit(self, code: int) -> None:
        """The process is about to end with this code. Its launcher needs that where nobody else can tell."""
        self.tell(f"{_EXIT}{code}")
