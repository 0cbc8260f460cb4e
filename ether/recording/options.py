"""How a process saves: where its outbox is, what is recorded, how much may wait, and what happens at that limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any


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

    def to_value(self) -> dict[str, Any]:
        """As it is passed to an instance's process."""
        topics = None if self.topics is None else list(self.topics)
        return {**asdict(self), "folder": str(self.folder), "topics": topics, "when_full": self.when_full.value}

    @classmethod
    def from_value(cls, value: Mapping[str, Any]) -> SavingOptions:
        """The inverse."""
        topics = None if value["topics"] is None else tuple(value["topics"])
        made = {"folder": Path(value["folder"]), "topics": topics, "when_full": WhenFull(value["when_full"])}
        return cls(**{**value, **made})
