"""Claims on the name of a session: the packets, and which of several programs leads, whatever the network does."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ether.session.discovery.claim_rules import (
    SILENT_S,
    WINDOW_S,
    YIELDS_S,
    Claim,
    ClaimState,
    ClaimVerdict,
    Contest,
)

LOW, HIGH = "0" * 16, "f" * 16


def claim(claim_id: str = LOW, state: ClaimState = ClaimState.CLAIMS, *, lan: bool = True, session: str = "s") -> Claim:
    return Claim(session, claim_id, state, lan, "pc")


@given(st.text(max_size=60), st.sampled_from(ClaimState), st.booleans())
def test_a_claim_comes_through_a_packet(session: str, state: ClaimState, lan: bool) -> None:
    told = claim(state=state, lan=lan, session=session.encode("utf-8", "replace").decode())
    assert Claim.from_packet(told.to_packet()) == told


@given(st.binary(max_size=200), st.integers(0, 200))
@example(b"\x00", len(claim().to_packet()) - 1)
@example(b"\xff", len(claim().to_packet()) - 1)
def test_any_other_packet_is_no_claim_and_no_error(noise: bytes, cut: int) -> None:
    packet = claim().to_packet()
    for broken in (noise, packet[:cut], packet[:cut] + noise):
        found = Claim.from_packet(broken)
        assert found is None or (Claim.from_packet(found.to_packet()) == found and found.host.isprintable())
    assert cut >= len(packet) or Claim.from_packet(packet[:cut]) is None


def test_a_hosts_name_cannot_write_lines_into_the_log() -> None:
    found = Claim.from_packet(replace(claim(), host="pc\n2026-01-16 ERROR \x1b[31m").to_packet())
    assert found is not None
    assert found.host == "pc2026-01-16 ERROR [31m"


def test_what_no_packet_can_carry_is_known() -> None:
    assert claim(session="s" * 200).fits
    assert not claim(session="é" * 200).fits


def test_nobody_answers_and_the_name_is_won_after_the_window() -> None:
    contest = Contest(claim(), WINDOW_S, 0.0)
    sent = [now / 100 for now in range(40) if contest.turn(now / 100)]
    assert sent == [0.0, 0.1, 0.2, 0.3]  # the last one says that it leads
    assert contest.state is ClaimState.LEADS
    assert contest.patience_s(1.0) is None


def test_nobody_leads_who_has_not_asked_however_late_its_thread_runs() -> None:
    """On a busy machine the first look at the clock may come when the window is over: it led, and had asked nobody."""
    contest = Contest(claim(HIGH), WINDOW_S, 0.0)
    assert contest.turn(5.0)
    assert contest.state is ClaimState.CLAIMS
    assert not contest.turn(5.05)
    assert contest.turn(5.5), "the second one is late, too"
    sent = [now for now in (5.5 + step / 100 for step in range(1, 40)) if contest.turn(now)]
    assert sent == pytest.approx([5.6, 5.7], abs=0.02)  # the third one, and the last, which says that it leads
    assert contest.state is ClaimState.LEADS
    late = Contest(claim(HIGH), WINDOW_S, 0.0)
    assert late.turn(5.0)
    assert late.hear(claim(LOW), 5.1) is ClaimVerdict.YIELD


@pytest.mark.parametrize(
    ("own", "heard", "verdict"),
    [
        (claim(LOW), claim(HIGH), ClaimVerdict.ANSWER),
        (claim(HIGH), claim(LOW), ClaimVerdict.YIELD),
        (claim(LOW), claim(HIGH, ClaimState.LEADS), ClaimVerdict.YIELD),
        (claim(LOW), claim(HIGH, ClaimState.ASKS), ClaimVerdict.ANSWER),
        (claim(HIGH), claim(LOW, lan=False), ClaimVerdict.ANSWER),  # it has to learn of this one, and yields
        (claim(LOW, lan=False), claim(HIGH), ClaimVerdict.YIELD),
        (claim(HIGH, lan=False), claim(LOW, lan=False), ClaimVerdict.IGNORE),  # neither can join the other
        (claim(LOW), claim(LOW), ClaimVerdict.IGNORE),  # its own packet
        (claim(HIGH), claim(LOW, session="other"), ClaimVerdict.IGNORE),
        (claim(HIGH, ClaimState.LEADS), claim(LOW), ClaimVerdict.ANSWER),
        (claim(HIGH, ClaimState.LEADS), claim(LOW, ClaimState.LEADS), ClaimVerdict.TWICE),
        (claim(HIGH, ClaimState.ASKS), claim(LOW), ClaimVerdict.IGNORE),
    ],
)  # fmt: skip
def test_what_follows_from_a_claim(own: Claim, heard: Claim, verdict: ClaimVerdict) -> None:
    contest = Contest(own, WINDOW_S, 0.0)
    assert contest.hear(heard, 0.1) is verdict
    assert contest.state is (ClaimState.ASKS if verdict is ClaimVerdict.YIELD else own.state)


def test_a_winner_that_gives_up_leaves_the_name_to_the_one_that_yielded() -> None:
    contest = Contest(claim(HIGH), WINDOW_S, 0.0)
    assert contest.hear(claim(LOW), 0.1) is ClaimVerdict.YIELD
    assert contest.turn(0.2)
    assert contest.state is ClaimState.ASKS
    assert contest.turn(0.1 + SILENT_S)  # claims anew
    assert contest.state is ClaimState.CLAIMS
    assert not contest.turn(0.15 + SILENT_S)
    for number in (1, 2, 3):
        assert contest.state is ClaimState.CLAIMS
        assert contest.turn(0.1 + SILENT_S + number * 0.11)
    assert contest.state is ClaimState.LEADS


def test_who_claims_and_never_starts_is_not_waited_for_for_ever() -> None:
    contest, now = Contest(claim(HIGH), WINDOW_S, 0.0), 0.1
    while contest.state is not ClaimState.LEADS:
        contest.hear(claim(LOW), now)
        contest.turn(now)
        now += 0.1
        assert now < YIELDS_S + 1.0
    assert now > YIELDS_S


@given(st.integers(0, 2**32), st.integers(2, 5))
def test_of_programs_that_begin_together_one_leads(seed: int, count: int) -> None:
    """Packets take 0 to 5 ms, overtake each other, and one in ten is lost."""
    chance = random.Random(seed)
    began = [chance.uniform(0.0, 0.25) for _ in range(count)]
    contests = [Contest(claim(f"{chance.getrandbits(64):016x}"), WINDOW_S, at) for at in began]
    flying: list[tuple[float, int, Claim]] = []

    def send(number: int, now: float) -> None:
        for other in range(count):
            if other != number and chance.random() > 0.1:
                flying.append((now + chance.uniform(0.0, 0.005), other, replace(contests[number].own)))

    for step in range(350):
        now = step / 500
        for number, contest in enumerate(contests):
            if now >= began[number] and contest.turn(now):
                send(number, now)
        arrived = [each for each in flying if each[0] <= now]
        flying = [each for each in flying if each[0] > now]
        for _, number, heard in arrived:
            if now >= began[number] and contests[number].hear(heard, now) is ClaimVerdict.ANSWER:
                send(number, now)
    states = [contest.state for contest in contests]
    assert states.count(ClaimState.LEADS) == 1
    assert states.count(ClaimState.ASKS) == count - 1
