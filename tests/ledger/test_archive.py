"""Closed volumes are compressed, and say what they said before."""

from __future__ import annotations

import gzip
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ledger_parts import NOW, OUTBOX, batch, content, entry, message_id, stored, under_load

from ether.errors import LedgerDamaged
from ether.ledger.life.archive import Archived, archive
from ether.ledger.life.backup import back_up, restore
from ether.ledger.life.delete import Maintenance
from ether.ledger.life.retention_rules import Choice
from ether.ledger.reader import LedgerReader
from ether.ledger.verify import verify
from ether.ledger.volumes import closed_volumes
from ether.ledger.writer import LedgerWriter
from ether.provenance.lineage import find, why
from ether.reading.data import Data, Query
from ether.reading.export.exports import export

LONG = os.environ.get("ETHER_LONG") == "1"
KILLS = 50 if LONG else 3
LARGE = b"frame" * 20_000


def fill(writer: LedgerWriter, volumes: int = 3) -> None:
    for volume in range(volumes):
        first = volume * 30 + 1
        context = content(first, b'{"class":"Camera","first":%d}' % first)
        rows = [
            entry(n, parents=(message_id(n - 1),), context=context.id, payload=b'{"n":%d}' % n)
            for n in range(first + 1, first + 28)
        ]
        noise = random.Random(first).randbytes(70_000)
        writer.append([batch(context, *rows, entry(first + 28, payload=LARGE), entry(first + 29, payload=noise))], NOW)
        assert writer.rotate(NOW + volume) is None
    writer.append([batch(entry(volumes * 30 + 1, parents=(message_id(volumes * 30),)))], NOW)


def compress(folder: Path, upto: float | None = None) -> list[Archived]:
    with Maintenance(folder) as maintenance:
        return list(archive(maintenance, upto))


def facts(folder: Path) -> list[tuple[object, ...]]:
    mine = (each for each in stored(folder) if each.outbox == OUTBOX)
    return [(each.row, each.id, each.payload, each.parents, each.link) for each in mine]


def test_it_says_what_it_said_before(folder: Path, writer: LedgerWriter, tmp_path: Path) -> None:
    fill(writer)
    before = facts(folder)
    databases = [(closed.folder / "ledger.db").read_bytes() for closed in closed_volumes(folder)]
    done = compress(folder)
    assert [each.volume for each in done] == [1, 2, 3]
    assert all(each.after < each.before / 2 for each in done)
    assert compress(folder) == []
    archives = [closed.folder / "ledger.db.gz" for closed in closed_volumes(folder)]
    assert [gzip.decompress(path.read_bytes()) for path in archives] == databases
    assert not list(folder.glob("volumes/*/ledger.db"))
    endings = sorted(path.suffix for path in archives[0].parent.glob("objects/*/*"))
    assert endings == ["", ".gz"], "noise does not become smaller, and stays"
    assert facts(folder) == before
    with LedgerReader.open(folder) as reader:
        tree = why(reader, find(reader, message_id(91)))
        assert [step.id for step in tree.steps] == [message_id(91), message_id(90)]
        assert reader.context(content(1, b'{"class":"Camera","first":1}').id) is not None
    assert export(Data(folder, Query()), tmp_path / "table.csv").records == 88
    writer.append([batch(entry(92))], NOW)
    writer.close()
    report = verify(folder)
    assert (report.ok, report.sealed, report.findings, report.records) == (True, True, (), 92)
    for closed in closed_volumes(folder):
        assert verify(closed.folder).ok
        assert len(stored(closed.folder)) == 30


def test_only_what_was_closed_before(folder: Path, writer: LedgerWriter) -> None:
    fill(writer)
    writer.append([batch(entry(92))], NOW + 500)
    assert writer.rotate(NOW + 500) is None
    assert [each.volume for each in compress(folder, NOW + 1)] == [1, 2, 3]


@pytest.mark.parametrize("name", ["ledger.db.gz", "head", "volume", "objects"])
def test_each_flipped_bit_of_an_archive_is_found(folder: Path, writer: LedgerWriter, name: str) -> None:
    fill(writer)
    compress(folder)
    place = closed_volumes(folder)[1].folder
    path = next(place.glob("objects/*/*.gz")) if name == "objects" else place / name
    whole = path.read_bytes()
    chance = random.Random(7)
    for at in [0, len(whole) - 1, *(chance.randrange(len(whole)) for _ in range(6))]:
        broken = bytearray(whole)
        broken[at] ^= 1 << chance.randrange(8)
        path.write_bytes(broken)
        report = verify(folder)
        assert not report.ok, at
        harm = [finding.where for finding in report.findings if finding.harm]
        assert any(where.startswith(path.relative_to(folder).as_posix()) for where in harm), harm
    path.write_bytes(whole)
    assert verify(folder).ok


def test_what_cannot_be_unpacked_says_so(folder: Path, writer: LedgerWriter) -> None:
    fill(writer)
    compress(folder)
    path = closed_volumes(folder)[1].folder / "ledger.db.gz"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(LedgerDamaged, match="cannot be unpacked"):
        stored(folder)


def test_an_archive_is_backed_up_restored_and_deleted_from(folder: Path, writer: LedgerWriter, tmp_path: Path) -> None:
    fill(writer)
    compress(folder)
    backup, again = tmp_path / "backup", tmp_path / "again"
    back_up(folder, backup, NOW)
    restore(backup, again)
    assert facts(again) == facts(folder)
    with Maintenance(folder) as maintenance:
        said = {"at": NOW, "by": "ada", "host": "bench-pc", "what": "old"}
        assert len(list(maintenance.delete(Choice(before=NOW + 45), said))) == 2
    left = [record.number for record in stored(folder) if record.kind == "data"]
    assert left == [n for n in range(45, 92) if n != 61]
    assert [(closed.folder / "ledger.db.gz").exists() for closed in closed_volumes(folder)] == [True] * 3
    report = verify(folder)
    assert report.ok, str(report)
    assert verify(backup).ok


ARCHIVES = """
import sys
from pathlib import Path
from ether.ledger.life.archive import archive
from ether.ledger.life.delete import Maintenance
print("begun", flush=True)
with Maintenance(Path(sys.argv[1])) as maintenance:
    print(len(list(archive(maintenance))))
"""


@pytest.mark.timeout(900 if LONG else 120)
def test_killed_at_any_moment_under_load_it_is_compressed_or_not(folder: Path, writer: LedgerWriter) -> None:
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(10**6)))
    print(f"CHAOS_SEED={seed}")
    chance, kills = random.Random(seed), 0
    fill(writer, volumes=6)
    before = facts(folder)
    with under_load(writer):
        for _ in range(20 * KILLS):
            kills += kills < KILLS and killed_archive(folder, chance.uniform(0.0, 0.08))
            report = verify(folder)
            assert report.ok, str(report)
            assert facts(folder) == before
            if kills == KILLS:
                break
    assert kills == KILLS
    compress(folder)
    assert facts(folder) == before
    assert not list((folder / "volumes").glob("*.part"))
    assert not list(folder.glob("volumes/*/ledger.db"))


def killed_archive(folder: Path, after_s: float) -> bool:
    """Compress what is closed, and kill that with -9 so long after it has begun; whether it was killed before its
    end."""
    with subprocess.Popen([sys.executable, "-c", ARCHIVES, str(folder)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL
