"""The power goes at any moment of an outbox's life: what was promised by `sync()` is there for whoever comes next."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from outbox_life import packed
from power_loss import Crash, Disk, recorded, require_strace

from ether.store.outbox import adopt

POINTS = 500 if os.environ.get("ETHER_LONG") == "1" else 60
HERE = Path(__file__).parent


def told(crash: Crash, word: str) -> int:
    """The last number that was said with that word."""
    return max((int(line.split()[1]) for line in crash.said if line.startswith(word)), default=0)


def entries_left(folder: Path) -> list[tuple[int, bytes]]:
    """What the next process finds; it reads all of it, and leaves it there."""
    left = []
    for outbox in adopt(folder):
        assert outbox.first is not None
        left += outbox.read(outbox.first, outbox.last, 10_000, 1 << 30)
        outbox.close()
    return left


def test_nothing_promised_is_lost_when_the_power_goes(tmp_path: Path) -> None:
    require_strace()
    root = tmp_path / "root"
    root.mkdir()
    command = [sys.executable, str(HERE / "outbox_life.py"), str(root / "outboxes")]
    calls = recorded(command, tmp_path / "strace.txt")
    promised = 0
    for crash, left in Disk(root).crashes(calls, POINTS, seed=30, into=tmp_path):
        synced, dropped = told(crash, "SYNC"), told(crash, "DROP")
        folder = left / "outboxes"
        found = entries_left(folder) if folder.exists() else []
        numbers = [number for number, _ in found]
        assert numbers == list(range(numbers[0], numbers[-1] + 1)) if numbers else True
        assert all(content == packed(number) for number, content in found)
        if synced > dropped:
            promised += 1
            assert numbers, f"up to {synced} was promised, {dropped} acknowledged; nothing is there"
            assert numbers[0] <= dropped + 1
            assert numbers[-1] >= synced
    assert promised > POINTS // 2
