"""How far a value may change now, so that within a time it never changes by more than an amount.

Promise: pure; `now` is an argument. Whatever was in force during the time that counts, a new value is at most `amount`
away from it. A change that was begun and whose end is not known (the driver raised an exception) leaves both values in
force. Memory is bounded: of a time `_SLOTS` parts are kept, and what was in force in one of them counts until the whole
part is over.

The trap: the last value stays in force however old it is. A pause does not make room for a jump.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from ether.spec.outcomes import OutcomeUnfit, is_quantity, number_in

_SLOTS = 64
_ROUNDING = 1e-12
"""What binary digits may add to a step: 0.3 is not 0.1 + 0.2."""


class ChangeRange:
    """The values of one setpoint during the last `within_s` seconds."""

    def __init__(self, amount: float, within_s: float) -> None:
        self._amount, self._within_s = amount, within_s
        self._in_force: tuple[float, float] | None = None
        """The lowest and the highest of what may be in force; None before the first value."""
        self._before: deque[tuple[float, float, float]] = deque()
        """What was in force before: until when, its lowest and its highest."""

    @property
    def known(self) -> bool:
        """Whether there is a value from which a change can be measured."""
        return self._in_force is not None

    def was(self, now: float) -> tuple[float, float] | None:
        """The lowest and the highest value of the time that counts; None where there was none."""
        while self._before and now - self._before[0][0] >= self._within_s:
            self._before.popleft()
        present = [] if self._in_force is None else [self._in_force]
        present += [(low, high) for _, low, high in self._before]
        return (min(low for low, _ in present), max(high for _, high in present)) if present else None

    def accepts(self, now: float, value: float) -> bool:
        """Whether a value is within reach now; the first one is."""
        was = self.was(now)
        if was is None:
            return True
        reach = self._amount + _ROUNDING * max(1.0, abs(value), *map(abs, was))
        return was[1] - reach <= value <= was[0] + reach

    def begin(self, now: float, value: float) -> None:
        """A value is about to be set: from now on it, or the one before, is in force."""
        if self._in_force is None:
            self._in_force = value, value
            return
        low, high = self._in_force
        self._note_before(now, low, high)
        self._in_force = min(low, value), max(high, value)

    def done(self, value: float) -> None:
        """The value has been set: it alone is in force."""
        self._in_force = value, value

    def lose(self, now: float) -> None:
        """What is in force is not known from now on. What was counts for its time."""
        if self._in_force is not None:
            self._note_before(now, *self._in_force)
            self._in_force = None

    def _note_before(self, now: float, low: float, high: float) -> None:
        slot_s = self._within_s / _SLOTS
        if self._before and now // slot_s == self._before[-1][0] // slot_s:
            _, lowest, highest = self._before.pop()
            low, high = min(low, lowest), max(high, highest)
        self._before.append((now, low, high))


def numbers_of(value: Any, unit: str = "") -> list[float] | None:
    """A number, or each of a list or an array, as finite floats; None where it is anything else, or empty. A quantity
    is its number in `unit`, and no number where it does not convert."""
    if unit and is_quantity(value):
        try:
            value = number_in(value, unit, "")
        except OutcomeUnfit:
            return None
    if hasattr(value, "magnitude"):
        value = value.magnitude
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        found = [numbers_of(item, unit) for item in value]
        return [number for numbers in found for number in numbers or ()] if found and None not in found else None
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return [number] if abs(number) < float("inf") else None
