"""The defects of plain amqtt that would break our promises, each as a check that a sound broker passes.

A check takes a `Target`, talks to it over sockets, and fails with an assertion or a time-out where the defect is there.
`SOUND` names every check; `test_broker_defects.py` runs each over our engine, over plain amqtt, where it must fail, and
over mosquitto where that keeps the promise by itself.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable

from patience import patience
from raw_client import PUBACK, Publication, RawClient, Target, Will, connect_packet, packet, publish_packet, text

Check = Callable[[Target], None]


def everyone_hears_everything_once(target: Target, clients: int = 60, retained: int = 200, rounds: int = 1) -> None:
    """Clients that connect and subscribe at the same moment each get every retained and every later message once."""
    root = f"crowd/{secrets.token_hex(4)}"
    states = [f"{root}/state/{number}" for number in range(retained)]
    with RawClient(target) as publisher:
        for topic in states:
            publisher.publish(topic, b"state", qos=1, retain=True)
        publisher.ping()
        for turn in range(rounds):
            heard = _one_round(target, publisher, root, clients, turn)
            everything = [*states, *(f"{root}/data/{number}" for number in range(20)), f"{root}/data/end"]
            wrong = {name: _difference(everything, topics) for name, topics in heard.items()}
            wrong = {name: difference for name, difference in wrong.items() if difference}
            assert not wrong, f"round {turn}: {len(wrong)} of {clients} clients heard something else: {wrong}"
        for topic in states:
            publisher.publish(topic, b"", qos=1, retain=True)
        publisher.ping()


def _one_round(target: Target, publisher: RawClient, root: str, clients: int, turn: int) -> dict[int, list[str]]:
    together = threading.Barrier(clients)
    subscribed = threading.Semaphore(0)
    heard: dict[int, list[str]] = {number: [] for number in range(clients)}

    def one(number: int) -> None:
        together.wait(patience(10))
        with RawClient(target, f"crowd-{number}-{secrets.token_hex(4)}") as client:
            try:
                filters = [(f"{root}/state/+", 1), (f"{root}/data/#", 1), (f"{root}/reply/{number}", 1)]
                client.subscribe(*filters)
                subscribed.release()
                while not (heard[number] and heard[number][-1].endswith("/end")):
                    heard[number].append(_acknowledged(client).topic)
            except (TimeoutError, ConnectionResetError):
                heard[number].append("nothing more")  # deaf, or never let in

    threads = [threading.Thread(target=one, args=(number,), name=f"crowd-{number}") for number in range(clients)]
    for thread in threads:
        thread.start()
    all_there = all(subscribed.acquire(timeout=patience(5)) for _ in range(clients))
    for number in range(20 if all_there else 0):
        publisher.publish(f"{root}/data/{number}", str(turn).encode(), qos=1)
    publisher.publish(f"{root}/data/end", b"", qos=1)
    for thread in threads:
        thread.join(patience(15))
    return heard


def _acknowledged(client: RawClient) -> Publication:
    came = client.publication()
    if came.qos:
        client.acknowledge(came.packet_id)
    return came


def _difference(expected: list[str], heard: list[str]) -> str:
    missing, extra = Counter(expected) - Counter(heard), Counter(heard) - Counter(expected)
    return f"{missing.total()} missing, {extra.total()} too many" if missing or extra else ""


def a_client_that_enters_while_another_subscribes_is_not_deaf(target: Target) -> None:
    """What makes a crowd deaf, one by one: a subscription changes while somebody new is let in."""
    root = f"deaf/{secrets.token_hex(4)}"
    with RawClient(target) as publisher, RawClient(target) as resident:
        for number in range(50):
            publisher.publish(f"{root}/{number}", b"state", retain=True)
        publisher.ping()
        resident.subscribe((f"{root}/+", 0))
        for number in range(20):
            with RawClient(target, hello=False) as newcomer:
                newcomer.send(connect_packet(target, newcomer.client_id))
                for more in range(20):
                    resident.send(packet(0x82, b"\x00\x01" + text(f"{root}/{number}/{more}") + b"\x00"))
                newcomer.subscribe((f"{root}/other", 0))
        resident.ping()


def retained_reaches_nobody_who_did_not_subscribe(target: Target) -> None:
    topic = f"kept/{secrets.token_hex(4)}"
    with RawClient(target) as publisher, RawClient(target) as subscriber:
        publisher.publish(topic, b"kept", retain=True)
        publisher.ping()
        subscriber.subscribe((topic, 0))
        assert subscriber.publication().retain
        with RawClient(target) as stranger:
            assert stranger.publications() == []


def a_silent_client_is_cut_off(target: Target) -> None:
    """After one and a half keep-alives, and its will is published."""
    topic = f"wills/{secrets.token_hex(4)}"
    with RawClient(target) as watcher, RawClient(target, keepalive_s=1, will=Will(topic, b"gone")) as silent:
        watcher.subscribe((topic, 0))
        assert watcher.publication().payload == b"gone"
        assert silent.is_closed()


def the_second_connection_of_a_client_id_wins(target: Target) -> None:
    """The first is closed and leaves its will; the second hears."""
    name, topic = f"twin-{secrets.token_hex(4)}", f"wills/{secrets.token_hex(4)}"
    with RawClient(target) as watcher, RawClient(target, name, will=Will(topic, b"gone")) as first:
        watcher.subscribe((topic, 0))
        with RawClient(target, name) as second:
            assert first.is_closed(5.0)
            assert watcher.publication().payload == b"gone"
            second.subscribe(("twins", 0))
            watcher.publish("twins", b"for the second")
            assert second.publication().payload == b"for the second"


def a_publish_to_dollar_does_not_silence_its_client(target: Target) -> None:
    topic = f"after/{secrets.token_hex(4)}"
    with RawClient(target) as publisher, RawClient(target) as subscriber:
        subscriber.subscribe((topic, 0))
        publisher.publish("$mine/own")
        publisher.publish(topic, b"still here")
        assert subscriber.publication().payload == b"still here"


def a_slow_subscriber_costs_bounded_memory(target: Target) -> None:
    """One that reads nothing is disconnected; nothing is dropped from its middle."""
    topic, payload, count = f"flood/{secrets.token_hex(4)}", b"x" * 1_000_000, 290
    with RawClient(target) as publisher, RawClient(target) as slow:
        slow.subscribe((topic, 0))
        for _ in range(count):
            publisher.publish(topic, payload)
        publisher.ping(20)
        received = slow.publications(5.0)
        assert len(received) < count
        assert slow.is_closed(5.0)


def unacknowledged_messages_hold_the_rest_back_in_order(target: Target) -> None:
    """A client that delays its PUBACKs is not flooded, and gets everything in order once it acknowledges."""
    topic, count = f"held/{secrets.token_hex(4)}", 300
    with RawClient(target) as publisher, RawClient(target) as slow:
        slow.subscribe((topic, 1))
        for number in range(count):
            publisher.publish(topic, str(number).encode(), qos=1)
        waiting = [slow.publication(), *slow.publications()]
        assert 0 < len(waiting) <= 100
        seen: list[int] = []
        while len(seen) < count:
            came = waiting.pop(0) if waiting else slow.publication()
            seen.append(int(came.payload))
            slow.acknowledge(came.packet_id)
        assert seen == list(range(count))


def a_delivery_has_the_lower_qos(target: Target) -> None:
    topic = f"qos/{secrets.token_hex(4)}"
    with RawClient(target) as publisher, RawClient(target) as subscriber:
        subscriber.subscribe((topic, 1))
        publisher.publish(topic, qos=0)
        assert subscriber.publication().qos == 0


def an_oversize_packet_ends_its_connection_unread(target: Target) -> None:
    """At its declaration: the broker does not wait for the rest."""
    with RawClient(target) as client:
        client.send(b"\x30\xff\xff\xff\x7f\x00\x01t")
        assert client.is_closed(5.0)


def a_shared_subscription_is_not_granted_in_vain(target: Target) -> None:
    with RawClient(target) as client, RawClient(target) as publisher:
        if client.subscribe(("$share/group/work", 0)) == [0x80]:
            return
        publisher.publish("work", b"for one of the group")
        assert client.publication().payload == b"for one of the group"


def a_refused_client_harms_nobody(target: Target) -> None:
    """A wrong password with the client id of another: that one keeps connection, subscription and will."""
    victim_id, topic = f"victim-{secrets.token_hex(4)}", f"victims/{secrets.token_hex(4)}"
    with (
        RawClient(target) as watcher,
        RawClient(target, victim_id, will=Will(f"{topic}/will", b"gone")) as victim,
    ):
        watcher.subscribe((f"{topic}/will", 0))
        victim.subscribe((topic, 0))
        with RawClient(target._replace(password="wrong"), victim_id) as intruder:
            assert intruder.connack is not None
            assert intruder.connack[1] == 5
        watcher.publish(topic, b"still yours")
        assert victim.publication().payload == b"still yours"
        victim.socket.shutdown(2)
        assert watcher.publication().payload == b"gone"


def mqtt_5_is_spoken(target: Target) -> None:
    """By who asks for it: with a user and a password, which lie elsewhere in that version's CONNECT."""
    with RawClient(target, hello=False) as client:
        client.send(connect_packet(target, "five", level=5, properties=b"\x05\x11\x00\x00\x00\x00"))
        came = client.packet(1.0)
        assert came is not None
        assert (came[0], came[1][:2]) == (0x20, b"\x00\x00")


def a_publish_of_qos_2_is_delivered_once(target: Target) -> None:
    topic = f"two/{secrets.token_hex(4)}"
    with RawClient(target) as publisher, RawClient(target) as subscriber:
        subscriber.subscribe((topic, 1))
        again = publish_packet(topic, b"once", qos=2, packet_id=7)
        publisher.send(again)
        assert publisher.packet() == (0x50, b"\x00\x07")
        publisher.send(bytes([again[0] | 8]) + again[1:])
        publisher.send(packet(0x62, b"\x00\x07"))
        publisher.ping()
        came = [subscriber.publication(), *subscriber.publications()]
        assert [(each.payload, each.qos) for each in came] == [(b"once", 1)]


def what_was_not_acknowledged_comes_again(target: Target) -> None:
    """To a client that kept its session, marked as a repetition, before what came while it was away."""
    name, topic = f"keeper-{secrets.token_hex(4)}", f"kept/{secrets.token_hex(4)}"
    with RawClient(target) as publisher:
        with RawClient(target, name, clean=False) as keeper:
            keeper.subscribe((topic, 1))
            publisher.publish(topic, b"first", qos=1)
            assert keeper.publication().payload == b"first"
        with RawClient(target, name, clean=False) as keeper:
            assert keeper.connack == b"\x01\x00"
            came = keeper.publication()
            assert (came.payload, came.dup) == (b"first", True)
            keeper.disconnect()
            assert keeper.is_closed()
        publisher.publish(topic, b"second", qos=1)
        publisher.ping()
        with RawClient(target, name, clean=False) as keeper:
            assert [keeper.publication().payload for _ in range(2)] == [b"first", b"second"]
        with RawClient(target, name):
            pass


def overlapping_filters_deliver_once(target: Target) -> None:
    topic = f"overlap/{secrets.token_hex(4)}"
    with RawClient(target) as publisher, RawClient(target) as subscriber:
        subscriber.subscribe((topic, 0), ("overlap/#", 1), ("overlap/+", 0))
        publisher.publish(topic, b"once", qos=1)
        came = [subscriber.publication(), *subscriber.publications()]
        assert [each.payload for each in came] == [b"once"]


def small_packets_leave_at_once(target: Target) -> None:
    """A QoS 1 message to oneself is PUBACK, then PUBLISH: with Nagle's algorithm on, 40 ms lie between them."""
    with RawClient(target) as client:
        client.subscribe(("echo", 1))
        times = []
        for _ in range(21):
            start = time.perf_counter()
            client.publish("echo", b"x", qos=1)
            kinds = {came[0] & 0xF0 for came in (client.packet(), client.packet()) if came}
            times.append(time.perf_counter() - start)
            assert kinds == {PUBACK, 0x30}
        assert sorted(times)[10] < 0.02


DEFECTS: list[Check] = [
    a_client_that_enters_while_another_subscribes_is_not_deaf,
    retained_reaches_nobody_who_did_not_subscribe,
    a_silent_client_is_cut_off,
    the_second_connection_of_a_client_id_wins,
    a_publish_to_dollar_does_not_silence_its_client,
    a_slow_subscriber_costs_bounded_memory,
    unacknowledged_messages_hold_the_rest_back_in_order,
    a_delivery_has_the_lower_qos,
    an_oversize_packet_ends_its_connection_unread,
    a_shared_subscription_is_not_granted_in_vain,
    a_refused_client_harms_nobody,
    mqtt_5_is_spoken,
    what_was_not_acknowledged_comes_again,
    overlapping_filters_deliver_once,
]

SOUND: list[Check] = [
    *DEFECTS,
    everyone_hears_everything_once,  # plain amqtt fails in about three rounds of four: too seldom for a test
    a_publish_of_qos_2_is_delivered_once,
    small_packets_leave_at_once,
]
