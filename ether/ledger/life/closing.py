"""The current volume of a ledger is closed, by whoever may: here where nobody records, else by the recorder, which is
asked by a file in the folder."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from ether.errors import LedgerFailed, LedgerLocked
from ether.ledger.reader import LedgerReader
from ether.ledger.sqlite import ledger_errors
from ether.ledger.volumes import ROTATE_NOW
from ether.ledger.writer import LedgerWriter

_LOOK_S = 0.05


def close_current(folder: Path, now: float, timeout_s: float) -> None:
    """Return when the rows that are in the ledger now are in closed volumes; `now` in unix seconds. Raises
    `LedgerFailed` where its recorder does not do that in time."""
    with LedgerReader.open(folder) as reader:
        current = reader.volumes[-1]
        number, is_empty = current.beginning.volume, current.count() < current.beginning.first
        if is_empty:
            return
    try:
        writer = LedgerWriter.open(folder, reader.session)
    except LedgerLocked:
        _ask_writer(folder, number, timeout_s)
        return
    try:
        why_not = writer.rotate(now)
    finally:
        writer.close()
    if why_not:
        raise LedgerFailed(folder, f"its current volume cannot be closed: {why_not}")


def _ask_writer(folder: Path, number: int, timeout_s: float) -> None:
    """The recorder looks for the file after each batch, and once a second. It is another process, which this one can
    only look at."""
    wanted, deadline, pause = folder / ROTATE_NOW, time.monotonic() + timeout_s, threading.Event()
    with ledger_errors(folder):
        wanted.touch()
    while _current_number(folder) == number:
        if time.monotonic() > deadline:
            wanted.unlink(missing_ok=True)
            why = f"its recorder has not closed the current volume within {timeout_s:g} s"
            raise LedgerFailed(folder, f"{why}; end what reads it for long, or stop the session")
        pause.wait(_LOOK_S)


def _current_number(folder: Path) -> int:
    with LedgerReader.open(folder) as reader:
        return reader.volumes[-1].beginning.volume
