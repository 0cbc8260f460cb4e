"""Values of libraries that scientists use: they travel, and arrive as they were where the hint says so."""

from __future__ import annotations

import array
import collections
import datetime
import importlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pytest

from ether import ether_sub
from ether.errors import EncodeError, ValidationFailed
from ether.testing import Lab
from ether.wire import decode, encode


class Point(NamedTuple):
    x: float
    y: Any


def library(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is not installed: pip install -e '.[values]'")


def travelled(value: object) -> Any:
    body = encode(value)
    return decode(body.payload, body.content_type)


class Taker:
    """Takes one value, hinted as `Taker.kind`."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    @ether_sub(topic="value")
    def take(self, value: Any) -> None:
        self.got.append(value)


def taken(value: object, hint: Any) -> Any:
    """The value as a parameter with this hint gets it, through a whole session."""

    class Hinted(Taker):
        @ether_sub(topic="value")
        def take(self, value: Any) -> None:
            self.got.append(value)

    Hinted.take.__annotations__["value"] = hint
    taker = Hinted()
    with Lab(objects={"taker": taker}) as lab:
        lab.pub({"value": value}, topic="value")
        lab.pub(value, topic="value")
    by_name, alone = taker.got
    assert type(by_name) is type(alone)
    return alone


PLAIN: list[tuple[Callable[[], object], object]] = [
    (lambda: Point(1, Point(2, 3)), {"x": 1, "y": {"x": 2, "y": 3}}),
    (lambda: collections.deque([1, 2], maxlen=5), [1, 2]),
    (lambda: range(3), [0, 1, 2]),
    (lambda: {"a": 1}.keys(), ["a"]),
    (lambda: {"a": 1}.values(), [1]),
    (lambda: {"a": 1}.items(), [["a", 1]]),
    (lambda: array.array("d", [1.5]), [1.5]),
    (lambda: Fraction(1, 3), "1/3"),
    (lambda: collections.UserDict(a=1), {"a": 1}),
]


@pytest.mark.parametrize(("make", "arrives"), PLAIN)
def test_pythons_own(make: Callable[[], object], arrives: object) -> None:
    assert travelled(make()) == arrives
    assert travelled({"in": [make()]}) == {"in": [arrives]}


def test_a_named_tuple_keeps_its_names_and_is_one_again_by_its_hint() -> None:
    assert taken(Point(1, "a"), Point) == Point(1, "a")
    assert taken([1, "a"], Point) == Point(1, "a")


def test_a_frame_of_pandas() -> None:
    pd = library("pandas")
    times = pd.to_datetime(["2026-01-01T10:00+01:00", "2026-01-02"], format="ISO8601", utc=True)
    frame = pd.DataFrame(
        {
            "n": [1, 2], "name": ["x", None], "at": times, "kind": pd.Categorical(["u", "v"]),
            "maybe": pd.array([1, None], dtype="Int64"),
        },
    )  # fmt: skip
    arrived = travelled(frame)
    assert list(arrived) == ["n", "name", "at", "kind", "maybe"]
    assert isinstance(arrived["n"], np.ndarray)
    assert str(arrived["at"][0]).startswith("2026-01-01T09:00:00")
    assert (arrived["name"], arrived["kind"], arrived["maybe"]) == (["x", None], ["u", "v"], [1, None])
    again = taken(frame[["n", "name"]], pd.DataFrame)
    pd.testing.assert_frame_equal(again, frame[["n", "name"]])
    indexed = frame[["n"]].set_index(pd.Index([5.0, 6.0], name="time"))
    pd.testing.assert_frame_equal(taken(indexed, pd.DataFrame | None).set_index("time"), indexed)
    assert travelled([pd.NaT, pd.NA, pd.Timestamp("2026-01-01")]) == [None, None, "2026-01-01T00:00:00"]
    assert taken(frame["n"], pd.Series).tolist() == [1, 2]


def test_a_frame_of_polars() -> None:
    pl = library("polars")
    frame = pl.DataFrame({"n": [1, 2], "name": ["x", None]})
    assert travelled(frame)["name"] == ["x", None]
    assert taken(frame, pl.DataFrame).equals(frame)


def test_an_arrow_table() -> None:
    pa = library("pyarrow")
    table = pa.table({"n": [1, 2], "name": ["x", None]})
    assert travelled(table)["name"] == ["x", None]
    assert taken(table, pa.Table).equals(table)


def test_xarray_keeps_dimensions_coordinates_and_attributes() -> None:
    xr = library("xarray")
    image = xr.DataArray(
        np.arange(6.0).reshape(2, 3), dims=("y", "x"), coords={"x": [1, 2, 3]}, name="image", attrs={"units": "K"}
    )
    assert taken(image, xr.DataArray).identical(image)
    both = xr.Dataset({"image": image, "dark": ("y", [0.0, 1.0])})
    assert taken(both, xr.Dataset).identical(both)
    assert travelled(image)["dims"] == ["y", "x"]


def test_a_quantity_keeps_its_unit() -> None:
    pint = library("pint")
    assert travelled(pint.Quantity(1.5, "mm")) == {"magnitude": 1.5, "units": "millimeter"}
    assert taken(pint.Quantity(1.5, "mm"), pint.Quantity) == pint.Quantity(0.0015, "m")
    assert taken("3 mm", pint.Quantity) == pint.Quantity(3, "mm")
    assert taken(pint.Quantity(np.arange(3), "s"), pint.Quantity).magnitude.tolist() == [0, 1, 2]


def test_a_picture() -> None:
    image = library("PIL.Image")
    picture = image.new("RGB", (3, 2), (1, 2, 3))
    assert travelled(picture).shape == (2, 3, 3)
    assert taken(picture, image.Image).tobytes() == picture.tobytes()
    coloured = picture.convert("P", palette=image.Palette.ADAPTIVE)
    assert travelled(coloured)[0, 0].tolist() == [1, 2, 3]


def test_an_attrs_class() -> None:
    attrs = library("attrs")

    @attrs.define
    class Pose:
        x: float
        _hidden: int = 0

    fields = {"pose": attrs.field(type=Pose), "name": attrs.field(default="left")}
    Arm = attrs.make_class("Arm", fields, repr=False)  # noqa: N806

    arm = Arm(Pose(1.5, hidden=2))
    assert travelled(arm) == {"pose": {"x": 1.5, "_hidden": 2}, "name": "left"}
    assert taken(arm, Arm) == arm


def test_fields_of_an_attrs_class_get_their_types_where_that_works() -> None:
    attrs = library("attrs")
    read: list[object] = []

    def shortened(value: object) -> str:
        read.append(value)
        return str(value)[:4]

    fields = {
        "at": attrs.field(type=datetime.datetime),
        "count": attrs.field(type=int),  # attrs takes what is no int, and so it stays
        "year": attrs.field(type=datetime.date, converter=shortened),  # written for what comes
    }
    Log = attrs.make_class("Log", fields)  # noqa: N806
    at = datetime.datetime(2026, 1, 2, 3)
    assert taken(Log(at, "many", "2026-01-02"), Log) == Log(at, "many", "2026")
    assert set(map(type, read)) == {str}
    assert taken([Log(at, 1, "x")], list[Log]) == [Log(at, 1, "x")]


class Tensor:
    """As those of deep learning: it offers its memory, and nothing else."""

    def __init__(self, values: Any, why: str = "") -> None:
        self.values, self.why = np.asarray(values), why

    def __dlpack__(self, **kwargs: Any) -> Any:
        if self.why:
            raise BufferError(self.why)
        return self.values.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


def test_a_tensor_travels_by_dlpack_and_by_array() -> None:
    class Holder:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.arange(3)

    assert travelled(Tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
    assert travelled({"t": Holder()})["t"].tolist() == [0, 1, 2]


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: (i for i in ()), r"a generator is read only once: send list\(…\), or mark the method that yields"),
    (lambda: map(str, []), r"it is read only once: send list\(…\)"),
    (lambda: range(10**9), "a range of 1,000,000,000 numbers; send its start, stop and step"),
    (lambda: Tensor([1], "it is on the GPU"), r"\(it is on the GPU\); for a tensor send .detach\(\).cpu\(\).numpy\(\)"),
    (lambda: importlib.import_module("pandas").DataFrame([[1, 2]], columns=["a", "a"]), "have the same name; rename"),
    (lambda: importlib.import_module("polars").DataFrame().lazy(), r"it has not been computed yet: send .collect\(\)"),
]


@pytest.mark.parametrize(("make", "how"), REFUSED)
def test_a_refusal_names_the_way_to_send_it(make: Callable[[], object], how: str) -> None:
    try:
        value = make()
    except ImportError:
        pytest.skip("not installed: pip install -e '.[values]'")
    with pytest.raises(EncodeError, match=f"cannot send a: an object of type .* cannot travel as it is: .*{how}"):
        encode({"a": value})


def test_what_does_not_fit_a_hint_is_said_with_the_type() -> None:
    with pytest.raises(ValidationFailed, match="makes no Quantity: UndefinedUnitError"):
        taken("3 furlongings", library("pint").Quantity)


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9 mm",
        "9⁹⁹⁹⁹⁹⁹ mm",
        "1 m**(9**9**9)",
        "((((9**12)**12)**12)**12)**12 m",
        "9^9^9^9",
        "(5 mm",
        "1e300**12 m",
    ],
)
def test_a_quantity_that_cannot_be_calculated_soon_is_refused(text: str) -> None:
    kind = library("pint").Quantity
    for value in (text, {"magnitude": 1, "units": text}):
        with pytest.raises(ValidationFailed, match="makes no Quantity"):
            taken(value, kind)


def test_powers_of_units_are_taken() -> None:
    pint = library("pint")
    flow = pint.Quantity(2.0, "kg * m**2 / s**3 / A ** -0.5")
    assert taken(flow, pint.Quantity) == flow
    assert taken("5 m²", pint.Quantity) == pint.Quantity(5, "m**2")
