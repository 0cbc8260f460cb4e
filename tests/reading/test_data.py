"""Reading back: which records come, in which order, how often."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
from ledgers import BEGAN, Source, make_ledger
from patience import patience

from ether.ledger.writer import LedgerWriter
from ether.reading.data import Data, Query
from ether.reading.filter_rules import predicate_of
from ether.wire.codec import Body


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two thermometers whose entries came to the recorder one after the other, and a camera with a name of its own."""
    one, two, camera = Source("one"), Source("two"), Source("camera")
    for number in range(5):
        one.add("room/one", {"celsius": 20.0 + number}, BEGAN + number, more={"run": "r1"} if number < 3 else {})
        two.add("room/two", {"celsius": 30.0 + number}, BEGAN + number + 0.5)
    camera.add("exposure", 0.1, BEGAN + 1.2, kind="record")
    camera.add("snap", {}, BEGAN + 1.3, kind="call")
    return make_ledger(tmp_path / "ledger", [one, two, camera])


def times(data: Data) -> list[float]:
    return [record.time - BEGAN for record in data]


def test_records_come_by_time_whatever_the_order_in_which_they_arrived(folder: Path) -> None:
    data = Data(folder, Query())
    assert times(data) == sorted(times(data))
    assert len(data) == len(list(data)) == 11
    assert {record.kind for record in data} == {"data", "record"}
    assert data.first is not None
    assert data.last is not None
    assert (data.first.topic, data.first.value) == ("room/one", {"celsius": 20.0})
    assert (data.last.topic, data.last.source, data.last.value) == ("room/two", "two", {"celsius": 34.0})


def test_queries(folder: Path) -> None:
    assert times(Data(folder, Query(topic="room/one"))) == [0, 1, 2, 3, 4]
    assert len(Data(folder, Query(topic="room/+"))) == 10
    assert len(Data(folder, Query(topic="#"))) == 11
    assert times(Data(folder, Query(run="r1"))) == [0, 1, 2]
    assert [record.run for record in Data(folder, Query(topic="room/one"))] == ["r1"] * 3 + [""] * 2
    assert [record.value for record in Data(folder, Query(instance="camera"))] == [0.1]
    assert times(Data(folder, Query(topic="room/#", since=BEGAN + 1, until=BEGAN + 2))) == [1, 1.5, 2]
    hot = Data(folder, Query(topic="room/#", where=predicate_of("celsius > 31.5")))
    assert (times(hot), len(hot)) == ([2.5, 3.5, 4.5], 3)
    assert [record.topic for record in Data(folder, Query(kinds=("call",)))] == ["snap"]
    assert Data(folder, Query()).topics() == ["exposure", "room/one", "room/two"]


def test_h7g_a_notebook_shows_what_was_asked_for_and_how_much_it_is(folder: Path) -> None:
    read: list[object] = []
    assert (
        Data(folder, Query(topic="room/+"), read.append)
        ._repr_html_()
        .endswith("gt;: 10 records; to_pandas() makes a table of them</p>")
    )
    assert "record" not in Data(folder, Query(where=predicate_of("celsius > 31.5")))._repr_html_()
    assert read == [], "to show it is not to read it"


def test_nothing_found_is_empty_and_false(folder: Path) -> None:
    data = Data(folder, Query(topic="nothing"))
    assert (list(data), len(data), bool(data), data.first, data.last) == ([], 0, False, None, None)


def test_a_clock_that_was_set_back_keeps_a_sources_order(tmp_path: Path) -> None:
    one, two = Source("one"), Source("two")
    for number, time in enumerate([0.0, 10.0, 5.0, 6.0]):
        one.add("x", number, BEGAN + time)
    two.add("y", "between", BEGAN + 5.5)
    values = [record.value for record in Data(make_ledger(tmp_path, [one, two]), Query())]
    assert [value for value in values if value != "between"] == [0, 1, 2, 3]


def test_an_iteration_can_be_left_and_begun_again(folder: Path) -> None:
    data = Data(folder, Query())
    assert [record.row for record, _ in zip(data, range(3), strict=False)] == [record.row for record in data][:3]


def test_it_reads_while_a_recorder_writes_and_can_be_held_to_what_was_there(folder: Path) -> None:
    data = Data(folder, Query(topic="late"))
    held = Data(folder, Query()).held()
    late = Source("late")
    writer = LedgerWriter.open(folder, "bench")
    try:
        for number in range(3):
            late.add("late", number, BEGAN - 1)
            writer.append([late.batch()], BEGAN)
            assert [record.value for record in data] == list(range(number + 1))
        assert (len(held), len(list(held)), len(Data(folder, Query()))) == (11, 11, 14)
    finally:
        writer.close()


def test_threads_read_side_by_side(folder: Path) -> None:
    data = Data(folder, Query())
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(len(list(data)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience(30))
    assert found == [11] * 4


def test_what_cannot_be_understood_is_given_as_it_was_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stranger = Source("stranger")
    stranger.add("x", body=Body(b'{"broken": ', "application/json"))
    stranger.add("x", body=Body(b"\x93ETH nonsense", "application/vnd.ether.binary"))
    stranger.add("x", 5)
    data = Data(make_ledger(tmp_path, [stranger]), Query())
    with caplog.at_level(logging.WARNING):
        records = list(data)
    assert [record.value for record in records] == [b'{"broken": ', b"\x93ETH nonsense", 5]
    assert "JSON" in str(records[0].problem)
    assert records[2].problem is None
    assert [record.getMessage().partition(" in ")[0] for record in caplog.records] == ["2 values"]
    assert [record.value for record in Data(data.folder, Query(where=lambda value: value != 6))] == [5]


def test_a_function_that_fails_says_on_which_record(folder: Path) -> None:
    with pytest.raises(KeyError) as caught:
        list(Data(folder, Query(where=lambda value: value["kelvin"] > 0)))
    assert "room/one" in caught.value.__notes__[0]
