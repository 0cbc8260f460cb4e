"""What an installation contains, and that it works from a folder that has nothing to do with the checkout.

Each installation gets a fresh virtual environment. The libraries that Ether needs come from the environment of the
tests, through a path file: an installation takes seconds and asks no package index.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from patience import patience

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ether", "broker", "hardware_adapters")
IN_THE_SDIST = (*PACKAGES, "tests", "examples", "benchmarks", "docs", "systemd", ".ci")

pytest.importorskip("hatchling", reason="hatchling is not installed: pip install -e '.[test]'")
pytest.importorskip("pip", reason="pip is not installed in this environment: python -m ensurepip")


def run(*command: str | Path, cwd: Path, **more: str) -> str:
    """What the command prints. It runs in a clean environment of variables, so that no PYTHONPATH helps it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))} | more
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=patience(100),
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


class Environment:
    """A fresh virtual environment that sees the libraries of the tests' own one behind its own packages."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=os.name != "nt")
        self.scripts = folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = self.scripts / "python"
        self.packages = Path(
            run(self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
        )
        # The path files of a folder that a path file names are not read: an editable Ether of the tests stays unseen.
        libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (self.packages / "zz_libraries.pth").write_text("\n".join(sorted(libraries)) + "\n")

    def install(self, *what: str | Path) -> None:
        """Install by the tests' own pip, without an index, whatever Ether the environment of the tests has."""
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            self.python,
            "--disable-pip-version-check",
            "install",
            "--quiet",
        ]
        offline = ["--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed"]
        run(*pip, *offline, *what, cwd=self.packages)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel and the source distribution of this tree."""
    folder = tmp_path_factory.mktemp("built")
    code = "from hatchling import build; import sys; build.build_wheel(sys.argv[1]); build.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", code, folder, cwd=ROOT)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


@pytest.fixture(scope="module")
def make_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Environment]:
    return lambda: Environment(tmp_path_factory.mktemp("environment") / "venv")


def files_of_the_tree(*folders: str) -> set[str]:
    """Every file below these folders of the tree that is no product of a run."""
    found = (file for folder in folders for file in (ROOT / folder).rglob("*"))
    return {
        file.relative_to(ROOT).as_posix()
        for file in found
        if file.is_file()
        and not any(part.startswith(("__pycache__", ".hypothesis", "node_modules")) for part in file.parts)
    }


def test_the_wheel_has_the_three_packages_and_nothing_else(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        contained = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert contained == files_of_the_tree(*PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= contained


def test_the_source_distribution_has_what_the_tests_need_and_no_junk(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as sdist:
        contained = {member.name.partition("/")[2] for member in sdist.getmembers() if member.isfile()}
    single = {"pyproject.toml", "README.md", "CHANGELOG.md", ".gitignore"}
    assert contained == files_of_the_tree(*IN_THE_SDIST) | single | {"PKG-INFO"}


INSIDE = """
import sys
from importlib.metadata import distribution, entry_points, version
from pathlib import Path
import broker, ether, hardware_adapters, hardware_adapters.simulate
from ether import ether as front_door

site = Path(sys.argv[1]).resolve()
for package in (broker, ether, hardware_adapters):
    folder = Path(package.__file__).resolve().parent
    assert folder.parent == site, (folder, site)
    assert (folder / "py.typed").is_file()
assert type(front_door).__name__ == "Ether"
assert version("ether-medium") == ether.__version__
plugin, = entry_points(group="pytest11", name="ether")
assert plugin.load().__name__ == "ether.pytest_plugin"
print(ether.__version__)
"""


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_an_installation_works_from_an_unrelated_folder(
    kind: str, built: dict[str, Path], make_environment: Callable[[], Environment], tmp_path: Path
) -> None:
    fresh = make_environment()
    fresh.install(built[kind])
    version = run(fresh.python, "-c", INSIDE, fresh.packages, cwd=tmp_path).strip()
    assert version in run(fresh.scripts / "ether", "--version", cwd=tmp_path)
    assert version in run(fresh.python, "-m", "ether", "--version", cwd=tmp_path)
    refused = subprocess.run(
        [str(fresh.python), "-I", "-m", "broker"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=patience(60),
    )
    assert "Usage: python -I -m broker SETTINGS_FILE" in refused.stdout + refused.stderr
    if kind == "wheel":
        the_demo_runs(fresh, tmp_path)


def the_demo_runs(fresh: Environment, folder: Path) -> None:
    """The first command of the README, from a folder without a file: what it runs comes with the wheel."""
    empty = folder / "empty"
    empty.mkdir()
    environment = {"XDG_DATA_HOME": str(folder / "data"), "TMPDIR": str(folder)}
    before = set(folder.iterdir())
    said = run(fresh.scripts / "ether", "demo", "--seconds", "1.2", cwd=empty, **environment)
    assert " 20.00 degrees  ##########" in said
    assert " temperatures, the highest " in said
    assert list(empty.iterdir()) == []
    assert set(folder.iterdir()) - before == {folder / "data"}, "the files of the demo are removed at its end"
    recorded = run(fresh.scripts / "ether", "data", "demo", "--json", "-T", "power", cwd=empty, **environment)
    assert '"source": "regulator"' in recorded


LAB = """
from ether import ether_get

class Echo:
    @ether_get
    def say(self, word: str) -> str:
        return word
"""

SCRIPT = """
from ether import ether

if __name__ == "__main__":
    ether.tap({"instances": {"echo": {"class_path": "lab.Echo"}}})
    print(ether.get("Echo", "say", {"word": "here"}))
    ether.shutdown()
"""


def test_a_script_beside_a_checkout_named_ether_works(
    built: dict[str, Path], make_environment: Callable[[], Environment], tmp_path: Path
) -> None:
    """The script's folder comes first on the import path, and its folder `ether` would do as a namespace package."""
    with tarfile.open(built["sdist"]) as sdist:
        sdist.extraction_filter = getattr(tarfile, "data_filter", None)  # from Python 3.11.4 on
        sdist.extractall(tmp_path)
    (unpacked,) = tmp_path.iterdir()
    checkout = unpacked.rename(tmp_path / "ether")
    (tmp_path / "lab.py").write_text(LAB)
    (tmp_path / "script.py").write_text(SCRIPT)
    fresh = make_environment()
    fresh.install("-e", checkout)
    assert run(fresh.python, "script.py", cwd=tmp_path) == "here\n"
    where = run(fresh.python, "-c", "import ether; print(ether.__file__)", cwd=tmp_path).strip()
    assert Path(where).resolve() == (checkout / "ether" / "__init__.py").resolve()


def test_ci_runs_the_test_command_of_the_readme() -> None:
    (command,) = re.findall(r"^python3 -m venv .* -m pytest$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert f"({command})" in (ROOT / ".ci" / "run").read_text()
