"""The readers of what this process publishes, and how far each of them has got.

A reader reports the last number that it has of each topic, twice a second while that changes. From these reports the
sender knows what it has to keep (`floors`), and whom to tell its own last numbers: a reader that has not got everything
although nothing was published lately (`behind`). That way the end of a burst, which no later message reveals, is
missed by nobody. Readers that have never reported are told once for each topic, and after each burst (`unannounced`).

The trap: a reader that lives may be slow. It reports all the same, because its reports come from a thread of their own.
Only a reader that neither reports nor has everything is forgotten, after `FORGET_S`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

REPORT_S = 0.5
"""How often readers report, and how often a sender looks at what it knows of them."""

FORGET_S = 120.0
"""As long as a source keeps its messages for those that lost their connection."""

BURST_COUNT = 100
"""So many messages on one topic, since it was told last, may have gone past a reader that nobody knows: a broker may
queue no more for a slow one."""

_AGAIN_S = 1.0
_LONGEST_AGAIN_S = 8.0
"""After so long a reader that is behind is told again; each time after twice as long."""


@dataclass(slots=True)
class _Reader:
    got: dict[str, int]
    heard: float
    told: float = float("-inf")
    again_s: float = _AGAIN_S


@dataclass(slots=True)
class Audience:
    """See the module. Not locked; `now` in seconds of a steady clock."""

    _readers: dict[str, _Reader] = field(default_factory=dict)
    _seen: dict[str, int] = field(default_factory=dict)
    """The last numbers at the time of the last look."""
    _announced: dict[str, int] = field(default_factory=dict)

    def report(self, node: str, got: Mapping[str, int], now: float) -> None:
        """A reader has got everything up to these numbers."""
        reader = self._readers.setdefault(node, _Reader({}, now))
        if any(number > reader.got.get(topic, -1) for topic, number in got.items()):
            reader.again_s = _AGAIN_S
        reader.got.update(got)
        reader.heard = now

    def ends(self, node: str, topics: Iterable[str] | None = None) -> None:
        """A reader does not listen any more: to these topics, or at all."""
        reader = self._readers.get(node)
        if reader is not None:
            for topic in list(reader.got) if topics is None else topics:
                reader.got.pop(topic, None)
            if not reader.got:
                del self._readers[node]

    @property
    def nodes(self) -> list[str]:
        """The readers that are known."""
        return list(self._readers)

    def floors(self) -> dict[str, int]:
        """For each topic with readers the last number that all of them have got."""
        floors: dict[str, int] = {}
        for reader in self._readers.values():
            for topic, number in reader.got.items():
                floors[topic] = min(number, floors.get(topic, number))
        return floors

    def unannounced(self, heads: Mapping[str, int]) -> dict[str, int]:
        """The last numbers that everybody is to be told now: of topics on which nothing was published since the last
        look, and which are new or have had a burst. They count as told."""
        due = {}
        for topic, head in heads.items():
            told = self._announced.get(topic)
            if self._seen.get(topic) == head and (told is None or head - told >= BURST_COUNT):
                due[topic] = head
        self._announced |= due
        return due

    def behind(self, heads: Mapping[str, int], now: float) -> dict[str, dict[str, int]]:
        """For each reader to be told now the last numbers of the topics that it has not got, although they were
        published before the last look. They count as told. Forgets the readers that have fallen silent."""
        due: dict[str, dict[str, int]] = {}
        for node, reader in list(self._readers.items()):
            missing = {
                topic: heads[topic]
                for topic, number in reader.got.items()
                if number < self._seen.get(topic, 0) and topic in heads
            }
            if not missing:
                continue
            if now - reader.heard > FORGET_S:
                del self._readers[node]
            elif now - max(reader.told, reader.heard) >= reader.again_s:
                due[node] = missing
                reader.told, reader.again_s = now, min(2 * reader.again_s, _LONGEST_AGAIN_S)
        return due

    def looked(self, heads: Mapping[str, int]) -> None:
        """The end of a look."""
        self._seen = dict(heads)
