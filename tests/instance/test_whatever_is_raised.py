"""Whatever a method raises or starts is answered and logged, and its instance lives."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_params import EMBEDDED
from patience import patience
from running_brokers import soon
from wreck_parts import ERRORS

from ether import Ether
from ether.errors import RemoteError

pytestmark = [pytest.mark.in_turn("ether"), pytest.mark.skipif(sys.platform == "win32", reason="forks")]


@pytest.fixture(scope="module", params=EMBEDDED)
def ether(request: pytest.FixtureRequest) -> Iterator[Ether]:
    """One session for all tests of an engine: what one has done to an instance, the next one finds."""
    own = Ether()
    parts = {"a": "Analysis", "d": "Driver", "fit": "Fit"}
    instances = {name: {"class_path": f"wreck_parts.{cls}"} for name, cls in parts.items()}
    own.tap({"broker": {"engine": request.param}, "instances": instances}, timeout_s=patience(30))
    pids = {name: pid_of(own, name) for name in parts}
    yield own
    assert {name: pid_of(own, name) for name in parts} == pids, "an instance has died"
    own.shutdown()


def pid_of(ether: Ether, name: str) -> Any:
    return next(i["pid"] for i in ether.instances() if i["name"] == name)


def get(ether: Ether, instance: str, call: str, **params: Any) -> Any:
    return ether.get(instance, call, params or None, timeout_s=patience(10))


def test_i2_a_helper_of_multiprocessing_is_terminated(ether: Ether) -> None:
    assert get(ether, "a", "stop_helper") is False


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_i2_a_pool_answers_each_time(ether: Ether, method: str) -> None:
    times = 12 if method == "fork" else 1
    assert [get(ether, "a", "squares", method=method) for _ in range(times)] == [[1, 2]] * times


@pytest.mark.parametrize(("how", "code"), [("exit", 3), ("raise", 1), ("return", 0), ("publish", 1)])
def test_i2_a_forked_child_ends_where_its_handler_ends(ether: Ether, how: str, code: int) -> None:
    heard = ether.subscribe("from the child")
    assert get(ether, "a", "fork", how=how) == code
    assert get(ether, "a", "fork", how="return") == 0  # exactly one answer came to the call before
    heard.close()


def test_i2_a_child_forked_by_an_async_method_ends_too(ether: Ether) -> None:
    assert get(ether, "a", "fork_async") == 3


def test_i2_a_forked_child_has_neither_the_signals_nor_the_connection_of_its_parent(ether: Ether) -> None:
    assert get(ether, "a", "signals_of_child") == ["default_int_handler", "0"] or get(
        ether, "a", "signals_of_child"
    ) == ["default_int_handler", "Handlers.SIG_DFL"]
    sockets, kept = get(ether, "a", "connected_of_child")
    assert sockets - kept == 1  # the one to the broker; those by which threads wake each other lead nowhere


def test_i2_a_program_that_was_started_hears_ctrl_c(ether: Ether) -> None:
    assert get(ether, "a", "interrupt") == -2


def test_i3_sys_exit_in_an_async_method(ether: Ether) -> None:
    with pytest.raises(RemoteError, match="no licence") as caught:
        get(ether, "d", "check")
    assert caught.value.remote_class == "SystemExit"
    assert get(ether, "d", "ping") == "pong"


@pytest.mark.parametrize("method", ["stop_loop", "leave_task"])
def test_i3_a_loop_that_is_stopped_goes_on(ether: Ether, method: str) -> None:
    assert get(ether, "d", method) in ("stopped", "left")
    assert [get(ether, "d", "ping") for _ in range(3)] == ["pong"] * 3


@pytest.mark.parametrize("name", [name for name in ERRORS if name != "StopIteration"])  # Python makes it another one
def test_i3_whatever_an_async_method_raises_is_answered(ether: Ether, name: str) -> None:
    with pytest.raises(RemoteError) as caught:
        get(ether, "d", "raise_it", name=name)
    assert caught.value.remote_class == name
    assert get(ether, "d", "ping") == "pong"


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("method", ["raise_it", "raise_beside"])
def test_b7_whatever_a_method_raises_is_answered(ether: Ether, method: str, name: str) -> None:
    with pytest.raises(RemoteError) as caught:
        get(ether, "fit", method, name=name)
    assert caught.value.remote_class == name
    assert "wreck_parts.py" in caught.value.remote_traceback


@pytest.mark.parametrize("name", ERRORS)
def test_i5_b7_whatever_a_handler_raises_is_logged_and_the_next_message_is_handled(ether: Ether, name: str) -> None:
    before = get(ether, "fit", "count")
    ether.pub(name, topic="data")
    ether.pub("good", topic="data")
    assert soon(lambda: get(ether, "fit", "count") == before + 2, patience(5))


def test_a_signal_handler_that_raises_between_two_jobs(ether: Ether, tmp_path: Path) -> None:
    file = tmp_path / "alarm"
    get(ether, "fit", "alarm", file=os.fspath(file))
    assert soon(file.exists, patience(5))
    assert get(ether, "fit", "count") >= 0
