"""One instance that a supervisor keeps: what it was asked for, and the life that it is in.

The trap: several threads look at it; whoever changes it holds the supervisor's lock, or is the only one that may.
"""

from __future__ import annotations

from dataclasses import dataclass

from ether.config import EtherInstanceConfig
from ether.launch.child import Child
from ether.launch.restart_rules import Restarts


@dataclass(slots=True, eq=False)
class ChildRecord:
    """One instance, over all its lives."""

    name: str
    config: EtherInstanceConfig
    restarts: Restarts
    child: Child | None = None
    """None until it is its turn to be started."""
    birth: str = ""
    epoch: int = 0
    started: float = 0.0
    due: float | None = None
    killed: str = ""
    leaving: bool = False
