"""A window over a connection that loses whatever it likes: everything arrives, and only that is acknowledged."""

from __future__ import annotations

import random

import pytest

from ether.recording.send_window_rules import BATCHES, RESEND_S, SendWindow


def open_window() -> SendWindow:
    window = SendWindow()
    window.connection(True, 0.0)
    window.recorder("a", 0.0)
    return window


def test_nothing_is_sent_before_there_is_somebody_to_send_it_to() -> None:
    window = SendWindow()
    assert window.next(10) is None
    window.connection(True, 0.0)
    assert window.next(10) is None
    window.recorder("a", 0.0)
    assert window.next(10) == 1


def test_only_so_many_batches_are_under_way() -> None:
    window = open_window()
    for last in range(1, BATCHES + 1):
        assert window.next(100) == last
        window.sent(last, 0.0)
    assert window.next(100) is None
    assert window.receive("a", 1, 0.1)
    assert window.next(100) == BATCHES + 1


def test_silence_sends_again_from_the_last_acknowledgement() -> None:
    window = open_window()
    window.sent(5, 0.0)
    window.sent(9, 0.1)
    window.receive("a", 5, 1.0)
    assert window.look(1.5) == pytest.approx(RESEND_S - 0.5)
    assert window.look(1.0 + RESEND_S) is None
    assert window.next(9) == 6


def test_another_birth_is_sent_everything_that_is_not_acknowledged() -> None:
    window = open_window()
    window.sent(9, 0.0)
    window.receive("a", 4, 0.1)
    window.recorder(None, 0.2)
    assert window.next(9) is None
    window.recorder("b", 0.3)
    assert window.next(9) == 5
    assert not window.receive("a", 9, 0.4), "the dead one's word came late"
    assert window.acknowledged == 4


def test_a_repeated_acknowledgement_is_no_news() -> None:
    window = open_window()
    window.sent(3, 0.0)
    assert window.receive("a", 3, 0.1)
    assert not window.receive("a", 3, 0.2)
    assert window.look(100.0) is None


@pytest.mark.parametrize("seed", range(20))
def test_everything_arrives_whatever_is_lost(seed: int) -> None:
    chance, window = random.Random(seed), SendWindow()
    stored, head, now, incarnation = 0, 0, 0.0, 0
    for _ in range(2000):
        now += 0.1
        head = min(head + chance.randrange(5), 500)
        event = chance.random()
        if event < 0.02:
            incarnation += 1
            window.recorder(None, now)
            window.recorder(f"r{incarnation}", now)
        elif event < 0.04:
            window.connection(False, now)
        else:
            window.connection(True, now)
            window.recorder(f"r{incarnation}", now)
        first = window.next(head)
        if first is not None:
            last = min(head, first + 7)
            window.sent(last, now)
            if chance.random() < 0.7 and first <= stored + 1:
                stored = max(stored, last)
        if chance.random() < 0.7:
            window.receive(f"r{incarnation}", stored, now)
        window.look(now)
        assert window.acknowledged <= stored <= head
    assert head == 500
    assert stored == 500
