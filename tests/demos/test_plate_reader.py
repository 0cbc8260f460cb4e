"""The demo of the plate reader, as commands: on simulated instruments, over both engines."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from patience import patience
from programs import run, running
from running_brokers import engines, mosquitto_missing

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "plate_reader"
ETHER = ("-m", "ether.cli.main")

pytest.importorskip("pyvisa", reason="pyvisa is not installed: pip install -e '.[visa]'")

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]
pytestmark = pytest.mark.in_turn("engine")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the example, with a data folder of its own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    made = tmp_path / "plate_reader"
    shutil.copytree(EXAMPLE, made, ignore=shutil.ignore_patterns("__pycache__"))
    return made


@pytest.mark.parametrize("engine", ENGINES)
def test_a_plate_is_read_and_explained(folder: Path, engine: str) -> None:
    done = run(folder, "run.py", "--rows", "G", "--engine", engine)
    assert done.code == 0, done
    found = {row: float(ic50) for row, ic50 in re.findall(r"^([A-H]) +([\d.]+) +[\d.]+ +\d+$", done.out, re.MULTILINE)}
    assert found == {"G": pytest.approx(10, rel=0.2)}
    assert "SIMULATED: no hardware was used" in done.out
    told = why(folder, "absorbance")
    assert told["simulated"] is True
    steps = {step["topic"]: step for step in told["steps"] if "topic" in step}
    assert steps["absorbance"]["run"] == "plate/1"
    assert steps["position"]["value"]["well"] == steps["absorbance"]["value"]["well"] == "G10"  # which well it was
    assert steps["stage.go_to"]["value"]["params"] == {"well": "G10"}
    assert {context["class"] for context in told["contexts"].values()} >= {
        "plate_reader.Stage",
        "plate_reader.Photometer",
    }
    saved = ether(folder, "data", "plate-reader", "-T", "absorbance", "--run", "plate/1", "--json")
    wells = [json.loads(line)["value"]["well"] for line in saved.splitlines()]
    assert sorted(wells) == sorted(f"G{column}" for column in range(1, 13))


def test_the_lab_alone_is_a_simulated_session(folder: Path) -> None:
    with running(folder, *ETHER, "run", "lab.yaml", "--sim") as program:
        program.wait_for("is ready. SIMULATED")
        environment = {"XDG_RUNTIME_DIR": str(program.runtime)}
        assert "session plate-reader is SIMULATED" in ether(folder, "ps", **environment)
        assert json.loads(ether(folder, "call", "stage.go_to", "well=B3", "--json", **environment))
        read = json.loads(ether(folder, "call", "photometer.read", "--json", **environment))
        assert "B3" in json.dumps(read)


def why(folder: Path, topic: str) -> dict[str, object]:
    told: dict[str, object] = json.loads(ether(folder, "why", topic, "--last", "--session", "plate-reader", "--json"))
    return told


def ether(folder: Path, *words: str, **environment: str) -> str:
    """What a command says."""
    import subprocess

    done = subprocess.run(
        [sys.executable, *ETHER, *words], cwd=folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=patience(60), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done
    return done.stdout
