"""Thirty shapes of classes, twenty ways to raise or to leave, two engines: the instance lives, its caller is told what
stands in the table (`shape_parts.HOW`), and the next message is handled.

In the short form a few shapes are instances with processes of their own, and the others objects of the test's process,
which a second program calls over one broker, each for a third of the ways.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import shape_parts
from engine_params import EMBEDDED
from patience import patience
from running_brokers import soon
from shape_parts import HOW, REGISTRY, SHAPES, expected

from ether import Ether
from ether.errors import AnswerNotSent, RemoteError

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="forks"),
    pytest.mark.slow("instances of many shapes"),
    pytest.mark.timeout(600),
]

LONG = os.environ.get("ETHER_LONG") == "1"
PROCESSES = list(SHAPES) if LONG else ["Plain", "Slotted", "Coroutine", "GeneratingLater", "Beside", "Undecorated"]
HERE = [shape for shape in SHAPES if shape not in PROCESSES]
ELSEWHERE = {"forks", "starts a thread that raises"}
"""Ways that are for a process of the instance's own."""


def ways(shape: str) -> list[str]:
    """All ways for an instance with a process of its own; each third one for an object of this process."""
    if shape in PROCESSES:
        return list(HOW)
    return [how for how in list(HOW)[HERE.index(shape) % 3 :: 3] if how not in ELSEWHERE]


def shapes_of(engine: str) -> list[str]:
    """The shapes that are tried over an engine: in the short form over the second one those with a process alone."""
    return [*PROCESSES, *(HERE if engine == "amqtt" else [])]


@pytest.fixture(params=EMBEDDED)
def caller(request: pytest.FixtureRequest) -> Iterator[tuple[Ether, list[str]]]:
    """A program that calls what another one has, and the names of that."""
    own, guest = Ether(), Ether()
    instances = {name: {"class_path": f"shape_parts.{name}", "args": list(SHAPES[name])} for name in PROCESSES}
    described = {"broker": {"engine": request.param}, "instances": instances, "registry": REGISTRY}
    own.tap(described, timeout_s=patience(60))
    for shape in HERE if request.param == "amqtt" else ():
        own.host(getattr(shape_parts, shape)(*SHAPES[shape]), shape)
    guest.tap(broker=own.broker_url, timeout_s=patience(10))
    yield guest, shapes_of(request.param)
    guest.shutdown()
    own.shutdown()


def test_the_table_has_thirty_shapes_and_twenty_ways() -> None:
    assert len(SHAPES) >= 30
    assert len(HOW) >= 20


def test_every_way_out_of_every_shape(caller: tuple[Ether, list[str]]) -> None:
    ether, shapes = caller
    pids = {shape: pid_of(ether, shape) for shape in shapes}
    wrong = [line for shape in shapes for how in ways(shape) for line in cell(ether, shape, how)]
    assert not wrong, "\n".join(wrong)
    assert {shape: pid_of(ether, shape) for shape in shapes} == pids


def pid_of(caller: Ether, shape: str) -> Any:
    return next(each["pid"] for each in caller.instances() if each["name"] == shape and each["state"] == "ready")


def cell(caller: Ether, shape: str, how: str) -> Iterator[str]:
    """What is wrong with one cell of the matrix."""
    told, wanted = told_of(caller, shape, how), expected(shape, how)
    if told[0] != wanted[0] or (told[1] != wanted[1] if wanted[0] == "" else str(wanted[1]) not in told[1]):
        yield f"{shape} {how}: told {told}, not {wanted}"
    before = caller.get(shape, "count", timeout_s=patience(5))
    caller.pub({"how": how}, topic=f"do/{shape}")
    caller.pub({"how": "returns"}, topic=f"do/{shape}")
    if not soon(lambda: caller.get(shape, "count", timeout_s=patience(5)) == before + 2, patience(5)):
        yield f"{shape} {how}: the next message was not handled"


def told_of(caller: Ether, shape: str, how: str) -> tuple[str, Any]:
    """The class and the text of the error, or "" and the value."""
    try:
        return "", caller.get(shape, "run", {"how": how}, timeout_s=patience(10))
    except RemoteError as error:
        if (how == "returns what cannot travel") != isinstance(error, AnswerNotSent):
            return "", error
        return error.remote_class, error.remote_message
