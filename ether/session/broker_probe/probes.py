"""The probes: each one tries one thing at a broker, and returns what it saw.

A probe may wait until the bench's deadline. One that loses its connection raises `ConnectionCut`. What it publishes
lies below the session of the bench; what it retains, the bench clears.
"""

from __future__ import annotations

import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic, perf_counter

from ether.errors.reason_codes import reason_text
from ether.session.broker_probe.bench import ConnectionCut, OutOfTime, ProbeBench
from ether.session.broker_probe.facts import (
    BurstFact,
    DistanceFact,
    ExpiryFact,
    ManyFiltersFact,
    OrderFact,
    PlaneFact,
    PropertiesFact,
    RetainedFact,
    RightsFact,
    SharedFact,
    SizeFact,
    SmallWritesFact,
    TopicNamesFact,
    WildcardsFact,
    WillFact,
)
from ether.session.broker_probe.size_search_rules import LARGEST, SizeSearch
from ether.session.discovery.directory import DIRECTORY
from ether.transport.bare import BareConnection
from ether.transport.base import Delivery, ProtocolVersion, Will
from ether.wire.head import Properties, pack_properties, unpack_properties
from ether.wire.topics import SessionTopics

_PINGS, _DELIVERIES = 5, 3
_PAIRS, _PAIRS_S = 200, 0.8
_EARLIER_BYTES = 4_096
_WILL_S = 1.0
_SHARED_MESSAGES = 10
_MANY = 100
_MOST_ROUNDS, _LEAST_ROUNDS, _ROUNDS_S = 15, 3, 0.7
_SUSPICIOUS_S = 0.015
"""An answer that comes later than two round trips by more than this may have been held back."""
_BURST, _LARGE_BURST = 2_000, 20_000
_BURST_QUICK_S = 0.7
"""The larger burst follows where the smaller one took no longer than this."""
_BURST_BYTES = 64
_UNSENT_BYTES = 1 << 20
_PACKET_ROOM = 512
"""What a packet needs beside its payload."""
EXPIRED_S = 2.2
_FIRST_FAILURE = 0x80

TOPIC_NAMES = {
    "a dot (Class.method)": "Probe.read",
    "a space": "stage position",
    "letters beyond ASCII": "température/µm",
    "12 levels": "/".join("abcdefghijkl"),
    "200 characters": "x" * 200,
}
"""Kinds of names that Ether allows, each with an example."""
_LOST = "it is not delivered"


def probe_distance(bench: ProbeBench) -> DistanceFact:
    """Pings, one after the other."""
    connection = bench.main
    times: list[float] = []
    while len(times) < _PINGS:
        before, began = connection.pongs, perf_counter()
        connection.ping()
        if not bench.wait([connection], lambda before=before: connection.pongs > before):  # type: ignore[misc]
            break
        times.append(perf_counter() - began)
        if sum(times) > _PINGS * 0.1:
            break
    if not times:
        raise ConnectionCut("it does not answer a PINGREQ")
    bench.shared.round_trip_s = min(times)
    bench.shared.delivery_s = _longest_delivery_s(bench)
    return DistanceFact(min(times), statistics.median(times))


def _longest_delivery_s(bench: ProbeBench) -> float:
    """The longest that a few messages to ourselves take; 0 where they do not come, which other probes find out."""
    topic, longest_s = bench.topics.reply("distance"), 0.0
    connection = bench.hearing(topic)
    for _ in range(_DELIVERIES):
        began = perf_counter()
        connection.publish(topic, b"x")
        if not bench.wait([connection], lambda: bool(connection.take())):
            break
        longest_s = max(longest_s, perf_counter() - began)
    return longest_s


# -- rights


def _planes(topics: SessionTopics, name: str, *, runs: bool) -> list[PlaneFact]:
    """Every plane of a session's topics, with a filter as Ether uses it, and a topic where one may be published to.
    Where the session runs, that is the plane of answers alone: whatever is published elsewhere would be heard, logged
    or recorded."""
    planes = [
        PlaneFact("answers", topics.reply(name), topics.reply(name)),
        PlaneFact("requests", topics.call(name, "+"), topics.call(name, "probe")),
        PlaneFact("states", topics.state("+"), topics.state(name)),
        PlaneFact("heartbeats", topics.heartbeat("+"), topics.heartbeat(name)),
        PlaneFact("data", topics.data_filter("#"), topics.data(name)),
        PlaneFact("control", topics.control("+"), topics.control("probe")),
        PlaneFact("repeated messages", topics.missed("+"), topics.missed(name)),
        PlaneFact("logs", topics.log("+"), topics.log(name)),
        PlaneFact("recorders", topics.recorder("+"), topics.recorder(name)),
        PlaneFact("records", topics.record(name), topics.record(name)),
        PlaneFact("receipts", topics.ack(name), topics.ack(name)),
        PlaneFact("the run", topics.run, topics.run),
        PlaneFact("the session's entry", topics.session_info, topics.session_info),
    ]
    if runs:
        planes = [each if each.plane == "answers" else replace(each, topic="") for each in planes]
    elif name != topics.session:  # somebody else's: what is said here could end a session that we have overlooked
        planes = [
            replace(each, topic="") if each.topic in (topics.run, topics.session_info) else each for each in planes
        ]
    return [*planes, PlaneFact("the directory of sessions", DIRECTORY, needed=False)]


def probe_rights(bench: ProbeBench, session: str | None) -> RightsFact:
    """Subscribe to every plane and publish to each, without the retain flag; with `session`, in its planes."""
    topics = bench.topics if session is None else SessionTopics(session)
    runs = session is not None and _is_led(bench, topics)
    planes = _planes(topics, bench.name, runs=runs)
    try:
        planes = _try_planes(bench, planes)
        if late := [plane for plane in planes if plane.arrived is False]:
            # They decide whether a session is possible at all, so a broker that is merely slow gets a second chance.
            again = {plane.plane: plane for plane in _try_planes(bench, late)}
            planes = [again.get(plane.plane, plane) for plane in planes]
        return RightsFact(topics.session, tuple(planes), runs)
    except ConnectionCut:
        # Some brokers answer what they forbid by closing the connection: which plane it was, only single tries tell.
        return RightsFact(topics.session, tuple(_alone(bench, plane) for plane in planes), runs)


def _is_led(bench: ProbeBench, topics: SessionTopics) -> bool:
    connection = bench.hearing(topics.session_info)
    entry = bench.await_topic(connection, topics.session_info)
    return entry is not None and bool(entry.payload)


def _try_planes(bench: ProbeBench, planes: list[PlaneFact]) -> list[PlaneFact]:
    connection = bench.connect()
    granted = bench.subscribe(connection, *(plane.topic_filter for plane in planes))
    ids = {plane.topic: connection.publish(plane.topic) for plane in planes if plane.topic}
    bench.wait([connection], lambda: set(ids.values()) <= connection.acknowledged.keys())
    arrived = {each.topic for each in _arriving(bench, connection, len(ids))}
    codes = dict(zip(planes, granted, strict=False))
    return [
        replace(
            plane,
            granted=codes.get(plane),
            acknowledged=connection.acknowledged.get(ids.get(plane.topic, 0)),
            arrived=plane.topic in arrived if plane.topic else None,
        )
        for plane in planes
    ]


def _arriving(bench: ProbeBench, connection: BareConnection, topics: int) -> list[Delivery]:
    """What arrives until every topic has come, once or more often, or nothing comes any more."""
    came: list[Delivery] = []
    while len({each.topic for each in came}) < topics:
        more = bench.collect([connection], 1)
        if not more:
            break
        came += more
    return came


def _alone(bench: ProbeBench, plane: PlaneFact) -> PlaneFact:
    try:
        return _try_planes(bench, [plane])[0]
    except ConnectionCut as cut:
        return replace(plane, cut=str(cut))


# -- what is retained


def probe_retained(bench: ProbeBench) -> RetainedFact:
    """Retain one message, ask for it by its topic and by wildcards, and clear it."""
    connection = bench.connect()
    topic = bench.topics.state("retained")
    try:
        acknowledged = bench.retain(connection, topic, b"kept")
    except ConnectionCut as cut:
        return RetainedFact(None, by_topic=False, by_plus=False, by_hash=False, cleared=False, cut=str(cut))

    def comes(asking: BareConnection, topic_filter: str) -> bool:
        bench.subscribe(asking, topic_filter)
        came = bench.await_topic(asking, topic)
        return came is not None and came.retained

    asking = bench.connect()
    by_topic, by_plus = comes(asking, topic), comes(asking, bench.topics.state("+"))
    by_hash = comes(asking, topic.rpartition("/")[0] + "/#")
    bench.code_of(connection, connection.publish(topic, b"", retain=True))
    cleared = by_topic and not comes(bench.connect(), topic)  # of its own: nothing repeats a subscription here
    return RetainedFact(acknowledged, by_topic, by_plus, by_hash, cleared)


def begin_expiry(bench: ProbeBench) -> Callable[[ProbeBench], ExpiryFact]:
    """Retain a message that is over after 1 s. Returns the second half of this probe, to be called later."""
    topic = bench.topics.state("expired")
    bench.retain(bench.main, topic, b"over", 1)
    over = monotonic() + EXPIRED_S

    def look(bench: ProbeBench) -> ExpiryFact:
        connection = bench.connect()
        bench.wait([connection], lambda: monotonic() >= over)
        bench.subscribe(connection, topic)
        return ExpiryFact(bench.await_topic(connection, topic) is not None)

    return look


# -- what a message carries, and how often and in which order it comes


def probe_properties(bench: ProbeBench) -> PropertiesFact:
    """A message with every property that Ether uses, to ourselves."""
    topic = bench.topics.data("properties")
    sent = Properties("application/x-probe", topic, b"\0\xff\1", 60, (("id", "1"), ("parent", "2"), ("parent", "3")))
    connection = bench.hearing(topic)
    connection.publish(topic, b"x", properties=pack_properties(sent))
    came = bench.await_topic(connection, topic)
    if came is None:
        raise ConnectionCut("a message with properties did not come back")
    got = unpack_properties(came.properties)
    kept = {
        "content type": got.content_type == sent.content_type,
        "response topic": got.response_topic == sent.response_topic,
        "correlation data": got.correlation_data == sent.correlation_data,
        "message expiry": got.message_expiry_s is not None,
        "user properties": got.user == sent.user,
    }
    return PropertiesFact(tuple(name for name, same in kept.items() if not same))


def probe_wildcards(bench: ProbeBench) -> WildcardsFact:
    """One message each to a filter with `+`, to one with `#`, and to two that overlap."""
    base, connection = bench.topics.data("wild"), bench.connect()
    bench.subscribe(connection, f"{base}/plus/+", f"{base}/hash/#", f"{base}/both/+", f"{base}/both/x")
    for name in ("plus", "hash", "both"):
        connection.publish(f"{base}/{name}/x", b"x")
    copies = Counter(each.topic for each in bench.collect([connection], 5))
    return WildcardsFact(copies[f"{base}/plus/x"], copies[f"{base}/hash/x"], copies[f"{base}/both/x"])


def probe_many_filters(bench: ProbeBench) -> ManyFiltersFact:
    """One connection with many subscriptions."""
    codes = bench.subscribe(bench.connect(), *(bench.topics.data(f"many/{number}") for number in range(_MANY)))
    if not codes:
        raise OutOfTime
    return ManyFiltersFact(_MANY, sum(code < _FIRST_FAILURE for code in codes))


def probe_shared(bench: ProbeBench) -> SharedFact:
    """Two connections share a subscription; each message should come to one of them."""
    topic = bench.topics.data("shared")
    members = [bench.connect(), bench.connect()]
    codes = [bench.subscribe(member, f"$share/ether-doctor/{topic}") for member in members]
    granted = max((code for answer in codes for code in answer), default=None)
    if granted is None or granted >= _FIRST_FAILURE:
        return SharedFact(granted, 0, 0)
    for number in range(_SHARED_MESSAGES):
        bench.main.publish(topic, b"%d" % number)
    return SharedFact(granted, _SHARED_MESSAGES, len(bench.collect(members, _SHARED_MESSAGES + 1)))


def probe_nobody(bench: ProbeBench) -> int | None:
    """The code that the broker gives to a message that nobody listens to."""
    connection = bench.main
    return bench.code_of(connection, connection.publish(bench.topics.call("nobody", "probe"), b"x"))


def probe_order(bench: ProbeBench) -> OrderFact:
    """Pairs of messages to ourselves, a larger one to one topic and a small one to another."""
    connection = bench.connect()
    first, second = bench.topics.control("first"), bench.topics.reply("second")
    bench.subscribe(connection, first, second)
    at_once = max(1, min(connection.announced.receive_maximum or 64, 64) // 2)
    came: list[Delivery] = []
    sent, until = 0, bench.soon(_PAIRS_S)
    while sent < _PAIRS and (sent == 0 or monotonic() < until):
        for _ in range(at_once):
            number = b"%d" % sent
            connection.publish(first, number.ljust(_EARLIER_BYTES))
            connection.publish(second, number)
            sent += 1
        expected = 2 * sent
        try:
            came += bench.collect([connection], expected - len(came))
        except OutOfTime as late:
            came += late.taken
        if len(came) < expected:
            break
    seen: set[int] = set()
    overtaken = 0
    for each in came:
        if each.topic == first:
            seen.add(int(each.payload))
        else:
            overtaken += int(each.payload) not in seen
    return OrderFact(sent, len(came), overtaken)


# -- speed


def probe_small_writes(bench: ProbeBench) -> SmallWritesFact:
    """Questions and answers between two connections, first where this side acknowledges late, then at once."""
    asking, answering = bench.connect(), bench.connect()
    question, answer = bench.topics.call("echo", "small"), bench.topics.reply("small")
    bench.subscribe(asking, answer)
    bench.subscribe(answering, question)

    def median_s(at_once: bool) -> tuple[float, int]:
        asking.acknowledges_at_once = answering.acknowledges_at_once = at_once
        return _median_round(bench, asking, answering, question, answer)

    late_s, rounds = median_s(at_once=False)
    held_back = late_s > 2 * bench.shared.round_trip_s + _SUSPICIOUS_S
    at_once_s = median_s(at_once=True)[0] if held_back and sys.platform == "linux" else None
    return SmallWritesFact(late_s, at_once_s, rounds)


def _median_round(
    bench: ProbeBench, asking: BareConnection, answering: BareConnection, question: str, answer: str
) -> tuple[float, int]:
    def answered() -> bool:
        for _ in answering.take():
            answering.publish(answer, b"a")
        return bool(asking.take())

    times: list[float] = []
    began = monotonic()
    while len(times) < _MOST_ROUNDS and (len(times) < _LEAST_ROUNDS or monotonic() - began < _ROUNDS_S):
        start = perf_counter()
        asking.publish(question, b"q")
        if not bench.wait([asking, answering], answered):
            break
        times.append(perf_counter() - start)
    if not times:
        raise ConnectionCut("a small message did not come back")
    return statistics.median(times), len(times)


def probe_burst(bench: ProbeBench) -> BurstFact:
    """A burst to a receiver that does not read meanwhile; a larger one where that went well and fast."""
    began = monotonic()
    fact = _burst(bench, _BURST)
    if fact.arrived < _BURST or monotonic() - began > _BURST_QUICK_S:
        return fact
    larger = _burst(bench, _LARGE_BURST)
    return larger if larger.whole else fact


def _burst(bench: ProbeBench, size: int) -> BurstFact:
    topic = bench.topics.data("burst")
    reader = bench.connect()
    bench.subscribe(reader, topic)
    sender = _burst_sender(bench)
    window = sender.announced.receive_maximum or (size if sender.version is ProtocolVersion.V311 else 65_535)
    sent = 0

    def fed() -> bool:
        nonlocal sent
        while sent < size and sent - len(sender.acknowledged) < window and sender.unsent_bytes < _UNSENT_BYTES:
            sender.publish(topic, b"%d" % sent + bytes(_BURST_BYTES))
            sent += 1
        return len(sender.acknowledged) == size

    # Half of the time is for sending: what was not sent by then is left out.
    bench.wait([sender], fed, (bench.deadline - monotonic()) / 2)
    reader_lost, whole = "", True
    try:
        # The sender, too: its ping follows all that it has sent, so the answer says that the broker has all of it.
        came: Sequence[Delivery] = bench.collect([reader, sender], sent)
    except ConnectionCut as cut:
        came, reader_lost = reader.take(), str(cut)
    except OutOfTime as late:
        came, whole = late.taken, False
    numbers = [int(each.payload.partition(b"\0")[0]) for each in came]
    return BurstFact(
        sent,
        len(sender.acknowledged),
        len(set(numbers)),
        len(numbers) - len(set(numbers)),
        numbers == sorted(numbers),
        reader_lost,
        whole,
    )


def _burst_sender(bench: ProbeBench) -> BareConnection:
    """A connection without the limit of messages under way that MQTT 5 has, where the broker lets one in: far away, it
    would make the burst a trickle."""
    for version in (ProtocolVersion.V311, bench.version):
        if version in bench.shared.accepted:
            return bench.connect(version)
    return bench.connect()


# -- limits


def probe_size(bench: ProbeBench) -> SizeFact:
    """Messages to ourselves, ever larger, until one does not come back; then between the two."""
    topic, announced = bench.topics.data("size"), bench.shared.accepted[bench.version].announced.max_packet_bytes
    search = SizeSearch(largest=min(LARGEST, (announced or LARGEST + _PACKET_ROOM) - _PACKET_ROOM))
    how = words = ""
    connection: BareConnection | None = None
    while (size := search.next_size) is not None and monotonic() < bench.deadline:
        if connection is None or connection.lost is not None:
            connection = bench.connect()
            bench.subscribe(connection, topic)
        failed = _try_size(bench, connection, topic, size)
        if failed == _NO_TIME:
            break
        if failed is not None:
            how, words = failed
        search = search.after(size, passed=failed is None)
    return SizeFact(search.passed, search.failed, how, words)


_NO_TIME = ("", "")


def _try_size(bench: ProbeBench, connection: BareConnection, topic: str, size: int) -> tuple[str, str] | None:
    """None where a payload of that size comes back; else how it failed, and the broker's words. `_NO_TIME` where the
    time was over before that was known."""

    def came_back() -> bool:
        return any(len(each.payload) == size for each in connection.deliveries)

    connection.take()
    try:
        packet_id = connection.publish(topic, bytes(size))
        bench.wait([connection], lambda: came_back() or packet_id in connection.acknowledged)
        code = connection.acknowledged.get(packet_id, 0)
        if code >= _FIRST_FAILURE:
            return "refused", reason_text(code)
        if came_back() or bench.wait_while_moving(connection, came_back):
            return None
    except ConnectionCut as cut:
        return "cut", str(cut)
    return _NO_TIME if monotonic() >= bench.deadline else ("dropped", "")


def probe_topic_names(bench: ProbeBench) -> TopicNamesFact:
    """Names as Ether allows them: all on one connection, and those that did not come one by one."""
    failed = dict.fromkeys(TOPIC_NAMES, _LOST)
    try:
        for name, topic in _topics_that_come(bench, list(TOPIC_NAMES)).items():
            if topic == _named(bench, name):
                del failed[name]
            else:
                failed[name] = f"it comes as {topic.rpartition('names/')[2]}"
    except ConnectionCut:
        failed = {}
        for name in TOPIC_NAMES:
            try:
                if _topics_that_come(bench, [name]) != {name: _named(bench, name)}:
                    failed[name] = _LOST
            except ConnectionCut as cut:
                failed[name] = str(cut)
    return TopicNamesFact(tuple(TOPIC_NAMES), tuple(failed.items()))


def _named(bench: ProbeBench, name: str) -> str:
    return bench.topics.data(f"names/{TOPIC_NAMES[name]}")


def _topics_that_come(bench: ProbeBench, names: list[str]) -> dict[str, str]:
    """For each name whose message arrives, the topic that it arrives with."""
    connection = bench.connect()
    bench.subscribe(connection, bench.topics.data_filter("names/#"))
    for name in names:
        connection.publish(_named(bench, name), name.encode())
    return {each.payload.decode(): each.topic for each in _arriving(bench, connection, len(names))}


def probe_will(bench: ProbeBench) -> WillFact:
    """A connection that ends without a word, and its will."""
    topic = bench.topics.state("doomed")
    connection = bench.hearing(topic)
    doomed = bench.connect(will=Will(topic, b"gone", retain=False))
    began = perf_counter()
    doomed.cut()
    bench.wait([connection], lambda: bool(connection.deliveries), _WILL_S)
    came = bench.await_topic(connection, topic)
    return WillFact(perf_counter() - began if came else None)


def read_software(bench: ProbeBench) -> str:
    """What the broker calls itself, where it says so in `$SYS`."""
    connection = bench.connect()
    bench.subscribe(connection, "$SYS/broker/version")
    came = bench.await_topic(connection, "$SYS/broker/version")
    return came.payload.decode(errors="replace")[:80] if came else ""
