"""An outbox's life for the simulator of power losses: filled, synced, acknowledged in part, its process killed twice.

    python outbox_life.py FOLDER            the whole life, each part a process of its own
    python outbox_life.py FOLDER PART       one part

What it says on standard output: `SYNC last` when all up to that number is promised, `DROP number` before what is
acknowledged is forgotten.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from ether.store.outbox import OutboxFile, adopt

PARTS = 3


def packed(number: int) -> bytes:
    """What entry `number` holds."""
    return random.Random(number).randbytes(random.Random(-number).randrange(10, 4000))


def say(text: str) -> None:
    """At once, in one write."""
    os.write(1, f"{text}\n".encode())


def live(folder: Path, part: int) -> None:
    """Ten rounds; the outbox of the process before is taken over."""
    chance = random.Random(part)
    outbox = OutboxFile.create(folder, "camera") if part == 0 else next(iter(adopt(folder)))
    for _ in range(10):
        first = outbox.last + 1
        outbox.append([(number, packed(number)) for number in range(first, first + chance.randint(1, 9))])
        if chance.random() < 0.6:
            outbox.sync()
            say(f"SYNC {outbox.last}")
        if chance.random() < 0.4:
            upto = max(outbox.last - 8, 0)
            say(f"DROP {upto}")
            outbox.drop(upto)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        live(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        for part in range(PARTS):
            subprocess.run([sys.executable, __file__, sys.argv[1], str(part)], check=False)
