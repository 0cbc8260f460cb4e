"""Arrays as pictures for the page: thinned, as 16-bit numbers between the array's own lowest and highest value.

The browser colours and scales them, so that a change of the scale asks nobody. Only the newest frame is ever made.
"""

from __future__ import annotations

import json
import math
import struct
from itertools import islice
from typing import Any

import numpy as np

MOST_PIXELS = 320_000
_LEAST_SIDE = 8
_LOOKED_AT = 64
"""Entries of a dict among which an image is looked for."""


def is_picture(value: Any) -> bool:
    """Whether an array can be shown as an image: rows and columns of numbers, perhaps with three or four colours."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iufb":
        return False
    plane = value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (3, 4))
    return plane and min(value.shape[:2]) >= _LEAST_SIDE


def picture_in(value: Any) -> tuple[str, Any] | None:
    """The image of a message and the name of its place: the message itself (""), or the first entry of a dict that is
    one, because a camera sends the number of its frame beside it. None where there is none."""
    if is_picture(value):
        return "", value
    if not isinstance(value, dict):
        return None
    return next(((str(key)[:80], each) for key, each in islice(value.items(), _LOOKED_AT) if is_picture(each)), None)


def picture_of(array: Any, facts: dict[str, Any]) -> bytes:
    """One message for the browser: the length of a JSON head, the head with `facts`, and the pixels, row by row.

    Every `step`th pixel of each direction is taken, so that at most `MOST_PIXELS` are left. Colours become brightness.
    NaN and infinities become the lowest value, and are counted."""
    step = max(1, math.ceil(math.sqrt(array.shape[0] * array.shape[1] / MOST_PIXELS)))
    some = array[::step, ::step]
    if some.ndim == 3:
        some = some[:, :, :3].mean(axis=2)
    plane = some.astype(np.float32)
    finite = np.isfinite(plane)
    bad = int(plane.size - np.count_nonzero(finite))
    low, high = (float(plane[finite].min()), float(plane[finite].max())) if bad < plane.size else (0.0, 0.0)
    if bad:
        plane = np.where(finite, plane, np.float32(low))
    scale = 65535.0 / (high - low) if high > low else 0.0
    pixels = np.rint((plane - np.float32(low)) * np.float32(scale)).clip(0, 65535).astype("<u2")
    head = {
        **facts, "width": int(pixels.shape[1]), "height": int(pixels.shape[0]), "step": step, "low": low, "high": high,
        "bad": bad, "shape": list(array.shape), "dtype": str(array.dtype),
    }  # fmt: skip
    text = json.dumps(head).encode()
    text += b" " * (-(len(text) + 4) % 2)  # the pixels begin at an even place, as the browser wants
    return b"".join((struct.pack("<I", len(text)), text, pixels.tobytes()))
