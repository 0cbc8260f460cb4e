"""What is recorded: another content under a number is a conflict, what somebody else acknowledged is a gap."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from attack_parts import PREFIX, SESSION, Attacker, Target, batch_opening, target
from engine_params import EMBEDDED
from patience import patience
from running_brokers import soon

from ether.ledger.reader import LedgerReader, RecordFilter
from ether.ledger.verify import verify
from ether.ledger.writer import LedgerWriter
from ether.recording.completeness_rules import Proof, prove
from ether.wire.entries import Batch, Entry, pack_batch, pack_entries

BOX = "0123456789abcdef"


@pytest.fixture(scope="module", params=EMBEDDED)
def attacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(request.param, tmp_path_factory.mktemp("recorded")) as session:
        yield session


def entry(number: int, value: int, entry_id: str = "") -> Entry:
    known = entry_id or str(uuid.UUID(int=number << 32 | (value & 0xFFFF)))
    return Entry(number, "data", "temperature", known, number, 1.0, (), "", "application/json", b"%d" % value)


def proof_of(reader: LedgerReader) -> Proof:
    return prove(reader.outboxes(), reader.duplicates(), (), reader.conflicts())


@pytest.mark.attack("M1", "another's saved values replaced", "a forged batch in the numbers of another's outbox")
def test_a_forged_batch_is_a_conflict_and_no_value_is_lost(attacked: Target) -> None:
    sensor, count = attacked.own.instance("sensor"), 20
    with Attacker(attacked.broker) as evil:
        sensor.record(value=0)
        box, source, head, _ = evil.wait_for(
            lambda it: (
                found
                if it.topic.startswith(f"{PREFIX}record/recorder") and (found := batch_opening(it.payload))
                and found[1] == "sensor" else None
            )
        )  # fmt: skip
        forged = [
            Entry(
                head + i,
                "record",
                "probed",
                str(uuid.uuid4()),
                10**6 + i,
                time.time(),
                (),
                "",
                "application/json",
                b"-273",
            )
            for i in range(1, count + 1)
        ]
        batch = pack_batch(box, source, head + count, [pack_entries(forged)])
        for _ in range(5):
            evil.send_batch(f"record/recorder/{source}", batch)
            evil.send_batch("record/recorder", batch)
        for value in range(1, count + 1):
            sensor.record(value=value)

    def real() -> set[object]:
        with LedgerReader.open(attacked.ledger) as reader:
            kinds = RecordFilter(kinds=("record", "conflict"), topic="probed")
            return {record.value for record in reader.records(kinds)}

    assert soon(lambda: real() >= set(range(count + 1)), 10)
    with LedgerReader.open(attacked.ledger) as reader:
        proof = proof_of(reader)
    if any(value == -273 for value in real()):
        assert proof.conflicts
        assert not proof.complete
        assert "conflicts" in str(proof)
    assert attacked.own.get("recorder", "proof")["conflicts"] or -273 not in real()


@pytest.mark.attack("M2", "a forged receipt", "`ack/<outbox>` for what no recorder has, while the recorder is away")
def test_what_somebody_else_acknowledged_is_a_gap(tmp_path: Path) -> None:
    """The outbox forgets what was acknowledged, so the next batch begins above what the ledger holds."""
    from ether.recording.recorder import Recorder

    writer = LedgerWriter.open(tmp_path / "ledger", SESSION)
    recorder = Recorder(folder=str(tmp_path / "ledger"))
    recorder._writer, recorder._name, recorder._folder = writer, "recorder", tmp_path / "ledger"
    writer.append([Batch(BOX, "sensor", 2, (entry(1, 1), entry(2, 2)))], 1.0)
    for given in (9, 0):
        batch = Batch(BOX, "sensor", 10, (entry(10, 10),), 9, given)
        joined = recorder._joined_to_ledger(batch)
        gap, *_ = joined.entries
        assert (gap.kind, gap.more["first"], gap.more["last"]) == ("gap", 3, 9)
        assert "not in this ledger any more" in str(gap.more["why"])
    writer.append([joined], 2.0)
    writer.close()
    with LedgerReader.open(tmp_path / "ledger") as reader:
        (missing,) = proof_of(reader).gaps
        assert (missing.first, missing.last) == (3, 9)


def test_a_second_content_under_a_number_is_kept_and_named(tmp_path: Path) -> None:
    writer = LedgerWriter.open(tmp_path, SESSION)

    def append(*entries: Entry, source: str = "sensor") -> None:
        writer.append([Batch(BOX, source, entries[-1].number, tuple(entries))], 1.0)

    append(entry(1, 1), entry(2, 2), entry(3, 3))
    append(entry(1, 1), entry(2, 2), entry(3, 3), entry(4, 4))
    assert (writer.conflicts, writer.repeated) == (0, 3)
    append(entry(2, -2), entry(3, -3))  # other ids
    append(entry(2, -2), entry(3, -3))  # again
    append(entry(4, -4, entry(4, 4).id))  # the same id, another content
    append(entry(5, 5), entry(5, -5), entry(6, 6))  # in one transaction
    append(entry(7, 7), source="evil")
    assert writer.conflicts == 4
    assert writer.highest(BOX) == 6
    writer.close()
    assert verify(tmp_path).ok
    with LedgerReader.open(tmp_path) as reader:
        assert [record.value for record in reader.records()] == [1, 2, 3, 4, 5, 6]
        conflicts = list(reader.records(RecordFilter(kinds=("conflict",))))
        assert [record.value for record in conflicts] == [-2, -3, -4, -5]
        assert conflicts[0].more["conflict"] == {"kind": "data", "outbox": BOX, "number": 2}
        proof = proof_of(reader)
    assert str(proof) == (
        "6 of 6 durable, 0 gaps, 0 duplicates, 4 conflicts\n"
        "  conflict 'temperature' from 'sensor': 4 entries under numbers that were taken"
        " (ether data --kind conflict shows them)"
    )
    assert not proof.complete
    assert not proof.in_order
    json.dumps(proof.conflicts)


def test_what_is_sent_again_after_a_restart_is_no_conflict(tmp_path: Path) -> None:
    for _ in range(3):
        writer = LedgerWriter.open(tmp_path, SESSION)
        writer.append([Batch(BOX, "sensor", 500, tuple(entry(n, n) for n in range(1, 501)))], 1.0)
        writer.close()
    assert writer.conflicts == 0


def test_a_source_whose_name_is_that_of_a_description_is_recorded(attacked: Target) -> None:
    attacked.own.add("about", {"class_path": "attack_parts.Sensor", "fork": False})  # a template would outlive the test
    assert attacked.own.get("about", "record", {"value": 5}, timeout_s=patience(20))
    attacked.own.remove("about")
