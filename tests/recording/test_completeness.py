"""What is durable, what is missing, and how it is told."""

from __future__ import annotations

from ether.recording.completeness_rules import ON_ITS_WAY, Missing, prove
from ether.wire.entries import NOT_HERE, GapFact, OutboxFacts


def facts(highest: int, head: int, *gaps: GapFact, source: str = "camera") -> OutboxFacts:
    return OutboxFacts("ab" * 8, source, highest, head, gaps, 100.0)


def test_everything_is_there() -> None:
    proof = prove([facts(12_000, 12_000), facts(34, 34, source="pump")], 0)
    assert str(proof) == "12,034 of 12,034 durable, 0 gaps, 0 duplicates"
    assert proof.complete


def test_nothing_was_given_out() -> None:
    assert str(prove([], 0)) == "0 of 0 durable, 0 gaps, 0 duplicates"


def test_duplicates_are_told_and_make_it_incomplete() -> None:
    proof = prove([facts(5, 5)], 2)
    assert str(proof) == "5 of 5 durable, 0 gaps, 2 duplicates"
    assert not proof.complete


def test_what_has_not_arrived_is_missing_from_its_end() -> None:
    proof = prove([facts(5, 9)], 0)
    assert (proof.durable, proof.total) == (5, 9)
    assert proof.gaps == (Missing("camera", "", 6, 9, 4, 100.0, ON_ITS_WAY),)


def test_what_was_given_up_is_told_by_topic_with_the_rest() -> None:
    gap = GapFact(3, 10, "older than an hour", {"frame": [30, 40, 5], "odd": "?"}, 50.0)
    proof = prove([facts(12, 12, gap)], 0)
    assert (proof.durable, proof.total) == (4, 12)
    assert proof.gaps == (
        Missing("camera", "frame", 30, 40, 5, 50.0, "older than an hour"),
        Missing("camera", "", 3, 10, 3, 50.0, "older than an hour"),
    )
    assert str(proof).splitlines()[0] == "4 of 12 durable, 2 gaps, 0 duplicates"
    assert "missing 'frame' from 'camera': 30 to 40 (5), since 1970-01-0" in str(proof)


def test_what_is_not_for_this_recorder_is_not_counted() -> None:
    proof = prove([facts(10, 12, GapFact(2, 9, NOT_HERE, {}, 50.0))], 0)
    assert (proof.durable, proof.total, proof.skipped) == (2, 4, 8)
    assert [(gap.first, gap.last) for gap in proof.gaps] == [(11, 12)]


def test_a_head_behind_what_is_there_is_not_believed() -> None:
    assert str(prove([facts(7, 3)], 0)) == "7 of 7 durable, 0 gaps, 0 duplicates"
