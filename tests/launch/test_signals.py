"""Signals that nobody wakes up for: the operating system gives one to another thread than the main one, or it comes in
the moment before the main thread begins to wait. Python runs the handler when the main thread wakes up by itself.

In both cases the main thread sleeps on. The first one can be made to happen each time, the second one cannot.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from patience import patience
from running_brokers import alive, engines, mosquitto_missing, running_broker, soon

from ether import Ether
from ether.errors import LifecycleFailed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals for one thread are Linux's")
needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]
NOTICED_S = patience(5.0)


def signal_another_thread(pid: int, number: signal.Signals) -> None:
    """Linux prefers the thread whose id is given."""
    threads = [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir() if int(entry.name) != pid]
    assert threads
    os.kill(threads[0], number)


@pytest.mark.in_turn("engine")
@pytest.mark.parametrize("engine", ENGINES)
def test_an_instance_ends(engine: str) -> None:
    ether = Ether()
    ether.tap({"broker": {"engine": engine}, "instances": {"w": {"class_path": "kept_parts.Worker"}}})
    try:
        pid = ether.get("w", "pid")
        signal_another_thread(pid, signal.SIGTERM)
        assert soon(lambda: not alive(pid), NOTICED_S)
    finally:
        try:
            ether.shutdown()
        except LifecycleFailed:
            pass  # it has ended before


@pytest.mark.in_turn("engine")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_broker_ends(engine: str) -> None:
    with running_broker(engine) as broker:
        signal_another_thread(broker.process.pid, signal.SIGTERM)
        assert broker.process.wait(NOTICED_S) == 0
