"""Who may publish, subscribe and be delivered what on the embedded engine; how much anybody may have of anything."""

from __future__ import annotations

import json
import random
import re
import secrets
from collections.abc import Iterator

import pytest
from raw_client import RawClient, Target
from running_brokers import RunningBroker, mosquitto_missing, running_broker, soon
from sans_io import Bench, Peer, Will, connack_properties, props

from broker.core.quotas import Quotas
from broker.core.rights import Logins
from broker.core.rule import Rule
from broker.wire.topics import covers, covers_filter

SESSION_EXPIRY, ALIAS = 0x11, 0x23
PASSWORDS = {"owner": "o", "pi": "p", "guest": "g"}
RULES = {
    "pi": Rule(
        publish=("lab/pi/#", "ack/%c"), subscribe=("lab/+/state", "lab/pi/#"), receive=("lab/+/state", "lab/pi/#")
    ),
}
both = pytest.mark.parametrize("level", [4, 5], ids=["3.1.1", "5"])


@pytest.fixture
def bench() -> Bench:
    return Bench(logins=Logins("owner", PASSWORDS, RULES))


def enter(bench: Bench, user: str, level: int = 5, client_id: str | None = None, **options: object) -> Peer:
    return bench.client(client_id, level, login=(user, PASSWORDS[user]), **options)


@both
def test_what_may_be_published(bench: Bench, level: int) -> None:
    owner, pi = enter(bench, "owner", level), enter(bench, "pi", level, "pi-1")
    owner.subscribe("#")
    for qos, kind in ((1, 0x40), (2, 0x50)):
        for topic, allowed in [("lab/pi/x", True), ("lab/pc/x", False), ("ack/pi-1", True), ("ack/pi-2", False)]:
            number = 10 * qos + len(topic)
            pi.publish(topic, b"x", qos, packet_id=number)
            came = pi.packet()
            assert came.first == kind
            assert came.body[2:] == (b"" if allowed or level == 4 else b"\x87")
            pi.acknowledge(0x62, number)
            pi.packets()
            assert [each.topic for each in owner.received()] == ([topic] if allowed else [])
    pi.publish("lab/pc/x", retain=True)
    assert "without a right" in bench.warnings[0]
    assert len(bench.warnings) == 1, "once a connection"
    late = enter(bench, "owner", level)
    late.subscribe("lab/pc/x")
    assert late.received() == []


@both
def test_what_may_be_subscribed_to(bench: Bench, level: int) -> None:
    """A filter is granted only where every topic that it matches is allowed."""
    pi = enter(bench, "pi", level)
    refused = 0x87 if level == 5 else 0x80
    asked = {
        "lab/pi/#": 1, "lab/pi/a/b": 1, "lab/+/state": 1, "lab/pc/state": 1, "lab/+/+": refused, "lab/#": refused,
        "#": refused, "lab/pc/x": refused, "$share/g/lab/pi/x": 1, "$share/g/#": refused,
    }  # fmt: skip
    assert pi.subscribe(*asked) == list(asked.values())


def test_a_filter_covers_another_where_every_topic_of_it_is_covered() -> None:
    rng = random.Random(4)
    names = ["a", "b", "$c", ""]
    topics = ["/".join(rng.choices(names, k=rng.randrange(1, 5))) for _ in range(400)]
    topics = [topic for topic in topics if topic]

    def some() -> str:
        text = "/".join(rng.choices(["a", "b", "$c", "", "+", "+"], k=rng.randrange(1, 4)))
        return (text + rng.choice(["", "", "/#"])) or "#"

    for _ in range(3_000):
        allowed, asked = some().encode(), some().encode()
        if covers_filter(allowed, asked):
            outside = [
                topic for topic in topics if covers(asked, topic.encode()) and not covers(allowed, topic.encode())
            ]
            assert outside == [], (allowed, asked)
    assert covers_filter(b"a/#", b"a/+/b")
    assert not covers_filter(b"a/+", b"a/#")
    assert not covers_filter(b"#", b"$c/a")


def test_what_is_delivered_is_checked_by_its_topic(bench: Bench) -> None:
    """Retained messages included; a subscription alone is not enough."""
    rule = Rule(subscribe=("lab/#",), receive=("lab/pi/+",))
    bench.exchange.change_logins(Logins("owner", PASSWORDS, {"pi": rule}))
    owner, pi = enter(bench, "owner"), enter(bench, "pi")
    for topic in ("lab/pi/1", "lab/pc/1"):
        owner.publish(topic, b"kept", retain=True)
    pi.subscribe("lab/#")
    for topic in ("lab/pi/2", "lab/pc/2"):
        for qos in (0, 1):
            owner.publish(topic, b"now", qos)
    assert [each.topic for each in pi.received()] == ["lab/pi/1", "lab/pi/2", "lab/pi/2"]


@both
def test_a_will_needs_the_right_to_publish_it(bench: Bench, level: int) -> None:
    owner = enter(bench, "owner")
    owner.subscribe("#")
    stranger = bench.plug(level)
    stranger.connect("pi-1", login=("pi", "p"), will=Will("lab/pc/state", b"gone"))
    assert stranger.over
    assert stranger.packet().body[1] == (0x87 if level == 5 else 5)
    pi = enter(bench, "pi", level, will=Will("lab/pi/state", b"gone"))
    bench.exchange.change_logins(Logins("owner", PASSWORDS, {"pi": Rule()}))
    pi.drop()
    assert owner.received() == [], "a right that was taken away meanwhile"


def test_who_has_no_rule_may_do_nothing_but_the_owner_everything(bench: Bench) -> None:
    owner, guest = enter(bench, "owner"), enter(bench, "guest")
    assert owner.subscribe("#") == [1]
    assert guest.subscribe("a") == [0x87]
    guest.publish("a", b"x", 1)
    assert guest.packet().body[2:] == b"\x87"


def test_a_certificate_that_is_not_in_the_table_may_do_nothing_where_there_is_one() -> None:
    rights = Logins("owner", PASSWORDS, RULES).rights_of(b"phone", b"phone-1", True)
    assert rights is not None
    assert not rights.may_publish(b"a")
    assert not rights.may_receive(b"a")
    assert Logins("owner", PASSWORDS, {}).rights_of(b"phone", b"phone-1", True) is None, "everything, without a table"


def test_a_client_id_belongs_to_its_user(bench: Bench) -> None:
    """Nobody ends, or takes over, the session of another user by its client id."""
    pi = enter(bench, "pi", client_id="mine", properties=props((SESSION_EXPIRY, 100)))
    for connected in (True, False):
        assert pi.over is not connected
        stranger = bench.plug()
        stranger.connect("mine", login=("guest", "g"))
        assert stranger.reason() == 0x87
        if connected:
            assert not pi.over
            pi.drop()
    assert enter(bench, "pi", client_id="mine", clean=False).connack[0] == 1


@pytest.mark.parametrize("name", ["a/b", "+", "#", "x+"])
def test_a_name_that_would_widen_a_filter_allows_nothing(bench: Bench, name: str) -> None:
    pi = enter(bench, "pi", client_id=name)
    pi.publish(f"ack/{name}".replace("+", "x").replace("#", "x"), b"x", 1)
    assert pi.packet().body[2:] == b"\x87"


def test_a_changed_table_holds_at_once(bench: Bench) -> None:
    owner, pi = enter(bench, "owner"), enter(bench, "pi", will=Will("lab/pi/gone", b""))
    kept = enter(bench, "pi", client_id="kept", properties=props((SESSION_EXPIRY, 100)))
    owner.subscribe("#")
    pi.subscribe("lab/pi/#")
    kept.drop()
    bench.exchange.change_logins(Logins("owner", PASSWORDS, {"pi": Rule(publish=("other",))}))
    owner.publish("lab/pi/x", b"no longer")
    pi.publish("lab/pi/x", b"x", 1)
    assert [each.first for each in pi.packets()] == [0x40]
    pi.publish("other", b"x")
    assert [each.topic for each in owner.received()] == ["lab/pi/x", "other"]
    bench.exchange.change_logins(Logins("owner", {"owner": "o"}, {}))
    assert pi.over
    assert pi.reason() == 0x87
    assert owner.received() == [], "and no will"
    bench.exchange.change_logins(Logins("owner", PASSWORDS, RULES))
    assert enter(bench, "pi", client_id="kept", clean=False).connack[0] == 0


# -- quotas


@both
def test_each_limit_refuses_what_is_beyond_it(level: int) -> None:
    bench = Bench(quotas=Quotas(sessions=2, filters=3, aliases=1, unreleased=2))
    client = bench.client(level=level)
    bench.client("second", level)
    stranger = bench.plug(level)
    stranger.connect("third")
    assert (stranger.over, stranger.packet().body[1]) == (True, 0x97 if level == 5 else 3)
    bench.client("second", level)
    over = 0x97 if level == 5 else 0x80
    assert client.subscribe("a", "b", "c", "d", "a") == [1, 1, 1, over, 1]
    client.unsubscribe("a")
    assert client.subscribe("d") == [1]
    if level == 5:
        assert connack_properties(client)[0x22] == 1
        assert connack_properties(client)[0x21] == 2
        client.publish("t", properties=props((ALIAS, 2)))
        assert client.reason() == 0x94


def test_it_may_take_as_long_as_the_limit_says_to_connect() -> None:
    bench = Bench(quotas=Quotas(connect_within_s=3))
    stranger = bench.plug()
    bench.after(2.9)
    assert not stranger.over
    bench.after(0.2)
    assert stranger.over


def test_a_storm_of_subscriptions_is_bounded_in_memory_and_time() -> None:
    """Ten thousand filters, entered and removed; a message meanwhile costs what it matches, not what there is."""
    bench = Bench()
    client, other = bench.client(), bench.client()
    other.subscribe("quiet/+")
    for number in range(10_000):
        client.subscribe(f"storm/{number}/+/#")
    assert client.subscribe("one/more") == [0x97]
    route = bench.exchange._routes.route(b"quiet/1")
    client.unsubscribe("storm/1/+/#")
    assert bench.exchange._routes.route(b"quiet/1") is route
    other.publish("quiet/1")
    assert len(other.received()) == 1
    client.drop()
    assert list(bench.exchange._routes._filters._root.below) == [b"quiet"]


# -- over the settings file and the lifeline


RIGHTS = {"pi": {"publish": ["lab/pi/#"], "subscribe": ["lab/#"]}}


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    with running_broker("auto", users={"pi": "pi's"}, rights=RIGHTS, quotas={"clients": 12}) as running:
        assert running.engine == "amqtt", "mosquitto has no quotas"
        yield running


@pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
@pytest.mark.parametrize("at_first", [{}, {"users": {"pi": "pi's"}, "rights": RIGHTS}], ids=["later", "from the start"])
def test_mosquitto_has_the_table_too(at_first: dict[str, object]) -> None:
    with running_broker("mosquitto", **at_first) as broker, RawClient(target_of(broker)) as owner:
        owner.subscribe(("lab/#", 1))
        if not at_first:
            assert command(broker, json.dumps({"command": "rights", "users": {"pi": "pi's"}, "rights": RIGHTS})) is None
        pi = target_of(broker, "pi", "pi's")

        def is_in() -> bool:
            with RawClient(pi) as client:
                return client.connack == b"\x00\x00"

        assert soon(is_in, 5)
        with RawClient(pi) as first:
            for topic in ("lab/pc/x", "lab/pi/x", "other"):
                first.publish(topic, topic.encode(), qos=1)
            assert owner.publication().payload == b"lab/pi/x"
            first.subscribe(("#", 1))
            owner.publish("secret/x", b"secret")
            owner.publish("lab/pc/x", b"shown")
            assert first.publication().payload in (b"lab/pi/x", b"shown")
            assert command(broker, json.dumps({"command": "rights"})) is None
            assert first.is_closed(10)
        assert soon(lambda: not is_in(), 5)


def target_of(broker: RunningBroker, user: str | None = None, password: str = "") -> Target:
    whose = (broker.username, broker.password) if user is None else (user, password)
    return Target(broker.host, broker.port, *whose, broker.max_packet_bytes)


def command(broker: RunningBroker, line: str) -> str | None:
    assert broker.process.stdin is not None
    broker.process.stdin.write(line.encode() + b"\n")
    broker.process.stdin.flush()
    error = broker.event("rights")["error"]
    assert error is None or isinstance(error, str)
    return error


def test_rights_are_given_by_the_file_and_changed_over_the_lifeline(broker: RunningBroker) -> None:
    pi = target_of(broker, "pi", "pi's")
    with RawClient(target_of(broker)) as owner, RawClient(pi) as first:
        owner.subscribe(("lab/#", 0))
        assert first.subscribe(("lab/#", 0), ("#", 0)) == [0, 0x80]
        first.publish("lab/pi/x", b"allowed")
        first.publish("lab/pc/x", b"refused")
        first.ping()
        owner.ping()
        assert [each.payload for each in owner.publications(0.1)] in ([b"allowed"], [])
        new = secrets.token_hex(4)
        table = {"command": "rights", "users": {"pi": "pi's", "pc": new}, "rights": {"pc": {"publish": ["lab/pc/+"]}}}
        assert command(broker, json.dumps(table)) is None
        with RawClient(target_of(broker, "pc", new)) as second:
            second.publish("lab/pc/x", b"from pc", qos=1)
            assert owner.publication().payload == b"from pc"
        first.ping()
        assert command(broker, json.dumps({"command": "rights"})) is None
        assert first.is_closed(10)
        with RawClient(pi) as refused:
            assert refused.connack == b"\x00\x05"
        owner.ping()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "not JSON"),
        ('{"command": "dance"}', "the command rights"),
        ('{"command": "rights", "x": 1}', "the command rights"),
        ('{"command": "rights", "users": {"a": ""}}', "not empty"),
        ('{"command": "rights", "users": []}', "map each user"),
        ('{"command": "rights", "rights": {"b": {}}}', "'b', who is no user"),
        ('{"command": "rights", "users": {"a": "x"}, "rights": {"a": {"publish": ["a#"]}}}', "list of topic filters"),
        ('{"command": "rights", "users": {"a": "x"}, "rights": {"a": {"call": []}}}', "publish, subscribe, receive"),
    ],
)  # fmt: skip
def test_a_command_that_makes_no_sense_changes_nothing(broker: RunningBroker, line: str, says: str) -> None:
    error = command(broker, line)
    assert error is not None
    assert re.search(says, error)
    with RawClient(target_of(broker)) as owner:
        owner.ping()


def test_more_clients_than_allowed_are_not_let_in(broker: RunningBroker) -> None:
    plugs = [RawClient(target_of(broker), hello=False) for _ in range(12)]
    try:
        plugs[0].send(b"\xc0\x00")  # the loop has seen them all once it answers this one, by ending it
        assert plugs[0].is_closed()
        outcomes = []
        for _ in range(6):
            with RawClient(target_of(broker), hello=False) as more:
                outcomes.append(more.is_closed(0.2))
        assert any(outcomes)
        while "further ones are not let in" not in broker.event("warning")["text"]:
            pass
    finally:
        for plug in plugs:
            plug.socket.close()
