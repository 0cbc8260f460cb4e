"""What a query asks of values and of times."""

from __future__ import annotations

import datetime
import time

import numpy as np
import pytest

from ether.errors import QueryMistake
from ether.reading.filter_rules import Where, moment_of, predicate_of

VALUE = {"celsius": 21.5, "unit": "C", "stage": {"x": 3, "y.z": 4}, "a.b": 5, "tags": ["hot", "dry"]}


@pytest.mark.parametrize(
    "where",
    [
        "celsius > 21",
        "celsius>=21.5",
        "celsius=21.5",
        "unit == C",
        'unit == "C"',
        "unit != K",
        "stage.x < 4",
        "stage.y.z == 4",
        "a.b == 5",
        "tags contains hot",
        'unit in ["C", "K"]',
        {"celsius": 21.5, "unit": "C"},
        {"celsius": (">", 21), "stage.x": 3},
        ("celsius", "<", 22),
        [("celsius", "<", 22), "unit == C"],
        ["celsius > 21", {"unit": "C"}],
        lambda value: value["stage"]["x"] == 3,
    ],
)
def test_conditions_that_hold(where: Where) -> None:
    predicate = predicate_of(where)
    assert predicate is not None
    assert predicate(VALUE)


@pytest.mark.parametrize(
    "where",
    [
        "celsius > 22",
        "unit > 3",  # a text is neither more nor less than a number
        "celsius > C",
        "nothing == 1",
        "stage.q == 1",
        "stage.x.y == 1",
        "value == 1",
        {"celsius": 21.5, "unit": "K"},
        [("celsius", "<", 22), "unit == K"],
        "celsius == '21.5'",
    ],
)
def test_conditions_that_do_not_hold(where: Where) -> None:
    predicate = predicate_of(where)
    assert predicate is not None
    assert not predicate(VALUE)


def test_a_value_that_is_no_mapping_is_called_value() -> None:
    predicate = predicate_of("value >= 3")
    assert predicate is not None
    assert [predicate(value) for value in (3, 2.5, "3", None, [3])] == [True, False, False, False, False]
    assert predicate_of(None) is None


@pytest.mark.parametrize("where", ["celsius", "> 3", "", 5, ("celsius", "~", 3), [5], {5: 3}, object()])
def test_mistakes_say_what_would_be_right(where: Where) -> None:
    with pytest.raises(QueryMistake, match="celsius > 21"):
        predicate_of(where)


def test_an_array_is_compared_by_a_function() -> None:
    predicate = predicate_of("image > 3")
    assert predicate is not None
    with pytest.raises(QueryMistake, match=r"image.*array.*lambda"):
        predicate({"image": np.zeros(3)})


def test_nothing_is_evaluated() -> None:
    predicate = predicate_of("x == __import__('os').getpid()")
    assert predicate is not None
    assert predicate({"x": "__import__('os').getpid()"})


def test_moments() -> None:
    now = 1_700_000_000.0
    assert moment_of(None, now, "since") is None
    assert moment_of(5, now, "since") == 5.0
    for text, seconds in {"-10 min": 600, "-10min": 600, "-2h": 7200, "-1.5 hours": 5400, "-3 days": 259_200}.items():
        assert moment_of(text, now, "since") == now - seconds
    utc = datetime.datetime(2025, 1, 16, 11, 28, tzinfo=datetime.UTC)
    assert moment_of(utc, now, "since") == utc.timestamp()
    assert moment_of("2025-01-16T11:28:00Z", now, "since") == utc.timestamp()
    local = time.mktime((2025, 1, 16, 11, 28, 0, 0, 0, -1))
    assert moment_of("2025-01-16 11:28", now, "since") == local
    assert moment_of("1700000000.5", now, "since") == 1_700_000_000.5


@pytest.mark.parametrize("moment", ["soon", "-10 parsecs", "", float("nan"), "nan", True, "2025-13-01"])
def test_moments_that_cannot_be_understood(moment: str) -> None:
    with pytest.raises(QueryMistake, match=r"since=.*-10 min"):
        moment_of(moment, 0.0, "since")
