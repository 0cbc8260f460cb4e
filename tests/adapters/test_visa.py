"""VISA instruments over pyvisa-sim, and over pyvisa-py with real sockets and ptys; every status code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pyvisa = pytest.importorskip("pyvisa", reason="pyvisa is not installed: pip install 'ether-medium[visa]'")
pytest.importorskip("pyvisa_sim", reason="pyvisa-sim is not installed: pip install -e '.[test]'")

from pyvisa.constants import StatusCode  # noqa: E402
from running_brokers import soon  # noqa: E402

from hardware_adapters import (  # noqa: E402
    AdapterError,
    BadAnswer,
    Disconnected,
    Identity,
    NoAnswer,
    PermissionDenied,
    PortBusy,
    PortNotFound,
    Scpi,
    VisaFailure,
    VisaInstrument,
    WrongDevice,
)
from hardware_adapters.errors import __doc__ as error_tree  # noqa: E402
from hardware_adapters.scpi import InstrumentError, ScpiError, StandardEvents, StatusByte  # noqa: E402
from hardware_adapters.simulate import SimulatedLab  # noqa: E402
from hardware_adapters.visa import error_kind, resource_info, visa_error  # noqa: E402

BENCH = """
    spec: "1.0"
    devices:
      supply:
        eom:
          GPIB INSTR: {q: "\\n", r: "\\n"}
          USB INSTR: {q: "\\n", r: "\\n"}
        error: ERROR
        dialogues:
          - {q: "*IDN?", r: "ACME,Supply,0007,2.0"}
        properties:
          voltage:
            default: 1.0
            getter: {q: "VOLT?", r: "{:.2f}"}
            setter: {q: "VOLT {:.2f}"}
            specs: {min: 0, max: 30, type: float}
      twin:
        eom:
          USB INSTR: {q: "\\n", r: "\\n"}
        error: ERROR
        dialogues:
          - {q: "*IDN?", r: "ACME,Supply,0008,2.0"}
    resources:
      GPIB0::8::INSTR: {device: supply}
      USB0::0x1AB1::0x0588::S7::INSTR: {device: supply}
      USB0::0x1AB1::0x0588::S8::INSTR: {device: twin}
"""


@pytest.fixture
def bench(tmp_path: Path) -> str:
    """A bench of pyvisa-sim, as what follows the resource's name."""
    path = tmp_path / "bench.yaml"
    path.write_text(textwrap.dedent(BENCH))
    return f"@{path}@sim"


@pytest.fixture
def supply(bench: str) -> Iterator[VisaInstrument]:
    with VisaInstrument("GPIB0::8::INSTR" + bench, timeout_s=0.2) as supply:
        yield supply


def test_the_library_is_in_the_resource_string(supply: VisaInstrument) -> None:
    supply.write("VOLT 12.50")
    assert supply.query_value("VOLT?", float) == 12.5


def test_the_bundled_simulation() -> None:
    with VisaInstrument("ASRL1::INSTR@sim", command_end=b"\r\n") as device:
        assert device.query("?IDN").startswith("LSG Serial")


ERRORS = [code for code in StatusCode if code < 0]


@pytest.mark.parametrize("code", ERRORS, ids=lambda code: code.name)
def test_every_status_code_is_one_typed_error_and_leaves_the_port_usable(
    code: StatusCode, supply: VisaInstrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code comes from the library, as a failing read of a real session would return it."""
    library = type(supply._connection._resource.visalib)  # type: ignore[union-attr]

    def failing(self: Any, session: Any, count: int) -> Any:
        return b"", self.handle_return_value(session, code)

    with monkeypatch.context() as patch:
        patch.setattr(library, "read", failing)
        with pytest.raises(AdapterError) as caught:
            supply.query("VOLT?")
    assert type(caught.value) is error_kind(code)
    assert caught.value.command == b"VOLT?\n"
    assert isinstance(caught.value.__cause__, pyvisa.errors.VisaIOError)
    assert supply.lock.holding is None
    assert supply.wait_online(5)  # one that lost the connection has it again
    assert supply.query_value("VOLT?", float) == 1.0


def test_the_table_of_codes_has_each_code_once_and_nothing_else() -> None:
    from hardware_adapters.visa import _KINDS

    listed = [code for codes in _KINDS.values() for code in codes]
    assert len(listed) == len(set(listed))
    assert all(code < 0 for code in listed)
    assert {error_kind(code) for code in StatusCode if code >= 0} == {None}
    kinds = {error_kind(code) for code in ERRORS}
    assert kinds == {PortNotFound, PermissionDenied, PortBusy, NoAnswer, BadAnswer, Disconnected, VisaFailure}
    assert error_kind(StatusCode.error_timeout) is NoAnswer
    assert error_kind(StatusCode.error_connection_lost) is Disconnected
    assert error_kind(StatusCode.error_invalid_mode) is VisaFailure
    assert "error_invalid_mode" in str(visa_error("p", StatusCode.error_invalid_mode))
    assert "unknown status code -7" in str(visa_error("p", -7))
    assert all(f"{kind.__name__} (" in (error_tree or "") for kind in kinds if kind)


def test_no_answer(supply: VisaInstrument) -> None:
    with pytest.raises(NoAnswer, match=r"VOLT 3.00\\n': no answer within 0.2 s"):
        supply.query("VOLT 3.00", retries=0) and supply.query("VOLT 3.00")
    assert supply.query_value("VOLT?", float) == 3.0


def test_a_resource_that_is_not_there(bench: str) -> None:
    for name in ("GPIB0::9::INSTR", "nonsense"):
        with pytest.raises(PortNotFound, match=re.escape(name)):
            VisaInstrument(name + bench)
    with pytest.raises(VisaFailure, match="there is no VISA library 'nolib'"):
        VisaInstrument("GPIB0::8::INSTR@nolib")


def test_usb_numbers_are_in_the_name(bench: str) -> None:
    info = resource_info("USB0::0x1AB1::0x0588::S7::INSTR@py")
    assert (info.usb_serial, info.usb_vid, info.usb_pid) == ("S7", 0x1AB1, 0x0588)
    with VisaInstrument(library=bench[1:], identity=Identity(usb_serial="S8")) as twin:
        assert twin.query("*IDN?") == "ACME,Supply,0008,2.0"
    with pytest.raises(WrongDevice):
        VisaInstrument("GPIB0::8::INSTR" + bench, identity="ACME,Supply,0008,2.0")
    everywhere = [f"{name}{bench}" for name in ("GPIB0::8::INSTR", "USB0::0x1AB1::0x0588::S8::INSTR")]
    with VisaInstrument(identity="ACME,Supply,0008,2.0", candidates=everywhere) as found:
        assert found.port == everywhere[1]


def test_without_pyvisa_the_error_names_the_extra() -> None:
    code = """import sys; sys.modules["pyvisa"] = None
try: from hardware_adapters import VisaInstrument
except ImportError as error: print(error)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "VISA instruments need pyvisa: pip install 'ether-medium[visa]'\n"


LAB = {
    "instruments": {
        "scope": {
            "idn": "ACME,Scope,1,1",
            "reached_by": "socket",
            "properties": {"gain": {"get": "GAIN?", "set": "GAIN {}", "min": 0, "max": 10}},
            "dialogues": {"WAVE?": "#15a\nb\nc", "LONG?": "x"},
        },
        "meter": {"idn": "ACME,Meter,2,1", "dialogues": {"V?": "1.25"}},
    },
}


@pytest.fixture
def lab() -> Iterator[SimulatedLab]:
    with SimulatedLab(LAB) as lab:
        yield lab


@pytest.fixture
def scope(lab: SimulatedLab) -> Iterator[VisaInstrument]:
    with VisaInstrument(lab.resource("scope"), identity="ACME,Scope,1,1", timeout_s=0.5) as scope:
        yield scope


def test_over_a_real_socket_and_a_real_pty(lab: SimulatedLab, scope: VisaInstrument) -> None:
    assert scope.query("GAIN?") == "0"
    if os.name == "posix":
        with VisaInstrument(lab.resource("meter"), timeout_s=0.5) as meter:
            assert meter.query_value("V?", float) == 1.25


def test_a_block_whose_data_looks_like_its_end(scope: VisaInstrument) -> None:
    assert Scpi(scope).query_block("WAVE?") == b"a\nb\nc"
    assert scope.query("GAIN?") == "0"


def test_an_instrument_on_the_network_that_goes_and_comes_back(lab: SimulatedLab, scope: VisaInstrument) -> None:
    lab.unplug("scope")
    for _ in range(3):  # a socket tells of its end when something was sent into it
        with pytest.raises((NoAnswer, Disconnected)):
            scope.query("GAIN?", timeout_s=0.2)
    lab.plug("scope")
    assert soon(lambda: scope.counts.connections == 2, 5)
    assert scope.wait_online(5)
    assert scope.query("GAIN?") == "0"


def test_scpi_errors_completion_and_status(lab: SimulatedLab, scope: VisaInstrument) -> None:
    scpi = Scpi(scope)
    assert scpi.events() == StandardEvents.POWER_ON
    assert scpi.errors() == []
    scpi.do("GAIN 5")
    assert lab.value("scope.gain") == 5
    with pytest.raises(
        InstrumentError, match="asked for 'GAIN 50': the instrument reports: -222 Data out of range"
    ) as e:
        scpi.do("GAIN 50")
    assert e.value.errors == (ScpiError(-222, "Data out of range"),)
    assert lab.value("scope.gain") == 5
    scope.write("NONSENSE")
    scope.write("GAIN much")
    assert scpi.status() == StatusByte.ERROR_QUEUE | StatusByte.EVENT_SUMMARY
    assert scpi.errors() == [ScpiError(-113, "Undefined header"), ScpiError(-104, "Data type error")]
    assert scpi.events() == StandardEvents.COMMAND_ERROR | StandardEvents.EXECUTION_ERROR
    scope.write("NONSENSE")
    scpi.clear()
    assert scpi.errors() == []
    scpi.reset()
    assert lab.value("scope.gain") == 0
    assert scpi.identify() == "ACME,Scope,1,1"


def test_an_error_queue_without_an_end(lab: SimulatedLab, scope: VisaInstrument) -> None:
    with pytest.raises(BadAnswer, match="a number and a text"):
        Scpi(scope, error_query="LONG?").errors()
    lab.instruments["scope"]._dialogues["ERR?"] = "7"  # type: ignore[attr-defined]
    with pytest.raises(BadAnswer, match="does not end after 100 entries"):
        Scpi(scope, error_query="ERR?").errors()
