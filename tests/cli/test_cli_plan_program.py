"""`ether plan --program`: what a program says is checked from its source, and the program does not run."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import ether
from test_cli_plan import PARTS, SOUND

from ether.config import load_config
from ether.runs.plan.classes import PlannedLab
from ether.runs.plan.script import UNKNOWN, read_program
from ether.runs.plan.script_faults import program_faults

PROGRAM = """
from ether import ether

POWER = 20
raise SystemExit("a plan runs nothing")


def main(exposures):
    with ether.tap("lab.yaml") as lab:
        stage = ether.instance("stage")
        oven = lab.service("Oven")
        oven.set_power(POWER)
        stage.move(1, y=2.5)
        ether.get("stage", "move", {"x": 1})
        ether.get_later("Oven", "set_power", 30)
        ether.sync("flash")
        ether.sync("prepare_trial", trial=1, exposure_ms=5)
        ether.pub({"lux": 1}, topic="light")
        ether.wait_for("light", lambda value: True)
        ether.wait_for("door", timeout_s=3)
        with ether.run("anneal", suspend_while={"door": "open"}) as run:
            for trial in run.planned():
                pass
        with ether.run("other") as run:
            for trial in run.scan(stage.move, [0, 1, 2], read=stage.position, within=0.1):
                pass
            for trial in run.scan(stage.move, {"x": [0, 1], "y": exposures}):
                oven.set_power(trial.condition)
        for name in ("stage",):
            ether.instance(name).move(1)
"""

FAULTS = {
    "a setpoint outside of its limits, by a name": ("POWER = 20", "POWER = 200", "set_power", "200", "from 0 to 50 W"),
    "a setpoint outside of its limits, in a payload": (
        '"set_power", 30', '"set_power", -1', "Oven.set_power", "-1", "from 0 to 50 W",
    ),
    "an instance that nobody declares": ('instance("stage")', 'instance("stge")', "stge", "'stge'", "'stage'?"),
    "a class that no instance has": ('service("Oven")', 'service("Ovn")', "Ovn", "'Ovn'", "Did you mean 'Oven'?"),
    "a method that is not there": ("stage.move(1,", "stage.mve(1,", "stage.mve", "'mve'", "Did you mean 'move'?"),
    "a method that is handed on and is not there": (
        "read=stage.position", "read=stage.positon", "stage.positon", "'positon'", "Did you mean 'position'?",
    ),
    "an argument that does not validate": ('{"x": 1}', '{"x": "left"}', "stage.move", "'left'", "valid number"),
    "an argument that is not there": ("y=2.5", "z=2.5", "stage.move", "z=2.5", "unexpected keyword argument 'z'"),
    "an argument that is missing": ('{"x": 1}', '{"y": 1}', "stage.move", "nothing", "a value is required"),
    "a value of a scan": ("[0, 1, 2]", "[0, 'far', 2]", "stage.move", "'far'", "valid number"),
    "a value of a scan over several": ('{"x": [0, 1],', '{"x": [0, None],', "stage.move", "None", "valid number"),
    "a sync topic that nobody marks": ('sync("flash")', 'sync("flsh")', "flsh", "'flsh'", "Did you mean 'flash'?"),
    "an argument of a sync": ("exposure_ms=5", "exposure_ms=5.5", "prepare_trial", "5.5", "camera.prepare takes"),
    "a topic that never comes": ('wait_for("light"', 'wait_for("lihgt"', "lihgt", "'lihgt'", "nobody publishes"),
    "an interlock that never comes": ('{"door": "open"}', '{"dor": "open"}', "dor", "'dor'", "Did you mean 'door'?"),
    "a run that nobody plans": ('run("anneal"', 'run("aneal"', "run.planned()", "'aneal'", "Did you mean 'anneal'?"),
}  # fmt: skip


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlannedLab:
    """The bench of the plans."""
    import sys

    (tmp_path / "plan_parts.py").write_text(PARTS)
    (tmp_path / "lab.yaml").write_text(SOUND)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "plan_parts", raising=False)
    return PlannedLab.of(load_config(tmp_path / "lab.yaml"))


def faults(lab: PlannedLab, text: str) -> list[tuple[int, str, str]]:
    found = program_faults(read_program(text.encode(), "run.py"), lab.members, lab.config.plan, ["weather"])
    return [(each.line, ".".join(map(str, each.fault.place)), each.fault.text) for each in found]


def test_a_sound_program_gets_a_clean_bill(lab: PlannedLab) -> None:
    assert faults(lab, PROGRAM) == []


@pytest.mark.parametrize("planted", FAULTS.values(), ids=FAULTS)
def test_each_fault_is_named_with_its_line(lab: PlannedLab, planted: tuple[str, str, str, str, str]) -> None:
    was, now, place, found, valid = planted
    assert PROGRAM.count(was) == 1
    text = PROGRAM.replace(was, now)
    told = faults(lab, text)
    assert told, "nothing was found"
    named = [said for said in told if place in said[1] and found in said[2] and valid in said[2]]
    assert named, told
    assert [said for said in told if said not in named] == []
    if was not in ("POWER = 20", 'instance("stage")', 'service("Oven")', 'run("anneal"'):
        assert {line for line, _, _ in named} == {PROGRAM[: PROGRAM.index(was)].count("\n") + 1}


def test_what_is_only_known_at_run_time_is_not_guessed(lab: PlannedLab) -> None:
    program = read_program(PROGRAM.encode(), "run.py")
    assert program.unread == [PROGRAM[: PROGRAM.index("ether.instance(name)")].count("\n") + 1]
    known = [mention for mention in program.mentions if UNKNOWN in mention.args]
    assert [(mention.service, mention.method) for mention in known] == [("Oven", "set_power")]
    assert faults(lab, PROGRAM.replace("oven.set_power(trial.condition)", "oven.set_power(*exposures)")) == []
    assert faults(lab, PROGRAM.replace("POWER = 20", "POWER = 200 if later else 20")) == []
    # a name that is bound twice, by a loop, or as a parameter means nothing for sure
    assert faults(lab, PROGRAM.replace("POWER = 20", "POWER = 200\nPOWER = 20")) == []
    assert (
        faults(lab, PROGRAM.replace("def main(exposures)", "def main(exposures, POWER)").replace("= 20", "= 200")) == []
    )


def test_instances_kept_on_an_object_are_seen(lab: PlannedLab) -> None:
    text = """
from ether import ether as e
class Experiment:
    def __init__(self):
        self.stage = e.instance("stage")
    def go(self):
        self.stage.mve(1)
"""
    ((line, place, said),) = faults(lab, text)
    assert (line, place) == (7, "stage.mve")
    assert "Did you mean 'move'?" in said


def test_the_command_reads_programs_and_runs_none(tmp_path: Path) -> None:
    (tmp_path / "plan_parts.py").write_text(PARTS)
    (tmp_path / "lab.yaml").write_text(SOUND.replace("outside: [weather]", "outside: []"))
    (tmp_path / "run.py").write_text(PROGRAM + 'ether.pub(1, topic="weather")\n')
    sound = ether(tmp_path, "plan", "lab.yaml", "--program", "run.py")
    assert sound.code == 0, sound
    assert "not looked at: run.py, line 30: what is meant is only known when it runs" in sound.err
    (tmp_path / "run.py").write_text(PROGRAM.replace("POWER = 20", "POWER = 200"))
    done = ether(tmp_path, "plan", "lab.yaml", "-p", "run.py", "--json")
    assert done.code == 1
    said = {(fault["file"], fault["line"]): fault["found"] for fault in done.json["faults"]}
    assert said[("run.py", 12)] == "200.0"
    assert "'weather'" in next(found for (file, _), found in said.items() if file == "lab.yaml")
    (tmp_path / "run.py").write_text("def broken(:\n")
    ether(tmp_path, "plan", "lab.yaml", "-p", "run.py").assert_mistake(3, "run.py:1", "no Python")
    ether(tmp_path, "plan", "lab.yaml", "-p", "none.py").assert_mistake(3, "none.py", "No such file")
