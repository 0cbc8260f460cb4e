"""Values as the page shows them: bounded, whatever they are. Nothing here is trusted, and nothing is executed.

Promise: the result is JSON data without NaN, of bounded size; what is left out is counted. The trap: a value may be an
array of 100 MB, a dict of ten thousand keys, or nest a thousand deep.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

TEXT_MAX = 160
FIELDS_MAX = 64
"""Numbers of one message that are listed and can be plotted."""
ROWS_MAX = 200
_DEPTH_MAX = 3
_CHANNELS_MAX = 32
_NESTED_MAX = 6
_ITEMS_MAX = 100


def is_array(value: object) -> bool:
    """Whether this is an array, told by its attributes: numpy is loaded by nobody but those who have one."""
    return all(hasattr(value, name) for name in ("shape", "dtype", "size", "tolist"))


def type_text(value: object) -> str:
    """`float`, `dict of 5`, `uint16 1216×1936`."""
    if is_array(value):
        shape = "×".join(map(str, value.shape)) or "scalar"  # type: ignore[attr-defined]
        return f"{value.dtype} {shape}"[:TEXT_MAX]  # type: ignore[attr-defined]
    if isinstance(value, (dict, list, tuple)):
        return f"{'dict' if isinstance(value, dict) else 'list'} of {len(value):,}"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"bytes, {len(value):,}"
    return "empty" if value is None else type(value).__name__


def text_of(value: object, most: int = TEXT_MAX) -> str:
    """A value in one short line."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value if len(value) <= most else f"{value[:most]}…"
    if isinstance(value, (bytes, bytearray, memoryview)) or (is_array(value) and value.size > 16):  # type: ignore[attr-defined]
        return type_text(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    text = json.dumps(plain(value, items=12), ensure_ascii=False)
    return text if len(text) <= most else f"{text[:most]}…"


def plain(value: object, *, items: int = _ITEMS_MAX, depth: int = _NESTED_MAX) -> Any:
    """A value as JSON data. Beyond `items` entries of each level, and beyond `depth` levels, it is described."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 53 else str(value)
    if isinstance(value, str):
        return value if len(value) <= 10_000 else f"{value[:10_000]}… ({len(value):,} characters)"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return _plain_mapping(value, items, depth)
    if isinstance(value, (list, tuple)):
        if depth <= 0:
            return type_text(value)
        found = [plain(each, items=items, depth=depth - 1) for each in value[:items]]
        return [*found, f"… and {len(value) - items:,} more"] if len(value) > items else found
    if is_array(value):
        small = value.size <= items  # type: ignore[attr-defined]
        return plain(value.tolist(), items=items, depth=depth) if small else type_text(value)  # type: ignore[attr-defined]
    return type_text(value) if isinstance(value, (bytes, bytearray, memoryview)) else str(value)[:TEXT_MAX]


def _plain_mapping(value: Mapping[Any, Any], items: int, depth: int) -> Any:
    if depth <= 0:
        return type_text(value)
    found = {}
    for number, (key, item) in enumerate(value.items()):
        if number >= items:
            found["…"] = f"{len(value) - items:,} more"
            break
        found[str(key)[:TEXT_MAX]] = plain(item, items=items, depth=depth - 1)
    return found


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


def number_text(number: float) -> float | str:
    """A number for JSON."""
    return number if math.isfinite(number) else str(number)


def table_of(value: object) -> dict[str, Any] | None:
    """The rows of a message that is a dict or a list: at most `ROWS_MAX`, and how many there are."""
    if isinstance(value, Mapping):
        pairs: list[tuple[str, Any]] = []
        for key, item in value.items():
            if len(pairs) >= ROWS_MAX:
                break
            pairs.append((str(key)[:TEXT_MAX], item))
        return {"rows": [[key, text_of(item), type_text(item)] for key, item in pairs], "of": len(value)}
    if isinstance(value, (list, tuple)):
        some = list(value[:ROWS_MAX])
        return {"rows": [[str(n), text_of(item), type_text(item)] for n, item in enumerate(some)], "of": len(value)}
    return None
