"""The power goes at any moment of a ledger's life: nothing that was acknowledged is lost, nothing is unreadable, and
every half-written tail is named."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from ledger_life import payload_of
from ledger_parts import NOW, OTHER, OUTBOX, batch, entry, stored
from power_loss import Call, Crash, Disk, recorded, require_strace

from ether.errors import LedgerFailed
from ether.ledger.reader import LedgerReader
from ether.ledger.verify import verify
from ether.ledger.writer import LedgerWriter

POINTS = 500 if os.environ.get("ETHER_LONG") == "1" else 60
HERE = Path(__file__).parents[1] / "parts"
_FRAME_HEAD_BYTES = 24


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Call], Path]:
    """What really happens to the files of a ledger, and the folder that it happened in."""
    require_strace()
    root = tmp_path_factory.mktemp("life")
    trace = tmp_path_factory.mktemp("trace") / "strace.txt"
    calls = recorded([sys.executable, str(HERE / "ledger_life.py"), str(root / "session")], trace)
    trace.unlink()
    assert verify(root / "session").ok
    return calls, root


def acknowledged(crash: Crash) -> dict[str, int]:
    """The last highest number of each outbox that was told to its source."""
    highest = {OUTBOX: 0, OTHER: 0}
    for line in crash.said:
        if line.startswith("ACK "):
            highest.update(json.loads(line[4:]))
    return highest


def check_records(folder: Path, promised: dict[str, int]) -> int:
    """Everything promised is there, whole and in order; returns how many records there are."""
    records = stored(folder)
    for outbox, highest in promised.items():
        mine = [record for record in records if record.outbox == outbox]
        assert [record.number for record in mine] == list(range(1, len(mine) + 1))
        assert len(mine) >= highest, f"{highest} of {outbox} were acknowledged, {len(mine)} are there"
        for record in mine:
            assert outbox == OTHER or record.payload == payload_of(record.number)
            assert record.value is not None
    return len(records)


def check_tails(folder: Path, crash: Crash, rows: int) -> bool:
    """What is half-written is named, and is no damage; returns whether there was something."""
    report = verify(folder)
    assert report.ok, str(report)
    named = " ".join(finding.where for finding in report.findings)
    for part in (*folder.glob("*.part"), *folder.glob("*/*.part"), *folder.glob("objects/*/*.part")):
        assert part.name in named
    trying = crash.said[-1].partition("TRY ")[2] if crash.said else ""
    pages = [at for path, at, data in crash.survivors if path.endswith("-wal") and len(data) == _FRAME_HEAD_BYTES]
    unfinished = bool(trying and pages and rows < int(trying))
    if unfinished:
        assert "ledger.db-wal" in named, f"pages at {pages} are of no finished transaction, and nothing says so"
    return unfinished


def check_that_it_goes_on(folder: Path, promised: dict[str, int]) -> None:
    """The next writer begins where the last promise ended, or later."""
    writer = LedgerWriter.open(folder, "bench")
    assert all(writer.highest(outbox) >= highest for outbox, highest in promised.items())
    number = writer.highest(OUTBOX) + 1
    assert writer.append([batch(entry(number))], NOW) == {OUTBOX: number}
    writer.close()
    report = verify(folder)
    assert [finding for finding in report.findings if "no record refers to it" not in finding.what] == [], str(report)


def is_made(folder: Path) -> bool:
    """Whether there is a ledger; the first writer may not have come so far."""
    try:
        LedgerReader.open(folder).close()
    except LedgerFailed as error:
        return "no ledger.db" not in error.why and "before it was made" not in error.why
    return True


def check_crashes(calls: list[Call], root: Path, points: int, into: Path) -> tuple[int, int]:
    """Returns how many crashes came after the ledger was made, and how many left something half-written."""
    tails = begun = 0
    for crash, left in Disk(root).crashes(calls, points, seed=20, into=into):
        promised, folder = acknowledged(crash), left / "session"
        if not any(line.startswith("ACK") for line in crash.said) and not is_made(folder):
            check_that_it_goes_on(folder, promised)
            continue
        begun += 1
        rows = check_records(folder, promised)
        tails += check_tails(folder, crash, rows)
        check_that_it_goes_on(folder, promised)
    return begun, tails


def test_nothing_acknowledged_is_lost_when_the_power_goes(life: tuple[list[Call], Path], tmp_path: Path) -> None:
    begun, tails = check_crashes(*life, POINTS, tmp_path)
    print(f"{POINTS} crashes, {begun} of a ledger that was there, {tails} with a half-written transaction")
    assert begun > POINTS * 0.7
    assert tails > POINTS // 30


def test_a_ledger_that_does_not_sync_its_log_would_be_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_strace()
    monkeypatch.setenv("LEDGER_LIFE_SYNC", "NORMAL")
    root = tmp_path / "root"
    root.mkdir()
    calls = recorded([sys.executable, str(HERE / "ledger_life.py"), str(root / "session")], tmp_path / "strace.txt")
    with pytest.raises(AssertionError, match="were acknowledged"):
        check_crashes(calls, root, 60, tmp_path)


@pytest.mark.parametrize("call", ["fdatasync", "fsync"])
def test_nothing_acknowledged_is_lost_when_the_power_goes_after_syncs_have_failed(call: str, tmp_path: Path) -> None:
    require_strace()
    root = tmp_path / "root"
    root.mkdir()
    command = [sys.executable, str(HERE / "ledger_life.py"), str(root / "session")]
    calls = recorded(command, tmp_path / "strace.txt", fault=f"{call}:error=EIO:when=16+19")
    assert any(call.name == "said" and call.data.startswith(b"ERR") for call in calls)
    begun, _ = check_crashes(calls, root, POINTS // 4, tmp_path)
    assert begun > POINTS // 8
