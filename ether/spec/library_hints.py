"""Hints of libraries' types: a parameter that is hinted as `pandas.DataFrame` gets a frame, not the dict that came.

What a value of such a type becomes on its way is said in `ether.wire.library_values`; here is the way back, by the
library's own constructors. Promise: a value that is of the type already is passed on untouched. The first trap: no
library is imported here; a type in a hint has been imported by whoever wrote the hint. The second: pint calculates what
stands in a text, `9**9**9` too, for as long as that takes; so only small powers are given to it.
"""

from __future__ import annotations

import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from tokenize import TokenError
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

_MOST_CHARS = 200
_HIGHEST_POWER, _HIGHEST_POWERS = 12, 1000
"""The highest exponent in a text of units, and what all of them together may be, multiplied."""
_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"
_RAISED_NUMBER = re.compile(f"[{_RAISED}]+")
_AS_DIGITS = str.maketrans(_RAISED, "0123456789-")
_POWER = re.compile(r"\*\*|\^")
_EXPONENT = re.compile(r"\s*([-+]?\d{1,2}(?:\.\d{1,6})?)(?![\w.])(?!\s*(?:\*\*|\^))")

_UNFIT = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, SyntaxError, TokenError)
"""What libraries raise for a value that does not fit; the last two are pint's for a text that is no expression."""

Build = Callable[[Any, Any], Any]
"""From the type and the plain value to the object; raises `ValueError` or `TypeError` for one that does not fit."""


Validate = Callable[[Any], Any]
ValidatorOf = Callable[[Any], Validate | None]
"""From a hint to what converts a value to it (`ether.spec.hints.validator_of`)."""


def library_note(hint: Any, validator_of: ValidatorOf | None = None) -> LibraryType | None:
    """What pydantic needs to know of a hint, as its annotation; None for all that is not a library's type.
    `validator_of` is for the fields of a class; without it they stay as they come."""
    if not isinstance(hint, type):
        return None
    if "__attrs_attrs__" in vars(hint) and not hasattr(hint, "__get_pydantic_core_schema__"):
        return LibraryType(_AttrsClass(validator_of), "object")
    if "__struct_fields__" in vars(hint):
        return LibraryType(lambda kind, value: kind(**value), "object")
    for base in hint.__mro__:
        found = _BUILDERS.get((base.__module__.partition(".")[0], base.__qualname__))
        if found is not None:
            return LibraryType(*found)
    return None


class LibraryType:
    """The annotation: converts what arrives to the hint's type."""

    __slots__ = ("_build", "_json_type")

    def __init__(self, build: Build, json_type: str) -> None:
        self._build, self._json_type = build, json_type

    @property
    def takes_mapping(self) -> bool:
        """Whether what arrives for it may be a dict."""
        return self._json_type in ("object", "any")

    # -- the methods that pydantic calls

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        from pydantic_core import core_schema

        def strict(value: Any) -> Any:
            if isinstance(value, source):
                return value
            raise ValueError(f"is no {source.__name__}")

        def lenient(value: Any) -> Any:
            if isinstance(value, source):
                return value
            try:
                return self._build(source, value)
            except _UNFIT as error:
                text = str(error).strip().partition("\n")[0]
                raise ValueError(f"makes no {source.__name__}: {type(error).__name__}: {text}") from None

        return core_schema.lax_or_strict_schema(
            core_schema.no_info_plain_validator_function(lenient),
            core_schema.no_info_plain_validator_function(strict),
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {} if self._json_type == "any" else {"type": self._json_type}


def _table(kind: Any, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise TypeError(f"a table is a dict of columns, not {type(value).__name__}")
    return kind(value)


def _arrow_table(kind: Any, value: Any) -> Any:
    return kind.from_pydict(dict(value))


def _from_dict(kind: Any, value: Any) -> Any:
    return kind.from_dict(value)


def _quantity(kind: Any, value: Any) -> Any:
    """A quantity of the hint's registry: of pint's own where the hint is `pint.Quantity`. Text, as `"5 mm"`, and a bare
    number are taken, too."""
    pint = sys.modules["pint"]
    registry = getattr(kind, "_REGISTRY", None) or pint.get_application_registry()
    if isinstance(value, Mapping):
        magnitude, units = value["magnitude"], value["units"]
        return registry.Quantity(calculable(magnitude), calculable(units))
    if not isinstance(value, str | int | float):
        raise TypeError(f"a quantity is magnitude and units, not {type(value).__name__}")
    return registry.Quantity(calculable(value))


def calculable(value: Any) -> Any:
    """The value, if it is no text that takes pint long to calculate; raises `ValueError`."""
    if not isinstance(value, str):
        return value
    if len(value) > _MOST_CHARS:
        raise ValueError(f"a text of {len(value):,} characters is no quantity")
    text = _RAISED_NUMBER.sub(lambda raised: f"**{raised[0].translate(_AS_DIGITS)}", value)
    together = 1.0
    for power in _POWER.finditer(text):
        exponent = _EXPONENT.match(text, power.end())
        if exponent is None or abs(float(exponent[1])) > _HIGHEST_POWER:
            raise ValueError(f"an exponent is a number from -{_HIGHEST_POWER} to {_HIGHEST_POWER}, as in m**2")
        together *= max(1.0, abs(float(exponent[1])))
    if together > _HIGHEST_POWERS:
        raise ValueError("its powers are too high together")
    return value


def is_quantity_hint(hint: Any) -> bool:
    """Whether a hint is a quantity of pint, of any registry."""
    bases = getattr(hint, "__mro__", ()) if isinstance(hint, type) else ()
    return any((base.__module__.partition(".")[0], base.__qualname__) == ("pint", "PlainQuantity") for base in bases)


def _unit(kind: Any, value: Any) -> Any:
    registry = getattr(kind, "_REGISTRY", None) or sys.modules["pint"].get_application_registry()
    return registry.Unit(calculable(value))


def _picture(kind: Any, value: Any) -> Any:
    return sys.modules["PIL.Image"].fromarray(value)


def _tensor(kind: Any, value: Any) -> Any:
    return sys.modules["torch"].as_tensor(value)


def _range(kind: Any, value: Any) -> Any:
    """The range whose numbers came, as a list."""
    numbers = list(value)
    if not numbers:
        return range(0)
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    made = range(numbers[0], numbers[0] + step * len(numbers), step)
    if list(made) != numbers:
        raise ValueError("the steps between its numbers are not the same")
    return made


def _bytes(kind: Any, value: Any) -> Any:
    if not isinstance(value, bytes):
        raise TypeError(f"bytes were expected, not {type(value).__name__}")
    return kind(value)


class _AttrsClass:
    """Builds objects of an attrs class. Its fields get the types of their hints where they can be converted, and stay
    as they came elsewhere, since attrs checks no types either. A field with a converter of its own is left to that."""

    def __init__(self, validator_of: ValidatorOf | None) -> None:
        self._validator_of = validator_of
        self._fields: dict[str, Validate] | None = None

    def __call__(self, kind: Any, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise TypeError(f"{kind.__name__} is a dict of its fields, not {type(value).__name__}")
        if self._fields is None:  # not before: the hint of a field may be the class itself
            self._fields = dict(self._validators(kind))
        given = {_argument(each): value[each.name] for each in kind.__attrs_attrs__ if each.init and each.name in value}
        return kind(**{name: self._fitted(name, each) for name, each in given.items()})

    def _fitted(self, name: str, value: Any) -> Any:
        assert self._fields is not None
        validate = self._fields.get(name)
        try:
            return value if validate is None else validate(value)
        except _UNFIT:
            return value

    def _validators(self, kind: Any) -> Iterator[tuple[str, Validate]]:
        hints = _hints_of(kind)
        for each in kind.__attrs_attrs__:
            of = hints.get(each.name) if isinstance(each.type, str) else each.type or hints.get(each.name)
            if self._validator_of is None or of is None or each.converter is not None:
                continue
            try:
                validate = self._validator_of(of)
            except TypeError:  # MarkError: pydantic cannot validate it
                continue
            if validate is not None:
                yield _argument(each), validate


def _hints_of(kind: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except Exception:  # noqa: BLE001  hints are expressions of the user's; without them the fields stay as they came
        return {}


def _argument(each: Any) -> str:
    """The name of a field as an argument of the constructor."""
    return str(getattr(each, "alias", None) or each.name.lstrip("_"))


_BUILDERS: Mapping[tuple[str, str], tuple[Build, str]] = {
    ("pandas", "DataFrame"): (_table, "object"),
    ("pandas", "Series"): (lambda kind, value: kind(value), "array"),
    ("polars", "DataFrame"): (_table, "object"),
    ("polars", "Series"): (lambda kind, value: kind(values=value), "array"),
    ("pyarrow", "Table"): (_arrow_table, "object"),
    ("xarray", "DataArray"): (_from_dict, "object"),
    ("xarray", "Dataset"): (_from_dict, "object"),
    ("pint", "PlainQuantity"): (_quantity, "any"),
    ("pint", "PlainUnit"): (_unit, "string"),
    ("PIL", "Image"): (_picture, "array"),
    ("torch", "Tensor"): (_tensor, "array"),
    ("builtins", "range"): (_range, "array"),
    ("builtins", "bytearray"): (_bytes, "string"),
    ("builtins", "memoryview"): (_bytes, "string"),
}
