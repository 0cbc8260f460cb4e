"""The power goes at any moment of an outbox's life: what was synced is there, and no file is unreadable."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from outbox_life import packed
from power_loss import Call, Crash, Disk, recorded, require_strace

from ether.recording.outbox_file import adopt

POINTS = 300 if os.environ.get("ETHER_LONG") == "1" else 60
LIFE = Path(__file__).parents[1] / "parts" / "outbox_life.py"


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Call], Path]:
    """What really happens to the files, and the folder that it happened in."""
    require_strace()
    root = tmp_path_factory.mktemp("life")
    trace = tmp_path_factory.mktemp("trace") / "strace.txt"
    calls = recorded([sys.executable, str(LIFE), str(root / "outbox" / "bench")], trace)
    trace.unlink()
    return calls, root


def told(crash: Crash) -> tuple[dict[str, int], dict[str, int]]:
    """By outbox: up to where it was synced, and up to where it may have been dropped."""
    synced: dict[str, int] = {}
    dropped: dict[str, int] = {}
    for line in crash.said:
        what, outbox, number = line.split()
        (synced if what == "SYNCED" else dropped)[outbox] = int(number)
    return synced, dropped


def test_what_was_synced_is_there_when_the_power_goes(life: tuple[list[Call], Path], tmp_path: Path) -> None:
    calls, root = life
    promises = 0
    for crash, left in Disk(root).crashes(calls, POINTS, seed=4, into=tmp_path):
        synced, dropped = told(crash)
        folder = left / "outbox" / "bench"
        found = {file.outbox: file for file in adopt(folder)}  # it would raise for one that is unreadable
        for outbox, upto in synced.items():
            first = dropped.get(outbox, 0) + 1
            if first > upto:
                continue
            promises += 1
            assert outbox in found, f"crash at {crash.point}: {outbox} is gone, {upto} were synced"
            rows = found[outbox].read(first, 1 << 60, 1 << 20, 1 << 40)
            assert [number for number, _ in rows] == list(range(first, first + len(rows)))
            assert rows[-1][0] >= upto
            assert all(content == packed(number) for number, content in rows)
        for file in found.values():
            file.close()
    assert promises > POINTS // 2
