"""PH7: a handler of a wildcard topic is given its levels by name: `mqtt:plant/pump/{id}/state`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ether import ether_get, ether_pub, ether_sub
from ether.config.topic_parts import parse_topic, parts_of
from ether.errors import ConfigError, MarkError, ValidationFailed
from ether.testing import Lab


@pytest.mark.parametrize(
    ("topic", "wide", "places"),
    [
        ("plant/pump/{id}/state", "plant/pump/+/state", (("id", 2),)),
        ("mqtt:plant/{hall}/{id}", "mqtt:plant/+/+", (("hall", 1), ("id", 2))),
        ("{a}/x/#", "+/x/#", (("a", 0),)), ("mqtt:{site}/x", "mqtt:+/x", (("site", 0),)),
        ("plain", "plain", ()), ("odd{", "odd{", ()), ("a/{}", "a/{}", ()), ("a/{1}", "a/{1}", ()),
    ],
)  # fmt: skip
def test_the_filter_and_the_places(topic: str, wide: str, places: tuple[tuple[str, int], ...]) -> None:
    assert parse_topic(topic) == (wide, places)


@pytest.mark.parametrize("topic", ["pump{id}/x", "a/{id}x", "{id}/{id}"])
def test_what_is_no_level_is_refused(topic: str) -> None:
    with pytest.raises(ConfigError, match=r"\{id\}"):
        parse_topic(topic)
    with pytest.raises(MarkError, match=r"ether_sub: \{id\}"):
        ether_sub(topic=topic)


def test_what_stands_there() -> None:
    assert parts_of((("hall", 1), ("id", 2)), "mqtt:plant/east/7") == {"hall": "east", "id": "7"}


class Plant:
    def __init__(self) -> None:
        self.got: list[Any] = []

    @ether_sub(topic="mqtt:plant/pump/{id}/state")
    @ether_sub(topic="pump/{id}/{what}")
    def state(self, id: int, value: float = 0.0, what: str = "state") -> None:
        self.got.append((id, value, what))

    @ether_sub(topic="named/{rest}")
    def rest(self, **rest: object) -> None:
        self.got.append(rest)

    @ether_get
    @ether_sub(topic="asked/{id}")
    @ether_pub(topic="answer")
    def ask(self, id: int, root: float) -> float:
        self.got.append((id, root))
        return root


@pytest.fixture
def plant() -> Iterator[tuple[Lab, Plant]]:
    plant = Plant()
    with Lab(objects={"plant": plant}) as lab:
        yield lab, plant


def test_ph7_ten_equal_pumps_are_told_apart(plant: tuple[Lab, Plant]) -> None:
    lab, plc = plant
    for number in range(10):
        lab.pub(number / 2, topic=f"mqtt:plant/pump/{number}/state")
    assert plc.got == [(number, number / 2, "state") for number in range(10)]


def test_the_payload_goes_to_the_other_arguments(plant: tuple[Lab, Plant]) -> None:
    lab, plc = plant
    lab.pub({"value": 3, "id": 99}, topic="pump/7/speed")
    lab.pub(None, topic="pump/8/speed")
    lab.pub({"x": 1}, topic="named/y")
    lab.pub(4.5, topic="asked/3")
    assert plc.got == [(7, 3.0, "speed"), (8, 0.0, "speed"), {"x": 1, "rest": "y"}, (3, 4.5)]


def test_a_level_that_does_not_fit_its_hint_is_said(plant: tuple[Lab, Plant]) -> None:
    lab, _ = plant
    with pytest.raises(ValidationFailed, match=r"id: Input should be a valid integer.*given: 'left'"):
        lab.pub(1.0, topic="pump/left/speed")


def test_a_level_without_an_argument_is_said_at_the_start() -> None:
    class Wrong:
        @ether_sub(topic="pump/{idd}/state")
        def take(self, id: int) -> None: ...

    with pytest.raises(MarkError, match=r"Wrong\.take has the level \{idd\}, and no argument.*Did you mean 'id'"):
        Lab(objects={"wrong": Wrong()})


def test_from_the_registry() -> None:
    config = {
        "instances": {"one": {"class_path": "mistake_parts.Camera"}},
        "registry": {
            "mistake_parts.Camera": {"methods": {"snap": {"ether_sub": {"topic": "expose/{gain}"}}}},
        },
    }
    with Lab(config) as lab:
        lab.pub(0.5, topic="expose/4")
