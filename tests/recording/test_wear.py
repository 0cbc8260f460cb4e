"""The saving mode for cards (`sync_every_s`): few transactions and syncs, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest
from loopback_rig import Rig
from patience import patience
from running_brokers import soon

from ether import Ether
from ether.config import EtherConfig
from ether.connection.deadline import Deadline
from ether.errors import ConfigError
from ether.launch.recording_setup import recorder_instance, saving_options
from ether.ledger import durable
from ether.ledger import writer as writer_module
from ether.ledger.life.backup import back_up
from ether.ledger.reader import LedgerReader, RecordFilter
from ether.ledger.sqlite import LEAN_PAGE_BYTES, PAGE_BYTES
from ether.ledger.verify import verify
from ether.ledger.volumes import closed_volumes
from ether.ledger.writer import LedgerWriter
from ether.recording.outbox_file import OutboxFile, adopt
from ether.recording.outbox_queue import OutboxQueue
from ether.recording.receipt_rules import RecorderAbout
from ether.wire.entries import Batch, Entry, unpack_entries


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When transactions were written."""
    times: list[float] = []
    append = LedgerWriter.append

    def counted(self: LedgerWriter, *arguments: object) -> object:
        times.append(time.monotonic())
        return append(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(LedgerWriter, "append", counted)
    return times


def _deadline() -> Deadline:
    return Deadline(patience(10))


def _batch(number: int) -> Batch:
    entry = Entry(number, "record", "v", f"id{number}", number, 1.0, (), "", None, b"x")
    return Batch("ab" * 8, "camera", number, (entry,))


def test_at_most_one_transaction_in_that_time(rig: Rig, transactions: list[float]) -> None:
    rig.recorder(sync_every_s=0.4)
    writer = rig.record_writer()
    began = time.monotonic()
    count = 0
    while len(transactions) < 4 and time.monotonic() - began < patience(20):
        writer.record("record", "v", count, (), {})
        count += 1
        if count % 5 == 0:  # somebody waits for a receipt, and gets it with the next transaction
            writer.settle(count, _deadline())
    assert writer.flush(_deadline()) == 0
    gaps = [later - earlier for earlier, later in pairwise(transactions)]
    assert len(gaps) >= 2
    assert min(gaps) >= 0.39, gaps
    assert [record.value for record in rig.records()] == list(range(count))


def test_one_sync_less_and_the_head_is_whole_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head is written at each commit, and synced when the ledger is closed."""
    syncs: list[int] = []
    sync = durable.sync_descriptor
    monkeypatch.setattr("ether.ledger.head.sync_descriptor", lambda fd: (syncs.append(fd), sync(fd))[1])
    for synced in (True, False):
        writer = LedgerWriter.open(tmp_path / str(synced), "bench", lean=not synced)
        syncs.clear()
        for n in range(1, 4):
            writer.append([_batch(n)], 1.0)
        assert len(syncs) == (3 if synced else 0)
        writer.close()
        report = verify(tmp_path / str(synced))
        assert (report.ok, report.sealed, report.records) == (True, True, 3)


def test_the_configuration_asks_for_it() -> None:
    config = EtherConfig.model_validate({"record": {"topics": "all", "sync_every_s": 1}})
    assert recorder_instance(config).kwargs["sync_every_s"] == 1.0
    assert saving_options(config, "bench", "").gather_s == 1.0
    assert saving_options(config, "bench", "").saves_wear
    plain = EtherConfig.model_validate({"record": "all"})
    assert "sync_every_s" not in recorder_instance(plain).kwargs
    assert not saving_options(plain, "bench", "").saves_wear
    with pytest.raises((ConfigError, ValueError), match="sync_every_s"):
        EtherConfig.model_validate({"record": {"sync_every_s": 60}})


def test_what_was_acknowledged_outlives_a_recorder_that_is_killed(tmp_path: Path) -> None:
    ether = Ether()
    folder = tmp_path / "led"
    ether.tap({"record": {"topics": "all", "folder": str(folder), "sync_every_s": 0.5}, "broker": {"engine": "amqtt"}})
    try:
        saved = [ether.record(n, "v") for n in range(200)]
        saved[99].wait(timeout_s=patience(20))
        done = [n for n, one in enumerate(saved) if one.done]
        os.kill(next(it["pid"] for it in ether.instances() if it["name"] == "recorder"), signal.SIGKILL)
        with LedgerReader.open(folder) as reader:
            kept = [record.value for record in reader.records(RecordFilter(topic="v"))]
        assert set(done) <= set(kept)
        assert soon(lambda: ether.flush(0.1) == 0, 30)
    finally:
        ether.shutdown()
    with LedgerReader.open(folder) as reader:
        assert [record.value for record in reader.records(RecordFilter(topic="v"))] == list(range(200))


# -- what is not written


@pytest.fixture
def outbox_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the rows that were written to an outbox's file."""
    written: list[int] = []
    append = OutboxFile.append

    def counted(self: OutboxFile, rows: list[tuple[int, bytes]]) -> None:
        written.extend(number for number, _ in rows)
        append(self, rows)

    monkeypatch.setattr(OutboxFile, "append", counted)
    return written


def test_what_a_recorder_acknowledges_in_time_is_not_written_twice(rig: Rig, outbox_rows: list[int]) -> None:
    rig.recorder(sync_every_s=0.2)
    writer = rig.record_writer(gather_s=0.2)
    assert soon(lambda: bool(writer.recorders()), 5)
    for n in range(100):
        writer.record("record", "v", n, (), {})
    assert writer.flush(_deadline()) == 0
    for n in range(100, 150):
        writer.record("record", "v", n, (), {})
    assert writer.flush(_deadline()) == 0
    assert [record.value for record in rig.records()] == list(range(150))
    assert outbox_rows == []
    writer.close(patience(5))
    assert rig.waiting() == [], "nothing is left behind"


def test_what_no_recorder_takes_is_in_the_outbox_soon(rig: Rig, outbox_rows: list[int]) -> None:
    """Also where one is there that does not answer: it hangs, or its machine is cut off."""
    recorder = rig.recorder(sync_every_s=0.2)
    writer = rig.record_writer(gather_s=0.2)
    writer.record("record", "v", 0, (), {})
    assert writer.flush(_deadline()) == 0
    recorder._written = lambda work: {}  # type: ignore[method-assign]
    writer.record("record", "v", 1, (), {})
    assert soon(lambda: bool(outbox_rows), 15)
    recorder.detach()
    writer.record("record", "v", 2, (), {})
    assert soon(lambda: writer._queue.head in outbox_rows, 10), "nobody is there: at once"


def test_what_was_acknowledged_is_not_left_behind_when_the_recorder_ends_first(rig: Rig) -> None:
    """Its outbox would be one of a dead process, whose values seem to wait."""
    writer = rig.record_writer(gather_s=0.2)
    for n in range(10):
        writer.record("record", "v", n, (), {})
    assert soon(lambda: rig.waiting() != [], 5), "nobody records yet, so they are in the file"
    recorder = rig.recorder(sync_every_s=0.2)
    assert writer.flush(_deadline()) == 0
    recorder.detach()
    assert soon(lambda: not writer.recorders(), 10)
    assert writer.close(patience(5)) == 0
    assert rig.waiting() == []
    assert [record.value for record in rig.records()] == list(range(10))


def _held(number: int) -> Entry:
    return Entry(number, "record", "v", f"id{number}", number, 1.0, (), "", None, b"x")


def test_rows_in_memory_and_in_the_file_go_together(tmp_path: Path) -> None:
    """A hole in an outbox's file would keep a recorder of another ledger from everything behind it, for ever."""
    queue = OutboxQueue(OutboxFile.create(tmp_path, "camera"))
    queue.is_lazy = True
    recorder = RecorderAbout("recorder", "1", None, "here", "/led", "")
    queue.update_windows({"recorder": recorder}, [True], 0.0)
    queue.add([_held(n) for n in range(1, 11)])
    queue.add([_held(n) for n in range(11, 21)], 1.0)
    assert queue.file.count == 1
    assert (queue.held_s(3.0), queue.waiting) == (2.0, 20)
    assert queue.receive("recorder", "1", 20, 3.0)
    queue.forget(None, at_once=False)
    queue.add([_held(n) for n in range(21, 31)], 4.0)
    assert queue.receive("recorder", "1", 25, 5.0)
    queue.forget(None, at_once=True)
    assert queue.held_s(6.0) == 2.0
    assert queue.write()
    assert (queue.held_s(6.0), queue.held_bytes) == (0.0, 0)
    queue.file._database.close()  # the process is killed
    [orphan] = adopt(tmp_path)
    found = [entry.number for _, packed in orphan.read(1, 100, 100, 1 << 20) for entry in unpack_entries(packed)]
    assert found == [*range(found[0], 31)]
    assert found[0] == orphan.base + 1
    assert found[0] <= 26
    orphan.close()


def test_what_no_recorder_asks_for_stays_in_the_file_while_other_rows_are_in_memory(tmp_path: Path) -> None:
    """It waits for the recorder that will ask for it, whatever another one acknowledges meanwhile."""
    queue = OutboxQueue(OutboxFile.create(tmp_path, "camera"))
    queue.is_lazy = True
    queue.update_windows({"a": RecorderAbout("a", "1", ("a",))}, [True], 0.0)
    queue.add([_held(n)._replace(kind="data", topic="b") for n in (1, 2)])
    queue.add([_held(3)._replace(kind="data", topic="a")], 1.0)
    assert queue.receive("a", "1", 3, 1.0)
    queue.forget(None, at_once=True)
    assert (queue.base, queue.file.count) == (0, 1)
    gap = queue.give_up(lambda entry, _: entry.number <= 2, "too old")
    assert gap is not None
    assert (gap.more["first"], gap.more["last"]) == (1, 2), "the oldest are in the file"
    queue.file.close()


def _pages(folder: Path) -> int:
    return int.from_bytes((folder / "ledger.db").read_bytes()[16:18], "big")


def _large(number: int, size: int) -> Batch:
    entry = Entry(number, "record", "v", f"id{number}", number, 1.0, (), "", None, bytes([number]) * size)
    return Batch("ab" * 8, "camera", number, (entry,))


def test_a_ledger_for_cards_has_small_pages_and_large_values_in_its_rows(tmp_path: Path) -> None:
    """It is one like any other: rotated, backed up, verified, and gone on with in the usual mode."""
    folder = tmp_path / "led"
    writer = LedgerWriter.open(folder, "bench", lean=True)
    writer.append([_large(1, 100_000)], 1.0)
    assert writer.rotate(2.0) is None
    writer.append([_large(2, 100_000)], 3.0)
    assert not list((folder / "objects").rglob("*"))
    writer.append([_large(3, 2 << 20)], 4.0)
    assert [path.stat().st_size for path in (folder / "objects").rglob("*") if path.is_file()] == [2 << 20]
    writer.close()
    assert _pages(folder) == _pages(closed_volumes(folder)[0].folder) == LEAN_PAGE_BYTES
    back_up(folder, tmp_path / "backup", 5.0)
    for place in (folder, tmp_path / "backup"):
        assert verify(place).findings == ()
        with LedgerReader.open(place) as reader:
            kept = [record.payload for record in reader.records(RecordFilter(topic="v"))]
        assert kept == [b"\1" * 100_000, b"\2" * 100_000, b"\3" * (2 << 20)]
    writer = LedgerWriter.open(folder, "bench")
    writer.append([_large(4, 100_000)], 6.0)
    assert writer.rotate(7.0) is None
    writer.append([_large(5, 10)], 8.0)
    writer.close()
    assert _pages(folder) == PAGE_BYTES
    assert verify(folder).findings == ()


def test_its_log_is_copied_when_it_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_LEAN_LOG_BYTES", 300_000)
    folder = tmp_path / "led"
    writer = LedgerWriter.open(folder, "bench", lean=True)
    copies = 0
    for number in range(1, 41):
        writer.append([_large(number, 20_000)], 1.0)
        copies += bool(writer.copy_log())
    assert 2 <= copies <= 5
    assert (folder / "ledger.db-wal").stat().st_size < 600_000, "it is written again from its beginning"
    with LedgerReader.open(folder) as reader:
        assert reader.count() == 40
    writer.close()
    assert verify(folder).findings == ()


def test_one_transaction_for_batches_and_what_was_overheard(rig: Rig, transactions: list[float]) -> None:
    rig.recorder(sync_every_s=0.3, logs=True)
    writer = rig.record_writer()
    other = rig.link("stranger")
    for n in range(3):
        writer.record("record", "v", n, (), {})
        other.transport.publish("ether/1/bench/data/heard", b"1", timeout_s=patience(5))
    assert writer.flush(_deadline()) == 0
    assert soon(lambda: len([it for it in rig.records() if it.topic == "heard"]) == 3, 10)
    assert all(later - earlier >= 0.29 for earlier, later in pairwise(transactions))
