"""The lanes, the unit of waiting, and the mutants: what decides about tests is tested, too."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import again
import distribution
import mutants
import patience
import pytest
from patience import patience as seconds

PARTS = Path(__file__).parent / "parts"
CONFTEST = "from lanes import *\nfrom lanes import pytest_configure\n"
REGISTERS = """
import distribution

def pytest_configure(config):
    config.pluginmanager.register(distribution)
"""
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


def run(folder: Path, *arguments: str, conftest: str = CONFTEST) -> subprocess.CompletedProcess[str]:
    """pytest over the sample, in a process of its own."""
    (folder / "conftest.py").write_text(conftest)
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


TURNS = """
    import pytest

    missing = pytest.mark.skipif(condition=True, reason="not installed")

    @pytest.fixture(params=["a", "b", pytest.param("c", marks=missing)])
    def broker(request):
        return request.param

    class TestInTurn:
        pytestmark = pytest.mark.in_turn("broker")

        @pytest.mark.parametrize("number", [1, 2])
        def test_one(self, broker, number): pass
        def test_two(self, broker): pass
        def test_without(self): pass

    def test_each(broker): pass

    @pytest.mark.drawn(3)
    @pytest.mark.parametrize("number", range(7))
    def test_drawn(number): pass
"""


@pytest.mark.parametrize(
    ("long", "ran"),
    [
        ("0", ["one[a-1]", "one[b-2]", "two[a]", "without", "each[a]", "each[b]"]),
        ("1", ["one[a-1]", "one[a-2]", "one[b-1]", "one[b-2]", "two[a]", "two[b]", "without", "each[a]", "each[b]"]),
    ],
)
def test_brokers_take_turns_except_in_the_long_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: str, ran: list[str]
) -> None:
    (tmp_path / "test_turns.py").write_text(textwrap.dedent(TURNS))
    monkeypatch.setenv("ETHER_LONG", long)
    said = run(tmp_path, "-v", "-k", "TestInTurn or each or drawn").stdout
    passed = re.findall(r"::test_(\S+) PASSED", said)
    drawn = [name for name in passed if name.startswith("drawn[")]
    assert sorted(set(passed) - set(drawn)) == sorted(ran), said
    assert len(drawn) == (7 if long == "1" else 3), "of each three one, of the last one that one"
    monkeypatch.setenv("ETHER_LONG", "0")
    assert "1 passed" in run(tmp_path, "test_turns.py::test_drawn[6]").stdout, "what is asked for is run"
    assert "1 passed" in run(tmp_path, "test_turns.py::TestInTurn::test_two[b]").stdout, "what is asked for is run"


def test_the_parts_of_the_suite_are_all_of_it(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"test_file{number}.py").write_text("def test_it(): pass\n")
    parts = [
        set(re.findall(r"(\S+)::test_it PASSED", run(tmp_path, "-v", "--part", f"{n}/3").stdout)) for n in (1, 2, 3)
    ]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 8
    assert "--part takes K/N" in run(tmp_path, "--part", "4/3").stdout


def test_the_processor_time_of_a_test_counts_its_programs_and_no_pause(tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.4: pass"
    (tmp_path / "test_costs.py").write_text(
        "import subprocess, sys, threading\n"
        f"def test_program(): subprocess.run([sys.executable, '-c', {busy!r}], check=True)\n"
        "def test_pause(): threading.Event().wait(0.4)\n"
    )
    arguments = ("-n", "2", "--processor-to", "spent", "--seconds-to", "took", "test_costs.py")
    assert "2 passed" in run(tmp_path, *arguments, conftest=CONFTEST + REGISTERS).stdout
    spent, took = (
        {name.partition("::")[2]: s for s, name in again.read(tmp_path / kind)} for kind in ("spent", "took")
    )
    assert spent["test_program"] >= 0.4 > 0.2 > spent["test_pause"]
    assert took["test_pause"] >= 0.4


def test_what_takes_longest_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution, "seconds_of_files", lambda: {"long.py": 9.0, "longer.py": 30.0})
    waiting = distribution.LongestFirst()
    for path, count in {"many.py": 200, "long.py": 1, "new.py": 3, "longer.py": 2}.items():
        waiting[path] = {f"{path}::test_{number}": False for number in range(count)}
    assert [waiting.popitem(last=False)[0] for _ in range(4)] == ["longer.py", "many.py", "long.py", "new.py"]


def test_the_order_of_files_is_of_files_that_are_there() -> None:
    assert [path for path in distribution.seconds_of_files() if not (mutants.ROOT / path).is_file()] == []


def test_the_tests_that_take_longest_are_found_and_run_again(tmp_path: Path) -> None:
    path = tmp_path / "seconds.out"
    path.write_text("0.10 tests/a.py::test_b[x y]\n7.00 tests/a.py::test_a\n30.00 tests/c/d.py::test_c\n")
    rows = again.read(path)
    assert again.slowest(rows, 2, []) == ["tests/c/d.py::test_c", "tests/a.py::test_a"]
    assert again.slowest(rows, 2, ["tests/a.py"]) == ["tests/a.py::test_a", "tests/a.py::test_b[x y]"]
    assert again.table(rows).splitlines()[2:] == ["   30 tests/c/d.py", "    7 tests/a.py"]


def test_tests_that_are_not_run_here_are_no_fault_of_theirs(tmp_path: Path) -> None:
    (tmp_path / "test_none.py").write_text("def test_one(): pass\n")
    with pytest.raises(LookupError, match="none of these tests is run here"):
        again.failed([str(tmp_path / "test_none.py")], ["-n", "0", "-k", "another"])


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


@pytest.mark.slow("parses the whole tree")
def test_a_mutant_meets_the_nearest_tests_first() -> None:
    copy = mutants.Copy(mutants.ROOT / "copy" / ".venv" / "bin" / "python", [])
    mutant = next(each for each in mutants.MUTANTS if each.path == "ether/ledger/durable.py")
    files, rooms, everything, *again = copy.stages(mutant, "all")
    assert "tests/ledger/test_disk_faults.py" in files.places
    assert "tests/ledger" in rooms.places
    assert everything == mutants.Stage("fast")
    assert [each.places for each in again] == [files.places, rooms.places, ()]
    assert copy.stages(mutant, "fast") == [files, rooms, everything]


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
        if re.search(r"ETHER_LONG|mark\.drawn|\brounds: int[,)\n]", file.read_text())
    }
    assert named == having
