"""How fast a value may change, as users write it: an amount and the time in which it may change by it.

    5/s    300/min    0.5/10s    2 / h

`300/min` may be one step of 300; `5/s` may not, although both are 300 in a minute.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ether.config.when import UNITS_S, duration_s
from ether.errors import ConfigError

RATE_RULE = f"expected an amount and a time ({', '.join(UNITS_S)}), such as 5/s, 300/min or 0.5/10s."
_RATE = re.compile(r"\s*((?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*/\s*((?:\d+(?:\.\d*)?|\.\d+)?)\s*([a-z]+)\s*")


class Rate(NamedTuple):
    """At most `amount` within each `within_s` seconds; `text` is as it was written."""

    amount: float
    within_s: float
    text: str


def parse_rate(text: object) -> Rate:
    """Raises `ConfigError` with the rule."""
    found = _RATE.fullmatch(text) if isinstance(text, str) else None
    if found is None or found[3] not in UNITS_S:
        raise ConfigError(f"found {text!r:.60}; {RATE_RULE}")
    amount, number, unit = found.groups()
    within_s = duration_s(f"{number or 1}{unit}")
    if not 0 < float(amount) < float("inf"):
        raise ConfigError(f"found {text!r:.60}: the amount is a number above 0; {RATE_RULE}")
    return Rate(float(amount), within_s, "".join(str(text).split()))
