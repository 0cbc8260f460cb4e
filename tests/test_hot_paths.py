"""The hot paths execute no more instructions than the table in docs/decisions/0087-instruction-counts.md says.

A path that costs more than 5 % more fails. Whoever has a reason raises the number there, in a line that says why. The
counts do not move with load; they are those of one Python, as another one compiles to other instructions.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from patience import patience

from ether.wire import envelope
from ether.wire.head import pack_headers

ROOT = Path(__file__).resolve().parents[1]
BASELINE = ROOT / "docs" / "decisions" / "0087-instruction-counts.md"
ROW = re.compile(r"^\| ([a-z][^|]*?) \| (\d+) \| (\d+) \|", re.MULTILINE)
ALLOWED = 1.05

Costs = dict[str, list[int]]


def too_much(costs: Costs, baseline: Costs) -> list[str]:
    """The paths that cost more than they may."""
    return [
        f"{path}: {now} {what}, {now / before:.3f} × the {before} in {BASELINE.name}; at most {ALLOWED} × are allowed"
        for path, cost in costs.items()
        for now, before, what in zip(cost, baseline[path], ("instructions", "calls into C"), strict=True)
        if now > ALLOWED * before + 1  # one call more of sixteen is no finding
    ]


def baseline() -> Costs:
    return {path: [int(instructions), int(calls)] for path, instructions, calls in ROW.findall(BASELINE.read_text())}


def test_each_path_costs_what_it_did() -> None:
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the table is that of Python 3.11")
    command = [sys.executable, str(ROOT / "benchmarks" / "hot_paths.py"), "--json"]
    settings = {**os.environ, "PYTHONHASHSEED": "0"}
    costs = json.loads(subprocess.check_output(command, env=settings, cwd=ROOT, timeout=patience(60)))
    assert set(costs) == set(baseline())
    assert too_much(costs, baseline()) == []


def test_a_path_that_packs_its_headers_twice_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    measured = importlib.import_module("hot_paths").measured
    before = measured()
    monkeypatch.setattr(envelope, "pack_headers", lambda *given: (pack_headers(*given), pack_headers(*given))[0])
    noticed = too_much(measured(), before)
    assert {said.partition(":")[0] for said in noticed} >= {"publish", "publish at QoS 0", "call"}


def test_each_call_into_c_counts() -> None:
    assert too_much({"publish": [100, 12]}, {"publish": [100, 10]}) != []
    assert too_much({"publish": [106, 11]}, {"publish": [100, 10]}) == []
