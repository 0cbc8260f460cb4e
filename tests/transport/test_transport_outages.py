"""A broker that is killed and started again, over every backend."""

from __future__ import annotations

import threading
import time

import pytest
from patience import patience

from ether.errors import PublishTimeout, SubscribeRefused, TransportClosed, TransportError
from ether.transport import ConnectionDown, ConnectionUp, Delivery, Transport
from ether.transport.send_queue import MAX_COUNT
from tests.transport.backends import Backend, messages, take


def await_down(transport: Transport) -> ConnectionDown:
    while not isinstance(item := take(transport), ConnectionDown):
        assert item is not None
    return item


def await_up(transport: Transport) -> None:
    while not isinstance(item := take(transport), ConnectionUp):
        assert item is not None


def test_everything_is_restored_after_a_restart(fragile: Backend, topic: str) -> None:
    transport = fragile.connected(f"{topic}/#", f"{topic}x")
    fragile.stop()
    assert await_down(transport).reason
    assert not transport.connected
    receipts = [transport.publish(f"{topic}/{n % 5}", b"%d" % n) for n in range(50)]
    lost = transport.publish(topic, b"lost", qos=0)
    assert transport.dropped == 1
    assert not lost.done
    with pytest.raises(TransportError):
        lost.wait(0)
    assert not any(receipt.done for receipt in receipts)
    with pytest.raises(PublishTimeout):
        receipts[0].wait(0.01)
    fragile.start()
    started = time.monotonic()
    assert isinstance(take(transport), ConnectionUp)
    assert time.monotonic() - started < patience(3)
    assert transport.connected
    assert [d.payload for d in messages(transport, 50)] == [b"%d" % n for n in range(50)]
    for receipt in receipts:
        receipt.wait(patience(5))


def test_what_was_under_way_is_sent_again(fragile: Backend, topic: str) -> None:
    """Kill the broker under load: whatever it had not acknowledged arrives after the restart, in order."""
    transport = fragile.connected(topic)
    receipts = [transport.publish(topic, b"%d" % n) for n in range(2000)]
    fragile.stop()
    received = []
    while not isinstance(item := take(transport), ConnectionDown):
        received.append(item)
    unacknowledged = [n for n, receipt in enumerate(receipts) if not receipt.done]
    assert [int(d.payload) for d in received] == list(range(len(received)))
    fragile.start()
    await_up(transport)
    assert [int(d.payload) for d in messages(transport, len(unacknowledged))] == unacknowledged
    assert all(receipt.done for receipt in receipts) or transport.connected
    for receipt in receipts:
        receipt.wait(patience(5))


def test_three_restarts_in_a_row(fragile: Backend, topic: str) -> None:
    transport = fragile.connected(topic)
    for number in range(3):
        fragile.stop()
        await_down(transport)
        receipt = transport.publish(topic, b"%d" % number)
        fragile.start()
        await_up(transport)
        assert messages(transport, 1)[0].payload == b"%d" % number
        # Else the next restart would lose the acknowledgement, and the message would come twice.
        receipt.wait(patience(10))


def test_publishers_block_for_room_then_time_out(fragile: Backend, topic: str) -> None:
    transport = fragile.connected()
    fragile.stop()
    await_down(transport)
    for _ in range(MAX_COUNT):
        transport.publish(topic, b"")
    began = time.monotonic()
    with pytest.raises(PublishTimeout):
        transport.publish(topic, b"", timeout_s=0.1)
    assert 0.1 <= time.monotonic() - began < patience(2)


def test_a_blocked_publisher_goes_on_when_the_broker_is_back(fragile: Backend, topic: str) -> None:
    transport = fragile.connected()
    fragile.stop()
    await_down(transport)
    for _ in range(MAX_COUNT):
        transport.publish(topic, b"")
    blocked = threading.Thread(target=transport.publish, args=(topic, b""), kwargs={"timeout_s": 30})
    blocked.start()
    fragile.start()
    blocked.join(patience(20))
    assert not blocked.is_alive()
    await_up(transport)


def test_room_is_waited_for_first_and_used_without_a_wait(fragile: Backend, topic: str) -> None:
    transport = fragile.connected(topic)
    fragile.stop()
    await_down(transport)
    for _ in range(MAX_COUNT):
        transport.publish("elsewhere", b"")
    room = transport.room(topic, 100)
    with pytest.raises(PublishTimeout):
        transport.publish(topic, b"not reserved", timeout_s=0.0, room=room)
    with pytest.raises(PublishTimeout):
        room.wait(0.05)
    waiting = threading.Thread(target=room.wait, args=(30,))
    waiting.start()
    fragile.start()
    waiting.join(patience(20))
    assert not waiting.is_alive()
    await_up(transport)
    transport.publish(topic, b"reserved", timeout_s=0.0, room=room).wait(patience(10))
    room.release()
    assert messages(transport, 1)[0].payload == b"reserved"


def test_subscribe_during_an_outage_waits_for_the_broker(fragile: Backend, topic: str) -> None:
    transport = fragile.connected()
    fragile.stop()
    await_down(transport)
    with pytest.raises(SubscribeRefused):
        transport.subscribe([f"{topic}/given/up"], timeout_s=0.05)
    asking = threading.Thread(target=transport.subscribe, args=([topic],), kwargs={"timeout_s": 20})
    asking.start()
    fragile.start()
    asking.join(patience(20))
    assert not asking.is_alive()
    await_up(transport)
    transport.publish(f"{topic}/given/up", b"not heard")
    transport.publish(topic, b"heard")
    assert messages(transport, 1)[0].payload == b"heard"


def test_unsubscribe_during_an_outage_holds(fragile: Backend, topic: str) -> None:
    transport = fragile.connected(topic, f"{topic}/kept")
    fragile.stop()
    await_down(transport)
    transport.unsubscribe([topic])
    fragile.start()
    await_up(transport)
    transport.publish(topic, b"not heard")
    transport.publish(f"{topic}/kept", b"heard")
    assert messages(transport, 1)[0].payload == b"heard"


def test_close_while_disconnected(fragile: Backend, topic: str) -> None:
    transport = fragile.connected(topic)
    fragile.stop()
    await_down(transport)
    receipt = transport.publish(topic, b"never")
    told = threading.Event()
    receipt.when_done(told.set)
    waiting: list[BaseException] = []

    def wait() -> None:
        try:
            receipt.wait(patience(20))
        except TransportError as error:
            waiting.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    began = time.monotonic()
    transport.close()
    assert time.monotonic() - began < patience(1.5)
    waiter.join(patience(5))
    assert [type(error) for error in waiting] == [TransportClosed]
    assert told.is_set()
    assert take(transport, None) is None


def test_close_right_after_the_broker_died(fragile: Backend, topic: str) -> None:
    transport = fragile.connected(topic)
    transport.publish(topic, b"x" * 1_000_000)
    fragile.stop()
    began = time.monotonic()
    transport.close()
    assert time.monotonic() - began < patience(2)


def test_connection_changes_come_in_order_with_messages(fragile: Backend, topic: str) -> None:
    transport = fragile.connected(topic)
    transport.publish(topic, b"before").wait(patience(5))
    first = messages(transport, 1)
    fragile.stop()
    down = take(transport)
    transport.publish(topic, b"after")
    fragile.start()
    up, after = take(transport), take(transport)
    assert first[0].payload == b"before"
    assert isinstance(down, ConnectionDown)
    assert isinstance(up, ConnectionUp)
    assert isinstance(after, Delivery)
    assert after.payload == b"after"
