"""A full outgoing queue: publishers wait side by side, each for its own time, and nothing else waits with them."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from patience import patience
from pydantic import BaseModel, field_serializer

from ether import Ether
from ether.connection.link import Link
from ether.errors import PublishTimeout, TransportClosed
from ether.transport.base import ProtocolVersion
from ether.transport.loopback import LoopbackBroker, LoopbackTransport
from ether.transport.packets import publish_head
from ether.transport.send_queue import MAX_BYTES, MAX_COUNT, Publication, SendQueue
from ether.wire.codec import Body
from ether.wire.head import Headers
from ether.wire.topics import SessionTopics

TOPICS = SessionTopics("room")
TOPIC = TOPICS.data("a")


@pytest.fixture(params=list(ProtocolVersion))
def broker(request: pytest.FixtureRequest) -> LoopbackBroker:
    return LoopbackBroker(version=request.param)


@pytest.fixture
def link(broker: LoopbackBroker) -> Iterator[Link]:
    opened = Link(LoopbackTransport(broker, client_id="one"), "one")
    opened.open(patience(1))
    yield opened
    opened.close(0.0)


def fill(link: Link) -> None:
    for number in range(MAX_COUNT):
        link.publish(TOPIC, number, timeout_s=0)
    with pytest.raises(PublishTimeout):
        link.publish(TOPIC, "too much", timeout_s=0)


def timed(work: list[threading.Thread]) -> None:
    for thread in work:
        thread.start()
    for thread in work:
        thread.join(patience(60))


# -- the link


def test_each_of_ten_threads_waits_for_its_own_time(broker: LoopbackBroker, link: Link) -> None:
    broker.stop()
    fill(link)
    took: list[float] = []

    def publish() -> None:
        began = time.monotonic()
        with pytest.raises(PublishTimeout, match=r"within 0\.5 s: 10,000 messages wait"):
            link.publish(TOPIC, 1, timeout_s=0.5)
        took.append(time.monotonic() - began)

    timed([threading.Thread(target=publish) for _ in range(10)])
    assert len(took) == 10
    assert all(0.5 <= seconds < patience(2.4) for seconds in took), took  # one behind the other they take up to 5 s


def test_a_value_is_numbered_for_the_record_while_a_publisher_waits(broker: LoopbackBroker, link: Link) -> None:
    broker.stop()
    fill(link)
    ended = threading.Event()

    def publish() -> None:
        link.publish(TOPIC, 1, timeout_s=patience(30))
        ended.set()

    waiting = threading.Thread(target=publish)
    waiting.start()
    headers, body = link.stamp("record dose", 7, ())
    assert not ended.is_set(), "it waited with the publisher"
    assert (headers.seq, body.payload) == (1, b"7")
    broker.start()
    waiting.join(patience(10))
    assert ended.is_set()


def test_a_message_that_found_no_room_uses_no_number(broker: LoopbackBroker, link: Link) -> None:
    link.publish(TOPIC, "first")
    broker.stop()
    fill(link)
    with pytest.raises(PublishTimeout):
        link.publish(TOPIC, "refused", timeout_s=0.01)
    waiting = threading.Thread(target=link.publish, args=(TOPIC, "waited"))
    waiting.start()
    broker.start()
    waiting.join(patience(10))
    kept: list[Headers] = []
    link.publish(TOPIC, "last", keep=lambda headers, _: kept.append(headers))
    assert kept[0].seq == 1 + MAX_COUNT + 2


def test_without_room_a_recorded_message_is_recorded_once_and_counted(broker: LoopbackBroker, link: Link) -> None:
    kept: list[tuple[int, Body]] = []
    broker.stop()
    fill(link)
    link.publish(TOPIC, {"dose": 7}, keep=lambda headers, body: kept.append((headers.seq, body)))
    assert [(seq, body.payload) for seq, body in kept] == [(MAX_COUNT + 1, b'{"dose":7}')]
    assert link.unheard == 1


def test_a_serializer_may_publish(link: Link) -> None:
    """It is user code, so no lock is held while it runs."""

    class Dose(BaseModel):
        value: int

        @field_serializer("value")
        def also_told(self, value: int) -> int:
            link.publish(TOPIC, f"serializing {value}")
            return value

    done = threading.Thread(target=link.publish, args=(TOPIC, Dose(value=7)), daemon=True)
    done.start()
    done.join(patience(5))
    assert not done.is_alive(), "it waits for a lock that it holds"


def test_an_interrupted_publish_leaves_no_number_to_a_second_message(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C, or the exception that ends a handler, may come when the message has just left."""
    publish = link.transport.publish

    def interrupted(*args: object, **kwargs: object) -> None:
        publish(*args, **kwargs)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    kept: list[Headers] = []
    with monkeypatch.context() as patch:
        patch.setattr(link.transport, "publish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            link.publish(TOPIC, "left")
    link.publish(TOPIC, "next", keep=lambda headers, _: kept.append(headers))
    assert [headers.seq for headers in kept] == [2]


def test_the_numbers_of_reply_topics_are_forgotten_and_those_of_data_are_not(link: Link) -> None:
    link.publish(TOPIC, "first")
    for number in range(10_000):
        link.publish(f"ether/1/room/reply/program{number}/one", 1)
    assert len(link._sequences) < 5_000
    kept: list[Headers] = []
    link.publish(TOPIC, "second", keep=lambda headers, _: kept.append(headers))
    assert [headers.seq for headers in kept] == [2]


# -- the queue


class Wire:
    """The writing half of a connection."""

    congested = False

    def __init__(self) -> None:
        self.failed = ""
        self.interrupt = False
        self.written = 0

    def send_locked(self, data: bytes, owner: Publication | None = None) -> bool:
        if self.interrupt:
            raise KeyboardInterrupt
        self.written += 1
        return True

    def wake_locked(self) -> None:
        pass

    def fail(self, reason: str) -> None:
        self.failed = reason


def publish(queue: SendQueue, payload: bytes = b"x", timeout_s: float = 0.0) -> None:
    head = publish_head(b"\x00\x01t", qos=1, retain=False, tail_bytes=len(payload))
    queue.publish("t", head, b"", payload, timeout_s)


def fill_queue(queue: SendQueue) -> None:
    for _ in range(MAX_COUNT):
        publish(queue)
    with pytest.raises(PublishTimeout):
        publish(queue)


def acknowledge(queue: SendQueue, count: int) -> None:
    queue.send_left()
    queue.acknowledged([(packet_id, 0) for packet_id in list(queue._inflight)[:count]])


@contextmanager
def waiting_room(queue: SendQueue, size: int) -> Iterator[threading.Event]:
    """A publisher that waits for room of this size; the event is set when it has it."""
    came, room = threading.Event(), queue.room("t", size)

    def wait() -> None:
        room.wait(patience(30))
        came.set()

    thread = threading.Thread(target=wait)
    thread.start()
    deadline = time.monotonic() + patience(10)
    while not queue._ordinary.line and not came.is_set():
        assert time.monotonic() < deadline
        came.wait(0.001)
    try:
        yield came
    finally:
        thread.join(patience(30))
        room.release()


def test_a_large_message_gets_its_room_although_small_ones_go_on_coming() -> None:
    queue = SendQueue()
    queue.attach(Wire(), 100, 64 << 20)
    for _ in range(MAX_BYTES // (1 << 20) - 4):
        publish(queue, b"x" * (1 << 20))
    with waiting_room(queue, MAX_BYTES // 2) as came:
        with pytest.raises(PublishTimeout):
            publish(queue)  # there would be room, but not for the one that waits
        while not came.is_set():
            assert queue.unsettled, "everything has left, and the large message still waits"
            acknowledge(queue, 1)
            came.wait(0.001)
    assert not queue._ordinary.line
    publish(queue)


def test_room_is_given_in_the_order_of_the_waits_and_counts_until_it_is_released() -> None:
    queue = SendQueue()
    queue.attach(Wire(), MAX_COUNT, 64 << 20)
    fill_queue(queue)
    with waiting_room(queue, 100):
        with pytest.raises(PublishTimeout):
            queue.room("t", 100).wait(0.01)
        acknowledge(queue, MAX_COUNT)
    assert (queue.unsettled, queue._ordinary.size) == (0, 0)


def test_a_closed_queue_wakes_who_waits_for_room() -> None:
    queue = SendQueue()
    queue.attach(Wire(), 100, 64 << 20)
    fill_queue(queue)
    room = queue.room("t", 100)
    closing = threading.Timer(0.1, queue.close)
    closing.start()
    with pytest.raises(TransportClosed):
        room.wait(30)
    closing.join()


def test_a_publisher_that_is_interrupted_while_it_writes_has_everything_sent_again() -> None:
    queue, wire = SendQueue(), Wire()
    queue.attach(wire, 100, 64 << 20)
    wire.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        publish(queue)
    assert wire.failed
    queue.detach()
    later = Wire()
    queue.attach(later, 100, 64 << 20)
    assert later.written == 1


# -- a broker that stands still


def broker_pids() -> list[int]:
    """The processes of this process's broker (Linux)."""
    found, look = [], [os.getpid()]
    while look:
        for listed in Path(f"/proc/{look.pop()}/task").glob("*/children"):
            for child in map(int, listed.read_text().split()):
                look.append(child)
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"mosquitto") or b"broker" in words:
                    found.append(child)
    return found


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the broker by Linux's list of children")
def test_recording_returns_at_once_while_four_threads_publish_in_vain(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    with Ether() as ether:
        ether.tap({"instances": {}, "record": ["dose"]})
        ether.record({"warm": 1}, "dose").wait(patience(20))
        brokers = broker_pids()
        assert brokers
        for pid in brokers:
            os.kill(pid, signal.SIGSTOP)
        try:
            link = ether._client.link
            with contextlib.suppress(PublishTimeout):
                while True:
                    link.publish(TOPICS.data("x"), 1, timeout_s=0.0)
            took: list[float] = []

            def in_vain() -> None:
                began = time.monotonic()
                with pytest.raises(PublishTimeout):
                    ether.pub(1, "x")
                took.append(time.monotonic() - began)

            threads = [threading.Thread(target=in_vain) for _ in range(4)]
            for thread in threads:
                thread.start()
            recorded: list[float] = []
            while any(thread.is_alive() for thread in threads):
                began = time.monotonic()
                last = ether.record({"dose": 7}, "dose")
                recorded.append(time.monotonic() - began)
                threads[0].join(0.1)
            assert len(took) == 4
            assert all(9.9 <= seconds < patience(15) for seconds in took), took  # one behind the other: up to 40 s
            assert statistics.median(recorded) < 0.05
            assert max(recorded) < patience(2.4), "one waited with the publishers, who wait for 10 s"
        finally:
            for pid in brokers:
                os.kill(pid, signal.SIGCONT)
        last.wait(patience(40))  # also what was recorded during the outage reaches the disk
        print(f"timeouts after {took}, slowest record {max(recorded) * 1000:.1f} ms of {len(recorded)}")
