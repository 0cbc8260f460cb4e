"""What was changed in a ledger is found, and where."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from ledger_parts import NOW, OTHER, OUTBOX, batch, content, entry, gap, message_id, run_of, stored
from patience import patience

from ether.errors import LedgerDamaged, LedgerError, LedgerFailed
from ether.ledger.reader import LedgerReader, RecordFilter
from ether.ledger.rows import COLUMNS, checksum_of
from ether.ledger.verify import verify
from ether.ledger.verify_records import VerifyReport
from ether.ledger.writer import LedgerWriter

LONG = os.environ.get("ETHER_LONG") == "1"
PAGE = 4096


def fill(writer: LedgerWriter) -> None:
    """Some of everything."""
    chance = random.Random(1)
    context, diff = content(1, b'{"class":"Camera"}'), content(2, chance.randbytes(70_000), "artifact")
    small = [entry(n, parents=(message_id(n - 1),), context=context.id) for n in range(3, 40)]
    large = [entry(n, payload=chance.randbytes(66_000)) for n in (40, 41)]
    middle = entry(42, payload=chance.randbytes(20_000))
    writer.append([batch(context, diff, *small)], NOW)
    writer.append([batch(*large, middle, gap(43, 43, 50, "too old", {"camera/frame": [43, 50, 8]}))], NOW)
    writer.append([batch(entry(1, "record", "flow", entry_id="p1"), outbox=OTHER, source="pump", head=3)], NOW)
    writer.append_loose([("stranger", entry(0, topic="mqtt:a", entry_id="s")), ("camera", entry(0, "log"))], NOW)


@pytest.fixture(scope="module")
def _filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ledger") / "session"
    writer = LedgerWriter.open(folder, "bench")
    fill(writer)
    writer.close()
    return folder


@pytest.fixture
def sealed(_filled: Path, tmp_path: Path) -> Path:
    """A closed ledger with some of everything in it."""
    return Path(shutil.copytree(_filled, tmp_path / "sealed"))


KILLED = """
import os, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from ether.ledger.writer import LedgerWriter
import test_verify
writer = LedgerWriter.open(Path(sys.argv[1]), "bench")
test_verify.fill(writer)
os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def _left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ledger") / "session"
    subprocess.run([sys.executable, "-c", KILLED, str(folder), *sys.path], check=False, timeout=patience(60))
    return folder


@pytest.fixture
def killed(_left: Path, tmp_path: Path) -> Path:
    """The ledger of a writer that was killed."""
    return Path(shutil.copytree(_left, tmp_path / "killed"))


def told(report: VerifyReport) -> list[str]:
    return [str(finding) for finding in report.findings]


def edit(folder: Path, *statements: str) -> None:
    """Change the database as somebody would who knows SQLite."""
    connection = sqlite3.connect(folder / "ledger.db")
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_a_closed_ledger_is_whole(sealed: Path) -> None:
    report = verify(sealed)
    assert (report.ok, report.sealed, report.findings, report.records) == (True, True, (), 46)
    assert str(report).endswith("whole, 46 records, sealed, unsigned")
    done = subprocess.run(
        ["sha256sum", "-c", "--quiet", "seal"], cwd=sealed, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_ledger_of_a_killed_writer_is_whole_and_is_read_without_repair(killed: Path) -> None:
    before = {path: path.read_bytes() for path in sorted(killed.rglob("*")) if path.is_file()}
    assert (killed / "ledger.db-wal").stat().st_size > 0
    report = verify(killed)
    assert (report.ok, report.sealed, report.findings, report.records) == (True, False, (), 46)
    assert len(stored(killed)) == 46
    after = {path: path.read_bytes() for path in sorted(killed.rglob("*")) if path.is_file()}
    scratch = killed / "ledger.db-shm"
    assert {p: c for p, c in after.items() if p != scratch} == {p: c for p, c in before.items() if p != scratch}


def test_a_ledger_that_is_being_written_is_whole(tmp_path: Path) -> None:
    writer = LedgerWriter.open(tmp_path / "session", "bench")
    fill(writer)
    assert verify(writer.folder).ok
    assert writer.append([run_of(51, 60)], NOW) == {OUTBOX: 60}
    writer.close()
    assert verify(writer.folder).findings == ()


def test_a_reader_that_stays_does_not_keep_the_next_writer_away(killed: Path) -> None:
    staying = sqlite3.connect(f"file:{killed / 'ledger.db'}?mode=ro", uri=True, isolation_level=None)
    staying.execute("BEGIN")
    assert staying.execute("SELECT count(*) FROM records").fetchone() == (46,)
    writer = LedgerWriter.open(killed, "bench")
    assert writer.append([run_of(51, 60)], NOW) == {OUTBOX: 60}
    writer.close()
    assert not verify(killed).sealed
    assert staying.execute("SELECT count(*) FROM records").fetchone() == (46,)
    staying.close()
    assert len(stored(killed)) == 56
    assert verify(killed).ok
    LedgerWriter.open(killed, "bench").close()
    assert verify(killed).sealed


def test_what_is_no_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerFailed, match="this is no ledger"):
        verify(tmp_path)


class TestEdits:
    """Somebody changes an unsealed ledger, by SQL. `killed` has no seal that would tell."""

    def test_a_changed_value(self, killed: Path) -> None:
        edit(killed, "UPDATE records SET payload = x'00' WHERE row = 7")
        assert told(verify(killed)) == [
            "damage: ledger.db, row 7: what the record says is not what was written (records 7)"
        ]

    @pytest.mark.parametrize("column", ["time", "more", "id", "number", "seq", "received", "parents", "size"])
    def test_a_changed_column(self, killed: Path, column: str) -> None:
        edit(killed, f"UPDATE records SET {column} = 5 WHERE row = 9")
        assert "row 9: what the record says is not what was written" in "".join(told(verify(killed)))

    def test_a_changed_value_with_its_checksum(self, killed: Path) -> None:
        connection = sqlite3.connect(killed / "ledger.db")
        asked = f"SELECT {', '.join(COLUMNS)} FROM entries WHERE row = 7"
        _, *said, body, _, _ = connection.execute(asked).fetchone()
        at = COLUMNS.index("time") - 1
        said[at] += 1.0
        with connection:
            new = checksum_of(said, body)
            connection.execute("UPDATE records SET time = ?, checksum = ? WHERE row = 7", (said[at], new))
        connection.close()
        assert told(verify(killed)) == [
            "damage: ledger.db, row 7: what the record says is not what was written (records 7)"
        ]

    @pytest.mark.parametrize("column", ["outbox", "kind", "topic", "source", "run", "context", "content_type"])
    def test_what_records_have_in_common(self, killed: Path, column: str) -> None:
        edit(killed, f"UPDATE origins SET {column} = 'other' WHERE kind = 'record'")
        (finding, *_) = verify(killed).findings
        assert (finding.where, finding.records) == ("ledger.db, row 44", ((44, 44),))

    def test_what_records_have_in_common_taken_out(self, killed: Path) -> None:
        edit(killed, "DELETE FROM origins WHERE kind = 'record'")
        assert verify(killed).findings[0].records == ((44, 44),)

    def test_a_row_taken_out(self, killed: Path) -> None:
        edit(killed, "DELETE FROM records WHERE row IN (11, 12)")
        findings = "\n".join(told(verify(killed)))
        assert "damage: ledger.db, rows 11 to 12: the record is missing (records 11 to 12)" in findings

    def test_the_end_cut_off(self, killed: Path) -> None:
        edit(killed, "DELETE FROM records WHERE row > 40")
        findings = "\n".join(told(verify(killed)))
        assert "damage: ledger.db, rows 41 to 46: the record is missing (records 41 to 46)" in findings

    def test_a_context(self, killed: Path) -> None:
        edit(killed, "UPDATE contents SET payload = x'00'")
        (finding,) = verify(killed).findings
        assert (finding.what, finding.records) == ("it is not what its hash says", ((1, 1),))

    def test_a_context_taken_out(self, killed: Path) -> None:
        edit(killed, "DELETE FROM contents")
        (finding,) = verify(killed).findings
        assert (finding.what, finding.records) == ("it is missing", ((1, 1),))

    def test_what_is_known_of_an_outbox(self, killed: Path) -> None:
        edit(killed, f"UPDATE outboxes SET head = 1 WHERE outbox = '{OTHER}'")
        assert told(verify(killed)) == [f"damage: ledger.db, outbox {OTHER}: its state is not what was written"]
        edit(killed, f"DELETE FROM outboxes WHERE outbox = '{OTHER}'")
        assert told(verify(killed)) == [f"damage: ledger.db, outbox {OTHER}: its state is missing"]

    def test_the_parents(self, killed: Path) -> None:
        edit(killed, "DELETE FROM parents WHERE row = 5")
        (finding,) = verify(killed).findings
        assert (finding.where, finding.records) == ("ledger.db, parents", ((5, 5),))

    def test_an_object(self, killed: Path) -> None:
        path = min(killed.glob("objects/*/*"))
        path.write_bytes(path.read_bytes()[:-1])
        (finding,) = verify(killed).findings
        assert finding.where == path.relative_to(killed).as_posix()
        path.unlink()
        (missing,) = verify(killed).findings
        assert (missing.what, missing.records) == ("the file is missing", finding.records)
        assert finding.records

    def test_the_head_file_taken_away(self, killed: Path) -> None:
        (killed / "head").unlink()
        assert not verify(killed).ok


def test_a_ledger_that_was_never_made_is_told_from_a_damaged_one(killed: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "ledger.db").touch()
    with pytest.raises(LedgerFailed, match="its first writer ended before it was made"):
        verify(empty)
    for name in ("ledger.db", "ledger.db-wal"):
        os.truncate(killed / name, 0)
    report = verify(killed)
    assert not report.ok
    assert report.findings[0].records == ((1, 46),)


def test_leftovers_are_named_and_are_no_damage(killed: Path) -> None:
    (killed / "objects" / "ab").mkdir(exist_ok=True)
    (killed / "objects" / "ab" / "abcd.1234.part").write_bytes(b"half")
    (killed / "objects" / "ab" / "abcd").write_bytes(b"whole")
    (killed / "notes.txt").write_text("mine")
    report = verify(killed)
    assert report.ok
    assert told(report) == [
        "note: notes.txt: it is no part of a ledger",
        "note: objects/ab/abcd: no record refers to it",
        "note: objects/ab/abcd.1234.part: a file that was not finished; nothing refers to it",
    ]


def test_a_cut_log_is_found_and_the_next_writer_says_so_for_ever(
    killed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = killed / "ledger.db-wal"
    os.truncate(log, log.stat().st_size - 100)
    report = verify(killed)
    assert not report.ok
    assert any("ledger.db-wal" in finding.where and finding.records for finding in report.findings)
    assert any("record is missing" in finding.what for finding in report.findings)
    rows = len(stored(killed))
    assert rows < 46
    writer = LedgerWriter.open(killed, "bench")
    assert "is half-written" in caplog.text or "was not finished" in caplog.text
    assert f"is damaged after row {rows}" in caplog.text
    writer.close()
    assert verify(killed).ok
    with LedgerReader.open(killed) as reader:
        (lost,) = [facts for facts in reader.outboxes() if not facts.outbox]
        assert [(g.first, g.last) for g in lost.gaps] == [(rows + 1, 46)]


def flip(path: Path, bit: int) -> None:
    """Turn over one bit of a file; a second time puts it back."""
    with open(path, "rb+") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def unreadable_rows(folder: Path) -> set[int]:
    """The rows that a reader refuses."""
    refused = set()
    try:
        with LedgerReader.open(folder) as reader:
            for row in range(1, 47):
                try:
                    record = reader.by_row(row)
                    assert record is not None
                    assert len(record.payload) == record.size
                except (LedgerDamaged, AssertionError):
                    refused.add(row)
    except LedgerError:
        return set(range(1, 47))
    return refused


@pytest.mark.slow("reads a ledger once for every bit")
def test_every_flipped_bit_of_a_sealed_ledger_is_found_and_localised(sealed: Path) -> None:
    files = [path for path in sorted(sealed.rglob("*")) if path.is_file() and path.stat().st_size]
    chance = random.Random(7)
    for number in range(10_000 if LONG else 300):
        # Files by turns at first, so that the small ones are not missed; then any bit of all.
        path = files[number % len(files)] if number % 2 else chance.choices(files, [f.stat().st_size for f in files])[0]
        bit = chance.randrange(path.stat().st_size * 8)
        flip(path, bit)
        report = verify(sealed)
        name, page = path.relative_to(sealed).as_posix(), bit // 8 // PAGE + 1
        where = f"ledger.db, page {page} (" if name == "ledger.db" else name
        found = [finding for finding in report.findings if finding.where.startswith(where)]
        assert found, f"bit {bit} of {name}: {report}"
        assert not report.ok
        if number % 10 == 0:
            concerned = {row for finding in found for a, b in finding.records for row in range(a, b + 1)}
            assert unreadable_rows(sealed) <= concerned, f"bit {bit} of {name}: {report}"
        flip(path, bit)
    assert verify(sealed).findings == ()


def test_every_flipped_bit_of_a_killed_writers_ledger_is_found_or_changes_nothing(killed: Path, tmp_path: Path) -> None:
    said = [str(record) for record in stored(killed)]
    names = [
        "ledger.db",
        "ledger.db-wal",
        "head",
        *(p.relative_to(killed).as_posix() for p in killed.glob("objects/*/*")),
    ]
    chance = random.Random(11)
    found = 0
    for number in range(3_000 if LONG else 120):
        name = names[number % len(names)] if number % 2 else chance.choice(names[:2])
        path = killed / name
        bit = chance.randrange(path.stat().st_size * 8)
        flip(path, bit)
        (killed / "ledger.db-shm").unlink(missing_ok=True)
        report = verify(killed)
        if not report.findings:
            with LedgerReader.open(killed) as reader:
                again = [str(record) for record in reader.records(RecordFilter(kinds=()))]
                assert all(len(record.payload) == record.size for record in reader.records(RecordFilter(kinds=())))
            assert again == said, f"bit {bit} of {name} was not found"
        found += bool(report.findings)
        flip(path, bit)
    assert found > number // 3
