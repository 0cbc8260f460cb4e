"""What differed between two runs: exactly that, and nothing where nothing did."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from git_bench import PARTS, Asked, Repository, ask_context, needs_git
from lineage_lab import Writer

from ether.errors import NoSuchRun
from ether.ledger.reader import LedgerReader
from ether.provenance.compare_code import reversed_diff, sections
from ether.provenance.compare_runs import ABSENT, Change, Differences, compare
from ether.provenance.context import configuration_facts


def changed_lines(diff: str) -> list[str]:
    return [line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def differences(folder: Path, first: str = "one", second: str = "two") -> Differences:
    with LedgerReader.open(folder) as reader:
        return compare(reader, first, reader, second)


def write_run(writer: Writer, run: str, about: Asked, *, values: int = 1, **changes: Any) -> None:
    writer.begin_run(run)
    context = writer.keep("processor", about, **changes)
    for number in range(values):
        writer.put("processor", "result", number, context=context)
    writer.end_run()


def two_runs(
    tmp_path: Path, between: Callable[[Repository], object], prepare: Callable[[Repository], object] = id
) -> Differences:
    """One run, a change in the repository, another run."""
    bench = Repository(tmp_path / "lab")
    prepare(bench)
    with Writer(tmp_path / "ledger") as writer:
        write_run(writer, "one", ask_context(bench.folder))
        between(bench)
        write_run(writer, "two", ask_context(bench.folder))
    return differences(tmp_path / "ledger")


@needs_git
def test_one_changed_line_is_all_that_differs(tmp_path: Path) -> None:
    found = two_runs(
        tmp_path, lambda bench: bench.change("parts.py", "return value * self.gain", "return value + self.gain")
    )
    (code,) = found.code
    assert changed_lines(code.diff) == ["-        return value * self.gain", "+        return value + self.gain"]
    assert code.instances == ("processor",)
    assert (code.before.dirty, code.after.dirty, code.before.commit) == (False, True, code.after.commit)
    assert code.hint == ""
    others = (
        found.configuration,
        found.arguments,
        found.packages,
        found.machines,
        found.instances,
        found.counts,
        found.run,
    )
    assert others == ((),) * 7


@needs_git
def test_a_line_that_is_changed_again_or_back_is_that_line(tmp_path: Path) -> None:
    again = two_runs(
        tmp_path / "again",
        lambda bench: bench.change("parts.py", "GAIN = 3", "GAIN = 4"),
        lambda bench: bench.change("parts.py", "GAIN = 2", "GAIN = 3"),
    )
    assert changed_lines(again.code[0].diff) == ["-GAIN = 3", "+GAIN = 4"]
    back = two_runs(
        tmp_path / "back",
        lambda bench: bench.git("checkout", "-q", "parts.py"),
        lambda bench: bench.change("parts.py", "GAIN = 2", "GAIN = 3"),
    )
    assert changed_lines(back.code[0].diff) == ["-GAIN = 3", "+GAIN = 2"]


def add_tools(bench: Repository) -> None:
    """A module that the class's own imports, and a table."""
    bench.write("tools.py", "SCALE = 1\n")
    bench.write("table.txt", "a\nb\nc\n")
    bench.change("parts.py", '"""Parts of a bench."""', '"""Parts of a bench."""\n\nimport tools')
    bench.commit()


@needs_git
@pytest.mark.parametrize("name", ["tools.py", "table.txt"])
def test_a_line_of_another_file_is_seen_too_and_when_it_is_undone(tmp_path: Path, name: str) -> None:
    before, after = ("SCALE = 1", "SCALE = 5") if name == "tools.py" else ("b\n", "beta\n")
    there = two_runs(tmp_path / "there", lambda bench: bench.change(name, before, after), add_tools)
    assert changed_lines(there.code[0].diff) == [f"-{before.strip()}", f"+{after.strip()}"]
    assert f"--- a/{name}" in there.code[0].diff

    def prepare(bench: Repository) -> None:
        add_tools(bench)
        bench.change(name, before, after)

    back = two_runs(tmp_path / "back", lambda bench: bench.change(name, after, before), prepare)
    assert changed_lines(back.code[0].diff) == [f"-{after.strip()}", f"+{before.strip()}"]


@needs_git
def test_two_commits_show_the_line_and_where_the_rest_is(tmp_path: Path) -> None:
    def between(bench: Repository) -> None:
        bench.change("parts.py", "GAIN = 2", "GAIN = 3")
        bench.write("other.py", "unrelated = 1\n")
        bench.commit()

    (code,) = two_runs(tmp_path, between).code
    assert changed_lines(code.diff) == ["-GAIN = 2", "+GAIN = 3"]
    assert code.before.commit is not None
    assert code.after.commit is not None
    assert code.hint.endswith(f"git diff {code.before.commit[:10]} {code.after.commit[:10]}")


@needs_git
def test_a_commit_that_changed_nothing_that_runs_is_told_as_a_commit(tmp_path: Path) -> None:
    def between(bench: Repository) -> None:
        bench.write("notes.txt", "a note\n")
        bench.commit()

    (code,) = two_runs(tmp_path, between).code
    assert code.diff == ""
    assert "git diff" in code.hint


def test_without_git_one_changed_line_is_all_that_differs(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    parts = tmp_path / "lab" / "parts.py"
    with Writer(tmp_path / "ledger") as writer:
        for run, text in (("one", PARTS), ("two", PARTS.replace("GAIN = 2", "GAIN = 3"))):
            parts.write_text(text)
            write_run(writer, run, ask_context(tmp_path / "lab", PATH=str(tmp_path)))
    (code,) = differences(tmp_path / "ledger").code
    assert changed_lines(code.diff) == ["-GAIN = 2", "+GAIN = 3"]
    assert str(code.before) == "no commit"


def test_equal_runs_differ_in_nothing(tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text(PARTS)
    about = ask_context(tmp_path)
    with Writer(tmp_path / "ledger") as writer:
        write_run(writer, "one", about)
        write_run(writer, "two", about, incarnation="another", epoch=2)
    assert differences(tmp_path / "ledger").nothing


def test_settings_arguments_packages_machines_instances_and_counts(tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text(PARTS)
    about = ask_context(tmp_path, kwargs={"gain": 2})
    one, two = (
        configuration_facts({"session": "bench", "instances": {"processor": {"kwargs": {"gain": gain}}}})
        for gain in (2, 3)
    )
    packages = [b'{"python":{"version":"3.11.7"},"packages":{"numpy":"%s"}}' % text for text in (b"1.26", b"2.0")]
    listed = [hashlib.sha256(text).hexdigest() for text in packages]
    with Writer(tmp_path / "ledger") as writer:
        for facts in (one, two):
            for made in facts.artifacts:
                writer.keep_artifact("main", made.sha256, made.name, made.content)
        for sha256, text in zip(listed, packages, strict=True):
            writer.keep_artifact("main", sha256, "environment.json", text)
        write_run(writer, "one", about, configuration=one.described, environment={"sha256": listed[0]})
        writer.run = "one"
        writer.put("camera", "frame", 1, context=writer.keep("camera", about, **{"class": "lab.Camera"}))
        write_run(
            writer, "two", about, values=3, kwargs={"gain": 3}, configuration=two.described,
            environment={"sha256": listed[1]}, machine={**about.told["machine"], "host": "pi"},
        )  # fmt: skip
    found = differences(tmp_path / "ledger")
    assert found.configuration == (Change("instances.processor.kwargs.gain", 2, 3),)
    assert found.arguments == (Change("processor.gain", 2, 3),)
    assert found.machines[0] == Change("camera", about.told["machine"], ABSENT)
    assert Change("processor.host", about.told["machine"]["host"], "pi") in found.machines
    assert found.instances == (Change("camera", "lab.Camera", ABSENT),)
    assert found.counts == (Change("frame", 1, ABSENT), Change("result", 1, 3))
    assert found.code == ()


def test_packages_that_differ(tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text(PARTS)
    about = ask_context(tmp_path)
    with Writer(tmp_path / "ledger") as writer:
        for run, text in (
            ("one", b'{"python":{"version":"3.11.7"},"packages":{"numpy":"1.26","old":"1"}}'),
            ("two", b'{"python":{"version":"3.12.0"},"packages":{"numpy":"2.0"}}'),
        ):
            sha256 = hashlib.sha256(text).hexdigest()
            writer.keep_artifact("main", sha256, "environment.json", text)
            write_run(writer, run, about, environment={"sha256": sha256})
    assert differences(tmp_path / "ledger").packages == (
        Change("numpy", "1.26", "2.0"), Change("old", "1", ABSENT), Change("python", "3.11.7", "3.12.0"),
    )  # fmt: skip


def test_a_run_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with Writer(tmp_path / "ledger") as writer:
        writer.begin_run("one")
        writer.put("a", "x", 1)
    with pytest.raises(NoSuchRun, match=r"no run 'tow'.*there are: one"):
        differences(tmp_path / "ledger", "one", "tow")


DIFF = """\
diff --git a/new.py b/new.py
new file mode 100644
index 0000000..1234567
--- /dev/null
+++ b/new.py
@@ -0,0 +1,2 @@
+a
+b
diff --git a/old.py b/old.py
index 1234567..89abcde 100644
--- a/old.py
+++ b/old.py
@@ -1,3 +1,3 @@
 a
-b
+c
 d
\\ No newline at end of file
diff --git a/x.bin b/x.bin
index 1234567..89abcde 100644
GIT binary patch
literal 3
Kc${O>
"""


def test_a_difference_by_file_and_turned_round() -> None:
    parts = sections(DIFF)
    assert list(parts) == ["new.py", "old.py", "x.bin"]
    assert "".join(parts.values()) == DIFF
    turned = reversed_diff(parts["old.py"])
    assert turned.endswith(
        "--- a/old.py\n+++ b/old.py\n@@ -1,3 +1,3 @@\n a\n-c\n+b\n d\n\\ No newline at end of file\n"
    )
    assert "--- a/new.py\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-a\n-b\n" in reversed_diff(parts["new.py"])
    assert "was undone" in reversed_diff(parts["x.bin"])


@needs_git
def test_a_name_means_the_last_run_of_that_name(tmp_path: Path) -> None:
    """PH12: as for `ether.data(run="plateA")`."""
    about = ask_context(Repository(tmp_path / "lab").folder)
    with Writer(tmp_path / "ledger") as writer:
        for run, values in (("plateA/1", 1), ("plateA/2", 3), ("plateB/9", 4), ("plateB/10", 5)):
            write_run(writer, run, about, values=values)
    found = differences(tmp_path / "ledger", "plateA", "plateB")
    assert (found.before.run, found.after.run) == ("plateA/2", "plateB/10")
    assert found.counts == (Change("result", 3, 5),)
    assert differences(tmp_path / "ledger", "plateA/1", "plateB").counts == (Change("result", 1, 5),)
