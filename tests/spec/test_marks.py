"""Decorators only mark, and the registry overlays without touching the class."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from ether import (
    ether_cleanup,
    ether_get,
    ether_init,
    ether_pub,
    ether_save_all,
    ether_shutdown,
    ether_start,
    ether_sub,
)
from ether.errors import MarkError
from ether.spec.marks import Mark, MarkKind, mark_from_options, marks_of
from ether.spec.methods import describe


class Base:
    @ether_sub
    def bare(self, x: int) -> int:
        """Says what it does.

        And more.
        """
        return x + 1

    @ether_sub(topic="in")
    @ether_pub(topic="out", qos=0)
    def stage(self, x: int) -> int:
        return x * 2

    @ether_start()
    def begin(self) -> str:
        return "begun"

    @ether_pub()
    @staticmethod
    def fixed() -> int:
        return 7

    @ether_sub(topic="one")
    @ether_sub(topic="two")
    def several(self) -> None: ...


class Derived(Base):
    def begin(self) -> str:
        return "anew"

    @ether_pub
    async def later(self) -> int:
        return 1


ALL = [ether_pub, ether_sub, ether_start, ether_init, ether_save_all, ether_cleanup, ether_shutdown]


@pytest.mark.parametrize("decorator", ALL)
def test_a_decorator_returns_the_very_function(decorator: Any) -> None:
    def method(self: object, x: int, *, y: str = "z") -> int:
        """Doc."""
        return x

    before = (inspect.signature(method), method.__code__, method.__doc__)
    assert decorator(method) is method
    assert decorator()(method) is method
    assert (inspect.signature(method), method.__code__, method.__doc__) == before


def test_a_decorated_class_works_by_hand() -> None:
    base = Base()
    assert (base.bare(1), base.stage(4), base.begin(), base.fixed()) == (2, 8, "begun", 7)


def test_topics_default_to_class_and_method() -> None:
    spec = describe(Base)
    assert spec.methods[0].name == "bare"
    assert spec.methods[0].topics(MarkKind.SUB) == ("Base.bare",)


def test_start_is_a_subscription_to_the_topic_start() -> None:
    (mark,) = marks_of(Base.begin)
    assert mark == Mark(MarkKind.SUB, "start")


def test_marks_stack() -> None:
    assert marks_of(Base.stage) == (Mark(MarkKind.SUB, "in"), Mark(MarkKind.PUB, "out", 0))
    assert [mark.topic for mark in marks_of(Base.several)] == ["one", "two"]


def test_inherited_marks_count_and_a_new_definition_has_its_own() -> None:
    marked = {method.name: method for method in describe(Derived).methods}
    assert set(marked) == {"bare", "stage", "fixed", "several", "later"}
    assert marked["bare"].topics(MarkKind.SUB) == ("Derived.bare",)


def test_the_registry_adds_and_replaces_by_kind_and_leaves_the_class_alone() -> None:
    before = {name: marks_of(value) for name, value in vars(Base).items()}
    overlay = {"stage": (Mark(MarkKind.SUB, "elsewhere"),), "bare": (Mark(MarkKind.PUB, None),)}
    marked = {method.name: method for method in describe(Base, overlay).methods}
    assert marked["stage"].topics(MarkKind.SUB) == ("elsewhere",)
    assert marked["stage"].topics(MarkKind.PUB) == ("out",)
    assert marked["bare"].topics(MarkKind.PUB) == ("Base.bare",)
    assert {name: marks_of(value) for name, value in vars(Base).items()} == before


def test_the_registry_can_only_name_methods_that_exist() -> None:
    with pytest.raises(MarkError, match=r"no such method.*'stage'"):
        describe(Base, {"stge": (Mark(MarkKind.PUB),)})


@pytest.mark.parametrize("wrong", [Base, 3, property(lambda self: 1)])
def test_only_methods_can_be_marked(wrong: Any) -> None:
    with pytest.raises(MarkError):
        ether_pub(wrong)


def test_a_topic_is_given_by_its_name() -> None:
    with pytest.raises(MarkError, match="topic='data'"):
        ether_pub("data")  # type: ignore[call-overload]


def test_qos_2_does_not_exist() -> None:
    with pytest.raises(MarkError, match="qos"):
        ether_pub(qos=2)


@pytest.mark.parametrize("name", ["ether_pub", "ether_sub", "ether_init", "ether_save_all", "ether_cleanup"])
def test_every_decorator_can_be_given_in_the_registry(name: str) -> None:
    assert mark_from_options(name, {}).kind.value == name
    assert mark_from_options("ether_start", {}) == Mark(MarkKind.SUB, "start")


@pytest.mark.parametrize(("name", "options"), [("ether_publish", {}), ("ether_pub", {"topics": "x"})])
def test_an_unknown_entry_says_what_is_known(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(MarkError, match=r"ether_pub"):
        mark_from_options(name, options)


@pytest.mark.parametrize("takes", ["5m", "soon", "-1s", "", 5])
def test_takes_is_a_duration_with_its_unit(takes: object) -> None:
    with pytest.raises(MarkError, match=r"ether_get: takes: .*such as 0\.5s"):
        ether_get(takes=takes)  # type: ignore[call-overload]
