"""Whose announcement is a ghost's, and when a silence needs one more echo: decisions, on made-up tables and a made-up
clock."""

from __future__ import annotations

import pytest

from ether.protocol.failure_detector import FailureDetector, Limits
from ether.protocol.presence import Announcement, PresenceTable, State
from ether.session.stale_rules import find_orphans, supervisors_among


def instance(name: str, state: State, keeper: str | None = None) -> Announcement:
    return Announcement(name, state, "b", about={"epoch": 1, **({"keeper": keeper} if keeper else {})})


def program(name: str, kind: str = "program", state: State = State.READY) -> Announcement:
    return Announcement(name, state, "p", about={"kind": kind})


def orphans_of(*members: Announcement, kept: tuple[str, ...] = (), leader: str = "main") -> tuple[set[str], set[str]]:
    found = find_orphans(members, supervisors_among(members) | {leader}, "me", kept)
    return {member.name for member in found.dying}, {member.name for member in found.stale}


@pytest.mark.parametrize("state", list(State))
def test_nothing_of_a_living_keeper_is_a_ghost(state: State) -> None:
    members = (
        instance("a", state, "main"),
        instance("b", state, "bench"),
        instance("c", state, "me"),
        program("bench"),
    )
    assert orphans_of(*members, kept=("c",)) == (set(), set())


@pytest.mark.parametrize("state", list(State))
def test_without_its_keeper_an_instance_is_dying_or_a_ghost(state: State) -> None:
    dying, ghosts = orphans_of(instance("a", state, "gone"))
    assert (dying | ghosts, bool(dying)) == ({"a"}, state in (State.READY, State.OFFLINE, State.HUNG))


def test_what_an_earlier_program_of_the_same_name_kept_is_nobodys() -> None:
    assert orphans_of(instance("a", State.RESTARTING, "me"), instance("b", State.LOST, "me"), kept=("a",)) == (
        set(),
        {"b"},
    )


def test_an_object_of_a_program_is_a_ghost_only_when_it_is_lost() -> None:
    assert orphans_of(instance("a", State.LOST), instance("b", State.STARTING)) == (set(), {"a"})


def test_an_agent_keeps_its_instances_while_it_is_away() -> None:
    assert orphans_of(instance("a", State.LOST, "pi"), program("pi", "agent", State.LOST)) == (set(), set())


def test_who_is_born_after_a_sweep_counts_for_more_than_the_swept() -> None:
    presence = PresenceTable()
    dead = Announcement("cam", State.STARTING, "a", about={"epoch": 5})
    presence.apply(dead)
    presence.forget("cam")
    assert presence.next_epoch("cam") == 6
    presence.apply(Announcement("cam", State.READY, "b", about={"epoch": 6}))
    assert not presence.apply(Announcement("cam", State.LOST, "a", about={"epoch": 5}))


def test_programs_are_never_orphans() -> None:
    assert orphans_of(program("bench", state=State.LOST)) == (set(), set())


def test_a_silence_asks_for_an_echo_only_until_one_has_judged_it() -> None:
    detector = FailureDetector()
    detector.watch("cam", "b", Limits(silent_s=1.5), 0.0)
    detector.echo(sent=0.5, now=0.5 + 0.01)
    assert not detector.wants_echo(1.4)
    assert detector.wants_echo(1.5)
    assert not detector.judge(1.6)
    detector.echo(sent=1.55, now=1.55 + 0.01)
    assert not detector.wants_echo(1.7)
    assert "no sign of life" in detector.judge(1.7)["cam"]
