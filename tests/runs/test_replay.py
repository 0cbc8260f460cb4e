"""A recording played into live processes: the same results, bit for bit; the recorded rhythm; marked as a replay."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_params import EVERY, EVERY_AND_3_1_1
from ledgers import BEGAN, Source, make_ledger
from patience import patience
from running_brokers import ONLY_3_1_1, session_broker

from ether import Ether
from ether.errors import InvalidName, NoLedger, NotJoined, QueryMistake
from ether.ledger.writer import LedgerWriter
from ether.reading.data import Data
from ether.runs.replay import IS_ELSEWHERE, IS_REPLAY, IS_UNREADABLE
from ether.transport.base import ProtocolVersion
from ether.wire.codec import JSON, OCTETS, Body, encode
from ether.wire.head import REPLAY, unpack_properties

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "dual_processors"

PIPELINE = {
    "processor1": {"class_path": "dual_processors.DataProcessor", "kwargs": {"name": "double", "multiplier": 2}},
    "processor2": {"class_path": "dual_processors.DataProcessor", "kwargs": {"name": "quadruple", "multiplier": 4}},
    "filter": {"class_path": "replay_parts.Filter"},
}
VALUES = [0, 7, -3, 2**53 - 1, 123_456_789]
RESULTS = 3 * len(VALUES)
TIMEOUT_S = patience(20.0)
pytestmark = pytest.mark.in_turn("engine")


class Heard:
    """Everything that passes on some topics, as it arrived."""

    def __init__(self, ether: Ether, *topics: str) -> None:
        self.messages: list[tuple[str, Any, Any, bytes, bytes]] = []
        self._changed = threading.Condition()
        client = ether._joined("a test")
        self._link, self._topics = client.link, client.topics
        self._filters = [client.topics.data_filter(topic) for topic in topics]
        self._receivers = [lambda inbound: self._take(inbound) for _ in topics]
        for topic, receiver in zip(self._filters, self._receivers, strict=True):
            self._link.listen(topic, receiver)

    def _take(self, inbound: Any) -> None:
        value, headers = inbound.unpack()
        topic = self._topics.user_topic(inbound.delivery.topic)
        with self._changed:
            self.messages.append((topic, value, headers, inbound.delivery.payload, inbound.delivery.properties))
            self._changed.notify_all()
        inbound.done()

    def wait_for(self, count: int) -> list[tuple[str, Any, Any, bytes, bytes]]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.messages) >= count, TIMEOUT_S), self.messages
            return list(self.messages)

    def close(self) -> None:
        for topic, receiver in zip(self._filters, self._receivers, strict=True):
            self._link.unlisten(topic, receiver)


@contextmanager
def session(
    engine: str, instances: dict[str, Any] | None = None, name: str | None = None, **more: Any
) -> Iterator[Ether]:
    with session_broker(engine) as broker, Ether() as own:
        own.tap({"instances": instances or {}, **more}, session=name, broker=broker)
        yield own


@contextmanager
def listening(ether: Ether, *topics: str) -> Iterator[Heard]:
    heard = Heard(ether, *topics)
    try:
        yield heard
    finally:
        heard.close()


@pytest.fixture(scope="module")
def joined() -> Iterator[Ether]:
    """A session without instances, for what is the same on each engine."""
    with session("amqtt") as ether:
        yield ether


def signal(number: int) -> dict[str, Any]:
    return {"samples": np.random.default_rng(number).normal(size=64), "gain": 0.1 * number}


def results_of(data: Data) -> dict[str, list[Body]]:
    """The bodies of the results as they were kept, by who made them, in order."""
    found: dict[str, list[Body]] = {}
    for record in data:
        if record.topic in ("result", "filtered"):
            found.setdefault(record.source, []).append(record.body)
    return found


@pytest.mark.parametrize("engine", EVERY)
def test_a_recording_gives_the_same_results_bit_for_bit(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session is recorded; its inputs are played into another one, by the call and by the command, and recorded."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with session(engine, PIPELINE, "past", record="all") as ether, listening(ether, "result", "filtered") as heard:
        for number, value in enumerate(VALUES):
            ether.pub({"data": value}, "data")
            ether.pub(signal(number), "signal")
        heard.wait_for(RESULTS)
    past = Ether().data("past")
    wanted = results_of(past)
    assert {name: len(bodies) for name, bodies in wanted.items()} == dict.fromkeys(PIPELINE, len(VALUES))
    with session(engine, PIPELINE, "again", record="all") as ether, listening(ether, "result", "filtered") as heard:
        played = ether.play("past", "data", speed="max")
        assert (played.messages, played.topics, played.skipped) == (5, {"data": 5}, {})
        command = [
            sys.executable,
            "-m",
            "ether.cli.main",
            "play",
            "past",
            "-T",
            "signal",
            "--speed",
            "max",
            "-s",
            "again",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience(60), check=False)
        assert done.stdout.startswith("5 messages in "), done
        heard.wait_for(RESULTS)
    again = Ether().data("again")
    assert results_of(again) == wanted
    inputs = {record.id: record for record in past if record.topic in ("data", "signal")}
    replays = {record.id: record for record in again if record.topic in ("data", "signal")}
    assert {record.replay_of for record in replays.values()} == set(inputs)
    for record in replays.values():
        assert record.parents == (record.replay_of,)
        assert (record.body, record.topic) == (inputs[record.parents[0]].body, inputs[record.parents[0]].topic)
    for record in again:
        assert record.id in replays or record.parents[0] in replays  # every result leads back to the recording
    assert len(again) == len(past) == 2 * len(VALUES) + RESULTS


@pytest.mark.parametrize("engine", EVERY_AND_3_1_1)
def test_each_message_says_that_it_is_a_replay_and_of_what(tmp_path: Path, engine: str) -> None:
    source = Source("gen")
    bodies = [
        Body(b'{"a": 1.50, "b": [1,2]}', JSON),  # a stranger's spaces
        Body(b"42", None),
        Body(b"ON", "text/plain"),
        Body(b"\0\1", OCTETS),
        encode({"image": np.arange(5)}),
        encode([1, "two"]),
        Body(b"", None),
    ]
    for number, body in enumerate(bodies):
        source.add("x", time=BEGAN + number / 100, body=body)
    folder = make_ledger(tmp_path, [source])
    with session(engine) as ether, listening(ether, "x") as heard:
        ether.play(folder, speed=10)
        messages = heard.wait_for(len(bodies))
        is_v5 = ether._joined("a test").link.transport.version is ProtocolVersion.V5
        records = list(ether.data(folder))
    assert [headers.replay_of for _, _, headers, _, _ in messages] == [entry.id for entry in source.entries]
    assert {headers.schema for _, _, headers, _, _ in messages} == {REPLAY}
    assert [headers.seq for _, _, headers, _, _ in messages] == list(range(1, len(bodies) + 1))
    assert [encode(m[1]) for m in messages] == [encode(record.value) for record in records]
    if is_v5:  # where headers are not in the body, the body is the very same
        sent = [Body(m[3], unpack_properties(m[4]).content_type) for m in messages]
        assert sent == bodies
    assert is_v5 == (engine != ONLY_3_1_1)


def test_the_rhythm_is_the_recordings(tmp_path: Path, joined: Ether) -> None:
    offsets = [0.0, 0.1, 0.15, 0.6]
    source = Source("gen")
    for offset in offsets:
        source.add("x", offset, BEGAN + offset)
    folder = make_ledger(tmp_path, [source])
    with listening(joined, "x") as heard:
        for speed in (1, 4):
            began = time.time()
            played = joined.play(folder, speed=speed)
            messages = heard.wait_for(4)
            sent = [headers.time - began for _, _, headers, _, _ in messages]
            # never early; late only as far as this machine is busy, and not more and more
            assert all(found >= offset / speed - 0.005 for found, offset in zip(sent, offsets, strict=True)), sent
            assert played.took_s >= 0.6 / speed
            heard.messages.clear()


def test_what_is_played_and_what_is_not(tmp_path: Path, joined: Ether) -> None:
    one, two = Source("one"), Source("two")
    for number in range(4):
        one.add("a", {"n": number}, BEGAN + number, more={"run": "r1"} if number < 2 else {})
        two.add("b/c", number, BEGAN + number + 0.5)
    one.add("a", {"n": 0}, BEGAN + 9, more={"replay_of": one.entries[0].id})
    one.add("a", time=BEGAN + 9, body=Body(b"{", JSON))
    two.add("mqtt:$SYS/broker/uptime", "5 seconds", BEGAN + 9)
    one.add("temperature", 20.5, BEGAN, kind="record")
    folder = make_ledger(tmp_path, [one, two])
    with listening(joined, "#") as heard:

        def played(**chosen: Any) -> list[tuple[str, object]]:
            heard.messages.clear()
            count = joined.play(folder=folder, speed="max", **chosen).messages
            return [(topic, value) for topic, value, *_ in heard.wait_for(count)]

        assert played() == [(topic, {"n": n} if topic == "a" else n) for n in range(4) for topic in ("a", "b/c")]
        assert played(topic="b/+") == [("b/c", number) for number in range(4)]
        assert played(run="r1", as_topic="again") == [("again", {"n": 0}), ("again", {"n": 1})]
        assert played(topic="a", since=BEGAN + 1, until=BEGAN + 2) == [("a", {"n": 1}), ("a", {"n": 2})]
        assert played(instance="two", where="value > 2") == [("b/c", 3)]
        done = joined.play(folder=folder, speed="max")
        assert done.skipped == {IS_REPLAY: 1, IS_UNREADABLE: 1, IS_ELSEWHERE: 1}
        assert "8 messages in" in str(done)
        assert "1 left out: replays themselves" in str(done)


def test_a_ledger_that_records_its_own_replay_feeds_nothing_back(tmp_path: Path, joined: Ether) -> None:
    source, recorder = Source("gen"), Source("recorder")
    for number in range(50):
        source.add("x", number, BEGAN + number / 1000)
    folder = make_ledger(tmp_path, [source])
    writer = LedgerWriter.open(folder, "bench")
    try:
        with listening(joined, "x") as heard:
            recording = threading.Thread(
                target=lambda: [
                    (recorder.add("x", n, BEGAN + 0.02), writer.append([recorder.batch()], BEGAN)) for n in range(20)
                ]
            )
            recording.start()
            played = joined.play(folder, speed=1)
            recording.join(TIMEOUT_S)
            assert 50 <= played.messages <= 70  # at most what was there at the beginning
            heard.wait_for(played.messages)
            assert len(joined.data(folder)) == 70
    finally:
        writer.close()


def test_mistakes_are_told_before_anything_is_sent(tmp_path: Path, joined: Ether) -> None:
    source = Source("gen")
    source.add("x", 1)
    folder = make_ledger(tmp_path, [source])
    with pytest.raises(NotJoined, match=r"ether\.play\(\)"):
        Ether().play(folder)
    with pytest.raises(QueryMistake, match="speed"):
        joined.play(folder, speed="fast")
    with pytest.raises(InvalidName):
        joined.play(folder, as_topic="a/+")
    with pytest.raises(NoLedger, match=str(joined.session_id)):
        joined.play()  # this session has recorded nothing
