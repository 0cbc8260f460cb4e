"""Records as tables: what was sent is what stands in the cells."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ledgers import BEGAN, Source, make_ledger
from optional import library

from ether.reading.columns import Form, flatten
from ether.reading.data import Data, Query
from ether.wire.codec import decode

IMAGE = np.arange(6, dtype="<u2").reshape(2, 3)


@pytest.fixture
def libraries() -> None:
    """For a test that makes tables of more than one kind."""
    library("pandas")
    library("pyarrow")


def data_of(folder: Path, *values: Any) -> Data:
    source = Source("cam")
    for number, value in enumerate(values):
        source.add("x", value, BEGAN + number / 8)
    return Data(make_ledger(folder, [source]), Query(said={"topic": "x"}))


def column(folder: Path, *values: Any) -> tuple[Form, Any, list[Any], np.ndarray]:
    """One column three ways."""
    data = data_of(folder, *values)
    return (
        data.columns().forms()["value"],
        data.to_pandas()["value"],
        data.to_arrow()["value"].to_pylist(),
        data.to_numpy()["value"],
    )


def test_keys_become_columns(tmp_path: Path) -> None:
    pd = library("pandas")
    library("pyarrow")
    data = data_of(tmp_path, {"celsius": 21.5, "stage": {"x": 1, "y": 2}, "on": True}, {"celsius": 22.5, "note": "hot"})
    frame = data.to_pandas()
    assert list(frame.columns) == [
        "time",
        "topic",
        "source",
        "id",
        "run",
        "celsius",
        "stage.x",
        "stage.y",
        "on",
        "note",
    ]
    assert frame["time"].dtype == "datetime64[ns, UTC]"
    assert frame["time"].astype("int64").tolist() == [int(BEGAN * 1e9), int(BEGAN * 1e9) + 125_000_000]
    assert frame["celsius"].tolist() == [21.5, 22.5]
    assert (frame["stage.x"].dtype, frame["on"].dtype) == (pd.Int64Dtype(), pd.BooleanDtype())
    assert frame["stage.x"].tolist() == [1, pd.NA]
    assert frame["note"].tolist() == [None, "hot"]
    assert frame["source"].tolist() == ["cam", "cam"]
    table = data.to_arrow()
    assert table.column_names == list(frame.columns)
    assert table["time"].to_pylist()[1] == frame["time"][1]
    assert table["stage.x"].to_pylist() == [1, None]
    array = data.to_numpy()
    assert array.dtype.names == tuple(frame.columns)
    assert array["time"][1] == frame["time"][1].to_datetime64()
    np.testing.assert_array_equal(array["stage.x"], [1.0, np.nan])


def test_names_that_clash_lose_nothing() -> None:
    assert flatten({"time": 5, "a": {"b": 1}, "a.b": 2, "value.time": 3}) == {
        "value.time": 5, "a.b": 1, "a.b#2": 2, "value.time#2": 3,
    }  # fmt: skip
    assert flatten({}) == {}
    assert flatten({"a": {}}) == {"a": {}}
    assert flatten([1]) == {"value": [1]}


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize(
    ("values", "kind", "dtype"),
    [
        ([1, 2], "int", "int64"),
        ([1.5, 2], "float", "float64"),
        ([True, False], "bool", "bool"),
        ([2**63, 2**64 - 1], "uint", "uint64"),
        ([1j, 2 + 1j], "complex", "complex128"),
        (["a", ""], "text", object),
        ([b"a", b""], "bytes", object),
        ([[1, 2], [3]], "list", object),
        ([1, True], "json", object),
        ([1, "1"], "json", object),
        ([2**53 + 1, 0.5], "json", object),
        ([2**70, 1], "json", object),
        ([[1, "a"], None, {}], "json", object),
        ([1, float("inf"), 2**53 + 1], "body", object),
        ([b"a", 1], "body", object),
        ([1j, 1], "body", object),
    ],
)
def test_each_column_has_the_narrowest_type_that_holds_it(
    tmp_path: Path, values: list[Any], kind: str, dtype: Any
) -> None:
    form, series, arrow, array = column(tmp_path, *values)
    assert form.kind == kind
    assert series.dtype == dtype
    if values != [[1, "a"], None, {}]:  # {} has no keys, so no cell
        assert series.tolist() == values
        assert list(map(type, series.tolist())) == list(map(type, values)) or kind == "float"
        assert array.tolist() == values
        read = {
            "json": json.loads,
            "body": lambda cell: decode(cell, "application/vnd.ether.binary"),
            "complex": lambda cell: complex(cell["real"], cell["imag"]),
        }.get(kind, lambda cell: cell)
        assert [read(cell) for cell in arrow] == values


@pytest.mark.usefixtures("libraries")
def test_empty_cells(tmp_path: Path) -> None:
    data = data_of(tmp_path, {"i": 1, "f": 0.5, "b": True, "t": "x", "big": 2**60 + 1}, {"other": None})
    frame = data.to_pandas()
    assert frame.loc[1, ["i", "f", "b"]].isna().all()
    assert frame["big"].tolist()[0] == 2**60 + 1
    assert frame["other"].tolist() == [None, None]
    array = data.to_numpy()
    assert array["big"].tolist() == [2**60 + 1, None]
    assert array["t"].tolist() == ["x", None]
    assert data.to_arrow()["big"].to_pylist() == [2**60 + 1, None]


def test_arrays_of_one_shape_are_stacked(tmp_path: Path) -> None:
    pa = library("pyarrow")
    library("pandas")
    data = data_of(tmp_path, {"image": IMAGE}, {"image": IMAGE + 1})
    stacked = data.to_numpy()["image"]
    assert (stacked.shape, stacked.dtype) == ((2, 2, 3), np.dtype("<u2"))
    np.testing.assert_array_equal(stacked[1], IMAGE + 1)
    field = data.to_arrow().schema.field("image")
    assert field.type == pa.list_(pa.uint16(), 6)
    assert json.loads(field.metadata[b"ether"]) == {"kind": "array", "dtype": "<u2", "shape": [2, 3]}
    frame = data.to_pandas()
    np.testing.assert_array_equal(frame["image"][0], IMAGE)
    assert frame["image"][0].dtype == IMAGE.dtype


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f2", "<i1", "|b1", "<u8"])
def test_arrays_keep_their_numbers_in_arrow(tmp_path: Path, dtype: str) -> None:
    library("pyarrow")
    array = np.array([[0, 1], [1, 0]]).astype(dtype)
    column = data_of(tmp_path, array, array).to_arrow()["value"]
    np.testing.assert_array_equal(np.array(column.to_pylist()[1]).reshape(2, 2), array)


def test_arrays_that_differ(tmp_path: Path) -> None:
    pa = library("pyarrow")
    library("pandas")
    vectors = data_of(tmp_path / "1", np.arange(3.0), np.arange(5.0), [1.0, 2.0])
    assert vectors.to_arrow().schema.field("value").type == pa.list_(pa.float64())
    assert vectors.to_arrow()["value"].to_pylist()[1:] == [[0, 1, 2, 3, 4], [1, 2]]
    assert vectors.to_numpy()["value"].dtype == object
    mixed = data_of(tmp_path / "2", np.zeros((2, 2)), np.arange(3).astype("<M8[s]"), 5, {"value": "x"})
    cells = [decode(cell, "application/vnd.ether.binary") for cell in mixed.to_arrow()["value"].to_pylist()]
    assert (cells[0].shape, cells[1].dtype, cells[2:]) == ((2, 2), np.dtype("<M8[s]"), [5, "x"])
    assert mixed.to_pandas()["value"][2] == 5


@pytest.mark.usefixtures("libraries")
def test_tables_say_where_they_come_from(tmp_path: Path) -> None:
    data = data_of(tmp_path, 1)
    wanted = data.metadata()
    assert (wanted["session"], wanted["ledger"], wanted["topic"]) == ("bench", str(tmp_path), ["x"])
    assert wanted["query"] == {"topic": "x"}
    assert data.to_pandas().attrs["ether"] == wanted
    assert json.loads(data.to_arrow().schema.metadata[b"ether"]) == wanted


@pytest.mark.usefixtures("libraries")
def test_tables_of_nothing_have_the_columns_that_all_have(tmp_path: Path) -> None:
    data = Data(data_of(tmp_path, 1).folder, Query(topic="nothing"))
    names = ["time", "topic", "source", "id", "run"]
    assert list(data.to_pandas().columns) == data.to_arrow().column_names == list(data.to_numpy().dtype.names) == names
    assert (len(data.to_pandas()), data.to_arrow().num_rows, len(data.to_numpy())) == (0, 0, 0)


@pytest.mark.parametrize(
    ("call", "library", "extra"),
    [("to_pandas", "pandas", "pandas"), ("to_arrow", "pyarrow", "parquet"), ("to_numpy", "numpy", "numpy")],
)
def test_a_missing_library_is_named_with_what_to_install(tmp_path: Path, call: str, library: str, extra: str) -> None:
    folder = data_of(tmp_path, 1).folder
    code = f"""
import sys
sys.modules[{library!r}] = None  # as if it were not installed
from pathlib import Path
from ether.reading.data import Data, Query
data = Data(Path({str(folder)!r}), Query())
assert [record.value for record in data] == [1]
try:
    data.{call}()
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pip install 'ether-medium[{extra}]'" in done.stdout, done


def test_reading_loads_no_table_library(tmp_path: Path) -> None:
    folder = data_of(tmp_path, {"a": 1}).folder
    code = f"""
import sys
from pathlib import Path
from ether.reading.data import Data, Query
print(len(list(Data(Path({str(folder)!r}), Query()))))
print([name for name in ("numpy", "pandas", "pyarrow", "h5py") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n[]\n"
