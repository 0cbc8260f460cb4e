"""The parts of the transport by themselves: addresses, names, packets, the inbox, and what is expected of paho."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
from patience import patience

from ether.errors import ConfigError, InvalidName, TransportError
from ether.transport import Delivery, Endpoint, ProtocolVersion
from ether.transport.connection import MAX_CLIENT_ID, unguessable
from ether.transport.loopback import LoopbackBroker, LoopbackTransport
from ether.transport.mqtt import MqttWire
from ether.transport.mqtt_versions import SIBLINGS
from ether.transport.names import check_filter, matches, packed_topic
from ether.transport.packets import (
    MAX_PACKET_BYTES,
    MalformedFrame,
    PacketBatch,
    PacketReader,
    packed_length,
    publish_head,
    read_length,
)
from ether.transport.receive_queue import HIGH_COUNT, LOW_COUNT, ReceiveQueue

V5, V311 = ProtocolVersion.V5, ProtocolVersion.V311

# addresses


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("mqtt://host", Endpoint("tcp", "host")),
        ("mqtt://host/", Endpoint("tcp", "host")),
        ("MQTT://host:99", Endpoint("tcp", "host", 99)),
        ("mqtt://[::1]:1", Endpoint("tcp", "::1", 1)),
        ("mqtt://me:p%40ss%2F%3A@h:5", Endpoint("tcp", "h", 5, username="me", password="p@ss/:")),
        ("mqtt://me@h", Endpoint("tcp", "h", username="me")),
        ("mqtts://h", Endpoint("tls", "h", 8883)),
        ("mqtts://u:p@h:5", Endpoint("tls", "h", 5, username="u", password="p")),
        ("ws://h", Endpoint("ws", "h", 80, "/mqtt")),
        ("ws://h/", Endpoint("ws", "h", 80, "/")),
        ("WSS://u:p%40@[::1]:8443/a%20b", Endpoint("wss", "::1", 8443, "/a%20b", "u", "p@")),
        ("unix:///run/b.sock", Endpoint("unix", path="/run/b.sock")),
        ("unix:///a%20b%23c", Endpoint("unix", path="/a b#c")),
        ("unix://u:p@/x", Endpoint("unix", path="/x", username="u", password="p")),
    ],
)
def test_endpoint_from_url(url: str, endpoint: Endpoint) -> None:
    assert Endpoint.from_url(url) == endpoint


@pytest.mark.parametrize(
    "url",
    [
        "", "host", "host:1883", "http://host", "mqtts://host/x", "mqtts://", "mqtt://", "mqtt://:1883", "mqtt://h:0", "mqtt://h:x",
        "mqtt://h:70000", "mqtt://h/path", "mqtt://h?x=1", "mqtt://h#x",
        "ws://", "ws:///x", "ws://h/x?y", "wss://h/a b", "unix://", "unix://relative/path", "mqtt://[::1",
    ],
)  # fmt: skip
def test_endpoint_refuses_other_urls_and_says_what_is_valid(url: str) -> None:
    with pytest.raises(ConfigError, match=r"valid are"):
        Endpoint.from_url(url)


@pytest.mark.parametrize(
    "url", ["ftp://me:s3cret@host", "mqtt://me:s3cret@host/x", "ws://me:s3cret@h/#x", "unix://me:s3cret@host/x"]
)
def test_refused_url_does_not_show_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Endpoint.from_url(url)
    assert "s3cret" not in str(caught.value)


def test_endpoint_hides_its_password() -> None:
    for url in ("mqtt://me:s3cret@host:5", "unix://me:s3cret@/run/x"):
        endpoint = Endpoint.from_url(url)
        assert "s3cret" not in repr(endpoint) + str(endpoint) + endpoint.address
    assert Endpoint.from_url("mqtt://me:s@[::1]").address == "mqtt://[::1]:1883"
    assert Endpoint.from_url("mqtts://me:s@h").address == "mqtts://h:8883"
    assert Endpoint.from_url("ws://me:s@[::1]").address == "ws://[::1]:80/mqtt"
    assert Endpoint.from_url("wss://me:s@h/a/b").address == "wss://h:443/a/b"


def test_endpoint_as_json() -> None:
    endpoint = Endpoint("tcp", "h", 5, username="ü", password="p")
    assert Endpoint.from_dict(json.loads(json.dumps(endpoint.to_dict()))) == endpoint
    with pytest.raises(ConfigError):
        Endpoint.from_dict({"kind": "tcp", "hots": "h"})


def test_client_id_is_unguessable_short_and_plain() -> None:
    first, second = unguessable("camera 1/ü"), unguessable("camera 1/ü")
    assert first != second
    assert first.startswith("camera_1__-")
    assert len(unguessable("x" * 500)) == MAX_CLIENT_ID
    assert first.isascii()


# names


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/b", "a/b", True), ("a/b", "a/c", False), ("a/+", "a/b", True), ("a/+", "a", False),
        ("a/+", "a/b/c", False), ("a/#", "a", True), ("a/#", "a/b/c", True), ("#", "a/b", True), ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False), ("$SYS/#", "$SYS/x", True), ("+/+", "/b", True), ("/+", "/b", True),
        ("+", "/b", False),
        ("a/+/c", "a//c", True), ("a/", "a", False), ("a", "a/", False), ("a/#", "ab", False),
    ],
)  # fmt: skip
def test_matching(topic_filter: str, topic: str, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected


@given(st.text(max_size=40))
def test_any_topic_is_packed_or_refused(topic: str) -> None:
    try:
        packed = packed_topic(topic)
    except InvalidName:
        return
    assert packed[2:].decode() == topic
    assert int.from_bytes(packed[:2], "big") == len(packed) - 2
    check_filter(topic)
    assert matches(topic, topic)


# packets


@given(st.integers(0, MAX_PACKET_BYTES))
@example(127)
@example(128)
@example(16_383)
@example(16_384)
@example(2_097_151)
@example(2_097_152)
def test_lengths(length: int) -> None:
    packed = packed_length(length)
    assert read_length(packed, 0) == (length, len(packed))
    assert read_length(packed[:-1], 0)[1] == -1


def test_length_that_does_not_fit() -> None:
    with pytest.raises(ValueError):
        packed_length(MAX_PACKET_BYTES + 1)
    with pytest.raises(MalformedFrame):
        read_length(b"\xff\xff\xff\xff\x01", 0)


topics = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=20)
small = st.tuples(topics, st.integers(0, 300), st.integers(0, 1), st.booleans())
large = st.tuples(topics, st.integers(10_000, 200_000), st.integers(0, 1), st.booleans())
Shape = tuple[str, int, int, bool]  # topic, bytes of payload, QoS, retained


@given(st.lists(small, max_size=6), st.lists(st.integers(1, 300), min_size=1, max_size=5))
def test_packets_survive_any_cutting(shapes: list[Shape], cuts: list[int]) -> None:
    check_cutting(shapes, cuts)


@given(st.lists(large | small, max_size=4), st.lists(st.integers(1_000, 70_000), min_size=1, max_size=5))
def test_large_packets_survive_any_cutting(shapes: list[Shape], cuts: list[int]) -> None:
    check_cutting(shapes, cuts)


def check_cutting(shapes: list[Shape], cuts: list[int]) -> None:
    sent = [Delivery(topic, b"\x30" * size, qos, retained) for topic, size, qos, retained in shapes]
    stream = b"".join(packed(item, n + 1) + b"\xd0\x00\x40\x02\x00\x07" for n, item in enumerate(sent))
    whole = read_in_pieces(PacketReader(SIBLINGS[V311].split_properties), stream, cuts)
    assert whole.deliveries == sent
    assert whole.to_acknowledge == [(n + 1).to_bytes(2, "big") for n, d in enumerate(sent) if d.qos]
    assert whole.acknowledged == [(7, 0)] * len(sent)
    assert whole.others == [(0xD0, b"")] * len(sent)


def packed(item: Delivery, packet_id: int) -> bytes:
    head = publish_head(packed_topic(item.topic), qos=item.qos, retain=item.retained, tail_bytes=len(item.payload))
    return head + (packet_id.to_bytes(2, "big") if item.qos else b"") + item.payload


def read_in_pieces(reader: PacketReader, stream: bytes, cuts: list[int]) -> PacketBatch:
    whole, at, turn = PacketBatch(), 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        turn += 1
        space = reader.space()
        if space is None:
            piece = stream[at : at + size]
            batch = reader.feed(piece)
        else:
            piece = stream[at : at + min(size, len(space))]
            space[: len(piece)] = piece
            batch = reader.filled(len(piece))
        at += len(piece)
        for name in ("deliveries", "to_acknowledge", "acknowledged", "others"):
            getattr(whole, name).extend(getattr(batch, name))
    return whole


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5), st.sampled_from([V5, V311]))
def test_hostile_bytes_are_packets_or_malformed(pieces: list[bytes], version: ProtocolVersion) -> None:
    reader = PacketReader(SIBLINGS[version].split_properties)
    try:
        for piece in pieces:
            if reader.space() is None:
                reader.feed(piece)
    except MalformedFrame:
        pass


@given(st.binary(max_size=60))
def test_hostile_connack_properties_are_survived(body: bytes) -> None:
    try:
        SIBLINGS[V5].readable_connack(b"\0\0" + body)
    except MalformedFrame:
        pass


# the inbox


def delivery(number: int, qos: int = 1) -> Delivery:
    return Delivery("a", b"%d" % number, qos, retained=False)


def test_acknowledgements_stop_at_the_high_mark_and_resume_at_the_low_one() -> None:
    inbox = ReceiveQueue()
    sent: list[bytes] = []
    inbox.begin_acks(sent.extend)
    for number in range(HIGH_COUNT + 50):
        inbox.put_deliveries([delivery(number)], [b"%d" % number])
    assert len(sent) == HIGH_COUNT - 1
    for left in range(HIGH_COUNT + 50, LOW_COUNT - 1, -1):
        assert len(sent) == HIGH_COUNT - 1 or left < LOW_COUNT
        item = inbox.get(0)
        assert isinstance(item, Delivery)
        inbox.consumed(item)
    assert sent == [b"%d" % number for number in range(HIGH_COUNT + 50)]


def test_what_was_got_but_not_consumed_still_counts() -> None:
    inbox = ReceiveQueue()
    sent: list[bytes] = []
    inbox.begin_acks(sent.extend)
    held = []
    for number in range(HIGH_COUNT + 50):
        inbox.put_deliveries([delivery(number)], [b"%d" % number])
        held.append(inbox.get(0))
    assert len(sent) == HIGH_COUNT - 1
    for item in held:
        assert isinstance(item, Delivery)
        inbox.consumed(item)
    assert len(sent) == HIGH_COUNT + 50


def test_acknowledgements_of_a_lost_connection_are_void() -> None:
    inbox = ReceiveQueue()
    old: list[bytes] = []
    new: list[bytes] = []
    inbox.begin_acks(old.extend)
    for number in range(HIGH_COUNT + 10):
        inbox.put_deliveries([delivery(number)], [b"old"])
    inbox.end_acks()
    inbox.put_deliveries([], [b"nobody"])
    inbox.begin_acks(new.extend)
    before = len(old)
    while isinstance(item := inbox.get(0), Delivery):
        inbox.consumed(item)
    inbox.put_deliveries([], [b"new"])
    assert new == [b"new"]
    assert len(old) == before


def test_no_acknowledgement_is_forgotten_between_reader_and_network_thread() -> None:
    inbox = ReceiveQueue()
    sent: list[bytes] = []
    inbox.begin_acks(sent.extend)
    total = 60_000

    def read() -> None:
        for _ in range(total):
            item = inbox.get(patience(30))
            assert isinstance(item, Delivery)
            inbox.consumed(item)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(0, total, 100):
        inbox.put_deliveries(
            [delivery(n) for n in range(number, number + 100)], [b"%d" % n for n in range(number, number + 100)]
        )
    reader.join(patience(30))
    assert sent == [b"%d" % n for n in range(total)]


def test_large_messages_count_by_their_bytes(caplog: pytest.LogCaptureFixture) -> None:
    inbox = ReceiveQueue()
    sent: list[bytes] = []
    inbox.begin_acks(sent.extend)
    big = Delivery("a", bytes(9 << 20), 1, retained=False)
    with caplog.at_level(logging.WARNING):
        for number in range(4):
            inbox.put_deliveries([big], [b"%d" % number])
    assert sent == [b"0"]
    for _ in range(4):
        item = inbox.get(0)
        assert isinstance(item, Delivery)
        inbox.consumed(item)
    assert sent == [b"0", b"1", b"2", b"3"]
    assert not caplog.records


# the loopback's two versions


def test_loopback_can_play_3_1_1() -> None:
    transport = LoopbackTransport(LoopbackBroker(version=V311), "a")
    transport.connect(1)
    assert transport.version is V311
    transport.close()


def test_loopback_broker_that_is_stopped_refuses() -> None:
    broker = LoopbackBroker()
    broker.stop()
    with pytest.raises(TransportError):
        LoopbackTransport(broker, "a").connect(1)


# paho: what the subclass relies on


OVERRIDDEN = {
    "__init__", "_create_socket_connection", "_mid_generate", "_packet_queue", "_sock_close",
}  # fmt: skip
USED = {
    "_handle_connack", "_handle_suback", "_handle_unsuback", "_handle_disconnect", "_handle_pingresp",
    "_packet_handle", "_check_keepalive", "_send_connect", "_send_disconnect", "_send_subscribe", "_send_unsubscribe",
    "loop_misc", "disconnect",
}  # fmt: skip
USED_STATE = {"_in_packet", "_sock", "_keepalive", "_ping_t", "_last_msg_out", "_last_bytes_received"}


def test_paho_still_has_everything_that_is_overridden_or_used() -> None:
    missing = {name for name in OVERRIDDEN | USED if not callable(getattr(Client, name, None))}
    assert not missing, f"this paho lacks {missing}: see docs/decisions/0005-paho-tuned.md"
    client = Client(CallbackAPIVersion.VERSION2)
    missing = {name for name in USED_STATE if not hasattr(client, name)}
    assert not missing, f"this paho lacks {missing}: see docs/decisions/0005-paho-tuned.md"
    assert {"command", "packet", "remaining_length"} <= set(client._in_packet)


def test_paho_is_overridden_only_where_that_is_meant() -> None:
    client = Client(CallbackAPIVersion.VERSION2)
    taken = set(dir(client)) & {name for name in vars(MqttWire) if not name.startswith("__") or name == "__init__"}
    assert taken == OVERRIDDEN


# weight


def test_importing_loads_no_engine() -> None:
    probe = (
        "import sys, ether.transport\n"
        "heavy = {'paho', 'asyncio', 'ssl', 'socket', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)


def test_an_endpoint_from_a_dict_loads_no_parser_of_urls() -> None:
    probe = (
        "import sys\nfrom ether.transport import Endpoint\n"
        "Endpoint.from_dict({'kind': 'unix', 'path': '/p'})\n"
        "assert 'ether.config.broker_url' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)
