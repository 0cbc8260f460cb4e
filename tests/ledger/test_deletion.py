"""Rows are deleted from closed volumes: what is gone is named, and everything else is as it was."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from ledger_parts import NOW, OTHER, OUTBOX, batch, content, entry, gap, message_id, stored, under_load

from ether.config.volumes import parse_keep
from ether.errors import LedgerDamaged, LedgerLocked, NotRecorded
from ether.ledger.life import delete as ledger_delete
from ether.ledger.life.backup import back_up
from ether.ledger.life.closing import close_current
from ether.ledger.life.delete import Deleted, Maintenance
from ether.ledger.life.retention import Sweeper
from ether.ledger.life.retention_rules import Choice, OriginRow, choice_of, expired
from ether.ledger.reader import LedgerReader
from ether.ledger.verify import verify
from ether.ledger.volumes import closed_volumes, size_of
from ether.ledger.writer import LedgerWriter
from ether.provenance.lineage import find, why
from ether.recording.completeness_rules import prove

LONG = os.environ.get("ETHER_LONG") == "1"
KILLS = 50 if LONG else 3
DAYS = 30 if LONG else 10
LARGE = b"frame" * 20_000
DAY = 86_400.0
SAID = {"at": NOW, "by": "ada", "host": "bench-pc", "what": "run dose/2", "why": "a wrong dose"}


def add_runs(writer: LedgerWriter) -> None:
    """Three volumes: in each of them ten values of the runs dose/1, dose/2 in turns, their context, a list of inputs, a
    large payload for each run, a gap, and a value of another outbox."""
    for volume in range(3):
        first = volume * 20 + 1
        context, inputs = content(first, b'{"first":%d}' % first), content(first + 1, b"a\nb", "artifact")
        rows = [context, inputs._replace(topic="inputs")]
        for n in range(first + 2, first + 16):
            more: dict[str, object] = {"run": f"dose/{n // 2 % 2 + 1}"}
            if n == first + 4:
                more["made_of"] = {"n": 2, "list": inputs.id}
            payload = LARGE + b"%d" % n if n - first in (10, 12) else None
            rows.append(entry(n, parents=(message_id(n - 2),), more=more, context=context.id, payload=payload))
        rows.append(entry(first + 16, "run", "dose/2/begin", more={"run": "dose/2"}))
        rows.append(entry(first + 17, "call", "camera.snap", more={"run": "dose/2"}))
        rows.append(gap(first + 18, first + 18, first + 19, "too old", {"camera/frame": [1, 2, 2]}))
        writer.append([batch(*rows), batch(entry(volume + 1), outbox=OTHER, source="pump")], NOW)
        assert writer.rotate(NOW + volume) is None


def gone_in(reader: LedgerReader) -> set[int]:
    spans = [span for each in reader.deletions() for span in each.spans]
    return {row for span in spans for row in range(span.first, span.last + 1)}


def delete(folder: Path, choice: Choice) -> list[Deleted]:
    with Maintenance(folder) as maintenance:
        return list(maintenance.delete(choice, SAID))


def test_a_run_is_deleted_and_the_rest_is_as_it_was(folder: Path, writer: LedgerWriter) -> None:
    add_runs(writer)
    before = stored(folder)
    with LedgerReader.open(folder) as reader:
        proof = str(prove(reader.outboxes(), 0))
    done = delete(folder, Choice(runs=("dose/2",)))
    gone = [record for record in before if record.run == "dose/2"]
    assert sum(each.amount.records for each in done) == len(gone) == 27
    assert all(each.freed_bytes > 80_000 for each in done)
    lists = [record for record in before if record.topic == "inputs"]
    after = stored(folder)
    assert [record for record in before if record not in gone and record not in after] == []
    assert [(record.row, record.link, record.payload) for record in after] == [
        (record.row, record.link, record.payload) for record in before if record in after
    ]
    assert all((record in after) == (record.run != "dose/2") for record in before if record not in lists)
    report = verify(folder)
    assert report.ok, str(report)
    assert all(verify(closed.folder).sealed for closed in closed_volumes(folder))
    notes = [finding for finding in report.findings if not finding.harm]
    assert [finding.where for finding in notes] == [f"volumes/00000{n}-1/deletions" for n in (1, 2, 3)]
    assert "by ada on bench-pc: run dose/2: a wrong dose" in notes[0].what
    named = {row for finding in notes for first, last in finding.records for row in range(first, last + 1)}
    assert named == {record.row for record in before} - {record.row for record in after}
    assert [closed.folder.name for closed in closed_volumes(folder)] == ["000001-1", "000002-1", "000003-1"]
    with LedgerReader.open(folder) as reader:
        assert str(prove(reader.outboxes(), 0)) == proof
        assert [deletion.said["records"] for deletion in reader.deletions()] == [9, 9, 9]
        assert reader.by_row(gone[0].row) is None
        ids = {record.id for record in gone}
        kept = next(each for each in after if ids.issuperset(each.parents or "-") and "made_of" not in each.more)
        assert why(reader, find(reader, kept.id)).missing == list(kept.parents)
        with pytest.raises(NotRecorded, match=r"it was deleted 2023-11-1. .* by ada on bench-pc: run dose/2"):
            find(reader, f"row {gone[0].row}")
    writer.append([batch(entry(61))], NOW)
    assert len(stored(folder)) == len(after) + 1


def test_what_explains_other_rows_stays(folder: Path, writer: LedgerWriter) -> None:
    add_runs(writer)
    delete(folder, Choice(before=NOW + 10**6))
    assert {record.kind for record in stored(folder)} == {"context", "run", "gap"}
    assert verify(folder).ok
    assert delete(folder, Choice(before=NOW + 10**6)) == []


def test_a_second_deletion_leaves_the_first_tombstone(folder: Path, writer: LedgerWriter) -> None:
    add_runs(writer)
    delete(folder, Choice(runs=("dose/1",)))
    delete(folder, Choice(runs=("dose/2",), before=NOW + 12))
    delete(folder, Choice(topics=("camera/+",)))
    report = verify(folder)
    assert report.ok, str(report)
    with LedgerReader.open(folder) as reader:
        said = [len(volume.deletions()) for volume in reader.volumes]
        assert not gone_in(reader) & {record.row for record in reader.records()}
    assert said == [3, 2, 2, 0]
    assert [closed.generation for closed in closed_volumes(folder)] == [3, 2, 2]


def test_a_tombstone_that_is_exchanged_is_found(
    folder: Path, writer: LedgerWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One with another link, or of other rows, does not fit into the chain."""
    monkeypatch.setattr(ledger_delete, "_SMALL_BYTES", 0)  # not compressed
    add_runs(writer)
    delete(folder, Choice(runs=("dose/2",)))
    database = closed_volumes(folder)[0].folder / "ledger.db"
    (closed_volumes(folder)[0].folder / "seal").unlink()
    for change in ("link = randomblob(32)", "last = last - 1"):
        content_before = database.read_bytes()
        connection = sqlite3.connect(database)
        connection.execute(f"UPDATE deleted SET {change} WHERE first = (SELECT min(first) FROM deleted)")
        connection.commit()
        connection.close()
        assert not verify(folder).ok, change
        database.write_bytes(content_before)
    connection = sqlite3.connect(database)
    connection.execute("UPDATE deletions SET said = replace(said, 'ada', 'bob')")
    connection.commit()
    connection.close()
    assert "what it says of a deletion is not what was written" in str(verify(folder))


def test_a_damaged_volume_is_not_written_anew(folder: Path, writer: LedgerWriter) -> None:
    add_runs(writer)
    path = closed_volumes(folder)[1].folder / "ledger.db"
    content_before = path.read_bytes()
    path.write_bytes(content_before.replace(b'{"frame":24}', b'{"frame":25}'))
    with pytest.raises(LedgerDamaged, match="it is not as it was sealed"):
        delete(folder, Choice(runs=("dose/2",)))
    assert [closed.folder.name for closed in closed_volumes(folder)] == ["000001-1", "000002", "000003"]
    path.write_bytes(content_before)
    assert len(delete(folder, Choice(runs=("dose/2",)))) == 2


def test_one_at_a_time_and_beside_the_writer(folder: Path, writer: LedgerWriter) -> None:
    add_runs(writer)
    with Maintenance(folder), pytest.raises(LedgerLocked), Maintenance(folder):
        pass
    with LedgerReader.open(folder) as reader:
        records = reader.records()
        first = [next(records).row for _ in range(3)]
        delete(folder, Choice(runs=("dose/2",)))
        writer.append([batch(entry(61))], NOW)
        rows = [*first, *(record.row for record in records)]
        assert rows == sorted(set(rows))
        assert set(rows) >= {record.row for record in reader.records()} - {rows[-1] + 1}


def test_the_current_volume_is_closed_first(folder: Path, writer: LedgerWriter) -> None:
    add_runs(writer)
    writer.append([batch(entry(61, more={"run": "dose/3"}))], NOW)
    writer.close()
    assert delete(folder, Choice(runs=("dose/3",))) == []
    close_current(folder, NOW, 1.0)
    close_current(folder, NOW, 1.0)
    assert len(closed_volumes(folder)) == 4
    assert len(delete(folder, Choice(runs=("dose/3",)))) == 1
    assert verify(folder).ok


# -- retention


def test_what_is_too_old() -> None:
    keep = parse_keep({"camera/#": "3d", "camera/thumb": "30d", "#": "10d"})
    over = expired(keep, NOW, NOW + 4 * DAY)
    assert over == {"camera/#"}
    choice = choice_of(keep, over)

    def wants(kind: str, topic: str) -> bool:
        return choice.wants(OriginRow(1, kind, topic, ""))

    assert wants("data", "camera/frame")
    assert not wants("data", "camera/thumb")  # the longest time counts
    assert not wants("data", "room")
    assert not wants("log", "camera/frame")
    choice = choice_of(keep, expired(keep, NOW, NOW + 11 * DAY))
    assert wants("data", "room")
    assert wants("call", "camera.snap")
    assert not wants("run", "dose/1/begin")
    assert not wants("context", "")
    assert expired(keep, NOW, NOW - 300 * DAY) == set()
    some = parse_keep({"camera/#": "3d"})
    choice = choice_of(some, expired(some, NOW, NOW + 400 * DAY))
    assert wants("data", "camera/frame")
    assert not wants("data", "room")


def test_the_days_of_a_lab_stay_within_their_retention(folder: Path, writer: LedgerWriter, tmp_path: Path) -> None:
    """A camera of 1 MB a day that is kept for two days, and readings that are kept for five; backed up from the fifth
    day on."""
    keep = parse_keep({"camera/#": "2d", "#": "5d"}, until_backed_up=True)
    sweeper, sizes, n = Sweeper(folder, keep), [], 0
    for day in range(DAYS):
        now, rows = NOW + day * DAY, []
        for _ in range(10):
            rows.append(entry(n + 1, topic="camera/frame", payload=random.Random(n).randbytes(100_000)))
            rows += [entry(n + k, topic="room", payload=random.Random(k).randbytes(100)) for k in range(2, 12)]
            n += 11
        writer.append([batch(*rows)], now)
        assert writer.rotate(now) is None
        if day == 3:
            assert sweeper.sweep(now, {"by": "the recorder"}) == ((), (1,))
        if day >= 4:
            back_up(folder, tmp_path / "backup", now)
        sweeper.sweep(now, {"by": "the recorder"})
        sizes.append(size_of(folder))
    a_day, of_each_volume_for_ever = 10 * 100_000 + 100 * 600, 5_000
    assert max(sizes[4:]) < 4 * a_day + 6 * 120_000 + DAYS * of_each_volume_for_ever, sizes
    assert sizes[-1] - sizes[7] < (DAYS - 8) * of_each_volume_for_ever, sizes
    report = verify(folder)
    assert report.ok, str(report)
    topics = [record.topic for record in stored(folder)]
    assert (topics.count("camera/frame"), topics.count("room")) == (3 * 10, 6 * 100)
    assert len(stored(tmp_path / "backup")) == n
    assert verify(tmp_path / "backup").ok


DELETES = """
import sys
from pathlib import Path
from ether.ledger.life.delete import Maintenance
from ether.ledger.life.retention_rules import Choice
print("begun", flush=True)
with Maintenance(Path(sys.argv[1])) as maintenance:
    said = {"at": 1.0, "by": "ada", "host": "bench-pc", "what": "old"}
    print(len(list(maintenance.delete(Choice(before=float(sys.argv[2])), said))))
"""


@pytest.mark.timeout(900 if LONG else 120)
def test_killed_at_any_moment_under_load_it_is_deleted_or_there(folder: Path, writer: LedgerWriter) -> None:
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(10**6)))
    print(f"CHAOS_SEED={seed}")
    chance, kills, n = random.Random(seed), 0, 0
    volumes = max(6, KILLS)
    for volume in range(volumes):
        rows = [entry(n + k, payload=LARGE if k == 40 else None) for k in range(1, 41)]
        n += 40
        writer.append([batch(*rows, head=n)], NOW)
        assert writer.rotate(NOW + volume) is None
    expected = {record.row: record.link for record in stored(folder)}
    upto = 0.0
    with under_load(writer):
        while kills < KILLS:
            upto += chance.choice([0.0, 7.0, 31.0])
            kills += killed_deletion(folder, NOW + upto, chance.uniform(0.0, 0.08))
            report = verify(folder)
            assert report.ok, str(report)
            there = {record.row: record.link for record in stored(folder) if record.outbox == OUTBOX}
            assert there.items() <= expected.items()
            with LedgerReader.open(folder) as reader:
                assert gone_in(reader) == expected.keys() - there.keys()
    delete(folder, Choice(before=NOW + upto))
    left = {outbox: [each.number for each in stored(folder) if each.outbox == outbox] for outbox in (OUTBOX, OTHER)}
    assert left[OUTBOX] == [k for k in range(1, n + 1) if k >= upto]
    assert left[OTHER] == list(range(1, len(left[OTHER]) + 1))
    report = verify(folder)
    assert report.ok, str(report)
    assert not [finding for finding in report.findings if "not finished" in finding.what]
    assert not list((folder / "volumes").glob("*.part"))


def killed_deletion(folder: Path, before: float, after_s: float) -> bool:
    """Delete what is older, and kill that with -9 so long after it has begun; whether it was killed before its end."""
    command = [sys.executable, "-c", DELETES, str(folder), str(before)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL
