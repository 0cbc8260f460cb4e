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
| `late` | some answers come up to `amount` seconds later |
| `drop` | some answers never come |
| `double` | some answers come twice |
| `chat` | before or after some answers comes something that nobody asked for |
| `echo` | each command is sent back before its answer |

`chance` is the part of the answers that is meant (1: each one). The random numbers follow from the lab's seed: the same
lab fails in the same way each time.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, get_args

FaultName = Literal[
    "noise", "drift", "delay", "silence", "garbage", "partial", "damage", "wrong_device", "disconnect", "late", "drop",
    "double", "chat", "echo",
]  # fmt: skip
FAULTS: tuple[str, ...] = get_args(FaultName)
_DEFAULT_AMOUNT = {"noise": 1.0, "drift": 0.1, "delay": 0.5, "garbage": 16.0, "late": 0.5}
_DEFAULT_CHANCE = {"late": 0.1, "drop": 0.1, "double": 0.1, "chat": 0.1}


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault from `at_s` on, for `for_s` seconds (None: for good), as strong as `amount`; `chance` is the part
    of the answers that it is for."""

    name: FaultName
    at_s: float = 0.0
    for_s: float | None = None
    amount: float | None = None
    chance: float | None = None

    def __post_init__(self) -> None:
        if self.chance is not None and not 0 <= self.chance <= 1:
            raise ValueError(f"the chance of a fault is from 0 to 1, not {self.chance}")
        if self.name not in FAULTS:
            raise ValueError(f"there is no fault {self.name!r}; there are: {', '.join(FAULTS)}")

    @property
    def strength(self) -> float:
        """The fault's amount, or the default of its kind."""
        return _DEFAULT_AMOUNT.get(self.name, 0.0) if self.amount is None else self.amount

    @property
    def likelihood(self) -> float:
        """The fault's chance, or the default of its kind."""
        return _DEFAULT_CHANCE.get(self.name, 1.0) if self.chance is None else self.chance

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

    def hits(self, name: FaultName, now: float) -> Fault | None:
        """The fault of this name that acts now, where its chance has it."""
        fault = self.on(name, now)
        if fault is None or fault.likelihood >= 1:  # no random number is drawn where nothing depends on it
            return fault
        return fault if self.random.random() < fault.likelihood else None

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
        delay, late = self.hits("delay", now), self.hits("late", now)
        return (delay.strength if delay else 0.0) + (self.random.uniform(0.0, late.strength) if late else 0.0)

    def sent(self, answer: bytes, chatter: bytes, now: float) -> list[bytes]:
        """The messages that are sent in the place of this answer."""
        messages = [] if self.hits("drop", now) else [answer] * (2 if self.hits("double", now) else 1)
        if self.hits("chat", now):
            messages.insert(self.random.randint(0, len(messages)), chatter)
        return messages

    def distorted(self, message: bytes, now: float) -> bytes:
        """The bytes of a message that arrive."""
        if self.hits("silence", now):
            return b""
        if self.hits("partial", now):
            message = message[: self.random.randint(1, max(len(message) - 1, 1))]
        if self.hits("damage", now) and message:
            place = self.random.randrange(len(message))
            message = message[:place] + bytes([message[place] ^ 0x15]) + message[place + 1 :]
        if garbage := self.hits("garbage", now):
            message = self.random.randbytes(int(garbage.strength)) + message
        return message
