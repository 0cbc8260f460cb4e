"""What a process was handed between two of its results, and what the user's code names."""

from __future__ import annotations

import random
import threading

from hypothesis import given
from hypothesis import strategies as st

from ether.connection import causes
from ether.connection.causes import Cause, handling
from ether.connection.input_rules import MOST_ROWS, MOST_RUNS, Input, Window
from ether.connection.inputs import (
    MAX_INPUTS,
    NAMED,
    Heard,
    InputLog,
    Lineage,
    collecting,
    forget_named,
    lineage_of,
    name_parents,
    named_parents,
)
from ether.wire.head import Headers, MessageIds

NODES = {"main": MessageIds(1), "other": MessageIds(2), "probe": MessageIds(3)}


def messages(topic: str, count: int, source: str = "main", first: int = 1) -> list[tuple[str, Headers]]:
    ids = NODES[source]
    return [(topic, Headers(ids.next(1_000), source, first + n, 0.0, ())) for n in range(count)]


def id_of(item: tuple[str, Headers]) -> str:
    return item[1].id


def made(log: InputLog, output: str, *known: str, in_work: tuple[str, ...] = ()) -> Heard:
    """What could have been used for a result that is made now."""
    upto, heard = log.upto, log.since(output, known)
    log.made(output, upto, in_work)
    return heard or Heard([], 0, [], 0)


def runs(heard: Heard) -> dict[tuple[str, str], list[tuple[str, str, int]]]:
    return {
        (topic, source): [(run.first_id, run.last_id, run.count) for run in row.runs]
        for (_, topic, source), row in heard.rows
    }


def test_a_stage_that_answers_each_message_has_nothing_to_add() -> None:
    log = InputLog()
    for message in messages("in", 2_000):
        log.note(message)
        assert made(log, "out", id_of(message)) == Heard([], 0, [], 0)


def test_what_came_since_the_last_result_is_a_run_and_begins_anew_after_each() -> None:
    log, sent = InputLog(), messages("reading", 3_000)
    for begin in range(0, 3_000, 1_000):
        block = sent[begin : begin + 1_000]
        for message in block:
            log.note(message)
        heard = made(log, "fit", id_of(block[-1]))
        assert runs(heard) == {("reading", "main"): [(id_of(block[0]), id_of(block[-1]), 1_000)]}
        assert heard.before == []


def test_results_of_several_names_have_their_own_begin() -> None:
    log, sent = InputLog(), messages("reading", 1_200)
    for number, message in enumerate(sent, 1):
        log.note(message)
        if number % 4 == 0:
            heard = made(log, "quick", id_of(message))
            assert runs(heard) == {("reading", "main"): [(id_of(sent[number - 4]), id_of(message), 4)]}
    assert runs(made(log, "slow")) == {("reading", "main"): [(id_of(sent[0]), id_of(sent[-1]), 1_200)]}


def test_what_was_heard_before_is_right_for_each_of_several_results_of_one_message() -> None:
    log, ticks, other = InputLog(), messages("tick", 300), messages("gain", 1)
    for message in ticks[:100]:
        log.note(message)
        for output in ("a", "b"):
            assert made(log, output, id_of(message)).before == []
    log.note(other[0])
    for message in ticks[100:]:
        log.note(message)
        for output in ("a", "b"):
            assert made(log, output, id_of(message)).before == [id_of(other[0])]
    assert set(made(log, "c").before) | {each.last_id for _, row in made(log, "d").rows for each in row.runs} >= {
        id_of(other[0]), id_of(ticks[-1])
    }  # fmt: skip


def test_a_hole_a_restarted_source_and_another_source_are_runs_of_their_own() -> None:
    log = InputLog()
    first, second, other = messages("t", 3), messages("t", 2, first=7), messages("t", 2, "other")
    ids = MessageIds(9)
    again = [("t", Headers(ids.next(2_000), "main", n, 0.0, ())) for n in (9, 10)]
    for message in [*first, *other, *second, *again]:
        log.note(message)
    found = runs(made(log, "out"))
    assert found == {
        ("t", "main"): [(id_of(part[0]), id_of(part[-1]), len(part)) for part in (first, second, again)],
        ("t", "other"): [(id_of(other[0]), id_of(other[-1]), 2)],
    }


def test_what_several_threads_and_methods_take_out_of_order_and_twice_is_one_run() -> None:
    log, sent = InputLog(), messages("t", 5_000)
    mixed = [message for at in range(0, 5_000, 10) for message in random.Random(at).sample(sent[at : at + 10], 10)]
    for message in [*mixed, *sent[-100:]]:
        log.note(message)
    assert runs(made(log, "out")) == {("t", "main"): [(id_of(sent[0]), id_of(sent[-1]), 5_000)]}


def test_too_many_holes_become_one_run_that_says_so() -> None:
    log, sent = InputLog(), messages("t", 4_000)[::2]
    for message in sent:
        log.note(message)
    heard = made(log, "out")
    ((_, row),) = heard.rows
    assert (row.about, runs(heard)) == (True, {("t", "main"): [(id_of(sent[0]), id_of(sent[-1]), 2_000)]})


@given(st.lists(st.integers(1, 60), min_size=1, max_size=400))
def test_runs_name_what_came_and_nothing_else(numbers: list[int]) -> None:
    """However often and in which order it came."""
    sent = messages("t", 60)
    window = Window()
    window.add([sent[number - 1] for number in numbers])
    (row,) = window.rows.values()
    row.sort()
    if row.about:
        assert len(numbers) > MOST_RUNS
        return
    named = [number for run in row.runs for number in range(run.first, run.last + 1)]
    assert named == sorted(set(numbers))
    assert row.count == len(named)


def facts(heard: Heard | None) -> object:
    return heard and (runs(heard), *heard._replace(rows=[]))


STEPS = st.one_of(
    st.tuples(st.just("note"), st.sampled_from(["a", "b", "c"]), st.integers(1, 3)),
    st.tuples(st.just("result"), st.sampled_from(["fit", "mean"]), st.integers(0, 2)),
    st.tuples(st.just("in work"), st.sampled_from(["fit", "mean"]), st.integers(0, 2)),
)


@given(st.lists(STEPS, max_size=60))
def test_what_is_remembered_of_a_burst_is_what_would_be_found_again(steps: list[tuple[str, str, int]]) -> None:
    log, noted = InputLog(), list[str]()
    for what, name, number in steps:
        if what == "note":
            for message in messages(name, number):
                log.note(message)
                noted.append(id_of(message))
            continue
        known = tuple(noted[-number:]) if number else ()
        begun, in_work = log.upto, tuple(noted[:1]) if what == "in work" else ()
        for _ in range(3):
            assert facts(log.since(name, known)) == facts(log._since(name, known)[0] if log._items else None)
            log.made(name, begun, in_work)


def test_a_burst_is_looked_through_once_and_a_message_in_its_middle_is_told() -> None:
    log, (first, second) = InputLog(), messages("reading", 2)
    log.note(first)
    made(log, "save")
    again = log.since("save", ())
    assert again is not None
    assert again is log.since("save", ())
    log.note(second)
    assert runs(made(log, "save")) == {}
    assert made(log, "save").before == [id_of(second)]


def test_more_sources_than_a_window_has_room_for_are_counted() -> None:
    log, ids = InputLog(), MessageIds(5)
    for number in range(MOST_ROWS + 7):
        log.note((f"t/{number}", Headers(ids.next(1), "main", 1, 0.0, ())))
    heard = made(log, "out")
    assert heard.left_out == 7
    assert len(heard.before) == MAX_INPUTS
    assert len(heard.rows) + len(heard.before) == MOST_ROWS + 7
    assert heard.forgotten == 0, "those whose latest is forgotten are in the rows"
    assert made(log, "out").forgotten > 400, "now they are in nothing"


def test_what_is_in_work_counts_as_heard_for_the_next_result() -> None:
    """A handler that makes a result in its middle may store its message afterwards."""
    log, sent = InputLog(), messages("t", 9)
    for message in sent[:5]:
        log.note(message)
    made(log, "mean", id_of(sent[4]), in_work=(id_of(sent[4]),))
    for message in sent[5:]:
        log.note(message)
    heard = made(log, "mean", id_of(sent[8]))
    assert heard.before == [id_of(sent[4])]
    assert runs(heard) == {("t", "main"): [(id_of(sent[5]), id_of(sent[8]), 4)]}


def test_a_result_that_was_not_recorded_leaves_its_inputs_to_the_next() -> None:
    log, sent = InputLog(), messages("t", 4)
    for message in sent:
        log.note(message)
    log.since("out", ())
    assert runs(made(log, "out")) == {("t", "main"): [(id_of(sent[0]), id_of(sent[-1]), 4)]}


def test_what_has_no_id_is_counted() -> None:
    log = InputLog()
    for _ in range(3):
        log.note(("plant/flow", None))
        log.note(Input("call", "reader.read", "reader", 0, ""))
    rows = dict(made(log, "out").rows)
    assert {key: row.nameless for key, row in rows.items()} == {
        ("data", "plant/flow", ""): 3, ("call", "reader.read", "reader"): 3
    }  # fmt: skip


def test_noting_from_many_threads_loses_nothing() -> None:
    log = InputLog()
    parts = {source: messages("t", 4_000, source) for source in NODES}

    def note(source: str) -> None:
        for message in parts[source]:
            log.note(message)
            if message[1].seq % 50 == 0:
                log.since("unmade", ())

    threads = [threading.Thread(target=note, args=(source,)) for source in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {source: row.count for (_, _, source), row in made(log, "out").rows} == dict.fromkeys(parts, 4_000)


# -- what the user's code names


def test_a_value_that_is_handed_over_has_the_parents_that_were_named_and_no_other_has() -> None:
    value, equal = [1, 2], [1, 2]
    with handling(Cause("handled", "trace")):
        name_parents(value, ("a", "b"))
        assert lineage_of(equal, 0, ()) == Lineage(("handled",))
        assert lineage_of(value, 0, ()).parents == ("a", "b")
        assert lineage_of(value, 0, ()).parents == ("handled",), "it is handed over once"
    assert not NAMED


def test_what_another_handler_or_thread_has_named_is_not_mine() -> None:
    with handling(Cause("first", "1")):
        name_parents(5, ("a",))
        with handling(Cause("second", "2")):
            assert named_parents(5) is None
            assert forget_named() == 0
        assert forget_named() == 1
    name_parents(6, ("a",))
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(named_parents(6)))
    thread.start()
    thread.join()
    assert found == [None]
    assert causes.current().message_id is None
    assert named_parents(6) == ("a",)


def test_values_that_are_named_and_never_handed_over_are_forgotten() -> None:
    for number in range(100):
        name_parents([number], (str(number),))
    assert len(NAMED) <= 16
    NAMED.clear()


def test_what_is_asked_for_within_a_block_is_collected() -> None:
    log, sent = InputLog(), messages("t", 4)
    log.give(sent[0])
    with collecting() as ids:
        log.give(sent[1])
        with collecting() as inner:
            log.give(sent[2])
    log.give(sent[3])
    assert (ids, inner) == ([id_of(sent[1])], [id_of(sent[2])])
