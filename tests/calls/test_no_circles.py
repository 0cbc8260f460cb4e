"""A call, a save, a message and a record leave no garbage in a circle: what is settled forgets whom it told.

Objects that hold one another in a circle live until Python looks for them. While every call left a score of them, the
collector ran all the time over everything that the program holds, and no memory of a call was used for the next one.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator

import pytest
from circle_parts import unreachable

from ether import Ether

COUNT = 100
"""Operations of each kind. A circle a time would be at least two hundred objects."""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the lab is that of the other tests of calls")


def fails(ether: Ether) -> None:
    with contextlib.suppress(ValueError):
        ether.get("far", "fail")


OPERATIONS: dict[str, Callable[[Ether], object]] = {
    "get": lambda ether: ether.get("far", "echo", "x"),
    "get of async": lambda ether: ether.get("far", "echo_later", "x"),
    "get that fails": fails,
    "get, collected later": lambda ether: ether.collect(ether.get_later("far", "echo", "x")),
    "save": lambda ether: ether.save("far", "keep", "x"),
    "save, collected later": lambda ether: ether.collect(ether.save_later("far", "keep", "x")),
    "proxy": lambda ether: ether.instance("far").echo("x"),
    "sync": lambda ether: ether.sync("prepare", text="x"),
    "message at QoS 0": lambda ether: ether.pub("x", topic="taken/0", qos=0),
    "message at QoS 1": lambda ether: ether.pub("x", topic="taken/1"),
    "message through a stage": lambda ether: ether.pub("x", topic="staged"),
    "recorded message": lambda ether: ether.pub("x", topic="kept"),
    "record": lambda ether: ether.record("x", "noted").wait(),
}


@pytest.fixture(scope="module")
def ether(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ether]:
    lab = {
        "instances": {"far": {"class_path": "circle_parts.Far"}},
        "record": {"topics": ["kept"], "folder": str(tmp_path_factory.mktemp("circles") / "ledger")},
    }
    own = Ether()
    with own.tap(lab):
        for operation in OPERATIONS.values():  # files and threads that the first of its kind opens
            operation(own)
        yield own


@pytest.mark.parametrize("kind", OPERATIONS)
def test_what_is_over_leaves_nothing_to_be_collected(ether: Ether, kind: str) -> None:
    operation = OPERATIONS[kind]
    ether.get("far", "begin")
    unreachable()
    gc.disable()
    try:
        for _ in range(COUNT):
            operation(ether)
        theirs = ether.get("far", "found")  # behind everything that this program has sent
    finally:
        gc.enable()
    ours = unreachable()
    assert (ours < COUNT, theirs < COUNT) == (True, True), f"{kind}: {ours} objects here, {theirs} at the instance"
