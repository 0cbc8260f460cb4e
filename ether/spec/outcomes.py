"""What becomes of a driver's result before it is published, recorded or answered: a part of it, its number in a unit,
names for the items of a tuple.

Promise: a result that does not fit is an error that shows it, never a half-converted value. Quantities are recognised
by what they can do (`.to(unit)`, `.magnitude`), so pint is not needed here. The trap: an outcome reads attributes of a
foreign object, and may run its code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ether.config.path_text import ObjectPath, PathStep, parse_rest
from ether.errors import EtherError
from ether.spec.paths import PathNotFound, follow


class OutcomeUnfit(EtherError, ValueError):
    """A driver's result that has not what the registry takes of it. `result` is what it returned, as text."""

    def __init__(self, method: str, result: str, why: str) -> None:
        self.method, self.result, self.why = method, result, why
        super().__init__(f"{method} returned {result}, {why}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The steps into a result, the unit of its number, and the names of its items; none of these: as it is."""

    steps: tuple[PathStep, ...] = ()
    unit: str = ""
    names: tuple[str, ...] = ()

    @classmethod
    def from_options(cls, options: Mapping[str, Any] | None) -> Outcome:
        """As the registry writes it."""
        if not options:
            return AS_IT_IS
        steps = list(parse_rest(options.get("value") or "").steps)
        if options.get("field"):
            steps.append(PathStep("name", options["field"]))
        if options.get("item") is not None:
            steps.append(PathStep("item", options["item"]))
        return cls(tuple(steps), options.get("unit") or "", tuple(options.get("names") or ()))

    @property
    def changes(self) -> bool:
        """Whether anything becomes of a result."""
        return bool(self.steps or self.unit or self.names)

    def of(self, result: Any, method: str) -> Any:
        """What is taken of a result. Raises `OutcomeUnfit`, and whatever foreign code raises on the way."""
        value = result
        if self.steps:
            value = _followed(ObjectPath("".join(map(str, self.steps)), self.steps), result, method)
        if self.unit:
            value = number_in(value, self.unit, method)
        return self._named(value, result, method) if self.names else value

    def _named(self, value: Any, result: Any, method: str) -> dict[str, Any]:
        try:
            items = list(value.values()) if isinstance(value, Mapping) else list(value)
        except TypeError:
            raise OutcomeUnfit(method, _shown(result), "which has no items to be named") from None
        if len(items) != len(self.names):
            raise OutcomeUnfit(
                method, _shown(result), f"which has {len(items)} items; {len(self.names)} are named:"
                f" {', '.join(self.names)}",
            )  # fmt: skip
        return dict(zip(self.names, items, strict=True))


AS_IT_IS = Outcome()


def is_quantity(value: object) -> bool:
    """Whether a value is a number with a unit, of pint or a library like it."""
    return callable(getattr(value, "to", None)) and (hasattr(value, "magnitude") or hasattr(value, "unit"))


def number_in(value: Any, unit: str, method: str) -> Any:
    """The number of a quantity in a unit; a plain number is in that unit already. Raises `OutcomeUnfit`."""
    if not is_quantity(value):
        return value
    try:
        converted = value.to(unit)
    except Exception as error:  # each library of quantities has errors of its own
        raise OutcomeUnfit(method, _shown(value), f"which is no {unit}: {error}") from error
    return converted.magnitude if hasattr(converted, "magnitude") else converted.value


def _followed(path: ObjectPath, result: Any, method: str) -> Any:
    try:
        return follow(result, path)
    except PathNotFound as error:
        raise OutcomeUnfit(method, _shown(result), f"which has no {path.text}: {error.why}") from error


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  a foreign __repr__; a failing one must not hide the fault
        text = f"a {type(value).__name__}"
    return text if len(text) <= 120 else f"{text[:117]}..."
