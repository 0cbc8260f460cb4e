"""From payloads to arguments: every rule of `ether.spec.arguments`, and what it says when a payload does not fit."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from ether.errors import ValidationFailed
from ether.spec.arguments import Arguments


class Reading(BaseModel):
    value: float
    unit: str = "C"


@dataclass
class Point:
    x: int
    y: int


class Colour(enum.Enum):
    RED = "red"


def bound(function: Any, payload: Any) -> Any:
    positional, named = Arguments(function, function.__name__).bind(payload)
    return function(*positional, **named)


def no_parameters() -> str:
    return "called"


def one(value: int) -> Any:
    return value


def one_default(data: int = 42) -> Any:
    return data


def one_untyped(message):  # type: ignore[no-untyped-def]
    return message


def two(a: int, b: float = 1.5) -> Any:
    return a, b


def two_required(a: int, b: int) -> Any:
    return a, b


def with_root(root: list[int], scale: float = 1.0) -> Any:
    return root, scale


def with_rest(a: int, **rest: Any) -> Any:
    return a, rest


def positional_only(a: int, /, b: int) -> Any:
    return a, b


def positional_defaults(a: int = 1, b: int = 2, /) -> Any:
    return a, b


def with_root_default(root: dict[str, Any] | None = None, scale: float = 1.0) -> Any:
    return root, scale


def keyword_only(*, a: int) -> Any:
    return a


def model(reading: Reading) -> Any:
    return reading


def model_and_more(reading: Reading, note: str = "") -> Any:
    return reading, note


def point(point: Point) -> Any:
    return point


def rich(when: dt.datetime, colour: Colour, limit: Annotated[int, Field(ge=0)], maybe: int | None = None) -> Any:
    return when, colour, limit, maybe


@pytest.mark.parametrize(
    ("function", "payload", "expected"),
    [
        (no_parameters, None, "called"),
        (no_parameters, {"anything": 1}, "called"),
        (no_parameters, [1, 2], "called"),
        (one, 5, 5),
        (one, "5", 5),
        (one, {"value": 5, "extra": 6}, 5),
        (one_default, None, 42),
        (one_default, {}, 42),
        (one_default, {"other": 1}, 42),
        (one_default, 7, 7),
        (one_untyped, {"a": 1}, {"a": 1}),
        (one_untyped, {"message": 1}, 1),
        (one_untyped, None, None),
        (two, {"a": "3"}, (3, 1.5)),
        (two, 3, (3, 1.5)),
        (two_required, {"a": 1, "b": 2, "c": 3}, (1, 2)),
        (with_root, [1, 2], ([1, 2], 1.0)),
        (with_root, {"root": [1], "scale": 2}, ([1], 2.0)),
        (with_rest, {"a": 1, "b": 2, "c": 3}, (1, {"b": 2, "c": 3})),
        (positional_only, {"a": 1, "b": 2}, (1, 2)),
        (positional_defaults, {"b": 5}, (1, 5)),
        (with_root_default, {}, (None, 1.0)),
        (with_root_default, {"scale": 2}, (None, 2.0)),
        (with_root_default, {"other": 2}, ({"other": 2}, 1.0)),
        (keyword_only, {"a": 1}, 1),
        (model, {"reading": {"value": 1}}, Reading(value=1)),
        (model, {"value": "2.5", "unit": "K"}, Reading(value=2.5, unit="K")),
        (model_and_more, {"reading": {"value": 1}, "note": "n"}, (Reading(value=1), "n")),
        (point, {"x": 1, "y": "2"}, Point(1, 2)),
        (
            rich,
            {"when": "2026-01-02T03:04:05", "colour": "red", "limit": 0},
            (dt.datetime(2026, 1, 2, 3, 4, 5), Colour.RED, 0, None),
        ),
    ],
)
def test_payload_becomes_arguments(function: Any, payload: Any, expected: Any) -> None:
    assert bound(function, payload) == expected


@pytest.mark.parametrize(
    ("function", "payload", "argument", "found"),
    [
        (one, "five", "value", "'five'"),
        (one, {"other": 5}, "value", "nothing"),
        (one, None, "value", "nothing"),
        (two_required, {"a": 1}, "b", "nothing"),
        (two_required, [1, 2], "payload", "[1, 2]"),
        (two_required, {"a": "x", "b": 2}, "a", "'x'"),
        (model, {"reading": {"value": "warm"}}, "reading.value", "'warm'"),
        (with_root, ["x"], "root.0", "'x'"),
        (rich, {"when": "now", "colour": "red", "limit": 1}, "when", "'now'"),
        (rich, {"when": "2026-01-02", "colour": "blue", "limit": 1}, "colour", "'blue'"),
        (rich, {"when": "2026-01-02", "colour": "red", "limit": -1}, "limit", "-1"),
    ],
)
def test_what_does_not_fit_is_named(function: Any, payload: Any, argument: str, found: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        bound(function, payload)
    assert [problem.argument for problem in caught.value.problems] == [argument]
    assert caught.value.problems[0].given == found
    assert function.__name__ in str(caught.value)
    assert argument in str(caught.value)


def test_every_wrong_argument_is_named_at_once() -> None:
    with pytest.raises(ValidationFailed) as caught:
        bound(two_required, {"a": "x"})
    assert [problem.argument for problem in caught.value.problems] == ["a", "b"]


def test_i4_a_hint_that_does_not_resolve_makes_an_unchecked_argument() -> None:
    def stepped(value: Missing, count: int = 1) -> None:  # type: ignore[name-defined]  # noqa: F821
        pass

    arguments = Arguments(stepped, "stepped")
    assert arguments.unchecked == {"value": "Missing"}
    assert arguments.place.startswith(__file__)
    assert arguments.bind({"value": "as it came", "count": "2"}) == ([], {"value": "as it came", "count": 2})
    with pytest.raises(ValidationFailed, match="count"):
        arguments.bind({"value": 1, "count": "many"})


def test_a_hint_that_pydantic_cannot_check_makes_an_unchecked_argument() -> None:
    class Strange:
        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            raise RuntimeError("not for you")

    def take(value: Strange) -> None:
        pass

    take.__annotations__["value"] = Strange
    assert list(Arguments(take, "take").unchecked) == ["value"]
    assert Arguments(take, "take").bind({"value": 3}) == ([], {"value": 3})


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (None, ([], {})),
        (3, ([3], {})),
        ("text", (["text"], {})),
        ([1, 2], ([1, 2], {})),
        ([[1, 2]], ([[1, 2]], {})),
        ({"a": 1}, ([], {"a": 1})),
        ({"args": [1], "a": 2}, ([1], {"a": 2})),
    ],
)
def test_i8_a_method_that_tells_nothing_is_called_by_position_and_by_name(payload: Any, expected: Any) -> None:
    def take(*args: Any, **kwargs: Any) -> None:
        pass

    assert Arguments(take, "take").bind(payload) == expected
    assert Arguments({}.update, "update").bind(payload) == expected  # written in C, without a signature


def test_a_type_that_pydantic_does_not_know_is_checked_by_isinstance() -> None:
    class Plain:
        pass

    arguments = Arguments(lambda value: value, "plain")
    assert arguments.bind(3) == ([], {"value": 3})

    def typed(value: Plain) -> None:
        pass

    typed.__annotations__["value"] = Plain
    with pytest.raises(ValidationFailed, match="Plain"):
        Arguments(typed, "typed").bind(3)


def test_a_value_that_cannot_be_shown_does_not_hide_the_failure() -> None:
    class Hidden:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    with pytest.raises(ValidationFailed, match="Hidden"):
        bound(one, Hidden())
