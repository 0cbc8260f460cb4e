"""The data of animal 7, three weeks later: runs are found by what was said of them, over all ledgers of a user, and
that is in every table (PH6 of the users' faults)."""

from __future__ import annotations

import pytest
from animal_parts import DAY, make_animals
from ledgers import BEGAN
from optional import library

from ether import Ether
from ether.errors import NoLedger, QueryMistake


@pytest.fixture(scope="module", autouse=True)
def animals(tmp_path_factory: pytest.TempPathFactory) -> None:
    make_animals(tmp_path_factory.mktemp("disk") / "led")


@pytest.fixture
def ether() -> Ether:
    return Ether()


def test_ph6_runs_are_found_in_all_ledgers(ether: Ether) -> None:
    found = ether.runs("animal == 7")
    assert [(run.session, run.run, run.metadata["animal"]) for run in found] == [
        ("animal7-mon", "task/1", 7), ("animal7-tue", "task/1", 7)
    ]  # fmt: skip
    assert [run.status for run in found] == ["ended", "ended"]
    assert found[0].duration_s == 10.0
    assert len(ether.runs()) == 4
    assert [run.session for run in ether.runs({"rig": {"box": 2}})] == ["animal7-tue"]
    assert [run.session for run in ether.runs("rig.box == 2")] == ["animal7-tue"]
    assert [run.run for run in ether.runs(["strain == C57", "animal > 7"])] == ["task/2"]
    assert [run.session for run in ether.runs("session == other")] == ["other"]
    assert len(ether.runs(session="animal7-*")) == 3
    assert len(ether.runs(session=["animal7-mon", "other"])) == 3
    assert [run.session for run in ether.runs(since=BEGAN + DAY + 5)] == ["animal7-tue", "other"]
    assert [run.run for run in ether.runs(until=BEGAN + 50)] == ["task/1"]
    with pytest.raises(NoLedger):
        ether.runs(session="rabbit*")


def test_ph6_their_data_is_one_table_with_the_metadata_as_columns(ether: Ether) -> None:
    data = ether.data(runs=ether.runs("animal == 7"), topic="lick")
    assert [(record.session, record.value["n"]) for record in data] == [
        ("animal7-mon", 1), ("animal7-mon", 2), ("animal7-tue", 1), ("animal7-tue", 2)
    ]  # fmt: skip
    assert (len(data), bool(data), data.topics()) == (4, True, ["lick"])
    assert data.last is not None
    assert (data.last.session, data.last.metadata) == ("animal7-tue", {"animal": 7, "rig": {"box": 2}})
    columns, rows = data.rows()
    assert list(columns.forms()) == [
        "time", "topic", "source", "id", "run", "session", "run.animal", "run.strain", "n", "value.run.animal",
        "run.rig.box",
    ]  # fmt: skip
    assert [row["run.animal"] for row in rows] == [7] * 4
    assert rows[0]["value.run.animal"] == "a key of the value"
    assert data.metadata()["runs"]["animal7-mon: task/1"] == {"animal": 7, "strain": "C57"}
    assert [r.value["n"] for r in ether.data(runs="animal == 8", topic="lick")] == [1, 2]
    assert list(ether.data(runs=[])) == []


def test_ph6_a_list_and_a_pattern_of_sessions_are_read_as_one(ether: Ether) -> None:
    assert len(ether.data("animal7-*", topic="lick")) == 8
    assert len(ether.data(["animal7-tue", "other"], topic="lick")) == 6
    assert len(ether.data(["animal7-tue"], topic="lick", run="task")) == 2
    assert [r.session for r in ether.data("animal7-*", topic="lick", since=BEGAN + DAY)] == ["animal7-tue"] * 2
    with pytest.raises(QueryMistake, match="runs="):
        ether.data(run="task", runs="animal == 7")
    with pytest.raises(QueryMistake, match=r"ether\.runs"):
        ether.data(runs=[7, ether.runs()[0]])  # type: ignore[list-item]


def test_metadata_is_in_the_table_of_one_ledger_too(ether: Ether) -> None:
    data = ether.data("animal7-mon", topic="lick", run="task/1")
    assert [record.metadata for record in data] == [{"animal": 7, "strain": "C57"}] * 2
    assert data.metadata()["runs"] == {"task/1": {"animal": 7, "strain": "C57"}}
    assert "run.animal" in data.columns().forms()
    plain = ether.data("other", topic="lick")
    assert "runs" not in plain.metadata()
    assert [name for name in plain.columns().forms() if name.startswith("run.")] == ["run.animal"]  # the value's own


def test_tables_of_libraries_have_it(ether: Ether) -> None:
    library("pandas")
    frame = ether.data(runs="animal == 7", topic="lick").to_pandas()
    assert list(frame["run.animal"]) == [7] * 4
    assert set(frame["session"]) == {"animal7-mon", "animal7-tue"}
    runs = ether.runs("animal >= 7").to_pandas()
    assert list(runs["run.animal"]) == [7, 8, 7]
    assert list(runs.columns)[:3] == ["time", "session", "run"]
