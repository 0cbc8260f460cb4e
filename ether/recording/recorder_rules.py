"""Which recorders there are, what each wants, and which of two lives of one counts. Not locked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

ALL = "all"

Matches = Callable[[str, str], bool]
"""Whether a topic filter covers a topic."""


@dataclass(frozen=True, slots=True)
class RecorderAbout:
    """A recorder as it describes itself. `topics` are filters of users' topics, None for all; what somebody asked to be
    saved (`save=True`, `ether.record`) it takes in any case."""

    name: str
    birth: str
    topics: tuple[str, ...] | None

    def to_value(self) -> dict[str, Any]:
        """As it is retained."""
        return {"birth": self.birth, "topics": ALL if self.topics is None else list(self.topics)}

    @classmethod
    def from_value(cls, name: str, value: object) -> RecorderAbout | None:
        """As it was received; None for what is not one."""
        match value:
            case {"birth": str(birth), "topics": str(topics)} if topics == ALL:
                return cls(name, birth, None)
            case {"birth": str(birth), "topics": list(topics)} if all(isinstance(topic, str) for topic in topics):
                return cls(name, birth, tuple(topics))
        return None

    def wants(self, topic: str, matches: Matches) -> bool:
        """Whether it records a topic of its own accord."""
        return wanted(self.topics, topic, matches)


def wanted(filters: Sequence[str] | None, topic: str, matches: Matches) -> bool:
    """Whether filters of users' topics (None: all of a session's own) cover a topic."""
    if filters is None:
        return not topic.startswith("mqtt:")
    return any(matches(each, topic) for each in filters)
