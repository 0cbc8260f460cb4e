"""PROV-JSON that another library reads, and that says what the ledger says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from git_bench import Repository, ask_context, needs_git
from lineage_lab import Writer, write_pipeline

from ether.ledger.reader import LedgerReader
from ether.provenance.context import configuration_facts
from ether.provenance.lineage import find, why
from ether.reading.export import prov as export_prov


def library() -> Any:
    return pytest.importorskip("prov.model", reason="prov is not installed: pip install prov")


def exported(folder: Path, path: Path) -> Any:
    with LedgerReader.open(folder) as reader:
        export_prov.write(reader, path)
    return library().ProvDocument.deserialize(str(path), format="json")


def relations(document: Any, kind: str) -> list[tuple[str, ...]]:
    """The relations of a kind, as the names that they join."""
    return sorted(
        tuple(str(value) for _, value in record.formal_attributes if value is not None and hasattr(value, "localpart"))
        for record in document.get_records()
        if type(record).__name__ == kind
    )


def test_who_was_made_from_what(tmp_path: Path) -> None:
    with Writer(tmp_path / "ledger") as writer:
        ids = write_pipeline(writer)
    document = exported(tmp_path / "ledger", tmp_path / "prov.json")
    assert (f"msg:{ids['summary']}", f"msg:{ids['square']}", f"made:{ids['summary']}") in relations(
        document, "ProvDerivation"
    )
    used = relations(document, "ProvUsage")
    assert (f"made:{ids['summary']}", f"msg:{ids['double']}") in used
    assert len(used) == 5
    roles = {
        str(next(iter(each.get_attribute("prov:role"))))
        for each in document.get_records()
        if each.is_relation() and each.get_attribute("prov:role")
    }
    assert roles == {"parent", "heard"}
    assert (f"msg:{ids['value']}", f"made:{ids['value']}") in relations(document, "ProvGeneration")
    assert (f"made:{ids['value']}", "source:generator") in relations(document, "ProvAssociation")


def test_the_library_writes_what_it_read(tmp_path: Path) -> None:
    with Writer(tmp_path / "ledger") as writer:
        ids = write_pipeline(writer, rounds=3)
        writer.log("a lab / with: signs", "WARNING", "é \ud800", ids["value"])
        writer.put("odd", "text", "x" * 5_000)
    document = exported(tmp_path / "ledger", tmp_path / "prov.json")
    again = library().ProvDocument.deserialize(content=document.serialize(format="json"), format="json")
    assert again == document
    assert "wasGeneratedBy(msg:" in document.get_provn()
    assert sum(type(each).__name__ == "ProvEntity" for each in document.get_records()) == 17


@needs_git
def test_instances_code_changes_and_settings_are_in_it(tmp_path: Path) -> None:
    bench = Repository(tmp_path / "lab")
    bench.change("parts.py", "GAIN = 2", "GAIN = 3")
    about = ask_context(bench.folder)
    facts = configuration_facts({"session": "bench"}, "session: bench\n", "ether.yaml")
    with Writer(tmp_path / "ledger") as writer:
        context = writer.keep("processor", about, configuration=facts.described)
        made = writer.put("processor", "result", 4, context=context)
    document = exported(tmp_path / "ledger", tmp_path / "prov.json")
    members = {member for _, member in relations(document, "ProvMembership")}
    labels = {
        str(each.identifier): each.label for each in document.get_records() if type(each).__name__ == "ProvEntity"
    }
    assert {labels[member] for member in members} == {
        "parts.py", "changes.diff", "configuration.json", "ether.yaml", "environment.json",
    }  # fmt: skip
    assert relations(document, "ProvAssociation") == [(f"made:{made}", f"instance:{context}", f"ctx:{context}")]
    (plan,) = document.get_record(f"ctx:{context}")
    assert {str(value) for value in plan.get_attribute("ether:commit")} == {about.code["git"]["commit"]}


def test_a_tree_alone_can_be_written(tmp_path: Path) -> None:
    with Writer(tmp_path / "ledger") as writer:
        write_pipeline(writer)
        ids = write_pipeline(writer)
    with LedgerReader.open(tmp_path / "ledger") as reader:
        tree = why(reader, find(reader, ids["double"]))
        assert export_prov.write(reader, tmp_path / "prov.json", tree.records) == 3
    told = json.loads((tmp_path / "prov.json").read_text())
    assert set(told["entity"]) == {f"msg:{ids[name]}" for name in ("double", "value", "start")}
    library().ProvDocument.deserialize(str(tmp_path / "prov.json"), format="json")
