"""What goes into a ledger comes out of it: once, in order, whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import databases
import pytest
from ledger_parts import NOW, OTHER, OUTBOX, batch, content, entry, gap, message_id, run_of, stored

from ether.errors import LedgerDamaged, LedgerFailed, LedgerLocked, SchemaTooNew
from ether.ledger import schema as ledger_schema
from ether.ledger.reader import LedgerReader, RecordFilter
from ether.ledger.verify import verify
from ether.ledger.writer import LedgerWriter
from ether.recording.completeness_rules import prove
from ether.wire.entries import NOT_HERE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "session"


@pytest.fixture
def writer(folder: Path) -> Iterator[LedgerWriter]:
    opened = LedgerWriter.open(folder, "bench")
    yield opened
    opened.close()


@pytest.fixture
def reader(writer: LedgerWriter) -> Iterator[LedgerReader]:
    with LedgerReader.open(writer.folder) as opened:
        yield opened


def proof_of(reader: LedgerReader) -> str:
    return str(prove(reader.outboxes(), reader.duplicates()))


def test_an_entry_comes_back_as_it_was(writer: LedgerWriter, reader: LedgerReader) -> None:
    given = entry(1, parents=("a", "b"), more={"run": "r1", "heard": ["x"]}, context="c" * 64)
    assert writer.append([batch(given)], NOW) == {OUTBOX: 1}
    (record,) = reader.records()
    for name in given._fields:
        assert getattr(record, name) == getattr(given, name)
    assert (record.outbox, record.source, record.received, record.run) == (OUTBOX, "camera", NOW, "r1")
    assert record.value == {"frame": 1}


def test_what_is_offered_again_is_kept_once(writer: LedgerWriter, reader: LedgerReader) -> None:
    writer.append([run_of(1, 5)], NOW)
    assert writer.append([run_of(3, 8)], NOW) == {OUTBOX: 8}
    assert writer.append([run_of(1, 8)], NOW) == {OUTBOX: 8}
    assert [record.number for record in reader.records()] == list(range(1, 9))
    assert writer.repeated == 3 + 8
    assert proof_of(reader) == "8 of 8 durable, 0 gaps, 0 duplicates"


def test_what_comes_after_a_hole_is_not_taken(writer: LedgerWriter, reader: LedgerReader) -> None:
    assert writer.append([batch(entry(1), entry(2), entry(4), entry(5))], NOW) == {OUTBOX: 2}
    assert writer.append([batch(entry(4))], NOW) == {OUTBOX: 2}
    assert writer.append([batch(entry(3)), batch(entry(4), entry(5))], NOW) == {OUTBOX: 5}
    assert [record.number for record in reader.records()] == [1, 2, 3, 4, 5]


def test_outboxes_are_numbered_each_for_itself(writer: LedgerWriter) -> None:
    assert writer.append([run_of(1, 2), batch(entry(1), outbox=OTHER, source="pump")], NOW) == {OUTBOX: 2, OTHER: 1}
    assert (writer.highest(OUTBOX), writer.highest(OTHER), writer.highest("00" * 8)) == (2, 1, 0)


def test_a_gap_takes_the_place_of_what_was_given_up(writer: LedgerWriter, reader: LedgerReader) -> None:
    writer.append([run_of(1, 2)], NOW)
    lost = gap(3, 3, 6, "older than an hour", {"camera/frame": [3, 5, 3]})
    assert writer.append([batch(lost, entry(7))], NOW) == {OUTBOX: 7}
    proof = prove(reader.outboxes(), reader.duplicates())
    assert (proof.durable, proof.total) == (3, 7)
    first, second = proof.gaps
    assert (first.source, first.topic, first.first, first.last, first.count) == ("camera", "camera/frame", 3, 5, 3)
    assert (second.topic, second.count, second.why) == ("", 1, "older than an hour")
    assert "'camera/frame' from 'camera': 3 to 5 (3), since " in str(proof)


def test_a_gap_that_overlaps_covers_only_what_is_new(writer: LedgerWriter, reader: LedgerReader) -> None:
    writer.append([run_of(1, 4)], NOW)
    assert writer.append([batch(gap(2, 2, 6, "too old"))], NOW) == {OUTBOX: 6}
    assert writer.append([batch(gap(2, 2, 6, "too old"))], NOW) == {OUTBOX: 6}
    assert writer.append([batch(gap(9, 9, 12, "too old"), head=12)], NOW) == {OUTBOX: 6}
    (facts,) = reader.outboxes()
    assert [(g.first, g.last) for g in facts.gaps] == [(5, 6)]
    assert proof_of(reader).startswith("4 of 12 durable, 2 gaps")


def test_what_is_not_for_this_recorder_is_not_missing(writer: LedgerWriter, reader: LedgerReader) -> None:
    writer.append([batch(entry(1), gap(2, 2, 9, NOT_HERE), entry(10))], NOW)
    assert proof_of(reader) == "2 of 2 durable, 0 gaps, 0 duplicates"
    assert prove(reader.outboxes(), 0).skipped == 8


def test_what_a_source_gave_out_and_never_came_is_missing(writer: LedgerWriter, reader: LedgerReader) -> None:
    writer.append([batch(entry(1), head=4)], NOW)
    writer.note_head(OUTBOX, "camera", 6)
    writer.note_head(OTHER, "pump", 2)
    writer.append([batch(entry(2))], NOW)
    assert proof_of(reader).splitlines()[0] == "2 of 8 durable, 2 gaps, 0 duplicates"
    writer.close()
    with LedgerReader.open(writer.folder) as again:
        assert [(facts.source, facts.head) for facts in again.outboxes()] == [("camera", 6), ("pump", 2)]


def test_duplicates_are_counted_from_the_ledger(writer: LedgerWriter, reader: LedgerReader) -> None:
    writer.append([run_of(1, 3), batch(entry(1), outbox=OTHER, source="pump")], NOW)
    writer.append_loose([("stranger", entry(0, entry_id=message_id(3)))], NOW)
    assert reader.duplicates() == 2


def test_contexts_and_artifacts_are_kept_once(writer: LedgerWriter, reader: LedgerReader) -> None:
    context, large = content(1, b'{"class":"Camera"}'), content(2, b"diff" * 50_000, "artifact")
    writer.append([batch(context, large, entry(3))], NOW)
    writer.append([batch(context, large, outbox=OTHER, source="pump")], NOW)
    assert reader.context(context.id) == {"class": "Camera"}
    assert reader.artifact(large.id) == large.payload
    assert reader.artifact("0" * 64) is None
    assert [record.payload for record in reader.records(RecordFilter(kinds=["context"]))] == [context.payload] * 2
    assert [path.name for path in writer.folder.glob("objects/*/*")] == [large.id]


def test_content_that_is_not_what_its_hash_says_is_refused_and_named(
    writer: LedgerWriter, reader: LedgerReader, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = content(1, b"{}")._replace(payload=b"[]")
    assert writer.append([batch(wrong, entry(2))], NOW) == {OUTBOX: 2}
    assert reader.artifact(wrong.id) is None
    assert "1 of 2 durable, 1 gaps" in proof_of(reader)
    assert hashlib.sha256(b"[]").hexdigest() in proof_of(reader)
    assert "does not keep entry 1 of 'camera'" in caplog.text


@pytest.mark.parametrize(
    "unfit",
    [
        entry(2)._replace(topic="half \ud800"),
        entry(2)._replace(parents=("\udfff",)),
        entry(2)._replace(seq=1 << 70),
        entry(2)._replace(time=float("inf")),
        entry(2)._replace(more={"x": float("nan")}),
        entry(2, more={"run": "\ud800"}),
    ],
    ids=["topic", "parent", "seq", "time", "more", "run"],
)
def test_what_no_database_can_hold_is_refused_and_the_rest_is_kept(
    writer: LedgerWriter, reader: LedgerReader, unfit: object
) -> None:
    assert writer.append([batch(entry(1), unfit, entry(3))], NOW) == {OUTBOX: 3}  # type: ignore[arg-type]
    assert [record.number for record in reader.records()] == [1, 3]
    assert "2 of 3 durable, 1 gaps" in proof_of(reader)


def test_a_second_content_that_no_database_can_hold_is_refused_and_is_no_conflict(
    writer: LedgerWriter, reader: LedgerReader, caplog: pytest.LogCaptureFixture
) -> None:
    unfit = entry(1)._replace(topic="half \ud800")
    writer.append([batch(entry(1), entry(2))], NOW)
    for _ in range(2):
        assert writer.append([batch(unfit, entry(3))], NOW) == {OUTBOX: 3}
    assert writer.conflicts == 0
    assert "does not keep entry 0 of 'camera' (conflict" in caplog.text
    assert [record.number for record in reader.records()] == [1, 2, 3]
    writer.append([batch(entry(1)._replace(payload=b"another"))], NOW)
    assert writer.conflicts == 1


def test_a_payload_above_64_kib_is_a_file_of_its_own(writer: LedgerWriter, reader: LedgerReader) -> None:
    small, large = os.urandom(65_536), os.urandom(65_537)
    writer.append([batch(entry(1, payload=small), entry(2, payload=large), entry(3, payload=large))], NOW)
    assert [record.payload for record in reader.records()] == [small, large, large]
    (path,) = writer.folder.glob("objects/*/*")
    assert path.read_bytes() == large
    assert path.name == hashlib.sha256(large).hexdigest()


def test_records_are_found(writer: LedgerWriter, reader: LedgerReader) -> None:
    writer.append([run_of(1, 1200)], NOW)
    child = entry(1201, "record", "area", parents=(message_id(5),), more={"run": "r7"})
    log = entry(1202, "log", "camera", parents=(message_id(5),))
    writer.append(
        [batch(child, log), batch(entry(1, topic="pump/flow", entry_id="p"), outbox=OTHER, source="pump")], NOW
    )
    writer.append_loose([("stranger", entry(0, topic="mqtt:plant/temp", entry_id="s"))], NOW)

    def numbers(
        *, after_row: int = 0, newest_first: bool = False, limit: int | None = None, **wanted: Any
    ) -> list[int]:
        found = reader.records(RecordFilter(**wanted), after_row=after_row, newest_first=newest_first, limit=limit)
        return [record.number for record in found]

    assert numbers(topic="camera/+") == list(range(1, 1201))
    assert numbers(topic="camera/frame", after_row=1198) == [1199, 1200]
    assert numbers(topic="camera/frame", newest_first=True, limit=1100) == list(range(1200, 100, -1))
    assert numbers(since=NOW + 10, until=NOW + 12, topic="camera/#") == [10, 11, 12]
    assert numbers(run="r7") == [1201]
    assert numbers(source="pump") == [1]
    assert numbers(topic="mqtt:plant/#") == [0]
    assert [record.topic for record in reader.records(RecordFilter(topic="#"), after_row=1200)] == ["area", "pump/flow"]
    assert [record.row for record in reader.records(RecordFilter(kinds=()), limit=0)] == []
    found = reader.record(message_id(7))
    assert found is not None
    assert found.number == 7
    assert reader.record("nobody") is None
    assert reader.by_row(9999) is None
    assert [record.id for record in reader.children(message_id(5))] == [child.id]
    assert [record.id for record in reader.logs_of(message_id(5))] == [log.id]
    assert [(t.topic, t.kind, t.count) for t in reader.topics()] == [
        ("area", "record", 1), ("camera/frame", "data", 1200), ("mqtt:plant/temp", "data", 1), ("pump/flow", "data", 1),
    ]  # fmt: skip
    assert reader.sources() == ["camera", "pump", "stranger"]
    assert [(r.run, r.count) for r in reader.runs()] == [("r7", 1)]
    assert (reader.session, reader.schema_version) == ("bench", ledger_schema.SCHEMA)


def test_many_topics_are_found_as_few_are(writer: LedgerWriter, reader: LedgerReader) -> None:
    writer.append([batch(*(entry(n, topic=f"sample/{n % 90}/mass") for n in range(1, 901)))], NOW)
    assert [record.number for record in reader.records(RecordFilter(topic="sample/+/mass"))] == list(range(1, 901))
    assert [
        record.number for record in reader.records(RecordFilter(topic="sample/+/mass"), newest_first=True, limit=3)
    ] == [
        900,
        899,
        898,
    ]
    assert [record.number for record in reader.records(RecordFilter(topic="sample/7/+"))] == list(range(7, 901, 90))
    summary = reader.topics()[0]
    assert (summary.topic, summary.count, summary.first, summary.last) == ("sample/0/mass", 10, NOW + 90, NOW + 900)


def test_a_reader_sees_what_is_appended_and_changes_nothing(writer: LedgerWriter, reader: LedgerReader) -> None:
    writer.append([run_of(1, 700)], NOW)
    seen = reader.records()
    assert next(seen).number == 1
    writer.append([run_of(701, 800)], NOW)
    assert len(list(seen)) == 799


def test_a_closed_ledger_is_sealed_and_goes_on(folder: Path) -> None:
    with pytest.raises(LedgerFailed, match="this is no ledger"):
        LedgerReader.open(folder)
    writer = LedgerWriter.open(folder, "bench")
    writer.append([run_of(1, 3)], NOW)
    writer.close()
    writer.close()
    assert sorted(path.name for path in folder.iterdir()) == ["head", "ledger.db", "lock", "pages", "seal"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert [record.number for record in stored(folder)] == [1, 2, 3]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    again = LedgerWriter.open(folder, "bench")
    assert not (folder / "seal").exists()
    assert again.append([run_of(2, 5)], NOW) == {OUTBOX: 5}
    again.close()
    assert [record.number for record in stored(folder)] == [1, 2, 3, 4, 5]


def test_a_reader_of_a_sealed_ledger_sees_what_the_next_writer_appends(folder: Path) -> None:
    writer = LedgerWriter.open(folder, "bench")
    writer.append([run_of(1, 3)], NOW)
    writer.close()
    with LedgerReader.open(folder) as reader:
        assert reader.count() == 3
        again = LedgerWriter.open(folder, "bench")
        again.append([run_of(4, 9)], NOW)
        assert reader.count() == 9
        again.close()
        assert (folder / "seal").exists()
        assert reader.count() == 9
    assert verify(folder).ok


def test_a_sealed_ledger_is_read_where_nothing_can_be_written(folder: Path) -> None:
    writer = LedgerWriter.open(folder, "bench")
    writer.append([run_of(1, 3)], NOW)
    writer.close()
    folder.chmod(0o500)
    try:
        assert len(stored(folder)) == 3
        assert verify(folder).ok
    finally:
        folder.chmod(0o700)
    assert sorted(path.name for path in folder.iterdir()) == ["head", "ledger.db", "lock", "pages", "seal"]


def test_another_writer_is_told_who_writes(writer: LedgerWriter) -> None:
    with pytest.raises(LedgerLocked, match=f"process {os.getpid()} on .* since"):
        LedgerWriter.open(writer.folder, "bench")
    code = f"from ether.ledger.writer import LedgerWriter as W; W.open({str(writer.folder)!r}, 'bench')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"LedgerLocked: the ledger {writer.folder} is being written by process {os.getpid()}" in done.stderr


def test_another_sessions_folder_is_refused(writer: LedgerWriter) -> None:
    writer.close()
    with pytest.raises(LedgerFailed, match="it belongs to the session 'bench', not 'other'"):
        LedgerWriter.open(writer.folder, "other")
    LedgerWriter.open(writer.folder, "bench").close()


def test_a_later_schema_is_refused_and_an_earlier_one_brought_up_to_date(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writer = LedgerWriter.open(folder, "bench")
    writer.append([run_of(1, 3)], NOW)
    writer.close()

    def step(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE notes (text TEXT)")

    with monkeypatch.context() as later:
        later.setattr(ledger_schema, "SCHEMA", ledger_schema.SCHEMA + 1)
        later.setattr(ledger_schema, "MIGRATIONS", {ledger_schema.SCHEMA - 1: step})
        again = LedgerWriter.open(folder, "bench")
        assert again.append([run_of(2, 4)], NOW) == {OUTBOX: 4}
        again.close()
        assert "was brought from schema version 1 to 2" in caplog.text
        assert len(stored(folder)) == 4
    for opened in (lambda: LedgerWriter.open(folder, "bench"), lambda: LedgerReader.open(folder)):
        with pytest.raises(SchemaTooNew, match="has schema version 2, and this Ether knows versions up to 1"):
            opened()


def test_a_migration_that_fails_leaves_the_version_before_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LedgerWriter.open(folder, "bench").close()

    def step(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE notes (text TEXT)")
        connection.execute("INSERT INTO nowhere VALUES (1)")

    with monkeypatch.context() as later:
        later.setattr(ledger_schema, "SCHEMA", 2)
        later.setattr(ledger_schema, "MIGRATIONS", {1: step})
        with pytest.raises(LedgerFailed, match="no such table: nowhere"):
            LedgerWriter.open(folder, "bench")
    LedgerWriter.open(folder, "bench").close()


def test_a_view_of_its_owner_is_left_alone_and_a_trigger_is_named(folder: Path) -> None:
    def run(statement: str) -> None:
        with closing(sqlite3.connect(folder / "ledger.db")) as database:
            database.execute(statement)

    with closing(LedgerWriter.open(folder, "bench")) as writer:
        writer.append([batch(entry(1))], NOW)
    run("CREATE VIEW warm AS SELECT * FROM entries WHERE topic = 'camera/frame'")
    with LedgerReader.open(folder) as reader:
        assert [record.number for record in reader.records()] == [1]
    with closing(LedgerWriter.open(folder, "bench")) as writer:
        writer.append([batch(entry(2))], NOW)
        run(
            "CREATE VIEW cold AS SELECT 1"
        )  # while it is written to: the next transaction is refused, those after it not
        with contextlib.suppress(LedgerFailed):
            writer.append([batch(entry(3))], NOW)
        assert writer.append([batch(entry(3))], NOW) == {OUTBOX: 3}
        assert writer.rotate(NOW) is None
        writer.append([batch(entry(4))], NOW)
    report = verify(folder)
    assert report.ok, str(report)
    with LedgerReader.open(folder) as reader:
        assert [record.number for record in reader.records()] == [1, 2, 3, 4]
    run("CREATE TRIGGER mine AFTER INSERT ON records BEGIN DELETE FROM records; END")
    with pytest.raises(
        LedgerDamaged, match="its trigger 'mine' is not a ledger's own; if it is yours, DROP TRIGGER it"
    ):
        LedgerWriter.open(folder, "bench")


def test_a_ledger_that_cannot_be_sealed_leaves_no_connection_open(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = databases.open_databases()
    writer = LedgerWriter.open(folder, "bench")
    writer.append([run_of(1, 3)], NOW)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as disk:
        disk.setattr("ether.ledger.writer.seal", fail)
        with pytest.raises(LedgerFailed, match="Input/output error"):
            writer.close()
    assert databases.open_databases() == before
    assert len(stored(folder)) == 3


def test_reading_a_record_that_was_changed_says_which(writer: LedgerWriter) -> None:
    writer.append([run_of(1, 3)], NOW)
    writer.close()
    edited = sqlite3.connect(writer.folder / "ledger.db")
    with edited:
        edited.execute("UPDATE records SET payload = '{}' WHERE row = 2")
    edited.close()
    with LedgerReader.open(writer.folder) as reader:
        assert reader.by_row(1) is not None
        with pytest.raises(LedgerDamaged, match="at row 2: its checksum is wrong"):
            list(reader.records())


def test_a_disk_that_notes_times_late_is_doubted_once(tmp_path: Path) -> None:
    """A change of time alone looks like a copy that was written over the file; where nothing has changed, times do not
    count any more, and sizes still do."""
    writer = LedgerWriter.open(tmp_path / "bench", "bench")
    writer.append([run_of(1, 3)], NOW)
    log = tmp_path / "bench" / "ledger.db-wal"
    os.utime(log, (1.0, 1.0))
    with pytest.raises(LedgerFailed, match="somebody else has written to it"):
        writer.append([run_of(4, 6)], NOW)
    assert writer.append([run_of(4, 6)], NOW) == {OUTBOX: 6}
    os.utime(log, (2.0, 2.0))
    assert writer.append([run_of(7, 9)], NOW) == {OUTBOX: 9}
    with log.open("ab") as file:
        file.write(b"\0" * 100)
    with pytest.raises(LedgerFailed, match="somebody else has written to it"):
        writer.append([run_of(10, 11)], NOW)
    assert writer.append([run_of(10, 11)], NOW) == {OUTBOX: 11}
    writer.close()
    assert [record.number for record in stored(tmp_path / "bench")] == list(range(1, 12))
