"""`ether.tap(sim=True)` and `ether run --sim`: every device is simulated, and every record says so."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import patience
from programs import running, write
from running_brokers import engines, mosquitto_missing

from ether import Ether
from ether.errors import ConfigError, EtherError, LifecycleFailed, NotAllowedHere, RemoteError, RunDiffers, StartFailed
from ether.launch.simulated.lab import VARIABLE
from ether.ledger.reader import LedgerReader
from ether.provenance.origins import is_simulated

pytest.importorskip("pyvisa", reason="pyvisa is not installed: pip install -e '.[visa]'")

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]

BENCH = """
instruments:
  heater:
    idn: ACME,Heater,0042,1.3
    twin_of: /dev/ttyUSB0
    properties:
      power: {get: "POW?", set: "POW {}", min: 0, max: 100}
  thermometer:
    twin_of: TCPIP0::10.0.0.7::5025::SOCKET
    properties:
      temperature: {get: "TEMP?", value: 21, form: "{:.3f}"}
  supply: {twin_of: "GPIB0::8::INSTR"}
wiring:
  - {from: heater.power, to: thermometer.temperature, gain: 0.8, offset: 21, tau_s: 0.2}
"""
HEATER = {"class_path": "twin_parts.Heater", "args": ["/dev/ttyUSB0"]}
THERMOMETER = {"class_path": "twin_parts.Thermometer"}
pytestmark = pytest.mark.in_turn("engine")


def bench() -> dict[str, Any]:
    import yaml

    read: dict[str, Any] = yaml.safe_load(BENCH)
    return read


@pytest.fixture
def ether() -> Iterator[Ether]:
    own = Ether()
    yield own
    try:
        own.shutdown()
    except (LifecycleFailed, EtherError):
        pass  # what was killed on purpose cannot be asked


def eventually(look: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """Ask again and again until the answer is true; what it raises meanwhile counts as no."""
    deadline, last = time.monotonic() + patience(timeout_s), None
    while time.monotonic() < deadline:
        try:
            if found := look():
                return found
        except EtherError as error:
            last = error
    raise AssertionError(f"never true within {timeout_s:g} s; the last error: {last!r}")


@pytest.mark.parametrize("engine", ENGINES)
def test_every_device_is_its_twin_and_every_record_says_so(ether: Ether, engine: str, tmp_path: Path) -> None:
    config = {
        "instances": {"heater": HEATER, "thermometer": THERMOMETER},
        "record": {"topics": "all", "folder": str(tmp_path)},
        "simulate": bench(),
    }
    ether.tap(config, broker={"engine": engine}, sim=True)
    ether.get("heater", "set_power", 50)
    assert eventually(lambda: ether.get("thermometer", "read") > 60)  # in another process, by another wire
    assert {row["name"]: row.get("simulated") for row in ether.instances()}["heater"] is True
    assert ether.session_info()["simulated"]["lab"]
    assert VARIABLE in os.environ
    ether.record({"dose": 7}, "dose").wait()
    ether.shutdown()
    assert VARIABLE not in os.environ
    with LedgerReader.open(tmp_path) as reader:
        records = list(reader.records())
        assert {record.source for record in records} >= {"main", "thermometer"}
        assert all(record.run.startswith("sim-") for record in records)
        made = [record for record in records if record.kind == "data" or record.topic == "dose"]
        assert {record.topic for record in made} == {"temperature", "dose"}
        contexts = [reader.context(record.context) for record in made if record.context]
        assert len(contexts) == len(made)
        assert all(context is not None and is_simulated(context) for context in contexts)


def test_exports_say_so_too(ether: Ether, tmp_path: Path) -> None:
    pytest.importorskip("rocrate", reason="rocrate is not installed: pip install -e '.[crate]'")
    from ether.reading.export import crate as export_crate
    from ether.reading.export import prov as export_prov

    config = {"record": {"topics": "all", "folder": str(tmp_path / "ledger")}, "simulate": bench()}
    ether.tap(config, sim=True)
    ether.record(7, "dose").wait()
    ether.shutdown()
    with LedgerReader.open(tmp_path / "ledger") as reader:
        export_prov.write(reader, tmp_path / "prov.json")
        export_crate.write(reader, tmp_path / "crate")
    assert '"ether:simulated": true' in (tmp_path / "prov.json").read_text()
    crate = json.loads((tmp_path / "crate" / "ro-crate-metadata.json").read_text())
    root = next(each for each in crate["@graph"] if each["@id"] == "./")
    assert "SIMULATED" in root["description"]
    assert any("simulated devices" in str(each.get("description")) for each in crate["@graph"])
    kept = [path.read_text() for path in (tmp_path / "crate" / "artifacts").iterdir() if "lab" in path.name]
    assert any("/dev/ttyUSB0" in text for text in kept)  # what the lab was goes with it


def test_a_run_does_not_go_on_with_devices_of_another_kind(ether: Ether, tmp_path: Path) -> None:
    from ether.cli.runs.runs import run_rows

    config = {"session": "dosing", "record": {"topics": "all", "folder": str(tmp_path)}, "simulate": bench()}
    ether.tap(config, sim=True)
    with ether.run("dose") as run:
        for _ in run.trials(3):
            break
    ether.shutdown()
    assert [row["simulated"] for row in run_rows(str(tmp_path))] == [True]
    ether.tap(config)
    with (
        pytest.raises(RunDiffers, match="its devices were simulated, and are real now"),
        ether.run("dose", resume=True),
    ):
        pass
    with ether.run("dose") as run:
        for _ in run.trials(1):
            pass
    ether.shutdown()
    assert [row["simulated"] for row in run_rows(str(tmp_path))] == [True, False]


def test_the_real_bench_is_not_marked(ether: Ether, tmp_path: Path) -> None:
    config = {"record": {"topics": "all", "folder": str(tmp_path)}, "simulate": bench()}
    ether.tap(config)
    ether.record(1, "dose").wait()
    assert not ether.session_info().get("simulated")
    ether.shutdown()
    with LedgerReader.open(tmp_path) as reader:
        records = list(reader.records())
        assert records
        assert not any(record.run.startswith("sim-") for record in records)
        contexts = [reader.context(record.context) for record in records if record.context]
        assert not any(context is not None and is_simulated(context) for context in contexts)


def test_arguments_of_classes_without_adapters_are_mapped(ether: Ether) -> None:
    given = {
        "class_path": "twin_parts.Given",
        "args": ["gpib0::8::instr", 7],
        "kwargs": {"where": {"port": "/dev/ttyUSB0"}, "many": ["/dev/ttyUSB0", "plain text"], "host": "10.0.0.7"},
    }
    ether.tap({"instances": {"given": given}, "simulate": bench()}, sim=True)
    told = ether.get("given", "given")
    resource, seven = told["args"]
    assert resource.startswith("ASRL/")
    assert not resource.endswith("@py")  # which only our own adapter understands
    assert seven == 7
    assert told["many"][0] == told["where"]["port"] != "/dev/ttyUSB0"
    assert (told["many"][1], told["host"]) == ("plain text", "10.0.0.7")


def test_a_device_without_a_twin_is_refused_before_anything_starts(ether: Ether, tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    lines = ["instances:", "  pump:", "    class_path: twin_parts.Heater", "    kwargs:", "      port: /dev/ttyUSB7"]
    file.write_text("\n".join(lines) + "\nsimulate: bench.yaml\n")
    (tmp_path / "bench.yaml").write_text(BENCH)
    with pytest.raises(ConfigError) as refused:
        ether.tap(file, sim=True)
    said = refused.value
    assert (said.line, said.path) == (5, "instances.pump.kwargs.port")
    assert "'/dev/ttyUSB7' has no twin" in str(said)
    assert "twins of /dev/ttyUSB0, GPIB0::8::INSTR, TCPIP0" in str(said)
    assert VARIABLE not in os.environ


def test_an_adapter_whose_port_stands_in_the_class_is_refused(ether: Ether) -> None:
    only_heater = bench() | {"wiring": [], "instruments": {"heater": bench()["instruments"]["heater"]}}
    with pytest.raises(StartFailed) as refused:
        ether.tap({"instances": {"thermometer": THERMOMETER}, "simulate": only_heater}, sim=True)
    assert "NoTwin" in refused.value.reasons["thermometer"]
    assert "twin_of: TCPIP0::10.0.0.7::5025::SOCKET" in refused.value.reasons["thermometer"]


@pytest.mark.parametrize(
    ("simulate", "path", "said"),
    [
        (None, "simulate", "needs a description"),
        ("missing.yaml", "simulate", "missing.yaml cannot be read"),
        ({"instruments": {"a": {"model": "no.Such"}}}, "simulate.instruments.a", "'no.Such' cannot be imported"),
        ({"instruments": {"a": {"idnn": "x"}}}, "simulate.instruments.a.idnn", "idnn"),
        ({"instruments": {}, "faults": [{"instrument": "b", "fault": "silence"}]}, "simulate.faults", "'b'"),
    ],
)  # fmt: skip
def test_a_wrong_description_says_where(ether: Ether, simulate: object, path: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        ether.tap({"instances": {}, "simulate": simulate}, sim=True)
    assert refused.value.path == path
    assert said in str(refused.value)


def test_real_and_simulated_do_not_mix(ether: Ether) -> None:
    other = Ether()
    ether.tap({"session": "mixed", "simulate": bench()}, sim=True)
    with pytest.raises(NotAllowedHere, match="is simulated"):
        other.tap({"session": "mixed", "instances": {"given": {"class_path": "twin_parts.Given"}}})
    other.tap({"session": "mixed"})  # a program without devices may
    other.shutdown()
    ether.shutdown()
    ether.tap({"session": "mixed"})
    with pytest.raises(NotAllowedHere, match="not simulated"):
        other.tap({"session": "mixed", "simulate": bench()}, sim=True)


def test_instances_of_other_machines_run_here_and_can_be_added(ether: Ether) -> None:
    ether.tap({"instances": {"heater": {**HEATER, "host": "the-pi"}}, "simulate": bench()}, sim=True)
    assert ether.get("heater", "read_power") == 0
    ether.remove("heater")
    ether.add("heater2", HEATER)
    assert ether.get("heater2", "read_power") == 0
    with pytest.raises(ConfigError, match="no twin"):
        ether.add("other", {"class_path": "twin_parts.Heater", "args": ["/dev/ttyUSB9"]})


def test_faults_happen_by_name_at_their_time(ether: Ether) -> None:
    faulty = bench() | {"faults": [{"instrument": "heater", "fault": "wrong_device", "at_s": 0}]}
    with pytest.raises(StartFailed) as refused:
        ether.tap({"instances": {"heater": HEATER}, "simulate": faulty}, sim=True)
    assert "WrongDevice" in refused.value.reasons["heater"]
    assert "OTHER,Instrument" in refused.value.reasons["heater"]


SCRIPT = """
from ether import ether
ether.tap("lab.yaml", sim=True)
print("up")
input()
"""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="it looks for processes in /proc")
def test_the_lab_dies_with_its_program_and_its_death_is_told(tmp_path: Path, ether: Ether) -> None:
    write(tmp_path, "go.py", SCRIPT)
    (tmp_path / "bench.yaml").write_text(BENCH)
    parts = (Path(__file__).parents[1] / "parts" / "twin_parts.py").read_text()
    (tmp_path / "twin_parts.py").write_text(parts)
    (tmp_path / "lab.yaml").write_text(
        "session: dying\ninstances: {heater: {class_path: twin_parts.Heater, args: [/dev/ttyUSB0]}}\n"
        "simulate: bench.yaml\n"
    )
    with running(tmp_path, "go.py") as program:
        program.wait_for("up")
        (lab,) = [pid for pid in program.descendants() if b"simulate" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(lab, signal.SIGKILL)
        program.wait_for("the simulated lab ended")
        program.process.kill()
        program.assert_nothing_left()


def test_a_dead_lab_is_a_pulled_plug(ether: Ether) -> None:
    ether.tap({"instances": {"heater": HEATER}, "simulate": bench()}, sim=True)
    lab = ether._launch._simulation._lab  # type: ignore[union-attr]
    assert lab is not None
    os.kill(lab._child.pid, signal.SIGKILL)

    def broken() -> str:
        try:
            ether.get("heater", "read_power")
        except RemoteError as error:
            return error.remote_class
        return ""

    assert eventually(broken) == "Disconnected"
