"""The conditions and moments of a query: `celsius > 21`, `-10 min`. No text is evaluated as code.

A condition is a function of the value, a mapping (`{"celsius": 21}`, `{"celsius": (">", 21)}`), a triple
(`("celsius", ">", 21)`), a text (`"celsius > 21"`), or a list of these, all of which must hold. A field is a key of the
value, a dotted path to a key of an inner mapping (`stage.x`), or `value` for a value that is no mapping.

The trap: a text is not a number. `"5" > 3` is neither true nor false; such a value does not match.
"""

from __future__ import annotations

import datetime
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ether.errors import DecodeError, QueryMistake
from ether.wire.json_text import loads

Predicate = Callable[[Any], bool]
Where = Predicate | Mapping[str, object] | str | Sequence[object]
Moment = float | datetime.datetime | str

MISSING: Any = object()
"""The result of `field_of` where a value has no such field."""

_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "in": lambda found, wanted: found in wanted,
    "contains": lambda found, wanted: wanted in found,
}
_OPERATOR = re.compile(r"==|!=|<=|>=|<|>|=|(?<=\s)(?:in|contains)(?=\s)")
_FORMS = "write FIELD OP VALUE, such as 'celsius > 21', with one of " + ", ".join(_OPERATORS)

_AGO = re.compile(r"-\s*(\d+(?:\.\d+)?)\s*([a-z]+)")
_YEAR_9999_S = 253_370_764_800
_UNITS_S = {
    **dict.fromkeys(("ms", "millisecond"), 0.001),
    **dict.fromkeys(("s", "sec", "second"), 1),
    **dict.fromkeys(("m", "min", "minute"), 60),
    **dict.fromkeys(("h", "hr", "hour"), 3600),
    **dict.fromkeys(("d", "day"), 86_400),
    **dict.fromkeys(("w", "week"), 604_800),
}


class Comparison(NamedTuple):
    """A field, an operator, and the value (`wanted`) that the field is compared with."""

    field: str
    operator: str
    wanted: Any

    def holds(self, value: object) -> bool:
        """Whether the value has the field, and the comparison is true."""
        found = field_of(value, self.field)
        if found is MISSING:
            return False
        try:
            return bool(_OPERATORS[self.operator](found, self.wanted))
        except TypeError:
            return False
        except ValueError as error:  # the truth of an array
            problem = f"{self.field!r} is an array there; compare it in a function: where=lambda value: …"
            raise QueryMistake(problem) from error


def predicate_of(where: Where | None) -> Predicate | None:
    """The condition as a function of a value; None where there is no condition. Raises `QueryMistake`."""
    if where is None or (callable(where) and not isinstance(where, Mapping)):
        return where
    comparisons = tuple(_comparisons(where))
    return lambda value: all(comparison.holds(value) for comparison in comparisons)


def _comparisons(where: object) -> Iterable[Comparison]:
    """The comparisons of a condition. A list of three whose second is an operator is a triple, not a list of three
    conditions."""
    if isinstance(where, str):
        yield _parsed(where)
    elif isinstance(where, Mapping):
        for field, wanted in where.items():
            is_pair = isinstance(wanted, tuple) and len(wanted) == 2 and wanted[0] in _OPERATORS
            yield _checked(field, *wanted) if is_pair else _checked(field, "==", wanted)
    elif _is_triple(where):
        yield _checked(*where)  # type: ignore[misc]
    elif isinstance(where, (list, tuple)):
        for each in where:
            yield from _comparisons(each)
    else:
        raise QueryMistake(f"cannot use {where!r:.80} as a condition; {_FORMS}, or give a function of the value")


def _is_triple(where: object) -> bool:
    return isinstance(where, (list, tuple)) and len(where) == 3 and isinstance(where[1], str) and where[1] in _OPERATORS


def _checked(field: object, operator_name: object, wanted: object) -> Comparison:
    if not isinstance(field, str) or operator_name not in _OPERATORS:
        raise QueryMistake(f"cannot use {(field, operator_name, wanted)!r:.80} as a condition; {_FORMS}")
    return Comparison(field, str(operator_name), wanted)


def _parsed(text: str) -> Comparison:
    stripped = text.lstrip()
    found = _OPERATOR.search(stripped, 1)  # a field has one character at least
    field = stripped[: found.start()].rstrip() if found else ""
    if found is None or not field:
        raise QueryMistake(f"cannot understand the condition {text!r:.80}; {_FORMS}")
    operator_name, wanted = found[0], stripped[found.end() :].strip()
    try:
        return Comparison(field, operator_name, loads(wanted, strict=True))
    except DecodeError:
        return Comparison(field, operator_name, wanted)


def field_of(value: object, field: str) -> Any:
    """The field of a value under a dotted name, `MISSING` where there is none. A key that has the dots in it comes
    before a path of keys."""
    if isinstance(value, Mapping):
        if field in value:
            return value[field]
        for at, char in enumerate(field):
            if char == "." and field[:at] in value:
                return field_of(value[field[:at]], field[at + 1 :])
        return MISSING
    return value if field == "value" else MISSING


def moment_of(moment: Moment | None, now: float, name: str) -> float | None:
    """A moment as unix seconds. It is given as unix seconds, a datetime, ISO text, or how long ago (`-10 min`). Without
    a time zone it is local time. `name`: the argument's name, for the error. Raises `QueryMistake`."""
    if moment is None:
        return None
    if isinstance(moment, datetime.datetime):
        return moment.timestamp()
    if isinstance(moment, (int, float)) and not isinstance(moment, bool) and 0 <= moment < _YEAR_9999_S:
        return float(moment)
    if isinstance(moment, str) and (seconds := _seconds_of(moment.strip(), now)) is not None:
        return seconds
    expected = (
        "expected unix seconds, a datetime, a text such as '2025-01-16 11:28', or how long ago, such as '-10 min'"
    )
    raise QueryMistake(f"cannot understand {name}={moment!r:.60}: {expected}")


def _seconds_of(text: str, now: float) -> float | None:
    ago = _AGO.fullmatch(text.lower())
    if ago is not None:
        unit = ago[2] if ago[2] in _UNITS_S else ago[2].removesuffix("s")
        return now - float(ago[1]) * _UNITS_S[unit] if unit in _UNITS_S else None
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        pass
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds < _YEAR_9999_S else None
