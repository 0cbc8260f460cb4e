"""Whether a leader that a broker shows is there: decisions, on made-up sightings and a made-up clock."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from ether.protocol.presence import Announcement, State
from ether.session.leader_rules import ANSWER_S, RETURN_S, SILENT_S, LeaderVerdict, LeaderWatch
from ether.session.stale_rules import find_orphans, supervisors_among, unanswered
from ether.system.process_owner import has_ended_here, process_facts
from ether.system.processes import birth_of, is_stopped
from ether.wire.topics import SessionTopics

ELSEWHERE, HERE, ENDED = None, False, True


def first_verdict(watch: LeaderWatch, *, absent: bool | None = None, stands_still: bool = False) -> tuple[float, str]:
    """When a watch knows, and what, where the broker says the same about each question and nobody answers."""
    for tenth in range(400):
        now = tenth / 10
        if absent is not None:
            watch.asked(now, no_subscribers=absent)
        verdict = watch.verdict(now, stands_still=stands_still)
        if verdict is not None:
            return now, verdict.value
    raise AssertionError("never")


def test_a_leader_whose_process_has_ended_here_is_dead_at_once() -> None:
    assert first_verdict(LeaderWatch(ended_here=ENDED, now=0.0)) == (0.0, "dead")


@pytest.mark.parametrize("ended_here", [ELSEWHERE, HERE, ENDED])
def test_who_answers_leads(ended_here: bool | None) -> None:
    watch = LeaderWatch(ended_here=ended_here, now=0.0)
    watch.answered()
    assert watch.verdict(0.0) is LeaderVerdict.LEADS


def test_elsewhere_without_a_subscriber_it_has_the_time_to_come_back() -> None:
    assert first_verdict(LeaderWatch(ended_here=ELSEWHERE, now=0.0), absent=True) == (RETURN_S, "dead")


def test_elsewhere_with_a_subscriber_the_broker_has_the_time_to_notice_its_death() -> None:
    assert first_verdict(LeaderWatch(ended_here=ELSEWHERE, now=0.0), absent=False) == (SILENT_S, "dead")
    assert first_verdict(LeaderWatch(ended_here=ELSEWHERE, now=0.0)) == (SILENT_S, "dead")


def test_one_subscriber_in_between_and_the_time_begins_anew() -> None:
    watch = LeaderWatch(ended_here=ELSEWHERE, now=0.0)
    watch.asked(0.0, no_subscribers=True)
    watch.asked(2.0, no_subscribers=False)
    watch.asked(2.5, no_subscribers=True)
    assert watch.verdict(2.5 + RETURN_S - 0.1) is None
    assert watch.verdict(2.5 + RETURN_S) is LeaderVerdict.DEAD


def test_a_process_that_lives_here_and_is_connected_is_busy_and_leads() -> None:
    assert first_verdict(LeaderWatch(ended_here=HERE, now=0.0), absent=False) == (ANSWER_S, "leads")
    assert first_verdict(LeaderWatch(ended_here=HERE, now=0.0)) == (ANSWER_S, "leads")


def test_a_process_that_lives_here_and_is_not_connected_may_have_left_the_session() -> None:
    assert first_verdict(LeaderWatch(ended_here=HERE, now=0.0), absent=True) == (2 * RETURN_S, "dead")


@pytest.mark.parametrize("absent", [True, False, None])
def test_a_process_that_stands_still_here_is_never_dead(absent: bool | None) -> None:
    watch = LeaderWatch(ended_here=HERE, now=0.0)
    watch.cleared(1.0)
    assert first_verdict(watch, absent=absent, stands_still=True) == (ANSWER_S, "leads")


def test_whom_one_may_not_ask_is_believed() -> None:
    for ended_here, verdict in ((ELSEWHERE, "leads"), (HERE, "leads"), (ENDED, "dead")):
        watch = LeaderWatch(ended_here=ended_here, now=0.0)
        watch.may_not_ask()
        assert first_verdict(watch) == (0.0, verdict)


def test_who_vanishes_has_the_time_to_come_back() -> None:
    watch = LeaderWatch(ended_here=ELSEWHERE, now=0.0)
    watch.cleared(8.0)
    assert watch.verdict(8.0 + RETURN_S - 0.1) is None
    assert watch.verdict(8.0 + RETURN_S) is LeaderVerdict.DEAD
    watch.answered()
    assert watch.verdict(8.0 + RETURN_S) is LeaderVerdict.LEADS


# -- a leader of version 1 of the wire


def of_version_1(ended_here: bool | None) -> LeaderWatch:
    return LeaderWatch(ended_here=ended_here, now=0.0, version_1=True)


@pytest.mark.parametrize("absent", [True, False, None])
def test_of_a_leader_of_before_only_its_answer_counts(absent: bool | None) -> None:
    """Nobody can say by a living process's number that a session is led: whoever has written that entry is gone."""
    for ended_here, dead_after_s in ((ELSEWHERE, SILENT_S), (HERE, SILENT_S), (ENDED, ANSWER_S)):
        assert first_verdict(of_version_1(ended_here), absent=absent) == (dead_after_s, "dead")
        watch = of_version_1(ended_here)
        assert watch.verdict(ANSWER_S - 0.1) is None
        watch.answered()
        assert watch.verdict(ANSWER_S) is LeaderVerdict.LEADS


def test_a_leader_of_before_that_vanishes_or_stands_still_is_judged_as_others_are() -> None:
    watch = of_version_1(ELSEWHERE)
    watch.cleared(1.0)
    assert first_verdict(watch) == (1.0 + RETURN_S, "dead")
    assert first_verdict(of_version_1(HERE), stands_still=True) == (ANSWER_S, "leads")
    watch = of_version_1(ELSEWHERE)
    watch.may_not_ask()
    assert first_verdict(watch) == (0.0, "leads")


# -- what is seen of a process


def facts(**changes: Any) -> dict[str, Any]:
    return {**process_facts(), **changes}


def test_a_process_is_seen_only_on_its_own_boot_and_namespace() -> None:
    gone = 2**22 - 1
    assert has_ended_here(facts()) is False
    assert has_ended_here(facts(pid=gone)) is True
    assert has_ended_here(facts(host="renamed", pid=gone)) is (True if facts()["boot"] else None)
    if facts()["boot"]:  # many machines have one name; another boot of this name may be another machine
        assert has_ended_here(facts(boot="before", pid=gone)) is None
        assert has_ended_here(facts(namespace="a container's", pid=gone)) is None


def test_an_announcement_without_a_boot_goes_by_the_host() -> None:
    gone = 2**22 - 1
    assert has_ended_here({"host": socket.gethostname(), "pid": gone}) is True
    assert has_ended_here({"host": "elsewhere", "pid": gone}) is None
    for pid in (None, "7", 0, -1, True):
        assert has_ended_here({"host": socket.gethostname(), "pid": pid}) is None


def test_a_number_that_was_given_to_another_process_is_not_the_same_process() -> None:
    if birth_of(os.getpid()) is None:
        pytest.skip("this system does not tell when a process began")
    assert has_ended_here(facts(pid_started=birth_of(os.getpid()))) is False
    assert has_ended_here(facts(pid_started="1")) is True


@pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP is POSIX")
def test_a_stopped_process_stands_still() -> None:
    import signal

    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert not is_stopped(other.pid)
        other.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, other.pid, os.WSTOPPED | os.WNOWAIT)
        assert is_stopped(other.pid)
    finally:
        other.kill()
        other.communicate()
    assert not is_stopped(other.pid)


# -- whose announcements are stale


def instance(name: str, state: State, keeper: str | None = None) -> Announcement:
    return Announcement(name, state, "b", about={"epoch": 1, **({"keeper": keeper} if keeper else {})})


def program(name: str, kind: str = "program", state: State = State.READY) -> Announcement:
    return Announcement(name, state, "p", about={"kind": kind})


def test_of_a_dead_program_and_its_instances_nothing_stays_whatever_they_say() -> None:
    members = (program("bench"), instance("cam", State.READY, "bench"), instance("here", State.READY))

    def is_dead(member: Announcement) -> bool:
        return True

    found = find_orphans(members, supervisors_among(members, is_dead), "main", (), is_dead)
    assert {member.name for member in found.stale} == {"bench", "cam", "here"}
    assert found.dying == ()


def test_a_living_supervisor_has_the_word_of_its_dead_instances() -> None:
    members = (program("bench"), instance("cam", State.READY, "bench"))

    def is_dead(member: Announcement) -> bool:
        return member.name == "cam"

    assert not find_orphans(members, supervisors_among(members, is_dead), "main", (), is_dead)


def absent(*members: Announcement, heard: tuple[str, ...] = (), lost_too: bool = False) -> set[str]:
    found = unanswered(members, heard, "main", ("own",), lost_too=lost_too)
    return {member.name for member in found}


def test_who_has_to_answer_the_roll() -> None:
    members = (
        program("bench"), instance("cam", State.READY, "bench"), instance("here", State.READY),
        instance("own", State.READY, "main"), instance("old", State.READY, "main"), instance("gone", State.LOST, "x"),
    )  # fmt: skip
    assert absent(*members) == {"bench", "cam", "here", "old"}
    assert absent(*members, heard=("bench", "here")) == {"old"}, "its supervisor announces what becomes of cam"
    assert absent(*members, heard=("cam",)) == {"bench", "here", "old"}


def test_who_is_known_as_offline_has_to_answer_only_when_a_leader_begins() -> None:
    agent = program("pi", "agent", State.LOST)
    assert absent(agent) == set()
    assert absent(agent, lost_too=True) == {"pi"}


# -- topics


def test_each_retained_topic_of_a_member_leads_back_to_it() -> None:
    topics = SessionTopics("bench")
    assert {topics.member_of(topic) for topic in topics.retained_of("cam")} == {"cam"}
    for other in (topics.session_info, topics.run, topics.heartbeat("cam"), topics.record("cam"), topics.log("cam")):
        assert topics.member_of(other) is None
    assert topics.member_of(SessionTopics("other").state("cam")) is None
