"""Claims over real sockets, on the loopback interface, and a program that starts while it looks elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest
from multicast import multicast_alone
from patience import patience
from running_brokers import soon

from ether.connection.deadline import Deadline
from ether.session.discovery import mdns
from ether.session.discovery.claim_rules import WINDOW_S, ClaimState, Contest
from ether.session.discovery.name_contest import NameContest

LOOPBACK = ["127.0.0.1"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="multicast on the loopback interface: Linux only")


@pytest.fixture(autouse=True)
def alone_on_the_network() -> Iterator[None]:
    with multicast_alone():
        yield


@pytest.fixture
def contests() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def contest(
    contests: ExitStack, session: str = "bench", *, lan: bool = True, window_s: float = WINDOW_S
) -> NameContest:
    one = NameContest(session, lan=lan, window_s=window_s, interfaces=LOOPBACK)
    contests.callback(one.close)
    return one


def stated(sides: Sequence[Contest]) -> list[str]:
    return sorted(each.state.value for each in sides)


def announced(contests: ExitStack, session: str) -> None:
    one = mdns.announce(session, 4711, LOOPBACK, "0.1", user="ether", host="pc1", interfaces=LOOPBACK)
    assert one is not None
    contests.callback(one.close)
    assert one.wait_announced(patience(5))


def states_of(leads: list[Contest]) -> list[str]:
    return sorted(each.state.value for each in leads)


def test_where_nobody_answers_a_name_takes_a_moment(contests: ExitStack) -> None:
    began = time.monotonic()
    assert contest(contests).outcome(Deadline(patience(5))) == []
    assert WINDOW_S <= time.monotonic() - began < patience(2.4)  # by one who waits for the deadline: 5


def test_an_announced_session_is_found_at_once_and_another_one_is_not(contests: ExitStack) -> None:
    pytest.importorskip("zeroconf", reason="zeroconf is not installed: pip install zeroconf")
    announced(contests, "bé")
    began = time.monotonic()
    one = contest(contests, "bé", window_s=patience(10))
    [found] = one.outcome(Deadline(patience(10)))
    assert time.monotonic() - began < patience(4.8)  # by a listener that waits for its time: 10
    assert found == mdns.Announced("bé", "pc1", "0.1", "ether", ("127.0.0.1",), 4711)
    assert contest(contests, "other").outcome(Deadline(patience(5))) == []
    one.ignore([found])  # behind it there is no session
    assert one.outcome(Deadline(0.5)) == []


def test_of_two_that_claim_at_the_same_moment_one_leads_and_the_other_finds_it(
    contests: ExitStack, rounds: int
) -> None:
    pytest.importorskip("zeroconf", reason="zeroconf is not installed: pip install zeroconf")
    for number in range(rounds):
        name = f"bench-{number}"
        # Each has to hear the other within its window, which on a busy machine neither does in 0.3 s each time.
        both = [contest(contests, name, window_s=1.5), contest(contests, name, window_s=1.5)]
        sides = [each._contest for each in both]
        assert soon(lambda sides=sides: stated(sides) == ["asks", "leads"], 10), stated(sides)  # type: ignore[misc]
        loser = both[[each.state for each in sides].index(ClaimState.ASKS)]
        announced(contests, name)
        assert [each.session for each in loser.outcome(Deadline(patience(5)))] == [name]


def test_a_session_that_nobody_else_can_join_takes_no_name_from_anybody(contests: ExitStack) -> None:
    alone = [contest(contests, lan=False), contest(contests, lan=False)]
    assert [each.outcome(Deadline(patience(5))) for each in alone] == [[], []]


def test_without_a_network_a_name_is_won_at_once(contests: ExitStack) -> None:
    one = NameContest("bench", lan=True, interfaces=["192.0.2.77"])  # no address of this machine
    contests.callback(one.close)
    assert one.outcome(Deadline(patience(5))) == []
