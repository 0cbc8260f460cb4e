"""Alarms of values: raised, latched, acknowledged, shelved, cleared; each change is announced and published, and calls
the device where the registry says so."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from ether.config import load_config
from ether.errors import ConfigError, MarkError, PublishTimeout
from ether.instance.drivers import alarm_watch
from ether.spec.alarm_rules import AlarmSpec, AlarmState, Now
from ether.testing import Lab

OVEN = f"{__name__}.Oven"
ALARM = {"warn": 60, "alarm": 80, "latch": True, "dead_band": 2}
TOPIC = "alarm/oven/temperature"


class Oven:
    """Somebody else's driver. `told` is what reached the device."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.temperature: Any = 20.0

    def flow(self) -> Any:
        return self.temperature

    def pair(self) -> Any:
        return self.temperature, 1.0

    def power(self, watts: float) -> None:
        self.told.append(watts)
        if watts < 0:
            raise OSError("no answer")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(alarm_watch, "steady_time", clock)
    return clock


def lab(alarm: dict[str, Any] | None = None, on_alarm: Any = (), **more: Any) -> Lab:
    alarmed = {"alarm": ALARM if alarm is None else alarm, "on_alarm": on_alarm, "unit": "°C"}
    entry = {
        "properties": {"temperature": {"get": {"topic": "t", "every": "1s"}, **alarmed}},
        "methods": {"power": {"ether_get": {}, "arguments": {"watts": {"limits": [-1, 50]}}}},
    }
    return Lab({"instances": {"oven": {"class_path": OVEN}}, "registry": {OVEN: entry}}, **more)


def host(bench: Lab) -> Any:
    return bench._members["oven"].instance


def at(bench: Lab, value: object) -> str:
    """The state after a poll that measures this."""
    bench["oven"].temperature = value
    bench.advance(1.0)
    return str(announced(bench)["state"])


def announced(bench: Lab) -> dict[str, Any]:
    return dict(host(bench).about()["alarms"]["temperature"])


def do(bench: Lab, what: str, **more: Any) -> str:
    """Why it was not done, or the state after it."""
    answer = host(bench).perform("alarm", {"alarm": "temperature", "do": what, "by": "ada", **more})
    bench.settle()
    return "; ".join(answer.failed.values()) or str(announced(bench)["state"])


def events(bench: Lab) -> list[str]:
    return [event["state"] for event in bench.values(TOPIC)]


def test_raised_latched_acknowledged_and_cleared(clock: Clock) -> None:
    with lab() as bench:
        states = [at(bench, value) for value in (20, 61, 59, 57, 81, 79, 77, 57, 20)]
        assert states == ["ok", "warn", "warn", "ok", "alarm", "alarm", "latched", "latched", "latched"]
        assert do(bench, "acknowledge", note="door was open") == "ok"
        assert "nothing to acknowledge" in do(bench, "acknowledge")
        assert at(bench, 85) == "alarm"
        assert do(bench, "acknowledge") == "acknowledged"
        assert announced(bench)["acknowledged"]["by"] == "ada"
        assert "acknowledged already, by ada" in do(bench, "acknowledge")
        assert at(bench, 70) == "acknowledged"  # a warning still
        assert at(bench, 85) == "alarm"  # an alarm again, of which nobody knows
        assert do(bench, "acknowledge") == "acknowledged"
        assert at(bench, 20) == "ok"
        by_ada = [event for event in bench.values(TOPIC) if event.get("by")]
        assert [(e["did"], e["by"], e["was"], e["state"]) for e in by_ada] == [
            ("acknowledge", "ada", "latched", "ok"),
            ("acknowledge", "ada", "alarm", "acknowledged"),
            ("acknowledge", "ada", "alarm", "acknowledged"),
        ]
        assert by_ada[0]["note"] == "door was open"
        assert all(event["at"] > 1e9 for event in by_ada)
        first = bench.values(TOPIC)[0]
        assert (first["instance"], first["alarm"], first["value"], first["unit"]) == ("oven", "temperature", 61, "°C")
        assert first["warn_when"] == "above 60 °C"


def test_without_a_latch_it_clears_itself(clock: Clock) -> None:
    with lab({"alarm": [10, 80]}) as bench:
        assert [at(bench, value) for value in (20, 81, 20, 9.9, 10)] == ["ok", "alarm", "ok", "alarm", "ok"]
        assert events(bench) == ["alarm", "ok", "alarm", "ok"]


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf, "E1", True])
def test_what_is_no_number_is_an_alarm(broken: object, clock: Clock) -> None:
    with lab({"alarm": 80}) as bench:
        assert at(bench, broken) == "alarm"
        assert "is no number" in bench.values(TOPIC)[-1]["why"]
        assert at(bench, 20) == "ok"


def test_shelved_for_a_time(clock: Clock) -> None:
    with lab(on_alarm={"call": "power", "args": [0]}) as bench:
        assert "more than 0" in do(bench, "shelve", for_s=0)
        assert "more than 0" in do(bench, "shelve", for_s="10m")
        assert do(bench, "shelve", for_s=600, note="service") == "shelved"
        assert announced(bench)["shelved"]["until"] == pytest.approx(announced(bench)["shelved"]["at"] + 600)
        assert at(bench, 90) == "shelved"
        assert announced(bench)["level"] == "alarm"
        assert bench["oven"].told == []
        clock.now += 599
        host(bench).alarms.look_at_time()
        assert announced(bench)["state"] == "shelved"
        assert not host(bench).alarms.is_due
        clock.now += 2
        assert host(bench).alarms.is_due
        host(bench).alarms.look_at_time()
        bench.settle()
        assert announced(bench)["state"] == "alarm"
        assert bench["oven"].told == [0]  # what was kept from it is called now
        assert bench.values(TOPIC)[-1]["why"] == "its time on the shelf is over"
        assert do(bench, "shelve", for_s=5) == "shelved"
        assert do(bench, "unshelve") == "alarm"
        assert "it is not shelved" in do(bench, "unshelve")
        assert [e["by"] for e in bench.values(TOPIC) if e.get("did") == "shelve"] == ["ada", "ada"]


def test_on_alarm_is_called_once_for_each_alarm(clock: Clock) -> None:
    with lab(on_alarm=[{"call": "power", "args": [0]}, {"call": "power", "kwargs": {"watts": 1}}]) as bench:
        assert at(bench, 85) == "alarm"
        assert at(bench, 86) == "alarm"
        assert bench["oven"].told == [0, 1]
        assert at(bench, 20) == "latched"
        assert at(bench, 85) == "alarm"
        assert bench["oven"].told == [0, 1, 0, 1]


def test_a_call_that_fails_is_reported_and_the_others_are_made(clock: Clock) -> None:
    calls = [{"call": "power", "args": [-1]}, {"call": "power", "args": [0]}]
    with lab(on_alarm=calls, collect_failures=True) as bench:
        at(bench, 85)
        assert bench["oven"].told == [-1, 0]
        assert isinstance(bench.failures[0], OSError)
        assert announced(bench)["state"] == "alarm"


@pytest.mark.parametrize("by", ["a value", "an answer"])
def test_a_shelf_that_runs_out_calls_whoever_finds_it(by: str, clock: Clock) -> None:
    with lab(on_alarm={"call": "power", "args": [0]}) as bench:
        assert do(bench, "shelve", for_s=60) == "shelved"
        assert at(bench, 90) == "shelved"
        clock.now += 61
        if by == "a value":
            assert at(bench, 91) == "alarm"
        else:
            assert do(bench, "acknowledge") == "acknowledged"
        bench.settle()
        assert bench["oven"].told == [0]


def test_a_value_that_cannot_be_published_is_looked_at(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with lab(on_alarm={"call": "power", "args": [0]}, collect_failures=True) as bench:

        def full(*_: object, **__: object) -> None:
            raise PublishTimeout("t", 1.0, "the queue is full")

        monkeypatch.setattr(host(bench), "_publish_on", full)
        assert at(bench, 90) == "alarm"
        assert bench["oven"].told == [0]
        assert isinstance(bench.failures[0], PublishTimeout)


def test_a_quantity_is_looked_at_in_the_unit_of_the_limits(clock: Clock) -> None:
    pint = pytest.importorskip("pint", reason="pint is not installed: pip install 'ether-medium[units]'")
    with lab({"alarm": 80}, collect_failures=True) as bench:
        oven = host(bench)
        oven.alarms.look("temperature", pint.Quantity(350, "K"))
        assert (announced(bench)["state"], announced(bench)["value"]) == ("ok", pytest.approx(76.85))
        oven.alarms.look("temperature", [pint.Quantity(300, "K"), pint.Quantity(354, "K")])
        assert announced(bench)["state"] == "alarm"
        oven.alarms.look("temperature", 20)
        oven.alarms.look("temperature", pint.Quantity(3, "V"))
        assert announced(bench)["state"] == "alarm"


def test_an_empty_list_does_not_look_well(clock: Clock) -> None:
    with lab({"alarm": 80}) as bench:
        assert at(bench, [20, 90]) == "alarm"
        assert at(bench, []) == "alarm"
        assert at(bench, [20]) == "ok"
        assert at(bench, []) == "alarm"


def test_of_several_numbers_the_worst_is_told(clock: Clock) -> None:
    with lab({"warn": [10, None], "alarm": [5, 80], "dead_band": 1}) as bench:
        for values, state, told in (
            ([4, 50], "alarm", 4), ([5.5, 50], "alarm", 5.5), ([50, 81], "alarm", 81), ([9, 50], "warn", 9),
            ([20, 50], "ok", 50),
        ):  # fmt: skip
            assert (at(bench, values), announced(bench)["value"]) == (state, told)


@pytest.mark.parametrize(
    ("call", "why"),
    [("powr", "no method 'powr'. Did you mean 'power'"), ({"call": "power", "args": [51]}, "from -1 to 50")],
)
def test_a_wrong_call_keeps_the_instance_from_starting(call: object, why: str) -> None:
    with pytest.raises(MarkError, match=why):
        lab(on_alarm=call)


def test_methods_polls_and_lists_have_alarms_too(clock: Clock) -> None:
    entry = {
        "methods": {
            "flow": {"ether_get": {}, "alarm": {"alarm": [1, None]}},
            "pair": {"ether_pub": {"every": "1s", "topic": "pair"}, "alarm": {"warn": 5}, "result": "value"},
        }
    }
    config = {"instances": {"oven": {"class_path": OVEN}}, "registry": {OVEN: entry}}
    with Lab(config) as bench:
        from ether import ether

        bench["oven"].temperature = 0.5
        ether.get("oven", "flow")
        bench["oven"].temperature = 7
        bench.advance(1.0)
        alarms = host(bench).about()["alarms"]
        assert {name: alarm["state"] for name, alarm in alarms.items()} == {"flow": "alarm", "pair": "warn"}
        assert alarms["flow"]["alarm_when"] == "below 1"
        assert bench.values("alarm/oven/flow")[0]["state"] == "alarm"


def test_a_value_that_jumps_is_published_each_time_and_announced_a_few_times(clock: Clock) -> None:
    with lab({"alarm": 80}) as bench:
        shown = []
        host(bench).alarms._announce = lambda: shown.append(1)
        for number in range(100):
            clock.now += 0.01
            host(bench).alarms.look("temperature", 81 if number % 2 else 79)
        bench.settle()
        assert len(bench.values(TOPIC)) == 99
        assert 2 <= len(shown) <= 6


def test_what_is_below_a_shelf_goes_on() -> None:
    now = Now(0.0, 1e9)
    state = AlarmState(AlarmSpec("t", alarm=(None, 80), latch=True), now)
    state.shelve("ada", 60, "", now)
    state.look([90.0], 90.0, now)
    state.look([20.0], 20.0, now)
    assert (state.state, state.level) == ("shelved", "ok")
    assert state.acknowledge("ada", "", now) == ""
    assert state.unshelve(now) == ""
    assert state.state == "ok"


@pytest.mark.parametrize(
    ("inner", "why"),
    [
        ("{alarm: {warn: 80, alarm: 60}}", "warn comes before alarm"),
        ("{alarm: {latch: true}}", "has neither warn nor alarm"),
        ("{alarm: {warn: hot}}", "found 'hot'; expected the highest value that is well"),
        ("{alarm: {alarm: [80, 10]}}", "the first is higher than the second"),
        ("{alarm: {alarm: .nan}}", "expected the highest value"),
        ("{alarm: {alarm: 80, latch: 1}}", "latch"),
        ("{alarm: {alarm: 80, dead_band: -1}}", "expected a number from 0"),
        ("{alarm: {warn: 60}, on_alarm: {call: power}}", "has on_alarm, and lacks the alarm:"),
        ("{on_alarm: {call: power}}", "has on_alarm, and lacks the alarm:"),
        ("{set: true, get: false, alarm: {warn: 60}}", "get: false"),
        ("{alarm: {wran: 60}}", "warn"),
    ],
)
def test_bad_yaml_is_refused_with_file_and_line(tmp_path: Path, inner: str, why: str) -> None:
    file = tmp_path / "lab.yaml"
    lines = ["registry:", f"  {OVEN}:", "    properties:", f"      temperature: {inner}"]
    file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert f"{file}:4" in str(caught.value)
    assert why in str(caught.value)
