"""Fences, epochs and numbers that cannot have come silence nobody."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator

import pytest
from attack_parts import PREFIX, Attacker, Target, target
from engine_params import EMBEDDED
from patience import patience

from ether.protocol.presence import Announcement, PresenceTable, State
from ether.protocol.reorder_buffer import LONGEST_JUMP, ReorderBuffer
from ether.protocol.retransmit_buffer import Resent


@pytest.fixture(scope="module", params=EMBEDDED)
def attacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(request.param, tmp_path_factory.mktemp("names")) as session:
        yield session


@pytest.mark.attack("M6", "a forged fence with a high epoch", "`control/fence` for the instance's own name")
@pytest.mark.attack("M7", "a fence for nobody, with another's node", "`control/fence` for a name that nobody has")
@pytest.mark.attack("M11", "an announcement with the epoch 10^9", "retained on the instance's topic")
def test_no_forged_word_ends_or_silences_an_instance(attacked: Target) -> None:
    with Attacker(attacked.broker) as evil:
        about = evil.about("sensor")
        node = about["node"]
        evil.send("control/fence", {"name": "nobody", "epoch": 1, "nodes": [node]})
        evil.send("control/fence/nobody", {"name": "nobody", "epoch": 1, "nodes": [node]})
        for epoch in (10**6, 2**62):
            evil.send("control/fence", {"name": "sensor", "epoch": epoch, "nodes": ["0" * 12]})
            evil.send("control/fence/evil", {"name": "sensor", "epoch": epoch, "nodes": ["0" * 12]})
        evil.send("state/sensor", {**about, "epoch": 10**9, "birth": "evil"}, retain=True)
        back = evil.wait_for(
            lambda it: (
                it.topic == PREFIX + "state/sensor" and json.loads(it.payload or b"{}").get("birth") == about["birth"]
            )
        )
        assert back, "it announces itself again"
        with attacked.own.subscribe("temperature") as heard:
            attacked.own.pub({"celsius": 21.5}, topic="wanted")
            assert heard.get(timeout_s=patience(10)).value == {"celsius": 21.5}
        assert attacked.lives()
        assert [it["state"] for it in attacked.own.instances() if it["name"] == "sensor"] == ["ready"]


@pytest.mark.attack("M8", "a message with the number 2^62", "the victim's node and source, on its topic")
def test_a_number_that_cannot_have_come_silences_nobody(attacked: Target) -> None:
    with Attacker(attacked.broker) as evil, attacked.own.subscribe("temperature") as heard:
        attacked.own.pub({"celsius": 1.0}, topic="wanted")
        assert heard.get(timeout_s=patience(10)).value == {"celsius": 1.0}
        node = evil.about("sensor")["node"]
        forged_id = f"{str(uuid.UUID(int=time.time_ns() // 1_000_000 << 80 | 7 << 76))[:24]}{node}"
        evil.send("data/temperature", {"celsius": -1.0}, id=forged_id, source="sensor", seq=2**62)
        attacked.own.pub({"celsius": 2.0}, topic="wanted")
        assert heard.get(timeout_s=patience(10)).value == {"celsius": 2.0}


def test_numbers_that_cannot_have_come_are_counted() -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer()
    buffer.listen("t", 0.0)
    assert buffer.arrived("t", "node", "cam", 5, 5, 1, 0.0) is not None
    assert buffer.arrived("t", "node", "cam", 6 + LONGEST_JUMP, 0, 1, 0.0) is None
    buffer.heard_heads("node", {"t": 2**62}, ["t"], "me", 0.0)
    buffer.answered("node", [Resent("t", 5, 0, 2**62, 2**62, [])], 0.0)
    assert buffer.jumped == 3
    assert buffer.passes("t", "node", 6)
    far = buffer.arrived("t", "node", "cam", 6 + LONGEST_JUMP, 0, 1, 0.0)
    assert far is not None
    assert far.ready == []


def test_an_epoch_that_cannot_have_come_changes_nothing() -> None:
    table = PresenceTable()

    def announced(epoch: int, incarnation: str) -> bool:
        return table.apply(Announcement("cam", State.READY, incarnation, about={"epoch": epoch}))

    assert announced(3, "first")
    assert not announced(10**9, "evil")
    assert announced(4, "second")
    table.forget("cam")
    assert not announced(10**9, "evil")
    assert announced(5, "third")
