"""Urgent messages go before data that waits; order is kept within a lane; each lane has room of its own."""

from __future__ import annotations

import threading
import time

import pytest
from patience import patience

from ether.errors import PublishTimeout
from ether.transport import ConnectionUp, Delivery
from ether.transport.packets import publish_head
from ether.transport.send_queue import MAX_COUNT, Publication, SendQueue
from ether.wire.topics import SessionTopics, is_urgent
from tests.transport.backends import Backend, take

WINDOW = 4


class Wire:
    """The writing half of a connection, as bytes. `congested`: the socket has not taken everything."""

    def __init__(self) -> None:
        self.written = b""
        self.congested = False

    def send_locked(self, data: bytes, owner: Publication | None = None) -> bool:
        self.written += data
        return True

    def wake_locked(self) -> None:
        pass

    def fail(self, reason: str) -> None:
        raise AssertionError(reason)


def publish(queue: SendQueue, payload: bytes, *, urgent: bool = False, timeout_s: float = 0.0) -> None:
    head = publish_head(b"\x00\x01t", qos=1, retain=False, tail_bytes=len(payload))
    queue.publish("t", head, b"", payload, timeout_s, urgent=urgent)


def acknowledge_all(queue: SendQueue) -> None:
    queue.acknowledged([(packet_id, 0) for packet_id in list(queue._inflight)])


def order_in(wire: Wire, payloads: list[bytes]) -> list[bytes]:
    return sorted((payload for payload in payloads if payload in wire.written), key=wire.written.find)


@pytest.fixture
def queue() -> SendQueue:
    return SendQueue()


def test_what_is_urgent_goes_first_and_each_lane_keeps_its_order(queue: SendQueue) -> None:
    wire = Wire()
    queue.attach(wire, WINDOW, 1 << 20)
    data = [b"<data %d>" % n for n in range(3 * WINDOW)]
    urgent = [b"<urgent %d>" % n for n in range(WINDOW + 1)]
    for payload in data:
        publish(queue, payload)
    for payload in urgent:
        publish(queue, payload, urgent=True)
    for _ in range(5):
        acknowledge_all(queue)
    assert order_in(wire, data + urgent) == data[:WINDOW] + urgent + data[WINDOW:]
    acknowledge_all(queue)
    assert queue.unsettled == 0


def test_nothing_is_added_to_what_the_socket_has_not_taken(queue: SendQueue) -> None:
    """There it would be in the way of what is urgent, and small messages would be in memory twice."""
    wire = Wire()
    queue.attach(wire, 100, 1 << 20)
    publish(queue, b"<data 0>")
    wire.congested = True
    for n in range(1, 8):
        publish(queue, b"<data %d>" % n)
    publish(queue, b"<urgent>", urgent=True)
    acknowledge_all(queue)
    assert wire.written.endswith(b"<data 0>")
    assert queue.left, "the network thread goes on"
    wire.congested = False
    queue.send_left()
    assert order_in(wire, [b"<urgent>", b"<data 1>", b"<data 7>"]) == [b"<urgent>", b"<data 1>", b"<data 7>"]
    assert not queue.left


def test_a_new_connection_gets_what_is_urgent_first(queue: SendQueue) -> None:
    queue.attach(Wire(), WINDOW, 1 << 20)
    data, urgent = [b"<data %d>" % n for n in range(2 * WINDOW)], [b"<urgent %d>" % n for n in range(2)]
    for payload in data:
        publish(queue, payload)
    queue.detach()
    for payload in urgent:
        publish(queue, payload, urgent=True)
    again = Wire()
    queue.attach(again, 100, 1 << 20)
    assert order_in(again, data + urgent) == urgent + data


def test_an_urgent_message_finds_room_where_data_has_filled_the_queue(queue: SendQueue) -> None:
    for _ in range(MAX_COUNT):
        publish(queue, b"x")
    with pytest.raises(PublishTimeout, match=r"10,000 messages wait"):
        publish(queue, b"x")
    for _ in range(MAX_COUNT):
        publish(queue, b"x", urgent=True)
    with pytest.raises(PublishTimeout):
        publish(queue, b"x", urgent=True)
    assert queue.unsettled == 2 * MAX_COUNT


def test_who_waits_for_room_in_one_lane_is_not_served_by_the_other(queue: SendQueue) -> None:
    queue.attach(Wire(), 50, 1 << 20)
    for _ in range(MAX_COUNT):
        publish(queue, b"x")
    room, came = queue.room("t", 100), threading.Event()

    def wait() -> None:
        room.wait(patience(30))
        came.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    try:
        deadline = time.monotonic() + patience(10)
        while not queue._ordinary.line:
            assert time.monotonic() < deadline
            came.wait(0.001)
        publish(queue, b"<urgent>", urgent=True)
        queue.send_left()
        assert not came.is_set()
        while queue.unsettled > MAX_COUNT // 2:
            acknowledge_all(queue)
        assert came.wait(patience(10))
    finally:
        waiting.join(patience(30))
        room.release()
    while queue.unsettled:
        acknowledge_all(queue)


@pytest.mark.slow("waits for a slow broker")
def test_the_end_waits_as_long_as_the_broker_goes_on_acknowledging(queue: SendQueue) -> None:
    queue.attach(Wire(), 1, 1 << 20)
    for _ in range(30):
        publish(queue, b"x")
    stopped = threading.Event()

    def acknowledge() -> None:
        while not stopped.wait(0.05) and queue.unsettled > 10:
            acknowledge_all(queue)

    broker = threading.Thread(target=acknowledge)
    broker.start()
    began = time.monotonic()
    drained = queue.drain(30)
    took_s = time.monotonic() - began
    stopped.set()
    broker.join(patience(10))
    assert not drained
    assert queue.unsettled == 10
    assert 1.9 < took_s < patience(10), "twenty acknowledgements take 1 s, and 1 s without any is the end"


@pytest.mark.parametrize(
    ("topic", "urgent"),
    [
        (SessionTopics("s").call("cam", "scan"), True),
        (SessionTopics("s").reply("main-1/abc"), True),
        (SessionTopics("s").control("stop"), True),
        (SessionTopics("s").control("fence"), True),
        (SessionTopics("s").control("trial"), False),
        (SessionTopics("s").missed("all"), False),
        (SessionTopics("s").missed("1234"), False),
        (SessionTopics("s").data("call/cam"), False),
        (SessionTopics("s").state("cam"), False),
        (SessionTopics("s").session_info, False),
        (SessionTopics("s").record("recorder"), False),
        ("call/a", False),
        ("plant/control/stop", False),
    ],
)
def test_which_topics_are_urgent(topic: str, urgent: bool) -> None:
    assert is_urgent(topic) is urgent


def test_after_an_outage_what_is_urgent_arrives_first(fragile: Backend, topic: str) -> None:
    itself = fragile.connected(f"{topic}/#")
    fragile.stop()
    assert take(itself) is not None
    data = [str(number).encode() for number in range(500)]
    for payload in data:
        itself.publish(f"{topic}/data", payload)
    itself.publish(f"{topic}/urgent", b"first", urgent=True)
    itself.publish(f"{topic}/urgent", b"second", urgent=True)
    fragile.start()
    got: list[bytes] = []
    while len(got) < len(data) + 2:
        item = take(itself)
        assert item is not None, f"{len(got)} messages arrived"
        if isinstance(item, Delivery):
            got.append(item.payload)
        else:
            assert isinstance(item, ConnectionUp)
    assert got == [b"first", b"second", *data]
