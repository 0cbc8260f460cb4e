"""A disk that is full or fails: the save says so at once, nothing from before is hurt, and saving goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ledger_life import payload_of
from ledger_parts import NOW, OUTBOX, batch, entry, stored
from patience import patience
from power_loss import require_strace

from ether.errors import LedgerFull
from ether.ledger.durable import low_space
from ether.ledger.verify import verify
from ether.ledger.writer import LedgerWriter

HERE = Path(__file__).parents[1] / "parts"
FAULTS = {
    "the log cannot be synced": ("fdatasync:error=EIO:when=25", "LedgerFailed"),
    "the log cannot be synced, twice": ("fdatasync:error=EIO:when=25..26", "LedgerFailed"),
    "no space for the sync": ("fdatasync:error=ENOSPC:when=25", "Ledger"),
    "the head or an object cannot be synced": ("fsync:error=EIO:when=15", "LedgerFailed"),
    "the head or an object cannot be synced, later": ("fsync:error=EIO:when=24..25", "LedgerFailed"),
    "no space for pages": ("pwrite64:error=ENOSPC:when=200..203", "Ledger"),
    "pages cannot be written": ("pwrite64:error=EIO:when=200", "LedgerFailed"),
    "a quota is used up for pages": ("pwrite64:error=EDQUOT:when=200..203", "LedgerFailed"),
    "a quota is used up for the head": ("write:error=EDQUOT:when=9..10", "LedgerFull"),
    "no space for the head": ("write:error=ENOSPC:when=9..10", "LedgerFull"),
}


def saves_with(fault: str, folder: Path) -> list[dict[str, Any]]:
    """What came of each save while the system calls of that kind failed."""
    call = fault.partition(":")[0]
    traced = ["strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={fault}"]
    traced += ["-P", str(folder / "head")] if call == "write" else []
    command = [*traced, sys.executable, str(HERE / "ledger_faults.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=patience(60))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_save_says_so_and_saving_goes_on(fault: str, tmp_path: Path) -> None:
    require_strace()
    injected, error = FAULTS[fault]
    saves = saves_with(injected, tmp_path / "session")
    failed = [save for save in saves if save["failed"]]
    assert failed, "the fault hit nothing"
    assert all(save["failed"].startswith(error) for save in failed), failed
    took_s = sorted(save["seconds"] for save in saves)
    assert took_s[len(took_s) // 2] < patience(1.0)
    assert took_s[-1] < patience(2.4), "at once, and not after the five seconds that a locked database is waited for"
    assert not saves[-1]["failed"]
    highest = saves[-1]["highest"]
    assert highest >= 3 * (len(saves) - len(failed))
    records = stored(tmp_path / "session")
    assert [record.number for record in records] == list(range(1, highest + 1))
    assert all(record.payload == payload_of(record.number) for record in records)
    report = verify(tmp_path / "session")
    assert report.ok, str(report)
    assert report.sealed


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", mounted], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here (needs root): {done.stderr.decode().strip()}")
    yield mounted
    subprocess.run(["umount", mounted], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs, which needs Linux")
def test_a_full_disk_is_told_within_a_second_and_saving_goes_on_when_there_is_space(small_disk: Path) -> None:
    folder = small_disk / "session"
    writer = LedgerWriter.open(folder, "bench")
    assert writer.warning() is not None

    def save(number: int) -> dict[str, int]:
        size = 70_000 if number % 5 == 0 else 9_000
        return writer.append([batch(entry(number, payload=os.urandom(size)))], NOW)

    number = 0
    with pytest.raises(LedgerFull, match="is full"):  # noqa: PT012 - which of the saves cannot be known
        for number in range(1, 200):
            save(number)
    took_s = []
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(LedgerFull):
            writer.append([batch(entry(number, payload=os.urandom(400_000)))], NOW)
        took_s.append(time.monotonic() - began)
    assert sorted(took_s)[1] < patience(1.0), took_s
    assert max(took_s) < patience(2.4), took_s
    assert writer.highest(OUTBOX) == number - 1
    assert [record.number for record in stored(folder)] == list(range(1, number))
    assert verify(folder).ok
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    for again in range(number, number + 40):
        assert save(again) == {OUTBOX: again}
    writer.close()
    assert len(stored(folder)) == number + 39
    assert verify(folder).findings == ()


def test_little_space_is_worth_a_warning(tmp_path: Path) -> None:
    assert low_space(tmp_path, low_bytes=0) is None
    assert "bytes are free on the disk of" in str(low_space(tmp_path, low_bytes=1 << 62))
