"""From a user's value to its form on the wire: JSON text, and beside it the parts that JSON cannot carry.

Promises: everything that the documentation lists is carried. Anything else is an `EncodeError` that names the place
inside the value, never a silent `str()`. A value that contains itself or nests too deep is refused, too.

The trap: there are two ways through this module. Most messages are dicts of text and numbers; `_is_plain()` recognises
them at C speed, and they go to the JSON encoder unchanged. Only the others are walked, converted and copied. Both ways
must agree on what is valid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from math import isfinite
from struct import pack
from typing import Any, cast

from ether.errors import EncodeError
from ether.wire import arrays
from ether.wire.json_text import MAX_DEPTH, dumps
from ether.wire.library_values import NotPlain, plain_value

RESERVED_KEY = "_ether"

MAX_INT_DIGITS = 4300
"""Python refuses to read longer integers, because the time for that grows with the square of the length."""

_TOO_LONG = 10**MAX_INT_DIGITS

_TOO_DEEP = "it nests too deep for the stack that is left"
_SCALARS = frozenset((str, int, float, bool, type(None)))
_AS_THEY_ARE = frozenset((str, bool, type(None)))
_TEXT = frozenset((str,))

Key = str | int
Path = tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class BodyPart:
    """A piece of a value that JSON cannot carry. `path` leads to its place, which holds a null in the JSON text.
    `facts` is the description that a reader needs beside the bytes."""

    path: Path
    kind: str
    facts: dict[str, object]
    data: bytes | memoryview


def flatten(value: object) -> tuple[bytes, list[BodyPart]]:
    """The JSON text of a value, and its parts; raises `EncodeError`."""
    try:
        if _is_plain(value, 1):
            _check_reserved(value)
            return dumps(value), []
    except EncodeError:
        raise
    except ValueError:  # a number that JSON cannot write; the walk finds its place
        pass
    except RecursionError as error:
        raise EncodeError("", _TOO_DEEP) from error
    return _flatten_slowly(value)


def _flatten_slowly(value: object) -> tuple[bytes, list[BodyPart]]:
    walk = _Walk()
    try:
        converted = walk.convert(value)
        _check_reserved(converted)
        return dumps(converted), walk.parts
    except EncodeError:
        raise
    except ValueError as error:  # this process has a limit of its own on the digits of integers
        raise EncodeError("", f"a number in it cannot be written: {error}") from error
    except RecursionError as error:
        raise EncodeError("", _TOO_DEEP) from error


def _check_reserved(value: object) -> None:
    if type(value) is dict and RESERVED_KEY in value:
        raise EncodeError(RESERVED_KEY, "this key is reserved for Ether's own headers; use another name")


def _is_plain(value: object, depth: int) -> bool:
    """True if the JSON encoder can take this value unchanged, except for numbers that JSON cannot write. The types of
    all items of a container are compared in one call, which runs in C."""
    items: Iterable[object]
    if type(value) is dict:
        if not _TEXT.issuperset(map(type, value)):
            return False
        items = value.values()
    elif type(value) is list or type(value) is tuple:
        items = value
    else:
        return type(value) in _SCALARS
    if _SCALARS.issuperset(map(type, items)):
        return depth <= MAX_DEPTH
    return depth < MAX_DEPTH and all(_is_plain(item, depth + 1) for item in items)


class _Walk:
    """One pass over one value, which tracks the path to its present place."""

    def __init__(self) -> None:
        self.parts: list[BodyPart] = []
        self._path: list[Key] = []
        self._open: list[object] = []  # the containers around, outermost first

    def convert(self, value: object) -> object:
        """The value as exact dicts, lists, text, finite numbers and nulls."""
        if type(value) in _AS_THEY_ARE or (type(value) is float and isfinite(value)):
            return value
        for base in type(value).__mro__:
            converter = _BY_TYPE.get(base) or _BY_NAME.get((base.__module__, base.__qualname__))
            if converter is not None:
                return converter(self, value)
        return self._convert_foreign(value)

    def _convert_foreign(self, value: object) -> object:
        model_dump = getattr(type(value), "model_dump", None)
        if callable(model_dump):
            return self._inside(value, lambda: self.convert(model_dump(value)))
        if is_dataclass(value) and not isinstance(value, type):
            return self._inside(value, lambda: self._pairs({f.name: getattr(value, f.name) for f in fields(value)}))
        try:
            plain = plain_value(value)
        except NotPlain as error:
            raise self.refuse(f"{_article(type(value))} cannot travel as it is: {error}") from None
        except NotImplementedError:
            raise self.refuse(
                f"{_article(type(value))} cannot travel; convert it to dicts, lists, text, numbers, True, False,"
                " None, bytes, NumPy arrays, dates and times, enums, dataclasses or pydantic models"
            ) from None
        return self._inside(value, lambda: self.convert(plain))

    def refuse(self, problem: str) -> EncodeError:
        """The error for the present place."""
        return EncodeError(path_text(self._path), problem)

    def _inside(self, container: object, convert: Callable[[], object]) -> object:
        if any(container is outer for outer in self._open):
            raise self.refuse("it contains itself")
        if len(self._open) >= MAX_DEPTH:
            raise self.refuse(f"it nests deeper than {MAX_DEPTH} levels")
        self._open.append(container)
        converted = convert()
        self._open.pop()
        return converted

    def mapping(self, value: Mapping[Any, object]) -> object:
        """A dict."""
        return self._inside(value, lambda: self._pairs(value))

    def _pairs(self, value: Mapping[Any, object]) -> dict[str, object]:
        converted: dict[str, object] = {}
        for key, item in list(value.items()):
            text = self._key(key)
            if text in converted:
                raise self.refuse(f"two of its keys become {text!r}")
            self._path.append(text)
            converted[text] = self.convert(item)
            self._path.pop()
        return converted

    def _key(self, key: object) -> str:
        if isinstance(key, str):
            return str.__str__(key)
        if isinstance(key, int) and not isinstance(key, bool):
            return str(self.integer(key))
        if any((base.__module__, base.__qualname__) == ("numpy", "integer") for base in type(key).__mro__):
            return str(key)
        raise self.refuse(f"the key {_short(key)} is {_article(type(key))}; keys must be text, or integers")

    def sequence(self, value: Iterable[object]) -> object:
        """A list, tuple or set."""
        return self._inside(value, lambda: self._items(list(value)))

    def _items(self, items: list[object]) -> list[object]:
        kinds = set(map(type, items))
        if kinds <= _AS_THEY_ARE or (kinds == {float} and all(map(isfinite, cast(list[float], items)))):
            return items
        converted = []
        for index, item in enumerate(items):
            self._path.append(index)
            converted.append(self.convert(item))
            self._path.pop()
        return converted

    def tuple(self, value: tuple[object, ...]) -> object:
        """A list; of a named tuple a dict."""
        names = getattr(type(value), "_fields", None)
        if isinstance(names, tuple) and len(names) == len(value):
            return self._inside(value, lambda: self._pairs(dict(zip(names, value, strict=True))))
        return self.sequence(value)

    def integer(self, value: int) -> int:
        """An int; refused where no receiver can read it."""
        if not -_TOO_LONG < value < _TOO_LONG:
            raise self.refuse(f"an integer of more than {MAX_INT_DIGITS} digits; send it as text in another base")
        return int.__index__(value)

    def number(self, value: float) -> float | None:
        """A float; one that is not finite becomes a part with the same bits."""
        exact = float.__float__(value)
        if isfinite(exact):
            return exact
        self.part("float", {}, pack("<d", exact))
        return None

    def part(self, kind: str, facts: dict[str, object], data: bytes | memoryview) -> None:
        """Add a part at the present place, where the JSON has a null."""
        self.parts.append(BodyPart(tuple(self._path), kind, facts, data))

    def scalar(self, value: object) -> object:
        """A NumPy scalar: its Python number where there is one."""
        plain = arrays.python_number(value)
        if plain is not None:
            return self.convert(plain)
        self.array(value, "scalar")
        return None

    def array(self, value: object, kind: str = "array") -> None:
        """A NumPy array."""
        problem = arrays.problem_of(value)
        if problem:
            raise self.refuse(problem)
        facts, data = arrays.pack_array(value)
        self.part(kind, facts, data)


def _pack_bytes(walk: _Walk, value: bytes | bytearray | memoryview) -> None:
    view = memoryview(value)
    flat = view.format == "B" and view.ndim == 1 and view.c_contiguous
    walk.part("bytes", {}, view if flat else view.tobytes())


def _pack_complex(walk: _Walk, value: complex) -> None:
    walk.part("complex", {}, pack("<dd", value.real, value.imag))


# By type for Python's own types, else by name, so that no module is imported only for a comparison. The first class of
# a value's method resolution order that stands here decides: numpy.float64 is a NumPy number before it is a float, an
# IntEnum an int before it is an enum.
_BY_TYPE: dict[type, Callable[[_Walk, Any], object]] = {
    str: lambda _, value: str.__str__(value),
    bool: lambda _, value: value,
    type(None): lambda _, value: value,
    int: _Walk.integer,
    float: _Walk.number,
    complex: _pack_complex,
    dict: _Walk.mapping,
    list: _Walk.sequence,
    tuple: _Walk.tuple,
    set: _Walk.sequence,
    frozenset: _Walk.sequence,
    bytes: _pack_bytes,
    bytearray: _pack_bytes,
    memoryview: _pack_bytes,
}
_BY_NAME: dict[tuple[str, str], Callable[[_Walk, Any], object]] = {
    ("numpy", "ndarray"): _Walk.array,
    ("numpy", "generic"): _Walk.scalar,
    ("enum", "Enum"): lambda walk, value: walk.convert(value.value),
    ("datetime", "date"): lambda _, value: (
        None if type(value).__name__ == "NaTType" else value.isoformat()
    ),  # and datetime, which derives from it
    ("datetime", "time"): lambda _, value: value.isoformat(),
    ("datetime", "timedelta"): lambda _, value: value.total_seconds(),
    ("decimal", "Decimal"): lambda _, value: str(value),
    ("uuid", "UUID"): lambda _, value: str(value),
    ("pathlib", "PurePath"): lambda _, value: str(value),
    ("pathlib._local", "PurePath"): lambda _, value: str(value),  # Python 3.13
}


def path_text(path: Iterable[Key]) -> str:
    """A path in the form that people write: `images[3].mask`."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        elif key.isidentifier():
            text += f".{key}" if text else key
        else:
            text += f"[{_short(key)}]"
    return text


def _article(kind: type) -> str:
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"an object of type {name}"


def _short(key: object) -> str:
    shown = repr(key)
    return shown if len(shown) <= 60 else shown[:57] + "..."
