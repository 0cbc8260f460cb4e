"""What public interoperability suites ask of a broker, asked by paho's client over a socket, in both versions.

Written from what those suites test, not from their code: one test for each of their subjects. The core's own tests
(test_conformance.py) look at bytes; these look at what a client of somebody else makes of them.
"""

from __future__ import annotations

import itertools
import queue
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import pytest
from paho.mqtt.client import CallbackAPIVersion, Client, MQTTMessage, MQTTv5, MQTTv311
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions
from patience import patience
from running_brokers import RunningBroker, running_broker

both = pytest.mark.parametrize("version", [MQTTv311, MQTTv5], ids=["3.1.1", "5"])
_names = itertools.count()
ENOUGH_S = 0.1
"""After a PINGRESP nothing more is on its way; so long paho may take to hand over what has arrived."""


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    with running_broker("amqtt", max_packet_bytes=100_000, quotas={"keep_alive_s": 60, "unreleased": 20}) as running:
        yield running


@pytest.fixture
def root() -> str:
    """Topics of one test."""
    return f"interop-{next(_names)}"


def properties(kind: int, **values: Any) -> Any:
    made: Any = Properties(kind)  # type: ignore[no-untyped-call]  # paho's
    for name, value in values.items():
        for each in value if isinstance(value, list) else [value]:
            setattr(made, name, each)
    return made


class Person:
    """One paho client that is connected while inside its block."""

    def __init__(
        self, broker: RunningBroker, name: str, version: int = MQTTv5, *, kept: bool = False, clean: bool = True,
        keep_alive_s: int = 30, manual: bool = False, will: dict[str, Any] | None = None, **asked: Any,
    ) -> None:  # fmt: skip
        self.five = version == MQTTv5
        old: Any = {} if self.five else {"clean_session": not kept}
        self.client = Client(
            CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion(version), manual_ack=manual, **old
        )
        self.client.username_pw_set(broker.username, broker.password)
        self.messages: queue.SimpleQueue[MQTTMessage] = queue.SimpleQueue()
        self._came: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self.ended: queue.SimpleQueue[ReasonCode] = queue.SimpleQueue()
        self.client.on_message = lambda *came: self.messages.put(came[2])
        self.client.on_connect = lambda *came: self._came.put(came)
        self.client.on_subscribe = lambda *came: self._came.put(came)
        self.client.on_unsubscribe = lambda *came: self._came.put(came)
        self.client.on_publish = lambda *came: self._came.put(came)
        self.client.on_disconnect = lambda *came: self.ended.put(came[3])
        if will is not None:
            self.client.will_set(**will)
        if kept and self.five:
            asked["SessionExpiryInterval"] = asked.get("SessionExpiryInterval", 100)
        more: Any = {"clean_start": clean, "properties": properties(PacketTypes.CONNECT, **asked)} if self.five else {}
        self.client.connect(broker.host, broker.port, keep_alive_s, **more)

    def __enter__(self) -> Person:
        self.client.loop_start()
        self.connack = self._came.get(timeout=patience(10))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.disconnect()
        self.drop()

    @property
    def session_present(self) -> bool:
        return bool(self.connack[2].session_present)

    def told(self, name: str) -> Any:
        """A property of the CONNACK; None where it is missing."""
        return getattr(self.connack[4], name, None)

    def subscribe(self, *filters: str, options: SubscribeOptions | int = 2, **asked: Any) -> list[int]:
        pairs = [(each, options) for each in filters]
        more = {"properties": properties(PacketTypes.SUBSCRIBE, **asked)} if asked else {}
        self.client.subscribe(pairs, **more)  # type: ignore[arg-type]  # paho takes pairs with options, too
        return [code.value for code in self._came.get(timeout=patience(5))[3]]

    def unsubscribe(self, text: str) -> None:
        self.client.unsubscribe(text)
        self._came.get(timeout=patience(5))

    def publish(self, topic: str, payload: bytes = b"x", qos: int = 0, retain: bool = False, **said: Any) -> Any:
        """Publish, and wait for the answer where there is one; its reason."""
        more = {"properties": properties(PacketTypes.PUBLISH, **said)} if said else {}
        self.client.publish(topic, payload, qos, retain, **more)
        return self._came.get(timeout=patience(5))[3]

    def drop(self) -> None:
        """The network is gone: no DISCONNECT."""
        self.client.loop_stop()
        self.client._reset_sockets()  # paho leaves a pair of its own open, too

    def heard(self, count: int) -> list[MQTTMessage]:
        """So many messages, and that there is no other."""
        found = [self.messages.get(timeout=patience(5)) for _ in range(count)]
        with pytest.raises(queue.Empty):
            self.messages.get(timeout=ENOUGH_S)
        return found

    def payloads(self, count: int) -> list[bytes]:
        return [bytes(each.payload) for each in self.heard(count)]


@both
def test_all_qos(broker: RunningBroker, root: str, version: int) -> None:
    with Person(broker, root, version) as one:
        assert one.subscribe(f"{root}/t") == [2]
        for qos in (0, 1, 2):
            one.publish(f"{root}/t", b"%d" % qos, qos)
        assert sorted((each.payload, each.qos) for each in one.heard(3)) == [(b"0", 0), (b"1", 1), (b"2", 2)]


@both
def test_retained(broker: RunningBroker, root: str, version: int) -> None:
    users: dict[str, Any] = {"UserProperty": [("a", "2"), ("c", "3")]} if version == MQTTv5 else {}
    with Person(broker, root, version) as one:
        for qos in (0, 1, 2):
            one.publish(f"{root}/{qos}", b"kept", qos, True, **users)
        one.subscribe(f"{root}/+")
        found = one.heard(3)
        assert sorted(each.qos for each in found) == [0, 1, 2]
        assert all(each.retain for each in found)
        assert not users or all(each.properties.UserProperty == users["UserProperty"] for each in found)  # type: ignore[union-attr]
        for qos in (0, 1, 2):
            one.publish(f"{root}/{qos}", b"", qos, True)
        one.heard(3)
    with Person(broker, f"{root}-late", version) as late:
        late.subscribe(f"{root}/+")
        late.heard(0)


@both
def test_a_will_after_a_loss_and_none_after_a_goodbye(broker: RunningBroker, root: str, version: int) -> None:
    will = {"topic": f"{root}/will", "payload": b"gone", "qos": 1}
    with Person(broker, f"{root}-watcher", version) as watcher:
        watcher.subscribe(f"{root}/will")
        with Person(broker, root, version, will=will):
            pass
        watcher.heard(0)
        lost = Person(broker, root, version, will=will).__enter__()
        lost.drop()
        assert watcher.payloads(1) == [b"gone"]


@pytest.mark.parametrize(("delay_s", "expiry_s"), [(1, 30), (30, 1), (30, 0)])
def test_a_delayed_will_comes_with_its_delay_or_the_end_of_the_session(
    broker: RunningBroker, root: str, delay_s: int, expiry_s: int
) -> None:
    said = properties(PacketTypes.WILLMESSAGE, WillDelayInterval=delay_s)
    with Person(broker, f"{root}-watcher") as watcher:
        watcher.subscribe(f"{root}/will")
        will = {"topic": f"{root}/will", "payload": b"gone", "properties": said}
        Person(broker, root, will=will, SessionExpiryInterval=expiry_s).__enter__().drop()
        assert watcher.payloads(1) == [b"gone"]


@both
def test_a_silent_client_is_ended_and_its_will_published(broker: RunningBroker, root: str, version: int) -> None:
    will = {"topic": f"{root}/will", "payload": b"silent"}
    with Person(broker, f"{root}-watcher", version) as watcher:
        watcher.subscribe(f"{root}/will")
        silent = Person(broker, root, version, keep_alive_s=1, will=will).__enter__()
        silent.client.loop_stop()
        assert watcher.payloads(1) == [b"silent"]
        silent.drop()


def test_an_empty_client_id_is_replaced_and_told(broker: RunningBroker) -> None:
    for clean in (True, False):
        with Person(broker, "", clean=clean) as one:
            assert one.told("AssignedClientIdentifier")


@both
def test_what_is_published_while_a_client_is_away(broker: RunningBroker, root: str, version: int) -> None:
    with Person(broker, root, version, kept=True) as one:
        one.subscribe(f"{root}/#")
    with Person(broker, f"{root}-sender", version) as sender:
        for qos in (0, 1, 2):
            sender.publish(f"{root}/{qos}", b"%d" % qos, qos)
    with Person(broker, root, version, kept=True, clean=False) as back:
        assert back.session_present
        assert sorted(back.payloads(2)) == [b"1", b"2"]


@both
def test_overlapping_filters(broker: RunningBroker, root: str, version: int) -> None:
    with Person(broker, root, version) as one:
        one.subscribe(f"{root}/#", options=1)
        one.subscribe(f"{root}/+", options=2)
        one.publish(f"{root}/t", b"once", 2)
        assert [each.qos for each in one.heard(1)] == [2]


@both
def test_what_was_not_acknowledged_comes_again(broker: RunningBroker, root: str, version: int) -> None:
    deaf = Person(broker, root, version, kept=True, manual=True).__enter__()
    deaf.subscribe(f"{root}/#")
    with Person(broker, f"{root}-sender", version) as sender:
        sender.publish(f"{root}/1", b"one", 1)
        sender.publish(f"{root}/2", b"two", 1)
    assert [each.dup for each in deaf.heard(2)] == [False, False]
    deaf.drop()
    with Person(broker, root, version, kept=True, clean=False) as back:
        found = back.heard(2)
        assert [(each.payload, each.dup) for each in found] == [(b"one", True), (b"two", True)]


@both
def test_a_wildcard_hears_no_dollar_topic(broker: RunningBroker, root: str, version: int) -> None:
    with Person(broker, root, version) as one:
        one.subscribe("+/+")
        one.publish(f"${root}/t", b"hidden", 1)
        one.publish(f"{root}/t", b"seen", 1)
        assert one.payloads(1) == [b"seen"]


@both
def test_unsubscribe(broker: RunningBroker, root: str, version: int) -> None:
    with Person(broker, root, version) as one:
        one.subscribe(f"{root}/a", f"{root}/b", f"{root}/c")
        one.unsubscribe(f"{root}/a")
        for name in "abc":
            one.publish(f"{root}/{name}", name.encode(), 1)
        assert sorted(one.payloads(2)) == [b"b", b"c"]


@both
def test_a_subscription_that_is_refused(broker: RunningBroker, root: str, version: int) -> None:
    with Person(broker, root, version) as one:
        wrong = 0x8F if version == MQTTv5 else 0x80
        assert one.subscribe(f"{root}/a", "$share//t", f"{root}/b") == [2, wrong, 2]


def test_the_session_expires(broker: RunningBroker, root: str) -> None:
    def come(expiry_s: int, **more: Any) -> bool:
        with Person(broker, root, SessionExpiryInterval=expiry_s, clean=False, **more) as one:
            return one.session_present

    assert [come(0), come(100), come(100), come(0), come(0)] == [False, False, True, True, False]
    with Person(broker, root, SessionExpiryInterval=1) as one:
        one.client.disconnect(properties=properties(PacketTypes.DISCONNECT, SessionExpiryInterval=100))
        one.ended.get(timeout=patience(5))
    assert come(0)


def test_properties_of_a_message(broker: RunningBroker, root: str) -> None:
    said: dict[str, Any] = {
        "PayloadFormatIndicator": 1, "ContentType": "My name", "ResponseTopic": f"{root}/answer",
        "CorrelationData": b"334", "UserProperty": [("a", "2"), ("c", "3"), ("a", "2")],
    }  # fmt: skip
    with Person(broker, root) as one:
        one.subscribe(f"{root}/t")
        for qos in (0, 1, 2):
            one.publish(f"{root}/t", b"", qos, **said)
        for each in one.heard(3):
            assert {name: getattr(each.properties, name) for name in said} == said


def test_a_message_expires(broker: RunningBroker, root: str) -> None:
    with Person(broker, root, kept=True) as one:
        one.subscribe(f"{root}/t")
    with Person(broker, f"{root}-sender") as sender:
        for qos in (1, 2):
            sender.publish(f"{root}/t", b"short", qos, MessageExpiryInterval=1)
            sender.publish(f"{root}/t", b"long", qos, MessageExpiryInterval=600)
        with pytest.raises(queue.Empty):
            sender.messages.get(timeout=1.2)
    with Person(broker, root, kept=True, clean=False) as back:
        found = back.heard(2)
        assert [each.payload for each in found] == [b"long", b"long"]
        assert all(0 < each.properties.MessageExpiryInterval < 600 for each in found)  # type: ignore[union-attr]


def test_options_of_a_subscription(broker: RunningBroker, root: str) -> None:
    with Person(broker, root) as one, Person(broker, f"{root}-other") as other:
        for each in (one, other):
            each.subscribe(f"{root}/t", options=SubscribeOptions(2, noLocal=True, retainAsPublished=True))
        one.publish(f"{root}/t", b"a", 1)
        one.publish(f"{root}/t", b"b", 1, True)
        one.heard(0)
        assert [(each.payload, each.retain) for each in other.heard(2)] == [(b"a", False), (b"b", True)]
        for handling, first, again in ((1, 1, 0), (2, 0, 0), (0, 1, 1)):
            with Person(broker, f"{root}-{handling}") as late:
                for count in (first, again):
                    late.subscribe(f"{root}/+", options=SubscribeOptions(2, retainHandling=handling))
                    late.heard(count)


def test_subscription_identifiers(broker: RunningBroker, root: str) -> None:
    with Person(broker, root) as one, Person(broker, f"{root}-other") as other:
        one.subscribe(f"{root}/t", SubscriptionIdentifier=456_789)
        other.subscribe(f"{root}/t", SubscriptionIdentifier=2)
        other.subscribe(f"{root}/t/#", SubscriptionIdentifier=3)
        other.publish(f"{root}/t", b"x", 1)
        assert [each.properties.SubscriptionIdentifier for each in one.heard(1)] == [[456_789]]  # type: ignore[union-attr]
        assert [sorted(each.properties.SubscriptionIdentifier) for each in other.heard(1)] == [[2, 3]]  # type: ignore[union-attr]


def test_request_and_response(broker: RunningBroker, root: str) -> None:
    with Person(broker, root, RequestResponseInformation=1) as one, Person(broker, f"{root}-server") as server:
        answers = f"{one.told('ResponseInformation')}/{root}"
        one.subscribe(answers)
        server.subscribe(f"{root}/ask")
        one.publish(f"{root}/ask", b"?", 1, ResponseTopic=answers, CorrelationData=b"7")
        (asked,) = server.heard(1)
        said: Any = asked.properties
        server.publish(said.ResponseTopic, b"!", 1, CorrelationData=said.CorrelationData)
        (answer,) = one.heard(1)
        assert (answer.payload, answer.properties.CorrelationData) == (b"!", b"7")  # type: ignore[union-attr]
        assert server.told("ResponseInformation") is None


def test_topic_aliases_of_a_client(broker: RunningBroker, root: str) -> None:
    with Person(broker, root, kept=True) as one:
        assert one.told("TopicAliasMaximum") == 32
        one.subscribe(f"{root}/t")
        one.publish(f"{root}/t", b"1", 1, TopicAlias=1)
        one.publish("", b"2", 1, TopicAlias=1)
        assert [(each.topic, each.payload) for each in one.heard(2)] == [(f"{root}/t", b"1"), (f"{root}/t", b"2")]
    for topic, alias, reason in (("", 1, 0x82), (f"{root}/t", 33, 0x94)):
        with Person(broker, root, clean=False) as back:
            back.client.publish(topic, b"3", 1, properties=properties(PacketTypes.PUBLISH, TopicAlias=alias))
            assert back.ended.get(timeout=patience(5)).value == reason


def test_topic_aliases_of_the_server(broker: RunningBroker, root: str) -> None:
    with Person(broker, root, TopicAliasMaximum=1) as one, Person(broker, f"{root}-plain") as plain:
        for each in (one, plain):
            each.subscribe(f"{root}/t")
        for qos in (0, 1, 2):
            plain.publish(f"{root}/t", b"x", qos)
        assert [(each.topic, each.properties.TopicAlias) for each in one.heard(3)] == [  # type: ignore[union-attr]
            (f"{root}/t", 1), ("", 1), ("", 1),
        ]  # fmt: skip
        assert not any(hasattr(each.properties, "TopicAlias") for each in plain.heard(3))


def test_the_largest_packet_both_ways(broker: RunningBroker, root: str) -> None:
    with Person(broker, root, MaximumPacketSize=64) as one:
        assert one.told("MaximumPacketSize") == 100_004
        one.subscribe(f"{root}/t")
        for size in (20, 64):
            one.publish(f"{root}/t", bytes(size), 1)
        assert one.payloads(1) == [bytes(20)]
        one.client.publish(f"{root}/t", bytes(100_100))
        assert one.ended.get(timeout=patience(5)).value == 0x95


def test_the_keep_alive_of_the_server(broker: RunningBroker, root: str) -> None:
    for asked, told in ((120, 60), (0, 60), (60, None), (5, None)):
        with Person(broker, f"{root}-{asked}", keep_alive_s=asked) as one:
            assert one.told("ServerKeepAlive") == told


def test_not_more_under_way_than_the_client_takes(broker: RunningBroker, root: str) -> None:
    with Person(broker, root, ReceiveMaximum=2, manual=True) as one:
        one.subscribe(f"{root}/t")
        for number in range(3):
            one.publish(f"{root}/t", b"%d" % number, 1)
        first = one.heard(2)
        one.client.ack(first[0].mid, 1)
        assert one.payloads(1) == [b"2"]


@both
def test_shared_subscriptions(broker: RunningBroker, root: str, version: int) -> None:
    with Person(broker, root, version) as one, Person(broker, f"{root}-other", version) as other:
        for each in (one, other):
            each.subscribe(f"$share/g/{root}/x", f"{root}/t")
        one.publish(f"{root}/t", b"to both")
        assert [each.payloads(1) for each in (one, other)] == [[b"to both"]] * 2
        for number in range(4):
            one.publish(f"{root}/x", b"%d" % number, 1)
        assert [len(each.heard(2)) for each in (one, other)] == [2, 2]


@both
def test_a_client_id_that_comes_twice(broker: RunningBroker, root: str, version: int) -> None:
    with Person(broker, root, version) as first, Person(broker, root, version) as second:
        first.client.reconnect_delay_set(60, 60)
        reason = first.ended.get(timeout=patience(5))
        assert version == MQTTv311 or reason.value == 0x8E
        second.publish(f"{root}/t", b"here", 1)
        first.client.loop_stop()


def test_clients_of_both_versions_hear_each_other(broker: RunningBroker, root: str) -> None:
    with Person(broker, root, MQTTv311) as old, Person(broker, f"{root}-new", MQTTv5) as new:
        for each in (old, new):
            each.subscribe(f"{root}/t")
        new.publish(f"{root}/t", b"new", 2, ContentType="x")
        old.publish(f"{root}/t", b"old", 2)
        assert [each.payloads(2) for each in (old, new)] == [[b"new", b"old"]] * 2


def test_nobody_hears_is_said(broker: RunningBroker, root: str) -> None:
    with Person(broker, root) as one:
        assert one.publish(f"{root}/nobody", b"x", 1).value == 0x10
