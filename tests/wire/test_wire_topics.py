"""Names, topics and ids."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ether.config.names import check_name
from ether.errors import DecodeError, InvalidName
from ether.wire import (
    MessageIds,
    SessionTopics,
    check_instance_name,
    check_session_name,
    check_topic,
    check_topic_filter,
    matches,
    unix_ms_of,
)

TOPICS = SessionTopics("bench")


@pytest.mark.parametrize("name", ["a", "camera 1", "Größe-2.b_c", "x" * 64, "光学"])
def test_good_names(name: str) -> None:
    assert check_instance_name(name) == name
    assert check_session_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "x" * 65, "a+b", "#", "a/b", "$a", "a\0", "a\n", "a\x7f", " a", "a ", "\ud800", "a\u200b", "\ufeff"]
)
def test_bad_names_are_refused_with_the_rule(name: str) -> None:
    with pytest.raises(InvalidName, match="1 to 64 printable characters"):
        check_instance_name(name)
    with pytest.raises(InvalidName, match="session"):
        check_session_name(name)


@pytest.mark.parametrize("name", ["a", "a b", " a", "a+", "a/b", "$", "\u200b", "x" * 64, "x" * 65, "", "é"])
def test_the_configuration_has_the_same_rule(name: str) -> None:
    def accepted(check: Callable[[], object]) -> bool:
        try:
            check()
        except InvalidName:
            return False
        return True

    assert accepted(lambda: check_name("instance", name)) == accepted(lambda: check_instance_name(name))


@pytest.mark.parametrize(
    "topic", ["a", "a/b c/d", "Class.method", "é" * 512, "mqtt:/a//b/", "mqtt: a", "mqtt:ether/1/other/data/x", "a/$b"]
)
def test_good_topics(topic: str) -> None:
    assert check_topic(topic) == topic
    assert check_topic_filter(topic) == topic
    assert TOPICS.user_topic(TOPICS.data(topic)) == topic


@pytest.mark.parametrize(
    ("topic", "rule"),
    [
        ("", "at least one character"),
        ("mqtt:", "at least one character"),
        ("a\0b", "control character"),
        ("mqtt:a\x85", "control character"),
        ("a\ud800", "control character"),
        ("mqtt:a\uffff", "control character"),
        ("/a", "no level may be empty"),
        ("a//b", "no level may be empty"),
        ("a/", "no level may be empty"),
        (" a", "no space"),
        ("$SYS/x", r"mqtt:\$SYS"),
        ("é" * 513, "1,024 bytes"),
        ("mqtt:" + "x" * 65_536, "65,535 bytes"),
        ("/".join("a" * 65), "64 levels"),
        ("mqtt:" + "/" * 200, "200 levels"),
    ],
)
def test_bad_topics_are_refused_with_the_rule(topic: str, rule: str) -> None:
    with pytest.raises(InvalidName, match=rule):
        check_topic(topic)
    with pytest.raises(InvalidName, match=rule):
        check_topic_filter(topic)


@pytest.mark.parametrize(
    "topic", ["a/+", "#", "a+", "mqtt:#", "mqtt:$SYS/x", "mqtt:ether/1/bench/state/x", "mqtt:ether/1"]
)
def test_topics_that_nobody_may_publish_on(topic: str) -> None:
    with pytest.raises(InvalidName):
        check_topic(topic)


@pytest.mark.parametrize("topic_filter", ["+", "#", "a/+/c", "a/#", "mqtt:#", "mqtt:$SYS/#", "mqtt:+//#"])
def test_good_filters(topic_filter: str) -> None:
    assert check_topic_filter(topic_filter) == topic_filter


@pytest.mark.parametrize("topic_filter", ["a+", "a/#/b", "##", "a/b#", "+a/b", "mqtt:$share/g/t"])
def test_bad_filters(topic_filter: str) -> None:
    with pytest.raises(InvalidName, match="topic filter"):
        check_topic_filter(topic_filter)


def test_the_topics_of_a_session() -> None:
    assert TOPICS.session_info == "ether/1/bench/session"
    assert TOPICS.state("camera1") == "ether/1/bench/state/camera1"
    assert TOPICS.data("a/b") == "ether/1/bench/data/a/b"
    assert TOPICS.data("mqtt:plant/temp") == "plant/temp"
    assert TOPICS.data_filter("a/#") == "ether/1/bench/data/a/#"
    assert TOPICS.call("camera1", "snap") == "ether/1/bench/call/camera1/snap"
    assert TOPICS.reply("me") == "ether/1/bench/reply/me"
    assert TOPICS.log("camera1") == "ether/1/bench/log/camera1"
    assert TOPICS.control("shutdown") == "ether/1/bench/control/shutdown"
    assert SessionTopics("bench") == TOPICS
    with pytest.raises(InvalidName):
        SessionTopics("a/b")


def test_the_ways_back_from_mqtt_topics() -> None:
    assert TOPICS.user_topic("ether/1/bench/data/a/b") == "a/b"
    assert TOPICS.user_topic("ether/1/other/data/a") == "mqtt:ether/1/other/data/a"
    assert TOPICS.instance_of_state("ether/1/bench/state/camera1") == "camera1"
    for other in ("ether/1/bench/state/", "ether/1/bench/state/a/b", "ether/1/other/state/a", "a"):
        assert TOPICS.instance_of_state(other) is None


@pytest.mark.parametrize(
    ("topic_filter", "topic", "covered"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/c", False),
        ("a/b", "a/b/c", False),
        ("+", "a", True),
        ("+", "a/b", False),
        ("+/+", "/a", True),
        ("/+", "/a", True),
        ("+", "/a", False),
        ("a/+", "a/", True),
        ("a/+", "a", False),
        ("#", "a/b/c", True),
        ("#", "/", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/#", "ab", False),
        ("a/+/#", "a", False),
        ("a/+/#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("$SYS/+", "$SYS/x", True),
        ("a/#", "a/$b", True),
    ],
)
def test_filters_match_as_mqtt_says(topic_filter: str, topic: str, covered: bool) -> None:
    assert matches(topic_filter, topic) is covered


def test_ids_are_uuids_of_version_7() -> None:
    ids = MessageIds(0xABCDEF012345)
    first, second = ids.next(0x0123456789AB), ids.next(0x0123456789AB)
    assert first == "01234567-89ab-7000-8000-abcdef012345"
    assert second == "01234567-89ab-7000-8001-abcdef012345"
    assert unix_ms_of(first) == 0x0123456789AB


def test_ids_grow_when_the_clock_is_set_back() -> None:
    ids = MessageIds(1)
    made = [ids.next(ms) for ms in (5000, 5000, 4000, 1, 5001, 6000, 5999)]
    assert made == sorted(set(made))


def test_ids_grow_past_the_end_of_the_counter() -> None:
    ids = MessageIds(1)
    for _ in range((1 << 14) + 2):  # the first of the counter's two pieces overflows
        last = ids.next(7)
    assert last == "00000000-0007-7001-8001-000000000001"
    ids._numbers = iter(range((1 << 26) - 1, 1 << 27))  # type: ignore[assignment]
    before, after = ids.next(7), ids.next(7)
    assert before < after
    assert (unix_ms_of(before), unix_ms_of(after)) == (7, 8)


@pytest.mark.parametrize(
    "text", ["", "x" * 36, "01234567-89ab-4000-8000-abcdef012345", "0123456789ab70008000abcdef0123450000"]
)
def test_what_is_no_message_id(text: str) -> None:
    with pytest.raises(DecodeError, match="not a message id"):
        unix_ms_of(text)
