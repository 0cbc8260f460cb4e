"""Runs as the configuration plans them: what is set and called before each body; what the past tells the next plan."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_params import EVERY, On
from ledgers import BEGAN, Source, make_ledger
from patience import patience

from ether import Ether
from ether.config import load_config
from ether.errors import ConfigError, NotPlanned, ReadbackDiffers
from ether.runs.plan.estimate_rules import Past, PastTopic, estimate, kept_bytes, time_faults
from ether.runs.plan.report import plan_report

PLAN: dict[str, Any] = {
    "map": {
        "conditions": {"x": [1, 2], "y": [0, 5]},
        "set": "stage.move",
        "read": "stage.read",
        "calls": ["stage.whereabouts"],
        "suspend_while": {"door": "open"},
        "outside": ["door"],
        "data": {"result": {}, "stage": {}, "never": {}},
    },
    "snake": {"conditions": {"x": [1, 2], "y": [0, 5]}, "order": "snake"},
    "near": {"conditions": [3], "set": "stage.move", "read": "stage.read", "within": 0.0001},
    "refused": {"conditions": [3], "calls": [{"call": "stage.refuse", "kwargs": {"x": 9}}]},
}
pytestmark = pytest.mark.in_turn("tapped")


def lab(folder: Path, broker: Any, **more: Any) -> dict[str, Any]:
    return {
        "session": "planned",
        "record": {"topics": "all", "folder": str(folder)},
        "broker": broker,
        "instances": {name.lower(): {"class_path": f"run_parts.{name}"} for name in ("Stage", "Sensor", "Analysis")},
        "plan": {**PLAN, **more},
    }


@pytest.fixture(params=EVERY)
def tapped(request: pytest.FixtureRequest, on: On, tmp_path: Path) -> Iterator[Ether]:
    with Ether().tap(lab(tmp_path / "ledger", on(request.param))) as own:
        yield own


def test_what_is_planned_happens_and_tells_the_next_plan(tapped: Ether, tmp_path: Path) -> None:
    met = []
    with tapped.run("map") as run:
        for trial in run.planned():
            met.append((trial.condition, round(trial.readback, 3)))
            with tapped.subscribe("result") as results:
                tapped.pub({"n": trial.number}, topic="measure")
                assert results.get(timeout_s=patience(10)).value == {"n": trial.number}
    assert met == [
        ({"x": 1, "y": 0}, 1.001), ({"x": 1, "y": 5}, 51.001), ({"x": 2, "y": 0}, 2.001), ({"x": 2, "y": 5}, 52.001),
    ]  # fmt: skip
    stage = tapped.data(folder=tmp_path / "ledger", topic="stage", run="map", trial="all")
    assert [(record.trial, record.value) for record in stage] == [(n, {"n": n}) for n in (1, 2, 3, 4)]
    _assert_the_past_is_told(tmp_path / "ledger")


def _assert_the_past_is_told(folder: Path) -> None:
    config = load_config(lab(folder, {"engine": "auto"}, map={**PLAN["map"], "each": "1ms", "at_most": "2ms"}))
    report = plan_report(config, "map", None, os.environ)
    (run,) = report.runs
    assert (run.past.runs, len(run.past.trial_s)) == (1, 4)
    assert run.estimate.based_on == "median of 4 past trials"
    assert run.estimate.seconds is not None
    assert 0.005 < run.estimate.seconds < 60
    assert run.past.topics is not None
    assert run.past.topics["result"].count == run.past.topics["stage"].count == 4
    assert run.past.topics["stage"].size == len('{"n":1}')
    assert run.estimate.unknown == ("never",)
    places = [finding.fault.place for finding in report.findings]
    assert set(places) == {("plan", "map", key) for key in ("each", "at_most")} | {("plan", "map", "data", "never")}


def test_the_plan_decides_what_holds_a_run_up(tapped: Ether) -> None:
    with tapped.run("map") as run:
        tapped.pub("open", topic="door")
        _soon(lambda: "door" in run.held_up_by)
        tapped.pub("closed", topic="door")
        assert len([trial.number for trial in run.planned()]) == 4
    with tapped.run("snake") as run:
        assert [(trial.number, *trial.condition.values()) for trial in run.planned()] == [
            (1, 1, 0), (2, 1, 5), (4, 2, 5), (3, 2, 0),
        ]  # fmt: skip
    with tapped.run("map", suspend_while={}) as run:
        tapped.pub("open", topic="door")
        assert len([trial.number for trial in run.planned()]) == 4


def _soon(holds: Callable[[], bool]) -> None:
    deadline, pause = time.monotonic() + patience(10), threading.Event()
    while not holds() and time.monotonic() < deadline:
        pause.wait(0.01)
    assert holds()


def test_what_goes_wrong_before_the_body_ends_the_run(tapped: Ether) -> None:
    with pytest.raises(ReadbackDiffers), tapped.run("near") as run:
        list(run.planned())
    with pytest.raises(RuntimeError, match="beyond the end of the rail"), tapped.run("refused") as run:
        list(run.planned())
    with pytest.raises(NotPlanned, match="plans no run 'other'"), tapped.run("other") as run:
        run.planned()


@pytest.mark.parametrize(
    "conditions", [{"trials": 3}, {"conditions": [1, 2]}, {"conditions": {"x": [1], "y": [2]}, "by": "zip"}]
)
def test_a_snake_is_planned_over_a_grid_alone(conditions: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"plan\.r\.order: found snake; this order needs a grid"):
        planned(order="snake", **conditions)


# -- estimates


def planned(**said: Any) -> Any:
    return load_config({"plan": {"r": said}}).plan["r"]


def test_nothing_is_guessed() -> None:
    found = estimate(planned(trials=5, data={"a": {"every": "10Hz", "size": "1 kB"}}), 5, Past())
    assert (found.seconds, found.bytes, found.unknown) == (None, None, ("a",))


def test_the_past_goes_before_what_is_stated_and_one_slow_trial_changes_nothing() -> None:
    past = Past(2, (3.0, 3.0, 4.0, 30_000.0, 3.0), {"a": PastTopic(10, 100.0, 20.0, 5)})
    plan = planned(trials=10, each="2s", at_most="20s", data={"a": {}, "b": {"per_trial": 3, "size": "2 MB"}})
    found = estimate(plan, 10, past)
    assert found.seconds == 30.0
    assert found.bytes == 20 * kept_bytes(100) + 30 * kept_bytes(2e6)
    faults = time_faults(plan, ("plan", "r"), found, past)
    assert [fault.place[-1] for fault in faults] == ["each", "at_most"]
    assert "(median)" in faults[0].valid
    assert "30 s" in faults[1].valid


@pytest.mark.parametrize("size", [10, 500, 1000, 2200, 3000, 5000, 20_000, 100_000])
def test_what_a_ledger_takes_is_near_the_estimate(tmp_path: Path, size: int) -> None:
    source = Source("probe")
    count = 300 if size > 4000 else 3000
    for number in range(count):
        source.add("a", f"{number:08d}".ljust(size - 2, "x"), BEGAN + number)  # as JSON, in quotes
    folder = make_ledger(tmp_path / "ledger", [source])
    takes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    found = estimate(planned(trials=3, data={"a": {"per_trial": count / 3, "size": f"{size} B"}}), 3, Past())
    assert found.bytes is not None
    assert 0.85 < takes / found.bytes < 1.1


def test_a_trial_that_is_hardly_slower_than_stated_is_no_fault() -> None:
    plan = planned(trials=10, each="3s")
    past = Past(1, (3.2,))
    assert time_faults(plan, (), estimate(plan, 10, past), past) == []
