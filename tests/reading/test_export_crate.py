"""An RO-Crate that the library of its makers reads, whose files are what it says they are."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from git_bench import PARTS, ask_context
from lineage_lab import Writer, write_pipeline

from ether.errors import ExportFailed
from ether.ledger.reader import LedgerReader, RecordFilter
from ether.provenance.context import configuration_facts
from ether.reading.export import crate as export_crate
from ether.wire.codec import OCTETS
from ether.wire.entries import Entry


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of a pipeline, the second with a body that is no JSON."""
    tmp_path = tmp_path_factory.mktemp("bench")
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "parts.py").write_text(PARTS)
    about = ask_context(tmp_path / "lab", kwargs={"gain": 3, "password": "hush"})
    facts = configuration_facts({"session": "bench"}, "session: bench\n", "ether.yaml")
    with Writer(tmp_path / "ledger") as writer:
        for made in facts.artifacts:
            writer.keep_artifact("main", made.sha256, made.name, made.content)
        contexts = {
            name: writer.keep(name, about, instance=name, configuration=facts.described)
            for name in ("doubler", "squarer")
        }
        writer.begin_run("one")
        write_pipeline(writer, contexts)
        writer.end_run()
        writer.begin_run("two")
        write_pipeline(writer, contexts, rounds=2)
        writer._append(
            "camera", Entry(0, "data", "frame", "an-id", 1, writer.now, (), "", OCTETS, b"\x00\xff", {"run": "two"})
        )
        writer.end_run()
    return tmp_path / "ledger"


def library() -> Any:
    return pytest.importorskip("rocrate.rocrate", reason="rocrate is not installed: pip install 'ether-medium[crate]'")


def written(ledger: Path, folder: Path, run: str | None = None, **options: Any) -> Any:
    rocrate = library()
    with LedgerReader.open(ledger) as reader:
        export_crate.write(
            reader, folder, lambda: reader.records(RecordFilter(kinds=export_crate.KINDS, run=run)), **options
        )
    return rocrate.ROCrate(str(folder))


def test_every_file_is_described_and_is_what_is_said_of_it(ledger: Path, tmp_path: Path) -> None:
    folder = tmp_path / "crate"
    crate = written(ledger, folder, run="two")
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    described = {entity.id: entity for entity in crate.data_entities}
    assert described.keys() == there - {"ro-crate-metadata.json"}
    for path, entity in described.items():
        content = (folder / path).read_bytes()
        assert entity["sha256"] == hashlib.sha256(content).hexdigest()
        assert entity["contentSize"] == len(content)
    names = {entity["name"] for entity in described.values()}
    assert {"parts.py", "ether.yaml", "configuration.json", "environment.json", "W3C PROV", "records"} <= names
    assert not any(b"hush" in (folder / path).read_bytes() for path in there)


def test_the_records_are_those_of_the_run_with_their_values(ledger: Path, tmp_path: Path) -> None:
    written(ledger, tmp_path / "crate", run="two")
    lines = [json.loads(line) for line in (tmp_path / "crate" / "records.jsonl").read_text().splitlines()]
    assert {line["run"] for line in lines} == {"two"}
    assert [line["value"] for line in lines if line["topic"] == "summary"] == [[0, 0], [2, 1]]
    (frame,) = [line for line in lines if line["topic"] == "frame"]
    assert (tmp_path / "crate" / frame["payload"]).read_bytes() == b"\x00\xff"


def test_actions_say_who_did_what_with_which_code_and_when(ledger: Path, tmp_path: Path) -> None:
    crate = written(ledger, tmp_path / "crate", name="A bench", license_text="https://spdx.org/licenses/CC-BY-4.0")
    assert (crate.name, crate.license.id) == ("A bench", "https://spdx.org/licenses/CC-BY-4.0")
    actions = {action["name"]: action for action in crate.get_by_type("CreateAction")}
    assert set(actions) == {"doubler made 3 records", "squarer made 3 records"}
    action = actions["doubler made 3 records"]
    assert action["instrument"]["name"] == "parts.Processor"
    assert action["result"].id == "records.jsonl"
    assert {"ether.yaml", "parts.py"} <= {entity["name"] for entity in action["object"]}
    assert action["startTime"] < action["endTime"]
    assert crate.root_dataset["conformsTo"].id == export_crate.PROFILE


def test_what_cannot_be_written_leaves_nothing_behind(ledger: Path, tmp_path: Path) -> None:
    library()
    (tmp_path / "crate").mkdir()
    before = sorted(tmp_path.iterdir())
    with LedgerReader.open(ledger) as reader:
        with pytest.raises(ExportFailed, match="is there already"):
            export_crate.write(reader, tmp_path / "crate")
        with pytest.raises(ExportFailed, match="nothing was recorded that fits"):
            export_crate.write(reader, tmp_path / "other", lambda: ())
    assert sorted(tmp_path.iterdir()) == before


def test_without_the_library_the_error_names_the_extra(ledger: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['rocrate'] = None\n"
        "from pathlib import Path; from ether.errors import MissingExtra\n"
        "from ether.reading.export import crate as export_crate; from ether.ledger.reader import LedgerReader\n"
        "with LedgerReader.open(Path(sys.argv[1])) as reader:\n"
        "    try: export_crate.write(reader, Path(sys.argv[2]))\n"
        "    except MissingExtra as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(ledger), str(tmp_path / "crate")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "pip install 'ether-medium[crate]'" in done.stdout
    assert not (tmp_path / "crate").exists()
