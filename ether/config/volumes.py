"""When a ledger's volume is closed, and how long what is recorded is kept, as users write it.

    rotate: day                          hour, day, week or month, by local time
    rotate: 500MB                        at that size (kB, MB, GB)
    rotate: [500MB, day]                 whatever comes first
    keep: 30d                            h, d, w, y
    keep: {"camera/#": 7d, "#": 1y}      by topic; # is everything else

It imports only the error tree, because the recorder's process loads this module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, cast, get_args

from ether.errors import ConfigError

Every = Literal["hour", "day", "week", "month"]
"""A volume is closed at the end of it, by local time."""

REST = "#"
"""The filter of everything that no other filter names."""

ROTATE_RULE = "expected hour, day, week or month; a size such as 500MB; or both, such as [500MB, day]."
KEEP_RULE = "expected a time such as 12h, 30d, 8w or 1y; or one for each topic, such as {camera/#: 7d, '#': 1y}."
SMALLEST_BYTES = 100_000
"""Below that a ledger would be made of the beginnings of volumes."""

_SIZES = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_TIMES_S = {"h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0, "y": 365.25 * 86_400.0}
_AMOUNT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]+)")


class Rotation(NamedTuple):
    """When the current volume is closed: at this size in bytes, at the end of this time, or whatever comes first."""

    size_bytes: int | None = None
    every: Every | None = None


class Retention(NamedTuple):
    """How long what is recorded is kept."""

    keep_s: Mapping[str, float]
    """Seconds by topic or filter of topics. What fits several of them is kept for the longest, and what fits none for
    ever. Log records, changes of state and calls go with `REST`."""
    until_backed_up: bool = False
    """Whether nothing is deleted that no backup has."""


def parse_rotation(words: object) -> Rotation:
    """When a volume is closed. Raises `ConfigError` with the rule."""
    found = Rotation()
    for word in words if isinstance(words, (list, tuple)) else (words,):
        if word in get_args(Every) and found.every is None:
            found = found._replace(every=cast(Every, word))
        elif found.size_bytes is None and (amount := _amount(word, _SIZES)) is not None:
            if amount < SMALLEST_BYTES:
                raise ConfigError(f"found {word!r:.60}; a volume has at least {SMALLEST_BYTES // 1000} kB.")
            found = found._replace(size_bytes=int(amount))
        else:
            raise ConfigError(f"found {words!r:.60}; {ROTATE_RULE}")
    if found == Rotation():
        raise ConfigError(f"found {words!r:.60}; {ROTATE_RULE}")
    return found


def parse_keep(words: object, *, until_backed_up: bool = False) -> Retention:
    """How long what is recorded is kept. Raises `ConfigError` with the rule."""
    by_topic = dict(words) if isinstance(words, Mapping) else {REST: words}
    keep_s: dict[str, float] = {}
    for topic, word in by_topic.items():
        amount = _amount(word, _TIMES_S)
        if not isinstance(topic, str) or not topic or "#" in topic.split("/")[:-1] or not amount:
            raise ConfigError(f"found {words!r:.60}; {KEEP_RULE}")
        keep_s[topic] = amount
    if not keep_s:
        raise ConfigError(f"found {words!r:.60}; {KEEP_RULE}")
    return Retention(keep_s, until_backed_up)


def said_of_life(rotation: Rotation | None, retention: Retention | None) -> str:
    """What is said of a ledger's life, as one text: equal texts say the same. "" where nothing is said."""
    parts = [] if rotation is None else [f"rotate: {rotation.size_bytes or ''} {rotation.every or ''}"]
    if retention is not None:
        listed = ", ".join(f"{topic}: {keep_s:g} s" for topic, keep_s in sorted(retention.keep_s.items()))
        parts.append(f"keep: {listed}{', until backed up' if retention.until_backed_up else ''}")
    return "; ".join(parts)


def parse_age_s(word: object) -> float:
    """The seconds of a time such as `30d`. Raises `ConfigError` with the rule."""
    amount = _amount(word, _TIMES_S)
    if amount is None:
        raise ConfigError(f"found {word!r:.60}; expected a time such as 12h, 30d, 8w or 1y.")
    return amount


def _amount(word: object, units: Mapping[str, float]) -> float | None:
    found = _AMOUNT.fullmatch(word.strip()) if isinstance(word, str) else None
    return None if found is None or found[2] not in units else float(found[1]) * units[found[2]]
