"""Whether a value has changed so much that it is worth a message (`on: change`, `dead_band`).

Promises: pure. Numbers count as changed when they differ by more than the dead band, and NaN is equal to NaN. In a dict
each key is compared for itself, by its own dead band where it has one; lists and arrays are compared item by item.
Everything else is compared with `==`.

The trap: a class may return the same dict each time and change it in place. Therefore what was published is kept as a
copy (`snapshot`).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from numbers import Real
from typing import Any

from ether.config.change import DeadBand

_NUMERIC_KINDS = "fiubc"
"""The kinds of numpy's types that can be subtracted."""
_EXACT_KINDS = "iub"
"""Those of them whose differences would wrap around."""


def snapshot(value: object) -> object:
    """A copy of a value to compare later ones with; a model or a dataclass as the dict of its fields."""
    return copy.deepcopy(_plain(value))


def has_changed(before: object, now: object, dead_band: DeadBand) -> bool:
    """Whether `now` differs from `before`, which `snapshot` made, by more than the dead band."""
    now = _plain(now)
    if isinstance(before, dict) and isinstance(now, dict):
        return before.keys() != now.keys() or any(
            has_changed(before[key], item, _band_of(key, dead_band)) for key, item in now.items()
        )
    if _is_number(before) and _is_number(now):
        return _number_has_changed(before, now, _band_of(None, dead_band))
    if hasattr(now, "dtype") or hasattr(before, "dtype"):
        return _array_has_changed(before, now, _band_of(None, dead_band))
    if isinstance(before, (list, tuple)) and isinstance(now, (list, tuple)):
        return len(before) != len(now) or any(
            has_changed(old, new, dead_band) for old, new in zip(before, now, strict=True)
        )
    return type(before) is not type(now) or bool(before != now)


def _band_of(key: object, dead_band: DeadBand) -> float:
    if isinstance(dead_band, Mapping):
        return float(dead_band.get(key, 0.0)) if isinstance(key, str) else 0.0
    return dead_band


def _plain(value: object) -> object:
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value


def _is_number(value: object) -> bool:
    return type(value) is not bool and isinstance(value, Real) and not hasattr(value, "shape")


def _number_has_changed(before: Any, now: Any, band: float) -> bool:
    if before == now or (before != before and now != now):  # NaN differs from itself
        return False
    return not abs(now - before) <= band


def _array_has_changed(before: Any, now: Any, band: float) -> bool:
    """For arrays and numpy's own numbers, by their methods alone: this package does not import numpy."""
    if any(getattr(before, name, None) != getattr(now, name, None) for name in ("shape", "dtype")):
        return True
    # Where both are NaN they are equal; infinities that are equal are left out before anything is subtracted.
    differ = (before != now) & ~((before != before) & (now != now))
    if not band or now.dtype.kind not in _NUMERIC_KINDS or now.dtype.kind == "b":
        return bool(differ.any())
    old, new = before[differ], now[differ]
    if now.dtype.kind in _EXACT_KINDS:
        old, new = old.astype(float), new.astype(float)
    return bool((~(abs(new - old) <= band)).any())
