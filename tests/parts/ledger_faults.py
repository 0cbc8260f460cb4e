"""A writer on a disk that fails: saves until a save fails, then until one succeeds again, then a few more.

    python ledger_faults.py FOLDER

Prints a line of JSON for each save: what came of it, and how many seconds it took.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from ledger_life import payload_of
from ledger_parts import NOW, OUTBOX, batch, entry

from ether.errors import LedgerError
from ether.ledger.writer import LedgerWriter

SAVES = 40


def main(folder: Path) -> None:
    """At most 40 saves of three entries; the last of each group of 13 is a file of its own."""
    writer = LedgerWriter.open(folder, "bench")
    for _ in range(SAVES):
        first = writer.highest(OUTBOX) + 1
        rows = [entry(number, payload=payload_of(number)) for number in range(first, first + 3)]
        began, failed = time.monotonic(), ""
        try:
            writer.append([batch(*rows)], NOW)
        except LedgerError as error:
            failed = f"{type(error).__name__}: {error}"
        told = {"highest": writer.highest(OUTBOX), "failed": failed, "seconds": time.monotonic() - began}
        print(json.dumps(told), flush=True)
    writer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
