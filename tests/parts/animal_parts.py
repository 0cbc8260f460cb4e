"""Ledgers of several animals and days: a session for each, with runs that say whose they are."""

from __future__ import annotations

import os
from pathlib import Path

from ledgers import BEGAN, Source, make_ledger

from ether.ledger.places import default_folder, leave_pointer

DAY = 86_400.0


def made(folder: Path, session: str, *runs: tuple[str, dict[str, object], float]) -> Path:
    """A ledger of runs, each of which has recorded two values."""
    main = Source("main")
    for run, metadata, began in runs:
        main.add(run, {"event": "begin", "name": run.partition("/")[0], "metadata": metadata}, began, kind="run")
        for n in (1, 2):
            main.add("lick", {"n": n, "run": {"animal": "a key of the value"}}, began + n, more={"run": run})
        main.add(run, {"event": "end", "status": "ended"}, began + 10, kind="run")
    main.add("lick", {"n": 0}, BEGAN - 1)  # of no run
    return make_ledger(folder, [main], session=session)


def make_animals(elsewhere: Path) -> None:
    """Animal 7 on two days, the second one in a folder elsewhere; animal 8 on the first; a session of no animal."""
    made(
        default_folder("animal7-mon", os.environ), "animal7-mon",
        ("task/1", {"animal": 7, "strain": "C57"}, BEGAN), ("task/2", {"animal": 8, "strain": "C57"}, BEGAN + 100),
    )  # fmt: skip
    made(elsewhere, "animal7-tue", ("task/1", {"animal": 7, "rig": {"box": 2}}, BEGAN + DAY))
    leave_pointer("animal7-tue", elsewhere, os.environ)
    made(default_folder("other", os.environ), "other", ("task/1", {}, BEGAN + 2 * DAY))
