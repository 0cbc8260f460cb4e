"""Which topics are taken for misspelt, and which are names of their own."""

from __future__ import annotations

import pytest

from ether.protocol.presence import Announcement, State
from ether.protocol.topic_typo_rules import (
    TopicUse,
    near_heard,
    near_published,
    slips_between,
    topic_typos,
    topics_of,
    uses_of,
)


def pub(member: str, *topics: str) -> list[TopicUse]:
    return [TopicUse(member, "", topic) for topic in topics]


sub = pub


@pytest.mark.parametrize(
    ("heard", "published"),
    [
        ("temprature", "temperature"), ("imgae", "image"), ("Image", "image"), ("images", "image"),
        ("plant/pmup/+", "plant/pump/flow"), ("plant-temp", "plant_temp"), ("camera1/imge", "camera1/image"),
        ("plant/pupm/#", "plant/pump/1/state"), ("tempreture_value", "temperature_value"), ("flaw", "flow"),
    ],
)  # fmt: skip
def test_two_topics_that_lack_each_other_and_are_nearly_the_same(heard: str, published: str) -> None:
    (typo,) = topic_typos(pub("source", published), sub("sink", heard))
    assert str(typo) == (
        f"sink hears {heard!r}, which nobody publishes. Did you mean {published!r}? source publishes it."
    )


@pytest.mark.parametrize(
    ("heard", "published"),
    [
        ("cam1/image", "cam2/image"), ("axis_x", "axis_y"), ("camA", "camB"), ("temp1", "temp12"), ("in", "on"),
        ("min", "max"), ("left", "right"), ("start", "stop"), ("input", "output"), ("plant/a", "plant"),
        ("mqtt:plant/pmup", "mqtt:plant/pump"), ("temperature", "pressure"), ("raw/image", "image"), ("+", "a/b"),
        ("Camera.image", "Laser.image"), ("start", "strat/x"), ("x", "y"), ("réponse1", "réponse2"), ("温度", "湿度"),
    ],
)  # fmt: skip
def test_names_of_their_own(heard: str, published: str) -> None:
    assert topic_typos(pub("source", published), sub("sink", heard)) == []


@pytest.mark.parametrize(
    ("one", "other"), [("flow", "slow"), ("state", "stage"), ("image", "images"), ("dose", "nose")]
)
def test_short_words_and_plurals_are_names_where_one_side_has_its_partner(one: str, other: str) -> None:
    assert topic_typos(pub("source", one), [*sub("log", one), *sub("sink", other)]) == []
    assert topic_typos([*pub("source", one), *pub("two", other)], sub("log", one)) == []


def test_a_slip_beside_a_topic_that_works() -> None:
    heard = [*sub("log", "temperature"), *sub("sink", "temprature")]
    (typo,) = topic_typos(pub("source", "temperature"), heard)
    assert (typo.topic, typo.nearest, typo.hears) == ("temprature", "temperature", True)
    (typo,) = topic_typos([*pub("one", "temperature"), *pub("two", "temprature")], sub("log", "temperature"))
    assert str(typo) == "two publishes 'temprature', which nobody hears. Did you mean 'temperature'? log hears it."


def test_who_uses_both_spellings_knows_both() -> None:
    assert topic_typos(pub("source", "temperature"), sub("sink", "temperature", "temprature")) == []
    assert topic_typos(pub("source", "temperature", "temprature"), sub("sink", "temperature")) == []
    assert topic_typos(pub("both", "temperature"), sub("both", "temprature")) == []


def test_the_start_is_published_by_programs() -> None:
    assert topic_typos([], sub("sink", "start")) == []
    (typo,) = topic_typos([], sub("sink", "strat"))
    assert str(typo) == (
        "sink hears 'strat', which nobody publishes. Did you mean 'start'? ether.start() publishes it."
    )


@pytest.mark.parametrize(
    ("heard", "published"),
    [
        ("image", "Camera.image"),
        ("cam.image", "Camera.image"),
        ("cam/image", "Camera.image"),
        ("Camera.image", "image"),
    ],
)
def test_a_default_topic_is_the_class_and_the_method(heard: str, published: str) -> None:
    (typo,) = topic_typos(pub("cam", published), sub("sink", heard))
    assert typo.nearest == published
    assert topic_typos(pub("cam", published), [*sub("sink", heard), *sub("other", published)]) == []


def test_many_users_are_one_line() -> None:
    heard = [use for number in range(40) for use in sub(f"sink{number}", "temprature")]
    (typo,) = topic_typos(pub("source", "temperature"), heard)
    assert str(typo).startswith("sink0, sink1, sink2 and 37 more hear 'temprature'")


def test_one_more_publisher_and_one_more_listener() -> None:
    published, heard = pub("source", "temperature"), sub("sink", "image")
    typo = near_heard("imgae", heard, published)
    assert str(typo) == "nobody hears 'imgae'. Did you mean 'image'? sink hears it."
    assert near_heard("image", heard, published) is None
    assert near_heard("dose", heard, published) is None
    assert near_heard("mqtt:imgae", heard, published) is None
    typo = near_published("temprature", published, heard)
    assert str(typo) == "nobody publishes 'temprature'. Did you mean 'temperature'? source publishes it."
    assert near_published("temp+", []) is None
    assert near_published("#", published) is None


def test_announcements_of_anybody_are_read() -> None:
    methods = {
        "measure": {"publishes": ["temperature", 7], "subscribes": "x"}, "odd": 3,
        "again": {"publishes": ["temperature"]},
    }  # fmt: skip
    member = Announcement("source", State.READY, "1", about={"class": "Source", "methods": methods})
    assert list(topics_of(member, "publishes")) == ["temperature"]
    assert uses_of([member], "publishes")[0] == TopicUse("source", "Source.measure", "temperature")
    (typo,) = topic_typos(uses_of([member], "publishes"), [TopicUse("sink", "Sink.take", "temprature")])
    assert str(typo).endswith("source publishes it (Sink.take, Source.measure, Source.again).")
    assert typo.concerns(["sink"])
    assert not typo.concerns(["log"])


@pytest.mark.parametrize(
    ("x", "y", "slips"),
    [("abcdef", "abcdef", None), ("abcdef", "abdcef", 1), ("abcdefgh", "badcefgh", 2), ("abcdefgh", "hgfedcba", None)],
)
def test_slips(x: str, y: str, slips: int | None) -> None:
    assert slips_between(x, y, strict=True) == slips
