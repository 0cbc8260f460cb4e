"""What `ether.protocol.reorder_buffer` remembers of one source on one topic, and what it says.

Promise: values only; `ReorderBuffer` decides. The trap: `SourceRow.waiting` and `SourceRow.last` are read without a lock, for
each message, so they say "go on" only when there is nothing left to hand on before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Gap(NamedTuple):
    """Numbers that will not come, both ends included."""

    source: str
    topic: str
    first: int
    last: int
    why: str


class Sorted(NamedTuple, Generic[T]):
    """What follows from something that arrived: what may be handed on now, and what is given up."""

    ready: list[T]
    gaps: list[Gap]


class Verdict(NamedTuple, Generic[T]):
    """What follows from a time that is over. Of the `doubtful` sources it cannot be known whether they
    sent anything."""

    sorted: Sorted[T]
    doubtful: list[str]


class Held(NamedTuple, Generic[T]):
    """A message that waits behind a hole, and its size in bytes."""

    item: T
    size: int


@dataclass(slots=True)
class SourceRow(Generic[T]):
    """One source's numbers on one topic. `last` is the last that was handed on, None while that is being asked;
    `target` the highest that is known to exist, as long as something waits. `asked` is when its source was asked last,
    or gave its last sign, None when it is to be asked; `asks` how often it was since its last answer."""

    topic: str
    node: str
    source: str
    last: int | None
    target: int = 0
    held: dict[int, Held[T]] = field(default_factory=dict)
    waiting: bool = False
    asked: float | None = None
    asks: int = 0
    attempts: int = 0
    silent_at: int | None = None
    """`last` when its source was named as one that does not answer."""

    def ask(self, now: float) -> None:
        """Its source is asked for the first time, or about everything."""
        self.asked, self.asks = now, 1


@dataclass(slots=True)
class Catching:
    """After an outage, until everybody had the time to answer: when everybody was asked, and how often."""

    asked: float
    asks: int = 1
