"""The gallery of drivers: libraries of others, each by one YAML file in `examples/drivers/`, against its own simulator.

Runs with ETHER_DRIVERS=1 (100 replugs with ETHER_LONG=1), after `pip install -e '.[gallery]'`: the libraries are many,
and none is needed for Ether.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import socket
import threading
import time
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from patience import patience

from ether import Ether
from ether.errors import RemoteError, ValidationFailed

EXAMPLES = Path(__file__).parents[2] / "examples"
GALLERY = EXAMPLES / "drivers"

minimalmodbus: Any = pytest.importorskip("minimalmodbus") if os.environ.get("ETHER_DRIVERS") else None
pytestmark = pytest.mark.skipif(
    not os.environ.get("ETHER_DRIVERS"), reason="a gallery of foreign libraries: ETHER_DRIVERS=1"
)


def refused(ether: Ether, instance: str, method: str, params: object) -> bool:
    with pytest.raises((ValidationFailed, RemoteError)):
        ether.get(instance, method, params)
    return True


def heard(ether: Ether, topic: str, wanted: Callable[[Any], bool] = lambda value: True) -> Any:
    with ether.subscribe(topic) as values:
        while not wanted(value := values.get(patience(20.0)).value):
            pass
    return value


def pymeasure_channels(ether: Ether) -> None:
    assert heard(ether, "cryo/A") == 4.2
    assert ether.get("cryo", "input_B_kelvin") == 77.3
    ether.get("cryo", "set_setpoint", 12.5)
    assert ether.get("cryo", "setpoint") == 12.5
    assert refused(ether, "cryo", "set_setpoint", 301)
    assert ether.get("cryo", "setpoint") == 12.5


def pymeasure_arrays(ether: Ether) -> None:
    ether.get("fake", "set_output_voltage", 4)
    assert ether.get("fake", "output_voltage") == 4
    assert refused(ether, "fake", "set_output_voltage", 6)
    assert ether.get("fake", "frame").ndim == 2


def qcodes(ether: Ether) -> None:
    ether.get("dac", "set_ch1", 0.5)
    assert heard(ether, "dac/ch1", lambda value: value == 0.5)
    assert refused(ether, "dac", "set_ch1", 1.5)
    ether.get("dac", "set_ch2", 3)
    assert (ether.get("dac", "ch1"), ether.get("dac", "ch2")) == (0.5, 3)


def ophyd(ether: Ether) -> None:
    assert ether.get("motor", "move", {"value": 3}) is None
    assert ether.get("motor", "position") == 3
    assert heard(ether, "motor/readback", lambda value: value == 3)
    assert refused(ether, "motor", "move", {"value": 11})


def ophyd_async(ether: Ether) -> None:
    assert ether.get("motor", "move", {"new_position": 3}) is None
    assert ether.get("motor", "position") == 3
    assert refused(ether, "motor", "move", {"new_position": 11})


def pylabrobot_handler(ether: Ether) -> None:
    assert ether.get("robot", "channels") == 4
    assert ether.get("robot", "deck") == "deck"
    assert ether.get("robot", "setup_finished") is True


def gpiozero(ether: Ether) -> None:
    with ether.subscribe("button/pressed") as pressed:
        ether.get("button", "press")
        assert pressed.get(patience(20.0)).value is None
    assert ether.get("button", "is_pressed") is True
    ether.get("button", "release")
    ether.get("led", "on")
    assert ether.get("led", "is_lit") is True


def python_can(ether: Ether) -> None:
    assert heard(ether, "can/ids") == 291
    assert "ether-gallery" in ether.get("bus", "channel_info")  # the blocking read holds up no call


def opencv(ether: Ether) -> None:
    assert ether.get("camera", "isOpened") is True
    read = ether.get("camera", "read")
    assert read["ok"] is True
    assert read["frame"].shape == (4, 6, 3)
    assert ether.get("camera", "read")["frame"].max() == 40


def asyncua(ether: Ether) -> None:
    ether.get("reader", "set_oven", 60.0)
    assert heard(ether, "plc/oven", lambda value: value == 60)
    assert refused(ether, "reader", "set_oven", 81.0)
    assert ether.get("plc", "oven") == 60


def pymodbus(ether: Ether) -> None:
    assert heard(ether, "plc/temperature") == 17
    assert ether.get("client", "write_register", {"address": 4, "value": 42, "device_id": 1}) is None
    assert heard(ether, "plc/temperature", lambda value: value == 42)
    assert refused(ether, "client", "write_register", {"address": 4, "value": 101, "device_id": 1})
    assert ether.get("client", "read_holding_registers", {"address": 4, "device_id": 1}) == 42


def pint(ether: Ether) -> None:
    assert ether.get("sample", "to", {"other": "kelvin"}) == pytest.approx(293.15)
    assert ether.get("sample", "absolute") == pytest.approx(293.15)
    assert ether.get("sample", "magnitude") == 20


def pyvisa(ether: Ether) -> None:
    assert heard(ether, "meter/volts") == "1.2345"
    assert ether.get("meter", "query", {"message": "*IDN?"}).startswith("ACME")


def easy_scpi(ether: Ether) -> None:
    assert float(ether.get("meter", "volts")) == 1.2345


def pyserial(ether: Ether) -> None:
    ether.get("loop", "write", b"21.5\n")
    assert ether.get("loop", "readline") == "21.5\n"
    assert refused(ether, "loop", "set_baudrate", 1)


def simple_pid(ether: Ether) -> None:
    assert ether.get("regulator", "__call__", 15) == pytest.approx(10)
    assert refused(ether, "regulator", "set_setpoint", 81)


CASES: dict[str, Callable[[Ether], None]] = {
    case.__name__: case
    for case in (
        pymeasure_channels, pymeasure_arrays, qcodes, ophyd, ophyd_async, pylabrobot_handler, gpiozero, python_can,
        opencv, asyncua, pymodbus, pint, pyvisa, easy_scpi, pyserial, simple_pid,
    )
}  # fmt: skip


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def written(name: str, folder: Path, **places: str) -> Path:
    """The file of the gallery, with paths that hold here, and with ports that are free."""
    text = (GALLERY / f"{name}.yaml").read_text().replace("examples/drivers/", f"{GALLERY}/")
    for old, new in {"48401": free_port(), "48502": free_port(), **places}.items():
        text = text.replace(old, new)
    file = folder / f"{name}.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("name", CASES)
def test_a_foreign_library_by_yaml_alone(name: str, tmp_path: Path) -> None:
    own = Ether()
    try:
        own.tap(written(name, tmp_path), timeout_s=patience(60.0))
        CASES[name](own)
    finally:
        own.shutdown()


class ModbusOven(threading.Thread):
    """A device of Modbus RTU behind a port that can be pulled: it holds one register, and answers to reads of it."""

    def __init__(self, port: Path) -> None:
        super().__init__(daemon=True)
        self.port, self.value = port, 215
        self._master: int | None = None
        self._lock = threading.Lock()
        self._ended = False
        self.plug()
        self.start()

    def plug(self) -> None:
        master, slave = pty.openpty()
        tty.setraw(slave)
        self.port.symlink_to(os.ttyname(slave))
        os.close(slave)
        with self._lock:
            self._master = master

    def unplug(self) -> None:
        self.port.unlink(missing_ok=True)
        with self._lock:
            master, self._master = self._master, None
        if master is not None:
            os.close(master)

    def run(self) -> None:
        asked = b""
        while not self._ended:
            with self._lock:
                master = self._master
                if master is not None and select.select([master], [], [], 0.01)[0]:
                    with contextlib.suppress(OSError):  # nobody has it open
                        asked += os.read(master, 256)
                        if len(asked) >= 8:
                            os.write(master, self._answer(asked[:8]))
                            asked = b""
            threading.Event().wait(0.002)

    def _answer(self, asked: bytes) -> bytes:
        told = bytes([asked[0], asked[1], 2]) + self.value.to_bytes(2, "big")
        return told + minimalmodbus._calculate_crc(told)

    def end(self) -> None:
        self._ended = True
        self.join()
        self.unplug()


REPLUGS = 100 if os.environ.get("ETHER_LONG") else 5


def test_a_modbus_device_comes_back_after_each_replug(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By YAML alone; each time within 2 s, and the log is bounded."""
    port = tmp_path / "oven"
    oven = ModbusOven(port)
    own = Ether()
    slowest = 0.0
    try:
        own.tap(written("minimalmodbus", tmp_path, PORT=str(port)), timeout_s=patience(60.0))
        with own.subscribe("oven/t") as polled:
            for number in range(REPLUGS):
                oven.unplug()
                enough = time.monotonic() + patience(20.0)
                while time.monotonic() < enough and not next(
                    row for row in own.instances() if row["name"] == "oven"
                ).get("offline"):
                    threading.Event().wait(0.05)
                oven.value = number * 10
                oven.plug()
                began = time.monotonic()
                while polled.get(patience(20.0)).value != number:
                    pass
                slowest = max(slowest, time.monotonic() - began)
        assert own.get("oven", "read_register", {"registeraddress": 0}) == oven.value
    finally:
        own.shutdown()
        oven.end()
    told = capfd.readouterr().err
    print(f"{REPLUGS} replugs, the slowest return took {slowest:.2f} s, {told.count(chr(10))} lines of log")
    assert slowest < patience(2.0)
    assert told.count("its device is back") == REPLUGS
    assert told.count("\n") < 200 + 8 * REPLUGS


def test_no_entry_has_a_file_in_python() -> None:
    assert {file.stem for file in GALLERY.glob("*.yaml")} == {*CASES, "minimalmodbus"}
    assert not list(GALLERY.rglob("*.py"))
