"""The broker's pure parts: settings, topics, the queue, the password file."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from patience import patience
from raw_client import packet
from raw_client import text as packed_text
from running_brokers import write_settings
from sans_io import Bench

from broker import lifeline as lifeline_module
from broker import settings as settings_module
from broker.core import outlet as outlet_module
from broker.core.client import AHEAD, ClientProtocol, Terms
from broker.core.outlet import Outlet
from broker.core.quotas import Quotas
from broker.core.retained import RetainedMessages
from broker.core.rights import Logins
from broker.core.routes import PATIENCE, REMEMBERED_TOPICS, Grant, RoutingTable
from broker.core.session_queue import WINDOW, SessionQueue
from broker.core.timers import Timers
from broker.engines.amqtt_plugins import require_tested
from broker.engines.mosquitto_config import configuration, password_line
from broker.failures import BrokerFailure, EngineMissing, ExitCode, SettingsRefused
from broker.listeners.loop import Loop
from broker.wire import properties
from broker.wire.codec_v5 import V5
from broker.wire.codec_v311 import V311
from broker.wire.message import MOST_PIECES, ApplicationMessage
from broker.wire.topics import MOST_LEVELS, TopicTree, is_valid_filter

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
        ({**GOOD, "tls_certificate": "/c"}, "belong together"),
        ({**GOOD, "tls_certificate": "c", "tls_key": "/k"}, "tls_certificate"),
        ({**GOOD, "tls_client_ca": "/c"}, "tls_client_ca"),
        ({**GOOD, "tls_certificate": "/c", "tls_key": "/k"}, "lan_host"),
        ({**GOOD, "tls_minimum": "1.1"}, "tls_minimum"),
        ({**GOOD, "websocket_origins": "http://a"}, "websocket_origins"),
        ({**GOOD, "websocket_origins": ["http://a"], "engine": "mosquitto"}, "Origin"),
        ({**GOOD, "lan_host": ""}, "lan_host"),
        ({**GOOD, "lan_host": 5}, "lan_host"),
        ({**GOOD, "lan_host": "::1\nlistener 1"}, "control characters"),
        ({**GOOD, "lan_host": "::1 evil"}, "spaces"),
        ({**GOOD, "lan_host": "127.0.0.2", "lan_port": 65_536}, "lan_port"),
        ({**GOOD, "lan_host": "127.0.0.2", "websocket_port": 65_536}, "websocket_port"),
        ({**GOOD, "lan_host": "127.0.0.2", "websocket_port": "9001"}, "websocket_port"),
        ({**GOOD, "protocols": []}, "protocols"),
        ({**GOOD, "protocols": "5"}, "protocols"),
        ({**GOOD, "protocols": ["4"]}, "'4'"),
        ({**GOOD, "protocols": ["5"], "engine": "mosquitto"}, "always speaks both"),
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
try: amqtt_engine.amqtt_version()
except EngineMissing as error: print(int(error.code))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"


@pytest.mark.parametrize("version", ["0.11.4", "0.12.0", "0.13.0", "1.0.0", "1.1.0rc1"])
def test_an_amqtt_that_was_never_tested_is_refused(version: str) -> None:
    assert [require_tested(tested) for tested in ("0.12.1", "0.12.9")] == ["0.12.1", "0.12.9"]
    with pytest.raises(EngineMissing, match=version):
        require_tested(version)


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
    filters: TopicTree[str] = TopicTree()
    filters.put(text.encode(), "client")
    assert (list(filters.matching(topic.encode())) == ["client"]) is heard
    topics: TopicTree[str] = TopicTree()
    topics.put(topic.encode(), "message")
    assert (list(topics.under(text.encode())) == ["message"]) is heard


@pytest.mark.parametrize("text", ["", "a#", "a/#/b", "+a", "a/b+", "/" * MOST_LEVELS])
def test_filters_that_are_not_granted(text: str) -> None:
    assert not is_valid_filter(text.encode())


def by_the_book(text: str, topic: str) -> bool:
    """Section 4.7 read literally: the filter as a regular expression."""
    if topic.startswith("$") and text[0] in "+#":
        return False
    pattern = "".join("[^/]*" if each == "+" else re.escape(each) for each in re.split(r"(\+)", text.removesuffix("#")))
    if text.endswith("/#"):
        return bool(re.fullmatch(f"{pattern.removesuffix('/')}(/.*)?", topic))
    return bool(re.fullmatch(pattern + (".*" if text.endswith("#") else ""), topic))


def test_trees_match_as_the_book_says() -> None:
    rng = random.Random(5)
    levels = ["a", "b", "", "$x", "c"]
    topics = {"/".join(rng.choices(levels, k=rng.randrange(1, 5))) for _ in range(300)} - {""}
    filters: TopicTree[str] = TopicTree()
    kept: TopicTree[str] = TopicTree()
    texts = {"/".join(rng.choices([*levels, "+", "+"], k=rng.randrange(1, 5))) for _ in range(200)} - {""}
    texts |= {f"{text}/#" for text in list(texts)[:60]} | {"#"}
    for text in texts:
        filters.put(text.encode(), text)
    for topic in topics:
        kept.put(topic.encode(), topic)
        assert sorted(filters.matching(topic.encode())) == sorted(t for t in texts if by_the_book(t, topic)), topic
    for text in texts:
        assert sorted(kept.under(text.encode())) == sorted(t for t in topics if by_the_book(text, t)), text
    for each in [*texts]:
        filters.remove(each.encode())
    for each in [*topics]:
        kept.remove(each.encode())
    assert not filters._root.below
    assert not kept._root.below


def receivers(table: RoutingTable[str], topic: bytes) -> list[tuple[str, int]]:
    return [(target.session, target.qos) for target in table.route(topic).targets]


def test_a_changed_subscription_is_noticed_by_what_was_looked_up() -> None:
    table: RoutingTable[str] = RoutingTable()
    assert receivers(table, b"a") == []
    table.add(b"a", "one", Grant(0))
    table.add(b"+", "one", Grant(1))
    assert receivers(table, b"a") == [("one", 1)]
    table.remove(b"+", "one")
    assert receivers(table, b"a") == [("one", 0)]
    table.remove(b"a", "one")
    table.remove(b"never/there", "one")
    assert receivers(table, b"a") == []


def test_a_change_forgets_exactly_the_routes_that_it_concerns() -> None:
    table: RoutingTable[str] = RoutingTable()
    routes = {topic: table.route(topic) for topic in (b"a/b", b"a/c", b"b", b"$s/b")}
    table.add(b"a/+", "one", Grant(0))
    assert [topic for topic in routes if table.route(topic) is not routes[topic]] == [b"a/b", b"a/c"]
    routes = {topic: table.route(topic) for topic in routes}
    table.add(b"$share/g/#", "two", Grant(0))
    assert [topic for topic in routes if table.route(topic) is not routes[topic]] == [b"a/b", b"a/c", b"b"]
    routes = {topic: table.route(topic) for topic in routes}
    table.remove(b"a/+", "one")
    assert [topic for topic in routes if table.route(topic) is not routes[topic]] == [b"a/b", b"a/c"]


def test_invented_topics_do_not_fill_the_memory() -> None:
    table: RoutingTable[str] = RoutingTable()
    for number in range(REMEMBERED_TOPICS + 10):
        table.route(b"topic/%d" % number)
    assert len(table._routes) == REMEMBERED_TOPICS
    kept = [table.route(b"topic/%d" % number) for number in range(10)]
    assert kept == [table.route(b"topic/%d" % number) for number in range(10)]
    for number in range(PATIENCE * REMEMBERED_TOPICS):
        table.route(b"later/%d" % number)
    assert b"topic/0" not in table._routes
    known = len(table._routes)
    table.route(b"x" * 10_000)
    table.route(b"/" * 100)
    assert len(table._routes) == known <= REMEMBERED_TOPICS


def drained(outlet: Outlet) -> list[bytes]:
    batches = []
    while batch := outlet.batch(0.0):
        batches.append(bytes(batch))
    return batches


def message(payload: bytes, qos: int = 1) -> ApplicationMessage:
    return ApplicationMessage(b"t", payload, 0, qos)


def test_queue_and_outlet_count_to_zero_again() -> None:
    queue, outlet, rng = SessionQueue(), Outlet(V5), random.Random(7)
    queue.connect(outlet, 65_535, 0.0)
    waiting = 0
    for _ in range(2_000):
        match rng.randrange(3):
            case 0:
                queue.put(message(b"x" * rng.randrange(60_000)), 1, False, b"", 0.0)
                waiting += 1
            case 1:
                outlet.send(message(b"x" * rng.randrange(300)), False, b"", 0.0)
            case 2:
                outlet.send_frame(b"x" * rng.randrange(1, 300_000))
    number = 0
    while waiting:
        drained(outlet)
        number += 1
        waiting -= queue.acknowledged((number - 1) % 65_535 + 1, 0.0)
    drained(outlet)
    assert (len(queue), queue.bytes, len(outlet), outlet.bytes) == (0, 0, 0, 0)


def test_a_large_frame_leaves_in_pieces_and_in_order() -> None:
    outlet, large = Outlet(V5), os.urandom(1_500_000)
    for frame in (b"before", large, b"after"):
        outlet.send_frame(frame)
    batches = drained(outlet)
    assert b"".join(batches) == b"before" + large + b"after"
    assert max(map(len, batches)) <= outlet_module.PIECE_BYTES
    assert outlet.bytes == 0


def test_what_a_socket_took_only_in_part_goes_on_where_it_stopped() -> None:
    rng = random.Random(3)
    outlet, sent, wanted = Outlet(V5), b"", b""
    while len(sent) < 3_000_000:
        if len(wanted) < 3_000_000:
            frame = rng.randbytes(rng.choice([3, 200, 140_000, 300_000]))
            outlet.send_frame(frame)
            wanted += frame
        data = outlet.batch(0.0)
        taken = rng.randrange(len(data) + 1)
        sent += bytes(data[:taken])
        if taken < len(data):
            outlet.put_back(memoryview(data)[taken:])
    sent += b"".join(drained(outlet))
    assert sent == wanted
    assert outlet.bytes == 0


def test_a_packet_whose_beginning_has_left_is_finished() -> None:
    outlet = Outlet(V5)
    for body in (bytes(300_000), bytes(20_000), b"small"):
        outlet.send(message(body, 0), False, b"", 0.0)
    head = bytes(outlet.batch(0.0))
    outlet.cut_short()
    outlet.send_frame(b"end")
    rest = b"".join(drained(outlet))
    assert len(head + rest) == 1 + 3 + 2 + 1 + 1 + 300_000 + len(b"end")
    assert rest.endswith(b"end")


def test_the_window_wraps_around_the_packet_numbers() -> None:
    queue, outlet = SessionQueue(), Outlet(V311)
    queue.connect(outlet, 65_535, 0.0)
    for number in range(1, 70_000):
        queue.put(message(b""), 1, False, b"", 0.0)
        outlet.batch(0.0)
        assert queue.acknowledged((number - 1) % 65_535 + 1, 0.0)
    assert queue.bytes == 0
    for _ in range(WINDOW + 5):
        queue.put(message(b""), 1, False, b"", 0.0)
    assert b"".join(drained(outlet)).count(b"\x00\x01t") == WINDOW


def test_timers_run_in_order_and_forget_what_was_cancelled() -> None:
    timers, ran = Timers(), []
    made = [timers.at(due, lambda due=due: ran.append(due)) for due in (3.0, 1.0, 2.0)]
    made[2].cancel()
    made[2].cancel()
    assert timers.wait_s(0.5, 9.0) == 0.5
    timers.run(2.5)
    assert ran == [1.0]
    for _ in range(1_000):
        timers.at(50.0, lambda: None).cancel()
    assert len(timers._heap) < 200
    timers.run(60.0)
    assert ran == [1.0, 3.0]
    assert timers.wait_s(60.0, 9.0) == 9.0


def test_a_retained_message_that_was_replaced_does_not_wait_for_its_time() -> None:
    """A sensor that retains ten values a second, each for a day, would fill the memory beside the quota."""
    timers = Timers()
    retained = RetainedMessages(timers, 1 << 20)
    for number in range(1_000):
        value = message(b"%d" % number)
        value.retain, value.expires_at = True, 86_400.0 + number
        assert retained.put(value)
    assert len(timers._heap) <= 200
    assert [found.payload for found in retained.under(b"#", 86_500.0)] == [b"999"]
    timers.run(90_000.0)
    assert list(retained.under(b"#", 0.0)) == []
    assert retained._bytes == 0
    assert not retained._ends
    kept = message(b"kept")
    assert retained.put(kept)
    assert list(retained.under(b"#", 0.0)) == [kept]


def test_an_alias_that_its_client_never_got_is_not_used() -> None:
    outlet = Outlet(V5)
    outlet.limit(60, 10)
    assert not outlet.send_numbered(message(b"x" * 100), 1, 1, False, b"", 0.0)
    assert outlet.send_numbered(message(b"small"), 1, 2, False, b"", 0.0)
    assert outlet.send_numbered(message(b"small"), 1, 3, False, b"", 0.0)
    first, second = [bytes(frame) for frame in outlet._entries]
    assert message(b"").topic in first
    assert message(b"").topic not in second


def test_the_packets_that_a_message_keeps_are_few() -> None:
    """A retained message meets with clients for ever, and each may number its subscriptions otherwise."""
    outlet, kept = Outlet(V5), message(b"small")
    for number in range(1, 100):
        more = properties.one(properties.SUBSCRIPTION_ID, number)
        assert outlet.send_numbered(kept, 1, number, True, more, 0.0)
    assert kept._pieces is not None
    assert len(kept._pieces) == MOST_PIECES


def test_a_command_that_fails_does_not_cut_the_lifeline(monkeypatch: pytest.MonkeyPatch) -> None:
    read = iter([b"command\n", b""])
    monkeypatch.setattr(lifeline_module, "_read", lambda descriptor: next(read))
    monkeypatch.setattr(lifeline_module.signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    ended = threading.Event()

    def fails(line: bytes) -> None:
        raise ValueError("a defect")

    lifeline_module.Lifeline().watch(ended.set, fails)
    assert ended.wait(patience(5))


# -- the loop


def test_a_defect_at_one_clients_packet_costs_nobody_else_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defect is planted: what reads the second client's bytes raises what nobody expects."""
    warnings: list[str] = []
    loop = Loop(warnings.append, Terms(100_000, (4, 5)), Logins("u", {"u": "p"}, {}), Quotas())
    genuine = ClientProtocol.receive

    def receive(self: ClientProtocol, data: bytes) -> None:
        if data.startswith(b"defect"):
            raise ZeroDivisionError("planted")
        genuine(self, data)

    monkeypatch.setattr(ClientProtocol, "receive", receive)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        loop.listen(listener)
        thread = threading.Thread(target=loop.run)
        thread.start()
        try:
            address = listener.getsockname()
            with socket.create_connection(address, patience(5)) as good, socket.create_connection(address) as bad:
                bad.sendall(b"defect")
                bad.settimeout(patience(5))
                assert bad.recv(10) == b""
                good.settimeout(patience(5))
                good.sendall(b"\x10\x16\x00\x04MQTT\x04\xc2\x00\x00\x00\x04good\x00\x01u\x00\x01p")
                assert good.recv(4) == b"\x20\x02\x00\x00"
        finally:
            loop.stop()
            thread.join()
    assert len(warnings) == 1
    assert "ZeroDivisionError: planted" in warnings[0]


def test_a_large_packet_takes_little_more_memory_than_was_sent_of_it() -> None:
    bench = Bench(max_packet_bytes=8 << 20)
    sender, receiver = bench.client(), bench.client()
    receiver.subscribe("t")
    whole = packet(0x30, packed_text("t") + b"\x00" + bytes(range(250)) * 20_000)
    for at in range(0, len(whole), 100_000):
        sender.send(whole[at : at + 100_000])
        assert len(sender.core.large_packet or b"") <= AHEAD * (at + 100_000)
    assert receiver.received()[-1].payload == bytes(range(250)) * 20_000
    assert sender.core.space() is None


def test_large_packets_in_pieces_of_any_size_arrive_as_they_were() -> None:
    bench = Bench()
    sender, receivers = bench.client(), [bench.client(), bench.client(level=4)]
    for receiver in receivers:
        receiver.subscribe("t", ("u/+", 1))
    sizes = (20_000, 16_300, 100_000, 5, 70_000, 300_000)
    payloads = [bytes((number,)) * size for number, size in enumerate(sizes)]
    expiry = b"\x05\x02\x00\x00\x00\x09"
    whole = b"".join(
        packet(0x30, packed_text("t") + expiry + each) + packet(0x32, packed_text("u/1") + b"\x00\x01\x00" + each)
        for each in payloads
    )
    for piece in (1_000, 30_000, 65_536, len(whole)):
        for at in range(0, len(whole), piece):
            if (space := sender.core.space()) is not None and piece == 30_000:  # as a socket reads
                taken = min(len(space), piece)
                space[:taken] = whole[at : at + taken]
                sender.core.filled(taken)
                sender.send(whole[at + taken : at + piece])
            else:
                sender.send(whole[at : at + piece])
        for receiver in receivers:
            came = receiver.received()
            assert [each.payload for each in came if each.topic == "t"] == payloads
            assert [each.payload for each in came if each.topic == "u/1"] == payloads
            for each in came:
                if each.qos:
                    receiver.acknowledge(0x40, each.packet_id)
