"""The user's own programs run as they were written, with their asserts, on each broker: the contract of the surface.

The files in `user_programs/` are the user's, and are not to be edited. The broker is the embedded one, or comes from
`ETHER_BROKER`.
"""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_params import EVERY
from programs import Finished, run
from running_brokers import only_engine, running_broker

PROGRAMS = Path(__file__).parent / "user_programs"


Start = Callable[[str], Finished]
"""Runs one of the programs to its end."""

BROKERS = ["embedded", *EVERY] if only_engine is None else EVERY


pytestmark = pytest.mark.in_turn("started")


@pytest.fixture(params=BROKERS)
def started(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """The user's folder beside a broker that runs already, or beside none."""
    folder = Path(shutil.copytree(PROGRAMS, tmp_path / "programs"))

    def start(script: str) -> Finished:
        finished = run(folder, script)
        assert finished.code == 0, finished.err
        assert "Ether system shutdown complete" in finished.err
        assert script == "test_ether_save.py" or "Traceback" not in finished.err, finished.err
        return finished

    if request.param == "embedded":
        yield start
    else:
        with running_broker(request.param) as broker:
            monkeypatch.setenv("ETHER_BROKER", broker.url_tcp)
            yield start


def test_the_pipeline(started: Start) -> None:
    lines = started("run_pipeline.py").out.splitlines(keepends=True)
    begins = next(at for at, line in enumerate(lines) if "Generating data - 4242" in line)
    together, by_hand = "".join(lines[:begins]), "".join(lines[begins:])
    assert sorted(re.findall(r"Collected result - (\d+)", together)) == ["168", "84"]
    assert "mean: 126.0, max: 168, min: 84" in together
    assert re.findall(r"Collected result - (\d+)", by_hand) == ["8484", "16968"]
    assert "mean: 12726.0, max: 16968, min: 8484" in by_hand
    pids = set(re.findall(r"\[PID (\d+)\]", together))
    assert len(pids) == 4
    assert pids.isdisjoint(re.findall(r"\[PID (\d+)\]", by_hand))


def test_the_registry(started: Start) -> None:
    out = started("run_registry.py").out
    assert "COLLECTED generator_1_2x 84" in out
    assert out.rstrip().endswith("USER-REGISTRY-OK")


def test_the_sync(started: Start) -> None:
    out = started("sync_demo.py").out
    results, last = out.splitlines()
    assert ast.literal_eval(results) == {"a": "a ready", "b": "b ready"}
    assert last == "USER-SYNC-OK"


def test_the_service(started: Start) -> None:
    """Its asserts look at what `ether.save` says of an item that exists."""
    finished = started("test_ether_save.py")
    assert "'error': 'ValueError: Item 1 already exists'" in finished.err
    assert finished.out.rstrip().endswith("USER-SERVICE-OK")
