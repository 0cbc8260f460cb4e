"""An array as a PNG: the last frame of a topic, in a report. Pure, but for the array that is given.

A picture is made smaller by leaving out rows and columns, and a single channel is stretched from its 1st to its 99th
percentile. The trap: NumPy is not imported here; the array brings its methods with it.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

_MOST = 320
"""Pixels of the longer side."""


def is_picture(cell: Any) -> bool:
    """Whether an array looks like a picture: two dimensions of at least 8, with 1, 3 or 4 channels, of real numbers."""
    shape: tuple[int, ...] = getattr(cell, "shape", ())
    kind = getattr(getattr(cell, "dtype", None), "kind", "")
    if kind not in ("b", "u", "i", "f") or len(shape) not in (2, 3) or min(shape[:2]) < 8:
        return False
    return len(shape) == 2 or shape[2] in (1, 3, 4)


def png_of(picture: Any) -> bytes:
    """The PNG of such an array. Values of more than 8 bits, and floats, are stretched."""
    height, width = picture.shape[:2]
    step = max(1, -(-max(height, width) // _MOST))
    small = picture[::step, ::step]
    if small.ndim == 3:
        small = small[:, :, 0] if small.shape[2] == 1 else small[:, :, :3]
    bytes_of = _as_bytes(small)
    channels = 3 if small.ndim == 3 else 1
    return _png(bytes_of.tobytes(), small.shape[1], small.shape[0], channels)


def _as_bytes(small: Any) -> Any:
    """As 8-bit numbers; colours that have 8 bits stay as they are, the rest is stretched."""
    if small.ndim == 3 and small.dtype.kind == "u" and small.dtype.itemsize == 1:
        return small
    numbers = small.astype("float64")
    finite = sorted(number for number in numbers.ravel().tolist() if number - number == 0)  # neither NaN nor infinite
    if not finite:
        return (numbers != numbers).astype("uint8") * 0
    low, high = finite[len(finite) // 100], finite[-1 - len(finite) // 100]
    span = (high - low) or 1.0
    scaled = ((numbers - low) / span * 255.0).clip(0.0, 255.0)
    scaled[scaled != scaled] = 0.0
    return scaled.astype("uint8")


def _png(content: bytes, width: int, height: int, channels: int) -> bytes:
    rows = b"".join(b"\0" + content[at : at + width * channels] for at in range(0, len(content), width * channels))
    colour = 2 if channels == 3 else 0
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, parts))


def _chunk(part: tuple[bytes, bytes]) -> bytes:
    name, content = part
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
