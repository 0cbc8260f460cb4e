"""What is known of an outbox at a recorder: how far it has come, what its source has given out, what was given up.

Values only, for those who keep them (`ether.store`) and those who judge them (`ether.recording.completeness_rules`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

NOT_HERE = "not for this recorder"
"""Why a gap is none: its entries went to another recorder."""


class GapFact(NamedTuple):
    """Numbers that an outbox has given up, as its gap entry says it."""

    first: int
    last: int
    why: str
    topics: Mapping[str, object]
    """From each topic to the first and last `seq` that are lost, and how many."""
    since: float
    """Unix seconds when they were given up."""


class OutboxFacts(NamedTuple):
    """What is known of one outbox."""

    outbox: str
    source: str
    highest: int
    """The highest number that is on the disk, with everything before it."""
    head: int
    """The highest number that the source has given out, as far as is known."""
    gaps: tuple[GapFact, ...] = ()
    last_time: float = 0.0
    """Unix seconds when something last came from it, 0 where that is not known."""
