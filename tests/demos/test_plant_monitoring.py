"""The demo of a plant that was there before, as a command: values, alarms, and the heater off when nobody regulates."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import ModuleType

import pytest
from programs import run
from running_brokers import engines, mosquitto_missing

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "plant_monitoring"

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]

# That the heater is off in time is held to its bound in tests/instance/test_safe_state.py. Here the whole demo runs
# beside other tests, where it may be late; where nobody switches it off it never is.
STORY = [
    r"heater\.set_power does not accept this payload: watts: a number from 0 to 3000 W \(given: 9000\.0\)",
    r"a steam valve is stuck",
    r"ALARM temperature high: unacknowledged at (?:7[5-9]|8\d)[\d.]*",
    r"ALARM temperature high: acknowledged at [\d.]+",
    r"ALARM temperature high: normal at (?:70|6\d)[\d.]*",
    r"the pressure transmitter has no power",
    r"ALARM pressure silent: unacknowledged at 1\.[\d]+",
    r"ALARM pressure silent: returned at 1\.[\d]+",
    r"ALARM pressure silent: normal at 1\.[\d]+",
    r"the thermostat's process is killed",
    r"the heater is off after (?:[01]\.\d+ s, within|(?:1\.[5-9]|2\.[0-3])\d* s, LATER THAN) the stated 1\.5 s",
    r"heater\.set_power raised InSafeState: .*",
    r"the thermostat is started again",
]
pytestmark = pytest.mark.in_turn("engine")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_plant_is_watched_and_made_safe(tmp_path: Path, engine: str) -> None:
    finished = run(tmp_path, str(FOLDER / "run.py"), engine)
    assert finished.code == 0, finished.err
    assert f"Broker: {engine} " in finished.err
    said = [line[9:] for line in finished.out.splitlines() if re.match(r" *[\d.]+ s  ", line) and "°C" not in line]
    assert len(said) == len(STORY), finished.out
    for line, expected in zip(said, STORY, strict=True):
        assert re.fullmatch(expected, line), line
    values, changes, missing = re.search(
        r"^on disk: (\d+) values of the plant and (\d+) changes of alarms, (\d+) still", finished.out, re.MULTILINE
    ).groups()
    assert int(values) > 100
    assert (changes, missing) == ("6", "0")
    assert finished.out.endswith("at the end the heater is at 0 W\n")


@pytest.mark.parametrize("name", ["plant.py", "vendor.py"])
def test_plant_and_drivers_know_nothing_of_ether(name: str) -> None:
    imported = re.findall(r"^\s*(?:from|import) (\w+)", (FOLDER / name).read_text(), re.MULTILINE)
    assert imported
    assert not {"ether", "broker", "hardware_adapters"} & set(imported)


@pytest.fixture
def alarms(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return pytest.importorskip("alarms")


def taken(signal: object, *values: float) -> list[str]:
    """The state of the high alarm after each value."""
    return [(signal.take(value, 0.0), signal.high.state)[1] for value in values]


def test_an_alarm_has_a_hysteresis_and_stays_until_acknowledged(alarms: ModuleType) -> None:
    signal = alarms.Signal("t", high=75, clear=70, silent_s=1)
    assert taken(signal, 74.9, 75, 72, 70) == ["normal", "unacknowledged", "unacknowledged", "returned"]
    assert taken(signal, 60, 74) == ["returned", "returned"]  # all is well, and somebody still has to see it
    assert taken(signal, 76) == ["unacknowledged"]
    assert signal.high.acknowledge()
    assert taken(signal, 71, 76, 70) == ["acknowledged", "acknowledged", "normal"]
    assert not signal.high.acknowledge()
    assert taken(signal, math.nan, math.nan) == ["unacknowledged", "unacknowledged"]
    assert signal.high.acknowledge()
    assert taken(signal, 70) == ["normal"]


def test_silence_is_an_alarm_of_its_own(alarms: ModuleType) -> None:
    signal = alarms.Signal("t", high=75, clear=70, silent_s=1)
    assert signal.look(100.0) == []  # nothing was ever heard: the device is not there yet
    signal.take(20, 100.0)
    assert signal.look(101.0) == []
    assert signal.look(101.1) == [signal.silent]
    assert signal.look(102.0) == []
    assert signal.take(20, 103.0) == [signal.silent]
    assert (signal.silent.state, signal.high.state) == ("returned", "normal")
    with pytest.raises(ValueError, match="clear"):
        alarms.Signal("t", high=70, clear=70, silent_s=1)
