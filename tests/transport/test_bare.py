"""A bare connection: what a broker answers arrives as it came, what is not served is not read, and nothing hangs."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from patience import patience

from ether.transport import Endpoint, ProtocolVersion, Will
from ether.transport.bare import BareConnection, BrokerLimits, EntryRefused, serve
from tests.transport.backends import Backend, messages, over_networks
from tests.transport.fake_broker import FakeBroker, FakeConnection, fake_broker

V5, V311 = ProtocolVersion.V5, ProtocolVersion.V311


@contextmanager
def connected(
    endpoint: Endpoint, version: ProtocolVersion = V5, *, will: Will | None = None
) -> Iterator[BareConnection]:
    connection = BareConnection(endpoint, version, f"bare-{os.urandom(4).hex()}", will=will)
    connection.open(time.monotonic() + patience(5))
    try:
        yield connection
    finally:
        connection.cut()


def served(*connections: BareConnection, until: object) -> bool:
    assert callable(until)
    return serve(connections, until, time.monotonic() + patience(5))


@pytest.mark.parametrize(
    ("properties", "announced"),
    [
        (b"", BrokerLimits()),
        (b"\x21\x00\x14", BrokerLimits(receive_maximum=20)),
        (b"\x12\x00\x02id\x27\x00\x00\x04\x00", BrokerLimits(max_packet_bytes=1024)),
        (b"\x24\x00\x25\x00\x28\x00\x2a\x00", BrokerLimits(max_qos=0, retain=False, wildcards=False, shared=False)),
        (b"\x22\x00\x0a\x11\x00\x00\x00\x3c\x13\x00\x1e", BrokerLimits(
            topic_alias_maximum=10, session_expiry_s=60, keepalive_s=30)),
    ],
)  # fmt: skip
def test_what_the_connack_announces(properties: bytes, announced: BrokerLimits) -> None:
    def script(connection: FakeConnection, _: FakeBroker) -> None:
        connection.accept(properties=properties)
        connection.stay()

    with fake_broker(script) as broker, connected(broker.endpoint) as bare:
        assert bare.announced == announced


@pytest.mark.parametrize(
    ("version", "answer", "words", "other_version", "credentials"),
    [
        (V5, b"\x20\x03\x00\x84\x00", "unsupported protocol version", True, False),
        (V5, b"\x20\x02\x00\x01", "unacceptable protocol version", True, False),
        (V5, b"\x20\x03\x00\x87\x00", "not authorized", False, True),
        (V5, b"\x20\x03\x00\x9f\x00", "connection rate exceeded", False, False),
        (V311, b"\x20\x02\x00\x05", "not authorized", False, True),
        (V311, b"\x20\x02\x00\x02", "identifier rejected", False, False),
        (V5, b"", "closed the connection without an answer", True, False),
    ],
)
def test_a_refusal_in_words(
    version: ProtocolVersion, answer: bytes, words: str, other_version: bool, credentials: bool
) -> None:
    def script(connection: FakeConnection, _: FakeBroker) -> None:
        connection.read_packet()
        connection.send(answer)

    with (
        fake_broker(script) as broker,
        pytest.raises(EntryRefused, match=words) as caught,
        connected(broker.endpoint, version),
    ):
        pass
    assert (caught.value.other_version, caught.value.credentials) == (other_version, credentials)


def test_a_broker_that_says_nothing_costs_no_more_than_its_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = Endpoint("tcp", "127.0.0.1", silent.getsockname()[1])
        bare = BareConnection(endpoint, V5, "bare")
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="does not answer a CONNECT"):
            bare.open(time.monotonic() + 0.3)
        assert time.monotonic() - began < patience(2)


def test_codes_of_suback_and_puback_arrive() -> None:
    def script(connection: FakeConnection, _: FakeBroker) -> None:
        connection.accept()
        connection.grant(reason=0x87)
        packet_id, _rest = connection.read_publish()
        connection.send(b"\x40\x03" + packet_id + b"\x95")
        connection.stay()

    with fake_broker(script) as broker, connected(broker.endpoint) as bare:
        asked = bare.subscribe(["x"])
        assert served(bare, until=lambda: asked in bare.granted)
        assert bare.granted[asked] == (0x87,)
        sent = bare.publish("x", b"large")
        assert served(bare, until=lambda: sent in bare.acknowledged)
        assert bare.acknowledged[sent] == 0x95


def test_a_cut_and_a_disconnect_are_told_and_end_the_wait() -> None:
    def script(connection: FakeConnection, _: FakeBroker) -> None:
        connection.accept()
        if connection.number:
            connection.send(b"\xe0\x02\x95\x00")

    with fake_broker(script) as broker:
        for reason in ("closed the connection", "packet too large"):
            with connected(broker.endpoint) as bare:
                assert not served(bare, until=lambda: False)
                assert reason in (bare.lost or "")
                assert bare.publish("x", b"void"), "on a lost connection nothing is raised"
                assert not served(bare, until=lambda: False)


@over_networks
@pytest.mark.parametrize("version", [V311, V5])
def test_over_every_broker(backend: Backend, topic: str, version: ProtocolVersion) -> None:
    """Both ways with Ether's own transport, at both QoS, small and large."""
    assert backend.endpoint is not None
    other = backend.connected(f"{topic}/out")
    with connected(backend.endpoint, version) as bare:
        asked = bare.subscribe([f"{topic}/in"])
        assert served(bare, until=lambda: asked in bare.granted)
        assert bare.granted[asked] == (1,)
        bodies = [b"", b"small", bytes(300_000)]
        for body in bodies:
            other.publish(f"{topic}/in", body)
        assert served(bare, until=lambda: len(bare.deliveries) == len(bodies))
        assert [each.payload for each in bare.take()] == bodies
        sent = [bare.publish(f"{topic}/out", body) for body in bodies]
        bare.publish(f"{topic}/out", b"QoS 0", qos=0)
        assert served(bare, until=lambda: set(sent) <= bare.acknowledged.keys() and not bare.unsent_bytes)
        assert [each.payload for each in messages(other, 4)] == [*bodies, b"QoS 0"]
        bare.ping()
        assert served(bare, until=lambda: bare.pongs == 1)


@over_networks
def test_a_connection_that_is_not_served_reads_nothing(backend: Backend, topic: str) -> None:
    """All of it comes later: a broker keeps what is not acknowledged."""
    assert backend.endpoint is not None
    with connected(backend.endpoint, backend.version) as slow, connected(backend.endpoint, backend.version) as sender:
        asked = slow.subscribe([topic])
        assert served(slow, until=lambda: asked in slow.granted)
        for number in range(300):
            sender.publish(topic, b"%d" % number)
        assert served(sender, until=lambda: len(sender.acknowledged) == 300)
        assert not slow.deliveries
        assert served(slow, until=lambda: len(slow.deliveries) == 300)
        assert [int(each.payload) for each in slow.take()] == list(range(300))


@over_networks
def test_cut_publishes_the_will_and_goodbye_does_not(backend: Backend, topic: str) -> None:
    assert backend.endpoint is not None
    watcher = backend.connected(topic)
    for payload in (b"polite", b"rude"):
        with connected(backend.endpoint, backend.version, will=Will(topic, payload, retain=False)) as bare:
            if payload == b"polite":
                bare.say_goodbye()
                served(bare, until=lambda: bare.lost is not None)
    assert messages(watcher, 1)[0].payload == b"rude"


def test_nothing_is_left_open() -> None:
    """Whichever way a connection fails to open."""
    with ExitStack() as stack:
        taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = taken.getsockname()[1]
    with pytest.raises(OSError):
        BareConnection(Endpoint("tcp", "127.0.0.1", port), V5, "bare").open(time.monotonic() + patience(5))
