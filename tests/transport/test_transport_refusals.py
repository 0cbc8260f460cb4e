"""Brokers that are absent, silent, deaf, hostile or wrong: what only a network can do to a transport."""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from patience import patience
from running_brokers import running_broker, soon

from ether.errors import (
    BrokerUnreachable,
    NotAuthorized,
    PublishTimeout,
    SubscribeRefused,
    TransportClosed,
    TransportError,
)
from ether.transport import (
    ConnectionDown,
    ConnectionUp,
    Delivery,
    Endpoint,
    ProtocolVersion,
    Receipt,
    Transport,
    open_transport,
)
from ether.transport import connection as connection_module
from ether.transport.packets import PacketBatch
from tests.transport.backends import Backend, messages, over_guarded, over_networks, take
from tests.transport.fake_broker import (
    CONNECT,
    PINGREQ,
    PUBACK,
    PUBLISH,
    SUBSCRIBE,
    FakeBroker,
    FakeConnection,
    fake_broker,
)

V5, V311 = ProtocolVersion.V5, ProtocolVersion.V311


@contextmanager
def opened(endpoint: Endpoint, *, connect: bool = True, **options: object) -> Iterator[Transport]:
    transport = open_transport(endpoint, client_id="test", **{"protocol": V5, **options})  # type: ignore[arg-type]
    try:
        if connect:
            transport.connect(5)
        yield transport
    finally:
        transport.close()


def await_kind(transport: Transport, kind: type) -> object:
    while not isinstance(item := take(transport), kind):
        assert item is not None
    return item


# nobody there


@over_networks
def test_nobody_listens(backend: Backend) -> None:
    assert backend.endpoint is not None
    if backend.endpoint.kind == "unix":
        nowhere = replace(backend.endpoint, path=backend.endpoint.path + ".gone")
    else:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            nowhere = replace(backend.endpoint, port=taken.getsockname()[1])
    began = time.monotonic()
    with opened(nowhere, connect=False) as transport, pytest.raises(BrokerUnreachable, match=nowhere.address):
        transport.connect(5)
    assert time.monotonic() - began < patience(2)


def test_name_that_does_not_exist() -> None:
    with (
        opened(Endpoint("tcp", "no-such-host.invalid"), connect=False) as transport,
        pytest.raises(BrokerUnreachable),
    ):
        transport.connect(5)


def test_connect_may_be_tried_again_after_a_failure() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        endpoint = Endpoint("tcp", "127.0.0.1", listener.getsockname()[1])
        with opened(endpoint, connect=False) as transport:
            for _ in range(2):
                with pytest.raises(BrokerUnreachable):
                    transport.connect(1)


@contextmanager
def silent_listener(backlog: int = 5) -> Iterator[Endpoint]:
    """Accepts TCP connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(backlog)
        yield Endpoint("tcp", "127.0.0.1", listener.getsockname()[1])


def test_broker_that_accepts_and_says_nothing() -> None:
    with silent_listener() as endpoint, opened(endpoint, connect=False) as transport:
        began = time.monotonic()
        with pytest.raises(BrokerUnreachable):
            transport.connect(0.3)
        assert 0.3 <= time.monotonic() - began < patience(5)


def test_host_that_swallows_packets() -> None:
    with silent_listener(backlog=0) as endpoint:
        fillers = []
        for _ in range(4):  # a full backlog drops SYNs, as an unreachable host does
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((endpoint.host, endpoint.port))
            fillers.append(filler)
        with opened(endpoint, connect=False) as transport:
            began = time.monotonic()
            with pytest.raises(BrokerUnreachable):
                transport.connect(0.3)
            assert time.monotonic() - began < patience(5)
            close_while_connecting(transport)
        for filler in fillers:
            filler.close()


def test_close_while_connecting() -> None:
    with silent_listener() as endpoint, opened(endpoint, connect=False) as transport:
        close_while_connecting(transport)


def close_while_connecting(transport: Transport) -> None:
    failures: queue.SimpleQueue[Exception] = queue.SimpleQueue()

    def connect() -> None:
        try:
            transport.connect(20)
        except TransportError as error:
            failures.put(error)

    connecting = threading.Thread(target=connect)
    connecting.start()
    while not transport._waker.fileno() > 0:  # type: ignore[attr-defined]  # no event tells that it has begun
        threading.Event().wait(0.001)
    began = time.monotonic()
    transport.close()
    assert time.monotonic() - began < patience(5)  # of the 20 s of the attempt
    assert isinstance(failures.get(timeout=patience(5)), TransportClosed)
    connecting.join(patience(5))


# refused


@over_guarded
def test_wrong_password(backend: Backend) -> None:
    assert backend.endpoint is not None
    intruder = replace(backend.endpoint, password="wrong")
    began = time.monotonic()
    with opened(intruder, connect=False, protocol=None) as transport:
        with pytest.raises(NotAuthorized) as caught:
            transport.connect(5)
        assert "wrong" not in str(caught.value)
    assert time.monotonic() - began < patience(2)


def test_broker_without_mqtt_5_is_refused_where_5_was_asked_for() -> None:
    with running_broker("amqtt", protocols=["3.1.1"]) as broker:
        endpoint = Endpoint.from_url(broker.url_tcp)
        with opened(endpoint, connect=False) as transport, pytest.raises(BrokerUnreachable, match="MQTT 5"):
            transport.connect(5)
        with opened(endpoint, protocol=None) as transport:
            assert transport.version is V311


def test_broker_that_hangs_up_on_mqtt_5_gets_3_1_1() -> None:
    def script(client: FakeConnection, broker: FakeBroker) -> None:
        _, _, body = client.read_packet()
        if body[6] == 5:
            return
        client.send(b"\x20\x02\x00\x00")
        client.stay()

    with fake_broker(script) as broker, opened(broker.endpoint, protocol=None) as transport:
        assert transport.version is V311


def test_refused_for_another_reason() -> None:
    with (
        fake_broker(lambda client, _: client.accept(reason=0x89)) as broker,
        opened(broker.endpoint, connect=False) as transport,
        pytest.raises(BrokerUnreachable, match="Server busy"),
    ):
        transport.connect(5)


def test_refused_during_a_reconnect_is_logged_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    def script(client: FakeConnection, broker: FakeBroker) -> None:
        refused = client.number in (1, 2, 3)
        client.accept(reason=0x87 if refused else 0)
        if client.number:
            client.stay()

    caplog.set_level(logging.INFO, "Ether.transport")
    with fake_broker(script) as broker, opened(broker.endpoint) as transport:
        await_kind(transport, ConnectionDown)
        await_kind(transport, ConnectionUp)
    assert [r.levelno for r in caplog.records if "refuses" in r.message] == [logging.WARNING]


def test_subscription_that_is_not_granted() -> None:
    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept()
        client.grant(reason=0x87)
        client.stay()

    with fake_broker(script) as broker, opened(broker.endpoint) as transport:
        with pytest.raises(SubscribeRefused, match="not authorized") as caught:
            transport.subscribe(["secret/#"])
        assert caught.value.topic_filter == "secret/#"
        assert transport.connected


def test_message_that_is_refused() -> None:
    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept()
        packet_id, _ = client.read_publish()
        client.send(b"\x40\x03\xff\xf0\x00" + b"\x40\x03" + packet_id + b"\x87")  # an id of nobody first
        client.stay()

    with fake_broker(script) as broker, opened(broker.endpoint) as transport:
        receipt = transport.publish("a", b"x")
        with pytest.raises(TransportError, match="not authorized"):
            receipt.wait(5)
        assert not receipt.done


# deaf


def test_deaf_connection_is_mended() -> None:
    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept()
        if client.number:
            client.grant()
            client.send(b"\x30\x05\x00\x01a\x00x")
        client.stay()

    with fake_broker(script) as broker, opened(broker.endpoint) as transport:
        transport.subscribe(["a"], timeout_s=patience(3))
        down = await_kind(transport, ConnectionDown)
        assert isinstance(down, ConnectionDown)
        assert "deaf" in down.reason
        assert messages(transport, 1)[0].payload == b"x"


def test_subscribe_on_a_broker_that_stays_deaf() -> None:
    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept()
        client.stay()

    with (
        fake_broker(script) as broker,
        opened(broker.endpoint) as transport,
        pytest.raises(SubscribeRefused, match="no answer"),
    ):
        transport.subscribe(["a"], timeout_s=0.4)


def test_close_while_subscribing() -> None:
    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept()
        client.await_type(SUBSCRIBE)
        broker.said.put("asked")
        client.stay()

    failures: queue.SimpleQueue[Exception] = queue.SimpleQueue()

    def subscribe(transport: Transport) -> None:
        try:
            transport.subscribe(["a"], timeout_s=patience(20))
        except TransportError as error:
            failures.put(error)

    with fake_broker(script) as broker, opened(broker.endpoint) as transport:
        asking = threading.Thread(target=subscribe, args=(transport,))
        asking.start()
        broker.heard()
        transport.close()
        assert isinstance(failures.get(timeout=patience(2)), TransportClosed)
        asking.join(patience(5))


def test_deaf_after_a_reconnect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "SUBACK_S", 1.0)

    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept()
        if client.number == 1:
            client.stay()
        else:
            client.grant()
            broker.said.put(client.number)
        if client.number == 2:
            client.stay()

    with fake_broker(script) as broker, opened(broker.endpoint) as transport:
        transport.subscribe(["a"])
        await_kind(transport, ConnectionDown)
        await_kind(transport, ConnectionUp)
        assert [broker.heard(), broker.heard()] == [0, 2]


@pytest.mark.slow("waits for a keep-alive")
def test_dead_peer_is_noticed_by_keep_alive() -> None:
    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept()
        if client.number:
            client.stay()
        while client.read_packet()[0] != PINGREQ:
            pass
        client.read_packet()

    with fake_broker(script) as broker, opened(broker.endpoint, keepalive_s=1) as transport:
        began = time.monotonic()
        down = await_kind(transport, ConnectionDown)
        assert isinstance(down, ConnectionDown)
        assert "keep-alive" in down.reason
        assert 1 <= time.monotonic() - began < patience(8)


def test_keep_alive_goes_on_while_the_reader_is_slow() -> None:
    """The reader takes nothing; the broker still gets its pings, and acknowledgements stop at the mark."""

    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept()
        for number in range(1, 1101):
            client.send(b"\x32\x06\x00\x01a" + number.to_bytes(2, "big") + b"\x00")
        acknowledged = 0
        while (kind := client.read_packet()[0]) != PINGREQ:
            acknowledged += kind == 4
        broker.said.put(acknowledged)
        client.send(b"\xd0\x00")
        while acknowledged < 1100:
            acknowledged += client.read_packet()[0] == 4
        broker.said.put(acknowledged)
        client.stay()

    with fake_broker(script) as broker, opened(broker.endpoint, keepalive_s=1) as transport:
        before = broker.heard()
        assert isinstance(before, int)
        assert before < 1100
        messages(transport, 1100)
        assert broker.heard() == 1100


# limits that a broker announces


def test_receive_maximum_is_respected() -> None:
    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept(properties=b"\x21\x00\x03")
        first = [client.read_publish()[0] for _ in range(3)]
        client.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.read_packet()
        client.sock.settimeout(10)
        for packet_id in first:
            client.send(b"\x40\x02" + packet_id)
        for _ in range(7):
            client.send(b"\x40\x02" + client.read_publish()[0])
        client.stay()

    with fake_broker(script) as broker, opened(broker.endpoint) as transport:
        for receipt in [transport.publish("a", b"x") for _ in range(10)]:
            receipt.wait(patience(5))


def test_packet_ids_go_round() -> None:
    """70,000 messages: ids stay within 1 to 65,535, and one that is still in use is passed over."""
    ids: list[int] = []

    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept(properties=b"\x21\x00\x64")
        kept, _ = client.read_publish()
        for _ in range(70_000):
            packet_id, _ = client.read_publish()
            ids.append(int.from_bytes(packet_id, "big"))
            client.send(b"\x40\x02" + packet_id)
        client.send(b"\x40\x02" + kept)
        broker.said.put(int.from_bytes(kept, "big"))
        client.stay()

    with fake_broker(script) as broker, opened(broker.endpoint) as transport:
        receipts = [transport.publish("a", b"", timeout_s=patience(60)) for _ in range(70_001)]
        kept = broker.heard(60)
        receipts[0].wait(patience(5))
    assert kept == 1
    assert (min(ids), max(ids)) == (2, 65_535)


def test_maximum_packet_size_is_taken_from_the_broker() -> None:
    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept(properties=b"\x27\x00\x00\x10\x00")
        client.stay()

    with fake_broker(script) as broker:
        with opened(broker.endpoint) as transport:
            assert transport.max_packet_bytes == 4096
        with opened(broker.endpoint, max_packet_bytes=100) as transport:
            assert transport.max_packet_bytes == 100


@pytest.mark.parametrize("before", [b"", b"\x21\x00\x05\x26\x00\x01a\x00\x00\x1f\x00\x02ok"])
def test_maximum_packet_size_beyond_what_a_packet_can_have(before: bytes) -> None:
    """HiveMQ announces 268,435,460; paho alone takes that for malformed."""

    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept(properties=before + b"\x27\x10\x00\x00\x04" + b"\x25\x01")
        client.stay()

    with fake_broker(script) as broker, opened(broker.endpoint) as transport:
        assert transport.max_packet_bytes == 268_435_455


# taken over, malformed, broken


def test_session_that_is_taken_over_is_not_fought_for() -> None:
    at: list[float] = []

    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept()
        at.append(time.monotonic())
        if client.number == 0:
            client.send(b"\xe0\x02\x8e\x00")
        client.stay()

    with fake_broker(script) as broker, opened(broker.endpoint) as transport:
        down = await_kind(transport, ConnectionDown)
        assert isinstance(down, ConnectionDown)
        assert "another client" in down.reason
        await_kind(transport, ConnectionUp)
        assert soon(lambda: len(at) == 2, 5)
        assert at[1] - at[0] > 0.4


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x00\x00",
        b"\xf0\x00",
        b"\x30\xff\xff\xff\xff\x7f",
        b"\x30\x03\x00\x09a",
        b"\x30\x01\x00",
        b"\x34\x06\x00\x01a\x00\x01\x00",
        b"\x32\x04\x00\x01a\x00",
        b"\x30\x04\x00\x01a\x05",
        b"\x40\x01\x00",
        b"\x90\x01\x00",
        b"\xd0\x01\x00",
        b"\x10\x00",
        b"\x20\x02\x00\x87",
        b"\xe0\x02\x77\x00",
    ],
)
def test_nonsense_costs_the_connection_and_nothing_else(nonsense: bytes) -> None:
    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept()
        if client.number == 0:
            client.await_type(PUBLISH)
            client.send(nonsense)
            while client.sock.recv(100):
                pass
        client.send(b"\x30\x05\x00\x01a\x00x")
        client.stay()

    with fake_broker(script) as broker, opened(broker.endpoint) as transport:
        transport.publish("now", b"", qos=0)
        await_kind(transport, ConnectionDown)
        assert messages(transport, 1)[0].payload == b"x"


def test_nonsense_together_with_the_welcome() -> None:
    def script(client: FakeConnection, broker: FakeBroker) -> None:
        if client.number == 0:
            client.await_type(CONNECT)
            client.send(b"\x20\x03\x00\x00\x00" + b"\x90\x01\x00")
        else:
            client.accept()
        client.stay()

    with fake_broker(script) as broker, opened(broker.endpoint) as transport:
        await_kind(transport, ConnectionDown)
        await_kind(transport, ConnectionUp)


def test_message_together_with_the_welcome_is_acknowledged() -> None:
    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.await_type(CONNECT)
        client.send(b"\x20\x03\x00\x00\x00" + b"\x32\x07\x00\x01a\x00\x05\x00x")
        broker.said.put(client.await_type(PUBACK))
        client.stay()

    with fake_broker(script) as broker, opened(broker.endpoint) as transport:
        assert messages(transport, 1)[0].payload == b"x"
        assert broker.heard() == b"\x00\x05"


def test_topic_that_is_not_utf_8_is_skipped_and_acknowledged(caplog: pytest.LogCaptureFixture) -> None:
    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept()
        client.send(b"\x32\x07\x00\x01\xff\x00\x01\x00x")
        client.send(b"\x30\x05\x00\x01a\x00y")
        assert client.await_type(4) == b"\x00\x01"
        client.stay()

    with fake_broker(script) as broker, opened(broker.endpoint) as transport:
        assert messages(transport, 1)[0].payload == b"y"
    assert "not UTF-8" in caplog.text


def test_fault_of_our_own_is_logged_and_mended(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept()
        client.await_type(PUBLISH)
        client.send(b"\x30\x05\x00\x01a\x00x")
        client.stay()

    faults = iter([ZeroDivisionError("ours")])
    original = connection_module.NetworkTransport.on_batch

    def faulty(self: connection_module.NetworkTransport, batch: PacketBatch) -> None:
        if batch.deliveries:
            for fault in faults:
                raise fault
        original(self, batch)

    monkeypatch.setattr(connection_module.NetworkTransport, "on_batch", faulty)
    with fake_broker(script) as broker, opened(broker.endpoint) as transport:
        transport.publish("now", b"", qos=0)
        await_kind(transport, ConnectionDown)
        await_kind(transport, ConnectionUp)
        transport.publish("now", b"", qos=0)
        assert messages(transport, 1)[0].payload == b"x"
    assert "ZeroDivisionError" in caplog.text


# writing to a broker that is slow to read


def test_packets_of_many_threads_do_not_interleave() -> None:
    """A broker that reads in small bites makes every large write partial."""
    sizes = [0, 100, 70_000, 1_500_000, 65_536]

    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept()
        for _ in range(4 * len(sizes)):
            kind, flags, body = client.read_packet()
            assert kind == PUBLISH
            after_topic = 2 + int.from_bytes(body[:2], "big")
            payload_at = after_topic + (3 if flags & 2 else 1)
            payload = body[payload_at:]
            assert payload == body[2:after_topic] * len(payload), "bytes of another message"
            broker.said.put((body[2:after_topic].decode(), len(payload)))
            if flags & 2:
                client.send(b"\x40\x02" + body[after_topic : after_topic + 2])
        client.stay()

    with fake_broker(script, receive_buffer=4096) as broker, opened(broker.endpoint) as transport:

        def publish(name: str) -> None:
            for number, size in enumerate(sizes):
                transport.publish(name, name.encode() * size, qos=number % 2, timeout_s=patience(30))

        threads = [threading.Thread(target=publish, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        got = [broker.heard(30) for _ in range(4 * len(sizes))]
        for thread in threads:
            thread.join()
    for name in "abcd":
        assert [said for said in got if said in [(name, size) for size in sizes]] == [(name, size) for size in sizes]


def test_broker_that_stops_reading_blocks_publishers_and_not_close() -> None:
    may_read = threading.Event()

    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept()
        may_read.wait(patience(30))

    with fake_broker(script, receive_buffer=4096) as broker, opened(broker.endpoint) as transport:
        last = flood(transport)
        assert not last.done
        began = time.monotonic()
        transport.close()
        assert time.monotonic() - began < patience(6)  # it would wait for 30 s
        with pytest.raises(TransportError):
            last.wait(1)
        may_read.set()


def flood(transport: Transport) -> Receipt:
    """Publish until there is no room; the last receipt before that."""
    for _ in range(200):
        try:
            last = transport.publish("a", bytes(1 << 20), qos=0, timeout_s=0.2)
        except PublishTimeout:
            return last
    raise AssertionError("200 MiB found room")


def test_receipt_of_a_qos_0_message_that_had_to_wait() -> None:
    may_read = threading.Event()

    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept()
        may_read.wait(patience(30))
        client.stay()

    with fake_broker(script) as broker, opened(broker.endpoint) as transport:
        receipts = [transport.publish("a", bytes(4 << 20), qos=0) for _ in range(2)]
        assert not receipts[-1].done
        may_read.set()
        receipts[-1].wait(patience(10))
        assert receipts[-1].done


def test_qos_0_beyond_the_bound_is_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ether.transport.receive_queue.HARD_COUNT", 100)

    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept()
        for _ in range(500):
            client.send(b"\x30\xec\x07\x00\x01a\x00" + bytes(1000))
        client.send(b"\x32\x07\x00\x01a\x00\x01\x00x")
        client.await_type(4)
        broker.said.put("all sent")
        client.stay()

    with fake_broker(script) as broker, opened(broker.endpoint) as transport:
        broker.heard()
        kept: list[Delivery] = []
        while not kept or kept[-1].qos == 0:
            kept += messages(transport, 1)
        assert transport.dropped == 501 - len(kept)
        assert transport.dropped > 0
    assert len([r for r in caplog.records if "dropping" in r.message]) == 1
