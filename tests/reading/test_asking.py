"""`ether.data()`: which ledger, which words, with and without a session."""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledgers import BEGAN, Source, make_ledger

from ether import Ether, ether
from ether.errors import InvalidName, NoLedger, QueryMistake
from ether.ledger.places import default_folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's data folder with the ledgers of two sessions."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for session, written in (("old", 1), ("new", 2)):
        source = Source("probe")
        for number in range(4):
            source.add("room/1", {"session": session, "n": number}, BEGAN + number, more={"run": f"r{number % 2}"})
        folder = make_ledger(default_folder(session, os.environ), [source], session=session)
        for file in folder.iterdir():
            os.utime(file, (written, written))
    return tmp_path


@pytest.fixture
def joined() -> Iterator[Ether]:
    own = Ether()
    own.tap(session="old", broker={"engine": "amqtt"})
    yield own
    own.shutdown()


def sessions(**asked: str) -> set[str]:
    return {record.value["session"] for record in ether.data(**asked)}


def test_without_a_session_it_is_the_ledger_written_last(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sessions() == {"new"}
    assert sessions(session="old") == {"old"}
    assert sessions(session=str(home / "ether" / "old")) == sessions(folder=str(home / "ether" / "old")) == {"old"}
    monkeypatch.setenv("ETHER_SESSION", "old")
    assert sessions() == {"old"}


def test_in_a_session_it_is_its_own(joined: Ether) -> None:
    assert {record.value["session"] for record in joined.data()} == {"old"}
    assert {record.value["session"] for record in joined.data("new")} == {"new"}


def test_words() -> None:
    def found(**asked: object) -> list[int]:
        return [record.value["n"] for record in ether.data(**asked)]  # type: ignore[arg-type]

    moment = datetime.datetime.fromtimestamp(BEGAN + 1, datetime.UTC)
    assert found(topic="room/+", run="r1") == [1, 3]
    assert found(since=moment, until=BEGAN + 2) == [1, 2]
    assert found(since=moment.isoformat(), where="n < 3") == [1, 2]
    assert found(since="-10 min") == []
    assert found(instance="probe", where={"n": 2}) == [2]
    assert found(kinds="record") == []
    data = ether.data(topic="room/1", since=moment, where=lambda value: value["n"] > 1)
    assert data.query.said["since"] == moment.isoformat()
    assert "lambda" in data.query.said["where"]
    assert repr(data) == f"<ether.data of {data.folder}: {', '.join(f'{k}={v}' for k, v in data.query.said.items())}>"


def test_mistakes_come_before_anything_is_read() -> None:
    with pytest.raises(NoLedger, match="Did you mean 'old'"):
        ether.data("odl")
    with pytest.raises(QueryMistake, match="until="):
        ether.data(until="soon")
    with pytest.raises(QueryMistake, match="did you mean 'record'"):
        ether.data(kinds=["records"])
    with pytest.raises(QueryMistake, match="FIELD OP VALUE"):
        ether.data(where="celsius")
    with pytest.raises(InvalidName):
        ether.data(topic="a/#/b")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"topic": "room/2"}, "the topic 'room/2'; did you mean 'room/1'?"),
        ({"run": "r10"}, "the run 'r10'; did you mean 'r1'?"),
        ({"instance": "prob"}, "the instance 'prob'; did you mean 'probe'?"),
    ],
)
def test_a_name_that_nothing_was_recorded_under_is_told(
    asked: dict[str, str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert list(ether.data(**asked)) == []
    assert said in caplog.text
    caplog.clear()
    assert list(ether.data(topic="room/#", since=BEGAN + 100)) == []
    assert caplog.text == ""
