"""What a run decides about its trials: their conditions, their order, which of them is next, and whether a resumed run
asks for the same trials. The facts that a run records are in `ether.protocol.run_record`.

Promises: pure; the same seed makes the same order.
"""

from __future__ import annotations

import difflib
import inspect
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from itertools import product
from typing import Any

from ether.protocol.run_record import Attempts, TrialPlan
from ether.wire.codec import encode

GIVEN, RANDOM, SNAKE = "given", "random", "snake"
ORDERS = (GIVEN, RANDOM, SNAKE)
GRID, ZIP = "grid", "zip"


def make_plan(
    first: int, conditions: Sequence[Any], order: str, seed: int | None, shape: Sequence[int] = ()
) -> TrialPlan:
    """Number the conditions from `first` on, and put the numbers into an order: "given", "random" by the seed, or
    "snake", for which `shape` has the number of values of each parameter of the grid. Raises `ValueError` for another
    order, and for a snake without a grid."""
    numbers = list(range(first, first + len(conditions)))
    if order == RANDOM:
        random.Random(seed).shuffle(numbers)
    elif order == SNAKE:
        if not shape:
            raise ValueError(
                f"order={SNAKE!r} needs a grid, whose rows it goes through to and fro:"
                ' run.scan(setter, {"x": […], "y": […]}, by="grid", order="snake")'
            )
        numbers = [numbers[place] for place in snake_places(shape)]
    elif order != GIVEN:
        nearest = difflib.get_close_matches(str(order), ORDERS, n=1)
        meant = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"there is no order {order!r}: there are {', '.join(map(repr, ORDERS))}{meant}")
    return TrialPlan(first, tuple(numbers), tuple(conditions), seed if order == RANDOM else None)


def snake_places(shape: Sequence[int]) -> list[int]:
    """The places of a grid in the order of a snake, as in a list in which the last parameter changes fastest. From one
    place to the next one parameter changes, to the value beside (a reflected Gray code)."""
    places = [0]
    for length in shape:
        places = [
            place * length + (at if turn % 2 == 0 else length - 1 - at)
            for turn, place in enumerate(places)
            for at in range(length)
        ]
    return places


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


def drawn_from(trials: object, order: str) -> Iterator[Any] | None:
    """The iterator from which the conditions are drawn one by one; None where they are there, as a number or a list.

    Drawn are generators and all else without a length, and functions: these are called without arguments for each
    condition, until they return None. Raises `ValueError` for an order that needs all conditions at once."""
    if callable(trials) and not isinstance(trials, Iterable):
        made = trials() if inspect.isgeneratorfunction(trials) else iter(trials, None)
    elif isinstance(trials, Iterable) and not isinstance(trials, Sized):
        made = iter(trials)
    else:
        return None
    if order != GIVEN:
        raise ValueError(
            f"order={order!r} needs all conditions before the first trial, and these are drawn one by one while the run"
            f" goes on: {trials!r:.80}. Give a list, such as list(…) of a generator that ends."
        )
    return made


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
        if not same(before, now):
            return f"condition {place} was {before!r:.80}, and is {now!r:.80} now"
    return ""


def same(before: object, now: object) -> bool:
    """Whether two conditions are equal, as they are recorded. Not by `==` alone: arrays cannot say it, and what is not
    a number is not equal to itself."""
    try:
        return bool(before == now) or encode(before) == encode(now)
    except ValueError:
        return encode(before) == encode(now)


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
