"""The numbers of a message, for plots: bounded, whatever the message is. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from ether.reading.columns import is_array

FIELDS_MAX = 64
"""Numbers of one message that are listed and can be plotted."""
_DEPTH_MAX = 3
_CHANNELS_MAX = 32


def numbers_in(value: object) -> tuple[dict[str, float], int]:
    """The numbers of a message by the name of their place ("" for the message itself, `x`, `pose.x`, `[3]`), and how
    many were left out."""
    found: dict[str, float] = {}
    left_out = 0
    for name, number in _numbers(value, "", _DEPTH_MAX):
        if len(found) < FIELDS_MAX:
            found[name] = number
        else:
            left_out += 1
    return found, left_out


def _numbers(value: object, name: str, depth: int) -> Iterator[tuple[str, float]]:
    if isinstance(value, bool):
        yield name, float(value)
    elif isinstance(value, (int, float)):
        yield name, _as_float(value)
    elif isinstance(value, Mapping) and depth:
        for key, item in value.items():
            inner = str(key)[:80]
            yield from _numbers(item, f"{name}.{inner}" if name else inner, depth - 1)
    elif depth and is_array(value):
        if 0 < value.size <= _CHANNELS_MAX and value.dtype.kind in "iufb":  # type: ignore[attr-defined]
            for number, item in enumerate(value.ravel().tolist()):  # type: ignore[attr-defined]
                yield (f"{name}[{number}]" if value.ndim else name), float(item)  # type: ignore[attr-defined]
    elif depth and isinstance(value, (list, tuple)) and len(value) <= _CHANNELS_MAX:
        for number, item in enumerate(value):
            yield from _numbers(item, f"{name}[{number}]", depth - 1)


def _as_float(number: int | float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf
