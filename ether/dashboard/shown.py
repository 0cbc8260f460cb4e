"""Values as the page shows them: bounded, whatever they are. Nothing here is trusted, and nothing is executed.

Promise: the result is JSON data without NaN, of bounded size; what is left out is counted. The trap: a value may be an
array of 100 MB, a dict of ten thousand keys, or nest a thousand deep.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from ether.reading.columns import is_array

TEXT_MAX = 160
ROWS_MAX = 200
_NESTED_MAX = 6
_ITEMS_MAX = 100


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
