"""The projects that `ether new` makes: each runs as it is."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import patience

from ether.cli.exits import Exit
from ether.cli.main import main
from ether.cli.make.templates import TEMPLATES
from ether.config import load_config
from ether.launch.start_reasons import check_sources

LONG = os.environ.get("ETHER_LONG") == "1"
RUN = [name for name in TEMPLATES if name != "experiment"] if LONG else ["serial"]
HAS_NUMPY = importlib.util.find_spec("numpy") is not None


@pytest.fixture
def made(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project of a template, which is the current folder and on the import path."""
    template = str(request.param)
    if template == "camera" and not HAS_NUMPY:
        pytest.skip("the camera needs NumPy: pip install 'ether-medium[numpy]'")
    folder = tmp_path / f"my {template}"
    assert main(["new", str(folder), "--template", template]) == 0
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    _forget_modules(folder)


def _forget_modules(folder: Path) -> None:
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


@pytest.mark.parametrize("made", TEMPLATES, indirect=True)
def test_each_project_is_right_and_its_own_test_passes(made: Path) -> None:
    config = load_config(made / "ether.yaml")
    check_sources(config, str(config.session))
    assert str(config.session).startswith("my-")
    (file,) = made.glob("test_*.py")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tests = [test for name, test in vars(module).items() if name.startswith("test_") and inspect.isfunction(test)]
    assert tests
    for test in tests:
        test()
    assert "{" not in (made / "README.md").read_text().replace("{session}", "")


def program(*words: str) -> list[str]:
    return [sys.executable, *words] if words[0].endswith(".py") else [sys.executable, "-m", "ether", *words]


@pytest.mark.parametrize("made", RUN, indirect=True)
def test_a_project_runs_and_what_its_page_says_can_be_typed(made: Path) -> None:
    chosen = TEMPLATES[made.name.removeprefix("my ")]
    command = program(*chosen.run.split()[1:], "--json")
    with subprocess.Popen(command, cwd=made, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            assert json.loads(running.stdout.readline())["event"] == "ready"
            typed = [line.split() for line in chosen.tries.splitlines() if line.startswith("ether call ")]
            for words in typed if LONG else typed[:1]:
                asked = subprocess.run(program(*words[1:]), cwd=made, capture_output=True, text=True, check=False)
                assert asked.returncode == 0, asked.stderr
        finally:
            running.send_signal(signal.SIGINT)
            _, said = running.communicate(timeout=patience(20))
    assert running.returncode == 0, said


@pytest.mark.skipif(not LONG, reason="ETHER_LONG=1 runs it")
@pytest.mark.parametrize("made", ["experiment"], indirect=True)
def test_the_experiment_runs(made: Path) -> None:
    ran = subprocess.run(program("experiment.py"), cwd=made, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "recorded as dose-response/1" in ran.stdout


def test_a_template_that_is_not_there_is_said_with_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", str(tmp_path / "x"), "-t", "camra"]) != 0
    assert "there is no template 'camra'. Did you mean 'camera'? There are: minimal, camera," in capsys.readouterr().err


def test_the_demo_keeps_its_files_where_it_is_told_to_and_changes_none_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = program("demo", "kept", "--seconds", "0.1", "--json")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["ready", "ended"]
    assert sorted(events[0]["instances"]) == ["display", "oven", "regulator"]
    assert {"oven.py", "ether.yaml", "README.md"} <= {file.name for file in (tmp_path / "kept").iterdir()}
    assert main(["demo", "kept"]) == Exit.USAGE
