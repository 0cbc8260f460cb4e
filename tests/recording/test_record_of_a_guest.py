"""What a program that joins says about recording is done, refused, or said aloud: A1 of the users' faults."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_params import EMBEDDED
from patience import patience

from ether import Ether
from ether.errors import ConfigError
from ether.ledger.reader import LedgerReader, RecordFilter

pytestmark = pytest.mark.in_turn("leader")


@pytest.fixture(params=EMBEDDED)
def leader(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ether]:
    """A notebook that only joins by name, and happens to be first."""
    own = Ether()
    own.tap({"session": f"guest-{tmp_path.name}"}, broker={"engine": request.param})
    yield own
    own.shutdown()


@pytest.fixture
def guest() -> Iterator[Ether]:
    own = Ether()
    yield own
    own.shutdown()


def kept(folder: Path, topic: str) -> list[Any]:
    with LedgerReader.open(folder) as reader:
        return sorted(record.value["n"] for record in reader.records(RecordFilter(topic=topic)))  # type: ignore[index]


def config(leader: Ether, **keys: Any) -> dict[str, Any]:
    return {"session": leader.session_id, **keys}


def test_a1_the_record_of_a_program_that_joins_is_kept(leader: Ether, guest: Ether, tmp_path: Path) -> None:
    guest.tap(config(leader, record={"topics": "all", "folder": str(tmp_path / "led")}))
    for n in range(100):
        guest.pub({"n": n}, topic="temperature")
    leader.pub({"n": 100}, topic="temperature")
    assert guest.flush(patience(10)) == 0
    assert leader.flush(patience(10)) == 0
    proof = guest.get("recorder", "proof")
    assert (proof["folder"], proof["gaps"]) == (str(tmp_path / "led"), [])
    guest.shutdown()
    assert kept(tmp_path / "led", "temperature") == list(range(101))


def test_a_second_folder_gets_a_second_recorder(leader: Ether, guest: Ether, tmp_path: Path) -> None:
    leader.record({"n": 0}, "mark").wait(timeout_s=patience(20))  # so the session has a recorder, of named values alone
    guest.tap(config(leader, record={"topics": ["temperature"], "folder": str(tmp_path / "led")}))
    recorders = [member["name"] for member in guest.instances() if member["class"] == "Recorder"]
    assert len(recorders) == 2
    guest.pub({"n": 7}, topic="temperature")
    guest.pub({"n": 8}, topic="pressure")
    guest.record({"n": 9}, "mark").wait(timeout_s=patience(20))
    assert guest.flush(patience(10)) == 0
    guest.shutdown()
    assert kept(tmp_path / "led", "temperature") == [7]
    assert kept(tmp_path / "led", "pressure") == []
    assert kept(tmp_path / "led", "mark") == [9]


def test_what_another_recorder_does_already_is_left_to_it(guest: Ether, tmp_path: Path) -> None:
    record = {"topics": "all", "folder": str(tmp_path / "led")}
    own = Ether()
    own.tap({"session": f"same-{tmp_path.name}", "record": record})
    try:
        guest.tap(config(own, record=record))
        assert [member["name"] for member in guest.instances() if member["class"] == "Recorder"] == ["recorder"]
    finally:
        guest.shutdown()
        own.shutdown()


def test_what_cannot_be_done_is_refused_with_the_reason(guest: Ether, tmp_path: Path) -> None:
    """One folder has one recorder."""
    own = Ether()
    own.tap({"session": f"less-{tmp_path.name}", "record": {"topics": ["a"], "folder": str(tmp_path / "led")}})
    try:
        with pytest.raises(ConfigError) as refused:
            guest.tap(config(own, record={"topics": ["a", "b"], "folder": str(tmp_path / "led")}))
        assert "recorded into" in str(refused.value)
        assert "name another folder" in str(refused.value)
        assert str(refused.value).startswith("record")
    finally:
        own.shutdown()


def test_a_broker_that_is_not_used_is_said(leader: Ether, guest: Ether, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        guest.tap(config(leader, broker={"engine": "amqtt", "listen": "loopback", "max_message_bytes": 1_000_000}))
    assert "broker: is not used" in caplog.text


def test_rights_that_are_not_used_are_said(
    leader: Ether, guest: Ether, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        guest.tap(config(leader, security={"guests": "none"}))
        assert "security: guests: none is not used" in caplog.text
        assert "everything, for it has no security:" in caplog.text
        caplog.clear()
        strict, same, other = Ether(), Ether(), Ether()
        session = f"strict-{tmp_path.name}"
        strict.tap({"session": session, "security": {"guests": "read"}})
        same.tap({"session": session, "security": {"guests": "read"}})
        assert "is not used" not in caplog.text
        other.tap({"session": session, "security": {"guests": "all"}})
        assert "security: guests: all is not used" in caplog.text
        [said] = [text for it in caplog.records if "guests: all is not used" in (text := it.getMessage())]
        assert said.endswith("guests: read")
        for one in (other, same, strict):
            one.shutdown()


def test_another_pace_of_the_recorder_is_said(
    leader: Ether, guest: Ether, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = {"topics": "all", "folder": str(tmp_path / "led")}
    guest.tap(config(leader, record=record))
    with caplog.at_level(logging.WARNING):
        for wish, is_said in ({}, False), ({"sync_every_s": 0}, False), ({"sync_every_s": 2}, True):
            other = Ether()
            other.tap(config(leader, record={**record, **wish}))
            other.shutdown()
            assert ("record.sync_every_s: 2 is not used" in caplog.text) == is_said


def test_another_life_of_the_ledger_is_refused(leader: Ether, guest: Ether, tmp_path: Path) -> None:
    record = {"topics": "all", "folder": str(tmp_path / "led"), "rotate": ["1GB", "day"], "keep": "30d"}
    guest.tap(config(leader, record=record))
    guest.record({"n": 0}, "mark").wait(timeout_s=patience(20))
    for same in (record, {**record, "rotate": ["day", "1000MB"]}, {"topics": "all", "folder": record["folder"]}):
        other = Ether()
        other.tap(config(leader, record=same))
        other.shutdown()
    with pytest.raises(ConfigError, match=r"and not with .*keep: #: 604800 s"):
        Ether().tap(config(leader, record={**record, "keep": "7d"}))
