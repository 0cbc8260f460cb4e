"""Values that come in another unit than the driver's: `"350 K"` for an argument in °C.

A value may have its unit as a text (`"350 K"`), as a mapping (`{magnitude: 350, units: K}`, which quantities of pint
become on their way, or `{value: 350, unit: K}`) or as a quantity itself. It becomes its number in the driver's unit
before its limits are checked. A bare number is in the driver's unit already.

Promises: pint is needed where two units differ, and only then imported; a unit that does not convert is `UnitUnfit`,
never a number. The first trap: 20 °C is no multiple of 1 °C, so the number and the unit are given to pint apart. The
second: pint calculates what stands in a text, so only small powers are given to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ether.errors import EtherError
from ether.spec.library_hints import calculable
from ether.spec.outcomes import OutcomeUnfit, is_quantity, number_in

_NUMBER = re.compile(r"(?!0[xob])([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*(\S.*)?", re.DOTALL)
_LONGEST = 100
"""Characters of a number and its unit. A longer text is none; what others send must not cost time."""
_NUMBER_KEYS, _UNIT_KEYS = ("magnitude", "value"), ("units", "unit")
_SIGNS_OF_UNITS = "°%‰"
"""Characters by which a unit may begin, beside letters."""
_DIGITS = 12
"""Significant digits of a converted number: 353.15 K is 80 °C, not 79.99999999999994."""
NEEDS_PINT = "pip install 'ether-medium[units]'"


class UnitUnfit(EtherError, ValueError):
    """A value whose unit is not, and does not convert to, that of its argument. `accepted` says what would be."""

    def __init__(self, accepted: str) -> None:
        self.accepted = accepted
        super().__init__(accepted)


def in_unit(value: Any, unit: str) -> Any:
    """The number of a value in a unit; what has no unit as it is. Raises `UnitUnfit`."""
    if type(value) in (int, float):
        return value
    if isinstance(value, (list, tuple)):
        return [in_unit(item, unit) for item in value] if any(map(has_unit, value)) else value
    if is_quantity(value):
        try:
            return number_in(value, unit, "the caller")
        except OutcomeUnfit as error:
            raise UnitUnfit(f"in {unit}: {error.why}") from None
    parts = _parts(value)
    if parts is None and isinstance(value, str) and len(value.strip()) > _LONGEST:
        raise UnitUnfit(f"a number in {unit}, or one with a unit that converts to it, of at most {_LONGEST} characters")
    return value if parts is None else _converted(*parts, unit)


def has_unit(value: object) -> bool:
    """Whether a value comes with a unit."""
    return _parts(value) is not None or is_quantity(value)


def unit_key(payload: Mapping[Any, Any]) -> str | None:
    """The key under which a payload says the unit of what stands beside it; None where it says none."""
    return next((key for key in _UNIT_KEYS if type(payload.get(key)) is str), None)


def _parts(value: object) -> tuple[Any, str] | None:
    """The number and the unit of a value that has both; None for any other."""
    if isinstance(value, str):
        return _text_parts(value)
    if isinstance(value, Mapping) and len(value) == 2:
        number, unit = ([key for key in keys if key in value] for keys in (_NUMBER_KEYS, _UNIT_KEYS))
        if number and unit and isinstance(value[unit[0]], str):
            return value[number[0]], value[unit[0]].strip()
    return None


def _text_parts(text: str) -> tuple[float, str] | None:
    found = _number(text)
    if found is None or not found[2] or not (found[2][0].isalpha() or found[2][0] in _SIGNS_OF_UNITS):
        return None
    return float(found[1]), found[2]


def _number(text: str) -> re.Match[str] | None:
    text = text.strip()
    return _NUMBER.fullmatch(text) if len(text) <= _LONGEST else None


def _converted(number: Any, given: str, unit: str) -> Any:
    if given == unit:
        return number
    if isinstance(number, str) and (alone := _number(number)) is not None and not alone[2]:
        number = float(alone[1])
    if isinstance(number, (list, tuple)):
        return [_converted(item, given, unit) for item in number]
    if isinstance(number, bool) or not (isinstance(number, (int, float)) or hasattr(number, "dtype")):
        raise UnitUnfit(f"a number in {unit}, or one with a unit that converts to it")
    if len(given) > _LONGEST:
        raise UnitUnfit(f"in {unit}, or with a unit of at most {_LONGEST} characters")
    try:
        import pint
    except ImportError:
        raise UnitUnfit(f"in {unit}; to convert {given} to it, pint has to be installed: {NEEDS_PINT}") from None
    registry: Any = pint.Quantity(0)._REGISTRY
    try:
        converted = registry.Quantity(number, calculable(given)).to(unit).magnitude
    except pint.DimensionalityError:
        raise UnitUnfit(f"in {unit}, and {given} does not convert to {unit}") from None
    except Exception as error:  # noqa: BLE001  pint has an error for each way in which a text is no unit
        why = str(error).strip().partition("\n")[0].rstrip(".")
        raise UnitUnfit(f"in {unit}, and {given} does not convert to {unit}: {why}") from None
    return float(f"{converted:.{_DIGITS}g}") if isinstance(converted, (int, float)) else converted
