"""The bad network itself: each fate does what it says, to whole packets, and nothing else."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from lossy_proxy import CALM, Broken, Direction, Fate, LossyProxy, Policy, split_packets
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from patience import patience
from running_brokers import RunningBroker, mosquitto_missing, running_broker

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
V311, V5 = MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5
KINDS = [
    pytest.param(("amqtt", V311), id="amqtt-3.1.1"),
    pytest.param(("amqtt", V5), id="amqtt-5"),
    pytest.param(("mosquitto", V311), id="mosquitto-3.1.1", marks=needs_mosquitto),
    pytest.param(("mosquitto", V5), id="mosquitto-5", marks=needs_mosquitto),
]
WAIT_S = patience(5.0)
TO_BROKER, TO_CLIENT = Direction.TO_BROKER, Direction.TO_CLIENT


class Peer:
    """A paho client that subscribes to `t/#` through the proxy."""

    def __init__(
        self, name: str, version: MQTTProtocolVersion, broker: RunningBroker, proxy: LossyProxy, will: str | None
    ) -> None:
        self.arrived: queue.SimpleQueue[MQTTMessage] = queue.SimpleQueue()
        self.acknowledged: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.lost, self._subscribed = threading.Event(), threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=version, reconnect_on_failure=False)
        self._client.username_pw_set(broker.username, broker.password)
        if will is not None:
            self._client.will_set(will, "the will", qos=1)
        self._client.on_message = lambda _c, _u, message: self.arrived.put(message)
        self._client.on_publish = lambda _c, _u, mid, _r, _p: self.acknowledged.put(mid)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_disconnect = lambda *_: self.lost.set()
        assert self._client.connect(proxy.host, proxy.port) == MQTTErrorCode.MQTT_ERR_SUCCESS
        self._client.loop_start()
        self._client.subscribe("t/#", qos=1)
        assert self._subscribed.wait(WAIT_S)

    def publish(self, body: str | bytes, topic: str = "t/x", qos: int = 1) -> None:
        self._client.publish(topic, body, qos=qos)

    def bodies(self, number: int) -> list[str]:
        return [bytes(self.arrived.get(timeout=WAIT_S).payload).decode() for _ in range(number)]

    def settled(self, number: int) -> None:
        for _ in range(number):
            self.acknowledged.get(timeout=WAIT_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture(scope="module", params=KINDS)
def lasting_broker(request: pytest.FixtureRequest) -> Iterator[tuple[RunningBroker, MQTTProtocolVersion]]:
    """A broker that lives while tests of its kind run, and the protocol to speak with it."""
    engine, version = request.param
    with running_broker(engine) as broker:
        yield broker, version


@pytest.fixture
def network(
    lasting_broker: tuple[RunningBroker, MQTTProtocolVersion],
) -> Iterator[tuple[LossyProxy, Callable[..., Peer]]]:
    """A calm proxy before a real broker, and what makes peers behind it."""
    broker, version = lasting_broker
    peers: list[Peer] = []

    with LossyProxy(broker.host, broker.port, seed=1) as proxy:

        def join(name: str, will: str | None = None) -> Peer:
            peers.append(Peer(name, version, broker, proxy, will))
            return peers[-1]

        yield proxy, join
        while peers:  # paho closes its last sockets when it is forgotten
            peers.pop().close()


Network = tuple[LossyProxy, Callable[..., Peer]]


def test_calm_it_passes_everything(network: Network) -> None:
    proxy, join = network
    one, other = join("one"), join("other")
    for n in range(200):
        one.publish(str(n), qos=n // 100)
    one.publish(b"x" * 3_000_000)
    expected = [str(n) for n in range(200)]
    for peer in (one, other):
        got = peer.bodies(201)
        assert (got[:200], len(got[200])) == (expected, 3_000_000)
    assert proxy.count(Fate.PASS) == 3 * 201
    assert proxy.clients() == ("one", "other")


def test_what_is_dropped_is_not_acknowledged_and_comes_to_nobody(network: Network) -> None:
    proxy, join = network
    one = join("one")
    proxy.apply(Policy(drop=1.0, topics="^t/lost$"), TO_BROKER)
    one.publish("lost", "t/lost")
    one.publish("arrives")
    assert one.bodies(1) == ["arrives"]
    one.settled(1)
    assert one.acknowledged.empty()
    assert (proxy.count(Fate.DROP), proxy.count(Fate.DROP, TO_CLIENT)) == (1, 0)


@pytest.mark.parametrize("direction", list(Direction))
def test_what_is_acknowledged_and_dropped_comes_to_nobody(network: Network, direction: Direction) -> None:
    proxy, join = network
    one = join("one")
    proxy.apply(Policy(acknowledge_and_drop=1.0), direction)
    for n in range(150):  # more than anybody's window of unacknowledged messages
        one.publish(f"lost {n}")
    one.settled(150)
    assert proxy.wait_for(lambda: proxy.count(Fate.ACKNOWLEDGE_AND_DROP, direction) == 150, WAIT_S)
    proxy.apply(CALM)
    one.publish("arrives")
    assert one.bodies(1) == ["arrives"]
    one.settled(1)


@pytest.mark.parametrize("direction", list(Direction))
def test_what_is_doubled_comes_twice_and_is_acknowledged_once(network: Network, direction: Direction) -> None:
    proxy, join = network
    one = join("one")
    proxy.apply(Policy(double=1.0), direction)
    for n in range(150):
        one.publish(str(n))
    assert sorted(one.bodies(300), key=int) == [str(n // 2) for n in range(300)]
    one.settled(150)
    proxy.apply(CALM)
    one.publish("last")
    assert one.bodies(1) == ["last"]
    one.settled(1)
    assert (one.acknowledged.empty(), one.arrived.empty(), one.lost.is_set()) == (True, True, False)


@pytest.mark.parametrize("direction", list(Direction))
def test_what_is_late_or_out_of_place_arrives_in_the_end(network: Network, direction: Direction) -> None:
    proxy, join = network
    one = join("one")
    proxy.apply(Policy(delay=0.3, reorder=0.3, delay_s=(0.001, 0.05)), direction)
    for n in range(150):
        one.publish(str(n))
    got = one.bodies(150)
    one.settled(150)
    assert sorted(got, key=int) == [str(n) for n in range(150)]
    assert got != sorted(got, key=int)
    for fate in (Fate.DELAY, Fate.REORDER):
        assert 25 <= proxy.count(fate, direction) <= 65
    assert proxy.wait_for(lambda: proxy.held == 0, WAIT_S)


def test_the_last_of_all_is_not_held_back_for_ever(network: Network) -> None:
    proxy, join = network
    one = join("one")
    proxy.apply(Policy(reorder=1.0), TO_BROKER)
    one.publish("alone")
    assert one.bodies(1) == ["alone"]


def test_a_stalled_connection_moves_again(network: Network) -> None:
    proxy, join = network
    one, other = join("one"), join("other")
    assert proxy.stall(1.5, "one") == 1
    one.publish("from one")
    other.publish("from the other")
    assert other.bodies(1) == ["from the other"]
    assert one.arrived.empty()
    assert sorted(one.bodies(2)) == ["from one", "from the other"]
    proxy.apply(Policy(stall=1.0, stall_s=0.05), TO_BROKER)
    one.publish("with a stall")
    assert other.bodies(2) == ["from one", "with a stall"]


def test_connections_are_cut_one_or_all_or_by_chance(network: Network) -> None:
    proxy, join = network
    one, other, third = join("one"), join("other"), join("third")
    assert proxy.cut("one") == 1
    assert one.lost.wait(WAIT_S)
    proxy.apply(Policy(cut=1.0), TO_BROKER)
    other.publish("never")
    assert other.lost.wait(WAIT_S)
    assert not third.lost.is_set()
    assert proxy.cut() == 1
    assert third.lost.wait(WAIT_S)
    assert (proxy.clients(), proxy.count(Fate.CUT)) == ((), 3)


def test_the_broker_may_notice_a_cut_later(network: Network) -> None:
    proxy, join = network
    mortal, other = join("mortal", will="t/will"), join("other")
    assert proxy.cut("mortal", unnoticed_s=1.5) == 1
    assert mortal.lost.wait(WAIT_S)
    other.publish("meanwhile")
    assert other.bodies(2) == ["meanwhile", "the will"]
    assert proxy.wait_for(lambda: proxy.unnoticed == 0, WAIT_S)


def test_the_same_seed_means_the_same_fates(network: Network) -> None:
    proxy, join = network
    one = join("one")
    fates = Policy(acknowledge_and_drop=0.5)
    proxy.apply(fates, TO_BROKER)
    for n in range(40):
        one.publish(str(n))
    one.settled(40)
    chance = Random("1/0/there")
    expected = [str(n) for n in range(40) if fates.fate(chance, "t/x") is Fate.PASS]
    assert one.bodies(len(expected)) == expected


def test_without_a_broker_connections_end() -> None:
    with LossyProxy("127.0.0.1", 1) as proxy:
        client = Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        client.connect(proxy.host, proxy.port)
        lost: list[Any] = []
        client.on_disconnect = lambda *given: lost.append(given)
        while client.loop(timeout=WAIT_S) == MQTTErrorCode.MQTT_ERR_SUCCESS:
            pass
        assert lost


def test_closing_is_complete_and_may_be_repeated() -> None:
    proxy = LossyProxy("127.0.0.1", 1)
    assert proxy.url("a b", "c/d") == f"mqtt://a%20b:c%2Fd@127.0.0.1:{proxy.port}"
    proxy.close()
    proxy.close()
    with pytest.raises(OSError):
        proxy.cut()


def test_packets_are_split_wherever_the_bytes_break() -> None:
    packets = [b"\xc0\x00", b"\x30\x05\x00\x01tab", b"\x30\x85\x01" + b"\x00\x01t" + b"x" * 130, b"\xe0\x00"]
    stream = b"".join(packets)
    for step in (1, 2, 3, 7, len(stream)):
        received = bytearray()
        got: list[bytes] = []
        for at in range(0, len(stream), step):
            received += stream[at : at + step]
            got.extend(split_packets(received))
        assert (got, bytes(received)) == (packets, b"")
    for broken in (b"\x30\xff\xff\xff\xff\x01", b"\x30\xff\xff\xff\x7f"):
        with pytest.raises(Broken):
            list(split_packets(bytearray(broken)))


def test_probabilities_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="probabilities"):
        Policy(drop=0.6, delay=0.6)
    with pytest.raises(ValueError, match="probabilities"):
        Policy(drop=-0.1)
