"""A ledger is copied while it is written to, and put back."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ledger_parts import NOW, OTHER, OUTBOX, batch, content, entry, message_id, run_of, stored
from patience import patience

from ether.errors import LedgerDamaged, LedgerFailed, LedgerLocked
from ether.ledger.life import backup as backup_module
from ether.ledger.life.backup import BackupReport, back_up, backups_of, restore
from ether.ledger.reader import LedgerReader
from ether.ledger.verify import verify
from ether.ledger.volumes import closed_volumes
from ether.ledger.writer import LedgerWriter

LONG = os.environ.get("ETHER_LONG") == "1"
KILLS = 50 if LONG else 3
LARGE = b"frame" * 20_000


def save(writer: LedgerWriter, first: int, last: int) -> None:
    """Entries of every kind that is kept in its own way."""
    context = content(first, b'{"first":%d}' % first)
    rows = [entry(n, parents=(message_id(n - 1), "root")) for n in range(first + 1, last)]
    writer.append([batch(context, *rows, entry(last, payload=LARGE + b"%d" % last))], NOW)
    writer.append([batch(entry(writer.highest(OTHER) + 1), outbox=OTHER, source="pump")], NOW)


def facts(folder: Path) -> list[tuple[object, ...]]:
    return [(each.row, each.id, each.payload, each.parents, each.link, each.outbox) for each in stored(folder)]


def is_whole(backup: Path, done: BackupReport) -> bool:
    report = verify(backup)
    return (report.ok, report.sealed, report.findings, report.records) == (True, True, (), done.last)


def test_a_backup_is_a_sealed_ledger_with_everything(folder: Path, writer: LedgerWriter, tmp_path: Path) -> None:
    save(writer, 1, 5)
    assert writer.rotate(NOW) is None
    save(writer, 6, 9)
    done = back_up(folder, tmp_path / "backup", NOW)
    assert is_whole(tmp_path / "backup", done), str(verify(tmp_path / "backup"))
    assert facts(tmp_path / "backup") == facts(folder)
    assert (done.volumes, done.rows, done.last, done.link) == (1, 5, 11, stored(folder)[-1].link)
    assert backups_of(folder) == [{"backup": str(tmp_path / "backup"), "at": NOW, "last": 11, "link": done.link}]
    writer.close()
    assert verify(folder).ok
    again = LedgerWriter.open(tmp_path / "backup", "bench")  # it can take the ledger's place
    assert (again.highest(OUTBOX), again.highest(OTHER)) == (9, 2)
    save(again, 10, 12)
    again.close()
    assert verify(tmp_path / "backup").ok


def test_a_second_backup_copies_what_is_new(folder: Path, writer: LedgerWriter, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    save(writer, 1, 5)
    assert back_up(folder, backup, NOW).rows == 6
    assert back_up(folder, backup, NOW)[2:5] == (0, 0, 0)
    save(writer, 6, 8)
    assert back_up(folder, backup, NOW).rows == 4
    for first in (9, 12, 15):
        assert writer.rotate(NOW) is None
        save(writer, first, first + 2)
    kept = {path: path.stat().st_mtime_ns for path in backup.rglob("volumes/*/*")}
    done = back_up(folder, backup, NOW)
    assert (done.volumes, done.rows, done.last) == (3, 4, 22)
    assert is_whole(backup, done), str(verify(backup))
    assert facts(backup) == facts(folder)
    save(writer, 18, 20)
    assert back_up(folder, backup, NOW)[2:4] == (0, 4)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert not list(backup.glob("objects/*/*.part"))
    assert len(list(backup.glob("objects/*/*"))) == 2


def test_what_is_no_backup_of_it_is_refused(folder: Path, writer: LedgerWriter, tmp_path: Path) -> None:
    save(writer, 1, 5)
    older = back_up(folder, tmp_path / "older", NOW)
    save(writer, 6, 9)
    other = LedgerWriter.open(tmp_path / "other", "bench")
    save(other, 1, 4)
    other.close()
    (tmp_path / "something").mkdir()
    (tmp_path / "something" / "thesis.tex").write_text("precious")
    refused = {
        folder / "inside": "a backup belongs elsewhere",
        tmp_path / "something": "something else is in it",
        tmp_path / "other": "of another ledger",
    }
    for place, why in refused.items():
        with pytest.raises(LedgerFailed, match=why):
            back_up(folder, place, NOW)
    assert (tmp_path / "something" / "thesis.tex").read_text() == "precious"
    assert is_whole(tmp_path / "older", older)
    back_up(folder, tmp_path / "newer", NOW)
    with pytest.raises(LedgerFailed, match=r"it has rows 7 to 11, which .* does not have"):
        back_up(tmp_path / "older", tmp_path / "newer", NOW)


def test_a_damage_is_not_carried_into_the_backup(folder: Path, writer: LedgerWriter, tmp_path: Path) -> None:
    save(writer, 1, 5)
    assert writer.rotate(NOW) is None
    save(writer, 6, 9)
    backup = tmp_path / "backup"
    done = back_up(folder, backup, NOW)
    for first in (10, 13):
        assert writer.rotate(NOW) is None
        save(writer, first, first + 2)
    path = folder / "volumes" / "000002" / "ledger.db"
    before = path.read_bytes()
    path.write_bytes(before.replace(b'{"frame":8}', b'{"frame":9}'))
    with pytest.raises(LedgerDamaged, match="it is not as it was sealed"):
        back_up(folder, backup, NOW)
    assert verify(backup).records == done.last
    path.write_bytes(before)
    assert is_whole(backup, back_up(folder, backup, NOW))


def test_restored_it_goes_on(folder: Path, writer: LedgerWriter, tmp_path: Path) -> None:
    save(writer, 1, 5)
    assert writer.rotate(NOW) is None
    save(writer, 6, 9)
    backup = tmp_path / "backup"
    done = back_up(folder, backup, NOW)
    save(writer, 10, 12)
    with pytest.raises(LedgerFailed, match="nothing is overwritten"):
        restore(backup, folder)
    with pytest.raises(LedgerLocked, match="a recorder that runs"):
        restore(backup, folder, aside=tmp_path / "aside")
    writer.close()
    seal = (backup / "seal").read_bytes()
    back = restore(backup, folder, aside=tmp_path / "aside")
    assert (back.backup, back.last) == (folder, done.last)
    assert is_whole(folder, done)
    assert (len(stored(tmp_path / "aside")), (backup / "seal").read_bytes()) == (15, seal)
    again = LedgerWriter.open(folder, "bench")
    assert again.highest(OUTBOX) == 9  # from here on the sources send again
    again.append([run_of(8, 11)], NOW)
    again.close()
    assert verify(folder).ok
    assert not folder.with_name("session.part").exists()


BACKUPS = """
import sys
from pathlib import Path
from ether.ledger.life.backup import back_up, restore
print("begun", flush=True)
(back_up if sys.argv[1] == "backup" else restore)(Path(sys.argv[2]), Path(sys.argv[3]), *map(float, sys.argv[4:]))
"""


def killed(command: list[str], after_s: float) -> bool:
    """Run a command and kill it with -9 so long after it has begun; whether it was killed before its end."""
    with subprocess.Popen([sys.executable, "-c", BACKUPS, *command], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        try:
            assert process.wait(after_s) == 0
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            return process.wait() == -signal.SIGKILL
        return False


@pytest.mark.timeout(900 if LONG else 120)
def test_killed_at_any_moment_under_load_it_goes_on(folder: Path, writer: LedgerWriter, tmp_path: Path) -> None:
    """Backups of a ledger that is written to and rotated all the time, each killed; then a restore that is killed."""
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(10**6)))
    print(f"CHAOS_SEED={seed}")
    chance, enough = random.Random(seed), threading.Event()
    save(writer, 1, 5)

    def load() -> None:
        while not enough.is_set():
            first = writer.highest(OUTBOX) + 1
            save(writer, first, first + chance.randint(2, 60))
            if chance.random() < 0.2:
                writer.rotate(NOW)

    thread = threading.Thread(target=load)
    thread.start()
    backup, kills = tmp_path / "backup", 0
    try:
        while kills < KILLS:
            kills += killed(["backup", str(folder), str(backup), str(NOW)], chance.uniform(0.0, 0.15))
            if (backup / "ledger.db").exists():
                report = verify(backup)
                assert report.ok, str(report)
    finally:
        enough.set()
        thread.join(patience(20))
    done = back_up(folder, backup, NOW)
    assert is_whole(backup, done), str(verify(backup))
    assert facts(backup) == facts(folder)
    target = tmp_path / "restored"
    for _ in range(KILLS):
        if not killed(["restore", str(backup), str(target)], chance.uniform(0.0, 0.1)):
            break
        assert not target.exists()
    else:
        restore(backup, target)
    assert is_whole(target, done)
    assert facts(target) == facts(folder)
    print(f"{kills} kills, {done.last} rows, {len(closed_volumes(folder))} closed volumes")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_ledger_on_a_read_only_disk_has_backups_that_it_does_not_know_of(
    folder: Path, writer: LedgerWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    save(writer, 1, 5)

    def refused(path: Path, line: str) -> None:
        assert path.parent == folder
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(backup_module, "append_line", refused)
    assert is_whole(tmp_path / "backup", back_up(folder, tmp_path / "backup", NOW))
    assert backups_of(folder) == []


@pytest.mark.parametrize("name", ["pages.0123abcd.part", "ledger.db.0123abcd.part", "seal.0123abcd.part"])
def test_the_next_backup_removes_what_a_killed_one_was_writing(
    folder: Path, writer: LedgerWriter, tmp_path: Path, name: str
) -> None:
    save(writer, 1, 5)
    backup = tmp_path / "backup"
    back_up(folder, backup, NOW)
    (backup / name).write_bytes(b"half of it")
    assert is_whole(backup, back_up(folder, backup, NOW)), str(verify(backup))


def test_two_backups_that_end_at_once_lose_no_line(folder: Path, writer: LedgerWriter, tmp_path: Path) -> None:
    """Each adds its line; of one backup the last line counts; a line that was torn by a death hurts no other."""
    save(writer, 1, 5)
    first = back_up(folder, tmp_path / "one", NOW)
    with (folder / "backups").open("a") as file:
        file.write('{"backup": "/torn", "la')
    back_up(folder, tmp_path / "two", NOW + 1)
    back_up(folder, tmp_path / "one", NOW + 2)
    told = [(each["backup"], each["at"]) for each in backups_of(folder)]
    assert told == [(str(tmp_path / "two"), NOW + 1), (str(tmp_path / "one"), NOW + 2)]
    assert {each["link"] for each in backups_of(folder)} == {first.link}


def test_a_ledger_whose_volumes_cannot_be_listed_is_closed_again(
    folder: Path, writer: LedgerWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leak check of the tests looks for the database."""
    save(writer, 1, 5)

    def fail(*_: object) -> None:
        raise PermissionError(13, "no entry", str(folder))

    monkeypatch.setattr("ether.ledger.reader.closed_volumes", fail)
    with pytest.raises((LedgerFailed, OSError), match="no entry"):
        LedgerReader.open(folder)
