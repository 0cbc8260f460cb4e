"""The saving side and the recorder over a broker in memory: limits, several recorders, garbage, what the dead left."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from loopback_rig import TOPICS, Rig
from patience import patience
from running_brokers import soon

from ether.connection.deadline import Deadline
from ether.errors import LedgerFull, NotSaved, OutboxFull, PayloadTooLarge, TransportClosed
from ether.ledger.reader import LedgerReader
from ether.ledger.writer import LedgerWriter
from ether.protocol.record_notes import CLOCK
from ether.recording.age_rules import WaitingTimes
from ether.recording.completeness_rules import prove
from ether.recording.outbox_file import OutboxFile
from ether.recording.passive_capture import disjoint
from ether.recording.receipt_rules import ReceiptTable, RecorderAbout
from ether.recording.recorder import Recorder
from ether.recording.saved import Saved
from ether.recording.writer import RecordWriter, WhenFull
from ether.transport.loopback import LoopbackTransport
from ether.wire.entries import Entry, pack_batch, pack_entry
from ether.wire.topics import matches

CLOCK_NOTES = 1
"""Each process notes with the first thing that it saves how its machine's clock stands."""


def record(record_writer: RecordWriter, value: object, name: str = "value") -> Saved:
    return record_writer.record("record", name, value, (), {})


def publish(record_writer: RecordWriter, value: object, topic: str) -> Saved:
    return record_writer.publish(topic, TOPICS.data(topic), value, 1, (), {})


# -- saving


def test_what_is_saved_is_on_disk_in_order(rig: Rig) -> None:
    rig.recorder()
    record_writer = rig.record_writer()
    kept = [record(record_writer, n) for n in range(2000)]
    for saved in kept:
        saved.wait()
    assert all(saved.done for saved in kept)
    assert [it.value for it in rig.records()] == list(range(2000))
    assert record_writer.flush(Deadline(1)) == 0


def test_nobody_records_and_then_somebody_does(rig: Rig) -> None:
    record_writer = rig.record_writer()
    asked = threading.Event()
    record_writer.ask_for_recorder = asked.set
    saved = record(record_writer, 1)
    with pytest.raises(NotSaved, match="nobody records in this session") as refused:
        saved.wait(0.05)
    assert not refused.value.lost
    assert asked.wait(patience(5))
    rig.recorder()
    saved.wait()


def test_a_recorder_that_ends_on_a_slow_disk_leaves_its_ledger_to_the_thread_that_writes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorder, record_writer = rig.recorder(), rig.record_writer()
    record(record_writer, 1).wait()
    writes, may_go_on, closed_by = threading.Event(), threading.Event(), []
    append, close = LedgerWriter.append, LedgerWriter.close

    def slow_append(self: LedgerWriter, *args: Any) -> dict[str, int]:
        writes.set()
        assert may_go_on.wait(patience(20))
        return append(self, *args)

    def noted_close(self: LedgerWriter) -> None:
        closed_by.append(threading.current_thread())
        close(self)

    monkeypatch.setattr(LedgerWriter, "append", slow_append)
    monkeypatch.setattr(LedgerWriter, "close", noted_close)
    monkeypatch.setattr("ether.recording.recorder._CLOSE_S", 0.05)
    record(record_writer, 2)
    assert writes.wait(patience(5))
    recorder.detach()
    assert not closed_by, "closed while its own thread was in the middle of a batch"
    may_go_on.set()
    assert recorder._thread is not None
    recorder._thread.join(patience(10))
    assert closed_by == [recorder._thread]
    assert [it.value for it in rig.records()] == [1, 2]
    assert not [each for each in caplog.records if each.exc_info]


def test_an_interrupted_wait_leaves_batching_on(rig: Rig) -> None:
    record_writer = rig.record_writer()
    saved = record(record_writer, 1)
    waits = record_writer._queue

    def interrupt() -> None:
        assert soon(lambda: waits._waiters == 1, 10)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        saved.wait(20)
    interrupting.join()
    assert record_writer._queue._waiters == 0


def test_two_threads_that_record_first_explain_once_and_hold_no_lock_meanwhile(rig: Rig) -> None:
    rig.recorder()
    record_writer = rig.record_writer()
    explaining, may_go_on, explained = threading.Event(), threading.Event(), []

    def explain() -> list[Entry]:
        explained.append(1)
        explaining.set()
        assert may_go_on.wait(patience(10))
        return [Entry(0, "context", "", "c1", 0, 0.0, (), "", None, b"", {})]

    record_writer.explain = explain
    threads = [threading.Thread(target=record, args=(record_writer, number)) for number in range(3)]
    for thread in threads:
        thread.start()
    assert explaining.wait(patience(5))
    assert record_writer._turn.acquire(timeout=patience(1))
    record_writer._turn.release()
    may_go_on.set()
    for thread in threads:
        thread.join(patience(10))
    assert explained == [1]
    assert record_writer.flush(Deadline(10)) == 0
    assert sorted(it.value for it in rig.records()) == [0, 1, 2]


def test_closing_does_not_wait_for_nobody(rig: Rig) -> None:
    recorder, record_writer = rig.recorder(), rig.record_writer()
    record(record_writer, 1).wait()
    recorder.detach()
    record(record_writer, 2)
    began = time.monotonic()
    record_writer.close(patience(30))
    assert time.monotonic() - began < patience(5)
    [left] = rig.waiting()
    assert left.name.startswith("camera~")
    with pytest.raises(TransportClosed, match="camera has left the session"):
        record(record_writer, 3)


def test_closing_does_not_wait_for_a_broker_that_is_away(rig: Rig) -> None:
    rig.recorder()
    record_writer = rig.record_writer()
    record(record_writer, 1).wait()
    rig.broker.stop()
    record(record_writer, 2)
    began = time.monotonic()
    record_writer.close(patience(30))
    assert time.monotonic() - began < patience(5)
    rig.broker.start()


# -- the limits


def fill(record_writer: RecordWriter, **more: Any) -> list[Saved]:
    """Ten times the limit of 100,000 bytes, as slowly as the outbox's thread works."""
    kept = []
    for n in range(100):
        kept.append(publish(record_writer, {"n": n, "pad": "x" * 10_000}, f"t{n % 2}"))
        if n % 5 == 4:
            threading.Event().wait(more.get("pause_s", 0.0))
    return kept


def test_at_the_limit_who_saves_is_blocked_and_then_told(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ether.recording.writer.ROOM_S", 0.3)
    record_writer = rig.record_writer(topics=None, max_bytes=100_000)
    with pytest.raises(OutboxFull, match=r"camera is full \(100,000 bytes"):
        fill(record_writer)
    monkeypatch.setattr("ether.recording.writer.ROOM_S", 30.0)
    waiting = threading.Thread(target=publish, args=(record_writer, "last", "t0"))
    waiting.start()
    rig.recorder()
    waiting.join(patience(20))
    assert not waiting.is_alive(), "there is room again"
    assert record_writer.flush(Deadline(10)) == 0
    values = [it.value for it in rig.records()]
    assert values[-1] == "last"
    assert [it["n"] for it in values[:-1]] == list(range(len(values) - 1))


@pytest.mark.parametrize("policy", [WhenFull.DROP_OLDEST, WhenFull.DROP_NEW])
def test_at_the_limit_the_oldest_or_the_newest_is_given_up_and_named(
    rig: Rig, policy: WhenFull, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ether.recording.sender._LOOK_S", 0.01)
    record_writer = rig.record_writer(topics=None, max_bytes=100_000, when_full=policy)
    kept = fill(record_writer, pause_s=0.02)
    oldest = policy is WhenFull.DROP_OLDEST
    given_up = kept[0] if oldest else kept[-1]
    with pytest.raises(NotSaved, match=r"is not saved: the outbox was full\. It is lost") as refused:
        given_up.wait(5)
    assert refused.value.lost
    assert not given_up.done
    assert soon(lambda: record_writer._queue.waiting_bytes <= 130_000, 5), "bounded"
    rig.recorder()
    assert record_writer.flush(Deadline(10)) == 0
    there = {it.value["n"] for it in rig.records()}  # type: ignore[index,call-overload]
    assert (99 in there, 0 in there) == (oldest, not oldest)
    assert {n for n, saved in enumerate(kept) if saved.done} == there
    missing = set(range(100)) - there
    with LedgerReader.open(rig.folder / "recorder") as reader:
        proof = prove(reader.outboxes(), reader.duplicates())
    named = {(gap.topic, gap.source, gap.why): gap for gap in proof.gaps}
    assert named.keys() == {
        (topic, "camera", "the outbox was full") for topic in ("t0", "t1", *([CLOCK] if oldest else []))
    }
    assert (proof.durable, proof.total) == (len(there) + (0 if oldest else CLOCK_NOTES), 100 + CLOCK_NOTES)
    for rest in (0, 1):
        gap = named[f"t{rest}", "camera", "the outbox was full"]
        lost = [n // 2 + 1 for n in sorted(missing) if n % 2 == rest]  # a topic's messages are numbered from 1
        assert (gap.first, gap.last, gap.count) == (lost[0], lost[-1], len(lost))


def test_what_is_too_old_is_given_up_at_once_however_much_it_is(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ether.recording.sender._LOOK_S", 0.05)
    record_writer = rig.record_writer(max_age_s=0.5)
    kept = [record(record_writer, n) for n in range(3000)]
    with pytest.raises(NotSaved, match=r"older than 0\.5 s. It is lost"):
        kept[-1].wait(20)
    # A busy disk may take longer than half a second for what comes now, which is not what this is about.
    assert record_writer._sender is not None
    record_writer._sender._waiting_times = WaitingTimes(3600.0)
    rig.recorder()
    young = record(record_writer, "young")
    young.wait(patience(20))
    assert [it.value for it in rig.records()][-1] == "young"
    with LedgerReader.open(rig.folder / "recorder") as reader:
        proof = prove(reader.outboxes(), 0)
    assert sum(gap.count for gap in proof.gaps) + proof.durable == proof.total == 3001 + CLOCK_NOTES


def left_behind(folder: Path, source: str, row: bytes) -> Path:
    """The outbox of a process that has died, with one row."""
    file = OutboxFile.create(folder, source)
    file.append([(1, row)])
    file.close()
    return file.path


def test_an_orphan_whose_row_cannot_be_read_is_put_aside_and_the_others_are_sent(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    folder = rig.folder / "outbox"
    damaged = left_behind(folder, "a", b"this is no block of entries")
    entry = Entry(1, "record", "value", "00000000-0000-7000-8000-000000000001", 1, 1e9, (), "", None, b'"left"')
    whole = left_behind(folder, "b", pack_entry(entry))
    rig.recorder()
    record(rig.record_writer(), "own").wait(patience(5))
    assert soon(lambda: not whole.exists(), 10)
    assert soon(lambda: {it.value for it in rig.records()} == {"own", "left"}, 10)
    assert Path(f"{damaged}.damaged").exists()
    assert "an outbox that was left behind is damaged" in caplog.text
    assert f"{damaged}.damaged" in caplog.text


def test_memory_is_bounded_where_the_disk_of_the_outbox_takes_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    from ether.errors import OutboxFailed

    def fail(file: OutboxFile, rows: object) -> None:
        raise OutboxFailed(str(file.path), sqlite3.OperationalError("database or disk is full"))

    monkeypatch.setattr("ether.recording.sender._LOOK_S", 0.01)
    record_writer = rig.record_writer(topics=None, max_bytes=100_000, when_full=WhenFull.DROP_OLDEST)
    with monkeypatch.context() as disk:
        disk.setattr(OutboxFile, "append", fail)
        kept = fill(record_writer, pause_s=0.02)
        with pytest.raises(NotSaved, match="the outbox was full"):
            kept[0].wait(5)
        assert soon(lambda: record_writer._queue.waiting_bytes <= 100_000, 5)
    rig.recorder()
    assert record_writer.flush(Deadline(10)) == 0
    assert {n for n, saved in enumerate(kept) if saved.done} == {it.value["n"] for it in rig.records()}  # type: ignore[index,call-overload]
    assert kept[-1].done


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
def test_only_the_thread_that_writes_gives_way(rig: Rig) -> None:
    """A process that did would pass it on to all that it starts."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    rig.recorder("first")
    rig.recorder("second")
    writers = [thread.native_id or 0 for thread in threading.enumerate() if thread.name == "ether-recorder"]
    assert soon(lambda: {os.getpriority(os.PRIO_PROCESS, writer) for writer in writers} == {max(before, 5)}, 5)
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


# -- several recorders


def test_a_receipt_of_who_does_not_record_it_saves_nothing(rig: Rig) -> None:
    rig.recorder("second", ["a/#"])
    record_writer = rig.record_writer(topics=("a/#", "b"))
    first, other = publish(record_writer, 1, "a/x"), publish(record_writer, 2, "b")
    first.wait()
    with pytest.raises(NotSaved, match="no recorder has acknowledged it"):
        other.wait(0.3)
    assert not other.done
    asked = record_writer.publish("b", TOPICS.data("b"), 3, 1, (), {"asked": True})
    asked.wait()
    rig.recorder("recorder", ["a/#", "b"])
    other.wait()
    assert [it.value for it in rig.records()] == [2, 3], "what the other one had before was forgotten up to there"
    assert [it.value for it in rig.records("second")] == [1, 3]


def test_two_recorders_have_each_its_own(rig: Rig) -> None:
    rig.recorder("one", ["a/#"])
    rig.recorder("two", ["b/#"])
    record_writer = rig.record_writer(topics=("a/#", "b/#"))
    for n in range(200):
        publish(record_writer, n, "a/x" if n % 2 else "b/x")
    assert record_writer.flush(Deadline(10)) == 0
    assert [it.value for it in rig.records("one")] == list(range(1, 200, 2))
    assert [it.value for it in rig.records("two")] == list(range(0, 200, 2))
    for name in ("one", "two"):
        with LedgerReader.open(rig.folder / name) as reader:
            proof = prove(reader.outboxes(), reader.duplicates())
        # A hundred values, and how the clock of the machine stands, which each recorder gets.
        assert (str(proof), proof.skipped) == ("101 of 101 durable, 0 gaps, 0 duplicates", 100)


class Stalling:
    """A writer's disk that takes its time, until it is let go."""

    def __init__(self, recorder: Recorder) -> None:
        self.let_go = threading.Event()
        self._append = recorder._writer.append
        recorder._writer.append = self._wait  # type: ignore[method-assign]

    def _wait(self, *given: Any) -> Any:
        self.let_go.wait(patience(30))
        return self._append(*given)


def test_a_recorder_that_hangs_holds_nobody_up_and_nothing_is_forgotten_before_it_has_it(rig: Rig) -> None:
    rig.recorder("one")
    stalling = Stalling(rig.recorder("two"))
    record_writer = rig.record_writer()
    for n in range(20):
        record(record_writer, n).wait(patience(5))
    assert [it.value for it in rig.records("one")] == list(range(20))
    assert record_writer._sender is not None
    assert record_writer._sender._own.base == 0
    stalling.let_go.set()
    assert soon(lambda: len(rig.records("two")) == 20, 10)
    assert soon(lambda: record_writer._sender is not None and record_writer._sender._own.file.count == 0, 5)


def test_a_recorder_that_left_is_not_waited_for(rig: Rig) -> None:
    rig.recorder("one")
    two = rig.recorder("two")
    record_writer = rig.record_writer()
    record(record_writer, 1).wait()
    two.detach()
    for n in range(5):
        record(record_writer, n).wait()
    assert soon(lambda: record_writer._sender is not None and record_writer._sender._own.file.count == 0, 5)


@pytest.mark.slow("waits for a recorder in trouble")
def test_one_recorder_in_trouble_is_no_trouble_where_another_writes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = rig.recorder("good"), rig.recorder("bad")
    full = LedgerFull(rig.folder / "bad", 0)

    def fail(*_: object) -> dict[str, int]:
        raise full

    with monkeypatch.context() as disk:
        disk.setattr(bad._writer, "append", fail)
        record_writer = rig.record_writer()
        for n in range(10):
            record(record_writer, n).wait(patience(5))
        disk.setattr(good._writer, "append", fail)
        began = time.monotonic()
        with pytest.raises(NotSaved, match="cannot record: the disk of the ledger"):
            record(record_writer, 10).wait()
        assert time.monotonic() - began < patience(4), "at once, not after the ten seconds of a wait"
    assert record_writer.flush(Deadline(10)) == 0
    # That is told by the first of the two that has it.
    assert soon(lambda: [it.value for it in rig.records("bad")] == list(range(11)), 10)


# -- strangers, garbage, the largest


def test_what_was_overheard_waits_for_the_disk_and_what_does_not_fit_is_named(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ether.recording.recorder._CAPTURED_MOST", 10)
    recorder = rig.recorder()
    stranger = LoopbackTransport(rig.broker, "stranger")
    stranger.connect(1)

    def fail(*_: object) -> None:
        raise LedgerFull(rig.folder, 0)

    with monkeypatch.context() as disk:
        disk.setattr(recorder._writer, "append", fail)
        for n in range(25):
            stranger.publish(TOPICS.data("strange"), b"%d" % n)
            assert soon(lambda: recorder._queue.qsize() == 0, 10)
        assert soon(lambda: recorder._problem != "", 10)
    assert soon(lambda: recorder._problem == "", 5)
    stranger.close()
    assert [it.value for it in rig.records()] == list(range(10))
    [gap] = rig.records("recorder", "gap")
    assert gap.more == {"first": 1, "last": 15, "why": "overheard while the disk took nothing or too little"}


@pytest.mark.parametrize("filters", [["a/+", "+/b"], ["a/#", "a/b"], ["a/b", "a/b"], ["#"]])
def test_a_strangers_message_is_recorded_once_whatever_covers_it(rig: Rig, filters: list[str]) -> None:
    rig.recorder(topics=filters)
    stranger = LoopbackTransport(rig.broker, "stranger")
    stranger.connect(1)
    stranger.publish(TOPICS.data("a/b"), b"5")
    stranger.publish(TOPICS.data("c"), b"6")
    stranger.close()
    expected = [("a/b", "mqtt", 5)] + ([("c", "mqtt", 6)] if filters == ["#"] else [])
    assert soon(lambda: len(rig.records()) >= len(expected), 5)
    record(rig.record_writer(), "last").wait()
    assert [(it.topic, it.source, it.value) for it in rig.records()][:-1] == expected


def test_filters_become_such_that_no_two_cover_the_same() -> None:
    assert disjoint(["a", "b/#", "c/+"]) == ["a", "b/#", "c/+"]
    assert disjoint(["a/b", "a/#", "a"]) == ["a/#"]
    assert disjoint(["a/+", "+/b", "c"]) == ["#"]
    assert disjoint(["x/a/+", "y", "x/+/b"]) == ["y", "x/#"]


GARBAGE = [
    b"", b"\x00", b"{}", b"[]", b"null", b'"text"', b"\xff\xfe", b"\x00EB2", b"\x00EB2" + b"\xff" * 40,
    b'{"outbox": 5}', b'{"outbox": "", "recorder": "recorder", "birth": "", "upto": 1e400}',
    pack_batch("0" * 16, "x", 3, [pack_entry(Entry(-5, "data", "t", "", 0, 0.0, (), "", None, b""))]),
    pack_batch("1" * 16, "x", 1 << 70, [pack_entry(Entry(1, "data", "t", "", 1 << 70, 0.0, (), "", None, b""))]),
    pack_batch("2" * 16, "x", -1, [], 1 << 80),
    pack_batch("3" * 16, "x", 1, [b"\x00" * 8]),
]  # fmt: skip


def test_garbage_on_our_topics_harms_nothing(rig: Rig) -> None:
    rig.recorder()
    record_writer = rig.record_writer()
    record(record_writer, 1).wait()
    assert record_writer._sender is not None
    outbox = record_writer._sender._own.outbox
    stranger = rig.link("stranger")
    [about] = record_writer.recorders()
    forged = {"outbox": outbox, "recorder": "recorder", "birth": about.incarnation, "upto": 10**9}
    for topic in (TOPICS.record("recorder"), TOPICS.ack(outbox), TOPICS.recorder("recorder"), TOPICS.recorder("x")):
        for garbage in GARBAGE[1:]:
            stranger.transport.publish(topic, garbage)
            stranger.publish(topic, garbage)
    stranger.transport.publish(TOPICS.record("recorder"), b"")
    stranger.publish(TOPICS.ack(outbox), forged)
    for n in range(5):
        record(record_writer, n).wait()
    assert [it.name for it in record_writer.recorders()] == ["recorder"]
    assert [it.value for it in rig.records("recorder", "record")] == [1, 0, 1, 2, 3, 4]


def test_the_largest_message_and_one_more_byte(rig: Rig) -> None:
    rig.recorder()
    record_writer = rig.record_writer()
    limit = rig.broker.max_packet_bytes - 65_536
    for keep in (lambda value: record(record_writer, value), lambda value: publish(record_writer, value, "large")):
        keep(b"x" * limit).wait()
        with pytest.raises(PayloadTooLarge):
            keep(b"x" * (limit + 1))
    assert [len(it.payload) for it in rig.records()] == [limit, limit]
    record(record_writer, "goes on").wait()


def test_a_broker_that_takes_less_than_the_last_one(rig: Rig) -> None:
    """What was left behind under a broker with a larger limit goes in parts."""
    file = OutboxFile.create(rig.folder / "outbox", "camera")
    sizes = [10, 300_000, 10, 60_000, 60_000, 10]
    file.append([
        (n, pack_entry(Entry(n, "data", "t", f"id{n}", n, 1.0, (), "", None, b"x" * size)))
        for n, size in enumerate(sizes, 1)
    ])  # fmt: skip
    file.close()
    rig.broker.max_packet_bytes = 100_000
    rig.recorder()
    record_writer = rig.record_writer()
    record_writer.adopt()
    assert soon(lambda: len(rig.records()) == 6, 10)
    assert [len(it.payload) for it in rig.records()] == sizes
    assert not rig.records("recorder", "gap")


# -- what the dead have left


def test_what_the_dead_have_left_is_sent_once_though_several_want_it(rig: Rig) -> None:
    for n in range(5):
        file = OutboxFile.create(rig.folder / "outbox", f"dead{n}")
        file.append([
            (number, pack_entry(Entry(number, "record", "v", f"{n}-{number}", number, 1.0, (), "", None, b"1")))
            for number in range(1, 301)
        ])  # fmt: skip
        file.close()
    rig.recorder()
    savers = [rig.record_writer(f"heir{n}") for n in range(4)]
    threads = [threading.Thread(target=record_writer.adopt) for record_writer in savers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert soon(lambda: len(rig.records()) == 1500, 10)
    assert len({it.id for it in rig.records()}) == 1500
    assert soon(lambda: not [path for path in rig.waiting() if path.name.startswith("dead")], 10)


def test_an_earlier_life_of_ones_own_is_taken_over(rig: Rig) -> None:
    for source in ("camera", "other"):
        file = OutboxFile.create(rig.folder / "outbox", source)
        file.append([(1, pack_entry(Entry(1, "record", "v", source, 1, 1.0, (), "", None, b"1")))])
        file.close()
    rig.recorder()
    rig.record_writer("nobody").adopt("nobody")
    rig.record_writer("cam").adopt("cam")
    assert len(rig.waiting()) == 2, "who has nothing there begins nothing"
    rig.record_writer("camera").adopt("camera")
    assert soon(lambda: len(rig.records()) == 2, 10)


# -- what stands where


def test_what_was_given_up_is_remembered_in_few_spans() -> None:
    receipts = ReceiptTable(matches)
    for n in range(1, 5000):
        receipts.lost(n, n, "full")
    assert receipts.why_lost(1) == receipts.why_lost(4999) == "full"
    assert receipts.why_lost(5000) == ""
    assert len(receipts._lost) == 1
    for n in range(6000, 10_000, 2):
        receipts.lost(n, n, "full")
    assert len(receipts._lost) <= 1000
    assert receipts.why_lost(6000) == "full", "never called saved"
    receipts.lost(6000, 11_000, "old")
    assert (receipts.why_lost(9001), receipts.why_lost(1)) == ("old", "full")


def test_a_recorders_word_counts_for_what_it_keeps() -> None:
    receipts = ReceiptTable(matches)
    assert receipts.saved({("a/#",): 10})
    assert not receipts.saved({("a/#",): 9})
    assert receipts.is_saved(10, "a/b")
    assert receipts.is_saved(10, None)
    assert not receipts.is_saved(10, "b")
    narrow, wide = RecorderAbout("n", "1", ("a/#",)), RecorderAbout("w", "2", None)
    assert receipts.settled_to([narrow]) == 10
    assert receipts.settled_to([narrow, wide]) == 0
    assert receipts.settled_to([]) == 10, "who has it may have left"
    receipts.troubled({"n": "full"})
    assert receipts.problem("a/b", [narrow]) == "full"
    assert receipts.problem("a/b", [narrow, wide]) == receipts.problem("b", [narrow]) == ""


def test_a_session_that_saves_nothing_pays_nothing(rig: Rig) -> None:
    before = threading.active_count()
    record_writer = rig.record_writer()
    assert not record_writer.wants("anything")
    record_writer.adopt()
    assert threading.active_count() <= before + 1, "but for the link's own"
    assert not (rig.folder / "outbox").exists()
