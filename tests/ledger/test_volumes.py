"""A ledger whose volumes are closed: it is read, verified and continued as one."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from ledger_parts import NOW, OTHER, OUTBOX, batch, content, entry, gap, message_id, run_of, stored

from ether.config.volumes import Retention, Rotation, parse_keep, parse_rotation
from ether.errors import ConfigError, LedgerFailed
from ether.ledger import durable, rotation
from ether.ledger import volumes as volumes_module
from ether.ledger.reader import LedgerReader, RecordFilter, StoredRecord, VolumeReader
from ether.ledger.rotation_rules import is_due
from ether.ledger.verify import _Verification, verify
from ether.ledger.verify_records import RecordCheck
from ether.ledger.volumes import closed_volume, closed_volumes
from ether.ledger.writer import LedgerWriter
from ether.provenance.lineage import find, why
from ether.reading.data import Data, Query
from ether.recording.completeness_rules import prove
from ether.wire.entries import NOT_HERE

LARGE = b"frame" * 20_000


def in_volumes(writer: LedgerWriter, volumes: int = 3, each: int = 4) -> None:
    """A ledger of so many closed volumes, with one entry in the current one; each volume has a large payload."""
    for volume in range(volumes):
        first = volume * each + 1
        rows = [entry(n, parents=(message_id(n - 1),) if n > 1 else ()) for n in range(first, first + each - 1)]
        large = entry(first + each - 1, topic="camera/large", payload=LARGE + bytes([volume]))
        writer.append([batch(*rows, large)], NOW)
        assert writer.rotate(NOW + volume) is None
    writer.append([batch(entry(volumes * each + 1, parents=(message_id(volumes * each),)))], NOW)


def facts(record: StoredRecord) -> tuple[object, ...]:
    return record.row, record.id, record.payload, record.checksum


def numbers(folder: Path) -> list[int]:
    return [record.number for record in stored(folder)]


def test_many_volumes_are_found_without_looking_at_each_for_each(
    folder: Path, writer: LedgerWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour's volumes of some months are thousands: a thousand took 24 s to open, and 51 s to read."""
    for n in range(1, 13):
        writer.append([batch(entry(n))], NOW)
        assert writer.rotate(NOW) is None
    matched, match = list[str](), volumes_module._NAME
    monkeypatch.setattr(
        volumes_module, "_NAME", SimpleNamespace(fullmatch=lambda text: matched.append(text) or match.fullmatch(text))
    )
    with LedgerReader.open(folder) as reader:
        assert len(matched) == 12
        assert [record.number for record in reader.records()] == list(range(1, 13))
    assert len(matched) <= 36, "each is looked up by its name"


def test_a_number_of_seven_digits_is_not_taken_for_another_one(tmp_path: Path) -> None:
    for name in ("100000", "100000-1", "1000001", "1000001-2", "100000-x"):
        (tmp_path / "volumes" / name).mkdir(parents=True)
    assert [each.folder.name for each in closed_volumes(tmp_path)] == ["100000-1", "1000001-2"]
    for number, found in ((100_000, "100000-1"), (1_000_001, "1000001-2")):
        assert (closed := closed_volume(tmp_path, number)) is not None
        assert closed.folder.name == found
    assert closed_volume(tmp_path, 7) is None


def test_rotated_and_unrotated_say_the_same(folder: Path, writer: LedgerWriter, tmp_path: Path) -> None:
    plain = LedgerWriter.open(tmp_path / "plain", "bench")
    for each in (plain, writer):
        for first in (1, 5, 9):
            context = content(first, b'{"first":%d}' % first)
            lost = gap(first + 2, first + 2, first + 2, "too old", {"camera/frame": [first, first, 1]})
            run = entry(
                first + 1, parents=(message_id(first - 1),), more={"run": "warm/1", "trial": 1}, context=context.id
            )
            log = entry(first + 3, "log", "", parents=(message_id(first + 1),))
            each.append([batch(context, run, lost, log), batch(entry(first), outbox=OTHER, source="pump")], NOW)
            if each is writer:
                assert each.rotate(NOW) is None
    plain.close()
    with LedgerReader.open(folder) as rotated, LedgerReader.open(tmp_path / "plain") as whole:
        assert len(rotated.volumes) == 4
        filters = [RecordFilter(()), RecordFilter(), RecordFilter(topic="camera/#", run="warm/1")]
        for wanted in (*filters, RecordFilter(source="pump")):
            both = (rotated, whole)
            for newest_first in (False, True):
                found = [list(map(facts, reader.records(wanted, newest_first=newest_first))) for reader in both]
                assert found[0] == found[1]
            after = [list(map(facts, reader.records(wanted, after_row=6, limit=4))) for reader in both]
            assert after[0] == after[1]
        ask: list[Callable[[LedgerReader], object]] = [
            LedgerReader.count, LedgerReader.topics, LedgerReader.runs, LedgerReader.sources, LedgerReader.outboxes,
            LedgerReader.duplicates, LedgerReader.without_their_trial,
            lambda reader: [reader.by_row(row).id for row in range(1, 13)],  # type: ignore[union-attr]
            lambda reader: [record.row for record in reader.children(message_id(4))],
            lambda reader: [record.row for record in reader.logs_of(message_id(6))],
            lambda reader: reader.between("data", "camera/frame", "camera", message_id(2), message_id(10), 3),
            lambda reader: reader.places_of([message_id(2), message_id(6), "nobody"]),
            lambda reader: reader.earlier(reader.record(message_id(10))),  # type: ignore[arg-type]
            lambda reader: [reader.context(content(n, b'{"first":%d}' % n).id) for n in (1, 5, 9)],
        ]  # fmt: skip
        for question in ask:
            assert question(rotated) == question(whole)
        assert str(prove(rotated.outboxes(), 0)) == str(prove(whole.outboxes(), 0))


def test_each_method_that_reads_a_volume_reads_the_ledger() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    own = {"connect", "rest", "number", "is_open", "has_moved"}
    parts = {"gaps", "outbox_rows", "ids_between", "id_range", "effects_without_trial"}
    assert public(VolumeReader) - own - parts <= public(LedgerReader)


def test_what_is_the_same_in_two_volumes_is_counted_once_more(folder: Path, writer: LedgerWriter) -> None:
    in_volumes(writer)
    writer.append([batch(entry(2), entry(3)._replace(number=2, id=message_id(7)), outbox=OTHER)], NOW)
    writer.append([batch(entry(1, entry_id=message_id(2)), entry(2, entry_id=message_id(7)), outbox=OTHER)], NOW)
    with LedgerReader.open(folder) as reader:
        assert reader.duplicates() == 2


def test_the_chain_goes_through_all_volumes_and_each_is_a_ledger(folder: Path, writer: LedgerWriter) -> None:
    in_volumes(writer)
    writer.close()
    report = verify(folder)
    assert (report.ok, report.sealed, report.records, report.findings) == (True, True, 13, ())
    assert numbers(folder) == list(range(1, 14))
    assert [closed.folder.name for closed in closed_volumes(folder)] == ["000001", "000002", "000003"]
    links = []
    for closed in closed_volumes(folder):
        assert verify(closed.folder).ok
        assert len(stored(closed.folder)) == 4
        links.append(stored(closed.folder)[-1].link)
        assert [path.is_file() for path in closed.folder.glob("objects/*/*")] == [True]
    assert not list(folder.glob("objects/*/*"))
    database = sqlite3.connect(f"file:{folder}/ledger.db?immutable=1", uri=True)
    meta = dict(database.execute("SELECT key, value FROM meta"))
    (checksum, link), = database.execute("SELECT checksum, link FROM records")  # fmt: skip
    database.close()
    assert (meta["volume"], meta["first"], meta["follows"]) == ("4", "13", links[-1])
    assert hashlib.sha256(bytes.fromhex(meta["follows"]) + checksum).digest() == link
    again = LedgerWriter.open(folder, "bench")
    assert (again.highest(OUTBOX), again.records) == (13, 13)
    again.append([run_of(12, 15)], NOW)
    again.close()
    assert numbers(folder) == list(range(1, 16))


def test_an_unrotated_ledger_is_what_it_was_before_there_were_volumes(folder: Path, writer: LedgerWriter) -> None:
    assert writer.rotate(NOW) is None  # empty: nothing to close
    writer.append([run_of(1, 3)], NOW)
    writer.close()
    assert not (folder / "volumes").exists()
    database = sqlite3.connect(f"file:{folder}/ledger.db?immutable=1", uri=True)
    assert database.execute("PRAGMA user_version").fetchone() == (1,)
    assert {key for (key,) in database.execute("SELECT key FROM meta")} == {"created", "session"}
    database.close()


@pytest.mark.parametrize("lost", [("000001",), ("000002",), ("000002", "000003")], ids="-".join)
def test_a_volume_that_is_gone_is_named(folder: Path, writer: LedgerWriter, lost: tuple[str, ...]) -> None:
    in_volumes(writer)
    writer.close()
    for name in lost:
        shutil.rmtree(folder / "volumes" / name)
    [finding] = verify(folder).findings
    first, last = int(lost[0]) * 4 - 3, int(lost[-1]) * 4
    assert finding.where == f"volumes/{' to '.join(dict.fromkeys((lost[0], lost[-1])))}"
    assert finding.records == ((first, last),)
    assert len(stored(folder)) == 13 - 4 * len(lost)


def test_a_volume_of_another_ledger_does_not_fit_in(folder: Path, writer: LedgerWriter, tmp_path: Path) -> None:
    in_volumes(writer)
    other = LedgerWriter.open(tmp_path / "other", "bench")
    in_volumes(other)
    for each in (writer, other):
        each.close()
    shutil.rmtree(folder / "volumes" / "000002")
    shutil.copytree(tmp_path / "other" / "volumes" / "000002", folder / "volumes" / "000002")
    found = [str(finding) for finding in verify(folder).findings]
    assert any("volumes/000002: it does not continue volume 1" in line for line in found)
    assert any("volumes/000003: it does not continue volume 2" in line for line in found)


def test_a_changed_bit_of_a_closed_volume_is_found(folder: Path, writer: LedgerWriter) -> None:
    in_volumes(writer)
    writer.close()
    path = folder / "volumes" / "000002" / "ledger.db"
    content_before = path.read_bytes()
    at = content_before.index(b'{"frame":6}')
    path.write_bytes(content_before[:at] + b'{"frame":9}' + content_before[at + 11 :])
    findings = [finding for finding in verify(folder).findings if finding.harm]
    assert {finding.records for finding in findings} == {((6, 6),)}
    assert all(finding.where.startswith("volumes/000002/ledger.db, ") for finding in findings)


def test_a_reader_goes_on_while_volumes_are_closed(folder: Path, writer: LedgerWriter) -> None:
    writer.append([run_of(1, 3), batch(entry(1, payload=LARGE), outbox=OTHER)], NOW)
    with LedgerReader.open(folder) as reader:
        records = reader.records()
        first = next(records)
        large = reader.by_row(4)
        assert writer.rotate(NOW) is None
        writer.append([run_of(4, 6)], NOW)
        assert [first.number, *(record.number for record in records)][:3] == [1, 2, 3]
        assert large is not None
        assert large.payload == LARGE
        assert [record.row for record in reader.records()] == [1, 2, 3, 4, 5, 6, 7]
        assert writer.rotate(NOW) is None
        assert writer.rotate(NOW) is None
        writer.append([run_of(7, 7)], NOW)
        assert reader.count() == 8
        assert [record.row for record in reader.records(newest_first=True)] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert verify(folder).ok


def test_a_volume_that_is_closed_in_the_middle_of_a_verification_is_verified_once(
    folder: Path, writer: LedgerWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.append([batch(entry(1), entry(2, payload=LARGE))], NOW)
    check, rotated = _Verification._check_head, []

    def after_a_rotation(self: _Verification, records: RecordCheck) -> None:
        if not rotated:
            rotated.append(writer.rotate(NOW))
        check(self, records)

    monkeypatch.setattr(_Verification, "_check_head", after_a_rotation)
    report = verify(folder)
    assert (rotated, report.ok, report.records) == ([None], True, 2), str(report)


def test_a_reader_in_the_middle_of_a_query_puts_the_rotation_off(folder: Path, writer: LedgerWriter) -> None:
    writer.append([run_of(1, 3)], NOW)
    reader = sqlite3.connect(folder / "ledger.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM records").fetchone()
    writer.append([run_of(4, 5)], NOW)
    assert writer.rotate(NOW) == "a reader has it open in the middle of a query"
    writer.append([run_of(6, 6)], NOW)
    assert not closed_volumes(folder)
    reader.execute("COMMIT")
    assert writer.rotate(NOW) is None
    writer.append([run_of(7, 7)], NOW)
    reader.close()  # SQLite must not take the new log for its own
    assert numbers(folder) == list(range(1, 8))
    assert verify(folder).ok


@pytest.mark.parametrize("step", range(1, 40, 1 if os.environ.get("ETHER_LONG") == "1" else 3))
def test_a_rotation_that_fails_at_any_call_leaves_a_whole_ledger(
    folder: Path, writer: LedgerWriter, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Each call that changes the disk fails once; then the writer goes on, or another one opens the folder."""
    writer.append([run_of(1, 3), batch(entry(1, payload=LARGE), outbox=OTHER)], NOW)
    calls = 0

    def failing(call: Callable[..., object]) -> Callable[..., object]:
        def called(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls == step:
                raise OSError(5, "Input/output error")
            return call(*args, **kwargs)

        return called

    with monkeypatch.context() as broken:
        for module, name in ((os, "link"), (os, "rename"), (os, "replace"), (durable, "sync_descriptor"), (os, "open")):
            broken.setattr(module, name, failing(getattr(module, name)))
        broken.setattr(rotation.shutil, "copyfile", failing(shutil.copyfile))
        try:
            writer.rotate(NOW)
        except LedgerFailed:
            pass
        assert calls >= step
    assert verify(folder).ok, str(verify(folder))
    assert numbers(folder) == [1, 2, 3, 1]
    writer.append([run_of(4, 5)], NOW)
    assert writer.rotate(NOW) is None
    writer.append([run_of(6, 6)], NOW)
    assert numbers(folder) == [1, 2, 3, 1, 4, 5, 6]
    writer.close()
    report = verify(folder)
    assert (report.ok, report.sealed, report.records) == (True, True, 7), str(report)
    assert not list(folder.rglob("*.part"))


def test_an_older_ledger_db_beside_its_closed_volumes_is_refused_and_nothing_removed(
    folder: Path, writer: LedgerWriter, tmp_path: Path
) -> None:
    writer.append([run_of(1, 3)], NOW)
    writer.close()
    old = shutil.copytree(folder, tmp_path / "old")
    again = LedgerWriter.open(folder, "bench")
    again.append([run_of(4, 5)], NOW)
    in_two = [again.rotate(NOW), again.append([run_of(6, 6)], NOW), again.rotate(NOW)]
    assert in_two[0] is in_two[2] is None
    again.close()
    for name in ("ledger.db", "head", "seal", "pages"):
        shutil.copy(old / name, folder / name)
    with pytest.raises(LedgerFailed, match="is older than its closed volumes"):
        LedgerWriter.open(folder, "bench")
    assert len(closed_volumes(folder)) == 2
    assert "goes beyond the current volume" in str(verify(folder))
    (folder / "ledger.db").unlink()
    with pytest.raises(LedgerFailed, match="its closed volumes are there"):
        LedgerWriter.open(folder, "bench")
    assert len(closed_volumes(folder)) == 2


def test_where_the_disk_has_no_hard_links_it_is_copied(
    folder: Path, writer: LedgerWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    in_volumes(writer)
    writer.close()
    assert verify(folder).ok
    assert numbers(folder) == list(range(1, 14))


def test_a_value_is_explained_across_volumes(folder: Path, writer: LedgerWriter) -> None:
    in_volumes(writer)
    with LedgerReader.open(folder) as reader:
        tree = why(reader, find(reader, "row 13"))
        assert [step.id for step in tree.steps] == [message_id(13), message_id(12)]
        tree = why(reader, find(reader, message_id(11)))
        assert [step.id for step in tree.steps] == [message_id(n) for n in (11, 10, 9, 8)]
    assert len(Data(folder, Query(topic="camera/frame"))) == 10
    assert [record.row for record in Data(folder, Query(upto_row=6))] == [1, 2, 3, 4, 5, 6]


def test_what_is_not_for_this_recorder_stays_so_in_each_volume(folder: Path, writer: LedgerWriter) -> None:
    for first in (1, 11, 21):
        writer.append([batch(entry(first), gap(first + 1, first + 1, first + 9, NOT_HERE))], NOW)
        assert writer.rotate(NOW) is None
    with LedgerReader.open(folder) as reader:
        assert str(prove(reader.outboxes(), 0)) == "3 of 3 durable, 0 gaps, 0 duplicates"
    assert verify(folder).ok


def test_when_a_volume_is_closed() -> None:
    day = 86_400.0
    assert is_due(Rotation(size_bytes=10), 10, NOW, NOW)
    assert not is_due(Rotation(size_bytes=10), 9, NOW, NOW + 400 * day)
    assert not is_due(Rotation(every="day"), 10**12, NOW, NOW)
    assert not is_due(Rotation(5, "day"), 10**12, None, NOW)
    assert is_due(Rotation(every="day"), 0, NOW, NOW + day)
    assert is_due(Rotation(every="hour"), 0, NOW, NOW + 3600)
    assert is_due(Rotation(every="week"), 0, NOW, NOW + 7 * day)
    assert is_due(Rotation(every="month"), 0, NOW, NOW + 31 * day)
    assert not is_due(Rotation(every="month"), 0, NOW, NOW + 60)


def test_how_it_is_written() -> None:
    assert parse_rotation("day") == Rotation(None, "day")
    assert parse_rotation(["1.5 GB", "hour"]) == parse_rotation(("hour", "1500MB")) == Rotation(1_500_000_000, "hour")
    assert parse_keep("30d") == Retention({"#": 30 * 86_400.0})
    assert parse_keep({"camera/#": "12h", "#": "1y"}).keep_s == {"camera/#": 43_200.0, "#": 365.25 * 86_400}
    for wrong in ("daily", "10kB", ["day", "week"], [], "5", 5, {"size": "5MB"}):
        with pytest.raises(ConfigError, match=r"expected hour, day|a volume has at least 100 kB"):
            parse_rotation(wrong)
    for odd in ("30", "0d", "month", {}, {"a/#/b": "3d"}, {"camera": 3}, ["30d"]):
        with pytest.raises(ConfigError, match="expected a time"):
            parse_keep(odd)
