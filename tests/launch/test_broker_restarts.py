"""A broker that dies again and again is started again and again (chaos.md A6, B2): after pauses that grow, with a line
that says what to do, and nobody who is in the session, or joins it in that moment, is lost."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time

import pytest
from engine_params import EMBEDDED
from patience import patience
from running_brokers import soon

from ether import Ether
from ether.launch import restart_rules
from ether.launch.restart_rules import FIRST_PAUSE_S, LONGEST_PAUSE_S, STABLE_S, EndlessRestarts

LONG = os.environ.get("ETHER_LONG") == "1"
DEATHS = 30 if LONG else 6
APART_S = 2.0 if LONG else 0.0
JOINED_AFTER = (1, 2) if LONG else (2,)
"""Of every three deaths: after which of them somebody joins. 20 joins in the long form."""


def test_the_pauses_grow_to_a_limit_and_never_end() -> None:
    restarts = EndlessRestarts()
    pauses = [restarts.pause_s(2.0) for _ in range(40)]
    assert pauses[:5] == [0.0, FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S, 8 * FIRST_PAUSE_S]
    assert pauses == sorted(pauses)
    assert set(pauses[8:]) == {LONGEST_PAUSE_S}
    assert restarts.pause_s(STABLE_S) == 0.0  # one that ran for a while begins anew
    assert restarts.pause_s(2.0) == FIRST_PAUSE_S


class Broker:
    """The broker of a session, and what its program sees of it."""

    def __init__(self, ether: Ether) -> None:
        assert ether._launch is not None
        assert ether._launch._broker is not None
        self._broker, self._link = ether._launch._broker, ether._launch.session.link
        self._starts = self._broker._times_ready

    def kill(self) -> None:
        """Kill it; returns when its program has noticed that."""
        self._starts = self._broker._times_ready
        os.kill(self._broker._child.pid, signal.SIGKILL)
        assert soon(lambda: self._link.offline_since is not None or self._broker._times_ready > self._starts, 5)

    def is_back(self) -> bool:
        """Whether it has been ready again since, and its program is connected to it."""
        return self._broker._times_ready > self._starts and self._link.offline_since is None


@pytest.mark.timeout(900 if LONG else 120)
@pytest.mark.parametrize("engine", EMBEDDED)
def test_a6_b2_a_broker_that_is_killed_again_and_again_is_always_back(
    engine: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not LONG:
        monkeypatch.setattr(restart_rules, "FIRST_PAUSE_S", 0.05)
    joins: list[str] = []
    with Ether().tap({"session": "a6", "instances": {"w": {"class_path": "kept_parts.Worker"}}},
                     broker={"engine": engine}) as own:  # fmt: skip

        def join() -> None:
            with Ether().tap(session="a6") as guest:
                joins.append(guest.get("w", "pid", timeout_s=patience(20.0)) and "joined")

        broker, joining = Broker(own), list[threading.Thread]()
        for number in range(DEATHS):
            pause_s = restart_rules.pause_before(number, restart_rules.FIRST_PAUSE_S, LONGEST_PAUSE_S) if number else 0
            killed = time.monotonic()
            broker.kill()
            if number == DEATHS - 1:
                w = next(member for member in own.instances() if member["name"] == "w")
                assert (w["state"], w["last_state"], w["last_known"]) == ("unreachable", "ready", True)
            if number % 3 in JOINED_AFTER:
                joining.append(threading.Timer(random.uniform(0.0, pause_s + 0.5), join))
                joining[-1].start()
            assert soon(broker.is_back, pause_s + 10), number
            assert time.monotonic() - killed >= pause_s
            threading.Event().wait(APART_S)
        for thread in joining:
            thread.join()
        assert joins == ["joined"] * len(joining)
        assert soon(lambda: [member["state"] for member in own.instances()] == ["ready"], 10)
        assert own.get("w", "pid") > 0
    told = [record for record in caplog.records if "the embedded broker ended" in record.getMessage()]
    assert len(told) == DEATHS
    assert {record.levelno for record in told} == {logging.ERROR}
    assert "for the 6th time in a row" in told[5].getMessage()
    assert "What to do:" in told[5].getMessage()
    assert "What to do:" not in told[1].getMessage()
