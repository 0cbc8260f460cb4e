"""The demo of three models on a stream of images, as a command: all images arrive, and the models see what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from programs import run
from running_brokers import engines, mosquitto_missing

RUN = Path(__file__).resolve().parents[2] / "examples" / "image_models" / "run.py"

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]
pytestmark = pytest.mark.in_turn("engine")


@pytest.mark.parametrize("engine", ENGINES)
def test_three_models_follow_cells(tmp_path: Path, engine: str) -> None:
    finished = run(tmp_path, str(RUN), engine, "--frames", "45")
    assert finished.code == 0, finished.err
    assert f"Broker: {engine} " in finished.err
    assert re.search(r"^45 frames of 128 x 128 pixels at [\d.]+ a second, 0 dropped$", finished.out, re.MULTILINE)
    cells, pixels = re.search(r"^(\d+) cells followed, ([\d.]+) pixels from where", finished.out, re.MULTILINE).groups()
    assert cells == "7"
    assert float(pixels) < 1.0
    assert "By hand, in one loop, the tracks are the same." in finished.out
    rows = re.findall(
        r"^(denoise|segment|track|end to end) +([\d.]+) ms +([\d.]+) ms +([\d.]+) ms$", finished.out, re.MULTILINE
    )
    assert [name for name, *_ in rows] == ["denoise", "segment", "track", "end to end"]
    p50 = {name: float(middle) for name, middle, _, _ in rows}
    assert 0 < max(p50["denoise"], p50["segment"], p50["track"]) <= p50["end to end"]
    assert all(float(middle) <= float(high) for _, middle, high, _ in rows)
