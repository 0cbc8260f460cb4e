"""A broker that answers, and on which no session is possible: what is missing and what to set is said at once (EB6)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from limited_mosquitto import limited_mosquitto
from patience import patience
from picky_proxy import picky_proxy
from running_brokers import mosquitto_missing, soon

from ether import Ether
from ether.errors import BrokerRefuses, BrokerUnreachable, EtherError, StartFailed, SubscribeRefused
from ether.transport import Endpoint, ProtocolVersion, open_transport
from tests.transport.fake_broker import FakeBroker, FakeConnection, fake_broker

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))


@contextmanager
def refused(kind: type[EtherError], within_s: float) -> Iterator[list[str]]:
    """Within the block this error is raised, soon; its text is put into the list, and never calls the broker
    unreachable."""
    text: list[str] = []
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        yield text
    assert time.monotonic() - began < within_s
    text.append(str(caught.value))
    assert "cannot reach" not in text[0]
    assert "Is it running" not in text[0]


def tap(url: str) -> None:
    ether = Ether()
    try:
        ether.tap({"session": "unsuitable", "broker": url})
    finally:
        ether.shutdown()


@needs_mosquitto
def test_no_qos_1() -> None:
    with limited_mosquitto("max_qos 0") as broker, refused(BrokerRefuses, patience(2.4)) as text:
        tap(broker.url_tcp)
    assert "answers, but no session can use it: it takes messages at QoS 0 only." in text[0]
    assert "mosquitto: max_qos 1 or 2" in text[0]


@needs_mosquitto
def test_no_qos_1_over_3_1_1() -> None:
    """CONNACK of 3.1.1 says nothing; the answer to the first subscription does."""
    with (
        limited_mosquitto("max_qos 0") as broker,
        picky_proxy(broker.port, only_v311=True) as proxy,
        refused(SubscribeRefused, patience(2.4)) as text,
    ):
        tap(proxy.url)
    assert "it grants QoS 0 only. A session needs QoS 1" in text[0]
    assert "max_qos 1 or 2" in text[0]


@needs_mosquitto
def test_no_retained_messages() -> None:
    with limited_mosquitto("retain_available false") as broker, refused(BrokerRefuses, patience(2.4)) as text:
        tap(broker.url_tcp)
    assert "it keeps no retained messages. A session needs retained messages" in text[0]
    assert "retain_available true" in text[0]


@needs_mosquitto
def test_no_retained_messages_over_3_1_1() -> None:
    with (
        limited_mosquitto("retain_available false") as broker,
        picky_proxy(broker.port, only_v311=True) as proxy,
        refused(EtherError, patience(8)) as text,
    ):
        tap(proxy.url)
    assert "retain" in text[0]


@needs_mosquitto
def test_too_many_connections() -> None:
    """Mosquitto closes a connection above its limit without a word."""
    with limited_mosquitto("max_connections 2") as broker, ExitStack() as stack:
        for _ in range(3):  # it takes one more than it says
            filling = open_transport(Endpoint.from_url(broker.url_tcp), client_id="filling")
            stack.callback(filling.close)
            filling.connect(5)
        with refused(BrokerRefuses, patience(2.4)) as text:
            tap(broker.url_tcp)
    assert "it closes the connection at once, without a word. Has it reached its limit of connections" in text[0]
    assert "max_connections" in text[0]


@needs_mosquitto
def test_too_many_connections_for_some_instances() -> None:
    """The instances that did not get in say so; nothing is left running."""
    cams = {f"cam{n}": {"class_path": "refused_parts.Cam"} for n in range(4)}
    ether = Ether()
    with limited_mosquitto() as broker, picky_proxy(broker.port) as proxy:
        proxy.room = 3
        with pytest.raises(StartFailed) as failed:
            ether.tap({"session": "crowded", "broker": proxy.url, "instances": cams})
    refusals = [why for why in failed.value.reasons.values() if "without a word" in why]
    assert len(refusals) == 2
    assert all("max_connections" in why and "cannot reach" not in why for why in refusals)


@needs_mosquitto
def test_a_program_gets_in_when_there_is_room_again() -> None:
    with limited_mosquitto() as broker, picky_proxy(broker.port) as proxy:
        proxy.room = 1
        first = open_transport(Endpoint.from_url(proxy.url), client_id="first")
        first.connect(5)
        second = open_transport(Endpoint.from_url(proxy.url), client_id="second")
        with pytest.raises(BrokerRefuses):
            second.connect(5)
        first.close()

        def gets_in() -> bool:
            try:
                second.connect(5)
            except BrokerUnreachable:
                return False
            return True

        assert soon(gets_in, 5)
        assert second.version is ProtocolVersion.V5
        second.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"\x20\x03\x00\x97\x00", "Quota exceeded. Has it reached its limit of connections?"),
        (b"\x20\x03\x00\x89\x00", "Server busy. Has it too many clients?"),
        (b"\x20\x03\x00\x9a\x00", "Retain not supported. A session needs retained messages"),
        (b"\x20\x03\x00\x9b\x00", "QoS not supported. A session needs QoS 1"),
        (b"\x20\x05\x00\x00\x02\x24\x00", "it takes messages at QoS 0 only"),
        (b"\x20\x05\x00\x00\x02\x25\x00", "it keeps no retained messages"),
        (b"\x20\x05\x00\x00\x02\x28\x00", "it grants no wildcards in subscriptions"),
    ],
)
def test_what_connack_says(answer: bytes, words: str) -> None:
    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.await_type(1)
        client.send(answer)
        client.stay()

    with fake_broker(script) as broker:
        transport = open_transport(broker.endpoint, client_id="test", protocol=ProtocolVersion.V5)
        with refused(BrokerRefuses, patience(2.4)) as text:
            transport.connect(5)
        transport.close()
    assert words in text[0]


def test_a_close_without_a_word_makes_no_older_version() -> None:
    """It may have had any reason: the next try asks for the same version."""

    def script(client: FakeConnection, broker: FakeBroker) -> None:
        if client.number == 0:
            client.await_type(1)
            return
        client.accept()
        client.stay()

    with fake_broker(script) as broker:
        transport = open_transport(broker.endpoint, client_id="test")
        transport.connect(5)
        assert transport.version is ProtocolVersion.V5
        transport.close()


def test_a_broker_of_another_version_only() -> None:
    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.await_type(1)
        client.send(b"\x20\x02\x00\x01")

    with fake_broker(script) as broker:
        transport = open_transport(broker.endpoint, client_id="test")
        with refused(BrokerRefuses, patience(2.4)) as text:
            transport.connect(5)
        transport.close()
    assert "it does not speak MQTT 5 and it does not speak MQTT 3.1.1" in text[0]


def test_a_subscription_at_a_lower_qos_is_none() -> None:
    def script(client: FakeConnection, broker: FakeBroker) -> None:
        client.accept()
        client.grant(0)
        client.grant(0)
        client.stay()

    with fake_broker(script) as broker:
        transport = open_transport(broker.endpoint, client_id="test", protocol=ProtocolVersion.V5)
        transport.connect(5)
        with pytest.raises(SubscribeRefused, match="it grants QoS 0 only"):
            transport.subscribe(["a"], qos=1)
        transport.subscribe(["b"], qos=0)
        transport.close()
