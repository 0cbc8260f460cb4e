"""Which process owns something: the facts that name a process for every reader, and whether that process has ended.

A run's beginning and the description of an object of a program carry these facts, so that a reader of a run without an
end, or of an announcement, knows whether the program still runs.

The trap: a process id means something only where it was given out (see `ether.system.processes.ProcessPlace`).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any

from ether.system.processes import birth_of, is_running, this_place


def owner_facts(program: str, session_run: str) -> dict[str, Any]:
    """The facts of this process, which runs `program` in a session's run."""
    place, pid = this_place(), os.getpid()
    return {
        "program": program, "session_run": session_run, "pid": pid, "pid_began": birth_of(pid), **place._asdict()
    }  # fmt: skip


def has_ended(about: Mapping[str, Any]) -> bool:
    """Whether the process of an announcement ran on this machine and has ended. False also where that cannot be
    seen."""
    pid, began = about.get("pid"), about.get("pid_started")
    same_host = about.get("host") == socket.gethostname()
    return same_host and isinstance(pid, int) and not is_running(pid, began if isinstance(began, str) else None)


def is_dead_here(owner: Mapping[str, Any]) -> bool | None:
    """Whether the process of these facts has ended. None where that cannot be seen: it runs on another machine, or in
    another container of this one. A process of an earlier boot of this machine has ended."""
    here, pid = this_place(), owner.get("pid")
    if owner.get("host") != here.host or not isinstance(pid, int):
        return None
    if owner.get("boot") != here.boot:
        return True
    if owner.get("namespace") != here.namespace:
        return None
    began = owner.get("pid_began")
    return not is_running(pid, began if isinstance(began, str) else None)
