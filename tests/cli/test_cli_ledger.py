"""`ether ledger`: backup, restore, archive, delete and volumes, with a recorder that runs and with none."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from commands_here import Done
from ledgers import BEGAN, Source, make_ledger
from patience import patience
from running_brokers import soon

from ether import Ether
from ether.cli.main import main
from ether.ledger.reader import LedgerReader, RecordFilter
from ether.ledger.verify import verify
from ether.ledger.volumes import closed_volumes

Command = Callable[..., Done]


@pytest.fixture
def ether(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """A command, run in this process."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Done:
        capfd.readouterr()
        code = main(words)
        return Done(code, *capfd.readouterr())

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    probe = Source("probe")
    for number in range(40):
        run = {"run": f"dose/{number // 10}"}
        probe.add("room" if number % 2 else "camera/frame", {"n": number}, BEGAN + number * 86_400, more=run)
    return make_ledger(tmp_path / "bench", [probe], session="bench")


def test_the_life_of_a_ledger_without_a_recorder(
    ether: Command, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backup = tmp_path / "backup"
    done = ether("ledger", "backup", str(folder), str(backup))
    assert done.code == 0, done.err
    assert f"{backup} has everything up to row 40, whose link is " in done.out
    assert "nothing is new" in ether("ledger", "backup", str(folder), str(backup)).out
    shown = ether("ledger", "delete", str(folder), "--run", "dose/2")
    assert (shown.code, "10 records" in shown.out, "--yes does it" in shown.out) == (0, True, True)
    assert ether("data", str(folder), "--run", "dose/2", "--json").lines
    deleted = ether("ledger", "delete", str(folder), "--run", "dose/2", "--why", "a wrong dose", "--yes", "--json").json
    assert (deleted["deleted"], deleted["records"], deleted["topics"]) == (True, 10, {"camera/frame": 5, "room": 5})
    assert ether("data", str(folder), "--run", "dose/2", "--json").lines == []
    assert "it has nothing of the run 'dose/2': it was deleted" in caplog.text
    verified = ether("verify", str(folder))
    assert verified.code == 0
    assert "run dose/2: a wrong dose" in verified.out
    assert ether("why", "25", "--ledger", str(folder)).err.count("it was deleted") == 1
    before = datetime.fromtimestamp(BEGAN + 5 * 86_400 - 1).isoformat(" ")
    aged = ("--before", before, "--topic", "camera/#", "--yes", "--json")
    assert ether("ledger", "delete", str(folder), *aged).json["records"] == 3
    assert ether("ledger", "archive", str(folder), "--json").json["volumes"] == []  # what was emptied is compressed
    rows = ether("ledger", "volumes", str(folder), "--json").json["volumes"]
    assert [(row["first"], row["last"], row["deleted"], row["archived"]) for row in rows] == [
        (1, 40, 13, True), (41, 40, 0, False),
    ]  # fmt: skip
    assert len(ether("data", str(folder), "--json").lines) == 27
    refused = ether("ledger", "restore", str(backup), str(folder))
    assert (refused.code != 0, "nothing is overwritten" in refused.err) == (True, True)
    assert ether("ledger", "restore", str(backup), str(folder), "--aside").code == 0
    assert len(ether("data", str(folder), "--json").lines) == 40
    assert len(list(tmp_path.glob("bench.before-*"))) == 1
    for mistake in (("--run", "dose"), ()):
        assert ether("ledger", "delete", str(folder), *mistake, "--yes").code == 2


def test_the_life_of_a_ledger_under_its_recorder(
    ether: Command, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Rotated by size, backed up, deleted from, archived; then put back from its backup: the gap is named."""
    folder, backup, session = tmp_path / "led", tmp_path / "backup", f"life-{tmp_path.name}"
    own = Ether()
    config = {
        "session": session, "broker": {"engine": "amqtt"},
        "record": {"topics": "all", "folder": str(folder), "rotate": "100kB", "logs": False},
    }  # fmt: skip

    def save(first: int, last: int) -> None:
        kept = [own.record({"n": n, "pad": "x" * 2000}, "v") for n in range(first, last)]
        kept[-1].wait(timeout_s=patience(20))

    def values() -> list[int]:
        with LedgerReader.open(folder) as reader:
            return sorted(record.value["n"] for record in reader.records(RecordFilter(topic="v")))  # type: ignore[index]

    own.tap(config)
    try:
        save(0, 150)
        assert soon(lambda: len(closed_volumes(folder)) >= 1, 10)
        first = ether("ledger", "backup", str(folder), str(backup), "--json").json
        save(150, 170)
        gone = ether("ledger", "delete", str(folder), "--topic", "v", "--yes", "--json").json
        assert gone["records"] == 170, "also those of the current volume, which the recorder has closed"
        save(170, 180)
        assert values() == list(range(170, 180))
        assert ether("ledger", "archive", str(folder), "--current").code == 0
        save(180, 185)
        assert values() == list(range(170, 185))
        assert own.flush(patience(5)) == 0
    finally:
        own.shutdown()
    assert verify(folder).ok
    assert ether("ledger", "restore", str(backup), str(folder), "--aside").code == 0
    assert len(values()) == 150
    again = Ether()
    again.tap(config)
    again.record({"n": 500}, "v").wait(timeout_s=patience(20))
    again.shutdown()
    assert values() == [*range(150), 500]
    report = verify(folder)
    assert report.ok, str(report)
    assert report.records > first["last"]
