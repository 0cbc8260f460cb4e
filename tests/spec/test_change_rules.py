"""What counts as a change: `on: change` and the dead band."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from ether.config.change import parse_change
from ether.errors import ConfigError
from ether.spec.change_rules import has_changed, snapshot


@dataclass
class Point:
    x: float
    label: str = "a"


class Model(BaseModel):
    x: float


NAN, INF = math.nan, math.inf
BYTES = np.array([0, 255], np.uint8)
HOLES = np.array([1.0, NAN, INF, -INF])


@pytest.mark.parametrize(
    ("before", "now", "band", "changed"),
    [
        (1, 1, 0.0, False),
        (1, 1.0, 0.0, False),
        (1, True, 0.0, True),
        (1, 2, 0.0, True),
        (1.0, 1.5, 0.5, False),
        (1.0, 1.6, 0.5, True),
        (1.0, 0.4, 0.5, True),
        (NAN, NAN, 0.0, False),
        (NAN, 1.0, 5.0, True),
        (INF, INF, 0.5, False),
        (INF, -INF, 0.5, True),
        (None, None, 0.0, False),
        (None, 0, 9.0, True),
        ("on", "off", 9.0, True),
        ({"t": 1.0}, {"t": 1.4}, 0.5, False),
        ({"t": 1.0}, {"t": 1.0, "p": 2}, 0.5, True),
        ({"t": 1.0, "p": 1.0}, {"t": 1.4, "p": 1.0}, {"t": 0.5}, False),
        ({"t": 1.0, "p": 1.0}, {"t": 1.0, "p": 1.1}, {"t": 0.5}, True),
        ({"at": {"t": 1.0}}, {"at": {"t": 1.4}}, {"t": 0.5}, True),
        ({"at": {"t": 1.0}}, {"at": {"t": 1.4}}, {"at": 0.5}, False),
        ([1.0, 2.0], [1.2, 2.0], 0.5, False),
        ([1.0, 2.0], [1.2], 0.5, True),
        (Point(1.0), Point(1.2), 0.5, False),
        (Point(1.0), Point(1.2, "b"), 0.5, True),
        (Model(x=1.0), Model(x=2.0), 0.5, True),
        (BYTES, BYTES + np.uint8(1), 1.0, True),  # 255 + 1 wraps to 0: a change of 255, not of 1
        (BYTES, np.array([1, 254], np.uint8), 1.0, False),
        (BYTES, BYTES.astype(float), 1.0, True),
        (HOLES, HOLES + 0.1, 0.5, False),
        (HOLES, np.array([1.0, 0.0, INF, -INF]), 0.5, True),
        (np.float32(1.0), np.float32(1.2), 0.5, False),
        (np.array(["a"]), np.array(["b"]), 0.5, True),
        (np.zeros(2), [0.0, 0.0], 0.5, True),
    ],
)
def test_what_counts_as_a_change(before: Any, now: Any, band: Any, changed: bool) -> None:
    assert has_changed(snapshot(before), now, band) is changed


def test_a_value_that_is_changed_in_place_has_changed() -> None:
    state = {"valve": ["open"]}
    last = snapshot(state)
    state["valve"].append("leaking")
    assert has_changed(last, state, 0.0)


@given(st.lists(st.floats(allow_nan=False, width=32), min_size=1, max_size=50), st.floats(0, 1e6))
def test_a_reader_is_never_further_off_than_the_dead_band(values: list[float], band: float) -> None:
    last: Any = None
    for number, value in enumerate(values):
        if number == 0 or has_changed(last, value, band):
            last = snapshot(value)
        assert last == value or abs(value - last) <= band


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(width=32) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
)


@given(json_values)
def test_nothing_differs_from_itself(value: Any) -> None:
    assert not has_changed(snapshot(value), value, 0.0)


@pytest.mark.parametrize(
    ("on", "band", "problem"),
    [
        ("changes", None, "on: found 'changes'; expected change"),
        (None, -1, "dead_band: found -1; expected a number from 0"),
        ("change", NAN, "dead_band: found nan"),
        ("change", {}, "dead_band: found {}"),
        ("change", {"t": "x"}, "dead_band: found"),
        ("change", True, "dead_band: found True"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_rule(on: Any, band: Any, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_change(on, band)
    assert problem in str(caught.value)


def test_a_dead_band_alone_means_changes_only() -> None:
    assert parse_change(None, 0.5) == 0.5
    assert parse_change("change", None) == 0.0
    assert parse_change(None, None) is None
