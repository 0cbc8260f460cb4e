"""The demo of a behavioural task: run as a command, and what it prints is what was recorded."""

from __future__ import annotations

import re
import shutil
import statistics
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import run
from running_brokers import engines, mosquitto_missing

from ether import Ether
from ether.cli.main import main

np = pytest.importorskip("numpy", reason="numpy is not installed: pip install 'ether-medium[gym]'")
pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'ether-medium[gym]'")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "behavioural_task"
MODULES = ("cue_task", "behavioural_task", "alignment", "picture")
ROW = re.compile(r"^(\d+) +(go|no-go) +([\d,]+) +([\d,]+) +(\d+) ms +(\d+) µV$", re.MULTILINE)
LATENCY_MS = 120

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]
pytestmark = pytest.mark.in_turn("engine")


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example's modules can be imported."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_demo_aligns_physiology_to_its_trials(tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    shutil.copytree(EXAMPLE, tmp_path / "demo", ignore=shutil.ignore_patterns("__pycache__"))
    finished = run(tmp_path / "demo", "run.py", engine, "--svg", "mean.svg")
    assert finished.code == 0, finished.err
    assert re.search(
        r"^run go-nogo/1: [\d,]+ samples of 8 channels at 1,000 Hz, 0 missing$", finished.out, re.MULTILINE
    )
    rows = [[text.replace(",", "") for text in row] for row in ROW.findall(finished.out)]
    assert sorted((int(row[0]), row[1]) for row in rows) == [
        (1, "go"),
        (2, "go"),
        (3, "go"),
        (4, "no-go"),
        (5, "no-go"),
    ]
    assert all(row[3] == "1000" for row in rows), finished.out
    onsets = [int(row[4]) for row in rows]
    assert min(onsets) >= LATENCY_MS - 2, finished.out  # nothing comes before its cause …
    assert statistics.median(onsets) <= LATENCY_MS + 8, finished.out  # … and it is found where it is
    assert len(ET.parse(tmp_path / "demo" / "mean.svg").findall(".//{*}polyline")) == 2
    _assert_recorded(rows)


def _assert_recorded(rows: list[list[str]]) -> None:
    data = Ether().data("behaviour", "physiology", run="go-nogo", trial="all")
    counted: dict[int | None, int] = {}
    for record in data:
        assert record.value["samples"].shape[1] == 8
        counted[record.trial] = counted.get(record.trial, 0) + len(record.value["samples"])
    assert counted == {int(row[0]): int(row[2]) for row in rows}
    ends = Ether().data("behaviour", run="go-nogo", kinds=("run",))
    states = [record.value["state"] for record in ends if record.value["event"] == "trial-end"]
    assert len(states) == 5
    assert all({"cue_time", "reward", "reaction_s"} <= set(state) for state in states)


def test_its_plan_is_sound(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, parts: None) -> None:
    monkeypatch.chdir(EXAMPLE)
    assert main(["plan", "lab.yaml"]) == 0
    assert "lab.yaml: fine: 1 run of 2 instances" in capsys.readouterr().out


@pytest.mark.usefixtures("parts")
def test_the_environment_is_one_that_gymnasium_accepts() -> None:
    from cue_task import GO, LICK, NO_GO, QUIET, WAIT, CueTask
    from gymnasium.utils.env_checker import check_env

    check_env(CueTask(), skip_render_check=True)
    env = CueTask()

    def episode(cue: str, lick_at: int | None) -> tuple[list[int], float]:
        heard = [env.reset(seed=3, options={"cue": cue})[0]]
        while True:
            lick = lick_at is not None and sum(map(bool, heard)) > lick_at
            observation, reward, over, _, _ = env.step(LICK if lick else WAIT)
            heard.append(observation)
            if over:
                return heard, float(reward)

    heard, reward = episode("go", 30)
    assert (set(heard), reward) == ({QUIET, GO}, 1.0)
    assert 20 <= heard.count(QUIET) <= 41
    assert episode("no-go", 30)[1] == -1.0
    heard, reward = episode("no-go", None)
    assert (set(heard), reward) == ({QUIET, NO_GO}, 0.0)
    env.reset(seed=3, options={"cue": "go"})
    assert env.step(LICK)[1] == -1.0


def pieces(onset_s: float, dropped: int | None = None) -> list[dict[str, Any]]:
    """Two seconds in pieces of 50 ms, with a step after `onset_s`."""
    random = np.random.default_rng(1)
    samples = random.normal(0, 10, (2000, 8))
    samples[round(onset_s * 1000) :] += 60
    made = [
        {"first": first, "began": 1000.0, "samples": samples[first : first + 50].astype("f4")}
        for first in range(0, 2000, 50)
    ]
    return [piece for number, piece in enumerate(made) if number != dropped]


@pytest.mark.usefixtures("parts")
def test_alignment_goes_by_time_alone() -> None:
    from alignment import around, joined

    recording = joined(reversed(pieces(0.75)))
    assert (recording.samples.shape, recording.began, recording.missing) == ((2000, 8), 1000.0, 0)
    for cue_s in (0.5, 0.6, 0.7):
        aligned = around(recording, 1000.0 + cue_s)
        assert aligned.window.shape == (1000, 8)
        assert aligned.onset_ms == pytest.approx((0.75 - cue_s) * 1000, abs=1)
    late = joined(pieces(0.75)[3:])
    assert around(late, 1000.5).onset_ms == pytest.approx(250, abs=1)
    assert around(joined(pieces(9.0)), 1000.5).onset_ms is None


@pytest.mark.usefixtures("parts")
def test_samples_that_are_missing_are_counted_and_shift_nothing() -> None:
    from alignment import around, joined

    holed = joined(pieces(0.75, dropped=25))
    assert holed.missing == 50
    aligned = around(holed, 1000.5)
    assert aligned.onset_ms == pytest.approx(250, abs=1)
    assert 50 < aligned.peak_uv < 90
