"""Which frame answers which question: the rule itself, with times as numbers."""

from __future__ import annotations

import pytest

from hardware_adapters.step_rules import GUARD_S, Fate, LineRules, LineStep, Owed

TIMEOUT_S, SETTLE_S = 1.0, 0.05


def line(**rules: object) -> LineStep:
    """A line that has answered one question at the time 0."""
    step = LineStep(LineRules(SETTLE_S, **rules))  # type: ignore[arg-type]
    ask(step, b"first?\n", 0.0)
    assert step.take(b"first", 0.0) is Fate.ANSWER
    step.answered()
    return step


def ask(step: LineStep, message: bytes, now: float, **sync: object) -> None:
    step.begin(message, TIMEOUT_S, now + TIMEOUT_S, **sync)  # type: ignore[arg-type]


def fail(step: LineStep, message: bytes, now: float, **sync: object) -> float:
    """Ask, and let the time-out pass; when it has."""
    ask(step, message, now, **sync)
    step.failed(now + TIMEOUT_S)
    return now + TIMEOUT_S


def identity(frame: bytes) -> bool:
    return frame == b"ACME,7"


def opc(frame: bytes) -> bool:
    return frame == b"1"


def test_a_line_in_step_needs_no_time() -> None:
    step = line()
    assert step.in_step
    assert step.ready_at(5.0) == 0.0
    ask(step, b"Q?\n", 5.0)
    assert step.take(b"A", 5.1) is Fate.ANSWER
    assert step.hold_until(5.1) == 0.0


def test_the_owed_answer_brings_the_line_back() -> None:
    step = line()
    now = fail(step, b"Q?\n", 1.0)
    assert not step.in_step
    assert step.ready_at(now) == pytest.approx(now + 2 * TIMEOUT_S)
    assert step.take(b"A", now + 0.3) is Fate.LATE
    assert step.ready_at(now + 0.3) == pytest.approx(now + 0.3 + SETTLE_S)
    step.settled()
    assert step.in_step
    assert (step.counts.late, step.counts.resynchronised) == (1, 1)
    ask(step, b"R?\n", now + 1)
    assert step.take(b"B", now + 1.1) is Fate.ANSWER
    assert step.hold_until(now + 1.1) == 0.0


def test_after_a_lost_answer_the_next_one_is_held_until_its_time_out() -> None:
    step = line()
    now = fail(step, b"Q?\n", 1.0) + 2 * TIMEOUT_S
    step.settled()
    ask(step, b"R?\n", now)
    assert step.take(b"A", now + 0.1) is Fate.ANSWER
    assert step.hold_until(now + 0.1) == pytest.approx(now + TIMEOUT_S)
    assert step.take(b"B", now + 0.2) is Fate.SURPLUS
    assert (step.answer, step.second) == (b"A", b"B")


def test_what_cannot_be_counted_proves_nothing() -> None:
    """Something unasked came a moment ago: a frame in the place of the owed answer may be another one like it."""
    step = line()
    assert step.take(b"hello", 0.5) is Fate.INPUT
    now = fail(step, b"Q?\n", 1.0)
    assert step.take(b"hello", now + 0.1) is Fate.LATE
    assert step.ready_at(now + 0.1) == pytest.approx(now + 2 * TIMEOUT_S)
    step.settled()
    assert step.hold_until(now) == 0.0  # nothing is asked
    ask(step, b"R?\n", now + 2)
    step.take(b"B", now + 2)
    assert step.hold_until(now + 2) == pytest.approx(now + 2 + SETTLE_S)
    assert step.hold_until(now + 2 + GUARD_S) == 0.0


def test_an_identity_proves_at_once_and_drops_what_came_before() -> None:
    step = line()
    now = fail(step, b"Q?\n", 1.0)
    ask(step, b"*IDN?\n", now, fits=identity)
    assert step.take(b"A", now + 0.1) is Fate.LATE
    assert step.take(b"ACME,7", now + 0.2) is Fate.ANSWER
    step.answered()
    assert step.in_step
    assert step.counts.resynchronised == 1


def test_a_strangers_answer_is_given_back() -> None:
    step = line()
    ask(step, b"*IDN?\n", 1.0, fits=identity)
    assert step.take(b"OTHER,8", 1.1) is Fate.ANSWER
    assert step.answer == b"OTHER,8"


def test_a_short_sync_answer_counts_only_with_the_number_of_frames() -> None:
    step = line()
    now = fail(step, b"OUTP?\n", 1.0)
    ask(step, b"*OPC?\n", now, fits=opc)
    assert step.take(b"1", now + 0.1) is Fate.ANSWER  # that of OUTP?, perhaps
    step.answered()
    assert not step.in_step
    assert step.take(b"1", now + 0.2) is Fate.LATE  # and this the one of *OPC?
    assert step.ready_at(now + 0.2) == pytest.approx(now + 0.2 + SETTLE_S)


def test_a_sync_question_that_failed_before_may_be_answered_twice() -> None:
    step = line()
    now = fail(step, b"Q?\n", 1.0)
    now = fail(step, b"*IDN?\n", now, fits=identity)
    ask(step, b"*IDN?\n", now, fits=identity)
    assert step.take(b"ACME,7", now + 0.1) is Fate.ANSWER  # of the first one, or of the second
    step.answered()
    assert step.in_step
    now = fail(step, b"R?\n", now + 0.2)
    ask(step, b"*IDN?\n", now, fits=identity)
    assert step.take(b"ACME,7", now + 0.1) is Fate.ANSWER  # of the second, or of the third: R? may still be owed
    step.answered()
    assert not step.in_step
    assert step.take(b"ACME,7", now + 0.2) is Fate.LATE  # not in the place of what is owed
    assert step.ready_at(now + 0.2) > now + TIMEOUT_S
    assert step.take(b"B", now + 0.3) is Fate.LATE
    assert step.ready_at(now + 0.3) == pytest.approx(now + 0.3 + SETTLE_S)


def test_the_answer_of_a_sync_question_is_recognised_however_late() -> None:
    step = line()
    now = fail(step, b"*IDN?\n", 1.0, fits=identity) + 2 * TIMEOUT_S
    step.settled()
    ask(step, b"Q?\n", now)
    assert step.take(b"ACME,7", now + 0.1) is Fate.LATE
    assert step.take(b"A", now + 0.2) is Fate.ANSWER
    step.answered()
    ask(step, b"*IDN?\n", now + 2)
    assert step.take(b"ACME,7", now + 2.1) is Fate.ANSWER  # the user asks for it


def test_echoes() -> None:
    step = line()
    ask(step, b"T?\r\n", 1.0)
    assert step.take(b"T?", 1.0) is Fate.ECHO
    assert step.take(b"21.5", 1.1) is Fate.ANSWER
    step.answered()
    ask(step, b"POW 5\n", 2.0)  # from now on each command is taken to be sent back
    assert step.take(b"21.5", 2.0) is Fate.LATE  # before its own echo, thus before the question
    assert step.take(b"POW 5", 2.0) is Fate.ECHO
    assert step.take(b"POW 5", 2.1) is Fate.ANSWER
    told = line(echo=False)
    ask(told, b"T?\n", 1.0)
    assert told.take(b"T?", 1.0) is Fate.ANSWER


def test_a_device_that_no_longer_sends_commands_back_is_understood() -> None:
    step = line()
    ask(step, b"T?\n", 1.0)
    step.take(b"T?", 1.0)
    step.take(b"21.5", 1.1)
    step.answered()
    ask(step, b"T?\n", 2.0)
    assert step.take(b"21.6", 2.1) is Fate.LATE
    step.failed(3.0)
    step.settled()
    ask(step, b"T?\n", 6.0)
    assert step.take(b"21.7", 6.1) is Fate.ANSWER


def test_commands_that_are_acknowledged() -> None:
    step = line()
    for start in (1.0, 2.0):
        step.wrote(b"SET 1\n", start)
        assert step.take(b"OK", start + 0.1) is Fate.INPUT
        ask(step, b"Q?\n", start + 0.2)
        assert step.take(b"A", start + 0.3) is Fate.ANSWER
        step.answered()
    step.wrote(b"SET 2\n", 3.0)
    assert not step.in_step  # the acknowledgement is owed
    assert step.ready_at(3.0) > 4.0
    assert step.take(b"OK", 3.1) is Fate.INPUT
    assert step.ready_at(3.1) == 0.0
    step.settled()
    assert step.counts.resynchronised == 0


def test_unsolicited_frames_are_nobodys_answer() -> None:
    step = line(unsolicited=lambda frame: frame.startswith(b"!"))
    ask(step, b"Q?\n", 1.0)
    assert step.take(b"!hello", 1.0) is Fate.INPUT
    assert step.take(b"A", 1.1) is Fate.ANSWER
    assert step.hold_until(1.1) == 0.0


def test_a_new_connection_inherits_what_is_owed() -> None:
    step = line()
    now = fail(step, b"Q?\n", 1.0)
    ask(step, b"R?\n", now)  # and is cut off from its answer
    left = step.owed(now)
    assert [each.message for each in left] == [b"Q?\n", b"R?\n"]
    again = LineStep(LineRules(SETTLE_S), left)
    assert not again.in_step
    assert again.ready_at(now) == pytest.approx(now + 2 * TIMEOUT_S)
    assert again.take(b"A", now + 0.1) is Fate.LATE
    assert LineStep(LineRules(), [Owed(b"Q?\n", 5.0, 2.0)]).owed(6.0) == ()


def test_a_refused_answer_leaves_the_true_one_its_time() -> None:
    step = line()
    ask(step, b"Q?\n", 1.0)
    step.take(b"hello", 1.1)
    step.answered()
    step.refused(b"Q?\n", 1.1, 2.0)
    assert step.ready_at(1.1) == pytest.approx(2.0)
    assert step.take(b"21.5", 1.3) is Fate.LATE
    assert step.ready_at(1.3) == pytest.approx(1.3 + SETTLE_S)


def test_a_sync_answer_that_comes_twice_is_no_answer_to_the_next_question() -> None:
    step = line()
    now = fail(step, b"Q?\n", 1.0)
    ask(step, b"*OPC?\n", now, fits=opc)
    assert step.take(b"A", now + 0.1) is Fate.LATE
    assert step.take(b"1", now + 0.2) is Fate.ANSWER
    step.answered()
    assert step.in_step
    ask(step, b"R?\n", now + 0.3)
    assert step.take(b"1", now + 0.3) is Fate.ANSWER
    assert step.hold_until(now + 0.3) == pytest.approx(now + 0.3 + SETTLE_S)
    assert step.take(b"B", now + 0.31) is Fate.SURPLUS


def test_the_rest_of_a_message_whose_beginning_was_lost_is_none() -> None:
    step = line()
    step.torn(1.0)
    assert step.ready_at(1.0) == pytest.approx(1.0 + SETTLE_S)
    assert step.take(b"86", 1.01) is Fate.INPUT
    assert step.ready_at(1.01) == pytest.approx(1.01 + SETTLE_S)
