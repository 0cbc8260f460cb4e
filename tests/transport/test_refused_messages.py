"""Messages that a broker will not take: each is told, alone, and nothing else suffers. And the reverse: a broker that
is away, restarted or frozen never makes the transport give up a message.

Over a real Mosquitto, behind a proxy that judges each PUBLISH as brokers do that are not ours (parts/picky_proxy.py).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from limited_mosquitto import limited_mosquitto
from patience import patience
from picky_proxy import CUT, Published, picky_proxy, takes_at_most
from running_brokers import RunningBroker, mosquitto_missing, running_broker, soon

from ether.errors import PayloadTooLarge, PublishRefused, TooLargeForBroker
from ether.transport import Delivery, Endpoint, ProtocolVersion, Refusal, Transport, open_transport
from ether.transport.cut_rules import STRIKES
from ether.transport.send_queue import SendQueue
from tests.transport.fake_broker import FakeBroker, FakeConnection, fake_broker

V5, V311 = ProtocolVersion.V5, ProtocolVersion.V311
needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
VERSIONS = [pytest.param(V5, id="5"), pytest.param(V311, id="3.1.1")]


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    with limited_mosquitto() as running:
        yield running


@contextmanager
def opened(url: str | Endpoint, *filters: str, protocol: ProtocolVersion | None = None) -> Iterator[Transport]:
    endpoint = Endpoint.from_url(url) if isinstance(url, str) else url
    transport = open_transport(endpoint, client_id="test", protocol=protocol)
    try:
        transport.connect(5)
        if filters:
            transport.subscribe(filters)
        yield transport
    finally:
        transport.close()


def next_refusal(transport: Transport, timeout_s: float = 10.0) -> Refusal:
    deadline = time.monotonic() + patience(timeout_s)
    while time.monotonic() < deadline:
        item = transport.receive(0.1)
        if isinstance(item, Refusal):
            return item
        if isinstance(item, Delivery):
            transport.consumed(item)
    raise AssertionError("nothing was refused")


def bodies(reader: Transport, count: int, timeout_s: float = 20.0) -> list[bytes]:
    """The bodies of the next messages. Those that were sent before, and come again after a cut, are left out."""
    found: list[bytes] = []
    deadline = time.monotonic() + patience(timeout_s)
    while len(found) < count and time.monotonic() < deadline:
        item = reader.receive(0.1)
        if isinstance(item, Delivery):
            reader.consumed(item)
            if item.payload not in found:
                found.append(item.payload)
    return found


# -- in words


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (0x87, PublishRefused, "not authorized. Do the broker's rights"),
        (0x95, TooLargeForBroker, "packet too large. Send it in parts"),
        (0x97, PublishRefused, "quota exceeded"),
        (0xFF, PublishRefused, "reason code 0xff"),
    ],
)
def test_a_refusal_is_told_with_the_message(code: int, kind: type[Exception], words: str) -> None:
    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept()
        packet_id, _ = client.read_publish()
        client.send(b"\x40\x04" + packet_id + bytes((code, 0)))
        packet_id, _ = client.read_publish()
        client.send(b"\x40\x02" + packet_id)
        client.stay()

    with fake_broker(script) as broker, opened(broker.endpoint, protocol=V5) as transport:
        refused = transport.publish("some/topic", b"body", properties=b"\x01\x01")
        told = next_refusal(transport)
        assert (told.topic, told.payload, told.properties) == ("some/topic", b"body", b"\x01\x01")
        assert type(told.error) is kind
        assert words in str(told.error)
        assert "'some/topic'" in str(told.error)
        assert told.receipt is refused
        assert refused.error is told.error
        assert not refused.done
        assert not refused.watched
        with pytest.raises(kind):
            refused.wait(1)
        taken = transport.publish("some/topic", b"body")
        taken.wait(patience(5))
        assert taken.error is None


def test_who_watches_a_receipt_is_called_before_the_refusal_comes_out() -> None:
    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept()
        packet_id, _ = client.read_publish()
        broker.heard()
        client.send(b"\x40\x04" + packet_id + b"\x87\x00")
        client.stay()

    with fake_broker(script) as broker, opened(broker.endpoint, protocol=V5) as transport:
        receipt = transport.publish("a", b"x")
        called = threading.Event()
        receipt.when_done(called.set)
        broker.said.put("go")
        told = next_refusal(transport)
        assert told.receipt.watched
        assert called.is_set()


# -- by closing the connection


@needs_mosquitto
@pytest.mark.parametrize("protocol", VERSIONS)
def test_a_message_at_which_the_broker_closes_the_connection_is_given_up_after_three_times(
    broker: RunningBroker, protocol: ProtocolVersion
) -> None:
    with (
        picky_proxy(broker.port, takes_at_most(100_000)) as proxy,
        opened(broker.url_tcp, "v") as reader,
        opened(proxy.url, protocol=protocol) as transport,
    ):
        transport.publish("v", b"before").wait(patience(5))
        large = transport.publish("big", bytes(200_000))
        behind = transport.publish("v", b"behind")
        told = next_refusal(transport)
        assert isinstance(told.error, TooLargeForBroker)
        assert "closes the connection each time this is sent (3 times)" in str(told.error)
        assert len(told.payload) == 200_000
        assert told.receipt is large
        behind.wait(patience(5))
        assert bodies(reader, 2) == [b"before", b"behind"]
        assert len(proxy.cuts) == STRIKES
        # From now on the limit is known.
        for size in (200_000, 500_000):
            with pytest.raises(PayloadTooLarge, match="this broker closes the connection at 200,0"):
                transport.publish("big", bytes(size))
        transport.publish("v", bytes(90_000)).wait(patience(5))
        assert len(proxy.cuts) == STRIKES


@needs_mosquitto
def test_what_was_learned_of_a_limit_is_forgotten_after_a_while(
    broker: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ether.transport.cut_rules.BAN_S", 0.5)
    with picky_proxy(broker.port, takes_at_most(100_000)) as proxy, opened(proxy.url) as transport:
        transport.publish("v", b"before").wait(patience(5))
        transport.publish("big", bytes(200_000))
        next_refusal(transport)
        proxy.judge = lambda packet: None  # somebody has raised it

        def passes() -> bool:
            try:
                transport.publish("big", bytes(200_000)).wait(patience(5))
            except PayloadTooLarge:
                return False
            return True

        assert soon(passes, 5)


@needs_mosquitto
def test_several_poisons_in_a_stream(broker: RunningBroker) -> None:
    """All that the broker takes arrives, in the order of each topic; what it does not take costs a bounded number of
    connections, because the limit is known after the first."""
    with (
        picky_proxy(broker.port, takes_at_most(100_000), only_v311=True) as proxy,
        opened(broker.url_tcp, "a", "b") as reader,
        opened(proxy.url) as transport,
    ):
        transport.publish("x", b"before").wait(patience(5))
        for n in range(300):
            transport.publish("ab"[n % 2], f"{n}".encode())
            if n in (50, 51, 120, 200):
                try:
                    transport.publish("ab"[n % 2], bytes(150_000 + n))
                except PayloadTooLarge:
                    continue  # known already
        found = bodies(reader, 300)
        assert [int(body) for body in found if int(body) % 2] == list(range(1, 300, 2))
        assert [int(body) for body in found if not int(body) % 2] == list(range(0, 300, 2))
        assert len(proxy.cuts) <= 3 * STRIKES


@needs_mosquitto
def test_a_topic_at_which_the_broker_closes_the_connection(broker: RunningBroker) -> None:
    """As NATS with a space in a topic. Later messages there are refused without a try; larger ones elsewhere pass."""
    with (
        picky_proxy(broker.port, lambda packet: CUT if " " in packet.topic else None, only_v311=True) as proxy,
        opened(broker.url_tcp, "v", "w") as reader,
        opened(proxy.url) as transport,
    ):
        transport.publish("v", bytes(50)).wait(patience(5))
        bad = [transport.publish("not here", f"{n}".encode()) for n in range(3)]
        good = [transport.publish("v", f"{n}".encode()) for n in range(3)]
        told = [next_refusal(transport) for _ in bad]
        assert [each.payload for each in told] == [b"0", b"1", b"2"]
        assert all(isinstance(each.error, PublishRefused) for each in told)
        assert not any(isinstance(each.error, PayloadTooLarge) for each in told)
        assert "closes the connection each time" in str(told[0].error)
        for receipt in good:
            receipt.wait(patience(5))
        assert bodies(reader, 4)[1:] == [b"0", b"1", b"2"]
        cuts = len(proxy.cuts)
        assert cuts <= STRIKES + 1, "one more than its own, at which others were under way"
        for _ in range(20):
            transport.publish("not here", b"again")
            assert isinstance(next_refusal(transport).error, PublishRefused)
        transport.publish("w", bytes(500_000)).wait(patience(5))
        assert len(proxy.cuts) == cuts


@needs_mosquitto
def test_a_disconnect_says_why(broker: RunningBroker) -> None:
    """A broker of MQTT 5 may say why it closes the connection."""

    def script(client: FakeConnection, fake: FakeBroker) -> None:
        client.accept()
        while True:
            packet_id, rest = client.read_publish()
            if len(rest) > 1000:
                client.send(b"\xe0\x02\x95\x00")
                return
            client.send(b"\x40\x02" + packet_id)

    with fake_broker(script) as fake, opened(fake.endpoint, protocol=V5) as transport:
        transport.publish("v", b"x").wait(patience(5))
        transport.publish("big", bytes(20_000))
        behind = transport.publish("v", b"y")
        assert "says 'Packet too large'" in str(next_refusal(transport).error)
        behind.wait(patience(5))


@needs_mosquitto
def test_large_messages_at_qos_0(broker: RunningBroker) -> None:
    """They are not sent again, so each costs one connection, until the limit is known."""
    with picky_proxy(broker.port, takes_at_most(100_000), only_v311=True) as proxy, opened(proxy.url) as transport:
        told: list[Refusal] = []
        while not told:
            assert len(proxy.cuts) < 10
            assert soon(lambda: transport.connected, 5)
            transport.publish("v", b"control").wait(patience(5))
            cuts = len(proxy.cuts)
            transport.publish("img", bytes(200_000), qos=0)
            assert soon(lambda before=cuts: len(proxy.cuts) > before or not transport.connected, 5)  # type: ignore[misc]
            while (item := transport.receive(0.2)) is not None:
                if isinstance(item, Refusal):
                    told.append(item)
        assert len(proxy.cuts) == STRIKES
        assert isinstance(told[0].error, TooLargeForBroker)
        with pytest.raises(PayloadTooLarge):
            transport.publish("img", bytes(200_000), qos=0)
        transport.publish("img", bytes(90_000), qos=0)


@needs_mosquitto
def test_alone_under_way_it_waits_for_a_connection_that_holds(broker: RunningBroker) -> None:
    """Nothing else is published, so there is no control but the time for which the connection holds."""
    with picky_proxy(broker.port, takes_at_most(100_000), only_v311=True) as proxy, opened(proxy.url) as transport:
        began = time.monotonic()
        transport.publish("big", bytes(200_000))
        next_refusal(transport)
        assert len(proxy.cuts) == STRIKES
        assert time.monotonic() - began < patience(5)


# -- the reverse: nothing is given up that is innocent


def nothing_refused(transport: Transport) -> bool:
    while (item := transport.receive(0)) is not None:
        if isinstance(item, Refusal):
            raise AssertionError(f"given up: {item.error}")
    return True


@needs_mosquitto
@pytest.mark.parametrize("protocol", VERSIONS)
def test_a_broker_that_is_killed_again_and_again_makes_nothing_given_up(protocol: ProtocolVersion) -> None:
    """One message after the other is under way alone, while the broker dies six times."""
    with running_broker("mosquitto") as running, opened(running.url_tcp, protocol=protocol) as transport:
        published = threading.Event()
        taken: list[int] = []

        def publish() -> None:
            for n in range(3000):
                receipt = transport.publish("v", f"{n}".encode() * 100, timeout_s=patience(60))
                receipt.wait(patience(30))
                taken.append(n)
                if len(taken) % 400 == 100:
                    published.set()

        publisher = threading.Thread(target=publish)
        publisher.start()
        for _ in range(6):
            assert published.wait(patience(30))
            published.clear()
            running.kill()
            running = running.restart()
        publisher.join(patience(60))
        assert taken == list(range(3000))
        assert nothing_refused(transport)


@needs_mosquitto
def test_a_broker_that_closes_at_everything_makes_nothing_given_up(broker: RunningBroker) -> None:
    """It is shutting down, or overloaded: no publication passes. When it is back, all of them do."""
    with (
        opened(broker.url_tcp, "v", "big") as reader,
        picky_proxy(broker.port) as proxy,
        opened(proxy.url) as transport,
    ):
        transport.publish("v", b"before").wait(patience(5))
        proxy.judge = lambda packet: CUT
        sent = [transport.publish("v", f"{n}".encode()) for n in range(5)]
        sent.append(transport.publish("big", bytes(70_000)))
        assert soon(lambda: len(proxy.cuts) >= 8, 30)
        assert nothing_refused(transport)
        proxy.judge = lambda packet: None
        for receipt in sent:
            receipt.wait(patience(10))
        assert sorted(bodies(reader, 7)[1:])[1:] == [b"0", b"1", b"2", b"3", b"4"]
        assert nothing_refused(transport)


@needs_mosquitto
def test_a_broker_that_closes_twice_is_no_reason(broker: RunningBroker) -> None:
    def judge(packet: Published) -> str | None:
        return CUT if packet.topic == "big" and len(proxy.cuts) < STRIKES - 1 else None

    with picky_proxy(broker.port, judge) as proxy, opened(proxy.url) as transport:
        for _ in range(4):
            proxy.cuts.clear()
            transport.publish("big", bytes(200_000)).wait(patience(10))
            assert len(proxy.cuts) == STRIKES - 1
        assert nothing_refused(transport)


@needs_mosquitto
def test_a_network_that_fails_every_moment_makes_nothing_given_up(broker: RunningBroker) -> None:
    """The proxy cuts the connection again and again, shortly after it came up, whatever is under way, while large
    messages take their time: in the end each of them arrives."""
    with (
        opened(broker.url_tcp, "big") as reader,
        picky_proxy(broker.port) as proxy,
        opened(proxy.url) as transport,
    ):
        ends = threading.Event()

        def cut_now_and_then() -> None:
            while not ends.wait(0.01):
                if not transport.connected or ends.wait(0.15):
                    continue  # a busy machine gets as long a connection as an idle one
                for writer in list(proxy._writers):
                    writer.transport.get_loop().call_soon_threadsafe(writer.transport.abort)  # type: ignore[attr-defined]

        cutting = threading.Thread(target=cut_now_and_then)
        cutting.start()
        try:
            sent = [transport.publish("big", b"%06d" % n + bytes(100_000), timeout_s=patience(60)) for n in range(50)]
            found = bodies(reader, 50, 30)
        finally:
            ends.set()
            cutting.join()
        for receipt in sent:
            receipt.wait(patience(20))
        assert sorted(int(body[:6]) for body in found) == list(range(50))
        assert nothing_refused(transport)


@needs_mosquitto
def test_a_broker_that_stands_still_and_is_killed_makes_nothing_given_up() -> None:
    """It has the message, does not answer, and dies: four times in a row, with the same message alone under way."""
    with running_broker("mosquitto") as running, opened(running.url_tcp) as transport:
        transport.publish("v", b"before").wait(patience(5))
        for _ in range(4):
            assert soon(lambda: transport.connected, 10)
            os.kill(running.engine_pid, signal.SIGSTOP)
            receipt = transport.publish("v", bytes(50_000))
            assert soon(lambda: transport.receive(0.05) is None, 1)
            running.kill()
            running = running.restart()
        receipt.wait(patience(10))
        assert nothing_refused(transport)


def test_a_suspect_is_not_overtaken_on_its_own_topic() -> None:
    """While one waits for its control, others go first, those behind it on its topic do not."""
    order: list[bytes] = []

    def script(client: FakeConnection, fake: FakeBroker) -> None:
        client.accept()
        while True:
            packet_id, rest = client.read_publish()
            if rest.endswith(b"bad") and client.number < 2:
                return
            order.append(rest)
            client.send(b"\x40\x02" + packet_id)

    with fake_broker(script) as fake, opened(fake.endpoint, protocol=V311) as transport:
        transport.publish("w", b"before").wait(patience(5))
        receipts = [transport.publish(topic, body) for topic, body in (
            ("v", b"bad"), ("v", b"behind"), ("w", b"1"), ("v", b"last"), ("w", b"2"),
        )]  # fmt: skip
        for receipt in receipts:
            receipt.wait(patience(10))
    assert [body for body in order if body not in (b"before", b"1", b"2")] == [b"bad", b"behind", b"last"]
    assert [body for body in order if body in (b"1", b"2")] == [b"1", b"2"]


# -- what it costs


def test_where_nothing_is_refused_nothing_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of a message that the broker takes: none of what this page is about runs."""
    for name in ("_refuse_locked", "_fill_carefully_locked", "_condemn_locked", "_ban_of_locked"):
        monkeypatch.setattr(SendQueue, name, lambda *_, **__: pytest.fail("a message was suspected"))

    def script(client: FakeConnection, fake: FakeBroker) -> None:
        client.accept()
        for _ in range(1000):
            packet_id, _ = client.read_publish()
            client.send(b"\x40\x02" + packet_id)
        client.stay()

    with fake_broker(script) as fake, opened(fake.endpoint, protocol=V5) as transport:
        for receipt in [transport.publish("v", b"x") for _ in range(1000)]:
            receipt.wait(patience(5))
