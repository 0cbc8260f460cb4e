"""Drivers that know nothing of plugs, by YAML alone: offline with the reason, refused meanwhile, back when the device
is; and one line of the log for each."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from patience import patience
from running_brokers import soon

from ether import Ether
from ether.config import load_config
from ether.errors import ConfigError, RemoteError
from ether.instance.drivers.device_watch import DeviceWatch, WatchedHost
from ether.instance.drivers.gone_rules import FailuresInARow, is_one_of
from ether.spec.outcomes import OutcomeUnfit
from ether.spec.wrapping import Care, OnError
from ether.utils import get_ether_logger
from hardware_adapters.simulate import SimulatedLab

BENCH = {
    "instruments": {
        "heater": {
            "idn": "ACME,Heater,0042,1.3",
            "properties": {"power": {"get": "POW?", "set": "POW {}", "min": 0, "max": 100}},
        }
    }
}
HEATER = "foreign_shapes.BareHeater"
PATIENCE_S = patience(20.0)


class States:
    """What `ether.on_change` tells of one instance."""

    def __init__(self, ether: Ether, name: str) -> None:
        self._told: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        ether.on_change(lambda told: self._told.put(told) if told["name"] == name else None)

    def until(self, state: str) -> dict[str, Any]:
        while (told := self._told.get(timeout=PATIENCE_S))["state"] != state:
            pass
        return told


@pytest.fixture
def lab() -> Iterator[SimulatedLab]:
    with SimulatedLab(BENCH) as made:
        yield made


@pytest.fixture
def ether() -> Iterator[Ether]:
    with Ether() as own:
        yield own


def heater(lab: SimulatedLab, **entry: Any) -> dict[str, Any]:
    described = {
        "on_connect": {"method": "set_power", "args": [20]},
        "on_stop": "close",
        "methods": {
            "power": {"ether_get": {}, "ether_pub": {"topic": "power", "every": "100ms"}},
            "times_opened": {"ether_get": {}},
        },
        **entry,
    }
    instance = {"class_path": HEATER, "args": [lab.port("heater")], "restart": "on-failure"}
    return {"instances": {"heater": instance}, "registry": {HEATER: described}}


def test_a_foreign_driver_is_rebuilt_after_each_replug(
    ether: Ether, lab: SimulatedLab, capfd: pytest.CaptureFixture[str]
) -> None:
    on_error = {"errors": ["OSError", "serial.SerialException"], "then": "rebuild", "after": 3, "within": "10s"}
    ether.tap(heater(lab, on_error=on_error))
    states, polled = States(ether, "heater"), ether.subscribe("power")
    for _ in range(3):
        lab.unplug("heater")
        told = states.until("offline")
        assert "power: " in told["error"]
        assert told["error"].startswith("gone since ")
        with pytest.raises(RemoteError) as refused:
            ether.get("heater", "power")
        assert refused.value.remote_class == "DeviceOffline"
        assert "nothing was run" in str(refused.value)
        lab.plug("heater")
        back = states.until("ready")
        assert (back["error"], back.get("offline")) == ("", None)
        assert ether.get("heater", "power") == 20  # on_connect has set it
    assert ether.get("heater", "times_opened") >= 4
    before = ether.get("heater", "power")
    while polled.get(PATIENCE_S).value != before:  # it is polled again
        pass
    ether.shutdown()
    told = capfd.readouterr().err
    assert told.count("heater: its device is offline: power") == 3, told
    assert told.count("heater: its device is back") == 3, told
    assert told.count("Traceback (most recent call last)") <= 6, told  # the first failure of each kind alone


def dead(path: Path, **entry: Any) -> dict[str, Any]:
    described = {
        "on_connect": "connect",
        "on_stop": "disconnect",
        "methods": {"read": {"ether_get": {}}},
        "properties": {"log": {}},
        **entry,
    }
    return {
        "instances": {"it": {"class_path": "foreign_shapes.Dead", "args": [str(path)]}},
        "registry": {"foreign_shapes.Dead": described},
    }


def test_the_question_finds_what_nobody_polls(ether: Ether, tmp_path: Path) -> None:
    """Switched off, with its USB side still there: nothing raises an `OSError`, and nothing else asks."""
    power = tmp_path / "power"
    power.touch()
    ether.tap(dead(power, alive={"method": "identity", "every": "100ms"}))
    states = States(ether, "it")
    power.unlink()
    told = states.until("offline")
    assert told["error"].startswith("silent since ")
    assert "identity(): NoAnswer: nothing came back" in told["error"]
    with pytest.raises(RemoteError, match="DeviceOffline"):
        ether.get("it", "read")
    power.touch()
    states.until("ready")
    log = ether.get("it", "log")
    assert "read" not in log  # what was refused has not reached the driver
    assert log.count("connect") == 1  # nothing said that it is to be connected again
    assert ether.get("it", "read") == 1.0


def test_then_reconnect_connects_the_same_object_again(ether: Ether, tmp_path: Path) -> None:
    power = tmp_path / "power"
    power.touch()
    on_error = {"errors": "NoAnswer", "then": "reconnect", "after": 1}
    # Asked rarely, and first when it starts: behind that it is the call that finds the device gone.
    ether.tap(dead(power, on_error=on_error, alive={"method": "identity", "every": "60s"}))
    assert soon(lambda: "identity" in ether.get("it", "log"), PATIENCE_S)
    states = States(ether, "it")
    power.unlink()
    with pytest.raises(RemoteError, match="NoAnswer"):
        ether.get("it", "read")
    states.until("offline")
    power.touch()
    states.until("ready")
    log = [step for step in ether.get("it", "log") if step != "identity"]
    assert log[:2] == ["connect", "read"]
    assert log[2:] == ["disconnect", "connect"] * (len(log[2:]) // 2)
    assert len(log) >= 4


class RestartedHost:
    """An instance that is to be started again, as far as its watch asks for one."""

    name, logger = "heater", get_ether_logger("Ether")

    def end_for_restart(self, why: str) -> None:
        """An object of a program's own goes on."""


def test_an_instance_that_is_to_be_started_again_can_be_ended() -> None:
    care = Care(on_error=OnError(("OSError",), "restart", 1))
    watch = DeviceWatch(cast("WatchedHost", RestartedHost()), care, lambda: None)
    watch.failed("power", OSError("gone"))
    assert watch.offline
    watch.stop()
    watch.stop()


def test_then_restart_starts_the_process_again(ether: Ether, lab: SimulatedLab) -> None:
    ether.tap(heater(lab, on_error={"errors": "TimeoutError", "then": "restart", "after": 2}))
    states = States(ether, "heater")
    [before] = [row["pid"] for row in ether.instances() if row["name"] == "heater"]
    lab.fault("heater", "silence")
    assert states.until("offline")["error"].startswith("silent since ")
    lab.mend("heater")
    states.until("ready")
    [after] = [row["pid"] for row in ether.instances() if row["name"] == "heater"]
    assert before != after


def test_which_exceptions_say_that_the_device_is_gone() -> None:
    from serial import SerialException

    assert is_one_of(SerialException("x"), ["serial.SerialException"])
    assert is_one_of(SerialException("x"), ["OSError"])
    assert is_one_of(SerialException("x"), ["serial.serialutil.SerialException"])
    assert not is_one_of(SerialException("x"), ["usb.SerialException"])
    assert not is_one_of(ValueError("x"), ["OSError"])
    assert not is_one_of(OutcomeUnfit("m", "r", "w"), ["ValueError"])  # Ether's own word
    assert not is_one_of(KeyboardInterrupt(), ["object"])


def test_failures_in_a_row() -> None:
    count = FailuresInARow(3, 10)
    assert [count.failed(now) for now in (0.0, 1.0, 2.0)] == [False, False, True]
    count.went_well()
    assert count.began is None
    assert [count.failed(now) for now in (0.0, 8.0, 11.0, 12.0)] == [False, False, False, True]
    assert [FailuresInARow(2).failed(now) for now in (0.0,)] == [False]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("on_error: {then: again}", "expected one of: reconnect, rebuild, restart"),
        ("on_error: {errors: []}", "errors"),
        ("on_error: {after: 0}", "after"),
        ("on_error: {within: 10}", "a number and its unit"),
        ("alive: {every: 5s}", "method: this is missing"),
        ("alive: {method: id, every: often}", "often"),
    ],
)
def test_what_the_file_may_not_say(tmp_path: Path, part: str, said: str) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(f"registry:\n  a.B:\n    {part}\n")
    with pytest.raises(ConfigError, match=said) as caught:
        load_config(file)
    assert caught.value.line == 3
