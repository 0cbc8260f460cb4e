"""What the command line says of a pipeline that was recorded for real: why its summary is what it is, and what a
changed line changed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from commands_here import ether_here
from programs import running, write
from running_brokers import engines, mosquitto_missing

from ether.ledger.reader import LedgerReader, RecordFilter

PIPELINE = Path(__file__).resolve().parents[2] / "examples" / "dual_processors"
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]

PROGRAM = """
    import sys
    from ether import ether

    ether.tap("lab.yaml", broker={"engine": sys.argv[1]})
    with ether.subscribe("summarize") as summaries:
        ether.start()
        for _ in range(2):
            summaries.get(timeout_s=20)
    ether.shutdown()
"""
pytestmark = pytest.mark.in_turn("engine")


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout with the pipeline in it, and a change that is not committed."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(PIPELINE / "dual_processors.py", folder)
    lab = f"session: provable\nrecord: {{topics: all, folder: {tmp_path / 'ledger'}}}\n# our lab\n"
    (folder / "lab.yaml").write_text(lab + (PIPELINE / "pipeline.yaml").read_text())
    write(folder, "once.py", PROGRAM)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "the lab")
    change(folder, "Keeps the latest result", "Keeps the last result")
    return folder


def change(folder: Path, before: str, after: str) -> None:
    source = folder / "dual_processors.py"
    text = source.read_text()
    assert before in text
    source.write_text(text.replace(before, after))


def run_once(project: Path, engine: str) -> None:
    with running(project, "once.py", engine) as program:
        done = program.finish()
        assert done.code == 0, done.err


def ether(tmp_path: Path, *words: str) -> str:
    done = ether_here(tmp_path, *words)
    assert done.code == 0, done.err
    return done.out


@needs_git
@pytest.mark.parametrize("engine", ENGINES)
def test_the_pipelines_summary_is_explained_and_a_changed_line_is_found(
    tmp_path: Path, project: Path, engine: str
) -> None:
    commit = git(project, "rev-parse", "HEAD")
    run_once(project, engine)
    ledger = str(tmp_path / "ledger")
    told = ether(tmp_path, "why", "summarize", "--last", "--full", "--ledger", ledger)
    for needed in (
        '"value": 84', '"value": 168', "by processor1", "by processor2", 'data = {"data": 42}', "by generator",
        "multiplier=2", "multiplier=4", "dual_processors.DataProcessor", commit[:10], "with changes",
        '+    """Keeps the last result', "# our lab", "lab.yaml",
    ):  # fmt: skip
        assert needed in told, told
    change(project, "data * self.multiplier", "data * self.multiplier + 1")
    run_once(project, engine)
    first, second = json.loads(ether(tmp_path, "status", ledger, "--json"))["runs"]
    lines = ether(tmp_path, "diff", first, second, "--ledger", ledger).splitlines()
    changed = [
        line.strip() for line in lines if line.strip()[:1] in ("+", "-") and line.strip()[:3] not in ("+++", "---")
    ]
    assert changed == ["-        result = data * self.multiplier", "+        result = data * self.multiplier + 1"]
    assert " 0 gaps, 0 duplicates" in ether(tmp_path, "status", ledger)
    assert "sealed" in ether(tmp_path, "verify", ledger)


SCALE = """
    from ether import ether, ether_get, ether_pub, ether_save

    class Scale:
        def __init__(self):
            self.grams = 0

        @ether_get
        def weigh(self, grams: float):
            self.grams = grams
            self.report()
            return grams

        @ether_save
        def tare(self, to: float = 0):
            if to < 0:
                raise ValueError("less than nothing")

        @ether_pub(topic="weight")
        def report(self):
            return self.grams
"""
WEIGH = """
    import sys
    from ether import ether

    lab = {"session": "calls", "record": {"topics": "all", "folder": sys.argv[2]},
           "instances": {"scale": {"class_path": "scale.Scale"}}}
    with ether.tap(lab, broker={"engine": sys.argv[1]}):
        assert ether.get("scale", "weigh", {"grams": 12.5}) == 12.5
        assert ether.save("scale", "tare", {"to": 1})["status"] == "success"
        assert ether.save("scale", "tare", {"to": -1})["error"] == "ValueError: less than nothing"
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_calls_are_recorded_and_are_what_led_to_a_value(tmp_path: Path, engine: str) -> None:
    write(tmp_path, "scale.py", SCALE)
    write(tmp_path, "weigh.py", WEIGH)
    folder = tmp_path / "ledger"
    with running(tmp_path, "weigh.py", engine, str(folder)) as program:
        done = program.finish()
        assert done.code == 0, done.err
    with LedgerReader.open(folder) as reader:
        calls = list(reader.records(RecordFilter(kinds=("call",))))
        assert [(call.topic, call.more["caller"]) for call in calls] == [
            ("scale.weigh", "main"), ("scale.tare", "main"), ("scale.tare", "main"),
        ]  # fmt: skip
        weighed, tared, refused = (call.value for call in calls)
        assert weighed == {"params": {"grams": 12.5}, "result": 12.5}
        assert tared == {"params": {"to": 1}, "result": None}
        assert refused["params"] == {"to": -1}
        assert (refused["error"]["class"], refused["error"]["message"]) == ("ValueError", "less than nothing")
        [weight] = reader.records(RecordFilter(topic="weight"))
        assert weight.parents == (calls[0].id,)
    told = ether(tmp_path, "why", "weight", "--last", "--ledger", str(folder))
    assert "scale.weigh" in told
