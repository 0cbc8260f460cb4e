"""Roll calls over the broker in memory: who answers, what is taken from the answers, and what never disturbs others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from patience import patience

from ether.connection.deadline import Deadline
from ether.connection.link import Link
from ether.protocol.presence import CLAIM, ECHO, Announcement, State
from ether.session.roll_call import Present
from ether.session.session import Opening, Session
from ether.transport.loopback import LoopbackBroker, LoopbackTransport
from ether.wire.topics import SessionTopics

TOPICS = SessionTopics("bench")


@pytest.fixture
def broker() -> LoopbackBroker:
    return LoopbackBroker()


@pytest.fixture
def links(broker: LoopbackBroker) -> Iterator[dict[str, Link]]:
    opened = {name: Link(LoopbackTransport(broker, client_id=name), name) for name in ("main", "guest", "late")}
    for link in opened.values():
        link.open(patience(5))
    yield opened
    for link in opened.values():
        link.close()


def announce(link: Link, name: str, state: State = State.READY) -> None:
    announcement = Announcement(name, state, f"birth of {name}", about={"epoch": 1})
    link.announce(TOPICS.state(name), announcement.to_value())


def lead(link: Link) -> Session:
    session = Session(link, TOPICS)
    session.open(patience(1), Opening.FRESH)
    link.announce(TOPICS.session_info, {"program": link.source, "run": "r1", "host": "pc"})
    return session


def known(session: Session) -> list[str]:
    return [member.name for member in session.announcements()]


def test_a_broker_that_shows_retained_messages_is_seen_to(links: dict[str, Link]) -> None:
    lead(links["main"])
    announce(links["main"], "cam")
    guest = Session(links["guest"], TOPICS)
    guest.open(patience(1), Opening.JOINS)
    assert links["guest"].wildcards_show_retained is True
    assert known(guest) == ["cam"]
    assert not guest.tests_left


def test_what_the_broker_hides_the_members_tell(links: dict[str, Link], broker: LoopbackBroker) -> None:
    """What the broker had retained is gone, as if it had been restarted, or showed it to nobody."""
    leader = lead(links["main"])
    announce(links["main"], "cam")
    assert leader.await_change(lambda: known(leader) == ["cam"], patience(5))
    broker._retained.clear()
    guest = Session(links["guest"], TOPICS)
    guest.open(patience(1), Opening.JOINS)
    assert known(guest) == []
    assert guest.heard_again(patience(1)) == {"cam"}
    assert known(guest) == ["cam"]
    late = Session(links["late"], TOPICS)
    links["late"].wildcards_show_retained = False
    late.open(patience(1), Opening.PART)
    assert known(late) == ["cam"]


def test_a_program_that_goes_on_under_another_name_answers_to_it_and_not_for_its_instances(
    links: dict[str, Link],
) -> None:
    """It has stepped back as a leader. What it said of an instance may be older than what that has said itself."""
    asking, guest = lead(links["main"]), links["guest"]
    stepped_back = Announcement("bench-1f2e", State.READY, "1", about={"kind": "program"})
    guest.announce(TOPICS.state("bench-1f2e"), stepped_back.to_value())
    announce(guest, "cam", State.STARTING)
    Session(guest, TOPICS).open(patience(1))
    Session(links["late"], TOPICS).open(patience(1))
    assert asking.heard_again(patience(5), ["bench-1f2e"]) == {"bench-1f2e", "cam"}
    assert asking.heard_again(0.2, ["cam"]) == set()
    assert asking.heard_again(0.2, ["nobody", "main"]) == set()


def test_members_that_the_leader_knows_are_waited_for(links: dict[str, Link], broker: LoopbackBroker) -> None:
    leader = lead(links["main"])
    announce(links["guest"], "cam")
    Session(links["guest"], TOPICS).open(patience(1))
    assert leader.await_change(lambda: known(leader) == ["cam"], patience(5))
    del broker._retained[TOPICS.state("cam")]
    late = Session(links["late"], TOPICS)
    late.open(patience(1), Opening.JOINS)
    assert known(late) == ["cam"], "the leader has it in its roster, and its process has told what it is"


def test_nobody_is_asked_where_nobody_is(links: dict[str, Link]) -> None:
    alone = Session(links["late"], TOPICS)
    alone.open(patience(1), Opening.STARTS)
    assert known(alone) == []
    assert alone.hear_the_latest(Deadline(1))


def test_a_self_test_that_was_left_behind_is_cleared(links: dict[str, Link], broker: LoopbackBroker) -> None:
    left = TOPICS.state("$test-left")
    links["main"].publish(left, {ECHO: "$test-left"}, retain=True).wait(patience(1))
    guest = Session(links["guest"], TOPICS)
    guest.open(patience(1), Opening.STARTS)
    assert guest.tests_left
    assert left in broker._retained
    guest.withdraw_tests()
    assert broker._retained == {}


def test_claims_and_echoes_change_nobody(links: dict[str, Link]) -> None:
    leader = lead(links["main"])
    announce(links["main"], "cam")
    assert leader.await_change(lambda: known(leader) == ["cam"], patience(5))
    changes: list[Announcement] = []
    leader.watch(changes.append)
    links["guest"].publish(TOPICS.state("cam"), {ECHO: "x"}).wait(patience(1))
    links["guest"].publish(TOPICS.state("cam"), {CLAIM: "x"}).wait(patience(1))
    leader.catch_up(1, among="cam")
    assert changes == []
    assert known(leader) == ["cam"]
    assert leader.announcements()[0].state is State.READY


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"name": "a", "announced": [], "roster": [], "mqtt": "5", "properties": True},
        {"name": "a", "announced": {}, "roster": {}, "mqtt": "5", "properties": True},
        {"name": "a", "announced": {}, "roster": [], "mqtt": 5, "properties": True},
        {"name": "a", "announced": {}, "roster": [], "mqtt": "5", "properties": "yes"},
    ],
)
def test_what_is_no_answer_is_ignored(value: object) -> None:
    assert Present.from_value(value) is None


def test_answers_survive_the_wire() -> None:
    present = Present("a", {"ether/1/bench/state/a": {"name": "a"}}, frozenset({"a", "b"}), "5", True)
    assert Present.from_value(present.to_value()) == present
