"""What is old enough to be removed, though ages of files follow from a clock that may be set.

The file system dates files by the clock of the day. On a machine that wrote at last year's time, or whose clock is
wrong right now, a file of this morning seems to be months old, and nothing else tells how old a file is. So what looks
old is only noted at first, and removed where it still looks old `CONFIRMED_DAYS` later: by then a clock that was wrong
has been set, and whoever uses the files has written to them.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ether.system.private_files import read_private, write_private

CONFIRMED_DAYS = 7.0


def still_old(note: Path, look_old: Collection[str], now: float) -> set[str]:
    """Of the names that look old, those that did so `CONFIRMED_DAYS` ago. `note` is the file that remembers them, `now`
    is in unix seconds. Raises `OSError`."""
    try:
        noted = read_private(str(note))
    except (FileNotFoundError, ValueError):
        noted = {}
    since = noted if isinstance(noted, dict) else {}
    kept = {name: _since(since.get(name), now) for name in look_old}
    if kept != since:
        write_private(str(note), kept)
    return {name for name, began in kept.items() if now - began >= CONFIRMED_DAYS * 86_400}


def _since(noted: object, now: float) -> float:
    """When a name was noted; now where it was not, or where the clock was set back since."""
    return float(noted) if isinstance(noted, (int, float)) and noted <= now else now
