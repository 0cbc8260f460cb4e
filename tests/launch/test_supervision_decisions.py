"""The decisions behind supervision, on a clock that the tests move: presence, claims, heartbeats, restarts."""

from __future__ import annotations

import itertools

import pytest

from ether.launch.restart_rules import FIRST_PAUSE_S, LONGEST_PAUSE_S, STABLE_S, RestartPolicy, Restarts
from ether.protocol.failure_detector import FailureDetector, Heartbeat, Limits
from ether.protocol.presence import Announcement, Claims, PresenceTable, State


def said(state: State, incarnation: str, epoch: int, **about: object) -> Announcement:
    return Announcement("cam", state, incarnation, about={"epoch": epoch, **about})


# -- presence


def test_in_whatever_order_starts_and_deaths_arrive_the_youngest_incarnation_stands() -> None:
    story = [
        said(State.READY, "a", 1),
        said(State.LOST, "a", 1),
        said(State.READY, "b", 2),
        said(State.READY, "c", 3),
    ]
    for order in itertools.permutations(story):
        presence = PresenceTable()
        for announcement in order:
            presence.apply(announcement)
        known = presence.get("cam")
        assert known is not None
        assert (known.incarnation, known.state) == ("c", State.READY)


def test_the_brokers_notice_of_a_death_does_not_undo_what_the_supervisor_said_of_it() -> None:
    for word in (State.RESTARTING, State.FAILED, State.ERROR):
        presence = PresenceTable()
        assert presence.apply(said(State.READY, "a", 1))
        assert presence.apply(said(word, "a", 1))
        assert not presence.apply(said(State.LOST, "a", 1))
        assert presence.apply(said(State.READY, "b", 2))


def test_programs_are_members_and_never_ready_instances() -> None:
    presence = PresenceTable()
    presence.apply(Announcement("analysis", State.READY, "x", about={"kind": "program"}))
    presence.apply(said(State.READY, "a", 1))
    assert presence.ready() == {"cam"}
    assert len(presence.members()) == 2


@pytest.mark.parametrize(
    ("announcement", "returns"),
    [
        (said(State.STARTING, "a", 1), True),
        (said(State.RESTARTING, "a", 1), True),
        (said(State.LOST, "a", 1, supervised=True), True),
        (said(State.LOST, "a", 1), False),
        (said(State.FAILED, "a", 1, supervised=True), False),
        (said(State.READY, "a", 1), False),
    ],
)
def test_which_instances_come_back(announcement: Announcement, returns: bool) -> None:
    assert announcement.returns is returns


def test_the_first_claim_counts_until_it_is_released_or_old() -> None:
    claims = Claims()
    claims.note("cam", "a", 0.0)
    claims.note("cam", "b", 1.0)
    assert claims.holder("cam", 1.0) == "a"
    assert claims.holder("cam", Claims.LAST_S + 1) is None
    claims.note("cam", "b", Claims.LAST_S + 1)
    assert claims.holder("cam", Claims.LAST_S + 2) == "b"
    claims.release("cam")
    assert claims.holder("cam", Claims.LAST_S + 2) is None


# -- heartbeats


def heartbeat(number: int, busy: str | None = None, busy_s: float = 0.0, incarnation: str = "a") -> Heartbeat:
    return Heartbeat(incarnation, number, busy, busy_s)


def test_a_heartbeat_survives_the_wire() -> None:
    sent = Heartbeat("a", 7, "expose", 40.25, 3, 100, 90, 12.5, 51.5)
    assert Heartbeat.from_value(sent.to_value()) == sent
    for damaged in (None, {}, {**sent.to_value(), "busy": 3}, {**sent.to_value(), "n": "7"}, [1]):
        assert Heartbeat.from_value(damaged) is None


def test_silence_counts_only_up_to_what_the_watcher_itself_heard() -> None:
    detector = FailureDetector()
    detector.watch("cam", "a", Limits(silent_s=1.5), now=0.0)
    detector.hear("cam", heartbeat(1), now=1.0)
    assert detector.judge(10.0) == {}, "its own echo has not come back: perhaps the broker stands still"
    detector.echo(sent=2.4, now=2.4 + 0.01)
    assert detector.judge(10.0) == {}, "an echo of before the silence was long enough says nothing"
    detector.echo(sent=2.6, now=2.6 + 0.01)
    assert "no sign of life" in detector.judge(10.0)["cam"]
    assert detector.judge(11.0) == {}, "it has been said"
    detector.hear("cam", heartbeat(2), now=12.0)
    assert detector.judge(12.1) == {"cam": ""}


def test_the_silence_of_an_outage_is_no_hang() -> None:
    detector = FailureDetector()
    detector.watch("cam", "a", Limits(silent_s=1.5), now=0.0)
    detector.deafen()
    assert detector.judge(now=5.0) == {}
    detector.echo(sent=5.0, now=5.0 + 0.01)  # the connection is back, and the first echo is quicker than the news of it
    assert detector.judge(now=5.1) == {}
    detector.hear_again(back_by=7.5)
    assert not detector.wants_echo(now=8.9)
    detector.echo(sent=8.9, now=8.9 + 0.01)
    assert detector.judge(now=8.9) == {}
    detector.echo(sent=9.1, now=9.1 + 0.01)
    assert list(detector.judge(now=9.1)) == ["cam"]


def test_an_echo_that_waited_for_a_broker_that_stood_still_proves_nothing() -> None:
    """The broker stands still from 1.0 to 4.0. On its return it reads the watcher's socket first."""
    detector = FailureDetector()
    detector.watch("cam", "a", Limits(silent_s=1.5), now=0.0)
    detector.hear("cam", heartbeat(1), now=1.0)
    for sent in (1.2, 1.7, 2.2, 2.7, 3.2, 3.7, 3.9):
        detector.echo(sent, now=4.0)
        assert detector.judge(4.0) == {}, sent
    assert not detector.wants_echo(4.0)
    detector.echo(sent=4.01, now=4.02)
    assert detector.judge(4.02) == {}, "the broker has just begun to read"
    detector.hear("cam", heartbeat(2), now=4.03)
    assert detector.judge(4.6) == {}


def test_who_hangs_while_the_broker_stands_still_is_found_afterwards() -> None:
    detector = FailureDetector()
    detector.watch("cam", "a", Limits(silent_s=1.5), now=0.0)
    detector.echo(sent=1.0, now=4.0)
    assert detector.judge(4.0) == {}
    assert detector.wants_echo(4.5)
    detector.echo(sent=4.5, now=4.51)
    assert list(detector.judge(4.51)) == ["cam"]


def test_busy_is_not_hung_unless_a_limit_says_so() -> None:
    detector = FailureDetector()
    detector.watch("slow", "a", Limits(), now=0.0)
    detector.watch("cam", "a", Limits(busy_s=5.0), now=0.0)
    for second in range(1, 8):
        detector.echo(sent=second, now=second + 0.01)
        detector.hear("slow", heartbeat(second, "expose", second), now=second)
        detector.hear("cam", heartbeat(second, "expose", second), now=second)
        verdict = detector.judge(second)
        assert set(verdict) == ({"cam"} if second == 5 else set())
    assert "expose" in detector.why_hung("cam")
    detector.hear("cam", heartbeat(9), now=8.0)
    assert detector.judge(8.0) == {"cam": ""}


def test_heartbeats_of_an_earlier_incarnation_do_not_count() -> None:
    detector = FailureDetector()
    detector.watch("cam", "b", Limits(silent_s=1.5), now=0.0)
    detector.hear("cam", heartbeat(1, incarnation="a"), now=5.0)
    detector.echo(sent=5.0, now=5.0 + 0.01)
    assert "cam" in detector.judge(5.0)


# -- restarts


def test_pauses_double_up_to_a_limit_and_begin_anew_after_a_stable_time() -> None:
    restarts = Restarts(RestartPolicy("always", limit=100, window_s=1e9))
    pauses = [restarts.pause_s(now, ran_s=1.0) for now in range(9)]
    assert pauses[0] == 0.0
    assert pauses[1:4] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S
    assert restarts.pause_s(10.0, ran_s=STABLE_S) == 0.0


def test_an_instance_that_outlives_the_window_begins_anew_with_the_pauses() -> None:
    restarts = Restarts(RestartPolicy("always", limit=3, window_s=2.0))
    assert [restarts.pause_s(float(now), 0.1) for now in (0, 3, 6)] == [0.0, 0.25, 0.5]
    assert restarts.pause_s(9.0, 2.5) == 0.0


def test_too_many_within_the_window_is_the_end_and_later_ones_count_anew() -> None:
    restarts = Restarts(RestartPolicy("always", limit=3, window_s=60.0))
    assert [restarts.pause_s(now, 1.0) is None for now in (0.0, 1.0, 2.0, 3.0)] == [False, False, False, True]
    assert restarts.pause_s(100.0, 1.0) is not None


@pytest.mark.parametrize(
    ("when", "after_failure", "after_success"),
    [("never", False, False), ("on-failure", True, False), ("always", True, True)],
)
def test_what_is_restarted(when: str, after_failure: bool, after_success: bool) -> None:
    policy = RestartPolicy(when)  # type: ignore[arg-type]
    assert policy.wants(failed=True) is after_failure
    assert policy.wants(failed=False) is after_success
