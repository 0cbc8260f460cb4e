"""A value that is made of many names all of them: fits, means, joins, summaries, over every broker.

One session makes values of every shape, whose classes say themselves which messages they have used. Then the session
is over, and `ether why`, PROV and the crate have to name these, from the ledger alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from commands_here import ether_here as command
from engine_params import EVERY
from lineage_lab import Writer
from lineage_parts import Fit, Join, Mean
from patience import patience
from running_brokers import session_broker

from ether import Ether, ether
from ether.errors import NotAnInput, RemoteError
from ether.ledger.reader import LedgerReader, RecordFilter, StoredRecord
from ether.provenance.inputs import COULD, inputs_of
from ether.provenance.lineage import Tree, find, why
from ether.reading.export import crate as export_crate
from ether.reading.export import prov as export_prov

READS = 1_200
KINDS = ("data", "record", "call")
FITS = (2, 12, 40, 1_000)


def part(name: str, **more: Any) -> dict[str, Any]:
    return {"class_path": f"lineage_parts.{name}", **more}


INSTANCES = {
    "mean": part("Mean"),
    "fits": part("Fits"),
    "late": part("Fit", kwargs={"n": 5, "late": True}),
    "three": part("Fit", kwargs={"n": 100}, concurrency=3),
    "newest": part("Fit", kwargs={"n": 6}, keep=4),
    "join": part("Join"),
    "exact": part("Exact"),
    "reader": part("Reader"),
}


@dataclass
class Made:
    """The ledger of the session, and what its program has noted."""

    folder: Path
    used: dict[str, list[str]] = field(default_factory=dict)
    """By name of a record the ids that it is made of."""

    def records(self, topic: str, source: str | None = None) -> list[StoredRecord]:
        with LedgerReader.open(self.folder) as reader:
            return list(reader.records(RecordFilter(kinds=KINDS, topic=topic, source=source)))

    def inputs(self, record: StoredRecord) -> dict[str, str]:
        """Each input of a record, with how it is known."""
        with LedgerReader.open(self.folder) as reader:
            return dict(inputs_of(reader, record).each())

    def missing(self, record: StoredRecord) -> int:
        with LedgerReader.open(self.folder) as reader:
            return sum(group.missing for group in inputs_of(reader, record).groups)


@pytest.fixture(scope="module", params=EVERY if os.environ.get("ETHER_LONG") == "1" else EVERY[:1])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("many") / "ledger"
    config = {"session": f"many{request.param}", "record": {"topics": "all", "folder": str(folder)}}
    found = Made(folder)
    with session_broker(str(request.param)) as broker:
        ether.tap({**config, "instances": INSTANCES}, broker=broker)
        try:
            _run(ether, found)
        finally:
            ether.shutdown()
    return found


def _run(ether: Ether, found: Made) -> None:
    for v in (1, 1, 1, 1, 96, 2, 2, 2, 2, 2):
        ether.pub({"v": v}, topic="reading")
    for v in range(READS):
        ether.pub({"v": v}, topic="read")
    for frame in range(20):
        for name in ("label", "boxes", "depth"):
            ether.pub({"frame": frame}, topic=f"join/{name}")
    wait_s = patience(20)
    for n in (2, 12, 300):
        ether.get("exact", "value", {"n": n}, timeout_s=wait_s)
    for method in ("model", "array", "forgotten"):
        ether.get("exact", method, timeout_s=wait_s)
    ether.get("exact", "publish", {"n": 400}, timeout_s=wait_s)
    ether.record("before", "k")
    for _ in range(12):
        ether.get("reader", "read", {"well": "A1"})
    ether.record(0.124, "k")
    with ether.inputs() as ids:
        for well in ("A2", "A3", "A4"):
            ether.get("reader", "read", {"well": well})
    with pytest.raises(RemoteError, match="dirty"):
        ether.get("reader", "read", {"well": "dirty"})
    ether.get("reader", "read", {"well": "A5"})
    found.used["asked"] = list(ids)
    ether.record(ether.made_of(0.3, ids), "exact k")
    ether.record(0.4, "k")
    ether.flush()
    data = ether.data(topic="read", where="v < 700")
    ether.record(sum(record.value["v"] for record in data), "total")
    found.used["total"] = [record.id for record in data]
    ether.record(ether.made_of([1], data), "exact total")
    heard = threading.Event()
    later = threading.Thread(target=_count_up, args=(ether, heard, 10))
    later.start()
    ether.wait_for("temp", lambda t: heard.set() or t > 7, timeout_s=wait_s)  # type: ignore[func-returns-value]
    later.join()
    ether.record("hot", "state")
    with ether.subscribe("echo/+") as echo, ether.inputs() as ids:
        ether.pub(1, topic="echo/a")
        ether.pub(2, topic="echo/b")
        for _ in range(2):
            echo.get(timeout_s=wait_s)
    ether.record(3, "heard")
    found.used["heard"] = list(ids)


def _count_up(ether: Ether, heard: threading.Event, count: int) -> None:
    """Zeros until the program has heard one: until then its subscription may not stand. Then up to `count`."""
    deadline = time.monotonic() + patience(20)
    while not heard.wait(0.02) and time.monotonic() < deadline:
        ether.pub(0, topic="temp")
    for number in range(1, count):
        ether.pub(number, topic="temp")


# -- P1


def test_the_mean_of_the_reproducer_names_all_five(made: Made) -> None:
    first, second = made.records("mean")
    assert first.value == 20.0
    readings = made.records("reading")
    how = made.inputs(first)
    assert how == {**{it.id: "since" for it in readings[:4]}, readings[4].id: "parent"}
    assert how.keys() <= made.inputs(second).keys() | how.keys()
    assert {it.id for it in readings[5:]} <= made.inputs(second).keys()
    assert made.inputs(second).get(readings[4].id) == "heard", "its handler went on after the first mean"
    done = command(made.folder.parent, "why", str(first.row), "--ledger", "ledger")
    assert "and 4 more reading by main since its start; it could have used them" in done.out
    values = [line.partition('{"v": ')[2].partition("}")[0] for line in done.out.splitlines() if '{"v": ' in line]
    assert values == ["96", "1", "1", "1", "1"]
    told = command(made.folder.parent, "why", str(first.row), "--ledger", "ledger", "--json").json
    assert told["inputs"] == {"parent": [readings[4].id], "since": [it.id for it in readings[:4]]}
    assert (told["missing"], told["unnamed"], told["cut"]) == ([], 0, False)
    again = command(made.folder.parent, "why", "mean", "--last", "--ledger", "ledger")
    assert "and 4 more reading by main since its last mean; it could have used them" in again.out
    assert "mean had made 1 mean before, the last in row" in again.out


# -- the other shapes


def quickest_why(ledger: Path, known: str) -> tuple[Tree, float]:
    """The tree of a value, and the processor time that it takes: the least of three, as a core that is shared does the
    same in more of it."""
    took_s = []
    for _ in range(3):
        began = time.process_time()
        with LedgerReader.open(ledger) as reader:
            tree = why(reader, find(reader, known))
        took_s.append(time.process_time() - began)
    return tree, min(took_s)


@pytest.mark.parametrize("source", [*(f"fit/{n}" for n in FITS), "late", "three", "newest"])
def test_a_fit_names_every_read_that_it_used(made: Made, source: str) -> None:
    fits = made.records(source) if "/" in source else made.records("fit", source)
    assert fits
    for fit in fits:
        named, used = made.inputs(fit), set(fit.value["ids"])  # type: ignore[index]
        assert used <= named.keys()
        assert made.missing(fit) == 0
        assert len(named) <= len(used) + (6 if source == "three" else 1), "it names no others, but what was in work"


def test_a_fit_of_many_is_one_line_and_all_lines_where_they_are_wanted(made: Made) -> None:
    (fit,) = made.records("fit/1000")
    tree, took_s = quickest_why(made.folder, fit.id)
    assert took_s < 0.5  # bare: it takes a tenth, and the command half a second more
    (group,) = tree.groups
    assert set(group.ids) | set(fit.parents) == set(fit.value["ids"])  # type: ignore[index]
    done = command(made.folder.parent, "why", str(fit.row), "--ledger", "ledger")
    assert "and 999 more read by main since its start; it could have used them  rows " in done.out
    assert done.out.count("read = ") == 1
    done = command(made.folder.parent, "why", str(fit.row), "--ledger", "ledger", "--inputs")
    assert done.out.count("read = ") == 1_000


@pytest.mark.parametrize("topic", ["joined", "loose"])
def test_a_join_of_three_topics_names_all_three(made: Made, topic: str) -> None:
    joined = made.records(topic)
    assert len(joined) == 20
    for record in joined:
        named, used = made.inputs(record), record.value["ids"]  # type: ignore[index]
        assert set(used) <= named.keys()
        if topic == "joined":
            assert named == dict.fromkeys(used, "used")
        else:
            assert "used" not in named.values()
            assert named[used[2]] == "parent"


def test_what_the_code_says_is_exact_however_the_value_leaves(made: Made) -> None:
    reads = [it.id for it in made.records("read")][::3]

    def used(topic: str) -> list[list[str]]:
        records = made.records(topic)
        found = [made.inputs(record) for record in records]
        assert not any(COULD.intersection(each.values()) for each in found)
        return [[known for known, how in each.items() if how == "used"] for each in found]

    assert used("exact.value") == [reads[:2], reads[:12], reads[:300]]
    assert used("exact.model") == [reads[:3]]
    assert used("array") == used("exact.array") == [reads[:4]]
    assert used("exact") == [reads[:400]]
    assert used("seven") == [reads[:2]]
    assert used("nothing") == [reads[2:4]]
    assert used("exact k") == [made.used["asked"]]
    assert used("exact total") == [made.used["total"]]
    (other,) = made.records("other seven")
    assert "used" not in made.inputs(other).values()
    (array,) = made.records("array")
    assert array.value.tolist() == [[0, 1, 2], [3, 4, 5]]  # type: ignore[attr-defined]
    (record,) = made.records("exact")
    (trigger,) = (known for known, how in made.inputs(record).items() if how == "trigger")
    assert [it.id for it in made.records("exact.publish")] == [trigger]


def test_a_value_that_was_converted_after_it_was_named_is_not_exact_and_that_is_logged(made: Made) -> None:
    (record,) = made.records("exact.forgotten")
    assert "used" not in made.inputs(record).values()
    with LedgerReader.open(made.folder) as reader:
        logs = [str(it.value) for it in reader.records(RecordFilter(kinds=("log",), source="exact"))]
    assert any("has not handed these very values over" in log for log in logs)


def test_answers_of_calls_are_inputs_of_what_a_program_makes(made: Made) -> None:
    reads = [it for it in made.records("reader.read") if "result" in it.value]  # type: ignore[operator]
    _, twelve, later = made.records("k")
    since = [known for known, how in made.inputs(twelve).items() if how == "since"]
    assert since == [it.id for it in reads[:12]]
    assert made.used["asked"] == [it.id for it in reads[12:15]]
    since = [known for known, how in made.inputs(later).items() if how == "since"]
    assert since == [it.id for it in reads[12:]], "and not the one that failed"


def test_records_and_messages_that_a_program_reads_are_inputs(made: Made) -> None:
    (total,) = made.records("total")
    assert len(made.used["total"]) == 700
    assert set(made.used["total"]) <= made.inputs(total).keys()
    (hot,) = made.records("state")
    temps = {it.id: it.value for it in made.records("temp")}
    assert [temps[known] for known in made.inputs(hot) if known in temps] == [8], "and none of those before"
    (heard,) = made.records("heard")
    assert len(made.used["heard"]) == 2
    assert set(made.used["heard"]) <= made.inputs(heard).keys()


def test_prov_and_the_crate_name_the_same_as_why(made: Made, tmp_path: Path) -> None:
    pytest.importorskip("rocrate", reason="rocrate is not installed: pip install 'ether-medium[crate]'")
    with LedgerReader.open(made.folder) as reader:
        asked = [
            record
            for topic in (
                "mean",
                "fit/40",
                "fit/1000",
                "fit",
                "joined",
                "exact.value",
                "array",
                "exact",
                "k",
                "total",
                "exact total",
            )
            for record in reader.records(RecordFilter(kinds=KINDS, topic=topic))
        ]
        export_prov.write(reader, tmp_path / "prov.json", asked)
        export_crate.write(reader, tmp_path / "crate", lambda: asked)
        said = {record.id: _of_tree(reader, record) for record in asked}
    assert len(said) > 40
    told = json.loads((tmp_path / "prov.json").read_text())
    used: dict[str, dict[str, str]] = {}
    for relation in told["used"].values():
        made_id, known = relation["prov:activity"][5:], relation["prov:entity"][4:]
        used.setdefault(made_id, {})[known] = relation["prov:role"]
    derived: dict[str, set[str]] = {}
    for relation in told["wasDerivedFrom"].values():
        derived.setdefault(relation["prov:generatedEntity"][4:], set()).add(relation["prov:usedEntity"][4:])
    lines = [json.loads(line) for line in (tmp_path / "crate" / "records.jsonl").read_text().splitlines()]
    crate = {line["id"]: {known: how for how, ids in line.get("inputs", {}).items() for known in ids} for line in lines}
    for known, inputs in said.items():
        assert used.get(known, {}) == inputs == crate[known]
        sure = {each for each, how in inputs.items() if how in ("parent", "used")}
        assert derived.get(known, set()) == sure
    again = json.loads((tmp_path / "crate" / "provenance.json").read_text())
    assert again["used"] == told["used"]


def _of_tree(reader: LedgerReader, record: StoredRecord) -> dict[str, str]:
    """The inputs of a record as `ether why` has them."""
    found: dict[str, str] = {}
    for step in why(reader, record).steps[1:]:
        if step.of == record.id:
            ids = [step.id] if step.group is None else [*step.group.ids, *step.group.named]
            for known in ids:
                found.setdefault(known, step.how)
    return found


# -- a day


@pytest.mark.slow("writes a day's reads")
def test_a_days_summary_names_its_86400_reads_in_under_a_second_offline(tmp_path: Path) -> None:
    reads = 86_400
    with Writer(tmp_path / "ledger") as writer:
        ids = []
        for second in range(reads):
            writer.now += 1.0
            ids.append(writer.put("probe", "celsius", 20.5))
            if second % 10_000 == 0:
                writer.flush()
        runs = [[ids[0], ids[29_999], 30_000], [ids[30_001], ids[-1], reads - 30_001]]
        since = [{"topic": "celsius", "source": "probe", "runs": runs}]
        made = writer.put("daily", "summary", 20.5, more={"since": since})
    used = [*ids[:30_000], *ids[30_001:]]
    tree, took_s = quickest_why(tmp_path / "ledger", made)
    assert took_s < 0.5  # bare: it takes a fifth, and a whole command has to take less than 1 s
    (group,) = tree.groups
    assert list(group.ids) == used
    assert (tree.missing, tree.unnamed, tree.is_cut) == ([], 0, False)
    out = subprocess.run(
        [sys.executable, "-m", "ether.cli.main", "why", "summary", "--last", "--ledger", "ledger"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "└─ and 86,399 more celsius by probe since its start; it could have used them  rows 1 to 86400" in out


def test_what_is_not_in_the_ledger_is_counted(tmp_path: Path) -> None:
    with Writer(tmp_path / "ledger") as writer:
        ids = [writer.put("probe", "celsius", n) for n in range(10)]
        gone = "01977420-0000-7000-8000-000000000007"
        since = [
            {"topic": "celsius", "source": "probe", "runs": [[gone, ids[4], 8]]},
            {"topic": "celsius", "source": "probe", "runs": [[ids[5], ids[9], 3]], "about": True},
            {"topic": "mqtt:plant/flow", "source": "", "nameless": 4},
        ]
        made = writer.put("m", "mean", 1, [ids[4]], more={"since": since, "left_out": {"messages": 6, "sources": 2}})
    told = command(tmp_path, "why", made, "--ledger", "ledger", "--json").json
    assert (told["missing"], told["unnamed"]) == ([gone], 2 + 4)
    assert told["inputs"]["since"] == [*ids[:4], gone, *ids[5:]]
    assert told["left_out"] == {"messages": 6, "sources": 2}
    out = command(tmp_path, "why", made, "--ledger", "ledger").out
    for line in (
        "and 7 more celsius by probe since its start; it could have used them  rows 1 to 4  (3 not recorded)",
        "and 3 more celsius by probe since its start; it could have used them  rows 6 to 10  (which of these 5 is not",
        "and 4 more mqtt:plant/flow since its start; it could have used them  (4 not recorded)",
        "6 more messages that it could have used are not named",
        "of 2 more topics and sources it had heard something before",
    ):
        assert line in out


def test_thousands_of_named_inputs_are_kept_beside_the_record(tmp_path: Path) -> None:
    ids = [f"01977420-0000-7000-8000-{n:012d}" for n in range(5_000)]
    with Ether() as own:
        own.tap({"session": "thousands", "record": {"topics": "all", "folder": str(tmp_path / "ledger")}})
        own.record(own.made_of({"k": 1}, ids), "k").wait()
    with LedgerReader.open(tmp_path / "ledger") as reader:
        (record,) = reader.records(RecordFilter(kinds=("record",)))
        assert dict(inputs_of(reader, record).each()) == dict.fromkeys(ids, "used")
        tree = why(reader, record)
    assert (tree.missing, tree.unnamed) == (ids, 0)


def test_a_restarted_instance_says_that_it_does_not_know_what_came_before(tmp_path: Path) -> None:
    with Ether() as own:
        fit = part("Fit", kwargs={"n": 2})
        record = {"topics": "all", "folder": str(tmp_path / "ledger")}
        own.tap({"session": "anew", "record": record, "instances": {"fit": fit}})
        with own.subscribe("fit") as fits:
            for v in range(2):
                own.pub({"v": v}, topic="read")
            fits.get(timeout_s=patience(20))
        own.restart("fit")
        for v in range(2):
            own.pub({"v": v}, topic="read")
    out = command(tmp_path, "why", "fit", "--last", "--ledger", "ledger").out
    assert "and 1 more read by main since its start; it could have used them" in out
    assert "it is the first fit since fit was started anew" in out


# -- without Ether


def test_a_class_works_the_same_without_ether() -> None:
    join = Join()
    parts = {"a": "1", "b": "2", "c": "3"}
    assert join.joined(parts) == {"ids": ["1", "2", "3"]}
    assert Ether().made_of(7, "an-id") == 7
    assert Ether().message() is None
    with Ether().inputs() as ids:
        assert ids == []
    mean = Mean()
    mean.v = [1, 2, 3, 4, 5]
    assert mean.mean() == 3.0
    assert Fit(3).fit() == {"n": 3, "ids": []}


@pytest.mark.parametrize("given", [None, 7, [0.5], {"v": 1}.values()])
def test_what_has_no_id_is_refused_as_an_input(given: Any) -> None:
    with pytest.raises(NotAnInput, match=r"has no\s+id"):
        Ether().made_of(1, given)
