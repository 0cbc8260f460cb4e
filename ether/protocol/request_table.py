"""Both sides of a call: the caller's table of requests under way, and the callee's window of requests taken on.

The caller's `RequestTable` finds the request that an answer belongs to, by an unguessable correlation id. An answer
that belongs to no request is late, a duplicate or forged, and is only counted. The callee's `Answered` makes a request
that is delivered twice run once: the second delivery gets the first one's answer, within a bounded window.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

A = TypeVar("A")
P = TypeVar("P")

CALL_TIMEOUT_S = 10.0
"""How long a caller waits for an answer where neither it nor the method says anything else."""

_SETTLED_WINDOW = 4096
"""The number of settled requests whose correlation ids are remembered, to tell a late answer from a forged one."""


@dataclass(slots=True)
class CallCounts:
    """Answers that settled no request."""

    late: int = 0
    """Answers to a request that was settled before: by its deadline, its instance's death or an earlier answer."""
    forged: int = 0
    """Answers of somebody else than who was asked."""
    unknown: int = 0
    """Answers to a request that was never made, or is long forgotten: most likely forged."""


class RequestTable(Generic[P]):
    """Requests under way, each with the instance that was asked. Not locked."""

    def __init__(self) -> None:
        self.counts = CallCounts()
        self._pending: dict[bytes, tuple[str, P]] = {}
        self._settled: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, correlation: bytes, instance: str, request: P) -> None:
        """A request is about to leave."""
        self._pending[correlation] = (instance, request)

    def get(self, correlation: bytes | None) -> P | None:
        """The request that a message before the answer (progress, a log line) belongs to."""
        found = self._pending.get(correlation) if correlation is not None else None
        return found[1] if found else None

    def asked_by(self, correlation: bytes | None) -> str | None:
        """The instance that was asked; None where the request is not under way."""
        found = self._pending.get(correlation) if correlation is not None else None
        return found[0] if found else None

    def settle(self, correlation: bytes | None) -> P | None:
        """Take the request that an answer belongs to out of the table. None where there is none, which is counted."""
        request = self.take(correlation)
        if request is None:
            self._count(correlation)
        return request

    def take(self, correlation: bytes | None) -> P | None:
        """The same, without counting."""
        found = self._pending.pop(correlation, None) if correlation is not None else None
        if found is None or correlation is None:
            return None
        self._remember(correlation)
        return found[1]

    def give_up(self, correlation: bytes) -> bool:
        """The caller waits no longer; False where the request was settled before."""
        if self._pending.pop(correlation, None) is None:
            return False
        self._remember(correlation)
        return True

    def asked_of(self, instance: str) -> list[P]:
        """The requests that an instance is working on."""
        return [request for asked, request in self._pending.values() if asked == instance]

    def asked(self) -> list[str]:
        """The instances that are working on requests, each once."""
        return list(dict.fromkeys(asked for asked, _ in self._pending.values()))

    def lose_all(self) -> list[P]:
        """No answer will come any more: take out every request."""
        lost = [request for _, request in self._pending.values()]
        self._pending.clear()
        return lost

    def load(self, instances: Iterable[str]) -> dict[str, int]:
        """How many requests of this caller each of these instances is working on."""
        counts = dict.fromkeys(instances, 0)
        for asked, _ in self._pending.values():
            if asked in counts:
                counts[asked] += 1
        return counts

    def _remember(self, correlation: bytes) -> None:
        self._settled[correlation] = None
        if len(self._settled) > _SETTLED_WINDOW:
            self._settled.popitem(last=False)

    def _count(self, correlation: bytes | None) -> None:
        if correlation in self._settled:
            self.counts.late += 1
        else:
            self.counts.unknown += 1


@dataclass(slots=True)
class _Entry(Generic[A]):
    answer: A | None = None
    size: int = 0


class Answered(Generic[A]):
    """Requests that were taken on, with their answers once there are any. Not locked.

    Bounded by count and by the answers' bytes. A request that has fallen out of the window would run again if it came
    again; therefore the window is longer than any deadline, at any rate that one instance can serve.
    """

    def __init__(self, clock: Callable[[], float], max_count: int = 16_384, max_bytes: int = 64 << 20) -> None:
        """`clock` gives the seconds of any steady clock."""
        self._clock = clock
        self._forgot_at = float("-inf")
        self._entries: OrderedDict[tuple[str, bytes], _Entry[A]] = OrderedDict()
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def take_on(self, caller: str, correlation: bytes, again: Callable[[A], None]) -> bool:
        """True for a request that must be run. For one that was taken on before, `again` is called with its answer.
        While it has none nothing happens, because its first delivery will be answered."""
        key = (caller, correlation)
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = _Entry()
            self._shrink()
            return True
        if entry.answer is not None:
            again(entry.answer)
        return False

    def recall(self, caller: str, correlation: bytes, again: Callable[[A], None]) -> bool:
        """Whether a request was taken on. Where it has its answer, `again` is called with it."""
        entry = self._entries.get((caller, correlation))
        if entry is not None and entry.answer is not None:
            again(entry.answer)
        return entry is not None

    def remembers_since(self, at: float) -> bool:
        """Whether every request that was taken on since then is still known."""
        return self._forgot_at < at

    def answered(self, caller: str, correlation: bytes, answer: A, size: int) -> None:
        """Keep the answer for a second delivery. `size` in bytes."""
        entry = self._entries.get((caller, correlation))
        if entry is not None:
            entry.answer, entry.size = answer, size
            self._bytes += size
            self._shrink()

    def _shrink(self) -> None:
        while len(self._entries) > self._max_count or (self._bytes > self._max_bytes and len(self._entries) > 1):
            _, dropped = self._entries.popitem(last=False)
            self._bytes -= dropped.size
            self._forgot_at = self._clock()
