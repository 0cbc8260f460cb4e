"""Annotated arrays: what fits, what is cast, which lists become arrays, and what an error says."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from patience import patience

from ether.errors import MarkError, ValidationFailed
from ether.spec.arguments import Arguments
from ether.spec.array_hints import plain_integers
from ether.spec.descriptions import schema_of
from ether.typing import ArraySpec

np = pytest.importorskip("numpy")
npt = pytest.importorskip("numpy.typing")

POINTS = Annotated[np.ndarray, ArraySpec(dtype="float64", shape=(None, 3))]
LARGE = 2**60 + 1
"""An integer that no float64 is equal to."""


@dataclass
class Frame:
    pixels: np.ndarray
    dark: Annotated[np.ndarray | None, ArraySpec("uint16")] = None


def given(hint: Any, value: Any) -> Any:
    """What a method receives whose parameter `x` has this hint."""

    def method(x: Any) -> None: ...

    method.__annotations__["x"] = hint
    return Arguments(method, "Class.method").bind({"x": value})[1]["x"]


def refused(hint: Any, value: Any) -> str:
    with pytest.raises(ValidationFailed) as caught:
        given(hint, value)
    assert [problem.argument.partition(".")[0] for problem in caught.value.problems][:1] == ["x"]
    return str(caught.value)


@pytest.mark.parametrize(
    "hint",
    [
        POINTS,
        np.ndarray,
        npt.NDArray[np.float64],
        npt.NDArray[np.floating],
        npt.NDArray[Any],
        POINTS | None,
        Annotated[np.ndarray, ArraySpec(shape=(..., 3))],
        Annotated[np.ndarray, ArraySpec(shape=(..., 4, 3))],
        Annotated[npt.NDArray[np.float64], ArraySpec(shape=(4, None))],
        np.ndarray[tuple[int, Literal[3]], np.dtype[np.float64]],
        Annotated[np.ndarray | None, ArraySpec(float)],
        Annotated[npt.NDArray[np.float64] | None, ArraySpec(shape=(4, 3))],
        npt.NDArray[np.float64] | None,
        npt.ArrayLike,
    ],
)
def test_an_array_that_fits_is_passed_as_it_is(hint: Any) -> None:
    array = np.ones((4, 3))
    assert given(hint, array) is array


@pytest.mark.parametrize(
    ("dtype", "array"),
    [
        ("float64", np.arange(3, dtype="int64")),
        ("float64", np.arange(3, dtype="float32")),
        ("float64", np.arange(3, dtype=">f8")),
        ("int32", np.arange(3, dtype="uint16")),
        ("complex128", np.arange(3)),
    ],
)
def test_a_dtype_is_cast_where_numpy_calls_it_safe(dtype: str, array: Any) -> None:
    cast = given(Annotated[np.ndarray, ArraySpec(dtype)], array)
    assert cast.dtype == dtype
    assert cast.tolist() == array.tolist()


@pytest.mark.parametrize(
    ("hint", "array", "words"),
    [
        (POINTS, np.ones((2, 2)), ["float64 with shape (any, 3)", "shape is (2, 2)", "an array of float64 with shape"]),
        (POINTS, np.ones((2, 3), complex), ["float64", "complex128 cannot be cast"]),
        (Annotated[np.ndarray, ArraySpec("float32")], np.ones(2), ["array of float32", "an array of float64"]),
        (Annotated[np.ndarray, ArraySpec("uint8")], np.arange(2), ["uint8", "int64"]),
        (npt.NDArray[np.integer], np.ones(2), ["integer", "float64"]),
        (Annotated[np.ndarray, ArraySpec(shape=(..., 2, 2))], np.ones(2), ["(..., 2, 2)", "(2,)"]),
        (Annotated[np.ndarray, ArraySpec(shape=())], np.ones(1), ["shape ()", "(1,)"]),
        (POINTS, 5, ["float64", "given: 5"]),
        (POINTS, None, ["given: None"]),
    ],
)
def test_an_array_that_does_not_fit_is_named_with_what_is_accepted(hint: Any, array: Any, words: list[str]) -> None:
    text = refused(hint, array)
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("float64", [[1, 2], [3, 4]]),
        ("float64", [1, 2.5, 1e300]),
        ("float64", [float("inf"), -float("inf")]),
        ("float32", [0.5, 16777216]),
        ("int16", [1, -32768]),
        ("int64", [1.0, 2.0]),
        ("uint8", (0, 255)),
        ("uint64", [2**64 - 1]),
        ("bool", [0, True]),
        ("complex64", [1.5, 2]),
        ("float64", []),
        ("U5", ["warm", "hot"]),
        ("U", ["warm", "hot"]),
    ],
)
def test_a_list_becomes_an_array_where_every_value_is_kept(dtype: str, values: list[Any]) -> None:
    array = given(Annotated[np.ndarray, ArraySpec(dtype)], values)
    assert isinstance(array, np.ndarray)
    assert array.dtype == dtype or array.dtype.kind == dtype
    assert array.tolist() == list(values)


def test_a_decimal_fraction_is_rounded_to_the_precision_that_is_asked_for() -> None:
    array = given(npt.NDArray[np.float32], [0.1, float("nan")])
    assert array[0] == np.float32(0.1)
    assert np.isnan(array[1])


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("int64", [1.5]),
        ("int64", [float("nan")]),
        ("int64", [2.0**63]),
        ("uint8", [256]),
        ("uint64", [-1]),
        ("bool", [2]),
        ("float32", [1e300]),
        ("float32", [1e-300]),
        ("float32", [2**24 + 1]),
        ("float64", [2**53 + 1]),
        ("float64", [2**53 + 1, 0.5]),
        ("float64", [1j]),
        ("float64", ["1"]),
        ("U3", ["warm"]),
        ("U3", [1]),
        ("float64", [[1, 2], [3]]),
        ("float64", [None]),
        ("float64", [{}]),
        ("float64", [2**70]),
        (None, ["a"]),
        (None, [2**70]),
    ],
)
def test_a_list_that_would_lose_something_is_refused(dtype: str | None, values: list[Any]) -> None:
    assert "Input should be an array" in refused(Annotated[np.ndarray, ArraySpec(dtype)], values)


def test_a_list_has_to_have_the_shape_too() -> None:
    assert given(POINTS, [[1, 2, 3]]).shape == (1, 3)
    assert "shape is (3,)" in refused(POINTS, [1, 2, 3])


def test_where_a_union_offers_both_a_list_stays_a_list() -> None:
    assert given(np.ndarray | list, [1]) == [1]
    array = np.arange(2)
    assert given(list[int] | np.ndarray, array) is array


def test_arrays_inside_of_containers_and_dataclasses() -> None:
    pair = given(list[np.ndarray], [[1], np.ones(2)])
    assert [type(item) for item in pair] == [np.ndarray, np.ndarray]
    assert given(dict[str, npt.NDArray[np.int8]], {"a": [1]})["a"].dtype == "int8"
    pixels = np.ones(2)
    frame = given(Frame, {"pixels": pixels, "dark": [7]})
    assert frame.pixels is pixels
    assert (frame.dark.dtype, frame.dark.tolist()) == ("uint16", [7])


def test_the_sole_parameter_takes_a_list_as_the_whole_payload() -> None:
    def method(points: Any) -> None: ...

    method.__annotations__["points"] = POINTS
    assert Arguments(method, "m").bind([[1, 2, 3]])[1]["points"].tolist() == [[1.0, 2.0, 3.0]]


def test_numpy_scalars_as_hints() -> None:
    assert type(given(np.float32, 0.5)) is np.float32
    assert given(np.uint8, 3) == 3
    assert "uint8" in refused(np.uint8, 300)
    assert "float64" in refused(np.float64, "warm")
    scalar = np.float64(2.5)
    assert given(np.float64, scalar) is scalar


def test_large_numpy_integers_are_kept() -> None:
    assert given(int, np.int64(LARGE)) == LARGE
    assert given(list[int], [np.int64(LARGE)]) == [LARGE]
    assert given(list[list[int]], np.array([[LARGE]])) == [[LARGE]]
    assert given(dict[str, int], {"t": np.uint64(LARGE)}) == {"t": LARGE}
    assert given(set[int], {np.int64(LARGE)}) == {LARGE}


def test_what_holds_no_numpy_integers_is_not_touched() -> None:
    for value in ([1, 2.5, "x"], {"a": 1}, (1,), np.ones(2), np.timedelta64(1, "s"), np.float32(1)):
        assert plain_integers(value) is value
    endless: list[Any] = []
    endless.append(endless)
    assert isinstance(plain_integers(endless), list)


@pytest.mark.parametrize("shape", [3, "3", (3, ...), (-1,), (1.0,), (True,)])
def test_a_shape_that_is_none_is_refused_where_it_is_written(shape: Any) -> None:
    with pytest.raises(MarkError, match="shape"):
        ArraySpec(shape=shape)


@pytest.mark.parametrize("hint", [Annotated[np.ndarray, ArraySpec("flot64")], Annotated[list, ArraySpec()]])
def test_a_wrong_spec_is_an_error_at_the_start(hint: Any) -> None:
    with pytest.raises(MarkError, match=r"flot64|describes numpy\.ndarray"):
        given(hint, [1])


def test_the_schema_says_which_lists_fit() -> None:
    row = {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3}
    points = {"type": "array", "items": row, "dtype": "float64", "shape": [None, 3]}
    assert schema_of(POINTS) == points
    assert schema_of(POINTS | None) == {"anyOf": [points, {"type": "null"}]}
    assert schema_of(npt.NDArray[np.uint8]) == {"type": "array", "dtype": "uint8"}
    assert schema_of(Annotated[np.ndarray, ArraySpec(shape=(..., 2))]) == {"type": "array", "shape": ["...", 2]}
    assert schema_of(np.int8) == {"type": "integer"}
    assert schema_of(np.ndarray) is None


def test_numpy_is_not_loaded_for_it() -> None:
    program = (
        "import sys; from ether.typing import ArraySpec; from ether.spec.arguments import Arguments\n"
        "def f(x: list[int], y: int = 0): ...\n"
        "ArraySpec('float64', (None, 3)); Arguments(f, 'f').bind({'x': [1]}); sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=patience(60)).returncode == 0
