"""Tasks for a later moment: in the order of their times, on one thread that is there only while it is needed."""

from __future__ import annotations

import threading
import time

import pytest
from patience import patience

from ether.connection.later import Later
from ether.errors import TransportClosed


def test_tasks_run_in_the_order_of_their_times_and_the_thread_ends() -> None:
    later, ran, done = Later("later"), list[str](), threading.Event()
    later.after(1.0, lambda: ran.append("second"))  # far behind what comes at once, on a busy machine too
    later.after(1.1, done.set)
    later.after(0.0, lambda: ran.append("first"))
    assert done.wait(patience(5))
    assert ran == ["first", "second"]
    deadline = time.monotonic() + patience(5)
    while any(thread.name == "later" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
    later.after(0.0, done.clear)  # and begins again
    while done.is_set():
        assert time.monotonic() < deadline
    later.close()


def test_a_task_that_fails_ends_no_other(caplog: pytest.LogCaptureFixture) -> None:
    later, done = Later("later"), threading.Event()

    def refused() -> None:
        raise TransportClosed("closed")

    def broken() -> None:
        raise ZeroDivisionError

    later.after(0.0, refused)
    later.after(0.0, broken)
    later.after(0.0, done.set)
    assert done.wait(patience(5))
    later.close()
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]


def test_after_its_end_nothing_runs() -> None:
    later, ran = Later("later"), list[int]()
    later.after(30.0, lambda: ran.append(1))
    later.close()
    later.close()
    later.after(0.0, lambda: ran.append(2))
    assert not any(thread.name == "later" for thread in threading.enumerate())
    assert not ran
