"""How a process saves: where its outbox is, what is recorded, how much may wait, and what happens at that limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

GATHER_S = 0.05
"""Writing and sending a batch costs as much as dozens of entries."""


_COPIES_S = 4.0
"""So long a recorder that gathers takes nothing while it copies its log, with some time beside."""


class WhenFull(Enum):
    """What happens at the outbox's limit: a call waits for room, or the oldest entries are given up, or new ones are
    refused."""

    BLOCK = "block"
    DROP_OLDEST = "drop-oldest"
    DROP_NEW = "drop-new"


@dataclass(frozen=True, slots=True)
class SavingOptions:
    """How a process saves. `folder` holds the outboxes of this session; `topics` are the filters of what the session
    records, None for all of its own topics; `run` is noted beside every entry."""

    folder: Path
    topics: tuple[str, ...] | None = ()
    run: str = ""
    max_bytes: int = 512 << 20
    max_age_s: float = 7 * 86_400.0
    when_full: WhenFull = WhenFull.BLOCK
    gather_s: float = GATHER_S
    """For so long entries are gathered in memory, before they go to the outbox's file and to the recorder."""

    ledger: tuple[str, str] | None = None
    """Host and folder of the ledger that this program's configuration names: what the session records for it counts as
    saved when it is there, whatever other recorders have."""

    @property
    def hold_s(self) -> float:
        """For so long entries wait for a receipt in memory alone, where less is to be written: a recorder that gathers
        for as long as this process does has acknowledged them by then."""
        return 2 * self.gather_s + _COPIES_S if self.saves_wear else 0.0

    @property
    def saves_wear(self) -> bool:
        """Whether less is written at the price of what a death may take: entries that no recorder has yet."""
        return self.gather_s > GATHER_S

    def to_value(self) -> dict[str, Any]:
        """As it is passed to an instance's process."""
        topics = None if self.topics is None else list(self.topics)
        return {**asdict(self), "folder": str(self.folder), "topics": topics, "when_full": self.when_full.value}

    @classmethod
    def from_value(cls, value: Mapping[str, Any]) -> SavingOptions:
        """The inverse."""
        topics = None if value["topics"] is None else tuple(value["topics"])
        made = {"folder": Path(value["folder"]), "topics": topics, "when_full": WhenFull(value["when_full"])}
        if value.get("ledger") is not None:
            made["ledger"] = tuple(value["ledger"])
        return cls(**{**value, **made})
