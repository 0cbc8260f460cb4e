"""`ether why` and `ether diff`, on ledgers, as a user runs them: offline, in text and in JSON."""

from __future__ import annotations

import doctest
from collections.abc import Mapping
from pathlib import Path

import pytest
from command_line import ether as command
from commands_here import ether_here as ether
from git_bench import Asked, Repository, ask_context, needs_git
from lineage_lab import Writer, write_pipeline

from ether.provenance.context import configuration_facts

YAML = """\
broker: mqtt://lab:hush@host   # the old one
instances:
  doubler: {class_path: parts.Processor, kwargs: {gain: 2, password: hush}}
"""
PIPELINE = ("generator", "doubler", "squarer", "summarizer")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with two runs of a pipeline, between which one line of its code was changed."""
    folder = tmp_path_factory.mktemp("bench")
    repository = Repository(folder / "lab")
    config = {"session": "bench", "instances": {"doubler": {"kwargs": {"gain": 2, "password": "hush"}}}}
    facts = configuration_facts(config, YAML, "ether.yaml")
    with Writer(folder / "ledger") as writer:
        for made in facts.artifacts:
            writer.keep_artifact("main", made.sha256, made.name, made.content)
        for run in ("one", "two"):
            about = ask_context(repository.folder, kwargs={"gain": 2, "password": "hush"})
            contexts = _contexts(writer, about, facts.described)
            writer.begin_run(run, config=facts.described["sha256"])
            ids = write_pipeline(writer, contexts)
            writer.log("squarer", "WARNING", "the lamp is dim", ids["value"])
            writer.end_run()
            if run == "one":
                repository.change("parts.py", "GAIN = 2", "GAIN = 3")
    return folder


def _contexts(writer: Writer, about: Asked, described: Mapping[str, object]) -> dict[str, str]:
    return {name: writer.keep(name, about, instance=name, configuration=dict(described)) for name in PIPELINE}


@needs_git
def test_why_shows_results_value_settings_commit_and_changes(bench: Path) -> None:
    done = command(bench, "why", "summary", "--last", "--ledger", "ledger")
    assert done.code == 0, done.err
    tree, _, rest = done.out.partition("\n\n")
    lines = tree.splitlines()
    wanted = (
        "summary = [0, 0]", "├─ square = 0", "│     ! WARNING the lamp is dim", '│  └─ value = {"x": 0}',
        "│     └─ start", "└─ had heard before: double = 0", "   └─ value ",
    )  # fmt: skip
    for line, begin in zip(lines, wanted, strict=True):
        assert line.startswith(begin)
    assert "with changes (branch bench)" in rest
    assert "-GAIN = 2\n    +GAIN = 3" in rest
    assert "broker: mqtt://lab:***@host   # the old one" in rest
    assert "gain=2, password='***'" in rest
    assert "hush" not in done.out


@needs_git
def test_why_as_json_and_by_row_and_by_the_beginning_of_an_id(bench: Path) -> None:
    told = ether(bench, "why", "summary", "--last", "--ledger", "ledger", "--json").json
    first = told["steps"][0]
    assert (told["asked"], first["value"], first["source"]) == (first["id"], [0, 0], "summarizer")
    assert [step["how"] for step in told["steps"]] == ["asked", "parent", "parent", "parent", "heard", "parent"]
    assert [log["message"] for step in told["steps"] for log in step.get("logs", ())] == ["the lamp is dim"]
    assert {text["kind"] for text in told["texts"].values()} == {"changes", "settings"}
    assert told["contexts"][first["context"]]["code"]["git"]["dirty"] is True
    for what in (str(first["row"]), first["id"][:20]):
        assert ether(bench, "why", what, "--ledger", "ledger", "--json").json == told


@needs_git
@pytest.mark.parametrize(("name", "library"), [("t.csv", "csv"), ("t.parquet", "pyarrow"), ("t.h5", "h5py")])
def test_why_of_a_row_of_an_exported_table(bench: Path, tmp_path: Path, name: str, library: str) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed: pip install -e '.[ci]'")
    table = tmp_path / name
    done = ether(bench, "export", str(bench / "ledger"), "--topic", "summary", "--to", str(table))
    assert done.code == 0, done.err
    asked = [ether(tmp_path, "why", f"{table}:{row}", "--json").json["steps"][0] for row in (1, 2)]
    assert [(step["topic"], step["run"]) for step in asked] == [("summary", "one"), ("summary", "two")]
    newest = ether(bench, "why", "summary", "--last", "--ledger", "ledger", "--json").json
    assert ether(tmp_path, "why", f"{name}:2", "--ledger", str(bench / "ledger"), "--json").json == newest
    ether(tmp_path, "why", f"{name}:3").assert_mistake(1, f"{name}:3", "the rows 1 to 2")
    ether(tmp_path, "why", f"{name}:0").assert_mistake(1, "the rows 1 to 2")
    ether(tmp_path, "why", f"other-{name}:1").assert_mistake(1, f"other-{name}:1", "cannot be read")


@needs_git
def test_why_of_a_table_that_was_sorted_and_one_without_ids(bench: Path, tmp_path: Path) -> None:
    ether(bench, "export", str(bench / "ledger"), "--topic", "summary", "--to", str(tmp_path / "t.csv"))
    heading, *rows = (tmp_path / "t.csv").read_text().splitlines()
    (tmp_path / "mine.csv").write_text("\n".join([f"note,{heading}", *(f'"a\nb",{row}' for row in reversed(rows))]))
    told = ether(tmp_path, "why", "mine.csv:1", "--ledger", str(bench / "ledger"), "--json").json
    assert told["steps"][0]["run"] == "two"
    (tmp_path / "plain.csv").write_text("x,y\n1,2\n")
    ether(tmp_path, "why", "plain.csv:1").assert_mistake(1, "no column 'id'")


@needs_git
def test_why_shows_the_source_on_demand_and_cuts_long_texts(bench: Path) -> None:
    done = ether(bench, "why", "value", "--last", "--ledger", "ledger", "--code")
    assert "source: parts.py" in done.out
    assert "        return value * self.gain" in done.out


def test_a_tree_that_is_cut_says_how_to_see_more(tmp_path: Path) -> None:
    with Writer(tmp_path / "ledger") as writer:
        known = writer.put("a", "x", 0)
        for number in range(50):
            known = writer.put("a", "x", f"\x1b[2J{number}", [known])
    done = ether(tmp_path, "why", known, "--ledger", "ledger", "--steps", "40")
    assert "--steps 400" in done.err
    assert "(39 back) " in done.out
    assert "\x1b" not in done.out
    assert len(ether(tmp_path, "why", known, "--ledger", "ledger").out.splitlines()) == 51


@needs_git
def test_i10_diff_takes_names_of_runs_and_shows_the_line_that_was_changed_and_nothing_else(bench: Path) -> None:
    done = ether(bench, "diff", "one", "two", "--ledger", "ledger")
    assert done.code == 0, done.err
    changed = [line for line in done.out.splitlines() if line.startswith(("    +", "    -"))]
    assert changed == ["    --- a/parts.py", "    +++ b/parts.py", "    -GAIN = 2", "    +GAIN = 3"]
    headings = [line for line in done.out.splitlines()[1:] if line and not line.startswith(" ")]
    assert headings == ["code"]
    told = ether(bench, "diff", "one", "two", "--ledger", "ledger", "--json").json
    assert told["same"] is False
    assert [code["instances"] for code in told["code"]] == [sorted(PIPELINE)]
    assert [told[group] for group in ("configuration", "arguments", "packages", "machines", "counts")] == [[]] * 5


@needs_git
@pytest.mark.parametrize("words", ["why summary --last", "diff one two"])
def test_the_page_shows_what_is_printed(bench: Path, words: str) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "provenance.md").read_text()
    wanted = page.partition(f"$ ether {words}\n")[2].partition("```")[0]
    given = ether(bench, *words.split(), "--ledger", "ledger").out
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.OutputChecker().check_output(wanted, given, flags), given


@needs_git
def test_diff_of_a_run_with_itself_and_between_two_ledgers(bench: Path) -> None:
    done = ether(bench, "diff", "two", "two", "--ledger", "ledger", "--ledger-b", str(bench / "ledger"))
    assert "nothing that was recorded of them differs" in done.out


@needs_git
def test_mistakes_are_one_sentence(bench: Path) -> None:
    ether(bench, "why", "sumary", "--last", "--ledger", "ledger").assert_mistake(
        1, "'sumary'", "recorded are the topics"
    )
    ether(bench, "why", "summary", "--ledger", "ledger").assert_mistake(1, "--last")
    ether(bench, "diff", "one", "three", "--ledger", "ledger").assert_mistake(1, "no run 'three'", "one, two")
    ether(bench, "why", "1", "--ledger", "nowhere").assert_mistake(4, "nowhere")


@needs_git
def test_provenance_is_exported_as_prov_and_as_a_crate(bench: Path, tmp_path: Path) -> None:
    prov = pytest.importorskip("prov.model", reason="prov is not installed: pip install prov")
    crates = pytest.importorskip(
        "rocrate.rocrate", reason="rocrate is not installed: pip install 'ether-medium[crate]'"
    )
    ledger = str(bench / "ledger")
    done = ether(tmp_path, "export", ledger, "--run", "two", "-f", "prov", "-o", "two.json", "--json")
    assert done.json["records"] == 6
    document = prov.ProvDocument.deserialize(str(tmp_path / "two.json"), format="json")
    assert sum(type(each).__name__ == "ProvActivity" for each in document.get_records()) == 6
    done = ether(tmp_path, "export", ledger, "--run", "two", "--topic", "summary", "-f", "crate", "-o", "two")
    assert done.code == 0, done.err
    crate = crates.ROCrate(str(tmp_path / "two"))
    assert [action["name"] for action in crate.get_by_type("CreateAction")] == ["summarizer made 1 records"]
    ether(tmp_path, "export", ledger, "-f", "crate", "-o", "two").assert_mistake(1, "is there already")
    ether(tmp_path, "export", ledger, "--run", "three", "-f", "prov", "-o", "no.json").assert_mistake(1, "nothing was")
