"""From a value back to what began it."""

from __future__ import annotations

from pathlib import Path

import pytest
from lineage_lab import Writer, write_pipeline

from ether.errors import NotRecorded
from ether.ledger.reader import LedgerReader, RecordFilter
from ether.provenance.lineage import LOOP, NOT_FOLLOWED, NOT_RECORDED, SHOWN, Tree, find, why


def tree_of(folder: Path, message_id: str, **more: int) -> Tree:
    with LedgerReader.open(folder) as reader:
        return why(reader, find(reader, message_id), **more)


def drawn(tree: Tree) -> list[tuple[int, str, str, str]]:
    """Depth, topic, how and note of each step."""
    return [(step.depth, step.record.topic if step.record else step.id, step.how, step.note) for step in tree.steps]


def test_a_summary_over_stored_state_shows_both_results_and_where_they_are_from(tmp_path: Path) -> None:
    with Writer(tmp_path / "ledger") as writer:
        ids = write_pipeline(writer, rounds=3)
    assert drawn(tree_of(tmp_path / "ledger", ids["summary"])) == [
        (0, "summary", "asked", ""),
        (1, "square", "parent", ""),
        (2, "value", "parent", ""),
        (3, "start", "parent", ""),
        (1, "double", "heard", ""),
        (2, "value", "parent", SHOWN),
    ]


def test_values_are_those_that_led_to_it_and_no_others(tmp_path: Path) -> None:
    with Writer(tmp_path / "ledger") as writer:
        write_pipeline(writer)
        ids = write_pipeline(writer)
        write_pipeline(writer)
    tree = tree_of(tmp_path / "ledger", ids["summary"])
    assert {record.id for record in tree.records} == set(ids.values())


def test_what_is_not_in_the_ledger_is_named(tmp_path: Path) -> None:
    with Writer(tmp_path / "ledger") as writer:
        known = writer.put("a", "x", 1, ["01977420-0000-7000-8000-00000000dead"])
        twice = writer.put("b", "y", 2, [known, "01977420-0000-7000-8000-00000000dead"])
    tree = tree_of(tmp_path / "ledger", twice)
    assert tree.missing == ["01977420-0000-7000-8000-00000000dead"]
    assert [note for *_, note in drawn(tree)] == ["", "", NOT_RECORDED, NOT_RECORDED]


def test_a_loop_ends_and_says_so(tmp_path: Path) -> None:
    first, second = "01977420-0000-7000-8000-000000000001", "01977420-0000-7000-8000-000000000002"
    with Writer(tmp_path / "ledger") as writer:
        writer.put("a", "x", 1, [second], entry_id=first)
        writer.put("b", "y", 2, [first], entry_id=second)
    assert drawn(tree_of(tmp_path / "ledger", second)) == [
        (0, "y", "asked", ""), (1, "x", "parent", ""), (2, "y", "parent", LOOP),
    ]  # fmt: skip


def test_a_chain_longer_than_pythons_stack_is_followed_to_its_root(tmp_path: Path) -> None:
    with Writer(tmp_path / "ledger") as writer:
        known = root = writer.put("a", "x", 0)
        for number in range(3_000):
            known = writer.put("a", "x", number, [known])
    tree = tree_of(tmp_path / "ledger", known, most_steps=10_000)
    assert (tree.steps[-1].id, tree.steps[-1].depth, tree.is_cut) == (root, 3_000, False)
    cut = tree_of(tmp_path / "ledger", known, most_steps=10)
    assert (len(cut.steps), cut.steps[-1].note, cut.is_cut) == (11, NOT_FOLLOWED, True)


def test_when_it_is_cut_the_nearest_are_shown(tmp_path: Path) -> None:
    with Writer(tmp_path / "ledger") as writer:
        far = writer.put("a", "far", 0)
        for _ in range(50):
            far = writer.put("a", "far", 0, [far])
        near = writer.put("b", "near", 1)
        asked = writer.put("c", "asked", 2, [far, near])
    tree = tree_of(tmp_path / "ledger", asked, most_steps=5)
    assert near in {record.id for record in tree.records}


def test_warnings_stand_beside_the_value_that_they_came_with(tmp_path: Path) -> None:
    with Writer(tmp_path / "ledger") as writer:
        ids = write_pipeline(writer)
        writer.log("squarer", "WARNING", "the lamp is dim", ids["value"])
        writer.log("doubler", "ERROR", "the scale is stuck", ids["value"])
        writer.log("squarer", "WARNING", "of something else")
        writer.log("display", "ERROR", "no window", ids["summary"])
    tree = tree_of(tmp_path / "ledger", ids["summary"])
    logs = {step.record.topic: [line.message for line in step.logs] for step in tree.steps if step.record and step.logs}
    assert logs == {"square": ["the lamp is dim"], "double": ["the scale is stuck"], "summary": ["no window"]}


def test_what_was_logged_while_a_call_was_served_stands_beside_the_call(tmp_path: Path) -> None:
    with Writer(tmp_path / "ledger") as writer:
        call = writer.put("camera", "camera.snap", 1, kind="call")
        writer.log("camera", "WARNING", "too dark", call)
        frame = writer.put("camera", "frame", 2, [call])
    steps = tree_of(tmp_path / "ledger", frame).steps
    assert [[line.message for line in step.logs] for step in steps] == [["too dark"], ["too dark"]]


def test_a_replay_says_of_what(tmp_path: Path) -> None:
    with Writer(tmp_path / "ledger") as writer:
        first = writer.put("a", "x", 1)
        again = writer.put("player", "x", 1, more={"replay_of": first})
    assert [step.replay_of for step in tree_of(tmp_path / "ledger", again).steps] == [first]


def test_contexts_come_with_the_tree_and_missing_ones_are_named(tmp_path: Path) -> None:
    with Writer(tmp_path / "ledger") as writer:
        known = writer.keep_context("a", {"form": 1, "instance": "a"})
        first = writer.put("a", "x", 1, context=known)
        second = writer.put("b", "y", 2, [first], context="0" * 64)
    assert tree_of(tmp_path / "ledger", second).contexts == {"0" * 64: None, known: {"form": 1, "instance": "a"}}


@pytest.fixture
def reader(tmp_path: Path) -> LedgerReader:  # type: ignore[misc]
    with Writer(tmp_path / "ledger") as writer:
        write_pipeline(writer, rounds=5)
    with LedgerReader.open(tmp_path / "ledger") as opened:
        yield opened


def test_records_are_found_by_row_by_id_and_as_the_last_of_a_topic(reader: LedgerReader) -> None:
    wanted = next(record for record in reader.records(RecordFilter(topic="square"), newest_first=True))
    assert find(reader, "square", last=True) == wanted
    assert (
        find(reader, str(wanted.row)) == find(reader, f"row {wanted.row}") == find(reader, f"#{wanted.row}") == wanted
    )
    assert find(reader, wanted.id) == wanted
    assert find(reader, wanted.id[:20]) == wanted
    assert find(reader, wanted.id[:20].upper()) == wanted


@pytest.mark.parametrize(
    ("text", "last", "said"),
    [
        ("99", False, "rows 1 to 25"),
        ("square", False, "--last"),
        ("sqare", True, "recorded are the topics double, square, start, summary, value"),
        ("camera/frame", False, "expected an id or its first 8 characters"),
        ("ffffffff", False, "no id begins with it"),
    ],
)
def test_what_is_not_found_is_one_sentence_that_says_what_would_be(
    reader: LedgerReader, text: str, last: bool, said: str
) -> None:
    with pytest.raises(NotRecorded, match=said):
        find(reader, text, last=last)


def test_the_beginning_of_several_ids_is_refused_and_names_them(reader: LedgerReader) -> None:
    first = next(reader.records())
    with pytest.raises(NotRecorded, match=r"25 ids begin with it.*and 20 more"):
        find(reader, first.id[:8])
