"""The broker's pure parts: settings, topics, the queue, the password file."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from running_brokers import write_settings

from broker import settings as settings_module
from broker.core import client_queue as queue_module
from broker.core.client_queue import WINDOW, ClientQueue
from broker.core.exchange import Exchange
from broker.engines.amqtt_engine import require_tested
from broker.engines.mosquitto_config import configuration, password_line
from broker.failures import BrokerFailure, EngineMissing, ExitCode, SettingsRefused
from broker.wire.packets import MalformedPacket, PublishPacket, decoded_topic, subscribe, unsubscribe
from broker.wire.topics import SubscriptionTable, is_valid_filter, matches

GOOD = {"username": "u", "password": "p"}


def refusal(folder: Path, **settings: Any) -> str:
    with pytest.raises(SettingsRefused) as caught:
        settings_module.load(str(write_settings(folder, **settings)))
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"username": "u"}, "'password' is missing"),
        ({**GOOD, "passwort": "x"}, "Unknown key 'passwort'"),
        ({**GOOD, "engine": "hivemq"}, "engine"),
        ({**GOOD, "engine": ["amqtt"]}, "engine"),
        ({**GOOD, "port": 65_536}, "port"),
        ({**GOOD, "port": "1883"}, "port"),
        ({**GOOD, "port": True}, "port"),
        ({**GOOD, "max_packet_bytes": 268_435_456}, "max_packet_bytes"),
        ({**GOOD, "max_packet_bytes": 0}, "max_packet_bytes"),
        ({**GOOD, "username": ""}, "username"),
        ({**GOOD, "username": "a:b"}, "colon"),
        ({**GOOD, "password": "a\nb"}, "control characters"),
        ({**GOOD, "password": 7}, "password"),
        ({**GOOD, "host": "127.0.0.1 evil"}, "host"),
        ({**GOOD, "host": "127.0.0.1\nlistener 1"}, "host"),
        ({**GOOD, "unix_socket": "relative.sock"}, "unix_socket"),
        ({**GOOD, "unix_socket": "/" + "x" * 200}, "longer than"),
        ({**GOOD, "unix_socket": __file__}, "is no socket"),
        ({**GOOD, "private_dir": "/"}, "private_dir"),
        ({**GOOD, "engine": "amqtt", "host": "0.0.0.0"}, "listens on loopback only"),
        ({**GOOD, "engine": "amqtt", "lan_host": "192.168.1.5"}, "host is '192.168.1.5'"),
        ({**GOOD, "lan_host": ""}, "lan_host"),
        ({**GOOD, "lan_host": 5}, "lan_host"),
        ({**GOOD, "lan_host": "::1\nlistener 1"}, "control characters"),
        ({**GOOD, "lan_host": "::1 evil"}, "spaces"),
        ({**GOOD, "lan_host": "127.0.0.2", "lan_port": 65_536}, "lan_port"),
        ({**GOOD, "lan_host": "127.0.0.2", "websocket_port": 65_536}, "websocket_port"),
        ({**GOOD, "lan_host": "127.0.0.2", "websocket_port": "9001"}, "websocket_port"),
        ({**GOOD, "websocket_port": 9001}, "is a port on lan_host, and there is none"),
    ],
)
def test_a_bad_setting_is_refused_in_one_sentence(tmp_path: Path, settings: dict[str, Any], named: str) -> None:
    sentence = refusal(tmp_path, **settings)
    assert named in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff", b"[" * 50_000, b"{" + b" " * 70_000 + b"}"])
def test_what_is_no_settings_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = write_settings(tmp_path)
    path.write_bytes(content)
    with pytest.raises(SettingsRefused):
        settings_module.load(str(path))


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has mode bits")
def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = write_settings(tmp_path, **GOOD)
    for mode in (0o640, 0o604, 0o660, 0o644):
        path.chmod(mode)
        with pytest.raises(SettingsRefused, match="must be 0600"):
            settings_module.load(str(path))


def test_defaults_and_names_of_this_machine(tmp_path: Path) -> None:
    settings = settings_module.load(str(write_settings(tmp_path, **GOOD, host="localhost", private_dir=str(tmp_path))))
    assert (settings.engine, settings.host, settings.port) == ("auto", "127.0.0.1", 0)
    assert settings.max_packet_bytes == settings_module.MAX_PACKET_BYTES


def test_every_failure_has_its_documented_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "brokers.md").read_text()
    for code in ExitCode:
        assert f"| {code.value} | `{code.name}` |" in text
    codes = {failure.code for failure in BrokerFailure.__subclasses__()}
    assert codes == set(ExitCode) - {ExitCode.OK}


def test_a_missing_amqtt_is_a_failure_of_its_own() -> None:
    code = """import sys; sys.modules["amqtt"] = None
from broker.engines import amqtt_engine
from broker.failures import EngineMissing
try: amqtt_engine._load()
except EngineMissing as error: print(int(error.code))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"


@pytest.mark.parametrize("version", ["0.11.4", "0.12.0", "0.13.0", "1.0.0", "1.1.0rc1"])
def test_an_amqtt_that_was_never_tested_is_refused(version: str) -> None:
    from broker.engines.amqtt_broker import is_tested

    assert is_tested("0.12.1")
    assert is_tested("0.12.9")
    with pytest.raises(EngineMissing, match=version):
        require_tested(version, is_tested(version))


def test_the_password_file_of_mosquitto() -> None:
    user, kind, rounds, salt, digest = password_line("me", "secret", (2, 0, 11)).strip().replace(":", "", 1).split("$")
    made = hashlib.pbkdf2_hmac("sha512", b"secret", base64.b64decode(salt), int(rounds))
    assert (user, kind, base64.b64decode(digest)) == ("me", "7", made)
    assert password_line("me", "secret", (1, 6, 9)).startswith("me:$6$")


def test_nobody_enters_a_mosquitto_without_a_password(tmp_path: Path) -> None:
    settings = settings_module.load(str(write_settings(tmp_path, **GOOD)))
    lines = configuration(settings, 1883, (2, 0, 11), "broker.sock").splitlines()
    assert lines[:4] == [
        "listener 1883 127.0.0.1",
        "listener 0 broker.sock",
        "allow_anonymous false",
        "password_file users",
    ]
    assert not any(settings.password == word for line in lines for word in line.split())


@pytest.mark.parametrize(
    ("text", "topic", "heard"),
    [
        ("a/b", "a/b", True), ("a/+", "a/b", True), ("a/+", "a/b/c", False), ("a/#", "a", True), ("a/#", "a/b/c", True),
        ("+/b", "a/b", True), ("#", "a", True), ("#", "$SYS/a", False), ("+/a", "$SYS/a", False),
        ("+", "/a", False), ("/+", "/a", True), ("+/+", "/a", True), ("a/+", "a", False), ("a/+/c", "a//c", True),
        ("$x/#", "$x/a", True),
    ],
)  # fmt: skip
def test_wildcards(text: str, topic: str, heard: bool) -> None:
    assert matches(text.split("/"), topic.split("/")) is heard
    subscriptions: SubscriptionTable[str] = SubscriptionTable()
    subscriptions.add(text, "client", 1)
    assert (subscriptions.subscribers_of(topic.encode()) == [("client", 1)]) is heard


@pytest.mark.parametrize("text", ["", "a#", "a/#/b", "+a", "a/b+", "$share/group/a", "a\x00b"])
def test_filters_that_are_not_granted(text: str) -> None:
    assert not is_valid_filter(text)


def test_a_changed_subscription_is_noticed_by_what_was_looked_up() -> None:
    subscriptions: SubscriptionTable[str] = SubscriptionTable()
    assert subscriptions.subscribers_of(b"a") == []
    subscriptions.add("a", "one", 0)
    subscriptions.add("+", "one", 1)
    assert subscriptions.subscribers_of(b"a") == [("one", 1)]
    subscriptions.remove("+", "one")
    assert subscriptions.subscribers_of(b"a") == [("one", 0)]
    subscriptions.remove("a", "one")
    subscriptions.remove("never/there", "one")
    assert subscriptions.subscribers_of(b"a") == []


def drained(queue: ClientQueue) -> bytes:
    data = b""
    while batch := queue.batch():
        data += batch
    return data


def test_the_queue_counts_to_zero_again() -> None:
    queue, rng = ClientQueue(), random.Random(7)
    waiting = 0
    for _ in range(2_000):
        if rng.random() < 0.5:
            assert queue.put(PublishPacket(b"t", b"x" * rng.randrange(300), 1))
            waiting += 1
        else:
            assert queue.put_frame(b"x" * rng.randrange(1, 300))
    acknowledged = 0
    while waiting:
        drained(queue)
        acknowledged += 1
        queue.acknowledged((acknowledged - 1) % 65_535 + 1)
        waiting -= 1
    assert drained(queue) == b""
    assert queue.bytes == 0


def test_a_large_frame_leaves_in_pieces_and_in_order() -> None:
    queue, large = ClientQueue(), os.urandom(1_500_000)
    for frame in (b"before", large, b"after"):
        queue.put_frame(frame)
    batches = []
    while batch := queue.batch():
        batches.append(bytes(batch))
    assert b"".join(batches) == b"before" + large + b"after"
    assert max(map(len, batches)) <= queue_module.PIECE_BYTES


def test_one_message_alone_is_never_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "LIMIT_BYTES", 1_000)
    queue = ClientQueue()
    assert queue.put(PublishPacket(b"t", b"x" * 5_000, 1))
    assert not queue.put(PublishPacket(b"t", b"x", 1))


class Listener:
    """A connection that remembers instead of sending."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    def flush(self) -> None:
        pass

    def end(self, why: str) -> None:
        self.ended.append(why)


def test_a_client_that_is_away_too_long_loses_its_session_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "LIMIT_BYTES", 10_000)
    warnings: list[str] = []
    exchange = Exchange(warnings.append)
    session, present = exchange.open("away", False, None, Listener())
    assert not present
    exchange.subscribe(session, [("t", 1)])
    exchange.close(session, with_will=False)
    for _ in range(20):
        exchange.publish(PublishPacket(b"t", b"x" * 1_000, 1), retain=False)
    assert len(warnings) == 1
    assert "'away'" in warnings[0]
    assert exchange.open("away", False, None, Listener())[1] is False


def test_the_window_wraps_around_the_packet_numbers() -> None:
    queue = ClientQueue()
    for number in range(1, 70_000):
        queue.put(PublishPacket(b"t", b"", 1))
        drained(queue)
        queue.acknowledged((number - 1) % 65_535 + 1)
    assert queue.bytes == 0
    for _ in range(WINDOW + 5):
        queue.put(PublishPacket(b"t", b"", 1))
    assert drained(queue).count(b"\x00\x01t") == WINDOW


def test_random_bytes_are_malformed_or_mean_something() -> None:
    rng = random.Random(11)
    for _ in range(20_000):
        body = rng.randbytes(rng.randrange(12))
        for parse in (subscribe, unsubscribe, decoded_topic):
            try:
                parse(body)
            except MalformedPacket:
                pass
