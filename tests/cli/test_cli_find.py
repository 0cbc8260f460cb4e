"""`ether find`, and what was said of runs in `ether data`, `runs` and `export` (PH6 of the users' faults)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from animal_parts import make_animals
from commands_here import Done
from optional import library

from ether.cli.main import main

Ether = Callable[..., Done]


@pytest.fixture(scope="module", autouse=True)
def animals(tmp_path_factory: pytest.TempPathFactory) -> None:
    make_animals(tmp_path_factory.mktemp("disk") / "led")


@pytest.fixture
def ether(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ether:
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Done:
        capfd.readouterr()
        code = main(words)
        return Done(code, *capfd.readouterr())

    return run


@pytest.mark.parametrize("form", ["parquet", "h5"])
def test_files_have_it_as_columns_and_attributes(form: str, tmp_path: Path, ether: Ether) -> None:
    target = tmp_path / f"seven.{form}"
    library("pyarrow" if form == "parquet" else "h5py")
    done = ether("export", "--find", "animal=7", "-T", "lick", "--to", str(target))
    assert done.code == 0, done
    if form == "parquet":
        table = library("pyarrow.parquet").read_table(target)
        assert table["run.animal"].to_pylist() == [7] * 4
        assert table.schema.metadata[b"run.animal"] == b"7"
        said = json.loads(table.schema.metadata[b"ether"])
    else:
        with library("h5py").File(target) as file:
            assert list(file["run.animal"]) == [7] * 4
            assert file.attrs["run.animal"] == 7
            said = json.loads(file.attrs["ether"])
    assert said["runs"]["animal7-tue: task/1"] == {"animal": 7, "rig": {"box": 2}}
    for row in (1, 4):  # of two ledgers
        assert ether("why", f"{target}:{row}").code == 0
    assert said["sessions"] == ["animal7-mon", "animal7-tue"]


def test_ph6_ether_find(ether: Ether) -> None:
    done = ether("find", "animal=7")
    heading, *rows = done.out.splitlines()
    assert heading.split()[-3:] == ["animal", "strain", "rig"]
    assert len(rows) == 2
    assert [it["session"] for it in ether("find", "strain=C57", "animal>7", "--json").json] == ["animal7-mon"]
    assert ether("find", "animal=7", "since=3w").err == "no run fits\n"
    assert len(ether("find", "animal=7", "since=1000w", "--json").json) == 2
    assert len(ether("find", "--in", "animal7-mon", "--json").json) == 2
    assert len(ether("find", "status=ended", "until=2023-11-15", "--json").json) == 2
    ether("find", "animal").assert_mistake(2, "animal")
    ether("find", "since=soon").assert_mistake(2, "since")


def test_ph6_data_and_runs_on_the_command_line(ether: Ether) -> None:
    lines = ether("data", "--find", "animal=7", "-T", "lick", "--json").lines
    assert [(it["session"], it["metadata"]["animal"]) for it in lines] == [("animal7-mon", 7)] * 2 + [
        ("animal7-tue", 7)
    ] * 2
    heading = ether("data", "animal7-*", "-T", "lick").out.splitlines()[0]
    assert heading.split() == ["SESSION", "RUN", "TIME", "TOPIC", "FROM", "VALUE"]
    heading, first, _ = ether("runs", "animal7-mon").out.splitlines()
    assert heading.split()[-2:] == ["animal", "strain"]
    assert first.split()[-2:] == ["7", "C57"]
