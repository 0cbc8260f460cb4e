"""Files of recorded values, read back with the libraries that users read them with."""

from __future__ import annotations

import csv
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ledgers import BEGAN, Source, make_ledger
from optional import library

from ether.errors import ExportFailed, ExportUnwritable
from ether.ledger.writer import LedgerWriter
from ether.reading.data import Data, Query
from ether.reading.export.exports import EXPORTS, export, form_of
from ether.reading.export.tables import Exported, to_csv, to_hdf5, to_parquet
from ether.reading.tables.numpy import value_of

VALUES: list[dict[str, Any]] = [
    {"i": 1, "f": 0.1, "b": True, "t": 'say "x", y\n', "image": np.arange(6, dtype="<u2").reshape(2, 3), "mixed": 1},
    {"i": 2**60 + 1, "f": float("nan"), "b": False, "t": "", "v": [1.5, 2.5], "mixed": {}, "raw": b"\0\xff"},
    {"i": -1, "f": float("inf"), "b": True, "t": " ", "v": np.arange(3.0), "c": 1 - 2j, "mixed": [1, "a"]},
    {"i": 0, "f": -0.0, "b": True, "t": "ü", "image": np.ones((2, 3), "<u2"), "odd": np.zeros((1, 1)), "a/b": 1},
    {"i": 5, "f": 1e300, "b": False, "t": None, "odd": "text", "raw": b""},
]


@pytest.fixture
def data(tmp_path: Path) -> Data:
    """Five records that have one of everything."""
    source = Source("cam")
    for number, value in enumerate(VALUES):
        source.add("x", value, BEGAN + number)
    return Data(make_ledger(tmp_path / "ledger", [source]), Query(said={"topic": "x"}))


def exported(data: Data, path: Path, chunk: int = 2) -> Exported:
    """In pieces of two, so that each file is written in three."""
    form = form_of(path)
    if form != "csv":
        library({"parquet": "pyarrow", "hdf5": "h5py"}[form])
    write = {"parquet": to_parquet, "csv": to_csv, "hdf5": to_hdf5}[form]
    return write(data, path, chunk=chunk)


def same(found: Any, wanted: Any) -> bool:
    """Equal, arrays and NaN and the sign of zero included."""
    if isinstance(wanted, np.ndarray):
        return bool(np.array_equal(np.asarray(found), wanted))
    return repr(found) == repr(wanted)


def test_parquet(data: Data, tmp_path: Path) -> None:
    pq = library("pyarrow.parquet")
    done = exported(data, tmp_path / "x.parquet")
    assert (done.records, done.form, done.beside) == (5, "parquet", ())
    table = pq.read_table(done.path)
    assert pq.ParquetFile(done.path).num_row_groups == 3
    assert json.loads(table.schema.metadata[b"ether"])["session"] == "bench"
    cells = {name: table[name].to_pylist() for name in table.column_names}
    for name in ("i", "f", "b", "t", "raw"):
        assert all(same(found, value.get(name)) for found, value in zip(cells[name], VALUES, strict=True)), name
    assert cells["image"][0] == [0, 1, 2, 3, 4, 5]
    assert cells["v"] == [None, [1.5, 2.5], [0.0, 1.0, 2.0], None, None]
    assert cells["c"][2] == {"real": 1.0, "imag": -2.0}
    assert [json.loads(cell) for cell in cells["mixed"][:3]] == [1, {}, [1, "a"]]
    assert same(value_of(cells["odd"][3]), np.zeros((1, 1)))
    assert value_of(cells["odd"][4]) == "text"


def test_a_parquet_file_is_read_by_pandas(data: Data, tmp_path: Path) -> None:
    pd = library("pandas")
    done = exported(data, tmp_path / "x.parquet")
    frame = pd.read_parquet(done.path)
    assert frame["time"].tolist() == data.to_pandas()["time"].tolist()


def test_csv(data: Data, tmp_path: Path) -> None:
    done = exported(data, tmp_path / "x.csv")
    with done.path.open(newline="", encoding="utf-8") as file:
        heading, *rows = csv.reader(file)
    assert tuple(heading) == done.columns
    cells = [dict(zip(heading, row, strict=True)) for row in rows]
    assert [cell["t"] for cell in cells] == ['say "x", y\n', "", " ", "ü", ""]
    assert [int(cell["i"]) for cell in cells] == [value["i"] for value in VALUES]
    assert all(same(float(cell["f"]), value["f"]) for cell, value in zip(cells, VALUES, strict=True))
    assert [cell["b"] for cell in cells] == ["true", "false", "true", "true", "false"]
    assert json.loads(cells[0]["image"]) == [[0, 1, 2], [3, 4, 5]]
    assert cells[0]["time"] == "2023-11-14T22:13:20.000000Z"
    assert complex(cells[2]["c"]) == 1 - 2j
    text = done.path.read_text("utf-8")
    assert ',false,"",' in text  # an empty text; None is nothing at all
    told = json.loads(done.beside[0].read_text("utf-8"))
    assert (told["session"], told["records"], told["columns"]["image"]) == (
        "bench", 5, {"kind": "array", "dtype": "<u2", "shape": [2, 3]},
    )  # fmt: skip


def test_a_csv_file_is_read_by_pandas(data: Data, tmp_path: Path) -> None:
    pd = library("pandas")
    assert pd.read_csv(exported(data, tmp_path / "x.csv").path)["f"].tolist()[0] == 0.1


def test_hdf5(data: Data, tmp_path: Path) -> None:
    h5py = library("h5py")
    done = exported(data, tmp_path / "x.h5")
    with h5py.File(done.path) as file:
        assert json.loads(file.attrs["ether"])["session"] == "bench"
        assert {len(file[name]) for name in file if name != "missing"} == {5}
        for name in ("i", "f", "b"):
            assert all(same(f.item(), v[name]) for f, v in zip(file[name][:], VALUES, strict=True)), name
        assert file["t"].asstr()[:].tolist() == ['say "x", y\n', "", " ", "ü", ""]
        assert file["missing/t"][:].tolist() == [False, False, False, False, True]
        assert "i" not in file["missing"]
        assert file["image"].shape == (5, 2, 3)
        np.testing.assert_array_equal(file["image"][0], VALUES[0]["image"])
        assert file["missing/image"][:].tolist() == [False, True, True, False, True]
        assert [cell.tolist() for cell in file["v"][1:3]] == [[1.5, 2.5], [0.0, 1.0, 2.0]]
        assert file["c"][2] == 1 - 2j
        assert [json.loads(cell) for cell in file["mixed"].asstr()[:3]] == [1, {}, [1, "a"]]
        assert file["raw"][1].tobytes() == b"\0\xff"
        assert same(value_of(file["odd"][3].tobytes()), np.zeros((1, 1)))
        assert (file["a%2Fb"].attrs["column"], file["a%2Fb"][3]) == ("a/b", 1)
        assert file["time"][1] - file["time"][0] == 1_000_000_000
        assert json.loads(file["image"].attrs["ether"])["kind"] == "array"


@pytest.mark.parametrize("name", ["x.parquet", "x.csv", "x.h5"])
def test_a_file_is_whole_or_not_there(data: Data, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    path = folder / name
    path.write_text("the older one")
    original = Data.chunks

    def broken(self: Data, size: int) -> Any:
        yield next(original(self, size))
        raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Data, "chunks", broken)
        with pytest.raises(ExportUnwritable, match="the disk is gone"):
            exported(data, path)
    assert [file.name for file in folder.iterdir()] == [name]
    assert path.read_text() == "the older one"
    exported(data, path)
    assert path.read_bytes() != b"the older one"


def test_what_is_recorded_meanwhile_waits_for_the_next_export(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Data.chunks

    def growing(self: Data, size: int) -> Any:
        late = Source("late")
        late.add("x", {"new column": 1}, BEGAN - 1)
        writer = LedgerWriter.open(data.folder, "bench")
        writer.append([late.batch()], BEGAN)
        writer.close()
        yield from original(self, size)

    with monkeypatch.context() as patch:
        patch.setattr(Data, "chunks", growing)
        done = exported(data, tmp_path / "x.parquet")
    pq = library("pyarrow.parquet")
    assert pq.read_table(done.path).num_rows == done.records == 5
    assert exported(data, tmp_path / "x.parquet").records == 6


def test_every_form_has_a_writer_and_the_name_of_a_file_chooses_it(data: Data, tmp_path: Path) -> None:
    library("pyarrow")
    library("h5py")
    for form in ("parquet", "csv", "hdf5"):
        assert export(data, tmp_path / "any.name", form).form == form
    for home in EXPORTS.values():
        module, _, name = home.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
    assert export(data, tmp_path / "X.CSV").form == "csv"


def test_mistakes(data: Data, tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match=r"\.parquet.*\.csv.*\.h5"):
        form_of(Path("x.xlsx"))
    with pytest.raises(ExportFailed, match="parquet, csv, hdf5"):
        export(data, tmp_path / "x", "excel")
    with pytest.raises(ExportFailed, match=r"x\.csv is not written.*topic=nothing"):
        exported(Data(data.folder, Query(topic="nothing", said={"topic": "nothing"})), tmp_path / "x.csv")
    with pytest.raises(ExportUnwritable, match=r"no/folder\.csv: No such file"):
        exported(data, tmp_path / "no" / "folder.csv")


@pytest.mark.parametrize(("name", "library", "extra"), [("x.parquet", "pyarrow", "parquet"), ("x.h5", "h5py", "hdf5")])
def test_a_missing_library_is_named_with_what_to_install(
    data: Data, tmp_path: Path, name: str, library: str, extra: str
) -> None:
    code = f"""
import sys
sys.modules[{library!r}] = None
from pathlib import Path
from ether.reading.data import Data, Query
from ether.reading.export.exports import export
path = Path({str(tmp_path / name)!r})
try:
    export(Data(Path({str(data.folder)!r}), Query()), path)
except ImportError as error:
    print(error, path.exists())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pip install 'ether-medium[{extra}]' False\n" in done.stdout, done


def test_csv_needs_no_library(tmp_path: Path) -> None:
    source = Source("one")
    source.add("x", {"a": 1, "b": "text"})
    folder = make_ledger(tmp_path / "plain", [source])
    code = f"""
import sys
for name in ("numpy", "pandas", "pyarrow", "h5py"):
    sys.modules[name] = None
from pathlib import Path
from ether.reading.data import Data, Query
from ether.reading.export.exports import export
export(Data(Path({str(folder)!r}), Query()), Path({str(tmp_path / "x.csv")!r}))
"""
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (tmp_path / "x.csv").read_text().splitlines()[1].endswith(f',one,{source.entries[0].id},"",1,text')
