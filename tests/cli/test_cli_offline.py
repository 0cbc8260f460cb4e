"""Commands that need no session, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import ETHER, ether
from commands_here import Done, ether_here
from patience import patience

from ether.cli.main import ENTRIES
from ether.cli.main import GROUPS as HELP_GROUPS
from ether.version import VERSION

START_LIMIT_S = 0.2
GROUPS = {
    "topic": ["list", "echo", "hz", "bw", "pub"],
    "service": ["install", "status", "logs", "remove"],
    "ledger": ["volumes", "backup", "restore", "archive", "delete"],
    "secret": ["set", "list", "remove"],
}
COMMANDS = [entry.name for entry in ENTRIES]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"


def test_help_lists_every_command(tmp_path: Path) -> None:
    done = ether(tmp_path, "--help")
    assert done.code == 0
    for entry in ENTRIES:
        assert f"  {entry.name} " in done.out
    assert ether(tmp_path).out == done.out


def test_help_groups_every_command_once_by_what_one_wants(tmp_path: Path) -> None:
    grouped = [name for group in HELP_GROUPS.values() for name in group]
    assert sorted(grouped) == sorted(COMMANDS)
    shown = ether(tmp_path, "--help").out
    places = [shown.index(f"\n{title}:\n") for title in HELP_GROUPS]
    assert places == sorted(places)
    assert "\nMore:\n" not in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_json_and_a_place_on_the_page(tmp_path: Path, command: str) -> None:
    done = ether_here(tmp_path, command, "--help")
    assert done.code == 0
    assert done.out.startswith(f"Usage: ether {command} ")
    listed = GROUPS.get(command, [])
    for sub in listed:
        assert "--json" in ether_here(tmp_path, command, sub, "--help").out or (command, sub) == ("service", "logs")
        assert sub in PAGE.read_text().partition(f"## ether {command}")[2].partition("## ")[0]
    assert listed or "--json" in done.out or command == "agent"  # a daemon, which says nothing but its log
    assert f"## ether {command}" in PAGE.read_text()


def test_the_version(tmp_path: Path) -> None:
    assert ether(tmp_path, "--version") == Done(0, f"ether {VERSION}\n", "")


def processor_time_of(command: list[str], folder: Path) -> float:
    """Seconds that a command takes of a core."""
    before = os.times()
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


@pytest.mark.skipif(os.name != "posix", reason="Windows does not count what children take")
def test_it_starts_in_under_200_ms(tmp_path: Path) -> None:
    """On an idle machine. What it takes of a core says so on a busy one, too; the quickest of a few."""
    times: list[float] = []
    while len(times) < 10 and min(times, default=1.0) >= START_LIMIT_S:
        times.append(processor_time_of([sys.executable, *ETHER, "--help"], tmp_path))
    assert min(times) < START_LIMIT_S, times
    began = time.perf_counter()
    subprocess.run([sys.executable, *ETHER, "--help"], cwd=tmp_path, capture_output=True, check=True)
    assert time.perf_counter() - began < patience(5), "it waits for something"


def test_only_the_command_that_was_asked_for_is_imported() -> None:
    code = (
        "import sys; from ether.cli.main import main; main(['--version']); print([n for n in sys.modules if n in %r])"
    )
    heavy = ["rich", "pydantic", "paho", "yaml", "ether.cli.lab.run", "ether.launch.launcher", "numpy"]
    done = subprocess.run([sys.executable, "-c", code % heavy], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_log_of_the_past_is_read_without_a_connection(tmp_path: Path) -> None:
    code = (
        "import sys; from ether.cli.main import main; main(['logs', '-s', 'over'])\n"
        "print([n for n in sys.modules if n in %r])"
    )
    heavy = ["paho", "ether.launch.guest", "ether.session.session", "ether.session.discovery.search"]
    done = subprocess.run([sys.executable, "-c", code % heavy], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_shell_completes_a_line_with_that_commands_module_alone(shell: str) -> None:
    line = (
        {"COMP_WORDS": "ether ps --js", "COMP_CWORD": "2"}
        if shell == "bash"
        else {"_TYPER_COMPLETE_ARGS": "ether ps --js"}
    )
    code = (
        "import atexit, sys; atexit.register(lambda: print([n for n in sys.modules if n.startswith('ether.cli.')]))\n"
        "from ether.cli.main import main; main([])"
    )
    environment = {**os.environ, "_ETHER_COMPLETE": f"complete_{shell}", **line}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "--json" in done.stdout
    loaded = done.stdout.splitlines()[-1]
    assert "'ether.cli.lab.ps'" in loaded
    assert "'ether.cli.data.data'" not in loaded


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["vlidate"], "Did you mean 'validate'"),
        (["validate", "--jsn"], "ether validate --help"),
        (["call"], "SERVICE.METHOD"),
        (["call", "nodot"], "camera1.snap"),
        (["new"], "NAME"),
        (["topic", "hz", "x", "--count", "many"], "--count"),
        (["topic", "pub", "x", "--count", "3"], "--rate"),
        (["top"], "--once"),
        (["logs", "-f", "--since", "soon"], "how long ago"),
        (["logs", "--set", "cam"], "NAME=LEVEL"),
        (["run"], "ether.yaml"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_code_2(tmp_path: Path, words: list[str], said: str) -> None:
    ether_here(tmp_path, *words).assert_mistake(2, said)


@pytest.mark.parametrize(
    "words",
    [["ps"], ["call", "a.b"], ["topic", "list"], ["graph"], ["top", "--once"], ["down"], ["logs"], ["restart", "x"]],
)
def test_without_a_session_it_says_so(tmp_path: Path, words: list[str]) -> None:
    ether_here(tmp_path, *words).assert_mistake(4, "no session is running", "ether run FILE")


def test_a_broker_that_is_not_there(tmp_path: Path) -> None:
    ether_here(tmp_path, "ps", "--broker", "mqtt://127.0.0.1:9").assert_mistake(5, "127.0.0.1:9")
    ether_here(tmp_path, "ps", "--broker", "http://x").assert_mistake(3, "http://x")


def test_sessions_without_any(tmp_path: Path) -> None:
    assert ether_here(tmp_path, "sessions") == Done(0, "", "no session runs\n")
    assert ether_here(tmp_path, "sessions", "--json").json == []


# -- validate


def test_a_valid_configuration(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text(
        "instances:\n  cam: {class_path: a.B}\n  other: {class_path: a.B, autorun: false}\n"
    )
    done = ether_here(tmp_path, "validate", "--no-import")
    assert (done.code, done.out) == (0, "lab.yaml: fine: 2 instances (2 a.B), 1 of them not started with the session\n")
    assert ether_here(tmp_path, "validate", "lab.yaml", "--no-import", "--json").json["instances"] == ["cam", "other"]


def test_an_invalid_configuration(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("instances:\n  cam:\n    clas_path: a.B\n")
    done = ether_here(tmp_path, "validate", "lab.yaml")
    assert done.code == 3
    assert "lab.yaml:3" in done.err
    assert "Did you mean 'class_path'" in done.err
    assert "Traceback" not in done.err
    told = ether_here(tmp_path, "validate", "lab.yaml", "--json")
    assert (told.code, told.err) == (3, "")
    first = told.json["problems"][0]
    assert (first["line"], first["path"], first["nearest"]) == (3, "instances.cam.clas_path", "class_path")
    ether_here(tmp_path, "validate", "no.yaml").assert_mistake(3, "no.yaml")


def test_which_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "notes.yaml").write_text("a: 1\n")
    ether_here(tmp_path, "validate").assert_mistake(2, "no ether.yaml")
    for name in ("one.yaml", "two.yml"):
        (tmp_path / name).write_text("instances: {}\n")
    ether_here(tmp_path, "validate").assert_mistake(2, "one.yaml, two.yml")
    (tmp_path / "ether.yaml").write_text("session: bench\n")
    assert ether_here(tmp_path, "validate").out.startswith("ether.yaml: fine")


# -- schema, new


def test_the_schema_is_printed_or_written(tmp_path: Path) -> None:
    printed = ether_here(tmp_path, "schema").json
    assert printed["$schema"].startswith("https://json-schema.org/")
    assert ether_here(tmp_path, "schema", "-o", "s.json") == Done(0, "", "")
    assert (tmp_path / "s.json").read_text().count("class_path") >= 1
    ether_here(tmp_path, "schema", "-o", "no/where.json").assert_mistake(2, "where.json")


def test_a_new_project_is_whole_and_its_test_passes(tmp_path: Path) -> None:
    made = ether_here(tmp_path, "new", "demo", "--json").json
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == sorted(made["files"])
    assert ether(tmp_path / "demo", "validate").code == 0
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"], cwd=tmp_path / "demo", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    ether_here(tmp_path, "new", "demo").assert_mistake(2, "exists already")
    (tmp_path / "file").write_text("")
    ether_here(tmp_path, "new", "file/below").assert_mistake(2, "file/below")


def test_a_reader_that_has_had_enough_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            [sys.executable, *ETHER, "schema"], cwd=tmp_path, stdout=closed, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")


SHELL_WORDS = {"bash": "COMPREPLY", "zsh": "#compdef ether", "fish": "complete --command ether"}


@pytest.mark.parametrize("shell", SHELL_WORDS)
def test_shells_get_their_completion(tmp_path: Path, shell: str) -> None:
    # Without this the shell that runs the tests is found, and one that is named counts for nothing.
    script = ether(tmp_path, "--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert script.code == 0
    assert "_ETHER_COMPLETE" in script.out
    assert SHELL_WORDS[shell] in script.out


def test_what_could_stand_here(tmp_path: Path) -> None:
    done = ether(tmp_path, _ETHER_COMPLETE="complete_bash", COMP_WORDS="ether va", COMP_CWORD="1")
    assert done.out.split() == ["validate"]
    done = ether(tmp_path, _ETHER_COMPLETE="complete_bash", COMP_WORDS="ether topic e", COMP_CWORD="2")
    assert done.out.split() == ["echo"]
    done = ether(tmp_path, _ETHER_COMPLETE="complete_bash", COMP_WORDS="ether ps --js", COMP_CWORD="2")
    assert done.out.split() == ["--json"]


def test_h11_validate_finds_what_plan_finds(tmp_path: Path) -> None:
    (tmp_path / "lab_classes.py").write_text(
        "from ether import ether_pub, ether_sub\n\n\nclass Source:\n    def __init__(self, limit=1): ...\n"
        '    @ether_pub(topic="temperature")\n    def measure(self): ...\n\n\nclass Sink:\n'
        '    @ether_sub(topic="temprature")\n    def take(self, root=None): ...\n'
    )
    text = "instances:\n  source: {class_path: lab_classes.Source}\n  sink: {class_path: lab_classes.Sink}\n"
    (tmp_path / "lab.yaml").write_text(text)
    done = ether(tmp_path, "validate")
    assert (done.code, done.out) == (0, "lab.yaml: fine: 2 instances (lab_classes.Source, lab_classes.Sink)\n")
    assert done.err.startswith("warning: sink hears 'temprature', which nobody publishes. Did you mean 'temperature'?")
    (tmp_path / "lab.yaml").write_text(text.replace("Source}", "Source, kwargs: {limt: 2}}").replace("Sink}", "Snk}"))
    done = ether(tmp_path, "validate")
    assert (done.code, done.out) == (3, "")
    first, second = done.err.splitlines()
    assert first.startswith("ether: lab.yaml:2: instances.source.kwargs.limt: found arguments for the constructor")
    assert first.endswith("Did you mean 'limit'?")
    assert second.startswith("ether: lab.yaml:3: instances.sink.class_path: found lab_classes.Snk; ")
    assert "Did you mean 'Sink'?" in second
    told = ether(tmp_path, "validate", "--json").json
    assert (told["valid"], [problem["line"] for problem in told["problems"]]) == (False, [2, 3])


def test_h11_run_says_it_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "lab_classes.py").write_text("class Source:\n    def __init__(self, limit=1): ...\n")
    (tmp_path / "ether.yaml").write_text("instances:\n  one: {class_path: lab_classes.Source, kwargs: {limt: 2}}\n")
    done = ether(tmp_path, "run")
    assert done.code == 1
    assert "ether.yaml:2: instances.one.kwargs.limt: found arguments for the constructor of Source" in done.err
    assert "Did you mean 'limit'?" in done.err
    assert "Traceback" not in done.err
