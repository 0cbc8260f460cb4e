"""What amqtt does wrong and our engine does right; and that amqtt still does it wrong, to hear of its mending."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import defects
import pytest
from defects import DEFECTS, SOUND, Check
from raw_client import RawClient, Target
from running_brokers import RunningBroker, engines, mosquitto_missing, running_broker

MAX_PACKET_BYTES = 2_000_000
NEEDS_MOSQUITTO = pytest.mark.skipif(mosquitto_missing is not None, reason=mosquitto_missing or "")
ENGINES = [pytest.param(name, marks=NEEDS_MOSQUITTO if name == "mosquitto" else ()) for name in engines]
NOT_OF_MOSQUITTO = {
    defects.a_silent_client_is_cut_off,  # it does, but looks only every five seconds
    defects.a_slow_subscriber_costs_bounded_memory,  # not at QoS 0; docs/brokers.md names the consequence
}
ROUNDS = 20 if os.environ.get("ETHER_LONG") else 3


def name_of(check: Check) -> str:
    return check.__name__


def target_of(broker: RunningBroker) -> Target:
    return Target(broker.host, broker.port, broker.username, broker.password, broker.max_packet_bytes)


@pytest.fixture(scope="module")
def amqtt() -> Iterator[RunningBroker]:
    with running_broker("amqtt", max_packet_bytes=MAX_PACKET_BYTES) as broker:
        yield broker
        assert broker.stop() == 0
        assert broker.stderr() == ""


@pytest.fixture(scope="module")
def mosquitto() -> Iterator[RunningBroker]:
    with running_broker("mosquitto", max_packet_bytes=MAX_PACKET_BYTES) as broker:
        yield broker


@pytest.mark.parametrize("check", SOUND, ids=name_of)
def test_our_engine_is_sound(amqtt: RunningBroker, check: Check) -> None:
    check(target_of(amqtt))


@NEEDS_MOSQUITTO
@pytest.mark.parametrize("check", [check for check in SOUND if check not in NOT_OF_MOSQUITTO], ids=name_of)
def test_mosquitto_is_sound(mosquitto: RunningBroker, check: Check) -> None:
    check(target_of(mosquitto))


@contextmanager
def plain_amqtt() -> Iterator[Target]:
    script = Path(__file__).with_name("plain_amqtt.py")
    command = [sys.executable, str(script), "ether", "secret"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield Target(
                "127.0.0.1", json.loads(process.stdout.readline())["port"], "ether", "secret", MAX_PACKET_BYTES
            )
        finally:
            process.kill()


def failure_on_plain_amqtt(check: Check) -> Exception | None:
    try:
        with plain_amqtt() as target:
            check(target)
    except (AssertionError, OSError) as error:  # TimeoutError is an OSError
        return error
    return None


@pytest.fixture(scope="module")
def failures() -> dict[str, Exception | None]:
    """What each check said of plain amqtt; several at once, because a defect shows by waiting in vain."""
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(map(name_of, DEFECTS), pool.map(failure_on_plain_amqtt, DEFECTS), strict=True))


@pytest.mark.parametrize("check", DEFECTS, ids=name_of)
def test_plain_amqtt_has_the_defect(failures: dict[str, Exception | None], check: Check) -> None:
    assert failures[name_of(check)] is not None, "amqtt has mended this: see docs/decisions/0002-embedded-broker.md"


@pytest.mark.parametrize("engine", ENGINES)
def test_sixty_clients_at_once_hear_everything_once(engine: str) -> None:
    with running_broker(engine) as broker:
        defects.everyone_hears_everything_once(target_of(broker), clients=60, retained=200, rounds=ROUNDS)


def test_a_slow_client_and_a_silent_one_are_named_in_a_warning(amqtt: RunningBroker) -> None:
    with RawClient(target_of(amqtt), "the-silent-one", keepalive_s=1) as client:
        assert client.is_closed()
    while "the-silent-one" not in amqtt.event("warning")["text"]:
        pass


def test_wrong_credentials_are_refused_fast_and_reported(amqtt: RunningBroker) -> None:
    target = target_of(amqtt)
    for username, password in (("ether", "wrong"), ("other", target.password), ("", ""), (target.password, "ether")):
        with RawClient(target._replace(username=username, password=password)) as client:
            assert client.connack == b"\x00\x05"
            assert client.packet(1.0) is None
    while "wrong user or password" not in amqtt.event("warning")["text"]:
        pass
    with RawClient(target, hello=False) as nobody:
        nobody.send(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x0a\x00\x01a")  # neither user nor password
        assert nobody.packet(1.0) == (0x20, b"\x00\x05")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_largest_packet_is_the_same_for_both_engines(engine: str) -> None:
    head = len("\0\1t")
    with running_broker(engine, max_packet_bytes=MAX_PACKET_BYTES) as broker:
        with RawClient(target_of(broker)) as client:
            client.publish("t", b"x" * (MAX_PACKET_BYTES - head))
            client.ping()
        with RawClient(target_of(broker)) as client:
            try:
                client.publish("t", b"x" * (MAX_PACKET_BYTES - head + 1))
            except ConnectionError:  # it may be faster than our own writing
                return
            assert client.is_closed()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_large_message_arrives_whole(engine: str) -> None:
    payload = os.urandom(1_000_000) * 24
    with running_broker(engine) as broker:
        target = target_of(broker)
        with RawClient(target) as publisher, RawClient(target) as subscriber:
            subscriber.subscribe(("large", 1))
            publisher.publish("large", payload, qos=1)
            assert subscriber.publication(20).payload == payload


def test_hostile_bytes_end_their_connection_and_nothing_else(amqtt: RunningBroker) -> None:
    target = target_of(amqtt)
    hostile = [
        b"\x00\x00", b"\xf0\x00", b"\x10\x00", b"\x30\x00", b"\x30\x02\x00\x09", b"\x36\x05\x00\x01t\x00\x01",
        b"\x32\x05\x00\x01t\x00\x00", b"\x30\x03\x00\x01#", b"\x30\x03\x00\x01\xff", b"\x30\x02\x00\x00",
        b"\x82\x02\x00\x01", b"\x82\x05\x00\x01\x00\x09a", b"\x82\x06\x00\x01\x00\x01a\x07",
        b"\x80\x06\x00\x01\x00\x01a\x00",
        b"\x40\x00", b"\x62\x01\x00", b"\xa2\x02\x00\x01", b"\x30\xff\xff\xff\xff\x01", b"\x50\x02\x00\x00",
    ]  # fmt: skip
    with RawClient(target) as bystander:
        bystander.subscribe(("fine", 0))
        for data in hostile:
            with RawClient(target) as client:
                client.send(data)
                assert client.is_closed(2.0), data
            with RawClient(target, hello=False) as stranger:
                stranger.send(data)
                stranger.socket.shutdown(1)
                assert stranger.is_closed(2.0), data
        bystander.publish("fine")
        assert bystander.publication().topic == "fine"
