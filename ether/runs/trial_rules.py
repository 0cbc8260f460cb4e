"""What a run decides about its trials: their conditions, their order, which of them is next, and whether a resumed run
asks for the same trials. The facts that a run records are in `ether.protocol.run_record`.

Promises: pure; the same seed makes the same order.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from ether.protocol.run_record import Attempts, TrialPlan

GIVEN, RANDOM = "given", "random"
ORDERS = (GIVEN, RANDOM)
GRID, ZIP = "grid", "zip"


def make_plan(first: int, conditions: Sequence[Any], order: str, seed: int | None) -> TrialPlan:
    """Number the conditions from `first` on, and put the numbers into an order: "given", or "random" by the seed.
    Raises `ValueError` for another order."""
    numbers = list(range(first, first + len(conditions)))
    if order == RANDOM:
        random.Random(seed).shuffle(numbers)
    elif order != GIVEN:
        nearest = difflib.get_close_matches(str(order), ORDERS, n=1)
        meant = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"there is no order {order!r}: there are {', '.join(map(repr, ORDERS))}{meant}")
    return TrialPlan(first, tuple(numbers), tuple(conditions), seed if order == RANDOM else None)


def conditions_of(trials: int | Iterable[Any]) -> list[Any]:
    """The conditions of all trials: as many None as a number says, or the items of a list. Raises `ValueError` for a
    negative number, `TypeError` for text, a dict or a bool."""
    if isinstance(trials, (bool, str, bytes, Mapping)):
        raise TypeError(f"trials are a number or a list of conditions, not {trials!r:.60}")
    if isinstance(trials, int):
        if trials < 0:
            raise ValueError(f"there cannot be {trials} trials")
        return [None] * trials
    return list(trials)


def grid_of(parameters: Mapping[str, Iterable[Any]], how: str) -> list[dict[str, Any]]:
    """The conditions of a scan over several parameters, each a dict with one value of every parameter.

    By `grid`: every combination; the last parameter changes fastest. By `zip`: the first value of each parameter, then
    the second, and so on. Raises `ValueError` for another way, and by `zip` for lists of different lengths."""
    values = {name: list(each) for name, each in parameters.items()}
    if how == GRID:
        rows: Iterable[tuple[Any, ...]] = product(*values.values())
    elif how == ZIP:
        lengths = {name: len(each) for name, each in values.items()}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise ValueError(f"a scan by {ZIP!r} needs as many values of each parameter: {counts}")
        rows = zip(*values.values(), strict=True)
    else:
        raise ValueError(f"a scan goes by {GRID!r} or {ZIP!r}, not by {how!r}")
    return [dict(zip(values, row, strict=True)) for row in rows]


def left_of(plan: TrialPlan, trials: Mapping[int, Attempts]) -> Iterator[tuple[int, int]]:
    """The trials of a plan that are not done, in its order: the number of each, and its next attempt."""
    for number in plan.order:
        attempts = trials.get(number, Attempts())
        if attempts.counts is None:
            yield number, attempts.tried + 1


def difference(recorded: Sequence[Any], given: Sequence[Any]) -> str:
    """How the given conditions differ from the recorded ones of a run that is resumed; "" where they are equal."""
    if len(recorded) != len(given):
        return f"it has {len(recorded)} trials, and {len(given)} were given"
    for place, (before, now) in enumerate(zip(recorded, given, strict=True), 1):
        if before != now:
            return f"condition {place} was {before!r:.80}, and is {now!r:.80} now"
    return ""


def seconds_left(took: Iterable[float | None], left: int) -> float | None:
    """The estimated duration of the `left` remaining trials, from the mean duration of those that are done, in seconds;
    None before one is done."""
    known = [seconds for seconds in took if seconds is not None]
    if not left:
        return 0.0
    return sum(known) / len(known) * left if known else None


def duration_text(seconds: float) -> str:
    """A duration as text: `4 s`, `1 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes_rest = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_rest} min"
    return f"{minutes} min {rest} s" if minutes else f"{whole} s"
