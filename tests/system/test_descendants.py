"""The processes that another one has started are found and signalled, whatever the system offers for that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from patience import patience

from ether.system import descendants
from ether.system.descendants import MARK, process_table

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux shows the table")


@pytest.fixture
def child() -> subprocess.Popen[bytes]:
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    started = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, MARK: "t.1"}
    )
    assert started.stdout is not None
    assert started.stdout.readline() == b"up\n"
    return started


def no_handles(pid: int) -> int:
    raise PermissionError("a sandbox does not let this through")


@pytest.mark.parametrize("kind", ["with handles", "refused", "not there"])
def test_a_signal_arrives_with_and_without_process_handles(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with child:
        found = process_table(anew=True)[child.pid]
        assert found.mark == "t.1"
        if kind == "refused":
            monkeypatch.setattr(os, "pidfd_open", no_handles, raising=False)
        elif kind == "not there":
            monkeypatch.delattr(os, "pidfd_open", raising=False)
        replace(found, started=found.started - 1).signal(signal.SIGKILL)
        assert child.poll() is None, "another process that has had this number is meant"
        found.signal(signal.SIGTERM)
        assert child.wait(patience(5)) == -signal.SIGTERM
        found.signal(signal.SIGKILL)  # nobody is there any more


def test_those_who_wait_for_a_table_share_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """An end of many instances would otherwise read the table once for each of them, one after the other."""
    made, begun, go_on = [], threading.Event(), threading.Event()

    def numbers() -> list[int]:
        made.append(1)
        begun.set()
        assert go_on.wait(patience(5))
        return []

    monkeypatch.setattr(descendants, "_numbers", numbers)
    monkeypatch.setattr(descendants, "_latest", (float("-inf"), {}))
    asking = threading.Semaphore(0)

    def now() -> float:
        """The clock: each who asks looks at it before it waits, and who makes a table once more."""
        asking.release()
        return time.monotonic()

    monkeypatch.setattr(descendants, "time", SimpleNamespace(monotonic=now))

    def ask() -> None:
        process_table(anew=True)

    first = threading.Thread(target=ask)
    first.start()
    assert begun.wait(patience(5))
    others = [threading.Thread(target=ask) for _ in range(8)]
    for each in others:
        each.start()
    for _ in range(2 + 8):
        assert asking.acquire(timeout=patience(5))
    go_on.set()
    for each in (first, *others):
        each.join(patience(5))
    assert len(made) == 2, "the first table was begun before they asked; they share the second"
