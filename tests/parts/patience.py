"""How long tests wait, and how long a thing may take: every bound in seconds goes through `patience()`.

The bounds are those of an idle machine. `ETHER_PATIENCE` is a factor for all of them: `ETHER_PATIENCE=4` on a slow or
busy machine. Without it the factor is 1, also where several workers share the machine: no bound is loosened unasked.

The trap: a bound that tells right from wrong has the wrong value beside it. `took_s < patience(1)` means nothing where
the fault takes 1.5 s: the fault must take more than the bound at the factor in use, or the number stays a bare one,
with a comment that says why.
"""

from __future__ import annotations

import math
import os


def _factor() -> float:
    told = os.environ.get("ETHER_PATIENCE", "1")
    factor = float(told)
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError(f"ETHER_PATIENCE is a factor above 0, for example 2; it is {told!r}")
    return factor


FACTOR = _factor()


def patience(seconds: float) -> float:
    """That many seconds of an idle machine, as seconds of this one."""
    return seconds * FACTOR
