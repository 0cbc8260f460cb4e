"""What the two specifications demand of a server, on the core without a socket: one client's bytes against another's.

docs/brokers.md has the table: which requirement is shown by which test. Where nothing else is said a test runs over
both versions. tests/brokers/test_broker_defects.py shows over sockets what needs them.
"""

from __future__ import annotations

import random

import pytest
from raw_client import packet, text
from sans_io import Bench, Peer, Will, connack_properties, connect, mutated, props, varint

from broker.core.quotas import Quotas
from broker.core.rights import Logins

EXPIRY, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION, SUBSCRIPTION_ID = 0x02, 0x03, 0x08, 0x09, 0x0B
SESSION_EXPIRY, ASSIGNED_ID, SERVER_KEEP_ALIVE, WILL_DELAY, RESPONSE_INFORMATION = 0x11, 0x12, 0x13, 0x18, 0x1A
REASON, RECEIVE_MAXIMUM, ALIAS_MAXIMUM, ALIAS, USER, MAX_PACKET = 0x1F, 0x21, 0x22, 0x23, 0x26, 0x27
NO_LOCAL, AS_PUBLISHED = 4, 8

both = pytest.mark.parametrize("level", [4, 5], ids=["3.1.1", "5"])


@pytest.fixture
def bench() -> Bench:
    return Bench()


def refused(bench: Bench, level: int, *hostile: bytes) -> int:
    """Let a client in, and send these bytes; the reason it is ended with (0x80 where the version has none). A
    bystander hears nothing of it."""
    bystander, client = bench.client(), bench.client(level=level)
    bystander.subscribe("#")
    for data in hostile:
        client.send(data)
    assert client.over
    assert bystander.packets() == []
    bystander.publish("still", b"here")
    assert bystander.payloads() == [b"here"]
    return client.reason() if level == 5 else 0x80


# -- data representation


@both
@pytest.mark.parametrize("bad", [b"\xff", b"a\xed\xa0\x80", b"a\x00b"], ids=["no UTF-8", "surrogate", "NUL"])
def test_a_text_that_is_none_ends_the_connection(bench: Bench, level: int, bad: bytes) -> None:
    more = b"\x00" if level == 5 else b""
    assert refused(bench, level, packet(0x30, text(bad) + more)) in (0x80, 0x81)
    assert refused(bench, level, packet(0x82, b"\x00\x01" + more + text(bad) + b"\x00")) in (0x80, 0x81)
    for client_id, login in ((bad, None), ("a", (bad, ""))):
        stranger = bench.plug(level)
        stranger.connect(client_id, login=login)
        assert stranger.over
        assert stranger.packets() == ([(0x20, b"\x00\x81\x00")] if level == 5 else [])


def test_a_user_property_must_be_two_texts(bench: Bench) -> None:
    for bad in (b"\x26\x00\x01\xff\x00\x01a", b"\x26\x00\x01a\x00\x01\xff", b"\x26\x00\x01a\x00\x02\x00a"):
        assert refused(bench, 5, packet(0x30, text("t") + varint(len(bad)) + bad)) == 0x81


def test_a_byte_order_mark_is_a_character(bench: Bench) -> None:
    client = bench.client()
    client.subscribe("\ufeffa")
    client.publish("a")
    client.publish("\ufeffa", b"with")
    assert client.payloads() == [b"with"]


@both
def test_a_length_has_as_few_bytes_as_it_needs(bench: Bench, level: int) -> None:
    assert refused(bench, level, b"\x30\xff\xff\xff\xff\x01") in (0x80, 0x81)
    if level == 5:
        assert refused(bench, 5, packet(0x30, text("t") + b"\x80\x00")) == 0x81
        assert refused(bench, 5, b"\xc0\x80\x00") == 0x81
    else:  # 3.1.1 does not demand it, and there are clients that pad
        client = bench.client(level=4)
        client.send(b"\xc0\x80\x00")
        assert client.packet() == (0xD0, b"")


@both
@pytest.mark.parametrize(
    "data",
    [
        b"\xc1\x00",
        b"\x80\x00",
        b"\xa0\x00",
        b"\xe1\x00",
        b"\x60\x02\x00\x01",
        b"\x00\x00",
        b"\x20\x02\x00\x00",
        b"\xd0\x00",
    ],
)
def test_reserved_flags_and_kinds_of_the_server_are_malformed(bench: Bench, level: int, data: bytes) -> None:
    assert refused(bench, level, data) in (0x80, 0x81, 0x82)


@both
def test_packet_ids(bench: Bench, level: int) -> None:
    """None at QoS 0, one that is free at QoS 1 and 2; an acknowledgement carries that of its packet; 0 is none."""
    client, other = bench.client(level=level), bench.client(level=level)
    client.subscribe(("t", 2))
    for qos in (0, 1, 2):
        other.publish("t", b"x", qos, packet_id=77)
    assert [(each.first, each.body[:2]) for each in other.packets()] == [(0x40, b"\x00\x4d"), (0x50, b"\x00\x4d")]
    ids = [each.packet_id for each in client.received()]
    assert ids[0] == 0
    assert len(set(ids)) == 3
    assert refused(bench, level, packet(0x32, text("t") + b"\x00\x00" + b"\x00" * (level == 5))) in (0x80, 0x81)
    assert refused(bench, level, packet(0x82, b"\x00\x00" + b"\x00" * (level == 5) + text("t") + b"\x00")) in (
        0x80,
        0x81,
    )


# -- CONNECT and CONNACK


@both
def test_the_first_packet_is_a_connect_and_there_is_no_second(bench: Bench, level: int) -> None:
    stranger = bench.plug(level)
    stranger.publish("t")
    assert stranger.over
    assert stranger.packets() == []
    client = bench.client(level=level)
    client.connect("again")
    assert client.over
    assert level == 4 or client.reason() == 0x82


def test_another_protocol_is_refused(bench: Bench) -> None:
    for body, answer in [
        (text("MQTT") + b"\x06\x02\x00\x00\x00\x00\x00", b"\x00\x84\x00"),
        (text("MQTT") + b"\x03\x02\x00\x00\x00\x00", b"\x00\x01"),
        (text("MQIsdp") + b"\x03\x02\x00\x00\x00\x01a", b"\x00\x01"),
    ]:
        stranger = bench.plug()
        stranger.send(packet(0x10, body))
        assert stranger.over
        assert stranger.packet().body == answer
    stranger = bench.plug()
    stranger.send(packet(0x10, text("HTTP") + b"\x05\x02\x00\x00\x00\x00\x00"))
    assert stranger.over
    assert stranger.packets() == []


def test_a_version_that_is_not_offered_is_refused() -> None:
    bench = Bench(levels=(4,))
    stranger = bench.plug(5)
    stranger.connect("five")
    assert (stranger.over, stranger.packet().body) == (True, b"\x00\x01")
    bench.client(level=4)


@both
@pytest.mark.parametrize(
    ("flags", "fields"), [(0x03, 1), (0x1E, 3), (0x0A, 1), (0x22, 1)],
    ids=["reserved", "will of QoS 3", "QoS without will", "retain without will"],
)  # fmt: skip
def test_flags_of_a_connect_that_make_no_sense(bench: Bench, level: int, flags: int, fields: int) -> None:
    """The packet is whole but for them."""
    more = b"\x00" * (level == 5)
    will = more + text("w") + text("x") if fields == 3 else b""
    stranger = bench.plug(level)
    stranger.send(packet(0x10, text("MQTT") + bytes([level, flags]) + b"\x00\x00" + more + text("a") + will))
    assert stranger.over
    assert stranger.packets() == ([(0x20, b"\x00\x81\x00")] if level == 5 else [])


@both
def test_a_connect_must_be_whole_and_no_more(bench: Bench, level: int) -> None:
    will = Will("w", b"x")
    wholes = [connect(level, "a", login=("", ""), will=will), connect(level, "a", will=will)]
    bodies = [whole[2 : cut + 1] for whole in wholes for cut in range(2, len(whole) - 1)]
    bodies += [whole[2:] + more for whole in wholes for more in (b"x", text(""))]
    begun = text("MQTT") + bytes([level]) + b"%c\x00\x00" + b"\x00" * (level == 5) + text("a")
    bodies += [begun % 0x82, begun % 0xC2 + text(""), begun % 0x42]  # no user, no password, no password
    if level == 4:
        bodies.append(begun % 0x42 + text(""))  # a password without a user
    for body in bodies:
        stranger = bench.plug(level)
        stranger.send(packet(0x10, body))
        assert stranger.over
        assert stranger.packets() == ([(0x20, b"\x00\x81\x00")] if level == 5 and len(body) > 6 else [])
    for whole in wholes:
        stranger = bench.plug(level)
        stranger.send(whole)
        assert stranger.packet().body[:2] == b"\x00\x00"


@both
def test_a_session_is_kept_or_not(bench: Bench, level: int) -> None:
    kept = props((SESSION_EXPIRY, 100))
    first = bench.client("me", level, clean=True, properties=kept)
    assert first.connack[0] == 0
    first.subscribe("t")
    first.drop()
    again = bench.client("me", level, clean=False, properties=kept)
    if level == 4:  # there, a clean session is one that is not kept
        assert again.connack[0] == 0
        again.subscribe("t")
    else:
        assert again.connack[0] == 1
    again.drop()
    bench.client().publish("t", b"while away", 1)
    third = bench.client("me", level, clean=False, properties=kept)
    assert third.connack[0] == 1
    assert third.payloads() == [b"while away"]
    third.drop()
    assert bench.client("me", level, clean=True).connack[0] == 0


def test_a_session_ends_with_its_expiry(bench: Bench) -> None:
    def leave(expiry_s: int | None) -> Peer:
        properties = b"\x00" if expiry_s is None else props((SESSION_EXPIRY, expiry_s))
        client = bench.client("me", clean=False, properties=properties)
        client.subscribe("t")
        client.drop()
        return client

    for expiry_s, later_s, present in [(None, 0, 0), (0, 0, 0), (10, 9.9, 1), (10, 10, 0), (0xFFFFFFFF, 1e9, 1)]:
        bench.client("me").disconnect()
        leave(expiry_s)
        bench.after(later_s)
        back = bench.client("me", clean=False, properties=props((SESSION_EXPIRY, 5)))
        assert back.connack[0] == present, (expiry_s, later_s)
        back.disconnect()


def test_a_disconnect_may_change_the_expiry_but_not_from_nothing(bench: Bench) -> None:
    client = bench.client("me", properties=props((SESSION_EXPIRY, 100)))
    client.disconnect(b"\x00" + props((SESSION_EXPIRY, 1)))
    bench.after(2)
    assert bench.client("me", clean=False).connack[0] == 0
    client = bench.client("other")
    client.disconnect(b"\x00" + props((SESSION_EXPIRY, 1)))
    assert client.reason() == 0x82


@both
def test_client_ids(bench: Bench, level: int) -> None:
    """None is replaced, and told (MQTT 5); in 3.1.1 it is refused where the session is to be kept."""
    unnamed = bench.plug(level)
    unnamed.connect("", clean=level == 4)
    came = unnamed.packet()
    assert came.body[1] == 0
    if level == 5:
        unnamed.connack = came.body
        assert str(connack_properties(unnamed)[ASSIGNED_ID]).startswith("b'auto-")
    else:
        refusal = bench.plug(4)
        refusal.connect("", clean=False)
        assert (refusal.over, refusal.packet().body) == (True, b"\x00\x02")
    bench.client("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", level)
    bench.client("ä/+#$ö", level)
    nameless = bench.plug(level)
    nameless.send(packet(0x10, text("MQTT") + bytes([level]) + b"\x02\x00\x00" + b"\x00" * (level == 5)))
    assert nameless.over
    assert nameless.packets() == ([(0x20, b"\x00\x81\x00")] if level == 5 else [])


@both
def test_who_is_not_let_in_is_told_and_nothing_after_it_is_read(level: int) -> None:
    bench = Bench(logins=Logins("u", {"u": "right"}, {}))
    victim = bench.client("victim", login=("u", "right"))
    stranger = bench.plug(level)
    stranger.send(connect(level, "victim", login=("u", "wrong")) + packet(0x30, text("t") + b"\x00" * (level == 5)))
    assert stranger.over
    assert [each.body[:2] for each in stranger.packets()] == [b"\x00\x86" if level == 5 else b"\x00\x05"]
    assert not victim.over
    assert "refused" in bench.warnings[-1]


def test_enhanced_authentication_is_refused(bench: Bench) -> None:
    for pairs, reason in [([(0x15, "SCRAM")], 0x8C), ([(0x15, "SCRAM"), (0x16, b"x")], 0x8C), ([(0x16, b"x")], 0x82)]:
        stranger = bench.plug()
        stranger.connect("a", properties=props(*pairs))
        assert (stranger.over, stranger.reason()) == (True, reason)
    assert refused(bench, 5, b"\xf0\x00") == 0x82


@both
def test_the_second_connection_of_a_client_id_takes_over(bench: Bench, level: int) -> None:
    first = bench.client("me", level, will=Will("w", b"gone"))
    watcher = bench.client()
    watcher.subscribe("w")
    second = bench.client("me", level)
    assert first.over
    assert level == 4 or first.reason() == 0x8E
    assert watcher.payloads() == [b"gone"]
    assert not second.over
    second.subscribe("t")
    first.drop()
    second.publish("t", b"mine")
    assert second.payloads() == [b"mine"]


def test_what_the_server_announces(bench: Bench) -> None:
    client = bench.client(properties=props((0x19, 1)))
    facts = connack_properties(client)
    assert set(facts) == {RECEIVE_MAXIMUM, ALIAS_MAXIMUM, MAX_PACKET, RESPONSE_INFORMATION}, "what is left out is none"
    assert facts[RECEIVE_MAXIMUM] == 1_000
    assert facts[ALIAS_MAXIMUM] == 32
    assert facts[MAX_PACKET] == bench.max_packet_bytes + 4
    assert str(facts[RESPONSE_INFORMATION]).startswith("b'response/")
    assert RESPONSE_INFORMATION not in connack_properties(bench.client())
    assert MAX_PACKET not in connack_properties(Bench(max_packet_bytes=268_435_455).client())


@pytest.mark.parametrize(
    "pairs", [[(RECEIVE_MAXIMUM, 0)], [(MAX_PACKET, 0)], [(0x17, 2)], [(0x19, 2)], [(ALIAS, 1)], [(0x11, 1), (0x11, 1)]]
)
def test_properties_of_a_connect_that_make_no_sense(bench: Bench, pairs: list[tuple[int, int]]) -> None:
    stranger = bench.plug()
    stranger.connect("a", properties=props(*pairs))
    assert stranger.over
    assert stranger.packets() == [(0x20, b"\x00\x82\x00")], "a CONNACK: before one there is no DISCONNECT"


@both
def test_a_silent_client_is_ended_after_one_and_a_half_keep_alives(bench: Bench, level: int) -> None:
    watcher = bench.client()
    watcher.subscribe("w")
    client = bench.client(level=level, keep_alive_s=10, will=Will("w", b"gone"))
    for _ in range(3):
        bench.after(14)
        client.send(b"\xc0\x00")
        assert client.packet() == (0xD0, b"")
    bench.after(14.9)
    assert not client.over
    bench.after(0.2)
    assert client.over
    assert level == 4 or client.reason() == 0x8D
    assert watcher.payloads() == [b"gone"]


@both
def test_a_session_lasts_as_long_as_its_connection(bench: Bench, level: int) -> None:
    lasting = bench.client(level=level)
    lasting.subscribe("t")
    bench.after(1e6)
    assert not lasting.over
    lasting.publish("t", b"still here")
    assert lasting.payloads() == [b"still here"]


@both
@pytest.mark.parametrize(("asked", "told"), [(0, 20), (21, 20), (20, None), (5, None)])
def test_the_server_may_set_the_keep_alive(level: int, asked: int, told: int | None) -> None:
    bench = Bench(quotas=Quotas(keep_alive_s=20))
    client = bench.client(level=level, keep_alive_s=asked)
    holds = asked
    if level == 5:
        assert connack_properties(client).get(SERVER_KEEP_ALIVE) == told
        holds = told or asked
    bench.after(1.5 * (holds or 1e6) - 0.1)
    assert not client.over
    bench.after(0.2)
    assert client.over is (holds > 0)


def test_who_says_nothing_after_connecting_is_ended(bench: Bench) -> None:
    stranger = bench.plug()
    for byte in connect(5, "slow")[:9]:
        bench.after(1)
        stranger.send(bytes([byte]))
    bench.after(1.1)
    assert stranger.over


# -- wills


@both
def test_a_will_is_published_unless_the_client_says_goodbye(bench: Bench, level: int) -> None:
    watcher = bench.client(level=level)
    watcher.subscribe(("w", AS_PUBLISHED + 1 if level == 5 else 1))
    will = Will("w", b"gone", qos=1, retain=True)
    bench.client("a", level, will=will).disconnect()
    assert watcher.received() == []
    bench.client("a", level, will=will).drop()
    came = watcher.received()
    assert [(each.payload, each.qos, each.retain) for each in came] == [(b"gone", 1, level == 5)]
    bench.client("a", level, will=will).send(b"\xf0\x00")
    assert watcher.payloads() == [b"gone"]
    late = bench.client(level=level)
    late.subscribe("w")
    assert [each.retain for each in late.received()] == [True]
    bench.client("a", level, will=Will("w", b"plain")).drop()
    assert watcher.payloads() == [b"plain"]
    last = bench.client(level=level)
    last.subscribe("w")
    assert last.payloads() == [b"gone"], "a will without the retain flag is not retained"


@both
@pytest.mark.parametrize("topic", ["", "a/#", "+"])
def test_a_will_must_have_a_topic_that_can_be_published_to(bench: Bench, level: int, topic: str) -> None:
    stranger = bench.plug(level)
    stranger.connect("a", will=Will(topic, b"x"))
    assert stranger.over


def test_a_will_can_be_asked_for(bench: Bench) -> None:
    watcher = bench.client()
    watcher.subscribe("w")
    bench.client(will=Will("w", b"gone")).disconnect(b"\x04")
    assert watcher.payloads() == [b"gone"]


def test_a_will_carries_its_properties_and_expires(bench: Bench) -> None:
    watcher = bench.client(properties=props((SESSION_EXPIRY, 1_000)), client_id="watcher")
    watcher.subscribe("w")
    users = [(USER, ("k", "v")), (USER, ("a", "1")), (USER, ("k", "v"))]
    sent = [(0x01, 1), (CONTENT_TYPE, b"text"), (RESPONSE_TOPIC, b"r"), (CORRELATION, b"\x00\xff"), *users]
    for order in ([(WILL_DELAY, 0), *sent, (EXPIRY, 7)], [(EXPIRY, 7), *sent, (WILL_DELAY, 0)]):
        bench.client(will=Will("w", b"gone", 1, properties=props(*order))).drop()
        (came,) = watcher.received()
        assert came.properties == [each for each in order if each[0] != WILL_DELAY], "users' in their order, too"
        watcher.acknowledge(0x40, came.packet_id)
    watcher.drop()
    bench.client(will=Will("w", b"gone", 1, properties=props((EXPIRY, 7)))).drop()
    bench.after(8)
    back = bench.client("watcher", clean=False)
    assert back.payloads() == []


def test_a_delayed_will_waits_and_is_taken_back_by_a_return(bench: Bench) -> None:
    watcher = bench.client()
    watcher.subscribe("w")
    will = Will("w", b"gone", properties=props((WILL_DELAY, 5)))

    def leave(expiry_s: int) -> None:
        bench.client("a", clean=False, will=will, properties=props((SESSION_EXPIRY, expiry_s))).drop()

    leave(100)
    bench.after(4.9)
    assert watcher.payloads() == []
    bench.after(0.2)
    assert watcher.payloads() == [b"gone"]
    leave(100)
    bench.after(3)
    leave(100)  # it came back, and left again
    bench.after(3)
    assert watcher.payloads() == []
    bench.after(2.1)
    assert watcher.payloads() == [b"gone"]
    leave(2)
    bench.after(2.1)
    assert watcher.payloads() == [b"gone"], "the end of the session comes first"
    leave(100)
    bench.client("a", clean=True).disconnect()
    assert watcher.payloads() == [b"gone"], "a clean start ends the session"
    leave(0)
    assert watcher.payloads() == [b"gone"]


# -- PUBLISH


@both
@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("granted", [0, 1, 2])
def test_a_delivery_has_the_lower_qos(bench: Bench, level: int, published: int, granted: int) -> None:
    client = bench.client(level=level)
    assert client.subscribe(("t", granted)) == [granted]
    bench.client(level=9 - level).publish("t", b"x", published)
    assert [each.qos for each in client.received()] == [min(published, granted)]


@both
def test_qos_1_is_acknowledged_and_sent_again_after_a_return_alone(bench: Bench, level: int) -> None:
    kept = props((SESSION_EXPIRY, 100))
    client = bench.client("me", level, clean=False, properties=kept)
    client.subscribe("t")
    sender = bench.client(level=level)
    sender.publish("t", b"one", 1, dup=True)
    sender.publish("t", b"two", 1)
    first = client.received()
    assert [(each.payload, each.dup) for each in first] == [(b"one", False), (b"two", False)]
    client.acknowledge(0x40, first[0].packet_id)
    assert client.packets() == []
    client.drop()
    sender.publish("t", b"three", 1)
    client = bench.client("me", level, clean=False, properties=kept)
    again = client.received()
    assert [(each.payload, each.dup) for each in again] == [(b"two", True), (b"three", False)]
    assert again[0].packet_id == first[1].packet_id
    client.acknowledge(0x40, again[0].packet_id, *([0x80] if level == 5 else []))
    client.acknowledge(0x40, again[1].packet_id)
    client.drop()
    assert bench.client("me", level, clean=False).received() == []


@both
def test_qos_2_is_received_once(bench: Bench, level: int) -> None:
    watcher, sender = bench.client(), bench.client("sender", level, clean=False, properties=props((SESSION_EXPIRY, 9)))
    watcher.subscribe("t")
    sender.publish("t", b"once", 2, packet_id=3)
    assert sender.packet() == (0x50, b"\x00\x03")
    sender.drop()
    sender = bench.client("sender", level, clean=False, properties=props((SESSION_EXPIRY, 9)))
    sender.publish("t", b"once", 2, packet_id=3, dup=True)
    assert sender.packet() == (0x50, b"\x00\x03")
    sender.acknowledge(0x62, 3)
    assert sender.packet() == (0x70, b"\x00\x03")
    assert watcher.payloads() == [b"once"]
    sender.acknowledge(0x62, 3)
    assert sender.packet() == (0x70, b"\x00\x03\x92" if level == 5 else b"\x00\x03")
    sender.publish("t", b"another", 2, packet_id=3)
    assert watcher.payloads() == [b"another"]


@both
def test_qos_2_is_sent_in_four_steps_and_goes_on_after_a_return(bench: Bench, level: int) -> None:
    kept = props((SESSION_EXPIRY, 100))
    client = bench.client("me", level, clean=False, properties=kept)
    client.subscribe(("t", 2))
    sender = bench.client()
    sender.publish("t", b"a", 2, packet_id=1)
    sender.publish("t", b"b", 2, packet_id=2)
    a, b = client.received()
    client.acknowledge(0x50, a.packet_id)
    assert client.packet() == (0x62, a.packet_id.to_bytes(2, "big"))
    client.drop()
    client = bench.client("me", level, clean=False, properties=kept)
    resent = client.packets()
    assert [each.first for each in resent] == [0x62, 0x3C], "PUBREL, and the PUBLISH with DUP"
    client.acknowledge(0x70, a.packet_id)
    client.acknowledge(0x50, b.packet_id)
    assert client.packet() == (0x62, b.packet_id.to_bytes(2, "big"))
    client.acknowledge(0x70, b.packet_id)
    client.acknowledge(0x50, 999)
    assert client.packet() == (0x62, b"\x03\xe7\x92" if level == 5 else b"\x03\xe7")
    client.drop()
    assert bench.client("me", level, clean=False).packets() == []


def test_a_refused_message_of_qos_2_leaves_its_id_free() -> None:
    bench = Bench(quotas=Quotas(retained_bytes=10_000))
    watcher, sender = bench.client(), bench.client()
    watcher.subscribe("t")
    sender.publish("t", bytes(11_000), 2, packet_id=3, retain=True)
    assert sender.packet() == (0x50, b"\x00\x03\x97")
    sender.publish("t", b"another", 2, packet_id=3)
    assert sender.packet() == (0x50, b"\x00\x03")
    assert watcher.payloads() == [b"another"]


@both
def test_what_is_repeated_keeps_its_order(bench: Bench, level: int) -> None:
    kept = props((SESSION_EXPIRY, 100))
    client = bench.client("me", level, clean=False, properties=kept)
    client.subscribe(("t", 2))
    sender = bench.client()
    for number in range(9):
        sender.publish("t", b"%d" % number, 1 + number % 2, packet_id=number + 1)
    first = client.received()
    assert not any(each.dup for each in first)
    client.drop()
    again = bench.client("me", level, clean=False, properties=kept).received()
    assert [(each.payload, each.packet_id) for each in again] == [(each.payload, each.packet_id) for each in first]
    assert all(each.dup for each in again)


def test_what_was_sent_does_not_expire_any_more(bench: Bench) -> None:
    """The handshake of QoS 2 is finished, in both directions, whatever the message's time."""
    kept = props((SESSION_EXPIRY, 100))
    client, sender = bench.client("me", properties=kept), bench.client("sender", properties=kept)
    client.subscribe(("t", 2))
    sender.publish("t", b"x", 2, packet_id=3, properties=props((EXPIRY, 1)))
    (came,) = client.received()
    client.drop()
    bench.after(5)
    client = bench.client("me", clean=False, properties=kept)
    assert client.payloads() == [b"x"]
    client.acknowledge(0x50, came.packet_id)
    assert client.packet().first == 0x62
    sender.acknowledge(0x62, 3)
    assert [each for each in sender.packets() if each.first == 0x70] == [(0x70, b"\x00\x03")]


def test_a_refused_delivery_is_not_sent_again(bench: Bench) -> None:
    kept = props((SESSION_EXPIRY, 100))
    client = bench.client("me", clean=False, properties=kept)
    client.subscribe(("t", 2))
    bench.client().publish("t", b"a", 2)
    (came,) = client.received()
    client.acknowledge(0x50, came.packet_id, 0x80)
    assert client.packets() == []
    client.drop()
    assert bench.client("me", clean=False).packets() == []


@both
@pytest.mark.parametrize("first", [0x36, 0x38], ids=["QoS 3", "DUP at QoS 0"])
def test_flags_of_a_publish_that_make_no_sense(bench: Bench, level: int, first: int) -> None:
    assert refused(bench, level, packet(first, text("t") + b"\x00\x01" + b"\x00" * (level == 5))) in (0x80, 0x81)


@both
@pytest.mark.parametrize("topic", ["", "a/+", "#", "a#"])
def test_a_topic_without_characters_or_with_wildcards(bench: Bench, level: int, topic: str) -> None:
    reason = 0x80 if level == 4 else 0x90 if topic else 0x82
    assert refused(bench, level, packet(0x30, text(topic) + b"\x00" * (level == 5))) == reason


@both
def test_retained_messages(bench: Bench, level: int) -> None:
    """The last one with the flag is kept for later subscribers; an empty one clears; one without the flag changes
    nothing."""
    sender, present = bench.client(level=level), bench.client(level=level)
    present.subscribe(("t/#", 1))
    sender.publish("t/1", b"old", 1, retain=True)
    sender.publish("t/1", b"new", 1, retain=True)
    sender.publish("t/1", b"passing", 1)
    sender.publish("t/2", b"cleared", retain=True)
    sender.publish("t/2", b"", retain=True)
    assert [(each.payload, each.retain) for each in present.received()] == [
        (b"old", False), (b"new", False), (b"passing", False), (b"cleared", False), (b"", False),
    ]  # fmt: skip
    late = bench.client(level=level)
    late.subscribe(("t/+", 2))
    assert [(each.payload, each.retain, each.qos) for each in late.received()] == [(b"new", True, 1)]
    late.subscribe(("t/+", 0))
    assert [(each.payload, each.qos) for each in late.received()] == [(b"new", 0)], "again, with each SUBSCRIBE"


@both
def test_retained_messages_outlive_their_session(bench: Bench, level: int) -> None:
    sender = bench.client("me", level)
    sender.publish("t", b"kept", 1, retain=True)
    sender.disconnect()
    bench.client("me", level, clean=True).disconnect()
    late = bench.client(level=level)
    late.subscribe("t")
    assert late.payloads() == [b"kept"]


def test_retain_handling_and_retain_as_published(bench: Bench) -> None:
    sender, client = bench.client(), bench.client()
    sender.publish("t", b"kept", retain=True)
    plain = bench.client()
    plain.subscribe(("t", 0x21))
    for options, first, again in [(0x01, 1, 1), (0x11, 1, 0), (0x21, 0, 0)]:
        client.subscribe(("t", options))
        assert len(client.received()) == first
        client.subscribe(("t", options))
        assert len(client.received()) == again
        client.unsubscribe("t")
    client.subscribe(("t", 0x21 | AS_PUBLISHED))
    sender.publish("t", b"a", retain=True)
    sender.publish("t", b"b")
    assert [each.retain for each in client.received()] == [True, False]
    assert [each.retain for each in plain.received()] == [False, False]


def test_all_properties_of_a_message_arrive_unchanged(bench: Bench) -> None:
    users = [(USER, ("b", "1")), (USER, ("a", "2")), (USER, ("b", "1"))]
    sent = [(0x01, 1), (CONTENT_TYPE, b"x/y"), (RESPONSE_TOPIC, b"r/1"), (CORRELATION, b"\x00\x01\xfe"), *users]
    for qos in (0, 1, 2):
        client = bench.client()
        client.subscribe(("t", 2))
        bench.client().publish("t", b"x", qos, properties=props(*sent))
        (came,) = client.received()
        assert came.properties == sent


@pytest.mark.parametrize(
    "section",
    [
        props((SUBSCRIPTION_ID, 1)), props((SESSION_EXPIRY, 1)), props((0x01, 2)), props((0x01, 1), (0x01, 1)),
        props((RESPONSE_TOPIC, "a/#")), props((ALIAS, 0)), props((ALIAS, 33)), props((ALIAS, 1)) , b"\x02\x7f\x00",
        b"\x05\x02\x00", b"\x01", b"\xff\xff\xff\x7f", b"\x03\x03\x00\x09", props((CONTENT_TYPE, b"\xff")),
        props((RESPONSE_TOPIC, b"a\xff")), props((RESPONSE_TOPIC, "")),
        props((CONTENT_TYPE, "a"), (CONTENT_TYPE, "a")),
    ],
)  # fmt: skip
def test_properties_of_a_publish_that_make_no_sense(bench: Bench, section: bytes) -> None:
    topic = "" if section == props((ALIAS, 1)) else "t"
    assert refused(bench, 5, packet(0x30, text(topic) + section)) in (0x81, 0x82, 0x94)


def test_a_message_expires_while_it_waits_and_its_time_is_counted_down(bench: Bench) -> None:
    client = bench.client("me", properties=props((SESSION_EXPIRY, 1_000)))
    client.subscribe(("t", 1))
    other = bench.client()
    other.subscribe(("t", 0))
    sender = bench.client()
    sender.publish("t", b"now", 1, properties=props((EXPIRY, 10)))
    assert client.received()[0].value(EXPIRY) == 10
    client.drop()
    for seconds in (5, 20, 0):
        sender.publish("t", b"%d" % seconds, 1, properties=props((EXPIRY, seconds)))
    bench.after(8)
    back = bench.client("me", clean=False)
    assert [(each.payload, each.value(EXPIRY)) for each in back.received()] == [(b"now", 2), (b"20", 12)]
    assert [(each.payload, each.value(EXPIRY)) for each in other.received()] == [(b"now", 2), (b"20", 12)]


def test_a_retained_message_expires(bench: Bench) -> None:
    bench.client().publish("t", b"x", retain=True, properties=props((EXPIRY, 10)))
    bench.after(4)
    early = bench.client()
    early.subscribe("t")
    assert [each.value(EXPIRY) for each in early.received()] == [6]
    bench.after(6)
    late = bench.client()
    late.subscribe("t")
    assert late.received() == []
    assert bench.exchange._retained._bytes == 0


def test_topic_aliases_of_a_client(bench: Bench) -> None:
    watcher, sender = bench.client(), bench.client("sender", properties=props((SESSION_EXPIRY, 100)))
    watcher.subscribe("#")
    sender.publish("one", properties=props((ALIAS, 1)))
    sender.publish("", properties=props((ALIAS, 1)))
    sender.publish("two", properties=props((ALIAS, 1)))
    sender.publish("", properties=props((ALIAS, 1), (USER, ("k", "v"))))
    came = watcher.received()
    assert [each.topic for each in came] == ["one", "one", "two", "two"]
    assert [each.properties for each in came] == [[], [], [], [(USER, ("k", "v"))]]
    sender.publish("last", properties=props((ALIAS, 32)))
    sender.publish("", properties=props((ALIAS, 32)))
    assert [each.topic for each in watcher.received()] == ["last", "last"]
    sender.drop()
    sender = bench.client("sender", clean=False)
    sender.publish("", properties=props((ALIAS, 1)))
    assert sender.reason() == 0x82, "aliases end with their connection"


def test_topic_aliases_for_a_client_that_takes_some(bench: Bench) -> None:
    client, plain = bench.client(properties=props((ALIAS_MAXIMUM, 2))), bench.client()
    for each in (client, plain):
        each.subscribe(("#", 1))
    sender = bench.client()
    for topic in ("a", "b", "c", "a", "c", "b"):
        sender.publish(topic, qos=1 if topic == "b" else 0)
    assert [(each.topic, each.value(ALIAS)) for each in client.received()] == [
        ("a", 1), ("b", 2), ("c", None), ("", 1), ("c", None), ("", 2),
    ]  # fmt: skip
    assert all(each.value(ALIAS) is None for each in plain.received())


def test_no_packet_is_larger_than_its_client_takes(bench: Bench) -> None:
    client = bench.client(properties=props((MAX_PACKET, 100)))
    client.subscribe(("t", 1))
    sender = bench.client()
    for size in (200, 50):
        for qos in (0, 1):
            sender.publish("t", bytes(size), qos)
    assert [len(each.payload) for each in client.received()] == [50, 50]
    for number in range(300):  # the window is free: what was too large counts as delivered
        sender.publish("t", bytes(50 if number > 250 else 200), 1)
    assert len(client.received()) == 49


def test_no_answer_is_larger_than_its_client_takes(bench: Bench) -> None:
    """Words are left out, a DISCONNECT without them stays; where an answer itself is too large the client is ended."""
    small = bench.client(properties=props((MAX_PACKET, 25)))
    small.publish("", b"x")
    assert small.packets() == [(0xE0, b"\x82")]
    client = bench.client(properties=props((MAX_PACKET, 25)))
    client.send(packet(0x82, b"\x00\x01\x00" + b"".join(text(f"a/{each}") + b"\x00" for each in range(30))))
    assert client.packets() == [(0xE0, b"\x95")]
    assert client.over
    modest = bench.client(properties=props((MAX_PACKET, 40), (0x19, 1)))
    assert RESPONSE_INFORMATION not in connack_properties(modest)
    tiny = bench.plug()
    tiny.connect("tiny", properties=props((MAX_PACKET, 5)))
    assert (tiny.over, tiny.packets()) == (True, [(0x20, b"\x00\x95\x00")])


@both
def test_a_packet_that_is_too_large_ends_its_connection_at_its_declaration(bench: Bench, level: int) -> None:
    size = varint(bench.max_packet_bytes + 1)
    assert refused(bench, level, b"\x30" + size) == (0x95 if level == 5 else 0x80)
    client, watcher = bench.client(level=level), bench.client()
    watcher.subscribe("t")
    more = b"\x00" * (level == 5)
    client.send(packet(0x30, text("t") + more + bytes(bench.max_packet_bytes - 3 - len(more))))
    assert len(watcher.received()) == 1


def test_the_receive_maximum_of_a_client(bench: Bench) -> None:
    """Not more unacknowledged messages than it says; other packets are not held back."""
    client = bench.client(properties=props((RECEIVE_MAXIMUM, 2)))
    client.subscribe(("t", 2))
    sender = bench.client()
    for number in range(6):
        sender.publish("t", b"%d" % number, 1 + number % 2, packet_id=number + 1)
        sender.acknowledge(0x62, number + 1)
    sender.publish("t", b"not counted", 0)
    client.send(b"\xc0\x00")
    came = client.packets()
    assert [each.first >> 4 for each in came] == [3, 3, 3, 13]
    client.acknowledge(0x40, 1)
    assert client.payloads() == [b"2"]
    client.acknowledge(0x50, 2)
    assert client.payloads() == [], "QoS 2 is open until PUBCOMP"
    client.acknowledge(0x70, 2)
    assert client.payloads() == [b"3"]


def test_the_receive_maximum_of_the_server(bench: Bench) -> None:
    client = bench.client()
    for number in range(1, 1_001):
        client.publish("t", b"x", 2, packet_id=number)
    assert not client.over
    client.publish("t", b"x", 2, packet_id=1_001)
    assert client.reason() == 0x93


def test_nobody_hears_is_said(bench: Bench) -> None:
    client = bench.client()
    for qos, kind in ((1, 0x40), (2, 0x50)):
        client.publish("t", b"x", qos, packet_id=5)
        assert client.packet() == (kind, b"\x00\x05\x10")
    client.subscribe(("t", NO_LOCAL))
    client.publish("t", b"x", 1)
    assert client.packet().body[2:] == b"\x10"
    client.subscribe("t")
    client.publish("t", b"x", 1)
    assert [each.body[2:] for each in client.packets() if each.first == 0x40] == [b""]


@both
def test_order_is_kept(bench: Bench, level: int) -> None:
    client = bench.client(level=level)
    client.subscribe(("t", 2))
    sender = bench.client(level=level)
    for qos in (0, 1, 2):
        for number in range(250):
            sender.publish("t", b"%d" % number, qos, packet_id=number + 1)
            sender.acknowledge(0x62, number + 1)
    heard: dict[int, list[int]] = {0: [], 1: [], 2: []}
    while came := client.received():
        for each in came:
            heard[each.qos].append(int(each.payload))
            if each.qos == 1:
                client.acknowledge(0x40, each.packet_id)
            elif each.qos == 2:
                client.acknowledge(0x50, each.packet_id)
                client.acknowledge(0x70, each.packet_id)
    assert heard == {qos: list(range(250)) for qos in (0, 1, 2)}


@both
def test_the_same_packet_id_is_a_new_message(bench: Bench, level: int) -> None:
    """At QoS 1, once it was acknowledged, whatever DUP says."""
    watcher, sender = bench.client(), bench.client(level=level)
    watcher.subscribe("t")
    for payload, dup in ((b"one", False), (b"two", False), (b"three", True)):
        sender.publish("t", payload, 1, packet_id=3, dup=dup)
        assert sender.packet() == (0x40, b"\x00\x03")
    assert watcher.payloads() == [b"one", b"two", b"three"]


@both
def test_answers_keep_their_order(bench: Bench, level: int) -> None:
    """PUBACK and PUBREC come in the order of the messages, PUBREL in the order of the PUBRECs."""
    client, sender = bench.client(level=level), bench.client(level=level)
    client.subscribe(("t", 2))
    for number in range(1, 9):
        sender.publish("t", b"x", 1 + number % 2, packet_id=number)
    assert [int.from_bytes(each.body[:2], "big") for each in sender.packets()] == list(range(1, 9))
    ids = [each.packet_id for each in client.received() if each.qos == 2]
    for packet_id in reversed(ids):
        client.acknowledge(0x50, packet_id)
    assert [int.from_bytes(each.body[:2], "big") for each in client.packets()] == ids[::-1]


# -- SUBSCRIBE and UNSUBSCRIBE


@both
def test_a_subscribe_is_answered_filter_by_filter(bench: Bench, level: int) -> None:
    client = bench.client(level=level)
    wrong = 0x8F if level == 5 else 0x80
    assert client.subscribe(("a", 0), ("b#", 1), ("c", 2), ("", 0), ("$share/g", 0)) == [0, wrong, 2, wrong, wrong]
    more = b"\x00" * (level == 5)
    client.send(packet(0x82, b"\x02\x05" + more + text("a") + b"\x00"))
    client.send(packet(0xA2, b"\x03\x06" + more + text("b")))
    reasons = [b"\x00", b"\x11"] if level == 5 else [b"\x00", b""]
    assert client.packets() == [(0x90, b"\x02\x05" + more + reasons[0]), (0xB0, b"\x03\x06" + more + reasons[1])]
    client.publish("a", b"1")
    client.publish("c", b"2")
    assert client.payloads() == [b"1", b"2"]


@both
def test_a_subscribe_must_make_sense(bench: Bench, level: int) -> None:
    more = b"\x00" * (level == 5)
    for body in (b"\x00\x01" + more, b"\x00\x01" + more + text("t"), b"\x00\x01" + more + text("t") + b"\x03", b"\x00"):
        assert refused(bench, level, packet(0x82, body)) in (0x80, 0x81, 0x82)
    assert refused(bench, level, packet(0xA2, b"\x00\x01" + more)) in (0x80, 0x82)
    assert refused(bench, level, packet(0x80, b"\x00\x01" + more + text("t") + b"\x00")) in (0x80, 0x81)
    assert refused(bench, level, packet(0xA0, b"\x00\x01" + more + text("t"))) in (0x80, 0x81)
    if level == 5:
        for options, reason in ((0x31, 0x82), (0x03, 0x82), (0x41, 0x81), (0x81, 0x81)):
            assert refused(bench, 5, packet(0x82, b"\x00\x01\x00" + text("t") + bytes([options]))) == reason
        assert refused(bench, 5, packet(0x82, b"\x00\x01" + props((SUBSCRIPTION_ID, 0)) + text("t") + b"\x00")) == 0x82
        assert refused(bench, 5, packet(0x82, b"\x00\x01\x00" + text("$share/g/t") + b"\x04")) == 0x82


@both
@pytest.mark.parametrize("bad", [b"\xff", b"a\x00"], ids=["no UTF-8", "NUL"])
def test_an_unsubscribe_must_name_texts(bench: Bench, level: int, bad: bytes) -> None:
    more = b"\x00" * (level == 5)
    assert refused(bench, level, packet(0xA2, b"\x00\x01" + more + text(bad))) in (0x80, 0x81)


@both
def test_a_filter_again_replaces_the_subscription(bench: Bench, level: int) -> None:
    client = bench.client(level=level)
    client.subscribe(("t", 0))
    client.subscribe(("t", 1))
    client.publish("t", b"x", 1)
    assert [each.qos for each in client.received()] == [1]


@both
def test_an_unsubscribe_ends_what_it_names_and_is_answered(bench: Bench, level: int) -> None:
    client = bench.client(level=level)
    client.subscribe("a/+", "a/b", "b")
    client.send(packet(0xA2, b"\x03\x06" + b"\x00" * (level == 5) + text("none")))
    assert client.packets() == [(0xB0, b"\x03\x06\x00\x11" if level == 5 else b"\x03\x06")]
    reasons = client.unsubscribe("a/b", "a/c", "a/+")
    assert reasons == ([0, 0x11, 0] if level == 5 else [])
    client.publish("a/b", b"after")
    client.publish("b", b"kept")
    assert client.payloads() == [b"kept"]


def test_an_unsubscribe_does_not_stop_what_is_under_way(bench: Bench) -> None:
    client = bench.client("me", properties=props((SESSION_EXPIRY, 10)))
    client.subscribe("t")
    bench.client().publish("t", b"under way", 1)
    assert client.payloads() == [b"under way"]
    client.unsubscribe("t")
    client.drop()
    assert bench.client("me", clean=False).payloads() == [b"under way"]


def test_no_local(bench: Bench) -> None:
    client, other = bench.client(), bench.client()
    client.subscribe(("t", 1 | NO_LOCAL))
    client.publish("t", b"mine")
    other.publish("t", b"theirs")
    assert client.payloads() == [b"theirs"]
    client.subscribe(("t/#", 0))
    client.publish("t", b"mine", 1)
    assert [(each.payload, each.qos) for each in client.received()] == [(b"mine", 0)], "by the other filter"


@both
def test_overlapping_filters_give_one_copy_at_the_highest_qos(bench: Bench, level: int) -> None:
    client = bench.client(level=level)
    client.subscribe(("t", 0), ("+", 2), ("#", 1))
    bench.client().publish("t", b"once", 2)
    assert [each.qos for each in client.received()] == [2]


def test_subscription_identifiers(bench: Bench) -> None:
    client, plain = bench.client(), bench.client()
    client.subscribe("t", properties=props((SUBSCRIPTION_ID, 1)))
    client.subscribe("#", properties=props((SUBSCRIPTION_ID, 268_435_455)))
    client.subscribe("+")
    plain.subscribe("#")
    bench.client().publish("t", b"x", retain=True)
    (came,) = client.received()
    assert sorted(map(int, map(str, came.values(SUBSCRIPTION_ID)))) == [1, 268_435_455]
    assert plain.received()[0].properties == []
    client.subscribe("t", properties=props((SUBSCRIPTION_ID, 7)))
    assert client.received()[-1].values(SUBSCRIPTION_ID) == [7], "of the subscription that the retained one comes by"
    same = bench.client()
    for text_ in ("u", "u/#"):
        same.subscribe(text_, properties=props((SUBSCRIPTION_ID, 3)))
    same.publish("u")
    assert same.received()[0].values(SUBSCRIPTION_ID) == [3, 3], "one for each subscription, also where they are equal"


@both
def test_wildcards_and_dollar(level: int) -> None:
    """Each filter in a room of its own, in which no route is remembered."""
    heard: dict[str, list[str]] = {}
    topics = ["a", "a/b", "a/b/c", "/a", "a/", "A", "$own/a", "$own"]
    for text_ in ("#", "+", "a/#", "a/+", "+/+", "/+", "$own/#", "+/a", "a/+/c"):
        client = Bench().client(level=level)
        client.subscribe(text_)
        for topic in topics:
            client.publish(topic)
        heard[text_] = [each.topic for each in client.received()]
    assert heard == {
        "#": topics[:6], "+": ["a", "A"], "a/#": ["a", "a/b", "a/b/c", "a/"], "a/+": ["a/b", "a/"],
        "+/+": ["a/b", "/a", "a/"], "/+": ["/a"], "$own/#": ["$own/a", "$own"], "+/a": ["/a"], "a/+/c": ["a/b/c"],
    }  # fmt: skip


@both
def test_shared_subscriptions(bench: Bench, level: int) -> None:
    """One member of each group gets a message, at its own QoS, in turn; a plain subscription gets it, too."""
    members = [bench.client(level=level) for _ in range(3)]
    for each in members:
        each.subscribe(("$share/g/t/+", 1))
    other, plain = bench.client(level=level), bench.client(level=level)
    other.subscribe(("$share/h/t/#", 0))
    plain.subscribe("t/#")
    sender = bench.client()
    for number in range(30):
        sender.publish("t/1", b"%d" % number, 1)
    shares = [each.received() for each in members]
    assert [len(share) for share in shares] == [10, 10, 10]
    assert {each.qos for share in shares for each in share} == {1}
    assert {each.qos for each in other.received()} == {0}
    assert len(plain.received()) == 30
    assert all(member.packets() == [] for member in (*members, other, plain))
    members[0].unsubscribe("$share/g/t/+")
    members[1].drop()
    sender.publish("t/2", b"x", 1)
    assert [len(each.received()) for each in (members[0], members[2])] == [0, 1]


def test_a_shared_subscription_gets_no_retained_messages(bench: Bench) -> None:
    bench.client().publish("t", b"kept", retain=True)
    client = bench.client()
    client.subscribe("$share/g/t")
    assert client.received() == []


def test_a_member_that_is_away_gets_its_share_where_nobody_else_is_there(bench: Bench) -> None:
    kept = props((SESSION_EXPIRY, 100))
    away, there = bench.client("away", properties=kept), bench.client("there", properties=kept)
    for each in (away, there):
        each.subscribe("$share/g/t")
    away.drop()
    sender = bench.client()
    for number in range(4):
        sender.publish("t", b"%d" % number, 1)
    assert len(there.received()) == 4
    there.drop()
    sender.publish("t", b"kept for one of them", 1)
    back = [bench.client(name, clean=False).payloads() for name in ("away", "there")]
    assert sum(each.count(b"kept for one of them") for each in back) == 1


def test_what_was_sent_to_one_member_goes_to_no_other(bench: Bench) -> None:
    """It is completed after a return, dropped where its receiver refuses it, and ends with the session."""
    kept = props((SESSION_EXPIRY, 100))
    first, second = bench.client("first", properties=kept), bench.client("second", properties=kept)
    for each in (first, second):
        each.subscribe(("$share/g/t", 2))
    sender = bench.client()
    for number in range(4):
        sender.publish("t", b"%d" % number, 2, packet_id=number + 1)
    mine = first.received()
    theirs = second.payloads()
    assert len(mine) == len(theirs) == 2
    first.acknowledge(0x50, mine[0].packet_id, 0x80)
    first.drop()
    first = bench.client("first", clean=False, properties=kept)
    assert first.payloads() == [mine[1].payload]
    first.drop()
    bench.client("first", clean=True)
    assert second.packets() == []


@pytest.mark.parametrize("text_", ["$share//t", "$share/g/", "$share/g+/t", "$share/#/t", "$share/g/a#"])
def test_a_shared_subscription_that_makes_no_sense_is_refused(bench: Bench, text_: str) -> None:
    assert bench.client().subscribe(text_) == [0x8F]


# -- both versions in one room


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_clients_of_both_versions_hear_each_other(bench: Bench, qos: int) -> None:
    old, new = bench.client(level=4), bench.client(level=5)
    for each in (old, new):
        each.subscribe(("t", 2))
    new.publish("t", b"new", qos, properties=props((CONTENT_TYPE, b"x"), (USER, ("k", "v"))))
    old.publish("t", b"old", qos)
    for each in (old, new):
        assert [(came.payload, came.qos) for came in each.received()] == [(b"new", qos), (b"old", qos)]


def test_a_session_goes_on_in_the_other_version(bench: Bench) -> None:
    client = bench.client("me", level=4, clean=False)
    client.subscribe("t")
    client.drop()
    bench.client().publish("t", b"x", 1, properties=props((CONTENT_TYPE, b"kept")))
    five = bench.client("me", level=5, clean=False)
    assert five.connack[0] == 1
    assert five.received()[0].properties == [(CONTENT_TYPE, b"kept")]


# -- the end, and what is too much


@both
def test_a_disconnect_must_be_well_formed(bench: Bench, level: int) -> None:
    bodies = [b"x"] if level == 4 else [b"\x00\x00x", b"\x00" + props((EXPIRY, 1)), b"\x00\x05"]
    for body in bodies:
        assert refused(bench, level, packet(0xE0, body)) in (0x80, 0x81, 0x82)


def test_a_reason_that_the_packet_does_not_have_is_an_error(bench: Bench) -> None:
    watcher = bench.client()
    watcher.subscribe("w")
    for kind in (0x40, 0x50, 0x62, 0x70):
        assert refused(bench, 5, packet(kind, b"\x00\x01\x8e")) == 0x82
    for reason in (0x01, 0x03, 0x8E, 0xFF):
        client = bench.client(will=Will("w", b"gone"))
        client.disconnect(bytes([reason]))
        assert client.reason() == 0x82
        assert watcher.payloads() == [b"gone"]
    for reason in (0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x99):
        client = bench.client(will=Will("w", b"gone"))
        client.disconnect(bytes([reason]))
        assert (client.over, client.packets()) == (True, [])
        assert watcher.payloads() == [b"gone"], "only 0x00 takes a will back"


@both
def test_what_cannot_be_a_packet_is_not_waited_for(bench: Bench, level: int) -> None:
    """It ends with its first byte, however much is announced to follow."""
    for first in (0x00, 0x10, 0x20, 0x36, 0x38, 0x60, 0x80, 0x90, 0xA0, 0xC1, 0xD0, 0xE1, 0xF0, 0xF1):
        assert refused(bench, level, bytes([first, 100, 0])) in (0x80, 0x81, 0x82)
    for first in (0x30, 0x34, 0x3C, 0x62, 0x82):
        client = bench.client(level=level)
        client.send(bytes([first, 100, 0]))
        assert not client.over
    stranger = bench.plug(level)
    stranger.send(b"GET / HTTP/1.1")
    assert stranger.over


@both
def test_nothing_is_read_behind_a_disconnect(bench: Bench, level: int) -> None:
    watcher, client = bench.client(), bench.client(level=level)
    watcher.subscribe("t")
    client.send(b"\xe0\x00" + packet(0x30, text("t") + b"\x00" * (level == 5)))
    client.publish("t")
    assert watcher.received() == []


def test_a_stop_is_told(bench: Bench) -> None:
    watcher, client = bench.client(), bench.client(will=Will("w", b"gone"))
    watcher.subscribe("w")
    client.core.hang_up()
    assert client.packets() == [(0xE0, b"\x8b")]
    assert watcher.payloads() == []


@both
def test_who_reads_nothing_is_ended_and_costs_the_others_nothing(level: int) -> None:
    bench = Bench(quotas=Quotas(waiting_bytes=1_000_000, retained_bytes=1_000_000))
    slow, quick = bench.client("slow", level), bench.client("quick", level)
    for each in (slow, quick):
        each.subscribe(("t", 1))
    sender = bench.client()
    for number in range(60):
        sender.publish("t", bytes(50_000), number % 2)
        for each in quick.received():
            if each.qos:
                quick.acknowledge(0x40, each.packet_id)
    assert slow.over
    assert not quick.over
    assert level == 4 or slow.reason() == 0x97
    assert "'slow'" in bench.warnings[0]


def test_one_message_alone_is_never_too_much() -> None:
    bench = Bench(quotas=Quotas(waiting_bytes=1_000, retained_bytes=1_000))
    client = bench.client()
    client.subscribe(("t", 1))
    for qos in (0, 1):
        bench.client().publish("t", bytes(5_000), qos)
        (came,) = client.received()
        assert len(came.payload) == 5_000


def test_a_client_that_is_away_too_long_loses_its_session_loudly() -> None:
    bench = Bench(quotas=Quotas(waiting_bytes=10_000, retained_bytes=10_000))
    client = bench.client("away", properties=props((SESSION_EXPIRY, 100)))
    client.subscribe("t")
    client.drop()
    for _ in range(20):
        bench.client().publish("t", bytes(1_000), 1)
    assert len(bench.warnings) == 1
    assert "'away'" in bench.warnings[0]
    assert bench.client("away", clean=False).connack[0] == 0


def test_too_much_to_retain_is_refused() -> None:
    bench = Bench(quotas=Quotas(waiting_bytes=10_000, retained_bytes=10_000))
    client = bench.client()
    client.publish("a", bytes(8_000), 1, retain=True)
    client.publish("b", bytes(8_000), 1, retain=True)
    client.publish("a", bytes(8_001), 1, retain=True)
    assert [each.body[2:] for each in client.packets()] == [b"\x10", b"\x97", b"\x10"]
    late = bench.client()
    late.subscribe("#")
    assert [each.topic for each in late.received()] == ["a"]


def test_a_topic_of_many_levels_is_refused(bench: Bench) -> None:
    """Each level is a table of its own, so 65,000 of them in one packet would cost megabytes."""
    deep = "/" * 60_000
    assert bench.client().subscribe(deep) == [0x8F]
    assert refused(bench, 5, packet(0x30, text(deep) + b"\x00")) == 0x90


def arrivals(level: int) -> bytes:
    """One client's whole life."""
    more = b"\x00" * (level == 5)
    return (
        connect(level, "life", will=Will("w", b"x"))
        + packet(0x82, b"\x00\x01" + more + text("a/#") + b"\x01" + text("b") + b"\x02")
        + packet(0x30, text("a") + more + b"1")
        + packet(0x33, text("a/b") + b"\x00\x02" + more + bytes(300))
        + packet(0x34, text("b") + b"\x00\x03" + more + b"3")
        + packet(0x62, b"\x00\x03")
        + packet(0xA2, b"\x00\x04" + more + text("a/#"))
        + b"\xc0\x00"
        + packet(0xE0, b"")
    )


@both
def test_it_does_not_matter_in_which_pieces_bytes_arrive(level: int) -> None:
    whole = arrivals(level)
    answers = []
    for size in (1, 2, 3, 7, 64, len(whole)):
        peer = Bench().plug(level)
        for at in range(0, len(whole), size):
            peer.send(whole[at : at + size])
        answers.append(b"".join(bytes(each) for each in peer._read_bytes()))
        assert peer.over
    assert len(set(answers)) == 1


@both
def test_a_large_packet_byte_by_byte_costs_its_own_size(bench: Bench, level: int) -> None:
    client = bench.client(level=level)
    whole = packet(0x30, text("t") + b"\x00" * (level == 5) + bytes(200_000))
    for at in range(150_000):
        client.send(whole[at : at + 1])
    assert len(client.core._chunks) == 1
    client.send(whole[150_000:])
    assert client.core._chunks == []


@both
def test_mutated_packets_end_their_client_or_mean_something(level: int) -> None:
    """And touch nobody else: tests/brokers/test_mutated_streams.py does the same over sockets."""
    rng, bench = random.Random(level), Bench()
    whole = arrivals(level)
    for _ in range(1_500):
        peer = bench.plug(level)
        peer.send(mutated(rng, whole))
        peer._read_bytes()
        peer.drop()
    watcher = bench.client()
    watcher.subscribe("plain")
    watcher.publish("plain", b"still here", 1)
    assert b"still here" in watcher.payloads()
