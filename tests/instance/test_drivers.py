"""A class that knows nothing of Ether, described by the registry alone: properties, limits, units, set times."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ether.config import load_config
from ether.errors import ConfigError, MarkError, ValidationFailed
from ether.spec.wrapping import Limit
from ether.testing import Lab

PATH = f"{__name__}.Oven"


class Oven:
    """Somebody else's driver. `told` is what reached the device."""

    def __init__(self, port: str = "") -> None:
        self.port = port
        self.told: list[object] = []
        self.mode = "idle"
        self._setpoint = 20.0

    @property
    def temperature(self) -> float:
        """What it is inside."""
        return self._setpoint + 0.5

    @property
    def setpoint(self) -> float:
        """What it shall be."""
        return self._setpoint

    @setpoint.setter
    def setpoint(self, value: float) -> None:
        self.told.append(value)
        self._setpoint = value

    def set_power(self, watts, ramp_s=0.0):  # type: ignore[no-untyped-def]
        self.told.append(("power", watts, ramp_s))
        return watts

    def boost(self, watts: float = 100.0) -> None:
        self.told.append(("boost", watts))

    def program(self, **steps: Any) -> None:
        self.told.append(steps)

    def powers(self, levels: list[float]) -> None:
        self.told.append(levels)

    def open(self) -> None:
        self.told.append("open")

    def shut(self, how: str = "soft") -> None:
        self.told.append(f"shut {how}")


def oven(entry: dict[str, Any], **instance: Any) -> dict[str, Any]:
    return {"instances": {"oven": {"class_path": PATH, **instance}}, "registry": {PATH: entry}}


def limited(method: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return oven({"methods": {method: {"ether_get": {}, "ether_sub": {"topic": method}, "arguments": arguments}}})


def ask(lab: Lab, method: str, params: object = None) -> Any:
    """What `ether.get` does, inside of the lab."""
    from ether import ether

    return ether.get("oven", method, params)


def test_a_property_is_polled_and_published() -> None:
    entry = {"properties": {"temperature": {"get": {"topic": "oven/temperature", "every": "0.5s"}, "unit": "°C"}}}
    with Lab(oven(entry)) as lab:
        lab.advance(2.2)
        assert lab.values("oven/temperature") == [20.5] * 5
        assert ask(lab, "temperature") == 20.5
        assert "temperature" not in vars(lab["oven"])


def test_a_property_is_set_by_call_and_by_topic() -> None:
    with Lab(
        oven({"properties": {"setpoint": {"set": {"topic": "want"}, "limits": [0, 80]}, "mode": {"set": True}}})
    ) as lab:
        ask(lab, "set_setpoint", 30)
        ask(lab, "set_setpoint", {"value": "31.5"})  # lenient, by the property's own hint
        lab.pub(32, topic="want")
        ask(lab, "set_mode", "heat")
        assert lab["oven"].told == [30, 31.5, 32]
        assert (ask(lab, "mode"), ask(lab, "setpoint")) == ("heat", 32)


@pytest.mark.parametrize("wrong", [80.1, -1, math.nan, math.inf, "90", True])
def test_a_setpoint_outside_never_reaches_the_device(wrong: object) -> None:
    entry = {"properties": {"setpoint": {"set": True, "limits": [2, 80], "unit": "°C"}}}
    with Lab(oven(entry)) as lab:
        with pytest.raises(ValidationFailed, match=r"value: a number from 2 to 80 °C \(given: ") as caught:
            ask(lab, "set_setpoint", wrong)
        assert caught.value.problems[0].argument == "value"
        assert lab["oven"].told == []


@pytest.mark.parametrize("wrong", [51, "40", None, [51], True, math.nan])
def test_an_argument_without_a_hint_is_limited_too(wrong: object) -> None:
    with Lab(limited("set_power", {"watts": {"limits": [0, 50], "unit": "W"}}), collect_failures=True) as lab:
        with pytest.raises(ValidationFailed, match=r"watts: a number from 0 to 50 W"):
            ask(lab, "set_power", {"watts": wrong})
        lab.pub({"watts": wrong}, topic="set_power")
        assert isinstance(lab.failures[0], ValidationFailed)
        assert lab["oven"].told == []
        assert ask(lab, "set_power", {"watts": 50}) == 50


def test_a_default_outside_does_not_slip_through() -> None:
    with Lab(limited("boost", {"watts": {"limits": [0, 50]}})) as lab:
        with pytest.raises(ValidationFailed, match=r"watts: .* \(given: 100\.0\)"):
            ask(lab, "boost")
        ask(lab, "boost", 50)
        assert lab["oven"].told == [("boost", 50.0)]


def test_names_of_the_rest_and_lists_are_limited() -> None:
    with Lab(limited("program", {"first": {"limits": [0, 5]}})) as lab:
        with pytest.raises(ValidationFailed, match="first: a number from 0 to 5"):
            ask(lab, "program", {"first": 6, "second": 600})
        ask(lab, "program", {"second": 600})
    with Lab(limited("powers", {"levels": {"limits": [None, 5]}})) as lab:
        with pytest.raises(ValidationFailed, match="levels: a number of at most 5"):
            ask(lab, "powers", {"levels": [1, 2, 6]})
        ask(lab, "powers", {"levels": [1, 2, 5]})
        assert lab["oven"].told == [[1, 2, 5]]


def test_arrays_are_within_when_every_element_is() -> None:
    np = pytest.importorskip("numpy", reason="numpy is not installed: pip install 'ether-medium[numpy]'")
    limit = Limit(0, 5)
    assert limit.accepts(np.array([[0, 5], [1, 2]]))
    assert limit.accepts(np.float32(5))
    assert not limit.accepts(np.array([0, 5.1]))
    assert not limit.accepts(np.array(["a"]))


def test_units_and_limits_are_described() -> None:
    entry = {
        "properties": {"setpoint": {"set": True, "limits": [0, 80], "unit": "°C"}},
        "methods": {"set_power": {"ether_get": {}, "arguments": {"watts": {"limits": [0, 50], "unit": "W"}}}},
    }
    with Lab(oven(entry)) as lab:
        methods = lab._members["oven"].instance.about()["methods"]
    watts, _ = methods["set_power"]["parameters"]
    assert watts["schema"] == {"type": "number", "minimum": 0, "maximum": 50, "unit": "W"}
    (value,) = methods["set_setpoint"]["parameters"]
    assert value["schema"] == {"type": "number", "minimum": 0, "maximum": 80, "unit": "°C"}
    assert methods["setpoint"]["returns"] == {"type": "number", "unit": "°C"}
    assert methods["setpoint"]["doc"] == "What it shall be."
    assert methods["set_setpoint"]["signature"] == "(value: float) -> None"


def test_what_is_called_when_it_connects_and_stops() -> None:
    entry = {"on_connect": ["open", {"method": "set_power", "args": [1]}], "on_stop": {"method": "shut"}}
    with Lab(oven(entry)) as lab:
        assert lab["oven"].told == ["open", ("power", 1, 0.0)]
        lab.shutdown()
        assert lab["oven"].told[2:] == ["shut soft"]


def test_an_instance_says_it_for_itself() -> None:
    own = {"on_stop": {"method": "shut", "kwargs": {"how": "hard"}}}
    with Lab(oven({"on_connect": "open", "on_stop": "shut"}, **own)) as lab:
        lab.shutdown()
        assert lab["oven"].told == ["open", "shut hard"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"properties": {"temperatur": {}}}, r"but there is none. Did you mean 'temperature'"),
        ({"properties": {"temperature": {"set": True}}}, "as settable, but it can only be read"),
        ({"properties": {"open": {}}}, "which is a method: it belongs under methods"),
        ({"properties": {"power": {"set": True}}, "methods": {}}, "has a method 'set_power' already"),
        ({"methods": {"boost": {"ether_get": {}, "arguments": {"wats": {"limits": [0, 1]}}}}}, "Did you mean 'watts'"),
        ({"methods": {"set_power": {"arguments": {"watts": {"limits": [0, 1]}}}}}, "nobody can call it"),
        ({"methods": {"set_power": {"ether_every": "1s"}}}, "cannot be called at set times: missing"),
        ({"on_connect": "opn"}, r"on_connect: .*Oven has no method 'opn'. Did you mean 'open'"),
        ({"on_stop": {"method": "open", "args": [1]}}, r"on_stop: open\(1\): too many positional arguments"),
        ({"safe_state": {"after": "2s", "calls": "set_power"}}, r"safe_state: set_power\(\): missing a required"),
        (
            {
                "methods": {"set_power": {"ether_get": {}, "arguments": {"watts": {"limits": [1, 50]}}}},
                "safe_state": {"after": "2s", "calls": {"method": "set_power", "args": [0]}},
            },
            r"safe_state: set_power\(0\): .*watts: a number from 1 to 50 \(given: 0\)",
        ),
        ({"safe_state": {"after": "2s", "calls": "shut", "allow": "opn"}}, r"safe_state.allow: .*no method 'opn'"),
    ],
)  # fmt: skip
def test_what_cannot_apply_is_said_before_anything_starts(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(MarkError, match=said):
        Lab(oven(entry))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"properties": {"t": {"limits": [5, 1]}}}, "the first is higher than the second"),
        ({"properties": {"t": {"limits": 5}}}, "lowest and the highest"),
        ({"properties": {"t": {"limits": ["a", 1]}}}, "found 'a'"),
        ({"properties": {"t": {"units": "K"}}}, "Did you mean 'unit'"),
        ({"properties": {"not one": {}}}, "is not a name"),
        ({"methods": {"m": {"arguments": {}}}}, "no decorator is given"),
        ({"safe_state": {"after": 2, "calls": "shut"}}, "a number and its unit"),
        ({"safe_state": {"after": "0.1s", "calls": "shut"}}, r"the shortest is 0\.5 s"),
        ({"safe_state": {"after": "2s"}}, "calls: this is missing"),
        ({"safe_state": {"after": "2s", "calls": []}}, "at least one"),
        ({"on_connect": [{"args": [1]}]}, "method: this is missing"),
    ],
)
def test_what_the_file_may_not_say(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(oven(entry))
