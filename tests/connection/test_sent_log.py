"""What a sender keeps for its readers: of every number it has the message, or says that it is gone."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ether.connection.spill import SEGMENT_BYTES, FileSpill
from ether.protocol.sent_log import OVERHEAD_BYTES, KeepLimits, Load, SentLog

SMALL = KeepLimits(count=8, size=1 << 20, age_s=1e9, backlog_bytes=20 * (OVERHEAD_BYTES + 10), memory_bytes=0)


class MemorySpill:
    """A spill that may be full."""

    def __init__(self) -> None:
        self.kept: dict[int, bytes] = {}
        self.last = 0
        self.full = False

    def put(self, data: bytes) -> int:
        if self.full:
            raise OSError("no space left")
        self.last += 1
        self.kept[self.last] = data
        return self.last

    def get(self, key: int) -> bytes:
        return self.kept[key]

    def free(self, key: int) -> None:
        del self.kept[key]


def numbers(log: SentLog, topic: str = "a", after: int = 0, upto: int = 10**9) -> list[int]:
    found = list(log.messages({topic: (after, upto)}))
    assert all(message.payload == str(message.sequence).encode().ljust(10) for message in found)
    return [message.sequence for message in found]


def send(log: SentLog, first: int, last: int, topic: str = "a") -> None:
    for number in range(first, last + 1):
        log.note(topic, number, str(number).encode().ljust(10), b"", float(number))


@pytest.mark.parametrize("spill", [None, MemorySpill()])
def test_what_a_reader_has_not_got_is_kept_beyond_the_limits(spill: MemorySpill | None) -> None:
    log = SentLog(SMALL, spill)
    send(log, 1, 20)
    assert log.tend({"a": 2}, 20.0).topics == {}
    assert numbers(log) == list(range(3, 21))
    assert numbers(log, after=5, upto=7) == [6, 7]
    assert log.gone("a")[0] == 2  # type: ignore[index]
    log.tend({"a": 10}, 20.0)
    assert numbers(log, after=10) == list(range(11, 21))
    log.tend({}, 20.0)
    assert len(numbers(log)) <= 8
    assert spill is None or spill.kept == {}


def test_beyond_its_limit_the_oldest_are_dropped_and_counted() -> None:
    log = SentLog(SMALL, MemorySpill())
    lost = 0
    for first in range(1, 200, 10):
        send(log, first, first + 9)
        lost += sum(count for count, _ in log.tend({"a": 0}, 1e6).topics.values())
    kept = numbers(log)
    assert kept == list(range(kept[0], 201))
    assert lost == kept[0] - 1 == log.gone("a")[0]  # type: ignore[index]
    assert 20 <= len(kept) <= 28


def test_a_reader_of_one_topic_holds_nothing_of_the_others() -> None:
    log = SentLog(SMALL, MemorySpill())
    for number in range(1, 101):
        send(log, number, number, "a")
        send(log, number, number, "b")
        log.tend({"a": 100, "b": 90} if number > 95 else {"b": 0}, float(number))
    assert len(numbers(log, "a")) <= 8
    assert numbers(log, "b", after=90) == list(range(91, 101))


def test_a_full_disk_leaves_it_in_memory() -> None:
    spill = MemorySpill()
    spill.full = True
    log = SentLog(SMALL, spill)
    send(log, 1, 20)
    log.tend({"a": 0}, 20.0)
    assert numbers(log) == list(range(1, 21))


def test_a_publisher_that_does_the_work_of_a_late_tender_is_bounded_and_loses_nothing() -> None:
    limit = 64 * 1000
    spill = MemorySpill()
    log = SentLog(KeepLimits(10_000, limit, 1e9, 1 << 22, 0), spill)
    seen = set()
    for number in range(1, 1001):
        seen.add(growth := log.note("a", number, b"x" * 1000, b"", 0.0))
        if growth is Load.FAR:
            assert log.tend({"a": 0}, 0.0).topics == {}
        assert sum(chunk.size for chunk in log._sealed) < 2 * limit
    assert seen == {Load.WITHIN, Load.OVER, Load.FAR}
    assert [message.sequence for message in log.messages({"a": (0, 2000)})] == list(range(1, 1001))
    assert spill.kept


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=200),
    st.integers(1, 40),
    st.integers(0, 8000),
    st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 60)), max_size=12),
)
def test_every_number_is_kept_or_gone_or_was_never_noted(
    steps: list[tuple[str, bool]], count: int, backlog_bytes: int, floors: list[dict[str, int]]
) -> None:
    log = SentLog(KeepLimits(count, 1 << 20, 1e9, backlog_bytes, 500), MemorySpill())
    noted: dict[str, list[int]] = {}
    heads: dict[str, int] = {}
    for index, (topic, noting) in enumerate(steps):
        number = heads[topic] = heads.get(topic, 0) + 1
        if noting:
            noted.setdefault(topic, []).append(number)
            log.note(topic, number, str(number).encode().ljust(10), b"p", float(index))
        if floors and index % 15 == 0:
            log.tend(floors.pop(0), float(index))
    for topic, sent in noted.items():
        gone = (log.gone(topic) or (0, 0.0))[0]
        assert [number for number in sent if number > gone] == numbers(log, topic, after=gone)


def test_a_publisher_and_a_tender_at_the_same_time_lose_nothing() -> None:
    log = SentLog(KeepLimits(64, 1 << 30, 1e9, 1 << 30, 1 << 20), MemorySpill())
    ended = threading.Event()

    def publish() -> None:
        send(log, 1, 30_000)
        ended.set()

    publisher = threading.Thread(target=publish)
    publisher.start()
    rounds = 0
    while not ended.is_set() or rounds < 3:
        rounds += 1
        head = log.heads.get("a", 0)
        assert numbers(log, upto=head) == list(range(1, head + 1))
        log.tend({"a": 0}, 1e6)
        if head > 3_000:  # the reader gets on, so that the rounds stay short
            log.tend({"a": head - 1_000}, 1e6)  # later than all messages: by number, not by size
            gone = log.gone("a")
            assert gone is not None
            assert numbers(log, after=gone[0], upto=head) == list(range(gone[0] + 1, head + 1))
            break
    publisher.join()
    log.tend({"a": 29_000}, 1e6)
    gone = log.gone("a")
    assert gone is not None
    assert numbers(log, after=gone[0]) == list(range(gone[0] + 1, 30_001))


@pytest.fixture
def spill(tmp_path: Path) -> Iterator[FileSpill]:
    spill = FileSpill(tmp_path / "state")
    yield spill
    spill.close()


def test_a_file_gives_back_what_it_was_given_and_leaves_no_name(spill: FileSpill, tmp_path: Path) -> None:
    keys = {spill.put(data): data for data in (b"one", b"", b"three" * 1000)}
    assert {key: spill.get(key) for key in keys} == keys
    assert os.listdir(tmp_path / "state") == []
    for key in keys:
        spill.free(key)
    assert spill.size == 0


def test_the_disk_is_used_again(spill: FileSpill) -> None:
    block = os.urandom(1 << 20)
    keys = []
    for _ in range(3 * SEGMENT_BYTES // len(block)):
        keys.append(spill.put(block))
        if len(keys) > 4:
            spill.free(keys.pop(0))
        assert spill.size <= 2 * SEGMENT_BYTES
    assert all(spill.get(key) == block for key in keys)
