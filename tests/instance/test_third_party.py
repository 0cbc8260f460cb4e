"""Three drivers from PyPI run from YAML alone: a PyMeasure instrument, a PID regulator, a VISA instrument."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import patience

from ether import Ether
from ether.errors import ValidationFailed

pytest.importorskip("pymeasure", reason="pymeasure is not installed: pip install -e '.[drivers]'")
pytest.importorskip("simple_pid", reason="simple-pid is not installed: pip install -e '.[drivers]'")
pytest.importorskip("pyvisa_sim", reason="pyvisa-sim is not installed: pip install -e '.[test]'")

BENCH = """
    spec: "1.0"
    devices:
      instrument:
        eom:
          GPIB INSTR: {q: "\\n", r: "\\n"}
        error: ERROR
        dialogues:
          - {q: "*IDN?", r: "ACME,Instrument,0007,2.0"}
        properties:
          frequency:
            default: 1.0
            getter: {q: "FREQ?", r: "{:.2f}"}
            setter: {q: "FREQ {:f}"}
            specs: {min: 0, max: 5000000, type: float}
          output:
            default: 0
            getter: {q: "OUTP?", r: "{:d}"}
            setter: {q: "OUTP {:d}"}
            specs: {min: 0, max: 1, type: int}
    resources:
      GPIB0::8::INSTR: {device: instrument}
      GPIB0::9::INSTR: {device: instrument}
"""

LAB = """
    instances:
      generator:
        class_path: pymeasure.instruments.agilent.Agilent33220A
        args: ["GPIB0::8::INSTR"]
        kwargs: {visa_library: "BENCH@sim", read_termination: "\\n", write_termination: "\\n"}
      regulator:
        class_path: simple_pid.PID
        args: [2.0, 0.0, 0.0]
        kwargs: {setpoint: 20, sample_time: null}
      scope:
        class_path: hardware_adapters.VisaInstrument
        args: ["GPIB0::9::INSTR@BENCH@sim"]
    registry:
      pymeasure.instruments.agilent.Agilent33220A:
        on_connect: {method: set_output, args: [true]}
        on_stop: {method: set_output, args: [false]}
        properties:
          frequency: {get: {topic: generator/frequency, every: 100ms}, set: true, unit: Hz, limits: [1, 1000]}
          output: {set: true}
        safe_state: {after: 2s, calls: {method: set_output, args: [false]}}
      simple_pid.PID:
        methods:
          __call__:
            ether_get: {}
            arguments: {input_: {limits: [-50, 400], unit: °C}}
        properties:
          setpoint: {set: true, unit: °C, limits: [0, 80]}
      hardware_adapters.VisaInstrument:
        on_connect: {method: write, args: ["OUTP 1"]}
        methods:
          query: {ether_get: {}}
        safe_state: {after: 2s, calls: {method: write, args: ["OUTP 0"]}}
"""


@pytest.fixture
def ether(tmp_path: Path) -> Iterator[Ether]:
    bench = tmp_path / "bench.yaml"
    bench.write_text(textwrap.dedent(BENCH))
    lab = tmp_path / "lab.yaml"
    lab.write_text(textwrap.dedent(LAB).replace("BENCH", str(bench)))
    own = Ether()
    own.tap(lab)
    yield own
    own.shutdown()


def test_three_drivers_from_yaml_alone(ether: Ether) -> None:
    polled = ether.subscribe("generator/frequency")
    ether.get("generator", "set_frequency", 12.5)
    assert ether.get("generator", "frequency") == 12.5
    while polled.get(patience(10.0)).value != 12.5:  # it is polled, and what was set arrives
        pass
    assert ether.get("generator", "output") is True  # on_connect
    with pytest.raises(ValidationFailed, match="value: a number from 1 to 1000 Hz"):
        ether.get("generator", "set_frequency", 2000)  # the driver itself takes 5 MHz
    assert ether.get("generator", "frequency") == 12.5
    assert ether.get("scope", "query", "OUTP?") == "1"

    assert ether.get("regulator", "__call__", 15) == pytest.approx(10)
    ether.get("regulator", "set_setpoint", 30)
    assert ether.get("regulator", "__call__", 15) == pytest.approx(30)
    with pytest.raises(ValidationFailed, match="value: a number from 0 to 80 °C"):
        ether.get("regulator", "set_setpoint", 81)
    assert ether.get("regulator", "setpoint") == 30
