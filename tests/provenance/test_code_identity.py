"""Which code a value came from, asked of real repositories by processes that import from them."""

from __future__ import annotations

import hashlib
import linecache
import sys
from pathlib import Path

import pytest
from git_bench import PARTS, Repository, ask_context, needs_git

from ether.provenance.code_identity import code_identity
from ether.provenance.git_state import DIFF_MAX, GitState, NoGit, difference, git_state


@needs_git
def test_a_clean_commit(tmp_path: Path) -> None:
    bench = Repository(tmp_path / "lab")
    asked = ask_context(bench.folder)
    git = asked.code["git"]
    assert git["commit"] == bench.git("rev-parse", "HEAD").strip()
    assert (git["branch"], git["dirty"], git["diff"]) == ("bench", False, None)
    assert git["remote"] == "https://example.org/lab.git"
    assert asked.code["file"] == "parts.py"
    assert asked.code["sha256"] == hashlib.sha256(PARTS.encode()).hexdigest()
    assert asked.text(asked.code["files"]["parts.py"]) == PARTS
    assert b"hush" not in asked.content


@needs_git
def test_a_changed_line_is_in_the_difference_and_nothing_else_is(tmp_path: Path) -> None:
    bench = Repository(tmp_path / "lab")
    before = ask_context(bench.folder)
    bench.change("parts.py", "GAIN = 2", "GAIN = 3")
    asked = ask_context(bench.folder)
    assert asked.code["git"]["dirty"] is True
    assert asked.code["git"]["changed"] == ["parts.py"]
    diff = asked.text(asked.code["git"]["diff"])
    assert [line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")] == [
        "-GAIN = 2",
        "+GAIN = 3",
    ]
    assert asked.sha256 != before.sha256
    bench.git("checkout", "-q", "parts.py")
    assert ask_context(bench.folder).sha256 == before.sha256


@needs_git
def test_imported_files_that_git_does_not_have_are_kept_and_others_are_not(tmp_path: Path) -> None:
    bench = Repository(tmp_path / "lab")
    bench.write("pkg/__init__.py", "")
    bench.write("pkg/used.py", "class Used:\n    pass\n")
    bench.write("pkg/unused.py", "secret_of_mine = 1\n")
    bench.write(".gitignore", "ignored.py\n")
    bench.write("ignored.py", "MADE = 1\n")
    asked = ask_context(bench.folder, "pkg.used.Used", imports=("ignored",))
    assert set(asked.code["files"]) == {"pkg/used.py", "pkg/__init__.py", "ignored.py"}
    assert asked.code["git"]["untracked"] == ["ignored.py", "pkg/__init__.py", "pkg/used.py"]
    assert asked.code["git"]["dirty"] is True


@needs_git
def test_bases_from_the_same_project_are_kept(tmp_path: Path) -> None:
    bench = Repository(tmp_path / "lab")
    bench.write("base.py", "class Base:\n    pass\n")
    bench.write("top.py", "import parts\nfrom base import Base\nclass Top(Base):\n    pass\n")
    bench.commit()
    assert set(ask_context(bench.folder, "top.Top").code["files"]) == {"top.py", "base.py"}


@needs_git
def test_settings_of_the_users_git_change_nothing(tmp_path: Path) -> None:
    """Neither colours nor other programs nor the user's own prefixes."""
    bench = Repository(tmp_path / "lab")
    bench.change("parts.py", "GAIN = 2", "GAIN = 3")
    plain = ask_context(bench.folder)
    for name, value in {
        "diff.external": "false", "color.ui": "always", "diff.noprefix": "true", "core.fsmonitor": "touch seen; false",
        "diff.mnemonicPrefix": "true",
    }.items():  # fmt: skip
        bench.git("config", name, value)
    again = ask_context(bench.folder, GIT_DIR=str(tmp_path / "elsewhere"))
    assert again.code == plain.code
    assert not (bench.folder / "seen").exists()


@needs_git
def test_binary_and_large_files(tmp_path: Path) -> None:
    bench = Repository(tmp_path / "lab")
    (bench.folder / "table.bin").write_bytes(bytes(range(256)))
    bench.write("large.txt", "begin\n")
    bench.commit()
    (bench.folder / "table.bin").write_bytes(bytes(range(255, -1, -1)))
    (bench.folder / "large.txt").write_bytes(b"x" * (DIFF_MAX + 1))
    code = (asked := ask_context(bench.folder)).code
    assert code["git"]["diff_left_out"] == ["large.txt"]
    diff = asked.artifacts[code["git"]["diff"]][1]
    assert b"GIT binary patch" in diff
    assert b"large.txt" not in diff
    clean = Repository(tmp_path / "clean")
    (clean.folder / "table.bin").write_bytes(bytes(range(256)))
    clean.commit()
    (tmp_path / "changes.diff").write_bytes(diff)
    clean.git("apply", str(tmp_path / "changes.diff"))
    assert (clean.folder / "table.bin").read_bytes() == bytes(range(255, -1, -1))


@needs_git
def test_a_difference_that_is_too_long_is_cut_and_says_so(tmp_path: Path) -> None:
    bench = Repository(tmp_path / "lab")
    for number in range(3):
        bench.write(f"data{number}.txt", "begin\n")
    bench.commit()
    for number in range(3):
        bench.write(f"data{number}.txt", "".join(f"{n} {number}\n" for n in range(250_000)))
    state = git_state(str(bench.folder))
    assert isinstance(state, GitState)
    found = difference(state)
    assert len(found.content) == DIFF_MAX
    assert found.cut is not None
    assert found.cut > DIFF_MAX


@needs_git
def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "parts.py").write_text(PARTS)
    import subprocess

    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    code = ask_context(folder).code
    assert (code["git"]["commit"], code["git"]["dirty"]) == (None, True)
    assert set(code["files"]) == {"parts.py"}


@needs_git
def test_deleted_files_and_names_with_spaces(tmp_path: Path) -> None:
    bench = Repository(tmp_path / "lab")
    bench.write("two words é.txt", "a\n")
    bench.write("gone.txt", "a\n")
    bench.commit()
    bench.write("two words é.txt", "b\n")
    (bench.folder / "gone.txt").unlink()
    git = ask_context(bench.folder).code["git"]
    assert git["changed"] == ["gone.txt", "two words é.txt"]


def test_without_git_the_imported_files_of_the_project_are_kept(tmp_path: Path) -> None:
    for name, text in {"lab/__init__.py": "", "lab/parts.py": PARTS, "lab/tools.py": "", "other.py": ""}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    asked = ask_context(tmp_path, "lab.parts.Processor", imports=("lab.tools",), PATH=str(tmp_path))
    assert asked.code["git"] is None
    assert asked.code["why_no_git"] == "git is not installed"
    assert asked.code["root"] == str(tmp_path.resolve())
    assert set(asked.code["files"]) == {"lab/__init__.py", "lab/parts.py", "lab/tools.py"}
    assert asked.text(asked.code["files"]["lab/parts.py"]) == PARTS


def test_passwords_of_brokers_in_a_source_are_not_kept(tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text(PARTS + 'BROKER = "mqtt://lab:hush@host"\n')
    asked = ask_context(tmp_path)
    assert 'BROKER = "mqtt://lab:***@host"' in asked.named("parts.py")
    assert asked.code["sha256"] == hashlib.sha256((tmp_path / "parts.py").read_bytes()).hexdigest()


def test_a_class_of_a_cell_is_the_text_of_the_cell() -> None:
    text = "class Cell:\n    def work(self):\n        return 7\n"
    name = "<cell 4 of a test>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    space = {"__name__": "no_such_module"}
    exec(compile(text, name, "exec"), space)
    found = code_identity("no_such_module.Cell", space["Cell"])  # type: ignore[arg-type]
    assert [made.content.decode() for made in found.artifacts] == [text]
    assert found.described["files"] == {name: found.artifacts[0].sha256}


def test_a_class_without_any_source_says_so() -> None:
    bare = type("Bare", (), {"__module__": "no_such_module"})
    assert code_identity("no_such_module.Bare", bare).described["why_no_git"] == "no source was found"


def test_a_class_of_an_installed_package_is_its_own_file() -> None:
    found = code_identity("pytest.MonkeyPatch", pytest.MonkeyPatch)
    assert found.described["why_no_git"] == "an installed package"
    assert list(found.described["files"]) == ["monkeypatch.py"]


def test_the_program_that_runs_has_an_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "measure").write_text("print('a program without a suffix')\n")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "measure"), raising=False)
    found = code_identity("__main__")
    assert found.described["file"] == "measure"
    assert "measure" in found.described["files"]


def test_a_folder_that_is_not_there_is_no_repository(tmp_path: Path) -> None:
    found = git_state(str(tmp_path / "gone"))
    assert isinstance(found, NoGit)
    assert "there is no folder" in found.why
