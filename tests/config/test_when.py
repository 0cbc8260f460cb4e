"""What may stand after `every:`; what may not says what would."""

from __future__ import annotations

from datetime import datetime

import pytest

from ether.config import load_config
from ether.config.when import Cron, Once, Period, duration_s, parse_when
from ether.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("0.5s", 0.5), ("200 ms", 0.2), (".5min", 30), ("1h", 3600), ("2d", 172_800), ("10Hz", 0.1)],
)
def test_periods(text: str, seconds: float) -> None:
    assert parse_when(text) == Period(pytest.approx(seconds))


def test_cron_fields() -> None:
    cron = parse_when("*/20 8-17/3 1,15 jan-mar MON-fri")
    assert cron == Cron(
        frozenset({0, 20, 40}), frozenset({8, 11, 14, 17}), frozenset({1, 15}), frozenset({1, 2, 3}),
        frozenset({1, 2, 3, 4, 5}), True,
    )  # fmt: skip
    assert parse_when("0 0 * * 7") == parse_when("0 0 * * sun")
    assert parse_when("5/30 0 * * *").minutes == {5, 35}  # type: ignore[union-attr]


def test_points_in_time() -> None:
    assert parse_when("at 2026-01-16 07:30") == Once(datetime(2026, 1, 16, 7, 30))
    assert parse_when("at 2026-01-16T07:30:05+02:00").time.utcoffset() is not None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("5", "0.5s"), ("5m", "5min"), ("0s", "1 ms"), ("400d", "366 days"), ("0Hz", "10Hz"), ("-1s", "0.5s"),
        ("60 * * * *", "minute"), ("* 24 * * *", "hour"), ("* * 0 * *", "day of the month"), ("* * * abc *", "month"),
        ("* * * * 8", "weekday"), ("*/0 * * * *", "'\\*/0'"), ("5-1 * * * *", "'5-1'"), ("0 0 30 2 *", "no such day"),
        ("at noon", "at 2026-01-16 07:30"), ("* * *", "five fields"), (0.5, "found 0.5"), (None, "found None"),
        ("nans", "period"), ("infs", "period"),
    ],
)  # fmt: skip
def test_what_is_refused(text: object, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_when(text)


def test_durations_have_units() -> None:
    assert duration_s("2 s") == 2
    with pytest.raises(ConfigError, match="number and its unit"):
        duration_s(2)
    with pytest.raises(ConfigError, match="number and its unit"):
        duration_s("2Hz")


def test_in_the_configuration() -> None:
    def config(method: dict[str, object]) -> object:
        return load_config({"registry": {"a.B": {"methods": {"read": method}}}}).registry["a.B"].methods["read"]

    assert list(config({"ether_every": "5s"}).marks()) == [("ether_every", {"every": "5s"})]  # type: ignore[attr-defined]
    twice = config({"ether_every": ["5s", {"every": "0 3 * * *"}]})
    assert [use["every"] for _, use in twice.marks()] == ["5s", "0 3 * * *"]  # type: ignore[attr-defined]
    for wrong in ({"ether_every": 5}, {"ether_pub": {"every": 5}}, {"ether_every": "5m"}):
        with pytest.raises(ConfigError, match=r"expected a period such as 0\.5s"):
            config(wrong)
