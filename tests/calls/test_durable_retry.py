"""The thread that sends durable calls again, without a broker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from patience import patience

from ether.calls.client import PendingCall
from ether.calls.durable_records import SavedCall
from ether.calls.durable_retry import DurableCall, DurableRetry
from ether.protocol.answers import SAVE_LATER
from ether.spec.marks import MarkKind
from ether.wire.codec import encode


class Session:
    """A session without a connection."""

    def __init__(self, open_it: Callable[[], object]) -> None:
        self.open_it = open_it
        self.link = SimpleNamespace(transport=SimpleNamespace(connected=False), on_connection=[])

    def watch(self, event: Callable[..., object]) -> None: ...

    def open(self, timeout_s: float) -> bool:
        self.open_it()
        return True


@contextmanager
def retrying(folder: Path, open_it: Callable[[], object]) -> Iterator[DurableRetry]:
    with closing(DurableRetry(Session(open_it), lambda: folder, "program")) as retry:  # type: ignore[arg-type]
        yield retry


def durable(number: int) -> DurableCall:
    call_id = f"{number:032x}"
    saved = SavedCall(call_id, "doser", "dose", "doser", "", 0.0, "program")
    return DurableCall(
        saved,
        PendingCall("doser.dose", "doser", MarkKind.SAVE, 60.0, bytes.fromhex(call_id)),
        SAVE_LATER,
        waited=False,
        promised=True,
    )


def test_an_unforeseen_error_does_not_end_the_thread_that_sends_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every call that waits depends on it, and nobody would notice that it has ended."""
    faults, again = iter([ValueError("a fault of ours")]), threading.Event()

    def open_it() -> None:
        for fault in faults:
            raise fault
        again.set()

    with retrying(tmp_path, open_it) as retry:
        call = durable(1)
        retry.take_on(call)
        retry.hurry(call)
        assert again.wait(patience(10)), "it was not tried again"
        assert retry.get(call.pending) is call
    assert "doser.dose could not be looked after; trying again" in caplog.text
    assert "a fault of ours" in caplog.text


def test_an_unforeseen_error_of_one_call_holds_up_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tried = threading.Event()
    with retrying(tmp_path, tried.set) as retry:
        wrong, right = durable(1), durable(2)
        wrong.age = None  # type: ignore[assignment]  each attempt fails
        for call in (wrong, right):
            retry.take_on(call)
            retry.hurry(call)
        assert tried.wait(patience(10))
    assert "doser.dose could not be looked after" in caplog.text


def test_a_call_that_is_answered_while_others_are_sent_is_not_sent_again(tmp_path: Path) -> None:
    calls, opened, done = [durable(number) for number in (1, 2)], [0], threading.Event()

    def open_it() -> None:
        opened[0] += 1
        calls[1].pending.settle(lambda: (None, None))  # the answer to an earlier request
        calls[1].pending.when_done(done.set)

    with retrying(tmp_path, open_it) as retry:
        for call in calls:
            retry.outbox().add(call.saved, encode(None))
        calls[1].due = calls[0].due  # both are due at the same time
        for call in calls:
            retry.take_on(call)
        assert done.wait(patience(10))
    assert opened == [1]
