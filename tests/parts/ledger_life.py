"""A ledger's life for the simulator of power losses: it is written, its volumes closed, its writer killed, opened,
closed, opened again.

    python ledger_life.py FOLDER                 the whole life, each part a process of its own
    python ledger_life.py FOLDER PART            one part

With LEDGER_LIFE_SYNC=NORMAL it breaks its promise, so that the simulator can show that it would find that.

What it says on standard output: `TRY rows` before a save that makes the ledger that long, `ACK {outbox: highest}` after
it, `ERR …` where it failed and is tried again. An entry's payload follows from its number: `payload_of`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from ledger_parts import NOW, OTHER, OUTBOX, batch, content, entry

from ether.errors import LedgerError
from ether.ledger import sqlite as ledger_sqlite
from ether.ledger.writer import LedgerWriter

PARTS = 4
ROTATED = 0.2
"""The chance of a rotation after a save."""


def payload_of(number: int) -> bytes:
    """What entry `number` carries: every thirteenth is a file of its own."""
    size = 66_000 if number % 13 == 0 else random.Random(number).randrange(10, 3000)
    return random.Random(-number).randbytes(size)


def say(text: str) -> None:
    """At once, in one write."""
    os.write(1, f"{text}\n".encode())


def save(writer: LedgerWriter, first: int, count: int) -> None:
    """Two outboxes get entries; the second brings a context with each."""
    explained = content(first, b'{"first":%d}' % first)
    rows = [entry(n, payload=payload_of(n), parents=(f"p{n}",)) for n in range(first, first + count)]
    say(f"TRY {writer.records + count + (writer.highest(OTHER) < first)}")
    other = batch(explained._replace(number=writer.highest(OTHER) + 1), outbox=OTHER, source="pump")
    for _ in range(5):
        try:
            say(f"ACK {json.dumps(writer.append([batch(*rows), other], NOW))}")
            return
        except LedgerError as error:
            say(f"ERR {error}")


def live(folder: Path, part: int) -> None:
    """One writer's life, of about ten saves; every second is killed. Every other two write as for a card."""
    chance = random.Random(part)
    writer = LedgerWriter.open(folder, "bench", lean=part % 4 > 1)
    say(f"ACK {json.dumps({outbox: writer.highest(outbox) for outbox in (OUTBOX, OTHER)})}")
    for _ in range(9):
        save(writer, writer.highest(OUTBOX) + 1, chance.randint(1, 8))
        if chance.random() < ROTATED:
            try:
                writer.rotate(NOW)
            except LedgerError as error:
                say(f"ERR {error}")
    if part % 2 == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    writer.close()


def often_copied(connection: sqlite3.Connection, *, lean: bool) -> None:
    """The log is copied into the database every few saves instead of every thousand pages."""
    make_durable(connection, lean=lean)
    connection.execute("PRAGMA wal_autocheckpoint = 40")
    connection.execute(f"PRAGMA synchronous = {os.environ.get('LEDGER_LIFE_SYNC', 'FULL')}")


make_durable = ledger_sqlite._make_durable

if __name__ == "__main__":
    ledger_sqlite._make_durable = often_copied
    if len(sys.argv) > 2:
        live(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        for part in range(PARTS):
            subprocess.run([sys.executable, __file__, sys.argv[1], str(part)], check=False)
