"""Classes whose results say themselves which messages they are made of; instances import them by name."""

from __future__ import annotations

import threading
from typing import Any

from pydantic import BaseModel

from ether import ether, ether_get, ether_pub, ether_sub


def handled() -> str:
    """The id of the message that is being handled."""
    message = ether.message()
    assert message is not None
    assert message.id is not None
    return message.id


class Mean:
    """The mean of five readings, as a biologist writes it."""

    def __init__(self) -> None:
        self.v: list[float] = []

    @ether_sub(topic="reading")
    def add(self, v: float) -> None:
        self.v.append(v)
        if len(self.v) == 5:
            self.mean()
            self.v.clear()

    @ether_pub(topic="mean")
    def mean(self) -> float:
        return sum(self.v) / 5


class Fit:
    """One result of every `n` messages. `late`: the message that completes it belongs to the next one."""

    def __init__(self, n: int, late: bool = False) -> None:
        self.n, self.late = n, late
        self.ids: list[str] = []
        self.lock = threading.Lock()

    @ether_sub(topic="read")
    def take(self, v: int) -> None:
        with self.lock:
            if self.late and len(self.ids) == self.n:
                self.finish()
            self.ids.append(handled())
            if not self.late and len(self.ids) == self.n:
                self.finish()

    def finish(self) -> None:
        self.fit()
        self.ids = []

    @ether_pub(topic="fit")
    def fit(self) -> dict[str, Any]:
        return {"n": self.n, "ids": self.ids}


class Fits:
    """A result of every 2, 12, 40 and 1,000 messages, each on a topic of its own."""

    def __init__(self) -> None:
        self.ids: dict[int, list[str]] = {n: [] for n in (2, 12, 40, 1_000)}

    @ether_sub(topic="read")
    def take(self, v: int) -> None:
        for n, ids in self.ids.items():
            ids.append(handled())
            if len(ids) == n:
                getattr(self, f"fit{n}")()
                self.ids[n] = []

    @ether_pub(topic="fit/2")
    def fit2(self) -> dict[str, Any]:
        return {"ids": self.ids[2]}

    @ether_pub(topic="fit/12")
    def fit12(self) -> dict[str, Any]:
        return {"ids": self.ids[12]}

    @ether_pub(topic="fit/40")
    def fit40(self) -> dict[str, Any]:
        return {"ids": self.ids[40]}

    @ether_pub(topic="fit/1000")
    def fit1000(self) -> dict[str, Any]:
        return {"ids": self.ids[1_000]}


class Join:
    """Joins what belongs to one frame, once with and once without saying so."""

    def __init__(self) -> None:
        self.found: dict[int, dict[str, str]] = {}

    @ether_sub(topic="join/+")
    @ether_pub(topic="joins")
    def take(self, frame: int) -> str:
        message = ether.message()
        assert message is not None
        parts = self.found.setdefault(frame, {})
        parts[message.topic] = handled()
        if len(parts) == 3:
            del self.found[frame]
            self.loose(parts)
            self.joined(parts)
        return message.topic

    @ether_pub(topic="loose")
    def loose(self, parts: dict[str, str]) -> dict[str, Any]:
        return {"ids": list(parts.values())}

    @ether_pub(topic="joined")
    def joined(self, parts: dict[str, str]) -> dict[str, Any]:
        ids = list(parts.values())
        return ether.made_of({"ids": ids}, ids)


class Score(BaseModel):
    score: float
    ids: list[str]


class Exact:
    """Says what it is made of, by every way in which a value leaves."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    @ether_sub(topic="read")
    def take(self, v: int) -> None:
        if v % 3 == 0:
            self.ids.append(handled())

    @ether_get
    def value(self, n: int) -> float:
        return ether.made_of(n / 7, self.ids[:n])

    @ether_get
    def model(self) -> Score:
        return ether.made_of(Score(score=1.5, ids=self.ids[:3]), self.ids[:3])

    @ether_get
    def publish(self, n: int) -> str:
        self.published(n)
        ether.record(ether.made_of(7, self.ids[:2]), "seven")
        ether.pub(ether.made_of(None, self.ids[2:4]), topic="nothing")
        ether.record(7, "other seven")
        return "published"

    @ether_get
    @ether_pub(topic="array")
    async def array(self) -> Any:
        import numpy as np

        return ether.made_of(np.arange(6).reshape(2, 3), self.ids[:4])

    @ether_pub(topic="exact")
    def published(self, n: int) -> dict[str, Any]:
        return ether.made_of({"ids": self.ids[:n]}, self.ids[:n])

    @ether_get
    def forgotten(self) -> float:
        return round(ether.made_of(1.25, self.ids), 1)


class Reader:
    """A plate reader that is asked."""

    def __init__(self) -> None:
        self.n = 0

    @ether_get
    def read(self, well: str) -> int:
        if well == "dirty":
            raise ValueError("this well is dirty")
        self.n += 1
        return self.n
