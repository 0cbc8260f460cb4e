"""The pure decisions: routes, presence, barrier, rest."""

from __future__ import annotations

import pytest

from ether.protocol.barrier import BEHIND, Answer, Barrier, Quiescence, heads_of, said_of_unhandled
from ether.protocol.dedup_window import REMEMBERED_IDS, DedupWindow
from ether.protocol.failure_detector import FailureDetector, Heartbeat, Limits
from ether.protocol.presence import BEHIND_BRIDGE, CLAIM, ECHO, Announcement, Claims, PresenceTable, State, is_notice
from ether.protocol.routes import Routes
from ether.protocol.topic_cache import ENTRY_BYTES, MOST_BYTES, TopicCache
from ether.wire.topics import matches


def test_a_receiver_is_found_once_however_many_of_its_filters_match() -> None:
    routes: Routes[str] = Routes(matches)
    assert routes.add("a/b", "x")
    assert routes.add("a/+", "x")
    assert not routes.add("a/+", "y")
    assert routes.match("a/b") == ("x", "y")
    assert not routes.remove("a/+", "x")
    assert routes.remove("a/+", "y")
    assert routes.match("a/b") == ("x",)
    assert routes.match("c") == ()


def test_a_stranger_who_invents_topics_fills_no_memory() -> None:
    routes: Routes[str] = Routes(matches)
    routes.add("a/#", "x")
    for number in range(10_000):
        assert routes.match(f"a/{number:0100}") == ("x",)
    assert 1000 < len(routes._found) < MOST_BYTES / (ENTRY_BYTES + 100)


@pytest.mark.parametrize("topics", [5_000, 16_000])
def test_topics_that_come_in_turn_are_found_as_far_as_there_is_room(topics: int) -> None:
    looked_up: list[str] = []
    routes: Routes[str] = Routes(lambda _, topic: looked_up.append(topic) is None)
    routes.add("a/#", "x")
    for _ in range(3):
        looked_up.clear()
        for number in range(topics):
            assert routes.match(f"a/{number:040}") == ("x",)
    room = MOST_BYTES // (ENTRY_BYTES + 42)
    assert len(looked_up) == max(0, topics - room)


def test_a_cache_full_of_topics_of_yesterday_begins_anew() -> None:
    cache: TopicCache[int] = TopicCache()
    for number in range(100_000):
        cache.remember(f"yesterday/{number}", number)
    for _ in range(12):
        for number in range(5_000):
            if f"today/{number}" not in cache:
                cache.remember(f"today/{number}", number)
    assert all(f"today/{number}" in cache for number in range(5_000))


def test_a_topic_of_other_letters_counts_what_it_takes() -> None:
    cache: TopicCache[int] = TopicCache()
    for number in range(20_000):
        cache.remember("ä" * 1000 + str(number), number)
    assert sum(4 * len(topic) for topic in cache) < MOST_BYTES


def announced(state: State, incarnation: str) -> Announcement:
    return Announcement("cam", state, incarnation)


def test_an_old_death_does_not_overwrite_a_new_birth() -> None:
    presence = PresenceTable()
    presence.apply(announced(State.READY, "first"))
    presence.apply(announced(State.READY, "second"))
    assert not presence.apply(announced(State.LOST, "first"))
    assert presence.ready() == {"cam"}
    assert presence.apply(announced(State.LOST, "second"))
    assert presence.not_ready(["cam", "stage"]) == ["cam", "stage"]


def test_names_that_have_left_fill_no_memory_and_the_latest_keep_their_epochs() -> None:
    presence = PresenceTable()
    for number in range(20_000):
        name = f"program{number}"
        presence.apply(Announcement(name, State.READY, "a", about={"epoch": 7}))
        presence.forget(name)
        if number == 19_000:
            presence.apply(Announcement("program0", State.READY, "a", about={"epoch": 9}))
            presence.forget("program0")
    assert len(presence._last_epochs) <= 4096
    assert presence.members() == []
    assert presence.next_epoch("program19999") == 8
    assert presence.next_epoch("program18000") == 8
    assert presence.next_epoch("program0") == 10, "it has left again, so it is one of the latest"


def test_claims_that_nobody_made_good_fill_no_memory() -> None:
    claims = Claims()
    for number in range(20_000):
        claims.note(f"program{number}", "a", now=number / 10)
    assert len(claims._first) <= 10 * Claims.LAST_S + 1


def test_the_first_claim_counts_until_it_is_over() -> None:
    claims = Claims()
    claims.note("cam", "first", now=0.0)
    claims.note("cam", "second", now=Claims.LAST_S)
    assert claims.holder("cam", now=Claims.LAST_S) == "first"
    assert claims.holder("cam", now=Claims.LAST_S + 1) is None
    claims.note("cam", "second", now=Claims.LAST_S + 1)
    assert claims.holder("cam", now=Claims.LAST_S + 1) == "second"
    claims.release("cam")
    assert claims.holder("cam", now=Claims.LAST_S + 1) is None


def test_a_duplicate_is_recognised_as_long_as_it_is_remembered() -> None:
    window = DedupWindow()
    assert [window.before(message_id) for message_id in ("a", "b", "a", "b", "c")] == [False, False, True, True, False]
    assert not window.before(None)
    assert not window.before(None), "foreign messages have no id"
    for number in range(REMEMBERED_IDS):
        assert not window.before(f"later {number}")
    assert not window.before("a"), "too many lie between"
    assert len(window._ids) == REMEMBERED_IDS


def test_what_is_not_an_announcement_is_ignored() -> None:
    wrong = [
        None,
        3,
        {},
        {"name": "cam"},
        {"name": "cam", "state": "dancing", "birth": "x"},
        {"name": 3, "state": "ready"},
    ]
    assert [Announcement.from_value(value) for value in wrong] == [None] * len(wrong)
    kept = Announcement("cam", State.ERROR, "b", "why", {"pid": 3})
    assert Announcement.from_value(kept.to_value()) == kept


def test_a_barrier_names_who_failed_died_and_is_silent() -> None:
    barrier = Barrier(["a", "b", "c", "d"])
    assert barrier.answer("a", Answer(("m",)))
    assert not barrier.answer("a", Answer())
    assert not barrier.answer("stranger", Answer())
    barrier.answer("b", Answer(failed={"m": "ValueError: x"}))
    barrier.lose("c", "was killed")
    barrier.lose("a", "too late to matter")
    assert not barrier.complete
    assert barrier.missing == ("d",)
    assert barrier.reasons(2.0) == {
        "b": "m: ValueError: x",
        "c": "was killed",
        "d": "did not answer within 2 s",
    }


def test_answers_survive_the_wire_and_strangers_do_not() -> None:
    answer = Answer(("m",), {"n": "why"}, {"handled": 3})
    assert Answer.from_value(answer.to_value("a")) == ("a", answer)
    assert [Answer.from_value(value) for value in (None, 3, {"name": "a"}, {"name": 1, "ran": []})] == [None] * 4


def test_rest_takes_two_equal_waves() -> None:
    quiescence = Quiescence()

    def wave(handled: int) -> dict[str, Answer]:
        return {"a": Answer(facts={"handled": handled, "published": 0})}

    assert not quiescence.at_rest(wave(1))
    assert not quiescence.at_rest(wave(2))
    assert quiescence.at_rest(wave(2))


def test_there_is_no_rest_while_somebody_lacks_what_another_has_published() -> None:
    """Equal waves prove nothing where a wave may overtake a message."""
    quiescence = Quiescence()

    def wave(behind: int) -> dict[str, Answer]:
        told = {"heads": {"node of a": {"data/x": 4}}}
        return {"a": Answer(facts={"handled": 0, BEHIND: 0}, results=told), "b": Answer(facts={BEHIND: behind})}

    assert [quiescence.at_rest(wave(behind)) for behind in (1, 1, 1, 0, 0)] == [False, False, False, False, True]
    assert heads_of(wave(0)) == {"node of a": {"data/x": 4}}


def test_claims_and_echoes_are_no_announcements() -> None:
    assert is_notice({CLAIM: "b"})
    assert is_notice({ECHO: "x"})
    for value in (
        None,
        {},
        {"name": "cam"},
        announced(State.READY, "b").to_value(),
        {CLAIM: "b", "state": "ready"},
        [CLAIM],
    ):
        assert not is_notice(value)


def test_the_first_claim_counts_until_its_incarnation_is_announced() -> None:
    claims = Claims()
    claims.note("cam", "first", 0.0)
    claims.note("cam", "second", 0.1)
    assert claims.holder("cam", 1.0) == "first"
    claims.release("cam")
    claims.note("cam", "third", 1.0)
    assert claims.holder("cam", 1.0) == "third"
    assert claims.holder("cam", 1.0 + Claims.LAST_S + 0.1) is None


def test_members_say_whether_the_way_to_them_strips_properties() -> None:
    assert Announcement("cam", State.READY, "b", about=dict(BEHIND_BRIDGE)).behind_bridge
    assert not announced(State.READY, "b").behind_bridge


def test_a_method_that_says_how_long_it_takes_is_not_hung_before() -> None:
    detector = FailureDetector()
    detector.watch("stage", "b", Limits(busy_s=2.0), 0.0)

    def verdict(busy_s: float, takes_s: float | None) -> dict[str, str]:
        beat = Heartbeat("b", 1, "home", busy_s, takes_s=takes_s)
        read = Heartbeat.from_value(beat.to_value())
        assert read == beat
        detector.hear("stage", read, 10.0)
        return dict(detector.judge(10.0))

    assert verdict(100.0, 300.0) == {}
    assert verdict(1.0, None) == {}
    assert verdict(2.5, None) == {"stage": "busy for 2.5 s in home, where 2 s are allowed"}
    assert verdict(100.0, 300.0) == {"stage": ""}
    assert verdict(301.0, 300.0) == {"stage": "busy for 301.0 s in home, where 300 s are allowed"}


def test_an_end_says_how_many_messages_on_which_topics_it_leaves() -> None:
    assert said_of_unhandled({"a": 1}) == "1 message was not handled: 1 on 'a'"
    assert said_of_unhandled({"a": 1, "b": 12_000}) == "12,001 messages were not handled: 12,000 on 'b', 1 on 'a'"
    many = {f"t{number}": 10 - number for number in range(8)}
    assert said_of_unhandled(many).endswith("6 on 't4', 12 on 3 other topics")
