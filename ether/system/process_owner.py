"""Which process owns something: the facts that name a process for every reader, and whether that process has ended.

Two kinds of facts. A run's beginning carries those of `owner_facts`, and stands in a ledger of this machine. What is
announced on a broker carries those of `process_facts`, and may come from any machine.

The trap: a process id means something only where it was given out (see `ether.system.processes.ProcessPlace`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ether.system.processes import birth_of, is_running, this_place
from ether.version import WIRE


def owner_facts(program: str, session_run: str) -> dict[str, Any]:
    """The facts of this process, which runs `program` in a session's run."""
    place, pid = this_place(), os.getpid()
    return {
        "program": program, "session_run": session_run, "pid": pid, "pid_began": birth_of(pid), **place._asdict()
    }  # fmt: skip


def process_facts() -> dict[str, Any]:
    """The facts of this process for an announcement: which one it is, as far as that costs nothing, and which version
    of the wire it speaks. Its birth, for which psutil has to be loaded, is added as `pid_started` where it is worth
    that."""
    return {**this_place()._asdict(), "pid": os.getpid(), "wire": WIRE}


def has_ended_here(facts: Mapping[str, Any]) -> bool | None:
    """Whether the process that announced these facts has ended. None where that cannot be seen from here.

    Only processes of this boot and this process namespace can be seen. A machine of the same name and another boot may
    be this one before a power cut, or another one (many Raspberry Pis are called `raspberrypi`), so nothing follows
    from that. An announcement without a boot (of another system, or of an earlier version) goes by the name of the host
    alone."""
    here, pid, boot = this_place(), facts.get("pid"), facts.get("boot")
    if type(pid) is not int or pid <= 0:
        return None
    same_boot = (boot, facts.get("namespace")) == (here.boot, here.namespace)
    seen = same_boot if boot else facts.get("host") == here.host
    began = facts.get("pid_started")
    return not is_running(pid, began if isinstance(began, str) else None) if seen else None


def has_ended(facts: Mapping[str, Any]) -> bool:
    """Whether the process that announced these facts is seen to have ended."""
    return has_ended_here(facts) is True


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
