"""Every benchmark can be started: what it imports is there, and its options are read. What it measures is its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from patience import patience

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
PROGRAMS = sorted(path.name for path in FOLDER.glob("*.py") if "ArgumentParser" in path.read_text())


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_starts(program: str) -> None:
    command = [sys.executable, str(FOLDER / program), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=patience(60))
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
