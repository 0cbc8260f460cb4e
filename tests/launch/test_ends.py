"""Orderly ends: who has stopped as it was told raises nothing, whatever arrives late; who has not is named."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from engine_params import EVERY, STOCKS
from patience import patience
from running_brokers import RunningBroker, running_broker

from ether import Ether
from ether.errors import LifecycleFailed

ENDS, PARTS = (50, 4) if os.environ.get("ETHER_LONG") == "1" else (5, 1)
"""How many ends in each part. The long form has the 200 that are asked for, with a time limit for each part."""


@pytest.fixture(params=EVERY)
def broker(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    with running_broker(request.param) as broker:
        yield broker


@pytest.fixture
def ether(broker: RunningBroker) -> Iterator[Ether]:
    """Ends before its broker does."""
    own = Ether()
    yield own
    own.shutdown()


def ending(**kwargs: Any) -> dict[str, Any]:
    return {"class_path": "far_parts.Ending", "kwargs": kwargs}


@contextmanager
def load() -> Iterator[None]:
    """Within the block two processes keep the processors busy, so that answers are read late."""
    command = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(command) for _ in range(2)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("engine", STOCKS)
def test_i6_an_orderly_end_beside_a_load_raises_nothing(engine: str, part: int) -> None:
    """Reproducer I6: 6 of 25 raised, because the answer to `stop` was still in the kernel when the exit was seen."""
    raised: list[str] = []
    with load(), running_broker(engine) as broker:
        for turn in range(part * ENDS, (part + 1) * ENDS):
            own, described = Ether(), {"session": f"end-{turn}", "instances": {"v": ending(), "w": ending()}}
            try:
                with own.tap(described, broker=broker.url_tcp, timeout_s=patience(30)):
                    assert own.get("v", "ping") == 1
            except LifecycleFailed as error:
                raised.append(f"{turn}: {error}")
    assert not raised, f"{len(raised)} of {ENDS} raised"


def test_an_answer_that_never_arrives_is_no_failure_where_the_process_has_stopped(
    ether: Ether, broker: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to `stop` is late by as much as it can be: it does not come at all."""
    ether.tap({"instances": {"v": ending(), "w": ending()}}, broker=broker.url_tcp)
    session = ether._launch.session  # type: ignore[union-attr]
    ask = session.ask

    def deaf(verb: str, *args: Any, **more: Any) -> Any:
        if verb == "stop":
            monkeypatch.setattr(type(session), "_on_reply", lambda self, inbound: inbound.done())
        return ask(verb, *args, **more)

    monkeypatch.setattr(session, "ask", deaf)
    ether.shutdown()


@pytest.mark.parametrize("how", ["shutdown", "remove"])
def test_an_exit_code_after_stop_is_a_failure_and_is_said(ether: Ether, broker: RunningBroker, how: str) -> None:
    ether.tap({"instances": {"good": ending(), "bad": ending(code=7)}}, broker=broker.url_tcp)
    end = ether.shutdown if how == "shutdown" else partial(ether.remove, "bad")
    with pytest.raises(LifecycleFailed, match=r"exit code 7") as caught:
        end()
    assert set(caught.value.reasons) == {"bad"}


def test_a_failed_last_step_is_told_although_the_process_has_ended_well(ether: Ether, broker: RunningBroker) -> None:
    ether.tap({"instances": {"good": ending(), "stuck": ending(fails=True)}}, broker=broker.url_tcp)
    with pytest.raises(LifecycleFailed, match=r"the shutter is stuck") as caught:
        ether.shutdown()
    assert set(caught.value.reasons) == {"stuck"}


def test_restart_and_remove_raise_nothing_either(ether: Ether, broker: RunningBroker) -> None:
    ether.tap({"instances": {"v": ending(), "w": ending(late_s=0.2)}}, broker=broker.url_tcp)
    for _ in range(2):
        for name in ("v", "w"):
            ether.restart(name)
            assert ether.get(name, "ping") == 1
    ether.remove("v")
    ether.remove("w")


def test_who_is_still_at_work_is_reported_with_how_much_waits(ether: Ether, broker: RunningBroker) -> None:
    """P2's end: a reader that is far behind cannot come to rest in time. Its end says so."""
    described = {"end": {"work_s": 5.0}, "instances": {"slow": {"class_path": "far_parts.Slow"}}}
    ether.tap(described, broker=broker.url_tcp)
    for number in range(100):
        ether.pub(number, topic="load")
    told = r"slow had \d+ waiting.*\d+ messages were not handled: \d+ on 'load'"
    with pytest.raises(LifecycleFailed, match=told) as caught:
        ether.shutdown()
    assert set(caught.value.reasons) == {"slow", "the session"}
