"""Results against return hints: lenient, never destructive, and clear about what is wrong."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, Self, TypeVar

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from ether.errors import EtherError, ResultInvalid
from ether.spec.results import Results

T = TypeVar("T")


class Reading(BaseModel):
    value: float


class Finer(Reading):
    digits: int = 3


@dataclass
class Point:
    x: int


class Row(TypedDict):
    a: int


class HasNoChecks(Protocol):
    def method(self) -> None: ...


def checked(hint: Any, value: Any) -> Any:
    def method() -> None: ...

    method.__annotations__["return"] = hint
    return Results(method, "Class.method").check(value)


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (float, 3, 3.0),
        (int, 3.0, 3),
        (list[float], (1, 2), [1.0, 2.0]),
        (dt.datetime, "2026-01-02", dt.datetime(2026, 1, 2)),
        (Reading, {"value": "1.5"}, Reading(value=1.5)),
        (Point, {"x": 1}, Point(1)),
        (int | None, None, None),
        (Row, {"a": "1", "b": 2}, {"a": 1, "b": 2}),
        ("float", 3, 3.0),
        (Awaitable[float], 3, 3.0),
    ],
)
def test_a_result_is_what_its_hint_says(hint: Any, value: Any, expected: Any) -> None:
    result = checked(hint, value)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize("value", [Reading(value=1), Finer(value=1), Point("not checked again")])  # type: ignore[arg-type]
def test_an_instance_is_passed_as_it_is(value: Any) -> None:
    assert checked(Point if isinstance(value, Point) else Reading, value) is value


@pytest.mark.parametrize(
    "hint",
    [
        Any,
        None,
        object,
        "Missing",
        len,
        pytest,
        T,
        Self,
        NoReturn,
        HasNoChecks,
        Iterable[int],
        Iterator[int],
    ],
)
def test_a_hint_that_nothing_can_check_checks_nothing(hint: Any) -> None:
    value = ["anything"]
    assert checked(hint, value) is value


def test_without_a_hint_nothing_is_checked() -> None:
    def method():  # type: ignore[no-untyped-def]
        ...

    value = object()
    assert Results(method, "m").check(value) is value


def test_one_hint_that_does_not_resolve_does_not_spoil_the_others() -> None:
    def method(x: Missing) -> float: ...  # type: ignore[empty-body, name-defined]  # noqa: F821

    assert type(Results(method, "m").check(1)) is float


def test_an_async_method_is_checked_by_what_it_returns_in_the_end() -> None:
    async def method() -> float:
        return 1

    assert type(Results(method, "m").check(1)) is float


@pytest.mark.parametrize(
    ("hint", "value", "places"),
    [
        (float, "warm", ["result"]),
        (float, None, ["result"]),
        (list[int], [1, "x", 2, "y"], ["result.1", "result.3"]),
        (Reading, {"value": "warm"}, ["result.value"]),
        (Point, Reading(value=1), ["result"]),
    ],
)
def test_what_does_not_fit_is_named(hint: Any, value: Any, places: list[str]) -> None:
    with pytest.raises(ResultInvalid) as caught:
        checked(hint, value)
    assert [problem.argument for problem in caught.value.problems] == places
    assert caught.value.method == "Class.method"
    assert "Class.method ran" in str(caught.value)
    assert isinstance(caught.value, EtherError)
    assert isinstance(caught.value, ValueError)


def test_arrays_and_numpy_scalars() -> None:
    np = pytest.importorskip("numpy")
    array = np.arange(3.0)
    assert checked(np.ndarray, array) is array
    assert checked(np.array, array) is array
    assert checked(float, np.float32(0.5)) == 0.5
    assert checked(bool, np.bool_(True)) is True
    assert checked(int, np.int64(2**60 + 1)) == 2**60 + 1
    assert checked(np.ndarray[Any, np.dtype[np.float64]], np.arange(3)).dtype == "float64"
    with pytest.raises(ResultInvalid, match="an array of float64"):
        checked(np.ndarray[Any, np.dtype[np.int64]], array)
