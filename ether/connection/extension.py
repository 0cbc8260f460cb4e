"""The interface of a hosted object that needs its session's link, beyond having methods. Ether's recorder uses it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ether.connection.link import Link
from ether.wire.topics import SessionTopics


class Extension(ABC):
    """An object that is given the link of its instance, after the instance listens and before it is ready."""

    @abstractmethod
    def attach(self, link: Link, topics: SessionTopics, name: str) -> None:
        """The instance `name` listens on `link`. An exception keeps the instance from becoming ready."""

    @abstractmethod
    def detach(self) -> None:
        """The instance ends; the link is still open. May be called twice."""

    @abstractmethod
    def orphaned(self) -> None:
        """The launcher has died, and the process ends within a second, without `detach`. Called on a thread of its own;
        must return at once."""
