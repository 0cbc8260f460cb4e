"""The simulated lab: instruments wired to one another, faults by name and time, exact by clock and seed."""

from __future__ import annotations

import gc
import math
import os
import queue
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from patience import patience

from hardware_adapters import AdapterError, BadAnswer, NoAnswer, Presence, SerialPort, WrongDevice
from hardware_adapters.simulate import Fault, LabError, ManualClock, ScaledClock, SimulatedLab

BENCH = """
seed: 7
instruments:
  heater:
    idn: ACME,Heater,0042,1.3
    twin_of: /dev/ttyUSB0
    properties:
      power: {get: "POW?", set: "POW {}", min: 0, max: 100}
  thermometer:
    idn: ACME,Thermo,0007,1.0
    twin_of: TCPIP0::10.0.0.7::5025::SOCKET
    properties:
      temperature: {get: "TEMP?", value: 21, form: "{:.3f}"}
  valve: {model: lab_models.Valve, idn: "ACME,Valve,1,1", kwargs: {start: open}}
wiring:
  - {from: heater.power, to: thermometer.temperature, gain: 0.8, offset: 21, tau_s: 30}
"""


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    path = tmp_path / "bench.yaml"
    path.write_text(BENCH)
    return path


def ask(lab: SimulatedLab, name: str, command: str) -> str:
    """An instrument's answer without any port between."""
    answer = lab.instruments[name].handle(command.encode())
    return answer.decode() if answer is not None else ""


def test_the_heater_warms_what_the_thermometer_reads(bench: Path) -> None:
    clock = ManualClock()
    with (
        SimulatedLab(bench, clock=clock) as lab,
        SerialPort(lab.port("heater")) as heater,
        SerialPort(lab.port("thermometer")) as thermometer,
    ):
        assert thermometer.query("TEMP?") == "21.000"
        heater.write("POW 50")
        assert heater.query("POW?") == "50"
        clock.advance(30)  # one time constant
        expected = 21 + 40 * (1 - math.exp(-1))
        assert thermometer.query_value("TEMP?", float) == pytest.approx(expected, abs=0.01)
        clock.advance(3600)
        assert thermometer.query("TEMP?") == "61.000"
        heater.write("POW 0")
        assert heater.query("POW?") == "0"
        clock.advance(3600)
        assert thermometer.query("TEMP?") == "21.000"


def test_an_hour_passes_faster_than_the_walls_clock(bench: Path) -> None:
    with SimulatedLab(bench, clock=ScaledClock(speed=100_000)) as lab, SerialPort(lab.port("heater")) as heater:
        heater.write("POW 100")
        assert heater.query("POW?", timeout_s=patience(10)) == "100"
        began = lab.clock.now()
        while lab.clock.now() < began + 3600:
            heater.query("POW?", timeout_s=patience(10))
        assert lab.value("thermometer.temperature") == pytest.approx(101, abs=0.01)


def readings(seed: int) -> list[str]:
    clock = ManualClock()
    part = {"properties": {"x": {"get": "X?", "value": 5, "noise": 0.5, "drift_per_s": 0.1, "form": "{:.4f}"}}}
    lab = SimulatedLab({"seed": seed, "instruments": {"a": part}}, clock=clock)
    found = []
    for _ in range(20):
        clock.advance(1)
        found.append(ask(lab, "a", "X?"))
    return found


def test_the_same_seed_gives_the_same_noise() -> None:
    assert readings(1) == readings(1)
    assert readings(1) != readings(2)
    values = [float(text) for text in readings(1)]
    assert len(set(values)) == 20
    assert values[-1] - values[0] == pytest.approx(1.9, abs=2.5)  # the drift of 19 s


def test_faults_have_their_time() -> None:
    clock = ManualClock()
    faults = [
        {"instrument": "a", "fault": "noise", "at_s": 10, "for_s": 5, "amount": 3},
        {"instrument": "a", "fault": "drift", "at_s": 20, "for_s": 5, "amount": 2},
        {"instrument": "a", "fault": "wrong_device", "at_s": 30, "for_s": 5},
    ]
    part = {"idn": "ME", "properties": {"x": {"get": "X?", "value": 5}}}
    lab = SimulatedLab({"instruments": {"a": part}, "faults": faults}, clock=clock)
    assert ask(lab, "a", "X?") == "5"
    clock.advance(10)
    assert ask(lab, "a", "X?") != "5"
    clock.advance(6)
    assert ask(lab, "a", "X?") == "5"
    clock.advance(7)
    assert ask(lab, "a", "X?") == "11"
    assert ask(lab, "a", "*IDN?") == "ME"
    clock.advance(8)
    assert ask(lab, "a", "*IDN?") == "OTHER,Instrument,0,0"
    clock.advance(10)
    assert (ask(lab, "a", "X?"), ask(lab, "a", "*IDN?")) == ("5", "ME")


def test_a_planned_disconnect_pulls_the_plug_and_puts_it_back(bench: Path) -> None:
    clock, heard = ManualClock(), queue.Queue[Presence]()
    with (
        SimulatedLab(bench, clock=clock) as lab,
        SerialPort(lab.port("heater"), identity="ACME,Heater,0042,1.3", on_presence=heard.put) as heater,
    ):
        assert heard.get(timeout=patience(5)).online
        heater.write("POW 50")
        lab.fault("heater", "disconnect", in_s=10, for_s=2)
        assert heater.query("POW?") == "50"
        clock.advance(10)
        assert not heard.get(timeout=patience(5)).online
        with pytest.raises(AdapterError):
            heater.query("POW?")
        clock.advance(3)
        assert heard.get(timeout=patience(5)).online
        assert heater.query("POW?") == "0"  # the power was gone


@pytest.mark.slow("waits for answers that do not come")
def test_each_fault_of_the_line(bench: Path) -> None:
    clock = ManualClock()
    with (
        SimulatedLab(bench, clock=clock) as lab,
        SerialPort(lab.port("heater"), timeout_s=0.5, identity="ACME,Heater,0042,1.3", verify_after_s=None) as heater,
    ):
        for fault, error in (("silence", NoAnswer), ("partial", BadAnswer), ("delay", NoAnswer)):
            lab.fault("heater", fault)  # type: ignore[arg-type]
            with pytest.raises(error):
                heater.query("POW?")
            lab.mend("heater")
            clock.advance(1)  # what was delayed comes now
            assert heater.query("POW?", timeout_s=patience(5)) == "0"
        lab.fault("heater", "garbage", amount=8)
        with pytest.raises(BadAnswer):
            heater.query_value("POW?", float)
        lab.mend("heater")
    with SimulatedLab(bench) as lab:
        lab.fault("heater", "wrong_device")
        with pytest.raises(WrongDevice, match="OTHER,Instrument"):
            SerialPort(lab.port("heater"), identity="ACME,Heater,0042,1.3")


def test_a_model_in_python(bench: Path) -> None:
    lab = SimulatedLab(bench, clock=ManualClock())
    assert ask(lab, "valve", "STATE?") == "open"
    assert ask(lab, "valve", "CLOSE") == ""
    assert ask(lab, "valve", "STATE?") == "close"
    assert ask(lab, "valve", "JUMP") == ""
    assert ask(lab, "valve", "SYST:ERR?") == '-113,"Undefined header"'
    assert ask(lab, "valve", "*RST") == ""
    assert ask(lab, "valve", "STATE?") == "open"


def test_the_arguments_of_a_class_are_mapped_to_its_twins(bench: Path) -> None:
    with SimulatedLab(bench) as lab:
        assert lab.twin_kwargs({"port": "/dev/ttyUSB0", "gain": 3}) == {"port": lab.port("heater"), "gain": 3}
        mapped = lab.twin_kwargs({"resource": "TCPIP0::10.0.0.7::5025::SOCKET"})
        assert mapped == {"resource": lab.resource("thermometer")}
        assert mapped["resource"].startswith("TCPIP::127.0.0.1::")
        assert lab.twin_kwargs({"port": None}) == {"port": None}
        with pytest.raises(LabError, match=r"port='/dev/ttyUSB9' has no twin in this lab; twin_of is there for: /dev"):
            lab.twin_kwargs({"port": "/dev/ttyUSB9"})


def test_instruments_inside_pyvisa_sim_share_the_world(bench: Path) -> None:
    pytest.importorskip("pyvisa_sim", reason="pyvisa-sim is not installed: pip install -e '.[test]'")
    from hardware_adapters import VisaInstrument

    clock = ManualClock()
    with (
        SimulatedLab(bench, clock=clock) as lab,
        VisaInstrument(lab.visa_resource("thermometer", "GPIB0::8::INSTR"), timeout_s=0.2) as thermometer,
        VisaInstrument(
            lab.visa_resource("heater", "USB0::0x1AB1::0x0588::H42::INSTR"), identity="ACME,Heater,0042,1.3"
        ) as heater,
    ):
        heater.write("POW 50")
        clock.advance(3600)
        assert thermometer.query("TEMP?") == "61.000"
        lab.fault("thermometer", "silence")
        with pytest.raises(NoAnswer):
            thermometer.query("TEMP?")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"instrumens": {}}, "instrumens: Extra inputs are not permitted"),
        ({"instruments": {"a": {"properties": {"x": {"git": "X?"}}}}}, r"instruments\.a\.properties\.x\.git: Extra"),
        ({"faults": [{"instrument": "a", "fault": "fire"}]}, r"faults\.0\.fault: .*'fire' \(valid: noise, drift"),
        ({"faults": [{"instrument": "b", "fault": "noise"}]}, "no instrument 'b'; there are: a"),
        ({"wiring": [{"from": "a.x", "to": "a.y"}]}, "wiring: there is no quantity 'a.x'; there are: "),
        ({"instruments": {"a": {"model": "lab_models.Nothing"}}}, "model 'lab_models.Nothing' cannot"),
        ({"instruments": {"a": {"model": "lab_models.NoInstrument"}}}, "is no SimulatedInstrument"),
        ({"instruments": {"a": {"framing": {"checksum": "crc99"}}}}, r"instruments\.a: there is no checksum 'crc99'"),
        ({"instruments": {"a": {"stream": {"every_s": 1, "property": "x"}}}}, r"stream: there is no property 'x'"),
        ({"speed": 0}, "speed: .*greater than 0, found 0"),
    ],
)
def test_a_description_that_cannot_be_used_says_where(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(LabError, match=problem):
        SimulatedLab({"instruments": {"a": {}}} | change)


def test_other_mistakes_are_refused(bench: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"nowhere\.yaml cannot be read"):
        SimulatedLab(tmp_path / "nowhere.yaml")
    with pytest.raises(ValueError, match="there is no fault 'fire'"):
        Fault("fire")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="more than 0"):
        ScaledClock(0)
    with pytest.raises(ValueError, match="backwards"):
        ManualClock().advance(-1)
    with SimulatedLab(bench) as lab:
        with pytest.raises(KeyError, match="no instrument 'oven' in this lab; there are: heater, thermometer, valve"):
            lab.port("oven")
        with pytest.raises(ValueError, match="the place of 'valve' is taken"):
            lab.plug("heater", "valve")


@pytest.mark.skipif(os.name != "posix", reason="ptys are there on POSIX only")
def test_the_lab_leaves_nothing_behind(bench: Path) -> None:
    gc.collect()  # what others have left open must not be closed in between
    before = set(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else set()
    lab = SimulatedLab(bench).start()
    folder = Path(lab.port("heater")).parent
    assert folder.exists()
    lab.close()
    lab.close()
    assert not folder.exists()
    if before:
        assert len(os.listdir("/proc/self/fd")) <= len(before)


def test_a_simulated_lab_needs_no_pyvisa() -> None:
    code = """import sys; sys.modules["pyvisa"] = None
from hardware_adapters.simulate import SimulatedLab
print(SimulatedLab({"instruments": {"valve": {}}}).instruments["valve"].identity)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "ETHER,Simulated,valve,1\n"
