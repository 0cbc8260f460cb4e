"""What is set in another unit of the same dimension reaches the driver in the driver's unit, and is limited there."""

from __future__ import annotations

import importlib
import random
import sys
import time
from typing import Any

import pytest

from ether.errors import ValidationFailed
from ether.spec.arguments import Arguments
from ether.spec.units import UnitUnfit, in_unit
from ether.spec.wrapping import Limit
from ether.testing import Lab

OVEN = f"{__name__}.Oven"
REGISTRY = {
    OVEN: {
        "properties": {"setpoint": {"set": {"topic": "want"}, "unit": "°C", "limits": [0, 80]}},
        "methods": {
            "ramp": {
                "ether_get": {},
                "arguments": {"volts": {"unit": "V", "max": 5}, "seconds": {"unit": "s", "limits": [1, 600]}},
            },
            "open_valve": {"ether_get": {}, "arguments": {"share": {"unit": "turns"}}},
            "take": {"ether_get": {}, "arguments": {"volts": {"unit": "V", "max": 5}}},
            "feed": {"ether_get": {}, "arguments": {"volts": {"unit": "V", "max": 5}}},
        },
    }
}


class Oven:
    """Somebody else's driver. `told` is what reached the device."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    @property
    def setpoint(self) -> float:
        return float(self.told[-1])

    @setpoint.setter
    def setpoint(self, value: float) -> None:
        self.told.append(value)

    def ramp(self, volts: float, seconds: float = 10.0) -> None:
        self.told.append((volts, seconds))

    def open_valve(self, share: Any) -> None:
        self.told.append(share)

    def take(self, *args: Any, **kwargs: Any) -> None:
        self.told.append((args, kwargs))

    def feed(self, **kwargs: Any) -> None:
        self.told.append(((), kwargs))


@pytest.fixture
def pint() -> Any:
    return pytest.importorskip("pint", reason="pint is not installed: pip install 'ether-medium[units]'")


def lab(**more: Any) -> Lab:
    return Lab({"instances": {"oven": {"class_path": OVEN}}, "registry": REGISTRY}, **more)


def ask(method: str, params: object = None) -> Any:
    from ether import ether

    return ether.get("oven", method, params)


@pytest.mark.parametrize(
    "given",
    [
        "333.15 K",
        " 333.15K ",
        {"value": "333.15 K"},
        {"value": 333.15, "unit": "K"},
        {"magnitude": 333.15, "units": "kelvin"},
        {"value": {"magnitude": 333.15, "units": "kelvin"}},
        {"value": 333.15, "unit": "K", "by": "hand"},
        "140 °F",
        "60 °C",
        60,
        "60",
    ],
)
@pytest.mark.usefixtures("pint")
def test_a_value_reaches_the_driver_in_its_unit(given: object) -> None:
    with lab() as bench:
        ask("set_setpoint", given)
        bench.pub(given, topic="want")
        assert bench["oven"].told == [60.0, 60.0]


def test_a_quantity_travels_and_is_converted(pint: Any) -> None:
    with lab() as bench:
        ask("set_setpoint", pint.Quantity(333.15, "K"))
        ask("ramp", {"volts": pint.Quantity(2500, "mV"), "seconds": pint.Quantity(2, "min")})
        assert bench["oven"].told == [60.0, (2.5, 120.0)]


@pytest.mark.usefixtures("pint")
def test_limits_hold_in_the_drivers_unit() -> None:
    with lab(collect_failures=True) as bench:
        for beyond in ("81 K", "353.2 K", {"value": 60, "unit": "K"}, {"value": 80.1, "unit": "degC"}, "1 kK"):
            with pytest.raises(ValidationFailed, match="a number from 0 to 80 °C"):
                ask("set_setpoint", beyond)
            bench.pub(beyond, topic="want")
        ask("set_setpoint", "353.15 K")  # 80 °C exactly, in spite of its binary digits
        with pytest.raises(ValidationFailed, match="of at most 5 V"):
            ask("ramp", {"volts": "5001 mV", "seconds": 2})
        assert bench["oven"].told == [80.0]
        assert len(bench.failures) == 5


@pytest.mark.usefixtures("pint")
@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("350 mV", r"value: in °C, and mV does not convert to °C \(given: '350 mV'\)"),
        ("3 furlongings", "furlongings does not convert to °C: 'furlongings' is not defined"),
        ({"value": 3, "unit": "C"}, "C does not convert to °C"),  # coulombs
        ({"value": True, "unit": "K"}, "a number in °C, or one with a unit"),
        ("2 K**9**9**9", "does not convert to °C"),
    ],
)
def test_a_unit_that_does_not_convert_is_refused_with_both(given: object, why: str) -> None:
    with lab() as bench:
        with pytest.raises(ValidationFailed, match=why) as refused:
            ask("set_setpoint", given)
        assert str(refused.value).startswith("oven.set_setpoint does not accept this payload")
        assert bench["oven"].told == []


def test_several_arguments_each_have_their_own(pint: Any) -> None:
    with lab() as bench:
        ask("ramp", {"volts": "2500 mV", "seconds": "2 min"})
        ask("ramp", {"volts": 2, "seconds": 3, "unit": "K"} | {"unit": 4})  # no unit: a number that nobody takes
        with pytest.raises(ValidationFailed, match="unit: beside each value, as '5 mV'"):
            ask("ramp", {"volts": 2, "seconds": 3, "unit": "mV"})
        ask("ramp", {"volts": 2, "unit": "mV"})
        assert bench["oven"].told == [(2.5, 120.0), (2, 3), (0.002, 10.0)]


def test_where_the_signature_is_not_known_values_with_units_go_by_name(pint: Any) -> None:
    with lab() as bench:
        ask("take", {"volts": "2500 mV"})
        for unknown in (["2500 mV"], "2500 mV"):
            with pytest.raises(ValidationFailed):
                ask("take", unknown)
        with pytest.raises(ValidationFailed, match="of at most 5 V"):
            ask("take", {"volts": "5001 mV"})
        assert bench["oven"].told == [((), {"volts": 2.5})]


@pytest.mark.usefixtures("pint")
@pytest.mark.parametrize("method", ["take", "feed"])
def test_a_unit_beside_a_value_counts_where_the_driver_takes_anything(method: str) -> None:
    with lab() as bench:
        ask(method, {"volts": 2500, "unit": "mV"})
        ask(method, {"volts": 3, "unit": "V"})
        for beyond in ({"volts": 5001, "unit": "mV"}, {"volts": 2, "units": "kV"}):
            with pytest.raises(ValidationFailed, match="of at most 5 V"):
                ask(method, beyond)
        with pytest.raises(ValidationFailed, match="and s does not convert to V"):
            ask(method, {"volts": 3, "unit": "s"})
        given = [told[1] for told in bench["oven"].told]
        assert given == [{"volts": 2.5, "unit": "V"}, {"volts": 3, "unit": "V"}]


@pytest.mark.parametrize(
    "payload", [{"args": ["2 mV"]}, {"args": [2], "unit": "mV"}, {"value": 2, "unit": "mV"}, {"args": "2 mV"}]
)
def test_a_unit_of_what_cannot_be_told_is_refused(payload: object) -> None:
    registry = {OVEN: {"methods": {"take": {"ether_get": {}, "arguments": {"volts": {"unit": "V"}}}}}}
    with Lab({"instances": {"oven": {"class_path": OVEN}}, "registry": registry}) as bench:
        with pytest.raises(ValidationFailed, match=r"values with units by name \(volts\)"):
            ask("take", payload)
        ask("take", {"args": [2]})
        ask("take", {"volts": 1, "args": [2], "unit": "V"})
        assert bench["oven"].told == [((2,), {}), ((2,), {"volts": 1, "unit": "V"})]


@pytest.mark.parametrize(
    "text",
    ["1 a" + " " * 20_000 + "b", "1" + " " * 20_000 + "b" * 200, "1 " + "m" * 101],
    ids=["blanks", "blanks and a unit", "a long unit"],
)
def test_a_long_text_is_refused_at_once(text: str) -> None:
    """Three passes over 20,000 blanks are nothing; each blank with each other is a second and more."""
    began = time.thread_time()
    for given in (text, {"value": text, "unit": "V"}, {"value": 1, "unit": text}):
        with pytest.raises(UnitUnfit):
            in_unit(given, "mV")
    assert time.thread_time() - began < 0.2


def test_a_driver_that_takes_quantities_gets_one_in_its_unit(pint: Any) -> None:
    def heat(power: Any) -> None: ...

    heat.__annotations__["power"] = pint.Quantity
    bound = Arguments(heat, "Oven.heat", {"power": Limit(0, 50, "W")})
    assert bound.bind("2000 mW")[1]["power"] == pint.Quantity(2, "W")
    assert bound.bind(3)[1]["power"] == pint.Quantity(3, "W")
    with pytest.raises(ValidationFailed, match="from 0 to 50 W"):
        bound.bind("51000 mW")


def test_lists_and_arrays_are_converted(pint: Any) -> None:
    np = pytest.importorskip("numpy", reason="numpy is not installed: pip install 'ether-medium[numpy]'")
    assert in_unit(["1 mV", 2, "3 V"], "V") == [0.001, 2, 3.0]
    assert in_unit({"magnitude": [1, 2], "units": "mV"}, "V") == [0.001, 0.002]
    assert in_unit(pint.Quantity(np.array([1.0, 2.0]), "kV"), "V").tolist() == [1000.0, 2000.0]
    assert in_unit({"magnitude": np.array([1.0, 2.0]), "units": "kV"}, "V").tolist() == [1000.0, 2000.0]


@pytest.mark.parametrize("text", ["12:30", "2026-01-16", "1_000", "", "heat", "5", "1e5", "0x10", "5.5.5"])
def test_what_has_no_unit_stays_as_it_is(text: str) -> None:
    assert in_unit(text, "V") == text


def test_without_pint_the_same_unit_works_and_another_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pint", None)
    with pytest.raises(ImportError):
        importlib.import_module("pint")
    with lab() as bench:
        ask("open_valve", "3 turns")  # a unit that pint does not know, either
        ask("set_setpoint", {"value": 60, "unit": "°C"})
        with pytest.raises(ValidationFailed, match=r"value: in °C; to convert K to it, pint has to be installed: pip"):
            ask("set_setpoint", "333.15 K")
        assert bench["oven"].told == [3.0, 60]


@pytest.mark.usefixtures("pint")
def test_a_wrong_setpoint_is_kept_from_the_device_in_100_of_100() -> None:
    chance = random.Random(22)
    # each is harmless as a bare number, and beyond the limits in the unit that it has
    units = {
        "K": lambda c: c + 273.15,
        "°F": lambda c: c * 1.8 + 32,
        "mV": lambda c: c,
        "degR": lambda c: c * 1.8 + 492,
    }
    kept = 0
    with lab() as bench:
        for _ in range(100):
            celsius = chance.choice([chance.uniform(-60, -0.1), chance.uniform(80.1, 300)])
            unit = chance.choice(list(units))
            number = units[unit](celsius)
            form = chance.choice([f"{number:.4f} {unit}", {"value": number, "unit": unit}])
            with pytest.raises(ValidationFailed):
                ask("set_setpoint", form)
            kept += bench["oven"].told == []
    assert kept == 100
