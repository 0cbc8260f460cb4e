"""Arguments of construction as JSON: what they were, as far as JSON can say it.

Promise: `plain(value)` is JSON data for whatever it is given, bounded in size, and the same for equal values in another
process. What JSON cannot carry is a mapping with one key that says so: `{"repr": …, "type": …}`, `{"array": …}`,
`{"bytes": …}`, `{"float": "nan"}`; arrays and bytes with the SHA-256 of their content.

The trap: a `repr` may hold an address, which is another one in each process; it is left out.
"""

from __future__ import annotations

import hashlib
import math
import re
import reprlib
from collections.abc import Mapping
from typing import Any

TEXT_MAX = 10_000
"""Characters of a text; of a longer one its beginning is kept, and its SHA-256."""

REPR_MAX = 500
_DEEPEST = 20
_MOST_ITEMS = 1_000
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")

_writer = reprlib.Repr()  # never raises, whatever the object's own code does
_writer.maxother = _writer.maxstring = REPR_MAX


def plain(value: object, depth: int = 0) -> Any:
    """JSON data that stands for the value."""
    if value is None or type(value) in (bool, int):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if type(value) is str:
        return _text(value)
    if depth >= _DEEPEST:
        return _shown(value)
    return _compound(value, depth)


def _compound(value: Any, depth: int) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": len(value), "sha256": hashlib.sha256(value).hexdigest()}
    if isinstance(value, Mapping):
        return _cut({_key(key): plain(item, depth + 1) for key, item in list(value.items())[:_MOST_ITEMS]}, value)
    if isinstance(value, (list, tuple)):
        listed = [plain(item, depth + 1) for item in value[:_MOST_ITEMS]]
        return listed if len(value) <= _MOST_ITEMS else {"items": listed, "cut": f"{len(value):,} in all"}
    if isinstance(value, (set, frozenset)):
        return {"set": sorted((plain(item, depth + 1) for item in value), key=repr)}
    if isinstance(value, type):
        return {"class": f"{value.__module__}.{value.__qualname__}"}
    if all(hasattr(value, name) for name in ("dtype", "shape", "tobytes")):
        content = hashlib.sha256(value.tobytes()).hexdigest()
        return {"array": str(value.dtype), "shape": [int(length) for length in value.shape], "sha256": content}
    return _shown(value)


def _key(key: object) -> str:
    return key if isinstance(key, str) else repr(plain(key, _DEEPEST - 1))


def _cut(kept: dict[str, Any], value: Mapping[Any, Any]) -> dict[str, Any]:
    return kept if len(value) <= _MOST_ITEMS else {**kept, "...": f"cut: {len(value):,} in all"}


def _text(text: str) -> Any:
    if len(text) <= TEXT_MAX:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return {"text": text[:TEXT_MAX], "cut": f"{len(text):,} characters in all", "sha256": digest}


def _shown(value: object) -> dict[str, str]:
    kind = type(value)
    text = _ADDRESS.sub("", _writer.repr(value))
    return {"repr": text[:REPR_MAX], "type": f"{kind.__module__}.{kind.__qualname__}"}
