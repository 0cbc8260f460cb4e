"""The lanes, the unit of waiting, and the mutants: what decides about tests is tested, too."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import mutants
import patience
import pytest
from patience import patience as seconds

PARTS = Path(__file__).parent / "parts"
CONFTEST = "from lanes import *\nfrom lanes import pytest_configure\n"
SAMPLE = """
    import gc, os, subprocess, sys, threading
    import pytest

    def start():
        subprocess.run([sys.executable, "-c", ""], check=True)

    @pytest.fixture(params=["loopback", "real"])
    def backend(request):
        if request.param == "real":
            start()
        return request.param

    def test_pure():
        pass

    def test_over(backend):
        assert backend in ("loopback", "real")

    def test_in_the_middle():
        with pytest.raises(ValueError):
            start()
            raise ValueError

    def test_with_an_open_file(tmp_path):
        file = open(tmp_path / "kept", "w")
        start()
        file.close()

    def test_after_that():
        gc.collect()

    def test_of_a_thread():
        done = threading.Event()
        def run():
            start()
            done.set()
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert done.is_set()

    def test_that_hides_it():
        try:
            start()
        except BaseException:
            pass

    def test_that_forks():
        if (pid := os.fork()) == 0:
            os._exit(0)
        os.waitpid(pid, 0)

    def test_that_asks_git():
        subprocess.run(["git", "--version"], check=True)

    @pytest.mark.slow("counts to a million")
    def test_slow():
        pass
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest over the sample, in a process of its own."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_sample.py").write_text(textwrap.dedent(SAMPLE))
    (folder / "pytest.ini").write_text("[pytest]\ntimeout = 60\nfilterwarnings = error\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, cwd=folder, env={**environment, "PYTHONPATH": str(PARTS)}, capture_output=True, text=True, check=False
    )


def test_the_fast_lane_leaves_out_what_starts_a_program_and_says_so(tmp_path: Path) -> None:
    ran = run(tmp_path, "--lane", "fast")
    assert ran.returncode == 0, ran.stdout
    assert "4 passed, 7 left out" in ran.stdout
    assert "4 of 11 tests ran (36%). Left out: 7" in ran.stdout
    assert "5  starts a Python process" in ran.stdout
    assert "1  forks" in ran.stdout
    assert "1  is slow" in ran.stdout


def test_several_workers_say_the_same(tmp_path: Path) -> None:
    ran = run(tmp_path, "--lane", "fast", "-n", "2")
    assert ran.returncode == 0, ran.stdout
    assert "4 of 11 tests ran (36%). Left out: 7" in ran.stdout


def test_what_fails_in_the_fast_lane_has_failed(tmp_path: Path) -> None:
    (tmp_path / "test_wrong.py").write_text("def test_wrong():\n    assert 1 == 2\n")
    ran = run(tmp_path, "--lane", "fast")
    assert ran.returncode == 1
    assert "1 failed, 4 passed, 7 left out" in ran.stdout


def test_without_a_lane_everything_runs(tmp_path: Path) -> None:
    ran = run(tmp_path)
    assert ran.returncode == 0, ran.stdout
    assert "11 passed" in ran.stdout
    assert "left out" not in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "workers"),
    [([], True), (["."], True), (["test_sample.py"], False), (["-s"], False), (["test_sample.py::test_pure"], False)],
)
def test_workers_are_for_more_than_one_file(tmp_path: Path, arguments: list[str], workers: bool) -> None:
    ran = run(tmp_path, "-n", "auto", "-k", "pure", *arguments)
    assert ran.returncode == 0, ran.stdout
    assert (" workers [" in ran.stdout) is workers, ran.stdout


def test_bounds_go_by_one_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seconds(3) == 3 * patience.FACTOR
    monkeypatch.setenv("ETHER_PATIENCE", "4")
    assert patience._factor() == 4.0
    for wrong in ("0", "-1", "nan", "inf"):
        monkeypatch.setenv("ETHER_PATIENCE", wrong)
        with pytest.raises(ValueError, match="a factor above 0"):
            patience._factor()
    monkeypatch.delenv("ETHER_PATIENCE")
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "3")
    assert patience._factor() == 1.0, "several workers loosen no bound"


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_the_code_that_is_there(mutant: mutants.Mutant) -> None:
    right = (mutants.ROOT / mutant.path).read_text()
    wrong = mutant.applied(right)
    assert ast.dump(ast.parse(wrong)) != ast.dump(ast.parse(right))


def test_a_stale_mutant_is_an_error(tmp_path: Path) -> None:
    mutant = mutants.MUTANTS[0]
    with pytest.raises(mutants.Stale, match=rf"{mutant.name}: its text stands 0 times in {mutant.path}, not once"):
        mutant.applied("pass\n")
    with pytest.raises(mutants.Stale, match="2 times"):
        mutant.applied(2 * mutant.old)


def test_there_are_enough_mutants_and_each_has_a_name() -> None:
    names = [mutant.name for mutant in mutants.MUTANTS]
    assert len(set(names)) == len(names) >= 40


def test_the_docs_name_every_file_that_has_a_long_form() -> None:
    """So that a promise with a number in it can be traced to the run that shows it."""
    root = mutants.ROOT
    named = set(re.findall(r"^\| `(tests/[^`]+\.py)`", (root / "docs" / "testing.md").read_text(), re.MULTILINE))
    having = {
        str(file.relative_to(root))
        for file in (root / "tests").glob("*/test_*.py")
        if re.search(r"ETHER_LONG|\brounds: int[,)\n]", file.read_text())
    }
    assert named == having
