"""A broker that does not take what is to be saved: too large, no rights, or this one value. Over a broker in memory
that refuses as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from patience import patience
from running_brokers import soon

from ether.errors import NotSaved
from ether.ledger.verify import verify
from ether.recording.receipt_rules import RecorderAbout
from ether.transport.base import Delivery
from ether.wire.entries import Entry, pack_entry
from tests.recording.test_saving_parts import TOPICS, Rig, record

RECORD = TOPICS.record("recorder") + "/"
ABOUT = TOPICS.recorder("recorder")
TOO_LARGE, NOT_AUTHORIZED, QUOTA, FORMAT, UNSPECIFIED = 0x95, 0x87, 0x97, 0x99, 0x80


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr("ether.recording.batch_publisher._FIRST_PAUSE_S", 0.05)
    with ExitStack() as stack:
        yield Rig(tmp_path, stack)


def refusing(code: int, which: Callable[[Delivery], bool]) -> Callable[[Delivery], int]:
    return lambda message: code if message.topic.startswith(RECORD) and message.topic != ABOUT and which(message) else 0


@pytest.mark.parametrize("code", [TOO_LARGE, QUOTA, UNSPECIFIED])
@pytest.mark.parametrize("limit", [2_000, 50_000, 1_000_000])
def test_a_value_that_is_too_large_goes_in_parts(rig: Rig, code: int, limit: int) -> None:
    """Whatever the broker calls it."""
    rig.broker.max_packet_bytes = 1 << 28
    refused: list[int] = []

    def is_too_large(message: Delivery) -> bool:
        if len(message.payload) > limit:
            refused.append(len(message.payload))
        return len(message.payload) > limit

    rig.broker.refuses = refusing(code, is_too_large)
    rig.recorder()
    record_writer = rig.record_writer()
    before = record(record_writer, "before")
    large = record(record_writer, b"x" * 2_400_000)
    small = [record(record_writer, n) for n in range(100)]
    for saved in (before, large, *small):
        saved.wait(patience(20))
    assert [it.value for it in rig.records()][2:] == list(range(100))
    assert rig.records()[1].value == b"x" * 2_400_000
    assert not rig.records("recorder", "gap")
    tried = len(refused)
    for saved in [record(record_writer, b"y" * 1_500_000) for _ in range(5)]:
        saved.wait(patience(20))
    assert len(refused) == tried, "what the broker takes is known by now"
    assert verify(rig.folder / "recorder").findings == ()


@pytest.mark.parametrize("code", [FORMAT, UNSPECIFIED, QUOTA])
def test_a_value_that_the_broker_does_not_take_is_given_up_alone_and_named(rig: Rig, code: int) -> None:
    """A broker that inspects what is published. What stands before and behind it is saved."""
    rig.broker.refuses = refusing(code, lambda message: b"poison" in message.payload)
    rig.recorder()
    record_writer = rig.record_writer()
    record(record_writer, "first").wait()
    saved = [record(record_writer, "poison" if n in (37, 38, 160) else f"fine {n}") for n in range(300)]
    for n, each in enumerate(saved):
        if n in (37, 38, 160):
            with pytest.raises(NotSaved, match="the broker does not take it") as failed:
                each.wait(patience(20))
            assert failed.value.lost
        else:
            each.wait(patience(20))
    assert [it.value for it in rig.records()] == ["first", *(f"fine {n}" for n in range(300) if n not in (37, 38, 160))]
    gaps = rig.records("recorder", "gap")
    assert [(gap.more["first"], gap.more["topics"]) for gap in gaps] == [
        # The first number of the outbox is that of the note of the clock.
        (40, {"value": [39, 39, 1]}), (41, {"value": [40, 40, 1]}), (163, {"value": [162, 162, 1]})
    ]  # fmt: skip
    assert all("the broker does not take it" in str(gap.more["why"]) for gap in gaps)
    assert record_writer.flush(_deadline()) == 0


@pytest.mark.parametrize("code", [NOT_AUTHORIZED, QUOTA])
def test_where_nothing_passes_nothing_is_given_up_and_who_waits_is_told(
    rig: Rig, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The rights are wrong. When they are mended, everything is saved."""
    refused = threading.Event()
    rig.broker.refuses = refusing(code, lambda message: refused.set() or True)
    rig.recorder()
    record_writer = rig.record_writer()
    saved = [record(record_writer, b"%d" % n * 1000) for n in range(50)]
    assert refused.wait(patience(5))
    with pytest.raises(
        NotSaved, match=r"the broker does not take what is sent to recorder: (not authorized|quota)"
    ) as told:
        saved[-1].wait(patience(10))
    assert not told.value.lost
    rig.broker.refuses = lambda message: 0
    assert soon(lambda: all(each.done for each in saved), 20)
    assert [it.value for it in rig.records()] == [b"%d" % n * 1000 for n in range(50)]
    messages = [record.getMessage() for record in caplog.records]
    assert len([said for said in messages if "camera cannot save" in said]) == 1, "also where nobody waits"
    assert "the broker takes again what is sent to recorder" in messages
    assert not [said for said in messages if "reaches nobody" in said]
    assert not rig.records("recorder", "gap")


def test_a_large_value_that_the_dead_have_left(rig: Rig) -> None:
    """A later life takes the outbox over, and the broker still has its limit."""
    from ether.recording.outbox_file import OutboxFile

    file = OutboxFile.create(rig.folder / "outbox", "camera")
    file.append([
        (n, pack_entry(Entry(n, "data", "t", f"id{n}", n, 1.0, (), "", None, b"x" * size)))
        for n, size in enumerate([10, 2_400_000, 10], 1)
    ])  # fmt: skip
    file.close()
    rig.broker.refuses = refusing(TOO_LARGE, lambda message: len(message.payload) > 1_000_000)
    rig.recorder()
    record_writer = rig.record_writer()
    record_writer.adopt()
    assert soon(lambda: len(rig.records()) == 3, 10)
    assert [len(it.payload) for it in rig.records()] == [10, 2_400_000, 10]
    record(record_writer, "own").wait(patience(10))


def test_a_recorder_that_starts_again_in_the_middle_of_the_parts(rig: Rig) -> None:
    rig.broker.refuses = refusing(TOO_LARGE, lambda message: len(message.payload) > 20_000)
    recorder, record_writer = rig.recorder(), rig.record_writer()
    record(record_writer, "first").wait()
    saved = [record(record_writer, bytes([n]) * 1_000_000) for n in range(5)]
    recorder.detach()
    rig.links["recorder"].close()
    rig.recorder()
    for each in saved:
        each.wait(patience(20))
    assert [it.value for it in rig.records()][1:] == [bytes([n]) * 1_000_000 for n in range(5)]
    assert not rig.records("recorder", "gap")


def test_two_recorders_and_one_of_them_cannot_be_reached(rig: Rig) -> None:
    rig.recorder("recorder")
    rig.recorder("second")
    rig.broker.refuses = refusing(NOT_AUTHORIZED, lambda message: True)
    record_writer = rig.record_writer()
    for saved in [record(record_writer, n) for n in range(20)]:
        saved.wait(patience(10))
    assert [it.value for it in rig.records("second")] == list(range(20))
    rig.broker.refuses = lambda message: 0
    assert soon(lambda: len(rig.records("recorder")) == 20, 10)


def test_a_broker_that_drops_what_is_too_large_without_a_word(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Mosquitto's message_size_limit does to a client of MQTT 3.1.1: it acknowledges, and delivers nothing."""
    from ether.transport.loopback import LoopbackBroker, LoopbackTransport

    route = LoopbackBroker.route
    monkeypatch.setattr(LoopbackTransport, "tells_size", False)
    monkeypatch.setattr("ether.recording.send_window_rules.RESEND_S", 0.2)

    def dropping(self: LoopbackBroker, message: Delivery) -> int:
        return (
            0
            if message.topic.startswith(RECORD) and message.topic != ABOUT and len(message.payload) > 5_000
            else route(self, message)
        )

    monkeypatch.setattr(LoopbackBroker, "route", dropping)
    rig.recorder()
    record_writer = rig.record_writer()
    saved = [record(record_writer, "first"), record(record_writer, b"x" * 300_000), record(record_writer, "last")]
    for each in saved:
        each.wait(patience(20))
    assert [len(it.payload) for it in rig.records()] == [7, 300_000, 6]


def _deadline() -> object:
    from ether.connection.deadline import Deadline

    return Deadline(patience(10))


def test_what_recorders_say_of_themselves_is_as_before() -> None:
    about = RecorderAbout("recorder", "birth", None)
    assert RecorderAbout.from_value("recorder", about.to_value()) == about


def test_a_recorder_of_before_gets_batches_as_it_knows_them(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It speaks version 1 of the wire: a fifth value in a batch's opening, what it has acknowledged, is an error to it,
    and so nothing would be saved after its first receipt."""
    openings: list[list[object]] = []
    described = RecorderAbout.to_value

    def seen(message: Delivery) -> int:
        if message.topic == TOPICS.record("recorder"):
            size = int.from_bytes(message.payload[4:8], "big")
            openings.append(json.loads(message.payload[12 : 12 + size]))
        return 0

    monkeypatch.setattr(RecorderAbout, "to_value", lambda about: {**described(about), "wire": 1})
    rig.broker.refuses = seen
    rig.recorder()
    record_writer = rig.record_writer()
    for n in range(3):
        record(record_writer, n).wait(patience(10))
    assert len(openings) >= 3
    assert {len(opening) for opening in openings} == {4}
