"""An outbox's life for the simulator of power losses: entries are appended, some of them synced, some dropped; its
process is killed, another one takes over what was left.

    python outbox_life.py FOLDER

It says on standard output: `SYNCED outbox number` after a sync, `DROPPED outbox number` before entries are dropped.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from ether.recording.outbox_file import OutboxFile, adopt

LIVES = 3


def packed(number: int) -> bytes:
    """What entry `number` carries."""
    return random.Random(number).randbytes(random.Random(-number).randrange(20, 4000))


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def live(folder: Path, part: int) -> None:
    chance = random.Random(part)
    file = OutboxFile.create(folder, f"camera{part}")
    for left in adopt(folder):
        say(f"DROPPED {left.outbox} {left.last}")
        left.drop(left.last)
        left.close()
    number = 0
    for _ in range(25):
        count = chance.randint(1, 12)
        file.append([(n, packed(n)) for n in range(number + 1, number + 1 + count)])
        number += count
        if chance.random() < 0.5:
            file.sync()
            say(f"SYNCED {file.outbox} {number}")
        if chance.random() < 0.2:
            say(f"DROPPED {file.outbox} {number - 5}")
            file.drop(number - 5)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        live(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        for part in range(LIVES):
            subprocess.run([sys.executable, __file__, sys.argv[1], str(part)], check=False)
