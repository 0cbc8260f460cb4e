"""Marks below `@property`, and marks that another decorator has hidden."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import pytest

from ether import ether, ether_get, ether_pub, ether_sub
from ether.errors import MarkError
from ether.testing import Lab


class Oven:
    def __init__(self) -> None:
        self._target = 20.0

    @property
    @ether_get
    def temperature(self) -> float:
        """In degrees."""
        return self._target + 0.5

    @property
    @ether_get
    @ether_pub(topic="target")
    def target(self) -> float:
        return self._target

    @target.setter
    @ether_get
    @ether_sub(topic="set")
    def target(self, value: float) -> None:
        self._target = value

    @property
    def secret(self) -> float:
        raise AssertionError("nobody reads it")


def test_a_marked_property_is_read_set_published_and_heard() -> None:
    oven = Oven()
    with Lab(objects={"oven": oven}) as lab:
        instance = ether.instance("oven")
        assert instance.temperature() == 20.5
        assert instance.target() == 20.0
        lab.settle()
        assert lab.values("target") == [20.0]
        instance.set_target(30)
        assert oven.target == 30.0
        lab.pub("40", topic="set")
        assert (oven.target, instance.target()) == (40.0, 40.0)


def test_a_mark_above_property_says_where_it_belongs() -> None:
    with pytest.raises(MarkError, match="put it below @property, above its def"):

        class Wrong:
            @ether_get
            @property
            def x(self) -> int:
                return 1


def timed(function: Callable[..., Any]) -> Callable[..., Any]:
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


class Hidden:
    @timed
    @ether_get
    def lost(self) -> int:
        return 1

    @functools.cached_property
    @ether_get
    def cached(self) -> int:
        return 2

    @functools.cache  # noqa: B019
    @ether_get
    def kept(self) -> int:
        return 3

    @ether_get
    @timed
    def above(self) -> int:
        return 4

    @timed
    def unmarked(self) -> int:
        return 5


def test_marks_that_a_decorator_hides_are_said_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), Lab(objects={"h": Hidden()}):
        assert (ether.get("h", "kept"), ether.get("h", "above")) == (3, 4)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "Hidden.lost is marked ether_get (" in said[0]
    assert "a decorator above has hidden that: put @ether_get above it, or use functools.wraps in it" in said[0]
    assert "Hidden.cached is marked ether_get" in said[1]
