"""A ledger that an earlier Ether has written: read, verified, explained, exported, and continued."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from ledger_parts import OUTBOX, batch, entry, stored

from ether.instance.class_loading import find_class
from ether.ledger.reader import LedgerReader, RecordFilter
from ether.ledger.verify import verify
from ether.ledger.writer import LedgerWriter
from ether.provenance.lineage import find, why
from ether.provenance.origins import kept_texts, origin_of
from ether.reading.data import Data, Query
from ether.reading.export.exports import export

OLD = Path(__file__).parent / "old_ledger" / "bench"
ROWS, HIGHEST = 21, 19


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "bench"))


def test_it_is_whole_and_sealed(folder: Path) -> None:
    report = verify(folder)
    assert (report.ok, report.sealed, report.records, report.findings) == (True, True, ROWS, ())


def test_its_records_are_read(folder: Path) -> None:
    data = Data(folder, Query(run="warm/1"))
    assert [record.value["n"] for record in data if record.topic == "camera/celsius"] == [1, 2, 3, 4, 5, 6]
    with LedgerReader.open(folder) as reader:
        assert (reader.session, reader.count()) == ("bench", ROWS)
        [frame] = reader.records(RecordFilter(topic="camera/frame"))
        assert frame.payload == bytes(range(256)) * 260
        assert (folder / "objects" / str(frame.sha256)[:2] / str(frame.sha256)).is_file()
        [gap] = reader.records(RecordFilter(kinds=("gap",)))
        assert gap.more["why"] == "the outbox was full (drop-oldest)"
        assert {facts.source: facts.highest for facts in reader.outboxes()} == {"archive": 3, "camera": HIGHEST}


def test_its_values_are_explained_and_its_recorder_is_found(folder: Path) -> None:
    with LedgerReader.open(folder) as reader:
        tree = why(reader, find(reader, "area", last=True))
        assert [step.how for step in tree.steps[:2]] == ["asked", "parent"]
        [context] = tree.contexts.values()
        assert context is not None
        assert origin_of(context).class_path == "camera.Camera"
        assert {text.kind for text in kept_texts(reader, [context])} == {"settings", "source"}
        [call] = reader.records(RecordFilter(kinds=("call",)))
        recorder = reader.context(call.context)
        assert recorder is not None
        assert recorder["class"] == "ether.process.recorder.Recorder"
        assert find_class(str(recorder["class"]), None).__name__ == "Recorder"


@pytest.mark.parametrize("name", ["table.csv", "table.parquet", "table.h5"])
def test_it_is_exported_as_a_table(folder: Path, tmp_path: Path, name: str) -> None:
    if name != "table.csv":
        pytest.importorskip("pyarrow" if name.endswith("parquet") else "h5py")
    exported = export(Data(folder, Query()), tmp_path / name)
    assert exported.records == 9
    assert {"celsius", "n", "value"} <= set(exported.columns)


def test_it_is_exported_with_its_provenance(folder: Path, tmp_path: Path) -> None:
    assert export(Data(folder, Query()), tmp_path / "prov.json", "prov").records == 11
    agents = json.loads((tmp_path / "prov.json").read_text())["agent"].values()
    assert {agent.get("ether:class") for agent in agents} >= {"camera.Camera", "ether.process.recorder.Recorder"}


def test_it_is_continued(folder: Path) -> None:
    before = stored(folder)
    writer = LedgerWriter.open(folder, "bench")
    assert writer.highest(OUTBOX) == HIGHEST
    writer.append([batch(entry(HIGHEST + 1))], 1_700_000_100.0)
    writer.close()
    assert stored(folder)[:ROWS] == before
    report = verify(folder)
    assert (report.ok, report.sealed, report.records) == (True, True, ROWS + 1)
