"""`ether plan`: a sound experiment gets a clean bill, and each planted fault is named where it is written."""

from __future__ import annotations

import doctest
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from command_line import ether
from commands_here import Done

from ether.cli.main import main
from ether.config import load_config
from ether.runs.plan.call_rules import PlanFault, PlannedInstance
from ether.runs.plan.plan_rules import conditions_at, run_faults, trial_count

PARTS = '''
"""A bench: an oven of somebody else, a stage, a camera, a door."""

from ether import ether_get, ether_pub, ether_sync


class Oven:
    """Knows nothing of Ether; the registry describes it."""

    def __init__(self, port, ramp=1.0):
        raise RuntimeError("a plan builds nothing")

    def set_power(self, watts: float):
        raise RuntimeError("a plan calls nothing")

    def off(self): ...

    @property
    def temperature(self) -> float:
        raise RuntimeError("a plan reads nothing")


class Stage:
    @ether_get
    def move(self, x: float, y: float = 0.0): ...

    @ether_get
    def position(self) -> float: ...

    def home(self): ...


class Camera:
    @ether_sync(topic="prepare_trial")
    def prepare(self, trial: int, exposure_ms: int = 10): ...

    @ether_sync(topic="flash")
    def flash(self): ...

    @ether_pub(topic="camera/image")
    def image(self): ...


class Door:
    @ether_pub(topic="door")
    def state(self) -> str: ...
'''

SOUND = """
session: plan-bench
record: ["camera/#", oven/temperature]
instances:
  oven: {class_path: plan_parts.Oven, args: [sim]}
  stage: {class_path: plan_parts.Stage}
  camera: {class_path: plan_parts.Camera}
  door: {class_path: plan_parts.Door}
registry:
  plan_parts.Oven:
    methods:
      set_power: {ether_get: {}, arguments: {watts: {limits: [0, 50], unit: W}}}
    properties:
      temperature: {get: {topic: oven/temperature, every: 0.5s}}
    safe_state:
      after: 2s
      calls: ["off"]
      watch: [stage]
plan:
  anneal:
    conditions: [10, 20, 30]
    set: {call: oven.set_power, unit: W}
    read: oven.temperature
    suspend_while: {door: open}
    each: 20s
    at_most: 2min
    data: {oven/temperature: {every: 0.5s, size: 20 B}}
  map:
    conditions: {x: [0, 1, 2], y: [0, 5]}
    set: stage.move
    read: stage.position
    calls: [{call: oven.set_power, args: [5]}]
    syncs: [flash]
    waits_for: [camera/image, weather]
    outside: [weather]
    each: 2s
    at_most: 1min
    data: {camera/image: {per_trial: 2, size: 2 MB}}
  expose:
    conditions: [{exposure_ms: 10, label: short}, {exposure_ms: 100, label: long}]
"""


class Planted(NamedTuple):
    """A fault: what is written in place of what, and what has to be said of it."""

    was: str
    now: str
    path: str
    found: str
    valid: str


FAULTS = {
    "a setpoint outside of its limits": Planted(
        "[10, 20, 30]", "[10, 200, 30]", "plan.anneal.conditions[1]", "200", "from 0 to 50 W"
    ),
    "an instance that nobody declares": Planted(
        "set: stage.move", "set: stag.move", "plan.map.set", "'stag'", "Did you mean 'stage'?"
    ),
    "a method that the class does not have": Planted(
        "read: stage.position", "read: stage.positoin", "plan.map.read", "'positoin'", "Did you mean 'position'?"
    ),
    "a method that nobody can call": Planted(
        "read: stage.position", "read: stage.home", "plan.map.read", "Stage.home", "not marked"
    ),
    "an argument that does not validate": Planted(
        "x: [0, 1, 2]", "x: [0, far, 2]", "plan.map.conditions.x[1]", "'far'", "valid number"
    ),
    "an argument of a call outside of its limits": Planted(
        "args: [5]", "args: [-5]", "plan.map.calls[0]", "-5", "from 0 to 50 W"
    ),
    "a unit that is not the method's": Planted(
        "unit: W}\n    read", "unit: mW}\n    read", "plan.anneal.set.unit", "mW", "takes watts in W"
    ),
    "a sync topic that nobody marks": Planted(
        "syncs: [flash]", "syncs: [flsh]", "plan.map.syncs[0]", "'flsh'", "Did you mean 'flash'?"
    ),
    "an interlock on a topic that nobody publishes": Planted(
        "{door: open}", "{dor: open}", "plan.anneal.suspend_while.dor", "'dor'", "Did you mean 'door'?"
    ),
    "a topic that is waited for and never comes": Planted(
        "outside: [weather]", "outside: []", "plan.map.waits_for[1]", "'weather'", "listed under outside"
    ),
    "data that nobody records": Planted(
        'record: ["camera/#", oven/temperature]', 'record: ["camera/#"]', "plan.anneal.data.oven/temperature",
        "not recorded", "recorded are: camera/#",
    ),
    "more data than the disk has room for": Planted(
        "size: 2 MB", "size: 9000 TB", "plan.map.data", "TB of data", "should stay free"
    ),
    "more time than is allowed": Planted(
        "at_most: 2min", "at_most: 50s", "plan.anneal.at_most", "50s for the run", "3 trials need 1 min 0 s"
    ),
    "a class that cannot be imported": Planted(
        "plan_parts.Stage", "plan_parts.Stge", "instances.stage.class_path", "plan_parts.Stge", "Did you mean 'Stage'?"
    ),
    "a module that is not there": Planted(
        "plan_parts.Door", "plan_prts.Door", "instances.door.class_path", "plan_prts.Door", "no module 'plan_prts'"
    ),
    "an argument that the constructor does not take": Planted(
        "args: [sim]}", "args: [sim], kwargs: {rmp: 2}}", "instances.oven.kwargs.rmp", "'rmp'", "Did you mean 'ramp'?"
    ),
    "a port that is not there": Planted(
        "args: [sim]", "args: [/dev/ttyUSB77]", "instances.oven.args[0]", "/dev/ttyUSB77", "this machine has"
    ),
    "a safe state that calls what is not there": Planted(
        'calls: ["off"]', "calls: [of]", "registry.plan_parts.Oven.safe_state.calls[0]", "'of'", "Did you mean 'off'?"
    ),
    "a safe state that watches nobody": Planted(
        "watch: [stage]", "watch: [stages]", "registry.plan_parts.Oven.safe_state.watch[0]", "'stages'", "'stage'?"
    ),
    "a parameter of a condition that nobody takes": Planted(
        "{exposure_ms: 100", "{exposure: 100", "plan.expose.conditions[1].exposure", "'exposure'", "'exposure_ms'?"
    ),
    "a preparation that does not take the condition": Planted(
        "{exposure_ms: 100", "{exposure_ms: 0.5", "plan.expose.conditions[1].exposure_ms", "0.5", "prepares the trial"
    ),
    "limits of an argument that is not there": Planted(
        "{watts: {limits", "{wats: {limits", "registry.plan_parts.Oven", "plan_parts.Oven", "Did you mean 'watts'?"
    ),
}  # fmt: skip


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    (tmp_path / "plan_parts.py").write_text(PARTS)
    return tmp_path


@pytest.fixture
def at_bench(bench: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For commands in this process: their folder, and no module of another test's folder."""
    monkeypatch.chdir(bench)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("plan_parts", None)
    yield
    sys.modules.pop("plan_parts", None)


def plan(bench: Path, text: str, *words: str) -> Done:
    (bench / "lab.yaml").write_text(text)
    return ether(bench, "plan", "lab.yaml", *words)


def test_a_sound_plan_gets_a_clean_bill(bench: Path) -> None:
    done = plan(bench, SOUND)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "lab.yaml: fine: 3 runs of 4 instances"
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in done.out.splitlines()[1:-1]}
    assert rows["anneal"][0] == "3"
    assert "1 min 0 s  as stated" in rows["anneal"][1]
    assert "24 MB" in rows["map"][1]
    assert "not known  no past trials, nothing stated" in rows["expose"][1]
    told = plan(bench, SOUND, "--json").json
    assert (told["fine"], told["faults"], told["instances"]) == (True, [], ["oven", "stage", "camera", "door"])
    assert [(run["run"], run["trials"], run["seconds"]) for run in told["runs"]] == [
        ("anneal", 3, 60.0), ("map", 6, 12.0), ("expose", 2, None),
    ]  # fmt: skip
    assert told["runs"][0]["bytes"] == pytest.approx(120 * 280, rel=0.1)


def test_simulated_devices_need_no_port(bench: Path) -> None:
    text = SOUND.replace("args: [sim]", "args: [/dev/ttyUSB77]")
    assert plan(bench, text).code == 1
    assert plan(bench, text, "--sim").code == 0


def test_at_least_ten_faults_are_planted() -> None:
    assert len(FAULTS) >= 10


@pytest.mark.parametrize("planted", FAULTS.values(), ids=FAULTS)
@pytest.mark.usefixtures("at_bench")
def test_each_fault_is_named_where_it_is_written(
    bench: Path, planted: Planted, capsys: pytest.CaptureFixture[str]
) -> None:
    assert SOUND.count(planted.was) == 1
    text = SOUND.replace(planted.was, planted.now)
    changed = next(
        number
        for number, (before, now) in enumerate(zip(SOUND.splitlines(), text.splitlines(), strict=True), 1)
        if before != now
    )
    (bench / "lab.yaml").write_text(text)
    assert main(["plan", "lab.yaml", "--json"]) == 1
    faults = json.loads(capsys.readouterr().out)["faults"]
    matching = [fault for fault in faults if fault["path"] == planted.path]
    assert len(matching) == 1, faults
    (fault,) = matching
    assert planted.found in fault["found"], fault
    assert planted.valid in fault["text"], fault
    assert fault["text"].startswith(f"lab.yaml:{fault['line']}: {planted.path}: found "), fault
    assert fault["line"] == written_in(text, planted, changed), fault
    others = {other["path"] for other in faults} - {planted.path}
    assert others <= follow_from(planted), others


def written_in(text: str, planted: Planted, changed: int) -> int:
    """The line of the key that the fault is about; where a line elsewhere was changed, it is that of the victim."""
    if planted.path.endswith("waits_for[1]"):
        return changed - 1
    if "not recorded" in planted.found:
        return text.splitlines().index("    data: {oven/temperature: {every: 0.5s, size: 20 B}}") + 1
    if planted.path == "registry.plan_parts.Oven":
        return text.splitlines().index("  plan_parts.Oven:") + 1
    return changed


def follow_from(planted: Planted) -> set[str]:
    """What else is wrong because of it: a topic of a class that is not there is published by nobody that is known."""
    return {"plan.anneal.set", "plan.map.calls[0]"} if planted.path == "registry.plan_parts.Oven" else set()


def test_all_faults_are_told_at_once_one_a_line(bench: Path) -> None:
    text = SOUND.replace("[10, 20, 30]", "[10, 200, nan]").replace("syncs: [flash]", "syncs: [flsh]")
    done = plan(bench, text)
    assert done.code == 1
    said = [line for line in done.out.splitlines() if line.startswith("lab.yaml:")]
    assert len(said) == 4
    assert said[-1] == "lab.yaml: 3 things to mend; nothing was started"
    assert "Traceback" not in done.out + done.err


def test_one_run_alone(bench: Path) -> None:
    text = SOUND.replace("[10, 20, 30]", "[10, 200, 30]")
    assert plan(bench, text, "--run", "map").code == 0
    assert plan(bench, text, "--run", "anneal").code == 1
    plan(bench, text, "--run", "aneal").assert_mistake(3, "aneal", "Did you mean 'anneal'")


def test_what_is_no_configuration_is_code_3(bench: Path) -> None:
    plan(bench, SOUND.replace("each: 20s", "each: 20")).assert_mistake(3, "lab.yaml:25", "plan.anneal.each", "unit")
    plan(bench, SOUND.replace("stage.move", "move")).assert_mistake(3, "plan.map.set", "stage.move")
    without = SOUND.replace("conditions: [10, 20, 30]", "trials: 3")
    plan(bench, without).assert_mistake(3, "plan.anneal.set", "without conditions")
    plan(bench, SOUND.replace("20 B", "20")).assert_mistake(3, "plan.anneal.data", "2 MB")
    plan(bench, SOUND, "--ledger", "nowhere").assert_mistake(4, "nowhere")


def test_without_a_plan_the_instances_are_checked(bench: Path) -> None:
    done = plan(bench, SOUND.partition("plan:\n")[0])
    assert done.code == 0
    assert "no runs are planned" in done.err
    assert "fine: 0 runs of 4 instances" in done.out


@pytest.mark.usefixtures("at_bench")
def test_topics_that_are_probably_misspelt_are_warnings(bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bench / "plan_parts.py").write_text(
        PARTS + "\n\nfrom ether import ether_sub\n\n\nclass Screen:\n"
        '    @ether_sub(topic="camera/imgae")\n    def show(self, root=None): ...\n'
    )
    (bench / "lab.yaml").write_text(
        "instances:\n  cam: {class_path: plan_parts.Camera}\n  screen: {class_path: plan_parts.Screen}\n"
    )
    assert main(["plan", "lab.yaml", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (warning,) = told["warnings"]
    assert warning.startswith("screen hears 'camera/imgae', which nobody publishes. Did you mean 'camera/image'?")
    assert main(["plan", "lab.yaml"]) == 0
    assert f"warning: {warning}" in capsys.readouterr().out


def test_what_runs_elsewhere_is_said_not_to_be_looked_at(bench: Path) -> None:
    text = SOUND.replace("{class_path: plan_parts.Door}", "{class_path: on_the_pi.Door, host: pi}")
    told = plan(bench, text, "--json")
    assert told.code == 0
    assert told.json["not_looked_at"] == [
        "door runs on pi, and its class is not here",
        "whether topics come, and sync topics are marked: door may do it",
    ]


def test_what_a_module_prints_does_not_spoil_the_json(bench: Path) -> None:
    (bench / "plan_parts.py").write_text(PARTS + '\nprint("hello from the module")\n')
    told = plan(bench, SOUND, "--json")
    assert told.json["fine"]
    assert "hello from the module" in told.err


def test_a_module_that_fails_is_one_fault(bench: Path) -> None:
    (bench / "broken.py").write_text('raise SystemExit("no licence")\n')
    told = plan(bench, SOUND.replace("plan_parts.Door", "broken.Door"), "--json")
    assert told.code == 1
    assert [fault["path"] for fault in told.json["faults"]] == ["instances.door.class_path"]
    assert "SystemExit: no licence" in told.json["faults"][0]["valid"]


def test_the_disk_is_the_one_of_the_ledger(bench: Path) -> None:
    folder = bench / "not" / "made" / "yet"
    text = SOUND.replace('record: ["camera/#", oven/temperature]', f"record: {{topics: all, folder: {folder}}}")
    told = plan(bench, text, "--json").json
    assert told["ledger"] == str(folder)
    assert told["runs"][0]["free_bytes"] == pytest.approx(shutil.disk_usage(bench).free, rel=0.05)
    assert not folder.exists()


# -- decisions


def test_nothing_is_said_of_topics_where_a_class_cannot_be_looked_at() -> None:
    config = load_config({"plan": {"r": {"trials": 2, "suspend_while": {"door": 1}, "syncs": ["x"]}}})
    place = ("plan", "r")
    unknown = {"a": PlannedInstance("a", ("instances", "a"))}
    assert run_faults(config.plan["r"], place, unknown, None) == []
    assert [type(fault) for fault in run_faults(config.plan["r"], place, {}, None)] == [PlanFault, PlanFault]


def test_a_grid_of_ten_million_trials_is_checked_value_by_value() -> None:
    values = list(range(216))
    config = load_config({"plan": {"r": {"conditions": {"x": values, "y": values, "z": values}, "each": "1s"}}})
    assert trial_count(config.plan["r"]) == 216**3
    assert run_faults(config.plan["r"], ("plan", "r"), {}, None) == []


def test_trials_without_conditions_are_told_once(bench: Path) -> None:
    parts = PARTS.replace("exposure_ms: int = 10", "exposure_ms: int")
    (bench / "plan_parts.py").write_text(parts)
    kept = SOUND.partition("  expose:")[0].replace("conditions: [10, 20, 30]\n    set: {call: oven.set_power, unit: W}",
                                                   "trials: 3")  # fmt: skip
    told = plan(bench, kept, "--run", "anneal", "--json").json["faults"]
    assert [(fault["path"], fault["found"]) for fault in told] == [("plan.anneal.trials", "nothing")]
    assert "a value is required" in told[0]["valid"]


def test_conditions_know_where_they_are_written() -> None:
    config = load_config({"plan": {"r": {"conditions": {"x": [1, 2], "y": [3, 4]}, "by": "zip"}}})
    found = conditions_at(config.plan["r"], ("plan", "r"))
    assert [condition.value for condition in found] == [{"x": 1, "y": 3}, {"x": 2, "y": 4}]
    assert found[1].place_of("y") == ("plan", "r", "conditions", "y", 1)
    uneven = load_config({"plan": {"r": {"conditions": {"x": [1, 2], "y": [3]}, "by": "zip"}}})
    assert "x has 2, y has 1" in run_faults(uneven.plan["r"], ("plan", "r"), {}, None)[0].valid


# -- the page


def test_the_example_on_the_page(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "experiments.md").read_text()
    section = page.partition("## Planning\n")[2].partition("\n## ")[0]
    for name, kind in (("bench.py", "python"), ("lab.yaml", "yaml"), ("said", "console")):
        block = section.partition(f"```{kind}\n")[2].partition("```")[0]
        (tmp_path / name).write_text(block)
    command, _, wanted = (tmp_path / "said").read_text().partition("\n")
    assert command == "$ ether plan lab.yaml"
    done = ether(tmp_path, "plan", "lab.yaml")
    assert (done.code, done.err) == (1, "")
    assert doctest.OutputChecker().check_output(wanted, done.out, doctest.ELLIPSIS), done.out
