"""What the facts about a broker mean, and which size is tried next: decisions without a broker."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ether.session.broker_probe import CapabilityVerdict, Finding, judge
from ether.session.broker_probe.facts import (
    BurstFact,
    DistanceFact,
    EntryFact,
    ExpiryFact,
    ManyFiltersFact,
    NotSeen,
    OrderFact,
    PlaneFact,
    ProbeFacts,
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
from ether.transport.bare import BrokerLimits

YES, LIMITED, NO, UNKNOWN = (
    CapabilityVerdict.YES,
    CapabilityVerdict.LIMITED,
    CapabilityVerdict.NO,
    CapabilityVerdict.UNKNOWN,
)

PLANE = PlaneFact("answers", "ether/1/x/reply/a", "ether/1/x/reply/a", granted=1, acknowledged=0, arrived=True)
DIRECTORY = PlaneFact("the directory of sessions", "ether/1/+/session", granted=1, needed=False)
GOOD: dict[str, object] = {
    "distance": DistanceFact(0.0002, 0.0003),
    "rights": RightsFact("x", (PLANE, DIRECTORY)),
    "expiry": ExpiryFact(delivered_late=False),
    "retained": RetainedFact(0, by_topic=True, by_plus=True, by_hash=True, cleared=True),
    "properties": PropertiesFact(()),
    "small writes": SmallWritesFact(0.0005, 0.0005, 15),
    "burst": BurstFact(20_000, 20_000, 20_000, 0, in_order=True),
    "order": OrderFact(200, 400, 0),
    "wildcards": WildcardsFact(1, 1, 1),
    "will": WillFact(0.001),
    "many filters": ManyFiltersFact(100, 100),
    "nobody": 0x10,
    "size": SizeFact(LARGEST),
    "names": TopicNamesFact(("a dot",)),
    "shared": SharedFact(1, 10, 10),
}
ENTRIES = (EntryFact("5", announced=BrokerLimits(receive_maximum=1000, topic_alias_maximum=10)), EntryFact("3.1.1"))


def facts_with(announced: BrokerLimits | None = None, **probes: object) -> ProbeFacts:
    """A broker without fault, but for these probes (`_` stands for a space)."""
    changed = {name.replace("_", " "): fact for name, fact in probes.items()}
    entries = ENTRIES if announced is None else (replace(ENTRIES[0], announced=announced), ENTRIES[1])
    return ProbeFacts("mqtt://h", entries=entries, probes=GOOD | changed)


def finding(name: str, announced: BrokerLimits | None = None, **probes: object) -> Finding:
    return judge(facts_with(announced, **probes)).finding(name)


def test_a_broker_without_fault() -> None:
    found = judge(facts_with())
    assert {each.verdict for each in found.findings} == {YES}
    assert found.carries_a_session
    assert found.settings == ()


CASES: list[tuple[str, dict[str, Any], CapabilityVerdict, str]] = [
    ("rights", {"rights": RightsFact("x", (replace(PLANE, granted=0x87), DIRECTORY))}, NO, "not authorized"),
    ("rights", {"rights": RightsFact("x", (replace(PLANE, granted=None), DIRECTORY))}, NO, "not answered"),
    ("rights", {"rights": RightsFact("x", (replace(PLANE, acknowledged=0x87), DIRECTORY))}, NO, "message was refused"),
    ("rights", {"rights": RightsFact("x", (replace(PLANE, arrived=False), DIRECTORY))}, NO, "never delivered"),
    ("rights", {"rights": RightsFact("x", (replace(PLANE, cut="reset"), DIRECTORY))}, NO, "reset"),
    ("rights", {"rights": RightsFact("x", (PLANE, replace(DIRECTORY, granted=0x80)))}, LIMITED, "unspecified"),
    ("rights", {"rights": RightsFact("x", (replace(PLANE, acknowledged=0x10), DIRECTORY))}, YES, "ether/1/x/"),
    ("retained messages", {"retained": RetainedFact(0x9A, False, False, False, False)}, NO, "not supported"),
    ("retained messages", {"retained": RetainedFact(0, False, False, False, False)}, NO, "did not come"),
    ("retained messages", {"retained": RetainedFact(0, True, True, True, False)}, LIMITED, "cannot be cleared"),
    ("retained by wildcard", {"retained": RetainedFact(0, True, False, False, True)}, NO, "+ and #"),
    ("retained by wildcard", {"retained": RetainedFact(0, True, True, False, True)}, NO, "not with #"),
    ("wildcards", {"wildcards": WildcardsFact(0, 1, 1)}, NO, "not with +"),
    ("overlapping filters", {"wildcards": WildcardsFact(1, 1, 2)}, LIMITED, "2 copies"),
    ("overlapping filters", {"wildcards": WildcardsFact(1, 1, 0)}, NO, "no copy"),
    ("many subscriptions", {"many_filters": ManyFiltersFact(100, 63)}, LIMITED, "63 at most"),
    ("properties", {"properties": PropertiesFact(("user properties",))}, NO, "user properties"),
    ("message expiry", {"expiry": ExpiryFact(delivered_late=True)}, NO, "all the same"),
    ("order on a topic", {"burst": BurstFact(9, 9, 9, 0, in_order=False)}, NO, "not kept"),
    ("order on a topic", {"burst": BurstFact(9, 9, 9, 2, in_order=True)}, LIMITED, "twice"),
    ("order across topics", {"order": OrderFact(200, 400, 3)}, NO, "3 of 200"),
    ("order across topics", {"order": OrderFact(200, 10, 0)}, UNKNOWN, "10 of 400"),
    ("a burst to a slow receiver", {"burst": BurstFact(2000, 2000, 1020, 0, True)}, NO, "about 1,000 wait"),
    ("a burst to a slow receiver", {"burst": BurstFact(2000, 2000, 7, 0, True, "reset")}, NO, "reset"),
    ("small writes", {"small_writes": SmallWritesFact(0.044, 0.0005, 15)}, LIMITED, "44 ms"),
    ("small writes", {"small_writes": SmallWritesFact(0.044, None, 15)}, LIMITED, "44 ms"),
    ("small writes", {"small_writes": SmallWritesFact(0.0006, None, 15)}, YES, "0.60 ms"),
    ("distance", {"distance": DistanceFact(0.1, 0.1)}, LIMITED, "100 ms"),
    ("largest message", {"size": SizeFact(1_000_000, 1_000_001, "refused", "packet too large")}, LIMITED, "refused"),
    ("largest message", {"size": SizeFact(1_000_000, 1_000_001, "cut", "reset")}, LIMITED, "ends the connection"),
    ("largest message", {"size": SizeFact(1_000_000, 1_000_001, "dropped")}, NO, "thrown away"),
    ("largest message", {"size": SizeFact(1_000_000)}, UNKNOWN, "1,000,000 bytes passed"),
    ("topic names", {"names": TopicNamesFact(("a dot",), (("a dot", "cut"),))}, LIMITED, "a dot: cut"),
    ("wills", {"will": WillFact(None)}, NO, "none came"),
    ("wills", {"will": WillFact(5.0)}, LIMITED, "late"),
    ("tells that nobody listens", {"nobody": 0}, NO, "no"),
    ("tells that nobody listens", {"nobody": None}, NO, "no"),
    ("shared subscriptions", {"shared": SharedFact(0x9E, 0, 0)}, NO, "refused"),
    ("shared subscriptions", {"shared": SharedFact(1, 10, 0)}, NO, "nothing is delivered"),
    ("shared subscriptions", {"shared": SharedFact(1, 10, 20)}, NO, "not one copy"),
]


@pytest.mark.parametrize(("name", "probes", "verdict", "said"), CASES)
def test_what_is_wrong_is_said(name: str, probes: dict[str, Any], verdict: CapabilityVerdict, said: str) -> None:
    found = finding(name, **probes)
    assert found.verdict is verdict
    assert said in f"{found.value} {found.measured}"
    if verdict is not YES:
        assert found.consequence, "each finding that is not yes says what follows from it"


def test_each_rule_can_say_yes_and_something_else() -> None:
    """Without this a capability that is always `yes` would stand in the table."""
    others = {name for name, _, verdict, _ in CASES if verdict is not YES}
    by_announcement = {"MQTT 5", "MQTT 3.1.1", "QoS 1", "messages under way", "topic aliases", "sessions kept"}
    assert others | by_announcement == {each.name for each in judge(facts_with()).findings}


@pytest.mark.parametrize(
    ("name", "announced", "verdict", "setting"),
    [
        ("QoS 1", BrokerLimits(max_qos=0), NO, "max_qos 2"),
        ("messages under way", BrokerLimits(receive_maximum=20), LIMITED, "max_inflight_messages 1000"),
        ("messages under way", BrokerLimits(), YES, None),
        ("topic aliases", BrokerLimits(), NO, None),
        ("sessions kept", BrokerLimits(session_expiry_s=60), LIMITED, None),
    ],
)
def test_what_is_announced(name: str, announced: BrokerLimits, verdict: CapabilityVerdict, setting: str | None) -> None:
    found = finding(name, announced)
    assert found.verdict is verdict
    assert found.settings == (() if setting is None else (setting,))


def test_an_announced_limit_is_no_fault_of_the_search() -> None:
    found = finding("largest message", BrokerLimits(max_packet_bytes=1 << 20), size=SizeFact((1 << 20) - 512))
    assert found.verdict is LIMITED
    assert found.value == "1 MiB, announced"


@pytest.mark.parametrize("name", list(GOOD))
def test_a_probe_that_cost_the_connection_and_one_without_time(name: str) -> None:
    """The first is a finding, the second is none: what was not tried is not said to be missing."""
    cut = judge(facts_with(**{name: NotSeen("reset by peer", cut=True)}))
    late = judge(facts_with(**{name: NotSeen("no time was left")}))
    changed = [each for each in cut.findings if each.verdict is not YES]
    assert changed
    assert all(each.verdict is NO and "reset by peer" in each.measured for each in changed)
    assert all(each.verdict is UNKNOWN for each in late.findings if each.verdict is not YES)
    assert [each for each in late.findings if each.verdict is UNKNOWN]


def test_over_311_what_needs_5_is_missing() -> None:
    facts = ProbeFacts("mqtt://h", entries=(EntryFact("5", "unsupported protocol version"), ENTRIES[1]), probes=GOOD)
    found = judge(facts)
    assert found.entered
    for name in ("MQTT 5", "properties", "message expiry"):
        assert found.finding(name).verdict is NO
        assert found.finding(name).instead, f"{name}: Ether has something instead"
    assert found.finding("messages under way").verdict is YES


def test_nobody_answers() -> None:
    found = judge(ProbeFacts("mqtt://h", "Connection refused"))
    assert not found.entered
    assert not found.carries_a_session
    assert "Connection refused" in found.findings[0].measured


def test_the_broker_wants_a_user() -> None:
    refused = tuple(EntryFact(version, "not authorized", credentials=True) for version in ("5", "3.1.1"))
    found = judge(ProbeFacts("mqtt://h", entries=refused))
    assert not found.entered
    assert "user:password@" in found.findings[0].advice


def test_what_could_not_be_cleared_is_named() -> None:
    found = judge(replace(facts_with(), probes=GOOD | {"left behind": ("ether/1/doctor-1/state/retained",)}))
    assert "ether/1/doctor-1/state/retained" in found.finding("left behind").measured


@given(limit=st.integers(0, 2 * LARGEST), largest=st.integers(1 << 12, LARGEST))
def test_the_size_search_ends_and_is_right(limit: int, largest: int) -> None:
    search, attempts = SizeSearch(largest=largest), 0
    while (size := search.next_size) is not None:
        assert 1 <= size <= largest
        search = search.after(size, passed=size <= limit)
        attempts += 1
    assert attempts <= 24
    assert search.passed <= limit
    if search.failed is None:
        assert search.passed == largest
    else:
        assert limit < search.failed
        assert search.failed - search.passed <= max(1, search.failed // 16)
