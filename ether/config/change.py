"""Which of the values that a method returns are published.

    on: change                       only those that differ from the one published last
    dead_band: 0.5                   numbers count as changed when they differ by more than this
    dead_band: {temperature: 0.5}    so does each named key of a dict; other keys count when they differ at all

A dead band without `on` means `on: change`. What counts as a difference is in `ether.spec.change_rules`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import TypeGuard

from ether.errors import ConfigError

DeadBand = float | Mapping[str, float]
"""How much a number may differ from the one that was published last: one for all numbers, or one for each key of a
dict; keys that are not named have none."""

CHANGE = "change"
_ON_RULE = "expected change, or nothing for every value."
_DEAD_BAND_RULE = "expected a number from 0, such as 0.5, or one for each key, such as {temperature: 0.5}."


def parse_change(on: object, dead_band: object) -> DeadBand | None:
    """The dead band where only changes are published, 0.0 for any change; None where every value is. Raises
    `ConfigError`."""
    name = "on"
    try:
        check_on(on)
        name = "dead_band"
        band = check_dead_band(dead_band)
    except ConfigError as error:
        raise ConfigError(error.problem, path=name, nearest=error.nearest) from None
    return 0.0 if band is None and on == CHANGE else band


def check_on(on: object) -> object:
    """`on` as it was given; raises `ConfigError` with the rule."""
    if on is None or on == CHANGE:
        return on
    meant = isinstance(on, str) and difflib.get_close_matches(on.lower(), (CHANGE,), n=1)
    raise ConfigError(f"found {on!r:.60}; {_ON_RULE}", nearest=CHANGE if meant else None)


def check_dead_band(dead_band: object) -> DeadBand | None:
    """The dead band as it was given; raises `ConfigError` with the rule."""
    if dead_band is None:
        return None
    if isinstance(dead_band, Mapping):
        if dead_band and all(isinstance(key, str) and _is_size(size) for key, size in dead_band.items()):
            return {key: float(size) for key, size in dead_band.items()}
    elif _is_size(dead_band):
        return float(dead_band)
    raise ConfigError(f"found {dead_band!r:.60}; {_DEAD_BAND_RULE}")


def _is_size(size: object) -> TypeGuard[float]:
    return isinstance(size, int | float) and not isinstance(size, bool) and math.isfinite(size) and size >= 0
