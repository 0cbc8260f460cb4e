"""What `Transport` promises, over every backend. Brokers here are shared and stay alive."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import pytest
from patience import patience

from ether.errors import (
    InvalidName,
    PayloadTooLarge,
    TransportClosed,
    TransportError,
    UnsupportedFeature,
)
from ether.transport import Delivery, Transport, Will
from ether.transport.loopback import LoopbackBroker
from tests.transport.backends import V5, V311, Backend, make_backend, messages, nothing_more, take

USER_PROPERTY = b"\x26\x00\x01a\x00\x01b"  # one user property, a: b
CONTENT_TYPE = b"\x03\x00\x10application/json"


def test_version_is_what_the_broker_speaks(backend: Backend) -> None:
    transport = backend.connected()
    assert transport.version is backend.version
    assert transport.connected


@pytest.mark.parametrize("qos", [0, 1])
def test_messages_arrive_in_order(backend: Backend, topic: str, qos: int) -> None:
    receiver = backend.connected(f"{topic}/#", qos=qos)
    sender = backend.connected()
    for number in range(500):
        sender.publish(f"{topic}/{number % 3}", str(number).encode(), qos=qos)
    got = messages(receiver, 500)
    assert [int(d.payload) for d in got] == list(range(500))
    assert {d.qos for d in got} == {qos}
    assert not any(d.retained for d in got)


def test_qos_is_the_lower_of_both(backend: Backend, topic: str) -> None:
    transport = backend.connected(topic, qos=0)
    transport.publish(topic, b"x", qos=1)
    assert messages(transport, 1)[0].qos == 0
    transport.subscribe([topic], qos=1)
    transport.publish(topic, b"x", qos=0)
    assert messages(transport, 1)[0].qos == 0


def test_receipt_is_done_when_the_broker_has_acknowledged(backend: Backend, topic: str) -> None:
    transport = backend.connected(topic)
    receipt = transport.publish(topic, b"x")
    receipt.wait(patience(5))
    assert receipt.done
    assert not receipt.no_subscribers
    receipt.wait(0)


def test_callback_of_a_receipt(backend: Backend, topic: str) -> None:
    transport = backend.connected()
    called = threading.Event()
    receipt = transport.publish(topic, b"x")
    receipt.when_done(called.set)
    assert called.wait(patience(5))
    called.clear()
    receipt.when_done(called.set)
    assert called.is_set()


def test_receipt_of_qos_0_is_done(backend: Backend, topic: str) -> None:
    receipt = backend.connected().publish(topic, b"x", qos=0)
    receipt.wait(patience(5))
    assert receipt.done


def test_no_subscribers_is_told_over_mqtt_5(backend: Backend, topic: str) -> None:
    receipt = backend.connected().publish(topic, b"x")
    receipt.wait(patience(5))
    assert receipt.no_subscribers is (backend.version is V5)


@pytest.mark.parametrize(
    ("topic_filter", "heard"),
    [
        ("{t}/a/b", ["a/b"]),
        ("{t}/+/b", ["a/b", "c/b"]),
        ("{t}/+", ["a"]),
        ("{t}/#", ["a", "a/b", "c/b", "a/b/c"]),
        ("{t}/a/#", ["a", "a/b", "a/b/c"]),
        ("+/{u}/a/+", ["a/b"]),
    ],
)
def test_wildcards(backend: Backend, topic: str, topic_filter: str, heard: list[str]) -> None:
    transport = backend.connected(topic_filter.format(t=topic, u=topic.partition("/")[2]), "end/" + topic)
    for tail in ["a", "a/b", "c/b", "a/b/c"]:
        transport.publish(f"{topic}/{tail}", b"")
    transport.publish("end/" + topic, b"")
    got = messages(transport, len(heard) + 1)
    assert [d.topic for d in got] == [f"{topic}/{tail}" for tail in heard] + ["end/" + topic]


def test_wildcard_at_the_start_hears_no_dollar_topics(backend: Backend, topic: str) -> None:
    everything = backend.connected("#")
    sender = backend.connected()
    with suppress(TransportError):  # a broker may refuse to take such a message from us
        sender.publish(f"$other/{topic}", b"x").wait(patience(1))
    backend.connected().publish(topic, b"y")
    while (item := take(everything)).topic != topic:
        assert isinstance(item, Delivery)
        assert not item.topic.startswith("$")


def test_retained_is_kept_replaced_and_cleared(backend: Backend, topic: str) -> None:
    sender = backend.connected()
    for payload in [b"one", b"two"]:
        sender.publish(topic, payload, retain=True).wait(patience(5))
    late = backend.connected(topic)
    assert messages(late, 1) == [Delivery(topic, b"two", 1, retained=True)]
    sender.publish(topic, b"three", retain=True).wait(patience(5))
    assert messages(late, 1) == [Delivery(topic, b"three", 1, retained=False)]
    sender.publish(topic, b"", retain=True).wait(patience(5))
    assert messages(late, 1) == [Delivery(topic, b"", 1, retained=False)]
    nothing_more(backend.connected(f"{topic}/#"), topic)


def test_retained_reaches_only_those_who_subscribe_to_it(backend: Backend, topic: str) -> None:
    sender = backend.connected()
    sender.publish(f"{topic}/kept", b"x", retain=True).wait(patience(5))
    nothing_more(backend.connected(f"{topic}/other"), f"{topic}/other")
    sender.publish(f"{topic}/kept", b"", retain=True).wait(patience(5))


def test_repeated_subscribe_brings_retained_again(backend: Backend, topic: str) -> None:
    transport = backend.connected()
    transport.publish(topic, b"kept", retain=True).wait(patience(5))
    for _ in range(3):
        transport.subscribe([topic])
        assert messages(transport, 1) == [Delivery(topic, b"kept", 1, retained=True)]
    transport.publish(topic, b"", retain=True).wait(patience(5))


def test_will_is_published_after_a_sudden_death(backend: Backend, topic: str) -> None:
    watcher = backend.connected(topic)
    backend.die_with_will(topic)
    assert messages(watcher, 1) == [Delivery(topic, b"gone", 1, retained=False)]
    late = backend.connected(topic)
    assert messages(late, 1)[0].retained
    late.publish(topic, b"", retain=True).wait(patience(5))


def test_will_is_not_published_after_close(backend: Backend, topic: str) -> None:
    watcher = backend.connected(topic)
    for _ in range(5):
        doomed = backend.connected(f"{topic}/flood", will=Will(topic, b"gone", retain=True))
        for _ in range(200):  # unread bytes in our socket, which must not turn the goodbye into a reset
            doomed.publish(f"{topic}/flood", b"x" * 500, qos=0)
        doomed.close()
    nothing_more(watcher, topic)


def test_large_payload(backend: Backend, topic: str) -> None:
    transport = backend.connected(topic)
    payload = bytes(range(256)) * (1 << 17)  # 32 MiB
    receipt = transport.publish(topic, payload)
    got = messages(transport, 1)[0]
    assert len(got.payload) == len(payload)
    assert got.payload == payload
    receipt.wait(patience(10))


def test_sizes_around_every_boundary(backend: Backend, topic: str) -> None:
    transport = backend.connected(topic)
    sizes = [0, 1, 90, 127, 128, 16_250, 16_383, 16_384, 65_400, 65_535, 65_536, 65_537, 140_000, 2_097_152]
    for size in sizes:
        transport.publish(topic, b"\xa5" * size, qos=0 if size % 2 else 1)
    assert [len(d.payload) for d in messages(transport, len(sizes))] == sizes


def test_more_than_the_broker_takes_is_refused_here(backend: Backend, topic: str) -> None:
    if backend.name == "loopback":
        backend = make_backend("loopback", lambda engine: pytest.fail(engine))
        assert isinstance(backend.broker, LoopbackBroker)
        backend.broker.max_packet_bytes = 1000
        transport = backend.connected(topic)
    else:
        transport = backend.connected(topic, max_packet_bytes=1000)
    assert transport.max_packet_bytes == 1000
    with pytest.raises(PayloadTooLarge) as caught:
        transport.publish(topic, bytes(1001))
    assert caught.value.limit == 1000
    assert caught.value.size > 1000
    nothing_more(transport, topic)


def test_more_than_mqtt_can_say_is_refused(backend: Backend, topic: str) -> None:
    transport = backend.connected(topic)
    for qos in (0, 1):
        with pytest.raises(PayloadTooLarge):
            transport.publish(topic, bytes(268_435_456), qos=qos)
    nothing_more(transport, topic)


@pytest.mark.parametrize("payload", [b"", b"\0", bytes(range(256)), b"\xff\xfe\xfd", "μ".encode()])
def test_payload_is_bytes(backend: Backend, topic: str, payload: bytes) -> None:
    transport = backend.connected(topic)
    transport.publish(topic, payload)
    got = messages(transport, 1)[0].payload
    assert (got, type(got)) == (payload, bytes)


@pytest.mark.parametrize("name", ["Mäßgerät/Ω", "温度/传感器", "a b/c  d", "🔬/1", "//", "trailing/"])
def test_unicode_topics(backend: Backend, topic: str, name: str) -> None:
    transport = backend.connected(f"{topic}/{name}")
    transport.publish(f"{topic}/{name}", b"x")
    assert messages(transport, 1)[0].topic == f"{topic}/{name}"


@pytest.mark.parametrize("name", ["", "a/+", "#", "nul\0", "x" * 65_536, "\ud800", "ö" * 40_000])
def test_bad_topic_is_refused(backend: Backend, topic: str, name: str) -> None:
    transport = backend.connected(topic)
    with pytest.raises(InvalidName):
        transport.publish(name, b"x")
    nothing_more(transport, topic)


@pytest.mark.parametrize("name", ["", "a+", "a/#/b", "#a", "nul\0", "x" * 65_536, "\ud800"])
def test_bad_filter_is_refused(backend: Backend, topic: str, name: str) -> None:
    transport = backend.connected(topic)
    with pytest.raises(InvalidName):
        transport.subscribe([name])
    nothing_more(transport, topic)


def test_arguments_that_cannot_be(backend: Backend, topic: str) -> None:
    transport = backend.connected()
    for wrong in (-1, 2, 3):
        with pytest.raises(ValueError):
            transport.publish(topic, b"", qos=wrong)
        with pytest.raises(ValueError):
            transport.subscribe([topic], qos=wrong)
    with pytest.raises(ValueError):
        transport.subscribe([])
    with pytest.raises(ValueError):
        transport.subscribe("a/string")


def test_unsubscribe(backend: Backend, topic: str) -> None:
    transport = backend.connected(f"{topic}/a", f"{topic}/b")
    transport.unsubscribe([f"{topic}/a"])
    transport.publish(f"{topic}/a", b"not heard").wait(patience(5))
    transport.publish(f"{topic}/b", b"heard").wait(patience(5))
    assert messages(transport, 1)[0].payload == b"heard"
    transport.unsubscribe([f"{topic}/never"])


def test_many_filters_at_once(backend: Backend, topic: str) -> None:
    names = [f"{topic}/{n}" for n in range(150)]
    transport = backend.connected(*names)
    for name in names:
        transport.publish(name, b"")
    assert [d.topic for d in messages(transport, 150)] == names


def test_threads_that_publish_keep_their_order_and_lose_nothing(backend: Backend, topic: str) -> None:
    receiver = backend.connected(f"{topic}/#")
    sender = backend.connected()
    errors: list[BaseException] = []

    def publish(thread: int) -> None:
        try:
            for number in range(250):
                sender.publish(f"{topic}/{thread}", b"%d" % number + b"x" * (number * 37 % 3000))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=publish, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    got = messages(receiver, 8 * 250)
    for thread in threads:
        thread.join()
    assert not errors
    for thread_number in range(8):
        mine = [d.payload.rstrip(b"x") for d in got if d.topic == f"{topic}/{thread_number}"]
        assert mine == [b"%d" % number for number in range(250)]


def test_threads_that_subscribe(backend: Backend, topic: str) -> None:
    transport = backend.connected()
    failures: list[BaseException] = []

    def subscribe(number: int) -> None:
        try:
            transport.subscribe([f"{topic}/{number}"], timeout_s=patience(10))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=subscribe, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for number in range(12):
        transport.publish(f"{topic}/{number}", b"")
    assert len(messages(transport, 12)) == 12


def test_reader_that_sleeps_loses_nothing(backend: Backend, topic: str) -> None:
    """20,000 QoS 1 messages to a reader that takes none of them until the last is out. A stock Mosquitto keeps no more
    than 1,000 of them for a reader, and tells nobody about the rest (docs/brokers.md)."""
    count = 20_000 if backend.keeps_all else 1_000
    receiver = backend.connected(topic)
    sender = backend.connected()
    for number in range(count):
        receipt = sender.publish(topic, b"%d" % number, timeout_s=patience(60))
    assert receipt.__class__ is not None
    if backend.name != "loopback":
        assert acknowledged(receiver) <= 1_000, "what nobody takes is not acknowledged"
    if backend.name.startswith("amqtt"):  # Mosquitto does not keep to the window (docs/brokers.md)
        assert queued(receiver) < 2_000, "the broker holds the rest, not this process"
    got = messages(receiver, count)
    assert [int(d.payload) for d in got] == list(range(count))
    assert receiver.dropped == 0


def queued(transport: Transport) -> int:
    """How many messages a network transport has in memory."""
    return int(transport._receive_queue._items.qsize())  # type: ignore[attr-defined]


def acknowledged(transport: Transport) -> int:
    """How many of these it has acknowledged."""
    waiting = queued(transport)
    return waiting - len(transport._receive_queue._withheld)  # type: ignore[attr-defined]


def test_receive_waits_no_longer_than_told(backend: Backend, topic: str) -> None:
    transport = backend.connected(topic)
    assert transport.receive(0) is None
    assert transport.receive(0.05) is None


def test_receive_is_woken_by_close(backend: Backend) -> None:
    transport = backend.connected()
    got: list[object] = ["nothing yet"]
    waiting = threading.Thread(target=lambda: got.append(transport.receive(None)))
    waiting.start()
    transport.close()
    waiting.join(patience(5))
    assert got[1:] == [None]


def test_what_had_arrived_can_be_taken_after_close(backend: Backend, topic: str) -> None:
    transport = backend.connected(topic)
    for number in range(5):
        transport.publish(topic, b"%d" % number)
    first = messages(transport, 1)
    transport.publish(topic, b"last").wait(patience(5))
    transport.close()
    rest = []
    while (item := take(transport, None)) is not None:
        rest.append(item)
    assert [d.payload for d in first + rest][: 1 + len(rest)] == [b"0", b"1", b"2", b"3", b"4", b"last"][
        : 1 + len(rest)
    ]


def test_close_twice_and_use_after_close(backend: Backend, topic: str) -> None:
    transport = backend.connected(topic)
    transport.close()
    transport.close()
    assert not transport.connected
    uses: list[Callable[[], object]] = [
        lambda: transport.publish(topic, b""),
        lambda: transport.publish(topic, b"", qos=0),
        lambda: transport.subscribe([topic]),
        lambda: transport.unsubscribe([topic]),
        lambda: transport.connect(1),
    ]
    for use in uses:
        with pytest.raises(TransportClosed):
            use()
    assert transport.receive(None) is None


def test_close_from_many_threads_at_once(backend: Backend) -> None:
    transport = backend.connected()
    threads = [threading.Thread(target=transport.close) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience(5))
        assert not thread.is_alive()


def test_close_before_connect(backend: Backend) -> None:
    transport = backend.transport()
    transport.close()
    with pytest.raises(TransportClosed):
        transport.connect(1)


def test_use_before_connect(backend: Backend, topic: str) -> None:
    transport = backend.transport()
    assert not transport.connected
    with pytest.raises(TransportError):
        transport.publish(topic, b"")
    with pytest.raises(TransportError):
        transport.subscribe([topic])


def test_connect_twice(backend: Backend) -> None:
    transport = backend.connected()
    with pytest.raises(TransportError):
        transport.connect(1)
    assert transport.connected


def test_close_while_others_publish(backend: Backend, topic: str) -> None:
    transport = backend.connected()
    began = threading.Barrier(5)
    ended: list[str] = []

    def publish() -> None:
        began.wait(patience(5))
        try:
            while True:
                transport.publish(topic, b"x" * 100, qos=1)
        except TransportClosed:
            ended.append("closed")

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    began.wait(patience(5))
    transport.close()
    for thread in threads:
        thread.join(patience(5))
    assert ended == ["closed"] * 4


def test_close_flushes(backend: Backend, topic: str) -> None:
    receiver = backend.connected(topic)
    sender = backend.connected()
    receipts = [sender.publish(topic, b"%d" % n) for n in range(300)]
    sender.close(timeout_s=patience(10))
    assert all(receipt.done for receipt in receipts)
    assert len(messages(receiver, 300)) == 300


def test_properties_arrive_as_they_were_packed(backend: Backend, topic: str) -> None:
    transport = backend.connected(topic)
    if backend.version is V311:
        with pytest.raises(UnsupportedFeature):
            transport.publish(topic, b"x", properties=USER_PROPERTY)
        with pytest.raises(UnsupportedFeature):
            transport.publish(topic, b"x", properties=USER_PROPERTY, qos=0)
        nothing_more(transport, topic)
        return
    long = b"".join(b"\x26\x00\x01k\x01\x00" + bytes([65 + n]) * 256 for n in range(20))
    for qos in (0, 1):
        for properties in (USER_PROPERTY, CONTENT_TYPE, long, b""):
            transport.publish(topic, b"x", properties=properties, qos=qos)
            assert messages(transport, 1)[0].properties == properties


def test_will_with_properties(backend: Backend, topic: str) -> None:
    transport = backend.transport(will=Will(topic, b"gone", properties=USER_PROPERTY))
    if backend.version is V311:
        with pytest.raises(UnsupportedFeature):
            transport.connect(5)
    else:
        transport.connect(5)
