"""Adapters in a simulated run: they open twins, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import patience

from hardware_adapters import AdapterError, Identity, NoTwin, PortNotFound, SerialPort
from hardware_adapters.simulate import SimulatedLab
from hardware_adapters.twins import VARIABLE

LAB = {
    "instruments": {
        "left": {"idn": "ACME,Heater,1,1", "twin_of": "/dev/ttyUSB0", "usb_serial": "A1"},
        "right": {"idn": "ACME,Heater,2,1", "twin_of": "/dev/ttyUSB1", "usb_serial": "A2"},
        "scope": {"idn": "ACME,Scope,3,1", "twin_of": "TCPIP0::10.0.0.7::5025::SOCKET"},
        "meter": {"idn": "ACME,Meter,4,1", "twin_of": "GPIB0::8::INSTR"},
    }
}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedLab]:
    with SimulatedLab(LAB, folder=tmp_path / "ports") as made:
        made.twins().save(tmp_path / "twins.json")
        monkeypatch.setenv(VARIABLE, str(tmp_path / "twins.json"))
        yield made


def test_both_sides_name_the_variable_alike() -> None:
    from ether.launch.simulated.lab import VARIABLE as OTHER

    assert VARIABLE == OTHER


def test_a_real_port_is_its_twin_and_keeps_its_name(lab: SimulatedLab) -> None:
    with SerialPort("/dev/ttyUSB1", timeout_s=patience(2)) as port:
        assert port.query("*IDN?") == "ACME,Heater,2,1"
        assert port.port == lab.port("right")
        assert port.name == "/dev/ttyUSB1"
    with SerialPort(lab.port("right"), timeout_s=patience(2)) as port:  # mapped before
        assert port.query("*IDN?") == "ACME,Heater,2,1"


@pytest.mark.parametrize(
    ("identity", "candidates"),
    [
        (Identity("ACME,Heater,2,1"), None),
        (Identity(usb_serial="A2"), None),
        (Identity("ACME,Heater,2,1"), ["/dev/ttyUSB*"]),
    ],
)
def test_a_device_is_found_by_its_identity(lab: SimulatedLab, identity: Identity, candidates: list[str] | None) -> None:
    with SerialPort(identity=identity, candidates=candidates, timeout_s=patience(2)) as port:
        assert port.query("*IDN?") == "ACME,Heater,2,1"


def test_patterns_that_fit_no_twin_find_nothing(lab: SimulatedLab) -> None:
    with pytest.raises(PortNotFound):
        SerialPort(identity="ACME,Heater,2,1", candidates=["/dev/ttyACM*"], timeout_s=0.5)


def test_what_has_no_twin_is_refused(lab: SimulatedLab) -> None:
    with pytest.raises(NoTwin) as refused:
        SerialPort("/dev/ttyS0")
    assert refused.value.there == ("/dev/ttyUSB0", "/dev/ttyUSB1", "GPIB0::8::INSTR", "TCPIP0::10.0.0.7::5025::SOCKET")
    assert "twin_of: /dev/ttyS0" in str(refused.value)
    SerialPort("loop://").close()  # no hardware


@pytest.mark.parametrize("resource", ["TCPIP0::10.0.0.7::5025::SOCKET", "gpib0::8::instr", "GPIB0::8::INSTR@py"])
def test_visa_resources_are_their_twins(lab: SimulatedLab, resource: str) -> None:
    pytest.importorskip("pyvisa", reason="pyvisa is not installed: pip install -e '.[visa]'")
    from hardware_adapters import VisaInstrument

    with VisaInstrument(resource, timeout_s=patience(2)) as visa:
        assert visa.query("*IDN?").startswith("ACME,")
        assert visa.name == resource
    with VisaInstrument(identity="ACME,Meter,4,1", timeout_s=patience(2)) as visa:
        assert visa.query("*IDN?") == "ACME,Meter,4,1"
    with pytest.raises(NoTwin):
        VisaInstrument("GPIB0::9::INSTR")


def test_a_lab_that_has_ended_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone.json"))
    with pytest.raises(AdapterError, match="the simulated lab of this run"):
        SerialPort("/dev/ttyUSB0")
