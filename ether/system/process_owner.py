"""Whose run it is: recorded with its beginning, so that whoever finds it without an end knows whether it still goes on.

The trap: a process id says something only where it was given out (see `ether.system.processes.ProcessPlace`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ether.runs.trial_rules import ABORTED, RUNNING, RunState
from ether.system.processes import birth_of, is_running, this_place


def owner_facts(program: str, session_run: str) -> dict[str, Any]:
    """Of this program."""
    place, pid = this_place(), os.getpid()
    return {
        "program": program, "session_run": session_run, "pid": pid, "pid_began": birth_of(pid), **place._asdict()
    }  # fmt: skip


def is_dead_here(owner: Mapping[str, Any]) -> bool | None:
    """Whether the program has ended; None where it does not run on this machine, or in another container of it. A
    machine that was started anew since has none of its processes any more."""
    here, pid = this_place(), owner.get("pid")
    if owner.get("host") != here.host or not isinstance(pid, int):
        return None
    if owner.get("boot") != here.boot:
        return True
    if owner.get("namespace") != here.namespace:
        return None
    began = owner.get("pid_began")
    return not is_running(pid, began if isinstance(began, str) else None)


def status_now(state: RunState) -> str:
    """How a run stands: aborted, too, where it has no end and its program has ended; the next run records that."""
    return ABORTED if state.status == RUNNING and is_dead_here(state.owner) else state.status
