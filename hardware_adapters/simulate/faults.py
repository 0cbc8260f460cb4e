"""Faults between an instrument and its reader: by name, from a given time on, for a given duration.

| fault | what happens |
| --- | --- |
| `noise` | numbers scatter by `amount` (standard deviation) |
| `drift` | numbers drift by `amount` per second |
| `delay` | answers come `amount` seconds later |
| `silence` | no answer |
| `garbage` | `amount` random bytes before each answer |
| `partial` | answers break off in the middle |
| `damage` | one byte of each answer is changed |
| `wrong_device` | `*IDN?` is answered as by another device |
| `disconnect` | unplugged, and plugged in again at the end of the fault |

The random numbers follow from the lab's seed: the same lab fails in the same way each time.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, get_args

FaultName = Literal[
    "noise", "drift", "delay", "silence", "garbage", "partial", "damage", "wrong_device", "disconnect"
]  # fmt: skip
FAULTS: tuple[str, ...] = get_args(FaultName)
_DEFAULT_AMOUNT = {"noise": 1.0, "drift": 0.1, "delay": 0.5, "garbage": 16.0}


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault from `at_s` on, for `for_s` seconds (None: for good), as strong as `amount`."""

    name: FaultName
    at_s: float = 0.0
    for_s: float | None = None
    amount: float | None = None

    def __post_init__(self) -> None:
        if self.name not in FAULTS:
            raise ValueError(f"there is no fault {self.name!r}; there are: {', '.join(FAULTS)}")

    @property
    def strength(self) -> float:
        """The fault's amount, or the default of its kind."""
        return _DEFAULT_AMOUNT.get(self.name, 0.0) if self.amount is None else self.amount

    @property
    def ends_s(self) -> float:
        """When the fault ends (seconds of the lab)."""
        return float("inf") if self.for_s is None else self.at_s + self.for_s

    def is_on(self, now: float) -> bool:
        """Whether the fault acts at this time."""
        return self.at_s <= now < self.ends_s


class Faults:
    """The faults of one instrument."""

    def __init__(self, seed: str, faults: tuple[Fault, ...] = ()) -> None:
        self._faults = faults
        self.random = random.Random(seed)

    def add(self, fault: Fault) -> None:
        """Add a fault."""
        self._faults = (*self._faults, fault)

    def clear(self) -> None:
        """Remove all faults."""
        self._faults = ()

    def on(self, name: FaultName, now: float) -> Fault | None:
        """The fault of this name that acts now."""
        return next((fault for fault in self._faults if fault.name == name and fault.is_on(now)), None)

    def next_change(self, now: float) -> float | None:
        """When the next fault begins or ends."""
        times = [time for fault in self._faults for time in (fault.at_s, fault.ends_s) if now < time < float("inf")]
        return min(times, default=None)

    def measured(self, value: float, now: float) -> float:
        """A number as the reader gets it, with noise and drift."""
        if noise := self.on("noise", now):
            value += self.random.gauss(0.0, noise.strength)
        if drift := self.on("drift", now):
            value += drift.strength * (now - drift.at_s)
        return value

    def delay_s(self, now: float) -> float:
        """How many seconds an answer is delayed."""
        delay = self.on("delay", now)
        return delay.strength if delay else 0.0

    def distorted(self, message: bytes, now: float) -> bytes:
        """The bytes of a message that arrive."""
        if self.on("silence", now):
            return b""
        if self.on("partial", now):
            message = message[: self.random.randint(1, max(len(message) - 1, 1))]
        if self.on("damage", now) and message:
            place = self.random.randrange(len(message))
            message = message[:place] + bytes([message[place] ^ 0x15]) + message[place + 1 :]
        if garbage := self.on("garbage", now):
            message = self.random.randbytes(int(garbage.strength)) + message
        return message
