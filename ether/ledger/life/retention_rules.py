"""Which rows of a volume are deleted. Pure.

What explains other rows stays: contexts and artifacts, which later values may refer to; gaps, because the proof of
completeness counts them; runs and their trials, except where a run itself is deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ether.config.volumes import REST, Retention
from ether.wire.topics import OUTSIDE, matches

_VALUES = frozenset(("data", "record"))
_DELETABLE = _VALUES | {"call", "log", "state"}


class OriginRow(NamedTuple):
    """What rows have in common; `number` is that of their origin in their volume."""

    number: int
    kind: str
    topic: str
    run: str


class Choice(NamedTuple):
    """Which rows are to be deleted: those that fit every field. None and () mean any; not all of them may."""

    runs: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    """Topics, or filters of topics, of values."""
    before: float | None = None
    """Unix seconds by the source's clock."""
    expired: frozenset[str] = frozenset()
    """Instead of all of these: the filters of a retention whose time is over …"""
    kept: frozenset[str] = frozenset()
    """… and its other ones."""

    def wants(self, origin: OriginRow) -> bool:
        """Whether rows of this origin are deleted, where they are before `before`."""
        if self.expired:
            return origin.kind in _DELETABLE and self._is_expired(origin)
        if self.runs and origin.run not in self.runs:
            return False
        if self.topics:
            return origin.kind in _VALUES and any(fits(topic, origin.topic) for topic in self.topics)
        return origin.kind in _DELETABLE or (origin.kind == "run" and bool(self.runs))

    def _is_expired(self, origin: OriginRow) -> bool:
        named = (
            [each for each in self.expired | self.kept if each != REST and fits(each, origin.topic)]
            if origin.kind in _VALUES
            else []
        )
        return all(each in self.expired for each in named) if named else REST in self.expired


def fits(topic_filter: str, topic: str) -> bool:
    """Whether a topic is that of the filter, or one of those that it stands for."""
    outside = topic_filter.startswith(OUTSIDE)
    return topic.startswith(OUTSIDE) == outside and matches(
        topic_filter.removeprefix(OUTSIDE), topic.removeprefix(OUTSIDE)
    )


def expired(retention: Retention, newest: float, now: float) -> frozenset[str]:
    """The filters whose time is over in a volume whose newest row came at `newest`. A clock that was set back makes
    nothing old."""
    return frozenset(topic for topic, keep_s in retention.keep_s.items() if now - newest > keep_s)


def choice_of(retention: Retention, over: Iterable[str]) -> Choice:
    """What is deleted where the time of these filters is over."""
    gone = frozenset(over)
    return Choice(expired=gone, kept=frozenset(retention.keep_s) - gone)


def in_words(choice: Choice, keep_s: Mapping[str, float], when: str = "") -> str:
    """What a choice chooses, for the tombstone. `when`: `before` as text."""
    if choice.expired:
        listed = (f"{topic} after {keep_s.get(topic, 0.0) / 86_400:g} days" for topic in sorted(choice.expired))
        return f"what is kept for a time: {', '.join(listed)}"
    parts = [f"run {', '.join(choice.runs)}"] if choice.runs else []
    parts += [f"topic {', '.join(choice.topics)}"] if choice.topics else []
    parts += [f"older than {when}"] if choice.before is not None else []
    return "; ".join(parts)
