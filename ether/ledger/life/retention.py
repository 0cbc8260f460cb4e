"""Retention: what is in closed volumes is deleted when its time is over (`record: {keep: …}`).

A volume is as old as its newest row, so what is kept for 30 days and is in volumes of a day may stay for 31. Whole
volumes become small in this way, and do not go: what they say of runs, gaps, contexts and deletions stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ether.config.volumes import Retention
from ether.ledger.life.backup import backups_of
from ether.ledger.life.delete import Deleted, Maintenance, rewritten
from ether.ledger.life.retention_rules import choice_of, expired, in_words
from ether.ledger.volumes import read_facts


class Swept(NamedTuple):
    """What one look at all closed volumes has done."""

    deleted: tuple[Deleted, ...]
    without_backup: tuple[int, ...]
    """Volumes whose time is over, and that no backup has."""


class Sweeper:
    """Applies one retention to one ledger, again and again. Remembers which volumes have nothing more to delete."""

    def __init__(self, folder: Path, retention: Retention) -> None:
        self._folder, self._retention = folder, retention
        self._done: dict[int, frozenset[str]] = {}
        """By volume, the filters that were applied."""

    def sweep(self, now: float, said: Mapping[str, Any], stop: Callable[[], bool] = lambda: False) -> Swept:
        """Delete what is too old at `now` (unix seconds), volume by volume until `stop` says so. `said`: who does so.
        Raises `LedgerLocked` where another one is at work on the volumes, `LedgerDamaged`, `LedgerFull`,
        `LedgerFailed`."""
        deleted, without_backup = [], []
        backed_up = max((int(each["last"]) for each in backups_of(self._folder)), default=0)
        with Maintenance(self._folder) as maintenance:
            for closed in maintenance.closed():
                facts = read_facts(closed.folder)
                over = frozenset() if facts is None else expired(self._retention, facts.received[1], now)
                if facts is None or not over or self._done.get(closed.number) == over or stop():
                    continue
                if self._retention.until_backed_up and facts.last > backed_up:
                    without_backup.append(closed.number)
                    continue
                choice = choice_of(self._retention, over)
                done = rewritten(closed, choice, {"at": now, **said, "what": in_words(choice, self._retention.keep_s)})
                self._done[closed.number] = over
                if done is not None:
                    deleted.append(done)
        return Swept(tuple(deleted), tuple(without_backup))
