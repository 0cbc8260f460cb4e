"""What an object may be that needs more of its session than methods: Ether's own recorder is the first."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ether.connection.link import Link
from ether.wire.topics import SessionTopics


class Extension(ABC):
    """Told of the link of its instance, once it listens and before it is ready."""

    @abstractmethod
    def attach(self, link: Link, topics: SessionTopics, name: str) -> None:
        """The instance `name` listens; what this raises keeps it from becoming ready."""

    @abstractmethod
    def detach(self) -> None:
        """The instance ends; the link is still open. Twice is fine."""
