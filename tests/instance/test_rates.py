"""How fast a setpoint may change: at most an amount within a time, checked where the device is; nothing beyond it
reaches the driver."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ether.config import load_config
from ether.config.rates import parse_rate
from ether.errors import ConfigError, ValidationFailed
from ether.instance.drivers import rate_guard
from ether.spec.rate_rules import ChangeRange
from ether.spec.wrapping import Alive, PlannedCall
from ether.testing import Lab

OVEN = f"{__name__}.Oven"
SAFE = {"after": "60s", "calls": [{"method": "set_setpoint", "args": [0]}]}


class Channel:
    def __init__(self, told: list[Any]) -> None:
        self.told, self.level = told, 0.0

    def put(self, level: float) -> None:
        self.told.append(level)


class Dac(Channel):
    """A part that is there when the device is connected."""

    def put(self, level: float, /) -> None:
        self.told.append(level)


class Oven:
    """Somebody else's driver. `told` is what reached the device."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.value: Any = 20.0
        self.broken = False
        self.ch = [Channel(self.told)]
        self.dac: Dac | None = None

    @property
    def setpoint(self) -> float:
        return self.value  # type: ignore[no-any-return]

    @setpoint.setter
    def setpoint(self, value: float) -> None:
        self.told.append(value)
        self.value = value
        if self.broken:
            raise OSError("no answer")

    def power(self, watts: float, how: str = "") -> None:
        self.told.append(watts)

    def axes(self, where: list[float]) -> None:
        self.told.append(where)

    def sweep(self, watts: float = 50.0) -> None:
        self.told.append(watts)

    def take(self, *args: Any, **kwargs: Any) -> None:
        self.told.append((args, kwargs))

    def off(self) -> None:
        self.value = 0.0

    def connect(self) -> None:
        self.dac = Dac(self.told)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rate_guard, "now_s", clock)
    return clock


def lab(entry: dict[str, Any], **more: Any) -> Lab:
    return Lab({"instances": {"oven": {"class_path": OVEN}}, "registry": {OVEN: entry}}, **more)


def setpoint(**options: Any) -> dict[str, Any]:
    return {"properties": {"setpoint": {"set": {"topic": "want"}, "unit": "°C", "max_rate": "5/s", **options}}}


def ask(method: str, params: object = None) -> Any:
    from ether import ether

    return ether.get("oven", method, params)


def refused(method: str, params: object, match: str = "a change of at most") -> None:
    with pytest.raises(ValidationFailed, match=match):
        ask(method, params)


def test_a_setpoint_moves_from_what_the_device_says(clock: Clock) -> None:
    with lab(setpoint(), collect_failures=True) as bench:
        refused("set_setpoint", 26, r"value: a change of at most 5 °C within 1 s; in that time it was 20 \(given: 26\)")
        ask("set_setpoint", 25)
        bench.pub(26, topic="want")
        assert isinstance(bench.failures[0], ValidationFailed)
        clock.now += 0.5
        refused("set_setpoint", 25.1, "in that time it was 20 to 25")
        ask("set_setpoint", 22)
        clock.now += 3600  # a pause makes no room for a jump
        refused("set_setpoint", 27.1, "in that time it was 22 ")
        ask("set_setpoint", 27)
        clock.now += 1.02
        ask("set_setpoint", 32)
        assert bench["oven"].told == [25, 22, 27, 32]


def test_limits_and_units_hold_beside_it(clock: Clock) -> None:
    pytest.importorskip("pint", reason="pint is not installed: pip install 'ether-medium[units]'")
    with lab(setpoint(limits=[0, 24])) as bench:
        refused("set_setpoint", 24.5, "from 0 to 24 °C")
        refused("set_setpoint", "14 °C")
        ask("set_setpoint", "296.15 K")
        assert bench["oven"].told == [23.0]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), "5", None, True])
def test_what_is_no_finite_number_is_refused(wrong: object) -> None:
    entry = {"methods": {"power": {"ether_get": {}, "arguments": {"watts": {"max_rate": "5/s"}}}}}
    with lab(entry) as bench:
        bench["oven"].power.__func__.__annotations__.pop("watts", None)
        with pytest.raises(ValidationFailed):
            ask("power", {"watts": wrong} if wrong != "5" else {"watts": "five"})
        assert bench["oven"].told == []


def test_the_dead_band_is_for_what_a_device_rounds(clock: Clock) -> None:
    with lab(setpoint(dead_band=0.1)) as bench:
        bench["oven"].value = 19.95
        refused("set_setpoint", 25.06)
        ask("set_setpoint", 25)
        for _ in range(100):  # it is no way to creep
            clock.now += 0.001
            with pytest.raises(ValidationFailed):
                ask("set_setpoint", 25.1)
        assert bench["oven"].told == [25]


def test_after_a_failure_the_device_is_asked_again(clock: Clock) -> None:
    with lab(setpoint()) as bench:
        oven = bench["oven"]
        ask("set_setpoint", 22)
        oven.broken = True
        with pytest.raises(OSError, match="no answer"):
            ask("set_setpoint", 25)
        oven.broken, oven.value = False, 40.0  # somebody has turned the knob
        clock.now += 10
        refused("set_setpoint", 26)
        clock.now += 1.02
        ask("set_setpoint", 36)
        oven.value = "E1"
        oven.broken = True
        with pytest.raises(OSError, match="no answer"):
            ask("set_setpoint", 36.5)
        oven.broken, oven.value, oven.told = False, "E1", []
        refused("set_setpoint", 36, "setpoint is 'E1' now")
        assert oven.told == []


def test_a_safe_state_may_jump_and_counts(clock: Clock) -> None:
    with lab(setpoint() | {"safe_state": SAFE}) as bench:
        host = bench._members["oven"].instance
        ask("set_setpoint", 22)
        host.call_own("set_setpoint", [0], {})
        clock.now += 2
        refused("set_setpoint", 22)
        ask("set_setpoint", 5)
        assert bench["oven"].told == [22, 0, 5]


def test_arguments_and_lists_are_measured_from_their_first_value(clock: Clock) -> None:
    entry = {
        "methods": {
            "power": {"ether_get": {}, "arguments": {"watts": {"max_rate": "10/min"}}},
            "axes": {"ether_get": {}, "arguments": {"where": {"max_rate": "1/s"}}},
            "ch[0].put": {"ether_get": {}, "as": "put", "arguments": {"level": {"max_rate": "1/s"}}},
        }
    }
    with lab(entry) as bench:
        ask("power", {"watts": 100, "how": "soft"})
        refused("power", {"watts": 111, "how": "soft"})
        ask("power", {"watts": 110})
        ask("axes", [0, 0])
        refused("axes", [1, 1.5])
        refused("axes", [1, 1, 1], "2 numbers, as before")
        ask("axes", [1, -1])
        ask("put", {"level": 7})
        refused("put", {"level": 8.5})
        ask("put", {"level": 8})
        assert bench["oven"].told == [100, 110, [0, 0], [1, -1], 7, 8]


POWER = {"methods": {"power": {"ether_get": {}, "arguments": {"watts": {"max_rate": "10/min"}}}}}


def host(bench: Lab) -> Any:
    return bench._members["oven"].instance


def test_a_safe_state_by_another_method_counts(clock: Clock) -> None:
    safe = {"after": "60s", "calls": ["off"]}
    with lab(setpoint() | {"safe_state": safe}) as bench:
        ask("set_setpoint", 22)
        host(bench).device.make(host(bench).spec.care.safe_state.calls, "safe state")
        refused("set_setpoint", 4, "in that time it was 0 to 22")
        clock.now += 2
        refused("set_setpoint", 22, "in that time it was 0 ")
        ask("set_setpoint", 5)
        assert bench["oven"].told == [22, 5]


def test_what_cannot_be_read_is_measured_anew_after_it(clock: Clock) -> None:
    with lab(POWER) as bench:
        ask("power", {"watts": 100})
        host(bench).ask_device(Alive(PlannedCall("off"), "1s"))  # a question changes nothing
        clock.now += 61
        refused("power", {"watts": 5}, "in that time it was 100 ")
        host(bench).call_own("off", [], {})
        refused("power", {"watts": 5}, "in that time it was 100 ")
        clock.now += 61
        ask("power", {"watts": 5})
        refused("power", {"watts": 100})
        assert bench["oven"].told == [100, 5]


def test_a_path_that_leads_nowhere_before_the_device_is_connected(clock: Clock) -> None:
    entry = {
        "on_connect": ["connect"],
        "methods": {"dac.put": {"ether_get": {}, "as": "put", "arguments": {"level": {"max_rate": "1/s"}}}},
    }
    with lab(entry) as bench:
        ask("put", {"level": 7})
        refused("put", {"level": 9})
        host(bench).call_own("dac.put", [0], {})
        clock.now += 2
        refused("put", {"level": 7})
        assert bench["oven"].told == [7, 0]
        host(bench).try_device(rebuild=host(bench).built is not None)
        clock.now += 2
        ask("put", {"level": 3})
        refused("put", {"level": 5})
        assert bench["oven"].told == ([3] if host(bench).built is not None else [7, 0, 3])


def test_where_the_signature_is_not_known_it_goes_by_name(clock: Clock) -> None:
    entry = {"methods": {"take": {"ether_get": {}, "arguments": {"volts": {"max_rate": "1/s"}}}}}
    with lab(entry) as bench:
        ask("take", {"volts": 5})
        refused("take", [50], "by name, because volts has limits")
        with (
            pytest.raises(ValidationFailed, match="volts: by name"),
            host(bench).rates.setting("take", [50], {}, checked=True),
        ):
            raise AssertionError("it is refused before")
        host(bench).call_own("take", [50], {})
        refused("take", {"volts": 49})
        clock.now += 2
        ask("take", {"volts": 49})
        assert bench["oven"].told == [((), {"volts": 5}), ((50,), {}), ((), {"volts": 49})]


def test_what_the_device_says_is_taken_in_the_drivers_unit(clock: Clock) -> None:
    pint = pytest.importorskip("pint", reason="pint is not installed: pip install 'ether-medium[units]'")
    with lab(setpoint(unit="V")) as bench:
        bench["oven"].value = pint.Quantity(500, "mV")
        refused("set_setpoint", 5.6, "in that time it was 0.5 ")
        ask("set_setpoint", 5.4)
        host(bench).rates.forget()
        bench["oven"].value = pint.Quantity(5, "K")
        refused("set_setpoint", 5, "5 V within 1 s, and setpoint is .* now")
        assert bench["oven"].told == [5.4]


def test_where_two_threads_set_both_values_count(clock: Clock) -> None:
    """A safe state that is forced while the worker hangs in the driver: which of the two came last is not known."""
    with lab(setpoint() | POWER) as bench:
        oven, rates = bench["oven"], host(bench).rates
        ask("power", {"watts": 50})
        for method, argument, safe in (("set_setpoint", "value", 17), ("power", "watts", 45)):
            with rates.setting(method, [], {argument: 22 if safe == 17 else 55}, checked=True):
                host(bench).call_own(method, [safe], {})
        clock.now += 61
        oven.value = 0.0
        refused("set_setpoint", 22, "in that time it was 0 to 22")
        refused("power", {"watts": 56}, "in that time it was 45 to 55")
        ask("power", {"watts": 50})
        assert oven.told == [50, 17, 45, 50]


def test_a_reading_from_before_a_safe_state_says_nothing(clock: Clock) -> None:
    with lab(setpoint()) as bench:
        rates, read = host(bench).rates, host(bench).rates._read

        def meanwhile(name: str) -> Any:
            value = read(name)
            rates._read = read
            host(bench).call_own("off", [], {})
            return value

        rates._read = meanwhile
        ask("set_setpoint", 22)  # the call has begun
        bench["oven"].value = 0.0
        clock.now += 2
        refused("set_setpoint", 22, "in that time it was 0 ")


@pytest.mark.parametrize("given", [[], ()])
def test_a_setting_without_a_number_is_refused(given: Any, clock: Clock) -> None:
    entry = {"methods": {"axes": {"ether_get": {}, "arguments": {"where": {"max_rate": "1/s"}}}}}
    with lab(entry) as bench:
        refused("axes", {"where": given}, "a number, because its changes are limited to 1 within 1 s")
        assert bench["oven"].told == []


def test_what_ether_calls_at_its_time_counts(clock: Clock) -> None:
    sweep = {"ether_pub": {"topic": "s", "every": "1s"}, "ether_get": {}, "arguments": {"watts": {"max_rate": "5/s"}}}
    with lab({"methods": {"sweep": sweep}}) as bench:
        ask("sweep", {"watts": 5})
        bench.advance(1.0)
        clock.now += 2
        refused("sweep", {"watts": 5}, "in that time it was 50 ")
        assert bench["oven"].told[0] == 5


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 1.5), st.floats(-20, 20)), min_size=5, max_size=200))
def test_in_no_time_does_it_change_by_more(steps: list[tuple[float, float]]) -> None:
    """Whatever is tried, what was let through is within the amount over each window; and a step that is within reach of
    all that was in force lately is let through."""
    changes, now, accepted = ChangeRange(5.0, 1.0), 0.0, [(0.0, 0.0)]
    changes.begin(0.0, 0.0)
    changes.done(0.0)
    for pause, value in steps:
        now += pause
        lately = [v for (_, v), (ended, _) in pairwise([*accepted, (float("inf"), 0.0)]) if ended > now - 1.0]
        with_slots = [v for (_, v), (ended, _) in pairwise([*accepted, (float("inf"), 0.0)]) if ended > now - 1.02]
        ok = changes.accepts(now, value)
        if ok:
            assert max(abs(value - v) for v in lately) <= 5.0 + 1e-9
            changes.begin(now, value)
            changes.done(value)
            accepted.append((now, value))
        else:
            assert max(abs(value - v) for v in with_slots) > 5.0 - 1e-9
    assert len(changes._before) <= 66


def test_a_wrong_setpoint_is_kept_from_the_device_in_100_of_100(clock: Clock) -> None:
    """A controller that is wild: what reaches the device never moves by more than 5 within a second."""
    chance, reached, wrong = random.Random(22), [(0.0, 20.0)], 0
    with lab(setpoint(limits=[0, 80])) as bench:
        while wrong < 100:
            clock.now += chance.choice([0.0, 0.01, 0.3, 1.1])
            value = chance.uniform(-20, 100)
            lately = [v for (_, v), (end, _) in pairwise([*reached, (float("inf"), 0.0)]) if end > clock.now - 1]
            beyond = not 0 <= value <= 80 or any(abs(value - v) > 5 for v in lately)
            count = len(bench["oven"].told)
            try:
                ask("set_setpoint", value)
            except ValidationFailed:
                assert len(bench["oven"].told) == count
            else:
                reached.append((clock.now, value))
                assert not beyond, (value, lately)
            wrong += beyond
        assert all(0 <= told <= 80 for told in bench["oven"].told)
        assert len(bench["oven"].told) == len(reached) - 1 > 0


@pytest.mark.parametrize(
    ("text", "amount", "within_s"),
    [("5/s", 5, 1), ("300 / min", 300, 60), ("0.5/10s", 0.5, 10), ("2/h", 2, 3600), ("1e3/500ms", 1000, 0.5)],
)
def test_rates_as_they_are_written(text: str, amount: float, within_s: float) -> None:
    assert parse_rate(text)[:2] == (amount, within_s)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("max_rate: fast", "found 'fast'; expected an amount and a time"),
        ("max_rate: 5", "found 5; expected an amount and a time"),
        ("max_rate: 0/s", "the amount is a number above 0"),
        ("max_rate: -5/s", "expected an amount and a time"),
        ("max_rate: 5/parsec", "expected an amount and a time"),
        ("max_rate: .nan", "expected an amount and a time"),
        ("dead_band: 0.5", "has a dead_band without max_rate"),
        ("{max_rate: 5/s, dead_band: -1}", "expected a number from 0"),
        ("max_rat: 5/s", "max_rate"),
    ],
)
def test_bad_yaml_is_refused_with_file_and_line(tmp_path: Path, line: str, why: str) -> None:
    file = tmp_path / "lab.yaml"
    inner = line if line.startswith("{") else f"{{set: true, {line}}}"
    inner = inner.replace("{max_rate", "{set: true, max_rate") if line.startswith("{") else inner
    file.write_text(
        f"instances:\n  oven: {{class_path: {OVEN}}}\nregistry:\n  {OVEN}:\n    properties:\n      setpoint: {inner}\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert f"{file}:6" in str(caught.value)
    assert why in str(caught.value)


def test_a_rate_of_what_nobody_sets_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(f"registry:\n  {OVEN}:\n    properties:\n      setpoint: {{max_rate: 5/s}}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="lacks set: true"):
        load_config(file)
